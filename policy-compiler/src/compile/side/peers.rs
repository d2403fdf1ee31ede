//! Whom the rules name: addresses of pods one by one, all others by blocks.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Pass, Side, goto};
use crate::compile::draft::Draft;
use crate::compile::identity::{Holder, Identity, Membership};
use crate::compile::peer_set::{Member, PeerSetId};
use crate::compile::ranges::{self, AddressRanges};
use crate::compile::world::{Changed, World};
use crate::model::{Direction, Family, Pod};
use crate::ruleset::{ElementKey, SetRole};

/// An identity in use.
pub(super) struct Known {
    pub(super) identity: Arc<Identity>,
    /// The addresses of pods that have it.
    addresses: BTreeSet<IpAddr>,
}

/// That an address of a pod has to be looked at because of a set of peers, and whether it is in that now.
type Touched = (IpAddr, PeerSetId, Option<Member>);

/// What becomes of an identity when these sets have to be looked at.
type Moves = HashMap<(Option<Arc<Identity>>, Vec<(PeerSetId, Option<Member>)>), Option<Arc<Identity>>>;

impl Side {
    pub(super) fn update_peers(
        &mut self,
        world: &World,
        changed: &Changed,
        draft: &mut Draft,
        pass: &mut Pass,
    ) {
        self.update_blocks(draft, pass);
        for namespace in &changed.namespaces {
            self.peer_sets.forget_namespace(namespace);
        }
        let of_pods = changed.pods.iter().filter_map(|name| world.pod(name));
        let of_namespaces = changed.namespaces.iter().flat_map(|namespace| world.pods_in(namespace));
        let pods = of_pods.chain(of_namespaces);
        let mut addresses: BTreeSet<IpAddr> = pods.flat_map(|pod| pod.addresses.iter().copied()).collect();
        addresses.extend(&changed.addresses);
        let mut identified = Vec::new();
        for address in &addresses {
            let membership = self.membership(world, *address);
            let identity = (!membership.is_empty()).then(|| self.identity(membership, pass));
            identified.push((*address, identity));
        }
        let touched = self.members_in_question(world, pass);
        let mut moves = Moves::new();
        for of_one in touched.chunk_by(|(one, ..), (other, ..)| one == other) {
            if let Some((address, ..)) = of_one.first().filter(|(address, ..)| !addresses.contains(address)) {
                identified.push((*address, self.moved(world, *address, of_one, &mut moves, pass)));
            }
        }
        pass.regranted.addresses.extend(identified.iter().map(|(address, _)| *address));
        self.identify(identified, draft);
    }

    /// The addresses of pods in the sets that rules use otherwise than before, in ascending order.
    fn members_in_question(&self, world: &World, pass: &Pass) -> Vec<Touched> {
        let mut touched: Vec<Touched> = Vec::new();
        for (id, in_question) in &pass.peer_sets {
            let mut members: Vec<Touched> = Vec::new();
            self.peer_sets
                .for_each_member(world, *id, |address, member| members.push((address, *id, member)));
            // Where a pod that lives is in it, it does not matter that one is not that has finished.
            members.sort_unstable_by(|one, other| one.0.cmp(&other.0).then_with(|| other.2.cmp(&one.2)));
            members.dedup_by_key(|(address, ..)| *address);
            let identities = in_question.identities.iter().filter_map(|chain| self.identities.get(chain));
            for address in identities.flat_map(|known| &known.addresses) {
                if members.binary_search_by_key(address, |(address, ..)| *address).is_err() {
                    touched.push((*address, *id, None));
                }
            }
            touched.append(&mut members);
        }
        touched.sort_unstable();
        touched
    }

    /// The identity of an address of which nothing has changed but some sets.
    fn moved(
        &mut self,
        world: &World,
        address: IpAddr,
        touched: &[Touched],
        moves: &mut Moves,
        pass: &mut Pass,
    ) -> Option<Arc<Identity>> {
        if world.is_shared(address) {
            let membership = self.membership(world, address);
            return (!membership.is_empty()).then(|| self.identity(membership, pass));
        }
        let touched: Vec<_> = touched.iter().map(|(_, id, member)| (*id, member.clone())).collect();
        let key = (self.peers.get(&address).cloned(), touched);
        if let Some(known) = moves.get(&key) {
            return known.clone();
        }
        let (old, touched) = &key;
        let old = old.iter().flat_map(|old| old.membership.each()).flatten();
        let kept = old.filter(|member| touched.iter().all(|(id, _)| *id != member.set));
        let now = touched.iter().filter_map(|(_, member)| member.as_ref());
        let mut members: Vec<Member> = kept.chain(now).cloned().collect();
        members.sort_unstable();
        let identity = (!members.is_empty()).then(|| self.identity(Membership::of_pod(members), pass));
        moves.insert(key, identity.clone());
        identity
    }

