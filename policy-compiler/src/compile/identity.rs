//! What an address is to the rules: the sets of peers that it is in. Addresses that are in the same are one identity.

use std::hash::{Hash, Hasher};

use super::peer_set::{Member, PeerSetId};
use super::rule::Crowd;
use crate::model::{Direction, Family};
use crate::ruleset::{ChainId, ChainRole, Digest, SetId, SetRole};

/// The sets of peers that an address is in: of each pod that may have it, sorted. Of an address that belongs to no pod
/// there is one list too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Membership {
    each: Vec<Vec<Member>>,
    holder: Holder,
}

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Holder {
    Pod,
    /// No pod.
    Outsider,
    /// Any pod, or none.
    Unknown,
}

impl Membership {
    /// That of these pods. Of those that are in the same sets, one counts.
    pub(super) fn of_each(pods: impl Iterator<Item = Vec<Member>>) -> Self {
        let mut each: Vec<_> = Vec::new();
        for members in pods {
            if !each.contains(&members) {
                each.push(members);
            }
        }
        Self { each, holder: Holder::Pod }
    }

    /// That of an address that one pod has.
    pub(super) fn of_pod(members: Vec<Member>) -> Self {
        Self { each: vec![members], holder: Holder::Pod }
    }

    /// That of an address that no rule names.
    pub(super) fn unnamed(holder: Holder) -> Self {
        Self { each: vec![Vec::new()], holder }
    }

    /// What is left of it with these sets only; `None` if that is none.
    pub(super) fn among(&self, is_wanted: impl Fn(PeerSetId) -> bool) -> Option<Self> {
        let wanted = |members: &[Member]| {
            members.iter().filter(|member| is_wanted(member.set)).cloned().collect::<Vec<_>>()
        };
        let among = Self { holder: self.holder, ..Self::of_each(self.each().map(wanted)) };
        (!among.is_empty()).then_some(among)
    }

    /// That of an address in the blocks of these sets, which are sorted, that is not known to be a pod's.
    pub(super) fn in_blocks(sets: impl IntoIterator<Item = PeerSetId>, holder: Holder) -> Self {
        let member = |set| Member { set, named: Vec::new(), certain: true };
        Self { each: vec![sets.into_iter().map(member).collect()], holder }
    }

    pub(super) fn holder(&self) -> Holder {
        self.holder
    }

    /// The crowds that an address of a family is one of.
    pub(super) fn crowds(&self, family: Family) -> Vec<Crowd> {
        let pods = (self.holder == Holder::Pod).then_some(Crowd::Pods);
        [Crowd::Everybody, Crowd::Family(family)].into_iter().chain(pods).collect()
    }

    /// Whether no rule names the address.
    pub(super) fn is_empty(&self) -> bool {
        self.each.iter().all(Vec::is_empty)
    }

    /// The sets of each pod.
    pub(super) fn each(&self) -> impl Iterator<Item = &[Member]> {
        self.each.iter().map(Vec::as_slice)
    }

    /// The sets of any of the pods.
    pub(super) fn sets(&self) -> impl Iterator<Item = PeerSetId> {
        self.each.iter().flatten().map(|member| member.set)
    }
}

/// Who is in the same sets of peers; such addresses share one chain.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) chain: ChainId,
    /// For each family, the map of the subjects that it reaches.
    reached: [SetId; 2],
    pub(super) membership: Membership,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.chain.hash(state);
    }
}

impl Identity {
    /// The identity of this membership.
    pub(super) fn new(direction: Direction, membership: Membership) -> Self {
        let mut content = Vec::new();
        for members in membership.each() {
            content.push(format!("{:?}", membership.holder));
            content.extend(members.iter().map(|member| format!("{member:?}")));
        }
        let digest = Digest::of(content);
        let reached = Family::BOTH.map(|family| SetRole::Reached(direction, digest, family).into());
        Self { chain: ChainRole::Peer(direction, digest).into(), reached, membership }
    }

    /// The map of the subjects of a family that it reaches.
    pub(super) fn reached(&self, family: Family) -> &SetId {
        let [ipv4, ipv6] = &self.reached;
        match family {
            Family::Ipv4 => ipv4,
            Family::Ipv6 => ipv6,
        }
    }
}
