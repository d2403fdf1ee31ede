//! Why a rule does not cover a connection.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::resolve::{covers_port, is_inside, is_node};
use super::{Connection, Judge, Party};
use crate::model::{
    Cluster, Direction, IpBlock, LabelSelector, Labels, NamespaceScope, Operator, Peer, Pod, PodPeer,
    PortMatch, Requirement, Rule,
};

/// What a rule lacks to cover a connection. At least one of the two is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleMiss<'a> {
    /// Why each of the rule's peers, in their order, does not cover the other end.
    pub peers: Option<Vec<PeerMiss<'a>>>,
    /// The rule's ports, none of which covers the traffic.
    pub ports: Option<&'a [PortMatch]>,
}

/// Why a peer does not cover the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMiss<'a> {
    /// It selects pods; the other end is a pod in its node's network, which no selector matches.
    HostNetwork,
    /// It selects pods; the other end is a pod that has finished.
    Finished,
    /// It selects pods; the other end is no pod of the cluster.
    NoPod,
    /// Its selectors do not match.
    Selectors {
        /// The other end's pod.
        pod: &'a Pod,
        /// The only namespace that the peer looks into, if that is what fails: it has no `namespaceSelector`.
        only: Option<&'a str>,
        /// Why the pod's namespace has no labels but its name, if it has none.
        unlabelled: Option<Unlabelled>,
        /// What `namespaceSelector` asks in vain of the pod's namespace.
        namespace_labels: Vec<LabelMiss<'a>>,
        /// What `podSelector` asks in vain of the pod.
        pod_labels: Vec<LabelMiss<'a>>,
    },
    /// It is the node that runs the subject, and the other end is not.
    NotOwnNode,
    /// It selects nodes, and the other end is none of them.
    NoNode,
    /// It is a list of domain names, which nothing resolves.
    Domains,
    /// It is a block, and the other end is a pod that has no address yet.
    UnknownAddress,
    /// It is a block, and the other end has no address in the family of the connection.
    NoAddress,
    /// It is a block in which this address of the other end does not lie.
    OutsideBlock(IpAddr, IpNet),
    /// It is a block one of whose exceptions has this address of the other end.
    Excepted(IpAddr, IpNet),
}

/// Why a namespace has no labels but its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlabelled {
    /// Its object is not known, so that nothing but its name can match.
    Unknown,
    /// No manifest declares it, so that it is taken to have no other labels.
    Undeclared,
}

/// A requirement of a selector that labels do not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMiss<'a> {
    /// The label's key.
    pub key: &'a str,
    /// What is asked of it.
    pub operator: &'a Operator,
    /// What it is; `None` where the label is missing.
    pub value: Option<&'a str>,
}

impl RuleMiss<'_> {
    /// How far the rule is from covering the connection: the smaller, the nearer. Only the order counts.
    pub fn distance(&self) -> usize {
        let peers = self.peers.iter().map(|peers| peers.iter().map(PeerMiss::distance).min().unwrap_or(FAR));
        peers.sum::<usize>() + usize::from(self.ports.is_some())
    }
}

/// The distance to a peer that no label would mend.
const FAR: usize = 100;

impl PeerMiss<'_> {
    fn distance(&self) -> usize {
        match self {
            Self::Selectors { only, namespace_labels, pod_labels, .. } => {
                2 * (usize::from(only.is_some()) + namespace_labels.len() + pod_labels.len())
            }
            Self::Excepted(..) | Self::UnknownAddress => 2,
            Self::HostNetwork
            | Self::Finished
            | Self::NoPod
            | Self::NotOwnNode
            | Self::NoNode
            | Self::Domains
            | Self::NoAddress
            | Self::OutsideBlock(..) => FAR,
        }
    }
}

/// What keeps `rule` from covering the connection; `own` is the namespace of its policy, if that has one.
pub(super) fn of<'a>(
    judge: &Judge<'a>,
    direction: Direction,
    own: Option<&'a str>,
    rule: &'a Rule,
    connection: &Connection<'a>,
) -> Option<RuleMiss<'a>> {
    let (subject, other) = connection.subject_and_peer(direction);
    let peers = rule.peers.as_deref().and_then(|peers| {
        peers
            .iter()
            .map(|peer| match peer {
                Peer::Pods(peer) => selectors_miss(judge.cluster, own, peer, other),
                Peer::Block(block) => block_miss(block, other, connection),
                Peer::Nodes(selector) => {
                    let mut nodes = judge.cluster.nodes().values();
                    let is_covered = nodes.any(|node| {
                        selector.matches(&node.labels) && is_node(other, node, connection.family)
                    });
                    (!is_covered).then_some(PeerMiss::NoNode)
                }
                Peer::Domains(_) => Some(PeerMiss::Domains),
                Peer::OwnNode => (!judge.is_own_node(subject, other)).then_some(PeerMiss::NotOwnNode),
            })
            .collect::<Option<Vec<_>>>()
    });
    let ports = rule.ports.as_deref().filter(|_| !covers_port(rule, connection));
    (peers.is_some() || ports.is_some()).then_some(RuleMiss { peers, ports })
}

