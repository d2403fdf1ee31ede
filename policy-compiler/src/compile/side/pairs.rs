//! What becomes of packets between each identity and the subjects whose rules name it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::peers::Known;
use super::subjects::{Subject, SubjectName};
use super::{Pass, Side, goto};
use crate::compile::draft::Draft;
use crate::compile::identity::{Identity, Membership};
use crate::compile::outcome::Outcomes;
use crate::compile::peer_set::PeerSetId;
use crate::compile::shared_rules;
use crate::compile::tiers::AnyOf;
use crate::compile::verdicts::{self, Rest};
use crate::compile::world::World;
use crate::model::{Direction, Family};
use crate::ruleset::{ChainId, ChainRole, Digest, ElementKey, KeyType, Rule, SetKind, Statement, Verdict};

/// The subjects of an update, by what judges them.
struct Groups<'a> {
    world: &'a World,
    keys: HashMap<&'a SubjectName, Digest>,
    by_key: HashMap<Digest, Group<'a>>,
}

/// Subjects that are judged alike.
struct Group<'a> {
    direction: Direction,
    tiers: AnyOf<'a>,
    rest: Rest,
    /// What becomes of packets whose peer no rule names.
    defaults: HashMap<(Membership, Family), Outcomes>,
    /// The chain that judges packets between the group and whoever is the same to its rules.
    judging: HashMap<(Membership, Family), Option<ChainId>>,
}

impl Side {
    pub(super) fn update_pairs(&self, world: &World, draft: &mut Draft, pass: &Pass) {
        let mut groups = Groups::new(world);
        for (identity, subjects) in self.pairs_in_question(pass) {
            let Some(Known { identity, .. }) = self.identities.get(identity) else { continue };
            // All removals come first: an address may have moved from one subject to another.
            let old = subjects.iter().filter_map(|name| pass.subjects.get(*name)?.as_ref());
            for address in old.flat_map(|subject| &subject.addresses) {
                draft.remove_element(identity.reached(Family::of(*address)), ElementKey::Address(*address));
            }
            for subject in subjects.iter().filter_map(|name| self.subjects.get_key_value(*name)) {
                self.put_pair(draft, identity, subject, &mut groups);
            }
            self.put_identity(draft, identity);
        }
    }

    fn pairs_in_question<'a>(&'a self, pass: &'a Pass) -> BTreeMap<&'a ChainId, BTreeSet<&'a SubjectName>> {
        let mut pairs: BTreeMap<&ChainId, BTreeSet<&SubjectName>> = BTreeMap::new();
        for identity in &pass.identities {
            let subjects = pairs.entry(&identity.chain).or_default();
            let rules = identity.membership.sets().flat_map(|set| self.peer_sets.rules(set));
            let policies: BTreeSet<_> =
                rules.filter_map(|chain| Some(&self.rules.get(chain)?.policy)).collect();
            let active = policies.into_iter().filter_map(|policy| self.active.get(policy));
            subjects.extend(active.flat_map(|active| &active.subjects));
        }
        for (name, old) in &pass.subjects {
            let before =
                old.iter().flat_map(Subject::rules).filter_map(|chain| self.peers_before(chain, pass));
            let after = self.subjects.get(name).into_iter().flat_map(Subject::rules);
            let after = after.filter_map(|chain| self.rules.get(chain)?.peers);
            let sets: BTreeSet<_> = before.chain(after).collect();
            for identity in sets.into_iter().flat_map(|set| self.peer_sets.identities(set)) {
                pairs.entry(identity).or_default().insert(name);
            }
        }
        pairs
    }

    /// The peers that a rule had before this update.
    fn peers_before(&self, chain: &ChainId, pass: &Pass) -> Option<PeerSetId> {
        match pass.rules.get(chain) {
            Some(peers) => *peers,
            None => self.rules.get(chain)?.peers,
        }
    }

    /// Puts what becomes of packets between an identity and a subject, where it is not what becomes of the subject's others.
    fn put_pair<'a>(
        &'a self,
        draft: &mut Draft,
        identity: &Identity,
        (name, subject): (&'a SubjectName, &'a Subject),
        groups: &mut Groups<'a>,
    ) {
        for family in Family::BOTH {
            let addresses = subject.addresses.iter().filter(|address| Family::of(**address) == family);
            let addresses: Vec<_> = addresses.collect();
            if addresses.is_empty() {
                continue;
            }
            let Some(chain) = groups.of(self, draft, name, subject).judging(draft, identity, family) else {
                continue;
            };
            let map = identity.reached(family);
            draft.put_set(map, SetKind { key: KeyType::Address(family), interval: false, verdicts: true });
            for address in addresses {
                draft.put_element(map, ElementKey::Address(*address), goto(&chain));
            }
        }
    }

    /// Puts an identity's chain, which looks only into maps that have something in them.
    fn put_identity(&self, draft: &mut Draft, identity: &Identity) {
        let maps = Family::BOTH.into_iter().map(|family| (family, identity.reached(family).clone()));
        let filled = maps.filter(|(_, map)| draft.has_elements(map));
        let look_ups = filled.map(|(family, map)| {
            Rule::new([Statement::VerdictMap(shared_rules::subject_field(self.direction, family), map)])
        });
        let unlisted = shared_rules::go(Verdict::Goto(ChainRole::Unlisted(self.direction).into()));
        let rules = look_ups.chain([unlisted]).collect();
        draft.put_chain(&identity.chain, None, rules);
    }
}

impl<'a> Groups<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, keys: HashMap::new(), by_key: HashMap::new() }
    }

    /// The group of a subject.
    fn of(
        &mut self,
        side: &'a Side,
        draft: &mut Draft,
        name: &'a SubjectName,
        subject: &'a Subject,
    ) -> &mut Group<'a> {
        let key = self.keys.entry(name).or_insert_with(|| side.key_of(subject));
        self.by_key.entry(*key).or_insert_with(|| Group {
            direction: side.direction,
            tiers: side.tiers_of(subject),
            rest: side.put_rest(self.world, draft, subject),
            defaults: HashMap::new(),
            judging: HashMap::new(),
        })
    }
}

impl Group<'_> {
    /// Makes sure of the chain of packets between the group and an identity; `None` if they are judged like those whose
    /// peer no rule names.
    fn judging(&mut self, draft: &mut Draft, identity: &Identity, family: Family) -> Option<ChainId> {
        let key = (self.tiers.relevant(&identity.membership)?, family);
        if let Some(known) = self.judging.get(&key) {
            return known.clone();
        }
        let (peer, family) = &key;
        let unnamed = peer.without_sets();
        let outcomes = self.tiers.fold(peer, *family);
        let default = self
            .defaults
            .entry((unnamed.clone(), *family))
            .or_insert_with(|| self.tiers.fold(&unnamed, *family));
        let divergence = outcomes.divergence(default);
        let unlisted = ChainRole::Unlisted(self.direction);
        let chain = (!divergence.is_empty())
            .then(|| verdicts::put_judging(draft, self.direction, &divergence, &self.rest, Some(unlisted)));
        self.judging.insert(key, chain.clone());
        chain
    }
}
