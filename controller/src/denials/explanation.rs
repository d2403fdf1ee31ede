//! A denial in words.

use std::collections::BTreeSet;
use std::net::IpAddr;

use policy_compiler::explain::{Effect, Side};
use policy_compiler::judge::{Connection, Endpoint, Judge, Party};
use policy_compiler::model::{Direction, Family, ObjectName, Pod, PodsToNode};
use policy_compiler::ruleset::{LogEvent, LogPrefix, POLICY_NAME_MAX, SpoofReason};
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
        let explanation = match (&denial.prefix, denial.direction(), &denial.flow) {
            (LogPrefix::Spoofed(reason), _, flow) => Self::of_spoofed(*reason, flow.as_ref(), findings),
            (prefix, Some(direction), Some(flow)) => {
                Self::of_judged(prefix, direction, flow, &findings, pods_to_node)
            }
            _ => Self::default(),
        };
        Self { device, ..explanation }
    }

    fn of_judged(
        prefix: &LogPrefix,
        direction: Direction,
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
        let is = |of: LogEvent| matches!(prefix, LogPrefix::Judged { event, .. } if *event == of);
        if is(LogEvent::StrictStart) {
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
        let mut words = if objects(&decided) && is_said(prefix, &decided) {
            decided.to_string()
        } else {
            format!("{}the policies have changed since: {decided}", by_rule(prefix))
        };
        if is(LogEvent::Untracked) {
            words = format!("{UNTRACKED}. As a new connection: {words}");
        }
        if !other.verdict.allows() {
            words = format!("{words}. {} is denied too: {other}", other.direction());
        }
        let denying = [decided, other].into_iter().filter(objects);
        let mut policies: BTreeSet<_> =
            denying.flat_map(|side| side.denying().map(str::to_owned).collect::<Vec<_>>()).collect();
        if let LogPrefix::Tier { policy, .. } = prefix {
            policies.insert(policy.to_string());
        }
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
    pub(super) fn unknown(denial: &Denial) -> Self {
        let words = format!(
            "{}an agent before this one has programmed it; the policies are not known yet",
            by_rule(&denial.prefix)
        );
        Self { words, ..Self::default() }
    }

    /// The pod that is isolated, or that sent what is spoofed.
    pub(super) fn subject(&self, denial: &Denial) -> Option<&ObjectName> {
        match denial.direction() {
            Some(Direction::Ingress) => self.destination.as_ref(),
            Some(Direction::Egress) | None => self.source.as_ref(),
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
        if let LogPrefix::Spoofed(reason) = &denial.prefix {
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
            ($level:ident, $message:literal) => {
                $level!(
                    target: "podfence::denied",
                    direction = denial.direction().map(Direction::as_str),
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
        if denial.is_audited() {
            line!(info, "audited");
        } else {
            line!(warn, "denied");
        }
    }

    /// The connection and the words.
    pub(super) fn sentence(&self, denial: &Denial) -> String {
        let what = match denial.prefix {
            LogPrefix::Spoofed(reason) => format!("spoofed ({})", reason.as_str()),
            _ if denial.is_audited() => "audited".to_owned(),
            _ => "denied".to_owned(),
        };
        let at = self.device.as_ref().map(|device| format!(" at {device}")).unwrap_or_default();
        let Some(Flow { source, destination, transport, port }) = denial.flow else {
            return format!("a frame{at} {what}: {}", self.words);
        };
        let end = |pod: &Option<ObjectName>, address: IpAddr| {
            pod.as_ref().map_or_else(|| address.to_string(), |pod| format!("{pod} ({address})"))
        };
        let port = port.map(|port| format!("{port}/")).unwrap_or_default();
        let (source, destination) = match denial.direction() {
            Some(_) => (end(&self.source, source), end(&self.destination, destination)),
            None => (source.to_string(), destination.to_string()),
        };
        format!("{source} → {destination} {port}{transport}{at} {what}: {}", self.words)
    }
}

/// Whether a side denies, or audits, for the reason that the kernel gave.
fn is_said(prefix: &LogPrefix, side: &Side) -> bool {
    let by_tier = side.tiers.iter().any(|rule| rule.effect == Effect::Deny);
    match prefix {
        LogPrefix::Judged { event: LogEvent::Audited, .. } => {
            side.audited || by_tier && !side.policies.is_empty()
        }
        LogPrefix::Judged { event: LogEvent::Untracked, .. } => !side.audited,
        LogPrefix::Judged { .. } => !side.audited && !by_tier,
        LogPrefix::Tier { direction, audited, tier, policy, rule } => {
            let effect = if *audited { Effect::Audit } else { Effect::Deny };
            side.tiers.iter().any(|known| {
                known.effect == effect
                    && known.tier == tier.as_str()
                    && known.path == format!("{direction}[{rule}]")
                    && **policy == format!("{:.POLICY_NAME_MAX$}", known.policy)
            })
        }
        LogPrefix::Spoofed(_) => false,
    }
}

/// By which rule of a ClusterNetworkPolicy the kernel said that it was, if it did.
fn by_rule(prefix: &LogPrefix) -> String {
    match prefix {
        LogPrefix::Tier { direction, tier, policy, rule, .. } => {
            format!("by {tier} policy {policy} {direction}[{rule}]; ")
        }
        LogPrefix::Judged { .. } | LogPrefix::Spoofed(_) => String::new(),
    }
}
