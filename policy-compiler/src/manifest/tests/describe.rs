//! Policies and pods in a line, for tables.

use std::collections::BTreeSet;

use crate::model::{
    ClusterNetworkPolicy, Direction, IpBlock, LabelSelector, NamespaceScope, NetworkPolicy, Operator, Peer,
    Pod, PortMatch, Requirement, Rule, TierRule,
};

/// `SUBJECTS; ingress RULES; egress RULES`, a direction only where it is isolated.
pub(super) fn policy(policy: &NetworkPolicy) -> String {
    let direction = |name: &str, rules: Option<&[Rule]>| {
        let rules = rules?;
        Some(format!("; {name} [{}]", rules.iter().map(rule).collect::<Vec<_>>().join(" | ")))
    };
    let ingress = direction("ingress", policy.rules(Direction::Ingress)).unwrap_or_default();
    let egress = direction("egress", policy.rules(Direction::Egress)).unwrap_or_default();
    format!("{}{ingress}{egress}", selector(&policy.subjects))
}

/// `PEERS : PORTS`, `any` where there is no restriction and `none` where nothing matches.
fn rule(rule: &Rule) -> String {
    fn list<T>(entries: Option<&[T]>, show: impl Fn(&T) -> String) -> String {
        match entries {
            None => "any".to_owned(),
            Some([]) => "none".to_owned(),
            Some(entries) => entries.iter().map(show).collect::<Vec<_>>().join(", "),
        }
    }
    format!("{} : {}", list(rule.peers.as_deref(), peer), list(rule.ports.as_deref(), port))
}

/// `TIER PRIORITY NAMESPACES/PODS; ingress RULES; egress RULES`, a direction only where there are rules.
pub(super) fn cluster_policy(policy: &ClusterNetworkPolicy) -> String {
    let direction = |direction: Direction| {
        let rules = policy.rules(direction);
        let shown = rules.iter().map(tier_rule).collect::<Vec<_>>().join(" | ");
        if rules.is_empty() { shown } else { format!("; {direction} [{shown}]") }
    };
    let (tier, priority) = (policy.tier, policy.priority);
    let subject = peer(&Peer::Pods(policy.subject.clone()));
    let audited = if policy.audited { " audited" } else { "" };
    let rules = [Direction::Ingress, Direction::Egress].map(direction).concat();
    format!("{tier} {priority} {subject}{audited}{rules}")
}

/// `ACTION NAME PEERS : PORTS`
fn tier_rule(of: &TierRule) -> String {
    let name = of.name.as_deref().map(|name| format!("{name} ")).unwrap_or_default();
    format!("{} {name}{}", of.action, rule(&of.rule))
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Block(IpBlock { cidr, except }) => {
            except.iter().fold(cidr.to_string(), |block, hole| format!("{block} - {hole}"))
        }
        Peer::OwnNode => "own node".to_owned(),
        Peer::Nodes(nodes) => format!("nodes {}", selector(nodes)),
        Peer::Domains(domains) => domains.join(", "),
        Peer::Pods(pods) => match &pods.namespaces {
            NamespaceScope::Own => selector(&pods.pods),
            NamespaceScope::Matching(namespaces) => {
                format!("({})/({})", selector(namespaces), selector(&pods.pods))
            }
        },
    }
}

fn port(port: &PortMatch) -> String {
    match port {
        PortMatch::All(protocol) => protocol.to_string(),
        PortMatch::Range(protocol, range) if range.first() == range.last() => {
            format!("{protocol} {}", range.first())
        }
        PortMatch::Range(protocol, range) => format!("{protocol} {}-{}", range.first(), range.last()),
        PortMatch::Named(protocol, name) => format!("{protocol} {name}"),
    }
}

fn selector(selector: &LabelSelector) -> String {
    if selector.requirements.is_empty() {
        return "*".to_owned();
    }
    let requirement = |requirement: &Requirement| {
        let key = &requirement.key;
        let joined =
            |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join("|");
        match &requirement.operator {
            Operator::In(values) => format!("{key}={}", joined(values)),
            Operator::NotIn(values) => format!("{key}!={}", joined(values)),
            Operator::Exists => key.clone(),
            Operator::DoesNotExist => format!("!{key}"),
        }
    };
    selector.requirements.iter().map(requirement).collect::<Vec<_>>().join("&")
}

/// `NAMESPACE/NAME {LABELS} ADDRESSES PORTS on NODE, host network, finished`
pub(super) fn pod(pod: &Pod) -> String {
    let labels: Vec<_> = pod.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut parts = vec![format!("{} {{{}}}", pod.name, labels.join(","))];
    parts.extend(pod.addresses.iter().map(ToString::to_string));
    parts.extend(pod.ports.iter().map(|port| {
        let name = port.name.as_deref().map(|name| format!("{name}=")).unwrap_or_default();
        format!("{name}{}/{}", port.number, port.protocol)
    }));
    parts.extend(pod.node.as_deref().map(|node| format!("on {node}")));
    let host_network = if pod.host_network { ", host network" } else { "" };
    let finished = if pod.finished { ", finished" } else { "" };
    parts.join(" ") + host_network + finished
}
