//! What becomes of packets between each identity and the subjects whose rules name it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::peers::Known;
use super::subjects::{Subject, SubjectName};
use super::{Pass, Side, goto};
use crate::compile::draft::Draft;
use crate::compile::group::Group;
use crate::compile::identity::{Holder, Identity};
use crate::compile::peer_set::PeerSetId;
use crate::compile::shared_rules;
use crate::compile::world::World;
use crate::model::Family;
use crate::ruleset::{ChainId, ChainRole, Digest, ElementKey, KeyType, Rule, SetKind, Statement, Verdict};

/// The subjects of an update, by what judges them.
pub(super) struct Groups<'a> {
    world: &'a World,
    keys: HashMap<&'a SubjectName, Digest>,
    by_key: HashMap<Digest, Group<'a>>,
}

impl Side {
    pub(super) fn update_pairs<'a>(&'a self, draft: &mut Draft, pass: &'a Pass, groups: &mut Groups<'a>) {
        for (identity, subjects) in self.pairs_in_question(pass) {
            let Some(Known { identity, .. }) = self.identities.get(identity) else { continue };
            // All removals come first: an address may have moved from one subject to another.
            let old = subjects.iter().filter_map(|name| pass.subjects.get(*name)?.as_ref());
            for address in old.flat_map(|subject| &subject.addresses) {
                draft.remove_element(identity.reached(Family::of(*address)), ElementKey::Address(*address));
            }
            for subject in subjects.iter().filter_map(|name| self.subjects.get_key_value(*name)) {
                self.put_pair(draft, identity, subject, groups);
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
            let group = groups.of(self, draft, name, subject);
            let Some(chain) = group.judging(draft, &identity.membership, family) else { continue };
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
    pub(super) fn new(world: &'a World) -> Self {
        Self { world, keys: HashMap::new(), by_key: HashMap::new() }
    }

    /// The group of a subject.
    pub(super) fn of(
        &mut self,
        side: &'a Side,
        draft: &mut Draft,
        name: &'a SubjectName,
        subject: &'a Subject,
    ) -> &mut Group<'a> {
        let key = self.keys.entry(name).or_insert_with(|| side.key_of(subject));
        self.by_key.entry(*key).or_insert_with(|| {
            let rest = side.put_rest(self.world, draft, subject);
            Group::new(side.direction, side.tiers_of(subject), rest, Holder::Outsider)
        })
    }
}