    /// Gives addresses of pods their identities, or takes them.
    fn identify(&mut self, identified: Vec<(IpAddr, Option<Arc<Identity>>)>, draft: &mut Draft) {
        let mut changes: [Vec<_>; 2] = Default::default();
        let [ipv4, ipv6] = &mut changes;
        for (address, identity) in identified {
            let old = match &identity {
                Some(identity) => self.peers.insert(address, identity.clone()),
                None => self.peers.remove(&address),
            };
            if old == identity {
                continue;
            }
            if let Some(known) = old.and_then(|old| self.identities.get_mut(&old.chain)) {
                known.addresses.remove(&address);
            }
            let element = identity.map(|identity| {
                if let Some(known) = self.identities.get_mut(&identity.chain) {
                    known.addresses.insert(address);
                }
                goto(&identity.chain)
            });
            let of_family = if address.is_ipv4() { &mut *ipv4 } else { &mut *ipv6 };
            of_family.push((ElementKey::Address(address), element));
        }
        for (family, changes) in Family::BOTH.into_iter().zip(changes) {
            draft.change_elements(&SetRole::Peers(self.direction, family).into(), changes);
        }
    }

    /// The sets of peers that an address is in, for each of the pods that show it.
    pub(in crate::compile) fn membership(&mut self, world: &World, address: IpAddr) -> Membership {
        Membership::of_each(world.claimants(address).map(|pod| self.members(world, address, pod)))
    }

    /// The sets that an address is in if a pod has it, sorted.
    pub(in crate::compile) fn members(&mut self, world: &World, address: IpAddr, owner: &Pod) -> Vec<Member> {
        let in_blocks = self.pieces.get(&address);
        let in_blocks = in_blocks.into_iter().flat_map(|identity| identity.membership.sets());
        self.peer_sets.members(world, owner, in_blocks)
    }

    /// The identity with this membership, made known to its sets if it is new.
    fn identity(&mut self, membership: Membership, pass: &mut Pass) -> Arc<Identity> {
        let identity = Identity::new(self.direction, membership);
        if let Some(known) = self.identities.get(&identity.chain) {
            return known.identity.clone();
        }
        let identity = Arc::new(identity);
        self.peer_sets.note_identity(&identity.chain, identity.membership.sets());
        let known = Known { identity: identity.clone(), addresses: BTreeSet::new() };
        self.identities.insert(identity.chain.clone(), known);
        pass.identities.push(identity.clone());
        identity
    }

    /// Brings the pieces of the address space in step with the blocks of the sets that came and went.
    fn update_blocks(&mut self, draft: &mut Draft, pass: &mut Pass) {
        let mut touched = AddressRanges::default();
        for (id, in_question) in std::mem::take(&mut pass.peer_sets) {
            let now = self.peer_sets.ranges(id);
            let mut pieces = std::mem::take(&mut self.pieces);
            for (range, is_in, holder) in self.parts(ranges::differences(&in_question.ranges, &now)) {
                let around = ranges::with_neighbours(&range);
                let before: Vec<_> = pieces.overlapping(&around).map(|(piece, _)| piece.clone()).collect();
                for piece in before {
                    let blocks = SetRole::Blocks(self.direction, Family::of(*piece.start())).into();
                    draft.remove_element(&blocks, ElementKey::AddressRange(*piece.start(), *piece.end()));
                    touched.insert(piece);
                }
                touched.insert(range.clone());
                pass.regranted.insert_range(&range);
                let mut moves: HashMap<Option<Arc<Identity>>, Option<Arc<Identity>>> = HashMap::new();
                ranges::change(&mut pieces, &range, |old| {
                    let new = moves.entry(old.cloned());
                    new.or_insert_with(|| self.piece(old, (id, is_in), holder, pass)).clone()
                });
            }
            self.pieces = pieces;
            pass.peer_sets.insert(id, in_question);
        }
        for range in touched.iter() {
            for (piece, identity) in self.pieces.overlapping(range) {
                let blocks = SetRole::Blocks(self.direction, Family::of(*piece.start())).into();
                let key = ElementKey::AddressRange(*piece.start(), *piece.end());
                draft.put_element(&blocks, key, goto(&identity.chain));
            }
        }
    }

    /// The ranges, cut where it changes who has the addresses: a link-local source may be a pod's.
    fn parts(
        &self,
        ranges: Vec<(RangeInclusive<IpAddr>, bool)>,
    ) -> Vec<(RangeInclusive<IpAddr>, bool, Holder)> {
        if self.direction == Direction::Egress {
            return ranges.into_iter().map(|(range, is_in)| (range, is_in, Holder::Outsider)).collect();
        }
        let parts = ranges.into_iter().flat_map(|(range, is_in)| {
            ranges::apart(&range, &ranges::link_local()).into_iter().map(move |(part, is_link_local)| {
                (part, is_in, if is_link_local { Holder::Unknown } else { Holder::Outsider })
            })
        });
        parts.collect()
    }

    /// The identity of addresses that belong to no pod, when they get into a set or out of it.
    fn piece(
        &mut self,
        old: Option<&Arc<Identity>>,
        (id, is_in): (PeerSetId, bool),
        holder: Holder,
        pass: &mut Pass,
    ) -> Option<Arc<Identity>> {
        let old = old.into_iter().flat_map(|old| old.membership.sets());
        let mut sets: BTreeSet<PeerSetId> = old.filter(|other| *other != id).collect();
        if is_in {
            sets.insert(id);
        }
        let membership = Membership::in_blocks(sets, holder);
        (!membership.is_empty()).then(|| self.identity(membership, pass))
    }
}
