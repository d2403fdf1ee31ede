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

/// What the rules grant to an address: to each pod that may have it, sorted by rule, one for each. Of an address that
/// belongs to no pod there is one list too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grants(Vec<Vec<Grant>>);

impl Grants {
    /// What is granted to these pods. Of those that are granted the same, one counts.
    pub(super) fn to_each(pods: impl Iterator<Item = Vec<Grant>>) -> Self {
        let mut each: Vec<_> = Vec::new();
        for grants in pods {
            if !each.contains(&grants) {
                each.push(grants);
            }
        }
        Self(each)
    }

    /// What is granted to whoever no rule names.
    pub(super) fn none() -> Self {
        Self::to_one(Vec::new())
    }

    /// What is granted to an address that one pod has, or none.
    pub(super) fn to_one(grants: Vec<Grant>) -> Self {
        Self(vec![grants])
    }

    /// Whether nothing is granted to one of the pods, so that nothing can be granted to the address; or there is no pod.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(Vec::is_empty)
    }

    /// What is granted to each pod.
    pub(super) fn each(&self) -> impl Iterator<Item = &[Grant]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// The rules that grant anything to any of the pods.
    pub(super) fn rules(&self) -> impl Iterator<Item = &ChainName> {
        self.0.iter().flatten().map(|grant| &grant.rule)
    }
}

/// All that the rules grant to an address. Addresses with equal grants share one chain.
pub(super) struct Identity {
    pub(super) chain: ChainName,
    pub(super) grants: Grants,
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
                // Only a ClusterNetworkPolicy names them.
                Peer::Nodes(_) | Peer::Domains(_) => {}
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

/// What `rules`, which isolate `subject`, allow between it and whoever has these grants or is one of these crowds.
pub(super) fn access<'a>(
    direction: Direction,
    subject: &Pod,
    rules: impl Iterator<Item = (&'a ChainName, &'a ActiveRule)>,
    grants: &[Grant],
    crowds: &[Crowd],
) -> Option<Access> {
    Access::of(rules.filter_map(|(chain, rule)| {
        let grant = granted_by(grants, chain);
        let named = match direction {
            _ if grant.is_none() && !crowds.iter().any(|crowd| rule.has_crowd(*crowd)) => return None,
            Direction::Ingress => rule.resolve(subject),
            Direction::Egress => grant.map(|grant| grant.named.clone()).unwrap_or_default(),
        };
        Some((chain, rule.ports.as_deref(), named))
    }))
}

/// The grant of a rule, among grants that are sorted by rule.
fn granted_by<'g>(grants: &'g [Grant], rule: &ChainName) -> Option<&'g Grant> {
    let index = grants.binary_search_by(|grant| grant.rule.cmp(rule)).ok()?;
    grants.get(index)
}

impl Identity {
    /// The identity of these grants.
    pub(super) fn new(direction: Direction, grants: Grants) -> Self {
        let mut content = Vec::new();
        for (index, each) in grants.each().enumerate() {
            if index > 0 {
                content.push("and".to_owned());
            }
            content
                .extend(each.iter().flat_map(|grant| [grant.rule.to_string(), format!("{:?}", grant.named)]));
        }
        let content = content.iter().map(String::as_str);
        let chain = ChainName::new(of_content(&format!("{direction}_peer"), content));
        Self { chain, grants }
    }
}
