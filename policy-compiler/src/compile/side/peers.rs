//! Whom the rules name: addresses of pods one by one, all others by blocks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Pass, Side, goto};
use crate::compile::draft::Draft;
use crate::compile::peer_set::{Member, PeerSetId};
use crate::compile::ranges::{self, AddressRanges};
use crate::compile::rule::{Identity, Membership};
use crate::compile::world::{Changed, World};
use crate::model::{Family, Pod};
use crate::ruleset::{ElementKey, SetRole};

/// An identity in use.
pub(super) struct Known {
    pub(super) identity: Arc<Identity>,
    /// The addresses of pods that have it.
    addresses: BTreeSet<IpAddr>,
}

/// What becomes of an identity when some sets have to be looked at, by those and what its pod is in of them now.
type Moves = HashMap<(Option<Arc<Identity>>, Vec<PeerSetId>, Vec<Member>), Option<Arc<Identity>>>;

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
        for address in &addresses {
            let membership = self.membership(world, *address);
            let identity = (!membership.is_empty()).then(|| self.identity(membership, pass));
            self.identify(*address, identity, draft);
        }
        let touched = self.members_in_question(world, pass);
        let mut moves = Moves::new();
        for (address, sets) in touched.into_iter().filter(|(address, _)| !addresses.contains(address)) {
            let identity = self.moved(world, address, sets, &mut moves, pass);
            self.identify(address, identity, draft);
            pass.regranted.addresses.insert(address);
        }
        pass.regranted.addresses.extend(addresses);
    }

    /// The addresses of pods in the sets that rules use otherwise than before, each with those sets.
    fn members_in_question(&self, world: &World, pass: &Pass) -> BTreeMap<IpAddr, Vec<PeerSetId>> {
        let mut touched: BTreeMap<IpAddr, Vec<PeerSetId>> = BTreeMap::new();
        for (id, in_question) in &pass.peer_sets {
            let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
            if self.peer_sets.asked(*id).is_some() {
                addresses.extend(in_question.set.addresses(world));
            }
            let known = in_question.identities.iter().filter_map(|chain| self.identities.get(chain));
            addresses.extend(known.flat_map(|known| &known.addresses));
            for address in addresses {
                touched.entry(address).or_default().push(*id);
            }
        }
        touched
    }

    /// The identity of an address of which nothing has changed but these sets.
    fn moved(
        &mut self,
        world: &World,
        address: IpAddr,
        sets: Vec<PeerSetId>,
        moves: &mut Moves,
        pass: &mut Pass,
    ) -> Option<Arc<Identity>> {
        let mut claimants = world.claimants(address);
        let (pod, others) = (claimants.next()?, claimants.next());
        if others.is_some() {
            let membership = self.membership(world, address);
            return (!membership.is_empty()).then(|| self.identity(membership, pass));
        }
        let now = sets.iter().filter_map(|id| self.peer_sets.member(world, *id, address, pod));
        let now: Vec<Member> = now.collect();
        let old = self.peers.get(&address).cloned();
        let key = (old, sets, now);
        if let Some(known) = moves.get(&key) {
            return known.clone();
        }
        let (old, sets, now) = &key;
        let old = old.iter().flat_map(|old| old.membership.each()).flatten();
        let kept = old.filter(|member| !sets.contains(&member.set));
        let mut members: Vec<Member> = kept.chain(now).cloned().collect();
        members.sort_unstable();
        let identity = (!members.is_empty()).then(|| self.identity(Membership::of_one(members), pass));
        moves.insert(key, identity.clone());
        identity
    }

    /// Gives an address of a pod its identity, or takes it.
    fn identify(&mut self, address: IpAddr, identity: Option<Arc<Identity>>, draft: &mut Draft) {
        if self.peers.get(&address) == identity.as_ref() {
            return;
        }
        let set = SetRole::Peers(self.direction, Family::of(address)).into();
        let key = ElementKey::Address(address);
        let old = match identity {
            Some(identity) => {
                draft.put_element(&set, key, goto(&identity.chain));
                if let Some(known) = self.identities.get_mut(&identity.chain) {
                    known.addresses.insert(address);
                }
                self.peers.insert(address, identity)
            }
            None => {
                draft.remove_element(&set, key);
                self.peers.remove(&address)
            }
        };
        if let Some(known) = old.and_then(|old| self.identities.get_mut(&old.chain)) {
            known.addresses.remove(&address);
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
        let mut touched = AddressRanges::new_with_step_fns();
        for (id, in_question) in std::mem::take(&mut pass.peer_sets) {
            let is_in = self.peer_sets.asked(id).is_some();
            let mut moves: HashMap<Option<Arc<Identity>>, Option<Arc<Identity>>> = HashMap::new();
            let mut pieces = std::mem::take(&mut self.pieces);
            for range in in_question.set.ranges().iter().filter(|_| is_in != in_question.before.is_some()) {
                let around = ranges::with_neighbours(range);
                let before: Vec<_> = pieces.overlapping(&around).map(|(piece, _)| piece.clone()).collect();
                for piece in before {
                    let blocks = SetRole::Blocks(self.direction, Family::of(*piece.start())).into();
                    draft.remove_element(&blocks, ElementKey::AddressRange(*piece.start(), *piece.end()));
                    touched.insert(piece);
                }
                touched.insert(range.clone());
                pass.regranted.insert_range(range);
                ranges::change(&mut pieces, range, |old| {
                    let moved = moves.get(&old.cloned()).cloned();
                    moved.unwrap_or_else(|| {
                        let new = self.piece(old, id, is_in, pass);
                        moves.insert(old.cloned(), new.clone());
                        new
                    })
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

    /// The identity of addresses that belong to no pod, when they get into a set or out of it.
    fn piece(
        &mut self,
        old: Option<&Arc<Identity>>,
        id: PeerSetId,
        is_in: bool,
        pass: &mut Pass,
    ) -> Option<Arc<Identity>> {
        let old = old.into_iter().flat_map(|old| old.membership.sets());
        let mut sets: BTreeSet<PeerSetId> = old.filter(|other| *other != id).collect();
        if is_in {
            sets.insert(id);
        }
        let membership = Membership::of_outsider(sets);
        (!membership.is_empty()).then(|| self.identity(membership, pass))
    }
}
