//! A denial in words.

use std::collections::BTreeSet;
use std::net::IpAddr;

use policy_compiler::explain::Side;
use policy_compiler::judge::{Connection, Endpoint, Judge, Party};
use policy_compiler::model::{Direction, Family, ObjectName, Pod, PodsToNode};
use policy_compiler::ruleset::{LogEvent, LogPrefix, SpoofReason};
use tracing::{info, warn};

use super::{Denial, Findings, Flow};

/// Why an answer to something that is allowed may be among what is denied.
const UNTRACKED: &str =
    "untracked: conntrack does not track this flow, so answers cannot be told from new connections";

/// Who the ends are, and what the policies say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Explanation {
    source: Option<ObjectName>,
    destination: Option<ObjectName>,
    /// The device at which the packet was dropped.
    device: Option<String>,
    /// The policies that isolate in a direction that denies.
    policies: BTreeSet<String>,
    words: String,
}

impl Explanation {
    /// Judges the packets by the policies in the findings, which hold all that decide about them.
    pub(super) fn of(denial: &Denial, findings: Findings, pods_to_node: PodsToNode) -> Self {
        let device = findings.device.as_deref().map(str::to_owned);
        let explanation = match (denial.prefix, &denial.flow) {
            (LogPrefix::Judged { direction, event }, Some(flow)) => {
                Self::of_judged((direction, event), flow, &findings, pods_to_node)
            }
            (LogPrefix::Spoofed(reason), flow) => Self::of_spoofed(reason, flow.as_ref(), findings),
            (LogPrefix::Judged { .. }, None) => Self::default(),
        };
        Self { device, ..explanation }
    }

    fn of_judged(
        (direction, event): (Direction, LogEvent),
        flow: &Flow,
        findings: &Findings,
        pods_to_node: PodsToNode,
    ) -> Self {
        let cluster = &findings.cluster;
        let judge = Judge::new(cluster).with_pods_to_node(pods_to_node);
        let party = |pod: &Option<ObjectName>, address| {
            let pod = pod.as_ref().and_then(|name| cluster.pods().get(name));
            judge.party(pod.map_or(Endpoint::Address(address), Endpoint::Pod))
        };
        let [source, destination] = &findings.ends;
        let (from, to) = (party(source, flow.source), party(destination, flow.destination));
        let name = |party: &Party<'_>| party.pod().map(|pod: &Pod| pod.name.clone());
        let named = Self { source: name(&from), destination: name(&to), ..Self::default() };
        if event == LogEvent::StrictStart {
            let address = match direction {
                Direction::Egress => flow.source,
                Direction::Ingress => flow.destination,
            };
            let words =
                format!("strict start: no known pod has {address}, an address of this node's pod ranges");
            return Self { words, ..named };
        }
        let family = Some(Family::of(flow.source));
        // Where a pod reaches itself without one, its packets do not leave it.
        let through_service = true;
        let connection = Connection { from, to, family, traffic: flow.traffic(), through_service };
        let side = |direction| Side::new(&judge, direction, &connection);
        let decided = side(direction);
        let other = side(match direction {
            Direction::Egress => Direction::Ingress,
            Direction::Ingress => Direction::Egress,
        });
        let objects = |side: &Side| side.audited || !side.verdict.allows();
        let as_it_was = objects(&decided) && decided.audited == (event == LogEvent::Audited);
        let mut words = if as_it_was {
            decided.to_string()
        } else {
            format!("the policies have changed since: {decided}")
        };
        if event == LogEvent::Untracked {
            words = format!("{UNTRACKED}. As a new connection: {words}");
        }
        if !other.verdict.allows() {
            words = format!("{words}. {} is denied too: {other}", other.direction());
        }
        let denying = [decided, other].into_iter().filter(objects);
        let policies =
            denying.flat_map(|side| side.denying().map(str::to_owned).collect::<Vec<_>>()).collect();
        Self { policies, words, ..named }
    }

