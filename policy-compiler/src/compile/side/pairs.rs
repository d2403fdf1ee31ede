//! What each identity may reach: for every subject that grants it something, the ports.

use std::collections::{BTreeMap, BTreeSet};

use super::peers::Known;
use super::subjects::{Subject, SubjectName};
use super::{Pass, Side, goto};
use crate::compile::access::{Access, Opening, port_map};
use crate::compile::draft::Draft;
use crate::compile::identity::Identity;
use crate::compile::peer_set::PeerSetId;
use crate::compile::rule::Crowd;
use crate::compile::shared_rules;
use crate::model::Family;
use crate::ruleset::{
    ChainId, ChainRole, Digest, ElementKey, Fields, KeyType, Rule, SetId, SetKind, SetRole, Statement,
    Verdict,
};

impl Side {
    pub(super) fn update_pairs(&self, draft: &mut Draft, pass: &Pass) {
        for (identity, subjects) in self.pairs_in_question(pass) {
            let Some(Known { identity, .. }) = self.identities.get(identity) else { continue };
            // All removals come first: an address may have moved from one subject to another.
            let old = subjects.iter().filter_map(|name| pass.subjects.get(*name)?.as_ref());
            for address in old.flat_map(|subject| &subject.addresses) {
                draft.remove_element(identity.reached(Family::of(*address)), ElementKey::Address(*address));
            }
            for subject in subjects.iter().filter_map(|name| self.subjects.get(*name)) {
                self.put_pair(draft, identity, subject);
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

    fn put_pair(&self, draft: &mut Draft, identity: &Identity, subject: &Subject) {
        let chain = match subject.pods.as_slice() {
            [pod] => {
                self.access(pod, &identity.membership, &[]).map(|access| self.put_access(draft, &access))
            }
            _ => self.put_shared(draft, identity, subject),
        };
        let Some(chain) = chain else { return };
        for address in &subject.addresses {
            let family = Family::of(*address);
            let map = identity.reached(family);
            draft.put_set(map, SetKind { key: KeyType::Address(family), interval: false, verdicts: true });
            draft.put_element(map, ElementKey::Address(*address), goto(&chain));
        }
    }

    /// Makes sure of a chain that returns for what the policies of all pods allow that show one address; `None` if that
    /// is nothing. What one pod's rules open to a crowd another's may open to the identity, so both count here.
    fn put_shared(&self, draft: &mut Draft, identity: &Identity, subject: &Subject) -> Option<ChainId> {
        // Where no rule names the identity, the crowds are looked up with the isolation.
        let sets: BTreeSet<_> = identity.membership.sets().collect();
        let mut peers = subject.rules().filter_map(|chain| self.rules.get(chain)?.peers);
        peers.find(|set| sets.contains(set))?;
        // It is one address, so the other end's is of its family.
        let family = Family::of(*subject.addresses.first()?);
        let open = |crowds: &[Crowd]| {
            let crowds = [&[Crowd::Everybody, Crowd::Family(family)], crowds].concat();
            Access::common(subject.pods.iter().map(|pod| self.access(pod, &identity.membership, &crowds)))
        };
        let to_anybody = open(&[]);
        let to_pods = open(&[Crowd::Pods]).filter(|open| to_anybody.as_ref() != Some(open));
        let mut rules = Vec::new();
        if let Some(open) = to_pods {
            let open = self.let_through(draft, &open);
            rules.extend(shared_rules::with_peers(self.direction, SetRole::Pods, &open));
        }
        if let Some(open) = to_anybody {
            rules.push(Rule::new([self.let_through(draft, &open)]));
        }
        if rules.is_empty() {
            return None;
        }
        rules.push(self.to_unlisted());
        let content = Digest::of(rules.iter().map(ToString::to_string));
        let chain = ChainRole::Path(self.direction, content).into();
        if !draft.has_chain(&chain) {
            draft.put_chain(&chain, None, rules);
        }
        Some(chain)
    }

    /// Where packets go on that `access` allows.
    pub(super) fn let_through(&self, draft: &mut Draft, access: &Access) -> Statement {
        match access {
            Access::Everything(rule) => Statement::Verdict(Verdict::Goto(rule.clone())),
            Access::Ports(ports) => {
                Statement::VerdictMap(Fields::ProtocolAndPort, self.put_ports(draft, ports).1)
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
        let rules = look_ups.chain([self.to_unlisted()]).collect();
        draft.put_chain(&identity.chain, None, rules);
    }

    /// Makes sure of a chain that returns for what `access` allows; its name.
    fn put_access(&self, draft: &mut Draft, access: &Access) -> ChainId {
        match access {
            Access::Everything(rule) => rule.clone(),
            Access::Ports(ports) => {
                let (content, map) = self.put_ports(draft, ports);
                let chain = ChainRole::Ports(self.direction, content).into();
                if !draft.has_chain(&chain) {
                    let look_up = Rule::new([Statement::VerdictMap(Fields::ProtocolAndPort, map)]);
                    draft.put_chain(&chain, None, vec![look_up, self.to_unlisted()]);
                }
                chain
            }
        }
    }

    /// Makes sure of the map from ports to the rules that open them; what stands for its content, and the map.
    pub(in crate::compile) fn put_ports(&self, draft: &mut Draft, ports: &[Opening]) -> (Digest, SetId) {
        let content = Digest::of(ports.iter().map(ToString::to_string));
        let name = SetRole::Ports(self.direction, content).into();
        if !draft.has_elements(&name) {
            let (kind, elements) = port_map(ports);
            draft.put_set(&name, kind);
            draft.replace_elements(&name, elements);
        }
        (content, name)
    }

    fn to_unlisted(&self) -> Rule {
        shared_rules::go(Verdict::Goto(ChainRole::Unlisted(self.direction).into()))
    }
}
