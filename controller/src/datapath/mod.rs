//! The data path: whether packets of the node's pods traverse the hooks of the table at all.
//!
//! What the kernel is configured to keep away from the hooks is let through whatever the table says. That is
//! noticed here, in a thread of its own, and mended where that takes no more than a bridge's own setting.

mod problem;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use policy_compiler::model::{Family, ObjectName};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::health::{Condition, Health};
use crate::kernel::routes::{Link, Socket};
use crate::metrics::Metrics;
use crate::source::Update;

pub(crate) use problem::Problem;

/// How long nothing is examined at the most: no notice comes when a setting changes.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// The kinds of devices whose packets traverse the node's own network: those that pods are behind, and those that a
/// route leads to as long as a pod has no device yet (hardware has no kind).
const KNOWN: [&str; 14] = [
    "",
    "veth",
    "netkit",
    "tun",
    "vlan",
    "bond",
    "team",
    "dummy",
    "vxlan",
    "geneve",
    "ipip",
    "sit",
    "gre",
    "wireguard",
];

/// How long nothing is examined at the least, however often pods come and go.
const SHORTEST_REST: Duration = Duration::from_secs(1);

/// Hands the addresses of the node's pods to the thread that examines.
pub(crate) struct LocalPods {
    node: String,
    addresses: RefCell<BTreeMap<ObjectName, Vec<IpAddr>>>,
    examiner: Sender<BTreeSet<IpAddr>>,
}

impl LocalPods {
    /// Of the node of this name.
    pub(crate) fn new(node: &str, examiner: Sender<BTreeSet<IpAddr>>) -> Self {
        Self { node: node.to_owned(), addresses: RefCell::default(), examiner }
    }

    /// Takes changes in, and hands them on if they concern the node's pods.
    pub(crate) fn note(&self, updates: &[Update]) {
        let mut addresses = self.addresses.borrow_mut();
        let mut changed = false;
        for update in updates {
            let Update::Pod(name, pod) = update else { continue };
            let local =
                pod.as_ref().filter(|pod| pod.selectable() && pod.node.as_deref() == Some(&self.node));
            changed |= match local.map(|pod| pod.addresses.clone()) {
                Some(now) => addresses.insert(name.clone(), now.clone()) != Some(now),
                None => addresses.remove(name).is_some(),
            };
        }
        if changed {
            // If the thread is gone, it has said so itself.
            let _ = self.examiner.send(addresses.values().flatten().copied().collect());
        }
    }
}

/// Examines the way of packets to the node's pods.
pub(crate) struct Examiner {
    socket: Socket,
    health: Health,
    metrics: Arc<Metrics>,
    complaints: mpsc::Sender<Problem>,
    problems: BTreeSet<Problem>,
}

impl Examiner {
    /// One that has found nothing yet. Every examination sends the problems that it finds to `complaints`, whether
    /// or not they are new.
    pub(crate) fn new(
        socket: Socket,
        health: Health,
        metrics: Arc<Metrics>,
        complaints: mpsc::Sender<Problem>,
    ) -> Self {
        let examiner = Self { socket, health, metrics, complaints, problems: BTreeSet::new() };
        examiner.count();
        examiner
    }

