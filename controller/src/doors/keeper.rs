//! The doors as the enforcer has them: found before each change is compiled, and reported where they are missing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy_compiler::compile::Compiler;
use policy_compiler::model::{Direction, ObjectName, Pod};
use policy_compiler::ruleset::Hook;
use tokio::sync::mpsc::Sender;
use tracing::{info, warn};

use super::{DoorOptions, Finder, Missing};
use crate::denials::{About, Denial, Findings, Notice};
use crate::kernel::{Place, Table};
use crate::metrics::Metrics;
use crate::sandboxes::Guard;

/// How long a pod may be without a door before that is reported: one that ends loses it before its object is gone.
const GRACE: Duration = Duration::from_secs(2);

/// Keeps the compiler informed about doors.
pub(crate) struct DoorKeeper {
    finder: Finder,
    /// Whether what pods send to tunnels of the nodes passes, and whether a pod whose door is unknown is closed.
    options: DoorOptions,
    notices: Sender<Notice>,
    metrics: Arc<Metrics>,
    lacking: BTreeMap<ObjectName, Lack>,
}

/// A pod without a door.
struct Lack {
    since: Instant,
    reported: bool,
}

impl DoorKeeper {
    pub(crate) fn new(
        finder: Finder,
        options: DoorOptions,
        notices: Sender<Notice>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { finder, options, notices, metrics, lacking: BTreeMap::new() }
    }

    /// Takes in a pod as it is now; `None` if it is gone.
    pub(crate) fn note(&mut self, name: &ObjectName, pod: Option<&Pod>) {
        self.finder.note(name, pod);
    }

    /// How a pod's door is guarded, if the kernel is in step.
    pub(crate) fn guard(&self, pod: &ObjectName) -> Guard {
        if self.finder.doors().of_pods.contains_key(pod) {
            Guard::Complete
        } else {
            Guard::Unknown { required: self.options.required }
        }
    }

    /// Devices or routes have changed.
    pub(crate) fn links_changed(&mut self) {
        self.finder.links_changed();
    }

    /// Takes over the doors that an agent before this one guarded.
    pub(crate) fn recall(&mut self, table: Option<&Table>) {
        let chains = table.into_iter().flat_map(|table| &table.chains);
        self.finder.recall(chains.filter_map(|(name, chain)| {
            let Place::Hook(Hook::Ingress(device)) = &chain.place else { return None };
            let pod = chain.rules.last()?.comment.as_deref().filter(|_| name.role().is_door())?;
            let (namespace, pod) = pod.split_once('/')?;
            Some((ObjectName::new(namespace, pod), device.clone()))
        }));
    }

    /// When to look for doors again if nothing happens.
    pub(crate) fn look_again(&self) -> Option<Instant> {
        let unreported = self.lacking.values().filter(|lack| !lack.reported).map(|lack| lack.since + GRACE);
        unreported.chain(self.finder.retry_after().map(|wait| Instant::now() + wait)).min()
    }

    /// The kernel has what was found: says how long the pods were there before.
    pub(crate) fn committed(&mut self) {
        for appeared in self.finder.take_opened() {
            self.metrics.pod_enforced(appeared.elapsed());
        }
    }

    /// Finds the doors as they are now, and hands them to the compiler.
    pub(crate) fn find(&mut self, compiler: &mut Compiler) {
        match self.finder.find() {
            Ok(true) => {
                let mut doors = self.finder.doors().clone();
                if self.options.allow_tunnels {
                    doors.tunnels.clear();
                }
                compiler.put_doors(&doors);
            }
            Ok(false) => {}
            Err(error) => warn!(%error, "doors cannot be looked for; those that are known stay guarded"),
        }
        self.report();
    }

    /// Reports pods that have been without a door for a while, once.
    fn report(&mut self) {
        let missing = self.finder.missing();
        self.metrics.doors(self.finder.doors().of_pods.len(), missing.len());
        self.lacking.retain(|pod, lack| {
            let lacks = missing.contains_key(pod);
            if !lacks && lack.reported {
                info!(%pod, "the pod's door is known");
            }
            lacks
        });
        let now = Instant::now();
        for (pod, reason) in missing {
            let lack = self.lacking.entry(pod.clone()).or_insert(Lack { since: now, reported: false });
            if lack.reported || now.duration_since(lack.since) < GRACE {
                continue;
            }
            lack.reported = true;
            let why = match reason {
                Missing::NotFound => {
                    "no route leads to a device of its own, and no port of a bridge shows its address"
                }
                Missing::Contested => "several devices show its addresses",
            };
            warn!(%pod, why, "the pod's door is unknown");
            let message = format!("the pod's door is unknown: {why}");
            let notice = Notice { pod: pod.clone(), about: About::NoDoor, packets: 1, message };
            // Where nobody is notified, or many notices wait already, the log has it.
            let _ = self.notices.try_send(notice);
        }
    }

    /// A pod that is bound to another node and is behind a device of this one, while no pod of this node has a door.
    /// Then this node is probably not the one whose name it was given.
    pub(crate) fn pod_of_another_node(&mut self, compiler: &Compiler) -> Option<Pod> {
        if !self.finder.doors().of_pods.is_empty() {
            return None;
        }
        let shown = match self.finder.shown_by_others() {
            Ok(shown) => shown,
            Err(error) => {
                warn!(%error, "cannot examine whether the node's name is right");
                return None;
            }
        };
        let cluster = compiler.excerpt(shown.iter().copied(), []);
        let has_shown = |pod: &&Pod| {
            let elsewhere = pod.node.as_deref().is_some_and(|node| !self.finder.is_node(node));
            elsewhere && !pod.host_network && pod.addresses.iter().any(|address| shown.contains(address))
        };
        cluster.pods().values().find(has_shown).cloned()
    }

    /// Finds what the addresses of packets do not say: at which device they were dropped, and which pods are at their
    /// ends.
    pub(crate) fn examine(&mut self, denial: &Denial, findings: &mut Findings) {
        let doors = &self.finder.doors().of_pods;
        let sender = denial.flow.and_then(|flow| {
            let IpAddr::V6(source) = flow.source else { return None };
            doors.iter().find(|(_, door)| door.link_local.contains(&source)).map(|(name, _)| name.clone())
        });
        let [mut source, mut destination] = [sender, None];
        if let Some((device, pod)) = denial.device.and_then(|index| self.finder.device(index)) {
            match denial.direction() {
                Some(Direction::Ingress) => destination = pod,
                Some(Direction::Egress) => source = pod,
                None => {
                    source = pod;
                    self.finder.refresh(&device);
                }
            }
            findings.device = Some(device);
        }
        findings.ends = [source, destination];
    }
}
