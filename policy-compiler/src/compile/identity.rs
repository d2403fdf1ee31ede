//! What an address is to the rules: the sets of peers that it is in. Addresses that are in the same are one identity.

use std::hash::{Hash, Hasher};

use super::peer_set::{Member, PeerSetId};
use crate::model::{Direction, Family};
use crate::ruleset::{ChainId, ChainRole, Digest, SetId, SetRole};

/// The sets of peers that an address is in: of each pod that may have it, sorted. Of an address that belongs to no pod
/// there is one list too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Membership(Vec<Vec<Member>>);

impl Membership {
    /// That of these pods. Of those that are in the same sets, one counts.
    pub(super) fn of_each(pods: impl Iterator<Item = Vec<Member>>) -> Self {
        let mut each: Vec<_> = Vec::new();
        for members in pods {
            if !each.contains(&members) {
                each.push(members);
            }
        }
        Self(each)
    }

    /// That of whoever no rule names.
    pub(super) fn none() -> Self {
        Self::of_one(Vec::new())
    }

    /// That of an address that one pod has, or none.
    pub(super) fn of_one(members: Vec<Member>) -> Self {
        Self(vec![members])
    }

    /// That of an address in the blocks of these sets, which are sorted, that belongs to no pod.
    pub(super) fn of_outsider(sets: impl IntoIterator<Item = PeerSetId>) -> Self {
        Self::of_one(sets.into_iter().map(|set| Member { set, named: Vec::new() }).collect())
    }

    /// Whether one of the pods is in no set, so that nothing can be granted to the address; or there is no pod.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(Vec::is_empty)
    }

    /// The sets of each pod.
    pub(super) fn each(&self) -> impl Iterator<Item = &[Member]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// The sets of any of the pods.
    pub(super) fn sets(&self) -> impl Iterator<Item = PeerSetId> {
        self.0.iter().flatten().map(|member| member.set)
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
            content.push("pod".to_owned());
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