fn selectors_miss<'a>(
    cluster: &'a Cluster,
    own: Option<&'a str>,
    peer: &'a PodPeer,
    other: &Party<'a>,
) -> Option<PeerMiss<'a>> {
    let Some(pod) = other.pod else { return Some(PeerMiss::NoPod) };
    if pod.host_network {
        return Some(PeerMiss::HostNetwork);
    }
    if pod.finished {
        return Some(PeerMiss::Finished);
    }
    let name = &pod.name.namespace;
    let namespace = cluster.namespaces().get(name);
    let (only, namespace_labels) = match &peer.namespaces {
        NamespaceScope::Own => (own.filter(|own| **name != **own), Vec::new()),
        NamespaceScope::Matching(selector) => {
            let misses = match namespace {
                Some(namespace) => label_misses(selector, namespace.labels()),
                None => name_misses(selector, name),
            };
            (None, misses)
        }
    };
    let pod_labels = label_misses(&peer.pods, &pod.labels);
    let unlabelled = match namespace {
        None => Some(Unlabelled::Unknown),
        Some(namespace) => (!namespace.is_declared()).then_some(Unlabelled::Undeclared),
    };
    (only.is_some() || !namespace_labels.is_empty() || !pod_labels.is_empty())
        .then_some(PeerMiss::Selectors { pod, only, unlabelled, namespace_labels, pod_labels })
}

fn label_misses<'a>(selector: &'a LabelSelector, labels: &'a Labels) -> Vec<LabelMiss<'a>> {
    let unmet = selector.requirements.iter().filter(|requirement| !requirement.matches(labels));
    unmet.map(|unmet| LabelMiss::new(unmet, labels.get(&unmet.key).map(String::as_str))).collect()
}

/// The misses of a namespace of which only the name is known.
fn name_misses<'a>(selector: &'a LabelSelector, name: &'a str) -> Vec<LabelMiss<'a>> {
    let unmet =
        selector.requirements.iter().filter(|requirement| requirement.matches_name(name) != Some(true));
    unmet.map(|unmet| LabelMiss::new(unmet, unmet.matches_name(name).map(|_| name))).collect()
}

impl<'a> LabelMiss<'a> {
    fn new(Requirement { key, operator }: &'a Requirement, value: Option<&'a str>) -> Self {
        Self { key, operator, value }
    }
}

fn block_miss<'a>(block: &IpBlock, other: &Party<'_>, connection: &Connection<'_>) -> Option<PeerMiss<'a>> {
    if is_inside(other, block, connection.family) {
        return None;
    }
    let mut miss = if other.lacks_address() { PeerMiss::UnknownAddress } else { PeerMiss::NoAddress };
    for address in connection.family.iter().flat_map(|family| other.addresses_of(*family)) {
        miss = match block.except.iter().find(|hole| hole.contains(&address)) {
            Some(hole) if block.cidr.contains(&address) => PeerMiss::Excepted(address, *hole),
            _ => PeerMiss::OutsideBlock(address, block.cidr),
        };
    }
    Some(miss)
}