    /// Examines whenever the addresses of the pods change, and now and then, until no more addresses come.
    pub(crate) fn run(mut self, pods: &Receiver<BTreeSet<IpAddr>>) {
        let mut addresses = BTreeSet::new();
        loop {
            match pods.recv_timeout(LONGEST_REST) {
                Ok(now) => addresses = pods.try_iter().last().unwrap_or(now),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            match self.examine(&addresses) {
                Ok(problems) => self.report(problems),
                Err(error) => warn!(%error, "the way of packets to the pods cannot be examined"),
            }
            thread::sleep(SHORTEST_REST);
        }
    }

    fn examine(&mut self, addresses: &BTreeSet<IpAddr>) -> io::Result<BTreeSet<Problem>> {
        let mut problems = BTreeSet::new();
        let mut ways = BTreeSet::new();
        for address in addresses {
            if let Some(route) = self.socket.route_to(*address)? {
                ways.insert((route.device, Family::of(*address)));
            }
        }
        for (device, family) in ways {
            if !forwards(family) {
                problems.insert(Problem::NoForwarding(family));
            }
            if let Some(link) = self.socket.link(device)? {
                problems.extend(self.examine_link(link, family));
            }
        }
        Ok(problems)
    }

    fn examine_link(&mut self, link: Link, family: Family) -> Option<Problem> {
        match link.kind.as_str() {
            "bridge" => self.mend_bridge(&link, family),
            "macvlan" | "macvtap" | "ipvlan" | "ipvtap" => {
                Some(Problem::Device { device: link.name.to_string(), kind: link.kind })
            }
            kind if KNOWN.contains(&kind) => None,
            _ => Some(Problem::UnknownDevice { device: link.name.to_string(), kind: link.kind }),
        }
    }

    /// Makes a bridge show its packets to netfilter, unless it does.
    fn mend_bridge(&mut self, link: &Link, family: Family) -> Option<Problem> {
        let bridge = link.name.to_string();
        let Some(all_bridges) = netfilter_on_bridges(family) else {
            return Some(Problem::NoBridgeNetfilter { bridge });
        };
        if all_bridges || link.calls_netfilter(family) {
            return None;
        }
        match self.socket.call_netfilter(link.index, family) {
            Ok(()) => {
                let family = problem::name(family);
                warn!(bridge, family, "packets between pods bypassed the rules; now the bridge shows them");
                None
            }
            Err(error) => Some(Problem::BlindBridge { bridge, family, reason: error.to_string() }),
        }
    }

    fn report(&mut self, problems: BTreeSet<Problem>) {
        for problem in problems.difference(&self.problems) {
            if problem.is_certain() {
                error!(%problem, "packets of pods bypass the rules");
            } else {
                warn!(%problem, "packets of pods may bypass the rules");
            }
        }
        for problem in self.problems.difference(&problems) {
            info!(%problem, "this is over");
        }
        for problem in &problems {
            // Not every source of objects has somebody to tell, and one that is busy will hear of it again.
            let _ = self.complaints.try_send(problem.clone());
        }
        let certain: Vec<_> =
            problems.iter().filter(|problem| problem.is_certain()).map(ToString::to_string).collect();
        if certain.is_empty() {
            self.health.good(Condition::Datapath);
        } else {
            self.health.bad(Condition::Datapath, certain.join("; "));
        }
        self.problems = problems;
        self.count();
    }

    fn count(&self) {
        for kind in Problem::KINDS {
            let of_kind = self.problems.iter().filter(|problem| problem.kind() == kind);
            self.metrics.datapath(kind, of_kind.count());
        }
    }
}

/// Whether the node forwards packets of a family.
fn forwards(family: Family) -> bool {
    let parameter = match family {
        Family::Ipv4 => "/proc/sys/net/ipv4/ip_forward",
        Family::Ipv6 => "/proc/sys/net/ipv6/conf/all/forwarding",
    };
    // A family that the kernel does not have has no routes either.
    is_set(parameter).unwrap_or(true)
}

/// Whether all bridges show packets of a family to netfilter; `None` where none can, for want of
/// `br_netfilter`.
fn netfilter_on_bridges(family: Family) -> Option<bool> {
    is_set(match family {
        Family::Ipv4 => "/proc/sys/net/bridge/bridge-nf-call-iptables",
        Family::Ipv6 => "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
    })
}

/// Whether a parameter of the kernel is something else than 0; `None` if there is no such parameter.
fn is_set(parameter: &str) -> Option<bool> {
    std::fs::read_to_string(parameter).ok().map(|value| value.trim() != "0")
}
