//! Subjects that are judged alike, and the chains that judge them.

use std::collections::HashMap;

use super::draft::Draft;
use super::identity::{Holder, Membership};
use super::outcome::Outcomes;
use super::shared_rules::go;
use super::tiers::AnyOf;
use super::verdicts::{self, Rest};
use crate::model::{Direction, Family};
use crate::ruleset::{ChainId, ChainRole, Digest, TableFamily, Verdict};

/// Subjects that the same rules judge in one direction.
pub(super) struct Group<'a> {
    direction: Direction,
    tiers: AnyOf<'a>,
    rest: Rest,
    /// Who has an address of which nothing is known.
    unknown: Holder,
    /// What becomes of packets whose peer no rule names.
    defaults: HashMap<(Holder, Family), Outcomes>,
    /// The chain that judges packets between the group and whoever is the same to its rules.
    judging: HashMap<(Membership, Family), Option<ChainId>>,
}

impl<'a> Group<'a> {
    pub(super) fn new(direction: Direction, tiers: AnyOf<'a>, rest: Rest, unknown: Holder) -> Self {
        Self { direction, tiers, rest, unknown, defaults: HashMap::new(), judging: HashMap::new() }
    }

    /// Makes sure of the chain of packets whose peer is in these sets of peers; `None` if they are judged like those whose
    /// peer no rule names.
    pub(super) fn judging(
        &mut self,
        draft: &mut Draft,
        peer: &Membership,
        family: Family,
    ) -> Option<ChainId> {
        let key = (self.tiers.relevant(peer)?, family);
        if let Some(known) = self.judging.get(&key) {
            return known.clone();
        }
        let chain = self.put_judging(draft, &key.0, peer.holder(), family);
        self.judging.insert(key, chain.clone());
        chain
    }

    /// The same for a peer in a block, who may be in none of the sets: `None` if it is judged like one of whom nothing is
    /// known.
    pub(super) fn judging_block(
        &mut self,
        draft: &mut Draft,
        peer: &Membership,
        family: Family,
    ) -> Option<ChainId> {
        self.put_judging(draft, peer, self.unknown, family)
    }

    /// Makes sure of the chain of packets to or from a peer; `None` if they are judged like those of an unnamed one.
    fn put_judging(
        &mut self,
        draft: &mut Draft,
        peer: &Membership,
        unnamed: Holder,
        family: Family,
    ) -> Option<ChainId> {
        let tiers = &self.tiers;
        let default = self.defaults.entry((unnamed, family));
        let default = default.or_insert_with(|| tiers.fold(&Membership::unnamed(unnamed), family));
        let divergence = tiers.fold(peer, family).divergence(default);
        (!divergence.is_empty())
            .then(|| verdicts::put_judging(draft, self.direction, &divergence, &self.rest))
    }

    /// Makes sure of the chain of packets whose peer no rule names: what is decided for everybody, for a family and for all
    /// pods, and then what stands behind the rules. `None` if they are all allowed by returning. `pods`: the table knows the
    /// addresses of pods.
    pub(super) fn put_unnamed(&self, draft: &mut Draft, pods: bool) -> Option<ChainId> {
        let last = self.rest.isolation.clone().or_else(|| match draft.table() {
            TableFamily::Inet => None,
            TableFamily::Netdev => Some(ChainRole::LinkPass.into()),
        });
        let holders = (self.unknown, pods);
        let mut rules = verdicts::for_unnamed(draft, self.direction, &self.tiers, holders, &self.rest);
        if rules.is_empty() {
            return last;
        }
        rules.extend(last.map(|last| go(Verdict::Goto(last))));
        let content = Digest::of(rules.iter().map(ToString::to_string));
        let chain = ChainRole::Subject(self.direction, content).into();
        draft.put_chain(&chain, None, rules);
        Some(chain)
    }
}
