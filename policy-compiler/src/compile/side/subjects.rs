//! Which pods are isolated, by which policies, and the rules that come with those.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{InQuestion, Pass, Side};
use crate::compile::draft::Draft;
use crate::compile::peer_set::PeerSet;
use crate::compile::rule::{ActiveRule, Crowd};
use crate::compile::shared_rules;
use crate::compile::world::{Changed, World};
use crate::model::{Direction, NetworkPolicy, ObjectName, Pod};
use crate::ruleset::{ChainId, ChainRole, Statement, Verdict};

/// An isolated pod.
#[derive(Clone)]
pub(in crate::compile) struct Isolated {
    pub(in crate::compile) pod: Arc<Pod>,
    pub(in crate::compile) policies: Vec<Arc<NetworkPolicy>>,
    /// Whether all of them are in audit mode.
    pub(in crate::compile) audited: bool,
    /// The chains of all rules of `policies`, sorted.
    pub(super) rules: Vec<ChainId>,
}

/// What a subject is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SubjectName {
    /// A pod, with those of its addresses that no other pod shows.
    Pod(ObjectName),
    /// An address that several pods show: what all of their policies allow passes.
    Shared(IpAddr),
}

/// Addresses that are isolated alike.
pub(super) struct Subject {
    /// Whose policies judge: those of one pod, or of several that show the address. At least one.
    pub(super) pods: Vec<Isolated>,
    pub(super) addresses: Vec<IpAddr>,
}

impl Isolated {
    /// `None` if no policy isolates the pod.
    fn of(pod: &Arc<Pod>, direction: Direction, world: &World) -> Option<Self> {
        let policies: Vec<_> = world.isolating(pod, direction).cloned().collect();
        if policies.is_empty() {
            return None;
        }
        let mut rules: Vec<_> = policies.iter().flat_map(|policy| rule_chains(policy, direction)).collect();
        rules.sort_unstable();
        let audited = policies.iter().all(|policy| world.is_audited(policy));
        Some(Self { pod: pod.clone(), policies, audited, rules })
    }

    /// Whether the table treats both alike.
    fn is_like(&self, other: &Self) -> bool {
        self.pod.name == other.pod.name
            && self.pod.ports == other.pod.ports
            && self.audited == other.audited
            && self.policies.len() == other.policies.len()
            && self.policies.iter().zip(&other.policies).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl Subject {
    /// `None` if that is nobody of the node, or nobody who is isolated, or has no address yet.
    fn of(name: &SubjectName, direction: Direction, world: &World) -> Option<Self> {
        match name {
            SubjectName::Pod(name) => {
                let pod = world.pod(name).filter(|pod| world.runs(pod))?;
                world.judged_addresses(pod).next()?;
                let addresses = world.judged_addresses(pod).filter(|address| !world.is_shared(*address));
                let addresses = addresses.collect();
                Some(Self { pods: vec![Isolated::of(pod, direction, world)?], addresses })
            }
            SubjectName::Shared(address) => {
                if !world.is_shared(*address) {
                    return None;
                }
                let pods = world.judged(*address);
                let mut pods: Vec<_> = pods.filter_map(|pod| Isolated::of(pod, direction, world)).collect();
                // Whatever is in audit mode denies nothing that another allows.
                if pods.iter().any(|pod| !pod.audited) {
                    pods.retain(|pod| !pod.audited);
                }
                (!pods.is_empty()).then(|| Self { pods, addresses: vec![*address] })
            }
        }
    }

    /// Whether all policies are in audit mode.
    pub(super) fn is_audited(&self) -> bool {
        self.pods.iter().all(|pod| pod.audited)
    }

    /// The policies that isolate, by name for each pod.
    pub(super) fn policies(&self) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        self.pods.iter().flat_map(|pod| &pod.policies)
    }

    /// The chains of all rules of those.
    pub(super) fn rules(&self) -> impl Iterator<Item = &ChainId> {
        self.pods.iter().flat_map(|pod| &pod.rules)
    }

    /// Whether the table treats both alike.
    fn is_like(&self, other: &Self) -> bool {
        self.addresses == other.addresses
            && self.pods.len() == other.pods.len()
            && self.pods.iter().zip(&other.pods).all(|(one, other)| one.is_like(other))
    }
}

impl Side {
    pub(super) fn update_subjects(&mut self, world: &World, changed: &Changed, pass: &mut Pass) {
        for name in self.subjects_in_question(world, changed) {
            let new = Subject::of(&name, self.direction, world);
            let old = self.subjects.remove(&name);
            match (old, new) {
                (None, None) => {}
                (Some(old), Some(new)) if old.is_like(&new) => {
                    self.subjects.insert(name, new);
                }
                (old, new) => {
                    self.enlist(&name, old.as_ref(), new.as_ref());
                    self.subjects.extend(new.map(|new| (name.clone(), new)));
                    pass.subjects.insert(name, old);
                }
            }
        }
    }

