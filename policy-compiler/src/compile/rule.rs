//! A policy's rule made ready for look-ups, and what rules allow between two ends.

use std::collections::BTreeSet;

use super::access::Access;
use super::peer_set::{Member, PeerSet, PeerSetId, PortName, Use};
use crate::model::{
    Direction, Family, IpBlock, LabelSelector, NamespaceScope, ObjectName, Peer, Pod, PodPeer, PortMatch,
    PortNumber, Protocol, Rule,
};
use crate::ruleset::ChainId;

/// A rule of a policy that isolates one of the node's pods.
pub(super) struct ActiveRule {
    pub(super) policy: ObjectName,
    crowds: Vec<Crowd>,
    /// The peers beside the crowds.
    pub(super) peers: Option<PeerSetId>,
    ports: Option<Vec<PortMatch>>,
}

/// Peers that one look-up at most tells apart, so that they need no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crowd {
    /// The rule has no `from` or `to`.
    Everybody,
    /// One of its peers is every pod of the cluster.
    Pods,
    /// One of its peers is a block that has every address of the family.
    Family(Family),
    /// One of its peers is the node that runs the subject.
    OwnNode,
}

impl ActiveRule {
    /// A rule of a policy, and the peers that are to be looked up.
    pub(super) fn new(direction: Direction, policy: &ObjectName, rule: &Rule) -> (Self, Option<PeerSet>) {
        let mut new =
            Self { policy: policy.clone(), crowds: Vec::new(), peers: None, ports: rule.ports.clone() };
        // Ports of which each peer has numbers of its own need an identity, however many peers there are.
        let asks_peer = !new.names_of_peers(direction).is_empty();
        let (mut pods, mut blocks) = (Vec::new(), Vec::new());
        for peer in rule.peers.iter().flatten() {
            match peer {
                Peer::Pods(peer) if peer.is_every_pod() && !asks_peer => new.crowds.push(Crowd::Pods),
                Peer::Pods(peer) => pods.push(peer.clone()),
                Peer::Block(block) if block.is_whole_family() && !asks_peer => {
                    new.crowds.push(Crowd::Family(Family::of(block.cidr.addr())));
                }
                Peer::Block(block) => blocks.push(block.clone()),
                Peer::OwnNode => new.crowds.push(Crowd::OwnNode),
                // Only a ClusterNetworkPolicy names them.
                Peer::Nodes(_) | Peer::Domains(_) => {}
            }
        }
        if rule.peers.is_none() {
            new.crowds.push(Crowd::Everybody);
            if asks_peer {
                let everything = LabelSelector::everything();
                let namespaces = NamespaceScope::Matching(everything.clone());
                pods.push(PodPeer { namespaces, pods: everything });
            }
        }
        if new.has_crowd(Crowd::Pods) {
            pods.clear();
        }
        blocks.retain(|block: &IpBlock| !new.has_crowd(Crowd::Family(Family::of(block.cidr.addr()))));
        let peers = PeerSet::new(&policy.namespace, &pods, &blocks);
        new.peers = peers.as_ref().map(PeerSet::id);
        (new, peers)
    }

    /// Whether these are peers of the rule.
    pub(super) fn has_crowd(&self, crowd: Crowd) -> bool {
        self.crowds.contains(&crowd)
    }

    /// What the rule asks of its peers.
    pub(super) fn usage(&self, direction: Direction) -> Use {
        let names = self.names_of_peers(direction);
        // Without peers the numbers are open to everybody: only the names need the peer.
        let numbered = |ports: &Vec<PortMatch>| ports.len() > names.len();
        let plain = names.is_empty() || !self.has_crowd(Crowd::Everybody) && self.ports.iter().any(numbered);
        Use { plain, names }
    }

    /// The names of ports of which each peer has numbers of its own: those of destinations.
    fn names_of_peers(&self, direction: Direction) -> BTreeSet<PortName> {
        let ports = self.ports.iter().flatten().filter(|_| direction == Direction::Egress);
        let named = ports.filter_map(|port| match port {
            PortMatch::Named(protocol, name) => Some((*protocol, name.clone())),
            PortMatch::All(_) | PortMatch::Range(..) => None,
        });
        named.collect()
    }

    /// The numbers that the rule's named ports have on a pod.
    pub(super) fn resolve(&self, destination: &Pod) -> Vec<(Protocol, PortNumber)> {
        let mut numbers: Vec<_> = Vec::new();
        for port in self.ports.iter().flatten() {
            if let PortMatch::Named(protocol, name) = port {
                numbers.extend(destination.resolve(name, *protocol).map(|number| (*protocol, number)));
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// The numbers that the rule's named ports have on a member of its peers.
    fn resolve_on(&self, member: &Member) -> Vec<(Protocol, PortNumber)> {
        let names = self.names_of_peers(Direction::Egress);
        let resolved = member.named.iter().filter(|(name, _)| names.contains(name));
        resolved.map(|((protocol, _), number)| (*protocol, *number)).collect()
    }
}

/// What `rules`, which isolate `subject`, allow between it and whoever is in these sets or is one of these crowds.
pub(super) fn access<'a>(
    direction: Direction,
    subject: &Pod,
    rules: impl Iterator<Item = (&'a ChainId, &'a ActiveRule)>,
    members: &[Member],
    crowds: &[Crowd],
) -> Option<Access> {
    Access::of(rules.filter_map(|(chain, rule)| {
        let member = rule.peers.and_then(|peers| member_of(members, peers));
        let named = match direction {
            _ if member.is_none() && !crowds.iter().any(|crowd| rule.has_crowd(*crowd)) => return None,
            Direction::Ingress => rule.resolve(subject),
            Direction::Egress => member.map(|member| rule.resolve_on(member)).unwrap_or_default(),
        };
        Some((chain, rule.ports.as_deref(), named))
    }))
}

/// The membership in a set, among those of an address.
fn member_of(members: &[Member], set: PeerSetId) -> Option<&Member> {
    let index = members.binary_search_by(|member| member.set.cmp(&set)).ok()?;
    members.get(index)
}
