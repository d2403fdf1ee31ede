//! The node's pods as the CNI plugin reports them: before the API server shows a pod's addresses, and until its sandbox
//! is gone.
//!
//! What the plugin reports is true until the pod's status says the same. From then on the status counts, without the
//! addresses of sandboxes that are gone. A pod whose object is deleted while its sandbox runs stays isolated: it is
//! taken for one that has finished.

mod server;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use podfence_cni::protocol::{Answer, Attachment, PodReference, Request, Sandbox};
use podfence_cni::records::{self, Records};
use policy_compiler::model::{ObjectName, Pod, PodUid};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, warn};

use crate::metrics::Metrics;
pub(crate) use server::Server;

/// How long the plugin waits at the most for a pod to be enforced. Its own patience is longer, so it hears the reason.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// How long it waits for a pod's door, unless doors are required: not every kind of link has one.
const DOOR_PATIENCE: Duration = Duration::from_millis(250);

/// A pod as it is to be enforced; `None` if there is none any more.
pub(crate) type Enforced = (ObjectName, Option<Pod>);

/// What the plugin asks, and who waits for the answer.
#[derive(Debug)]
pub(crate) struct Order {
    /// The question.
    pub(crate) request: Request,
    /// Takes the answer. To drop it is to refuse.
    pub(crate) answer: Sender<Answer>,
}

/// What the kernel enforces.
pub(crate) trait Enforcement {
    /// That the kernel is in step with the objects; if not, why.
    fn in_step(&self) -> Result<(), String>;

    /// How a pod's door is guarded.
    fn door(&self, pod: &ObjectName) -> Guard;

    /// Whether a table that was restored when the node booted enforces a pod, and nothing is known of the objects yet.
    fn is_restored(&self, sandbox: &Sandbox) -> bool;
}

/// How a pod's door is guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// It is, or none is.
    Complete,
    /// The door is unknown.
    Unknown {
        /// Whether the pod is cut off as long as that is so.
        required: bool,
    },
}

/// The sandboxes of the node, and what is known of their pods.
pub(crate) struct Sandboxes {
    node: String,
    records: Records,
    pods: BTreeMap<ObjectName, LocalPod>,
    attached: BTreeMap<Attachment, Attached>,
    waiting: Vec<Waiting>,
    /// Takes the names of pods that the source is to be asked for.
    unknown: UnboundedSender<ObjectName>,
    metrics: Arc<Metrics>,
}

/// A pod of the node, as the source has it.
struct LocalPod {
    pod: Pod,
    /// Whether the object is gone.
    gone: bool,
    /// The addresses that it has no more, whether its status shows them already or still.
    freed: BTreeSet<IpAddr>,
}

/// A sandbox that the plugin has reported.
struct Attached {
    sandbox: Sandbox,
    /// Whether the pod's status has said the same.
    settled: bool,
}

/// Somebody who waits until a pod is enforced.
struct Waiting {
    attachment: Attachment,
    since: Instant,
    answer: Sender<Answer>,
}