    fn of_spoofed(reason: SpoofReason, flow: Option<&Flow>, findings: Findings) -> Self {
        let [sender, _] = findings.ends;
        // Who sends what comes in elsewhere is unknown. It is about the pod whose address is used.
        let mut pods = findings.cluster.pods().values();
        let mut owner = || flow.and_then(|flow| pods.find(|pod| pod.addresses.contains(&flow.source)));
        let source =
            if reason == SpoofReason::Elsewhere { owner().map(|pod| pod.name.clone()) } else { sender };
        let words = match reason {
            SpoofReason::Source => "the source is not the pod's",
            SpoofReason::LinkAddress => "the link address that the frame comes from is not the pod's",
            SpoofReason::Arp => "ARP that speaks for an address that is not the pod's",
            SpoofReason::NeighbourDiscovery => {
                "neighbour discovery that speaks for an address that is not the pod's, or for a router"
            }
            SpoofReason::Tag => "the frame has a VLAN tag",
            SpoofReason::EtherType => "the frame carries neither IP nor ARP",
            SpoofReason::Tunnel => {
                "it is encapsulated for a tunnel of the nodes (--allow-pod-tunnels lets it pass)"
            }
            SpoofReason::Elsewhere => {
                "it comes in elsewhere with the source of a pod that has a door on this node"
            }
        };
        Self { source, words: words.to_owned(), ..Self::default() }
    }

    /// Where there is nothing to judge by.
    pub(super) fn unknown() -> Self {
        let words = "an agent before this one has programmed it; the policies are not known yet".to_owned();
        Self { words, ..Self::default() }
    }

    /// The pod that is isolated, or that sent what is spoofed.
    pub(super) fn subject(&self, denial: &Denial) -> Option<&ObjectName> {
        match denial.prefix {
            LogPrefix::Judged { direction: Direction::Ingress, .. } => self.destination.as_ref(),
            LogPrefix::Judged { direction: Direction::Egress, .. } | LogPrefix::Spoofed(_) => {
                self.source.as_ref()
            }
        }
    }

    /// Writes a line into the log.
    pub(super) fn log(&self, denial: &Denial, packets: u64) {
        let flow = denial.flow.as_ref();
        let (source, destination) = (flow.map(|flow| flow.source), flow.map(|flow| flow.destination));
        let (protocol, port) = (flow.map(|flow| flow.transport), flow.and_then(|flow| flow.port));
        let (source, destination) =
            (source.map(tracing::field::display), destination.map(tracing::field::display));
        let protocol = protocol.map(tracing::field::display);
        let name = |pod: &Option<ObjectName>| pod.as_ref().map(ToString::to_string);
        let device = self.device.as_deref();
        if let LogPrefix::Spoofed(reason) = denial.prefix {
            let (reason, pod) = (reason.as_str(), name(&self.source));
            warn!(
                target: "podfence::denied",
                reason, pod, device, source, destination, protocol, port,
                explanation = self.words,
                packets,
                "spoofed"
            );
            return;
        }
        let policies = self.policies.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        macro_rules! line {
            ($level:ident, $direction:expr, $message:literal) => {
                $level!(
                    target: "podfence::denied",
                    direction = $direction.as_str(),
                    source,
                    source_pod = name(&self.source),
                    destination,
                    destination_pod = name(&self.destination),
                    protocol,
                    port,
                    device,
                    policies,
                    explanation = self.words,
                    packets,
                    $message
                )
            };
        }
        match denial.prefix {
            LogPrefix::Judged { direction, event: LogEvent::Audited } => line!(info, direction, "audited"),
            LogPrefix::Judged { direction, .. } => line!(warn, direction, "denied"),
            LogPrefix::Spoofed(_) => {}
        }
    }

    /// The connection and the words.
    pub(super) fn sentence(&self, denial: &Denial) -> String {
        let what = match denial.prefix {
            LogPrefix::Judged { event: LogEvent::Audited, .. } => "audited".to_owned(),
            LogPrefix::Judged { .. } => "denied".to_owned(),
            LogPrefix::Spoofed(reason) => format!("spoofed ({})", reason.as_str()),
        };
        let at = self.device.as_ref().map(|device| format!(" at {device}")).unwrap_or_default();
        let Some(Flow { source, destination, transport, port }) = denial.flow else {
            return format!("a frame{at} {what}: {}", self.words);
        };
        let end = |pod: &Option<ObjectName>, address: IpAddr| {
            pod.as_ref().map_or_else(|| address.to_string(), |pod| format!("{pod} ({address})"))
        };
        let port = port.map(|port| format!("{port}/")).unwrap_or_default();
        let (source, destination) = match denial.prefix {
            LogPrefix::Judged { .. } => (end(&self.source, source), end(&self.destination, destination)),
            LogPrefix::Spoofed(_) => (source.to_string(), destination.to_string()),
        };
        format!("{source} → {destination} {port}{transport}{at} {what}: {}", self.words)
    }
}
