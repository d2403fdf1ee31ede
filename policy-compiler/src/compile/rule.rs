//! A policy's rule made ready for look-ups.

use std::collections::BTreeSet;

use super::peer_set::{Member, PeerSet, PeerSetId, PortName, Use};
use super::policies::Policy;
use crate::model::{
    Action, Direction, Family, IpBlock, LabelSelector, NamespaceScope, Peer, Pod, PodPeer, PolicyName,
    PortMatch, PortNumber, Protocol, Rule, Tier,
};
use crate::ruleset::{ChainId, ChainRole, TierEffect};

/// A rule of a policy that judges one of the node's pods.
pub(super) struct ActiveRule {
    pub(super) policy: PolicyName,
    stage: Stage,
    action: Action,
    /// Whether pods are among its peers by their labels.
    names_pods: bool,
    crowds: Vec<Crowd>,
    /// The peers beside the crowds.
    pub(super) peers: Option<PeerSetId>,
    ports: Option<Vec<PortMatch>>,
}

/// Who is asked, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// `tier: Admin`
    Admin,
    /// The NetworkPolicies that isolate the pod.
    Namespaced,
    /// `tier: Baseline`
    Baseline,
}

impl Stage {
    fn of(tier: Tier) -> Self {
        match tier {
            Tier::Admin => Self::Admin,
            Tier::Baseline => Self::Baseline,
        }
    }
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
    /// The rules of a policy in a direction, in the order in which they are asked, each with the peers that are to be looked
    /// up. [`rule_chains`] has the chain of each.
    pub(super) fn all_of(policy: &Policy, direction: Direction) -> Vec<(Self, Option<PeerSet>)> {
        let name = policy.name();
        match policy {
            Policy::Namespaced(policy) => {
                let rules = policy.rules(direction).unwrap_or_default().iter();
                let new = |rule| Self::new(direction, &name, Stage::Namespaced, Action::Accept, rule);
                rules.map(new).collect()
            }
            Policy::Cluster(policy) => {
                let stage = Stage::of(policy.tier);
                let rules = policy.rules(direction).iter();
                rules.map(|rule| Self::new(direction, &name, stage, rule.action, &rule.rule)).collect()
            }
        }
    }

    /// A rule of a policy, and the peers that are to be looked up.
    fn new(
        direction: Direction,
        policy: &PolicyName,
        stage: Stage,
        action: Action,
        rule: &Rule,
    ) -> (Self, Option<PeerSet>) {
        let (crowds, ports) = (Vec::new(), rule.ports.clone());
        let names_pods = rule.peers.iter().flatten().any(|peer| matches!(peer, Peer::Pods(_)));
        let mut new = Self { policy: policy.clone(), stage, action, names_pods, crowds, peers: None, ports };
        // Ports of which each peer has numbers of its own need an identity, however many peers there are.
        let asks_peer = !new.names_of_peers(direction).is_empty();
        let (mut pods, mut blocks, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
        for peer in rule.peers.iter().flatten() {
            match peer {
                Peer::Pods(peer) if peer.is_every_pod() && !asks_peer => new.crowds.push(Crowd::Pods),
                Peer::Pods(peer) => pods.push(peer.clone()),
                Peer::Block(block) if block.is_whole_family() && !asks_peer => {
                    new.crowds.push(Crowd::Family(Family::of(block.cidr.addr())));
                }
                Peer::Block(block) => blocks.push(block.clone()),
                Peer::OwnNode => new.crowds.push(Crowd::OwnNode),
                Peer::Nodes(selector) => nodes.push(selector.clone()),
                Peer::Domains(_) => {}
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
        let own = match policy {
            PolicyName::Namespaced(name) => Some(&name.namespace),
            PolicyName::Cluster(_) => None,
        };
        let peers = PeerSet::new(own, &pods, &blocks, nodes);
        new.peers = peers.as_ref().map(PeerSet::id);
        (new, peers)
    }

    /// When it is asked.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Its ports; `None` for every protocol and port.
    pub(super) fn ports(&self) -> Option<&[PortMatch]> {
        self.ports.as_deref()
    }

    /// Whether pods are among its peers by their labels.
    pub(super) fn names_pods(&self) -> bool {
        self.names_pods
    }

    /// Whether these are peers of the rule.
    pub(super) fn has_crowd(&self, crowd: Crowd) -> bool {
        self.crowds.contains(&crowd)
    }

    /// Whether any crowd is.
    pub(super) fn has_crowds(&self) -> bool {
        !self.crowds.is_empty()
    }

    /// Whether one of these is.
    pub(super) fn has_one_of(&self, crowds: &[Crowd]) -> bool {
        self.crowds.iter().any(|crowd| crowds.contains(crowd))
    }

    /// What the rule does to what it covers, and the chain that does it. `chain` is its own. Where it is not known whether
    /// it covers a packet, it does what [`Action::in_doubt`] says, in audit mode too; `None`: it does nothing.
    pub(super) fn effect(&self, chain: &ChainId, certain: bool) -> Option<(TierEffect, ChainId)> {
        let own = match *chain.role() {
            ChainRole::TierRule { effect, .. } => effect,
            _ => TierEffect::Accept,
        };
        if certain || self.action == Action::Deny {
            return Some((own, chain.clone()));
        }
        let ChainRole::TierRule { direction, tier, ref policy, index, .. } = *chain.role() else {
            return None;
        };
        self.action.in_doubt()?;
        let effect = TierEffect::Deny;
        let role = ChainRole::TierRule { direction, tier, policy: policy.clone(), index, effect };
        Some((effect, role.into()))
    }

    /// What the rule asks of its peers.
    pub(super) fn usage(&self, direction: Direction) -> Use {
        let names = self.names_of_peers(direction);
        // Without peers the numbers are open to everybody: only the names need the peer.
        let numbered = |ports: &Vec<PortMatch>| ports.len() > names.len();
        let plain = names.is_empty() || !self.has_crowd(Crowd::Everybody) && self.ports.iter().any(numbered);
        Use { plain, names, perhaps: self.stage != Stage::Namespaced }
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
    pub(super) fn resolve_on(&self, member: &Member) -> Vec<(Protocol, PortNumber)> {
        let names = self.names_of_peers(Direction::Egress);
        let resolved = member.named.iter().filter(|(name, _)| names.contains(name));
        resolved.map(|((protocol, _), number)| (*protocol, *number)).collect()
    }
}

/// The chains of a policy's rules, in the order of the rules.
pub(super) fn rule_chains(policy: &Policy, direction: Direction) -> Vec<ChainId> {
    let role = |index| match policy {
        Policy::Namespaced(policy) => ChainRole::Rule { direction, policy: policy.name.clone(), index },
        Policy::Cluster(policy) => {
            let effect = match policy.rules(direction).get(index).map(|rule| rule.action) {
                Some(Action::Accept) | None => TierEffect::Accept,
                Some(Action::Pass) => TierEffect::Pass,
                Some(Action::Deny) if policy.audited => TierEffect::Audit,
                Some(Action::Deny) => TierEffect::Deny,
            };
            ChainRole::TierRule { direction, tier: policy.tier, policy: policy.name.clone(), index, effect }
        }
    };
    (0..policy.count_rules(direction)).map(|index| role(index).into()).collect()
}
