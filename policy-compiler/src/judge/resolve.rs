//! Every selector, resolved to the pods that it matches.

use std::collections::BTreeMap;

use super::number_set::{Member, NumberSet};
use super::{Connection, Judge, Party, Traffic};
use crate::model::{
    Cluster, Family, IpBlock, LabelSelector, Namespace, NamespaceScope, Node, Peer, Pod, PodPeer, PortMatch,
    Rule,
};

/// A rule and whom its peers cover: everybody where it has no list of them.
#[derive(Debug)]
pub(super) struct ResolvedRule<'a> {
    pub(super) rule: &'a Rule,
    pub(super) pods: NumberSet,
    pub(super) blocks: Vec<&'a IpBlock>,
    nodes: Vec<&'a Node>,
    own_node: bool,
}

/// Whether it must be known that a selector selects a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Certainty {
    /// It does.
    Certain,
    /// It does, or the namespace is not known and it may.
    Perhaps,
}

impl Certainty {
    fn selects(self, selector: &LabelSelector, name: &str, namespace: Option<&Namespace>) -> bool {
        match self {
            Self::Certain => selector.matches_namespace(name, namespace),
            Self::Perhaps => selector.may_match_namespace(name, namespace),
        }
    }
}

/// The pods that policies can judge. Those that have finished are nobody's peers.
pub(super) fn members(cluster: &Cluster) -> impl Iterator<Item = (Member, &Pod)> {
    cluster.pods().values().filter(|pod| !pod.host_network).enumerate()
}

/// The members by their namespace.
pub(super) struct World<'a> {
    pub(super) cluster: &'a Cluster,
    members: BTreeMap<&'a str, Vec<(Member, &'a Pod)>>,
}

impl<'a> World<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let mut by_namespace: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (member, pod) in members(cluster) {
            by_namespace.entry(&*pod.name.namespace).or_default().push((member, pod));
        }
        Self { cluster, members: by_namespace }
    }

    /// The members that a pod selector matches in a scope; `own` is the namespace of its policy, if it has one.
    pub(super) fn select<'s>(
        &'s self,
        own: Option<&'s str>,
        scope: &'s NamespaceScope,
        pods: &'s LabelSelector,
        certainty: Certainty,
    ) -> impl Iterator<Item = (Member, &'a Pod)> + 's {
        let in_scope = move |namespace: &str| match scope {
            NamespaceScope::Own => Some(namespace) == own,
            NamespaceScope::Matching(selector) => {
                certainty.selects(selector, namespace, self.cluster.namespaces().get(namespace))
            }
        };
        let in_scope = self.members.iter().filter(move |(namespace, _)| in_scope(namespace));
        in_scope.flat_map(|(_, members)| members).filter(|(_, pod)| pods.matches(&pod.labels)).copied()
    }

    pub(super) fn resolve(
        &self,
        own: Option<&str>,
        rule: &'a Rule,
        certainty: Certainty,
    ) -> ResolvedRule<'a> {
        let mut resolved = ResolvedRule {
            rule,
            pods: NumberSet::default(),
            blocks: Vec::new(),
            nodes: Vec::new(),
            own_node: false,
        };
        for peer in rule.peers.iter().flatten() {
            match peer {
                Peer::Pods(PodPeer { namespaces, pods }) => {
                    let selected = self.select(own, namespaces, pods, certainty);
                    let live = selected.filter(|(_, pod)| pod.selectable());
                    resolved.pods.extend(live.map(|(member, _)| member));
                }
                Peer::Block(block) => resolved.blocks.push(block),
                Peer::Nodes(selector) => {
                    let nodes = self.cluster.nodes().values();
                    resolved.nodes.extend(nodes.filter(|node| selector.matches(&node.labels)));
                }
                Peer::Domains(_) => {}
                Peer::OwnNode => resolved.own_node = true,
            }
        }
        resolved
    }
}

impl<'a> ResolvedRule<'a> {
    /// Whether it covers others than pods by their labels.
    pub(super) fn has_other_peers(&self) -> bool {
        self.rule.peers.is_none() || self.own_node || !self.blocks.is_empty() || !self.nodes.is_empty()
    }

    /// Whether the rule covers a connection of a subject with a peer.
    pub(super) fn covers(
        &self,
        judge: &Judge<'a>,
        (subject, peer): (&Party<'a>, &Party<'a>),
        connection: &Connection<'a>,
    ) -> bool {
        (self.rule.peers.is_none()
            || peer.member.is_some_and(|member| self.pods.contains(member))
            || self.blocks.iter().any(|block| is_inside(peer, block, connection.family))
            || self.nodes.iter().any(|node| is_node(peer, node, connection.family))
            || self.own_node && judge.is_own_node(subject, peer))
            && covers_port(self.rule, connection)
    }
}

/// Whether a block has an end of a connection in a family. A pod that has no address yet is in those that have them all.
pub(super) fn is_inside(end: &Party<'_>, block: &IpBlock, family: Option<Family>) -> bool {
    if end.lacks_address() {
        return block.is_whole_family()
            && family.is_none_or(|family| family == Family::of(block.cidr.addr()));
    }
    family.is_some_and(|family| end.addresses_of(family).any(|address| block.contains(address)))
}

/// Whether an end of a connection is a node in a family: one of its addresses, or a `hostNetwork` pod there.
pub(super) fn is_node(end: &Party<'_>, node: &Node, family: Option<Family>) -> bool {
    let runs = |pod: &Pod| pod.node.as_ref() == Some(&node.name);
    end.member.is_none()
        && match family {
            _ if end.lacks_address() => end.pod.is_some_and(runs),
            Some(family) => end.addresses_of(family).any(|address| node.addresses.contains(&address)),
            None => false,
        }
}

/// Whether the rule's ports cover the traffic. A port's name is resolved on the destination.
pub(super) fn covers_port(rule: &Rule, connection: &Connection<'_>) -> bool {
    let Some(ports) = &rule.ports else { return true };
    let Traffic::Port(protocol, number) = connection.traffic else { return false };
    ports.iter().any(|port| match port {
        PortMatch::All(of) => *of == protocol,
        PortMatch::Range(of, range) => *of == protocol && range.contains(number),
        PortMatch::Named(of, name) => {
            *of == protocol
                && connection
                    .to
                    .pod
                    .is_some_and(|pod| pod.resolve(name, protocol).any(|resolved| resolved == number))
        }
    })
}