impl Sandboxes {
    /// Those of a node, of which an agent before this one has left records in a folder.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made or read.
    pub(crate) fn open(
        node: &str,
        folder: &Path,
        unknown: UnboundedSender<ObjectName>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, records::Error> {
        let records = Records::open(folder)?;
        let mut attached = BTreeMap::new();
        for record in records.all()? {
            match record {
                Ok(sandbox) => drop(attached.insert(sandbox.attachment.clone(), Attached::new(sandbox))),
                Err(error) => warn!(%error, "the record of a sandbox is passed over"),
            }
        }
        Ok(Self {
            node: node.to_owned(),
            records,
            pods: BTreeMap::new(),
            attached,
            waiting: Vec::new(),
            unknown,
            metrics,
        })
    }

    /// Takes in a pod as the source has it. Returns it as it is to be enforced.
    pub(crate) fn note(&mut self, name: &ObjectName, pod: Option<Pod>) -> Option<Pod> {
        match pod {
            Some(pod) if pod.node.as_deref() == Some(&self.node) && !pod.host_network => {
                let before = self.pods.remove(name).filter(|before| before.pod.uid == pod.uid);
                let mut freed = before.map(|before| before.freed).unwrap_or_default();
                // A status without addresses may be older than the sandbox that is gone.
                freed.retain(|address| pod.addresses.is_empty() || pod.addresses.contains(address));
                for attached in self.attached.values_mut().filter(|attached| attached.is_of(&pod)) {
                    let shown = |address| pod.addresses.contains(address);
                    attached.settled |= attached.sandbox.addresses.iter().all(shown);
                }
                self.pods.insert(name.clone(), LocalPod { pod, gone: false, freed });
                self.enforced(name)
            }
            None if self.pods.contains_key(name) => {
                self.pods.entry(name.clone()).and_modify(|local| local.gone = true);
                self.enforced(name)
            }
            other => other,
        }
    }

    /// Carries out what the plugin asks. Returns the pods that are to be enforced otherwise than before.
    pub(crate) fn take(
        &mut self,
        Order { request, answer }: Order,
        kernel: &impl Enforcement,
    ) -> Vec<Enforced> {
        debug!(?request, "the CNI plugin asks");
        // If nobody waits any more, the plugin has given up.
        let reply = |result: Result<(), String>| {
            let _ = answer.send(result.map_or_else(Answer::Refused, |()| Answer::Done));
        };
        match request {
            Request::Add(sandbox) => match self.records.put(&sandbox) {
                Ok(()) => {
                    let answer = if kernel.is_restored(&sandbox) {
                        reply(Ok(()));
                        None
                    } else {
                        Some(answer)
                    };
                    return self.add(sandbox, answer);
                }
                Err(error) => reply(Err(records_fault(&error))),
            },
            Request::Del(attachment) => {
                let changed = self.remove(&[attachment]);
                reply(Ok(()));
                return changed;
            }
            Request::Gc { valid } => {
                let gone: Vec<_> =
                    self.attached.keys().filter(|attachment| !valid.contains(attachment)).cloned().collect();
                let changed = self.remove(&gone);
                reply(Ok(()));
                return changed;
            }
            Request::Check(sandbox) => reply(self.check(&sandbox, kernel)),
            Request::Status => reply(kernel.in_step()),
        }
        Vec::new()
    }

    /// Answers those whose pods are enforced by now, or who have waited long enough.
    pub(crate) fn answer(&mut self, kernel: &impl Enforcement) {
        let waiting = std::mem::take(&mut self.waiting);
        let left = waiting.into_iter().filter(|waiting| {
            let Some(attached) = self.attached.get(&waiting.attachment) else { return false };
            let waited = waiting.since.elapsed();
            let answer = match self.guard_of(attached, kernel) {
                Ok(Guard::Complete) => Answer::Done,
                Ok(Guard::Unknown { required: false }) if waited >= DOOR_PATIENCE => Answer::Done,
                _ if waited < LONGEST_WAIT => return true,
                Ok(Guard::Unknown { .. }) => Answer::Refused(door_is_unknown(attached)),
                Err(reason) => Answer::Refused(reason),
            };
            if answer == Answer::Done {
                self.metrics.sandbox_enforced(waited);
            }
            // If nobody waits any more, the plugin has given up.
            let _ = waiting.answer.send(answer);
            false
        });
        self.waiting = left.collect();
    }

    /// When to look again at those who wait, if nothing happens.
    pub(crate) fn look_again(&self) -> Option<Instant> {
        let now = Instant::now();
        let times = self.waiting.iter().map(|waiting| {
            let for_door = waiting.since + DOOR_PATIENCE;
            if for_door > now { for_door } else { waiting.since + LONGEST_WAIT }
        });
        times.min()
    }

    /// Attaches a sandbox. What has one of its addresses otherwise has it no more.
    fn add(&mut self, sandbox: Sandbox, answer: Option<Sender<Answer>>) -> Vec<Enforced> {
        let mut attached = Attached::new(sandbox);
        let name = attached.name();
        let shares = |other: &Attached| {
            other.sandbox.addresses.iter().any(|address| attached.sandbox.addresses.contains(address))
        };
        let others: Vec<_> = self
            .attached
            .iter()
            .filter(|(attachment, other)| **attachment != attached.sandbox.attachment && shares(other))
            .map(|(attachment, _)| attachment.clone())
            .collect();
        let mut changed = self.remove(&others);
        if let Some(local) = self.pods.get_mut(&name).filter(|local| attached.is_of(&local.pod)) {
            local.freed.retain(|address| !attached.sandbox.addresses.contains(address));
            attached.settled =
                attached.sandbox.addresses.iter().all(|address| local.pod.addresses.contains(address));
        } else {
            // Without the source there is nobody to ask.
            let _ = self.unknown.send(name.clone());
        }
        let attachment = attached.sandbox.attachment.clone();
        self.attached.insert(attachment.clone(), attached);
        self.waiting.extend(answer.map(|answer| Waiting { attachment, since: Instant::now(), answer }));
        let enforced = self.enforced(&name);
        changed.extend(enforced.map(|pod| (name, Some(pod))));
        changed
    }

    /// Forgets sandboxes, and frees their addresses.
    fn remove(&mut self, attachments: &[Attachment]) -> Vec<Enforced> {
        let mut changed = BTreeSet::new();
        for attachment in attachments {
            if let Err(error) = self.records.delete(attachment) {
                warn!("{}", records_fault(&error));
            }
            let Some(attached) = self.attached.remove(attachment) else { continue };
            let name = attached.name();
            if let Some(local) = self.pods.get_mut(&name).filter(|local| attached.is_of(&local.pod)) {
                local.freed.extend(&attached.sandbox.addresses);
                changed.insert(name);
            }
        }
        changed.into_iter().map(|name| (name.clone(), self.enforced(&name))).collect()
    }

    fn check(&self, sandbox: &Sandbox, kernel: &impl Enforcement) -> Result<(), String> {
        let Some(attached) = self.attached.get(&sandbox.attachment) else {
            return Err(format!("{} is not attached", sandbox.attachment));
        };
        if attached.sandbox.addresses != sandbox.addresses {
            let [was, is] = [&attached.sandbox, sandbox].map(|sandbox| {
                let addresses: Vec<_> = sandbox.addresses.iter().map(IpAddr::to_string).collect();
                addresses.join(", ")
            });
            return Err(format!("{} was attached with the addresses {was}, not {is}", sandbox.attachment));
        }
        match self.guard_of(attached, kernel)? {
            Guard::Unknown { required: true } => Err(door_is_unknown(attached)),
            Guard::Unknown { required: false } | Guard::Complete => Ok(()),
        }
    }

    /// How the door of a sandbox's pod is guarded, if the kernel has the pod's policies; else why not.
    fn guard_of(&self, attached: &Attached, kernel: &impl Enforcement) -> Result<Guard, String> {
        let name = attached.name();
        if self.pods.get(&name).is_none_or(|local| !attached.is_of(&local.pod)) {
            return Err(format!(
                "pod {name} with this UID is unknown on node {}: no object of the API server shows it",
                self.node
            ));
        }
        kernel.in_step().map(|()| kernel.door(&name))
    }

    /// A pod as it is to be enforced. Forgets one that is gone.
    fn enforced(&mut self, name: &ObjectName) -> Option<Pod> {
        let local = self.pods.get(name)?;
        let own = || self.attached.values().filter(|attached| attached.is_of(&local.pod));
        let of_sandboxes = || {
            let addresses: BTreeSet<IpAddr> =
                own().flat_map(|attached| attached.sandbox.addresses.iter().copied()).collect();
            addresses.into_iter().collect()
        };
        if local.gone {
            let lives = own().next().is_some();
            let pod = lives.then(|| Pod { finished: true, addresses: of_sandboxes(), ..local.pod.clone() });
            if pod.is_none() {
                self.pods.remove(name);
            }
            return pod;
        }
        let mut pod = local.pod.clone();
        if own().any(|attached| !attached.settled) {
            pod.addresses = of_sandboxes();
        } else {
            pod.addresses.retain(|address| !local.freed.contains(address));
        }
        Some(pod)
    }
}

impl Attached {
    fn new(sandbox: Sandbox) -> Self {
        Self { sandbox, settled: false }
    }

    /// The name of its pod.
    fn name(&self) -> ObjectName {
        let PodReference { namespace, name, .. } = &self.sandbox.pod;
        ObjectName::new(&**namespace, &**name)
    }

    /// Whether it is one of this pod, and not of another that has had the same name.
    fn is_of(&self, pod: &Pod) -> bool {
        let uid = self.sandbox.pod.uid.as_deref().and_then(PodUid::parse);
        self.name() == pod.name && uid.zip(pod.uid).is_none_or(|(uid, other)| uid == other)
    }
}

fn door_is_unknown(attached: &Attached) -> String {
    format!("the door of pod {} is unknown, and doors are required", attached.name())
}

fn records_fault(error: &records::Error) -> String {
    format!("the agent cannot keep its record of the sandbox: {}", crate::error::chain(error))
}
