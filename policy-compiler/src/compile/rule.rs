//! A policy's rule made ready for look-ups, and what it grants to one address.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::access::{Access, Resolved};
use super::names::of_content;
use crate::model::{
    Direction, IpBlock, LabelSelector, NamespaceScope, ObjectName, Peer, Pod, PortMatch, Rule,
};
use crate::ruleset::ChainName;

/// A rule of a policy that isolates one of the node's pods.
pub(super) struct ActiveRule {
    pub(super) policy: ObjectName,
    /// Peers of the rule that need no identity.
    pub(super) crowd: Option<Crowd>,
    /// Whether one of its peers is the node that runs the subject.
    own_node: bool,
    /// The pods beside the crowd that the rule names.
    pub(super) pods: Vec<(NamespaceScope, Arc<LabelSelector>)>,
    pub(super) blocks: Vec<IpBlock>,
    ports: Option<Vec<PortMatch>>,
    /// The identities that hold a grant of the rule.
    pub(super) identities: BTreeSet<ChainName>,
}

/// Peers that are told by one look at most, so that they need no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crowd {
    /// The rule has no `from` or `to`.
    Everybody,
    /// One of its peers is every pod of the cluster.
    Pods,
    /// One of its peers is the node that runs the subject.
    OwnNode,
}

/// That a rule names an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) rule: ChainName,
    /// For egress, what the rule's named ports are on the pod that has the address. For ingress they are
    /// the subject's affair.
    named: Resolved,
}

/// All that the rules grant to an address. Addresses with equal grants share one chain.
pub(super) struct Identity {
    pub(super) chain: ChainName,
    /// Sorted by rule, one for each.
    pub(super) grants: Vec<Grant>,
}

impl ActiveRule {
    pub(super) fn new(direction: Direction, policy: &ObjectName, rule: &Rule) -> Self {
        let mut new = Self {
            policy: policy.clone(),
            crowd: rule.peers.is_none().then_some(Crowd::Everybody),
            own_node: false,
            pods: Vec::new(),
            blocks: Vec::new(),
            ports: rule.ports.clone(),
            identities: BTreeSet::new(),
        };
        for peer in rule.peers.iter().flatten() {
            match peer {
                Peer::Pods(peer) if peer.is_every_pod() && !new.asks_destination(direction) => {
                    new.crowd = Some(Crowd::Pods);
                }
                Peer::Pods(peer) => new.pods.push((peer.namespaces.clone(), Arc::new(peer.pods.clone()))),
                Peer::Block(block) => new.blocks.push(block.clone()),
                Peer::OwnNode => new.own_node = true,
            }
        }
        if new.crowd == Some(Crowd::Pods) {
            new.pods.clear();
        }
        new
    }

    /// Whether these are peers of the rule.
    fn has_crowd(&self, crowd: Crowd) -> bool {
        self.crowd == Some(crowd) || crowd == Crowd::OwnNode && self.own_node
    }

    /// Whether the rule has ports of which each peer has numbers of its own.
    fn asks_destination(&self, direction: Direction) -> bool {
        let named = |port: &PortMatch| matches!(port, PortMatch::Named(..));
        direction == Direction::Egress && self.ports.iter().flatten().any(named)
    }

    /// Whether the rule names every pod that has a port of some name: it goes to everybody.
    pub(super) fn names_by_port(&self, direction: Direction) -> bool {
        self.crowd == Some(Crowd::Everybody) && self.asks_destination(direction)
    }

    /// What the rule grants to an address that it names, `owner` being the pod that has the address.
    pub(super) fn grant(
        &self,
        direction: Direction,
        chain: &ChainName,
        owner: Option<&Pod>,
    ) -> Option<Grant> {
        let named = match (direction, owner) {
            (Direction::Egress, Some(destination)) => self.resolve(destination),
            _ => Vec::new(),
        };
        let grants = match (direction, &self.ports) {
            (_, None) => true,
            (Direction::Ingress, Some(ports)) => !ports.is_empty(),
            // Without peers the numbers are open to everybody: only the names need the peer.
            (Direction::Egress, Some(_)) if self.crowd == Some(Crowd::Everybody) => !named.is_empty(),
            (Direction::Egress, Some(ports)) => {
                !named.is_empty() || ports.iter().any(|port| !matches!(port, PortMatch::Named(..)))
            }
        };
        grants.then(|| Grant { rule: chain.clone(), named })
    }

    /// The numbers that the rule's named ports have on a pod.
    pub(super) fn resolve(&self, destination: &Pod) -> Resolved {
        let mut numbers: Resolved = Vec::new();
        for port in self.ports.iter().flatten() {
            if let PortMatch::Named(protocol, name) = port {
                numbers.extend(destination.resolve(name, *protocol).map(|number| (*protocol, number)));
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

/// What the rules allow between `subject` and whoever has these grants.
pub(super) fn access<'a>(
    direction: Direction,
    subject: &Pod,
    grants: impl Iterator<Item = (&'a ActiveRule, &'a Grant)>,
) -> Option<Access> {
    Access::of(grants.map(|(rule, grant)| {
        let named = match direction {
            Direction::Ingress => rule.resolve(subject),
            Direction::Egress => grant.named.clone(),
        };
        (&grant.rule, rule.ports.as_deref(), named)
    }))
}

/// What those of the rules whose peers are this crowd allow between `subject` and the crowd.
pub(super) fn crowd_access<'a>(
    direction: Direction,
    subject: &Pod,
    crowd: Crowd,
    rules: impl Iterator<Item = (&'a ChainName, &'a ActiveRule)>,
) -> Option<Access> {
    Access::of(rules.filter(|(_, rule)| rule.has_crowd(crowd)).map(|(chain, rule)| {
        let named = match direction {
            Direction::Ingress => rule.resolve(subject),
            Direction::Egress => Vec::new(),
        };
        (chain, rule.ports.as_deref(), named)
    }))
}

impl Identity {
    /// The identity of these grants, which are sorted by rule.
    pub(super) fn new(direction: Direction, grants: Vec<Grant>) -> Self {
        let numbers: Vec<String> = grants.iter().map(|grant| format!("{:?}", grant.named)).collect();
        let content = grants.iter().zip(&numbers).flat_map(|(grant, numbers)| [grant.rule.as_str(), numbers]);
        let chain = ChainName::new(of_content(&format!("{direction}_peer"), content));
        Self { chain, grants }
    }

    /// The grant of a rule.
    pub(super) fn grant(&self, rule: &ChainName) -> Option<&Grant> {
        let index = self.grants.binary_search_by(|grant| grant.rule.cmp(rule)).ok()?;
        self.grants.get(index)
    }
}