    fn subjects_in_question(&self, world: &World, changed: &Changed) -> BTreeSet<SubjectName> {
        let namespaces: BTreeSet<_> = changed.policies.iter().map(|policy| &policy.namespace).collect();
        let beside_policies = namespaces.into_iter().flat_map(|namespace| world.pods_in(namespace));
        let pods: BTreeSet<&ObjectName> =
            changed.pods.iter().chain(beside_policies.map(|pod| &pod.name)).collect();
        let addresses = pods.iter().filter_map(|name| world.pod(name)).flat_map(|pod| &pod.addresses);
        let shared = addresses.filter(|address| world.is_shared(**address));
        let no_more = |address: &&IpAddr| self.subjects.contains_key(&SubjectName::Shared(**address));
        let shared: Vec<_> = shared.chain(changed.addresses.iter().filter(no_more)).copied().collect();
        let pods = pods.into_iter().cloned().map(SubjectName::Pod);
        pods.chain(shared.into_iter().map(SubjectName::Shared)).collect()
    }

    /// Tells the policies about a subject's change.
    fn enlist(&mut self, name: &SubjectName, old: Option<&Subject>, new: Option<&Subject>) {
        for policy in old.into_iter().flat_map(Subject::policies) {
            if let Some(active) = self.active.get_mut(&policy.name) {
                active.subjects.remove(name);
            }
        }
        for policy in new.into_iter().flat_map(Subject::policies) {
            self.active.entry(policy.name.clone()).or_default().subjects.insert(name.clone());
        }
    }

    pub(super) fn update_rules(
        &mut self,
        world: &World,
        changed: &Changed,
        draft: &mut Draft,
        pass: &mut Pass,
    ) {
        let before = pass.subjects.values().flatten();
        let after = pass.subjects.keys().filter_map(|name| self.subjects.get(name));
        let of_subjects = before.chain(after).flat_map(Subject::policies).map(|policy| &policy.name);
        let mut replaced = false;
        let touched: BTreeSet<ObjectName> = of_subjects.chain(&changed.policies).cloned().collect();
        for name in touched {
            let Some(active) = self.active.get_mut(&name) else { continue };
            let new = world.policy(&name).filter(|_| !active.subjects.is_empty()).cloned();
            let old = std::mem::replace(&mut active.policy, new.clone());
            if new.is_none() {
                self.active.remove(&name);
            }
            if !old.as_ref().zip(new.as_ref()).is_some_and(|(old, new)| Arc::ptr_eq(old, new)) {
                self.replace_rules(world, old.as_deref(), new.as_deref(), draft, pass);
                replaced = true;
            }
        }
        if replaced {
            self.names_all_pods = self.rules.values().any(|rule| rule.has_crowd(Crowd::Pods));
            self.settle_peer_sets(pass);
        }
    }

    fn replace_rules(
        &mut self,
        world: &World,
        old: Option<&NetworkPolicy>,
        new: Option<&NetworkPolicy>,
        draft: &mut Draft,
        pass: &mut Pass,
    ) {
        let mut gone: BTreeSet<ChainId> = BTreeSet::new();
        for chain in old.into_iter().flat_map(|policy| rule_chains(policy, self.direction)) {
            let Some(rule) = self.rules.remove(&chain) else { continue };
            if let Some(set) = rule.peers.and_then(|id| self.peer_sets.get(id)).cloned() {
                self.question(&set, pass);
                self.peer_sets.remove(set.id(), &chain);
            }
            pass.rules.insert(chain.clone(), rule.peers);
            gone.insert(chain);
        }
        let come = new.into_iter().flat_map(|policy| {
            let rules = policy.rules(self.direction).unwrap_or_default().iter();
            rule_chains(policy, self.direction)
                .zip(rules.map(|rule| ActiveRule::new(self.direction, &policy.name, rule)))
        });
        for (chain, (rule, peers)) in come {
            if let Some(set) = peers.map(Arc::new) {
                self.question(&set, pass);
                self.peer_sets.add(world, &set, &chain, rule.usage(self.direction));
            }
            if !gone.remove(&chain) {
                draft.pin(&chain);
                let count = shared_rules::rule([Statement::Counter], Verdict::Return);
                draft.put_chain(&chain, None, vec![count]);
            }
            self.rules.insert(chain, rule);
        }
        for chain in &gone {
            draft.unpin(chain);
        }
    }

    /// Notes how rules use a set before that changes.
    fn question(&self, set: &Arc<PeerSet>, pass: &mut Pass) {
        pass.peer_sets.entry(set.id()).or_insert_with(|| InQuestion {
            set: set.clone(),
            before: self.peer_sets.asked(set.id()),
            identities: self.peer_sets.identities(set.id()).cloned().collect(),
        });
    }

    /// Drops the sets that are out of use, and leaves in question only those that are used otherwise than before.
    fn settle_peer_sets(&mut self, pass: &mut Pass) {
        pass.peer_sets.retain(|id, in_question| {
            self.peer_sets.drop_unused(*id);
            self.peer_sets.asked(*id) != in_question.before
        });
    }
}

/// The chains of a policy's rules, in the order of the rules.
fn rule_chains(policy: &NetworkPolicy, direction: Direction) -> impl Iterator<Item = ChainId> {
    let rules = policy.rules(direction).unwrap_or_default();
    (0..rules.len())
        .map(move |index| ChainRole::Rule { direction, policy: policy.name.clone(), index }.into())
}