impl fmt::Display for PeerMiss<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostNetwork => f.write_str("selectors never match a hostNetwork pod, only an ipBlock does"),
            Self::Finished => {
                f.write_str("selectors never match a pod that has finished, only an ipBlock does")
            }
            Self::NoPod => f.write_str("selectors never match an address outside the cluster"),
            Self::NotOwnNode => f.write_str("it is not the pod's own node"),
            Self::NoNode => f.write_str("it is no address of a node that the selector matches"),
            Self::Domains => f.write_str("domain names are not resolved"),
            Self::Selectors { pod, only, unlabelled, namespace_labels, pod_labels } => {
                let mut parts = Vec::new();
                let namespace = &pod.name.namespace;
                if let Some(only) = only {
                    parts.push(format!("without a namespaceSelector it only looks in namespace {only}"));
                }
                let of_namespace = |miss: &LabelMiss<'_>| match (miss.value, unlabelled) {
                    (None, Some(Unlabelled::Unknown)) => {
                        format!("namespace {namespace} is not known, so its label {} is not either", miss.key)
                    }
                    (None, Some(Unlabelled::Undeclared)) => {
                        let (key, needs) = (miss.key, miss.needs());
                        format!("namespace {namespace} is not declared, label {key} unknown (needs {needs})")
                    }
                    _ => format!("namespace {namespace} {miss}"),
                };
                parts.extend(namespace_labels.iter().map(of_namespace));
                parts.extend(pod_labels.iter().map(|miss| format!("pod {} {miss}", pod.name.name)));
                f.write_str(&parts.join("; "))
            }
            Self::UnknownAddress => {
                f.write_str("an ipBlock: it depends on the pod's address, which is not known")
            }
            Self::NoAddress => f.write_str("an ipBlock, but the other end has no address to compare"),
            Self::OutsideBlock(address, cidr) => write!(f, "{address} is outside {cidr}"),
            Self::Excepted(address, hole) => write!(f, "{address} is in the exception {hole}"),
        }
    }
}

impl fmt::Display for LabelMiss<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, .. } = self;
        match value {
            Some(value) => write!(f, "has {key}={value}")?,
            None => write!(f, "has no label {key}")?,
        }
        write!(f, " (needs {})", self.needs())
    }
}

impl LabelMiss<'_> {
    fn needs(&self) -> String {
        let key = self.key;
        match self.operator {
            Operator::In(values) => match (values.len(), values.first()) {
                (1, Some(value)) => format!("{key}={value}"),
                _ => format!("{key} in {}", list(values)),
            },
            Operator::NotIn(values) => format!("{key} not in {}", list(values)),
            Operator::Exists => "one".to_owned(),
            Operator::DoesNotExist => "none".to_owned(),
        }
    }
}

fn list(values: &BTreeSet<String>) -> String {
    format!("({})", values.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NAMESPACE_NAME_LABEL, ObjectName};

    #[test]
    fn of_a_namespace_that_is_not_known_nothing_but_the_name_matches() {
        let pod = Pod::new(ObjectName::new("shop", "web"));
        let set = |values: &[&str]| values.iter().map(ToString::to_string).collect();
        let cases = [
            ("env", Operator::NotIn(set(&["prod"])), Some("is not known, so its label env is not either")),
            ("env", Operator::DoesNotExist, Some("is not known, so its label env is not either")),
            ("env", Operator::In(set(&["prod"])), Some("is not known, so its label env is not either")),
            (NAMESPACE_NAME_LABEL, Operator::In(set(&["shop"])), None),
            (NAMESPACE_NAME_LABEL, Operator::NotIn(set(&["other"])), None),
            (NAMESPACE_NAME_LABEL, Operator::Exists, None),
            (
                NAMESPACE_NAME_LABEL,
                Operator::NotIn(set(&["shop"])),
                Some(
                    "has kubernetes.io/metadata.name=shop (needs kubernetes.io/metadata.name not in (shop))",
                ),
            ),
        ];
        for (key, operator, expected) in cases {
            let requirement = Requirement { key: key.to_owned(), operator };
            let namespaces = NamespaceScope::Matching(LabelSelector { requirements: vec![requirement] });
            let peer = PodPeer { namespaces, pods: LabelSelector::everything() };
            let other = Party { pod: Some(&pod), member: None, address: None, shared: false };
            let cluster = Cluster::new();
            let miss = selectors_miss(&cluster, Some("own"), &peer, &other).map(|miss| miss.to_string());
            assert_eq!(miss, expected.map(|words| format!("namespace shop {words}")), "{peer:?}");
        }
    }

    #[test]
    fn a_missed_label_says_what_is_there_and_what_is_needed() {
        let values = |values: &[&str]| values.iter().map(ToString::to_string).collect();
        let cases = [
            (None, Operator::In(values(&["web"])), "has no label app (needs app=web)"),
            (Some("db"), Operator::In(values(&["web"])), "has app=db (needs app=web)"),
            (Some("db"), Operator::In(values(&["web", "api"])), "has app=db (needs app in (api, web))"),
            (Some("db"), Operator::NotIn(values(&["db"])), "has app=db (needs app not in (db))"),
            (None, Operator::Exists, "has no label app (needs one)"),
            (Some("db"), Operator::DoesNotExist, "has app=db (needs none)"),
        ];
        for (value, operator, text) in cases {
            assert_eq!(LabelMiss { key: "app", operator: &operator, value }.to_string(), text);
        }
    }
}
