//! Which pods are judged, by which policies, and the rules that come with those.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{InQuestion, Pass, Side};
use crate::compile::draft::Draft;
use crate::compile::peer_set::PeerSetId;
use crate::compile::policies::Policy;
use crate::compile::rule::{ActiveRule, Crowd, rule_chains};
use crate::compile::tiers::Isolation;
use crate::compile::verdicts;
use crate::compile::world::{Changed, World};
use crate::model::{ClusterNetworkPolicy, Direction, NetworkPolicy, ObjectName, Pod, PolicyName, Tier};
use crate::ruleset::ChainId;

/// A pod that policies judge.
#[derive(Clone)]
pub(in crate::compile) struct Judged {
    pub(in crate::compile) pod: Arc<Pod>,
    /// The NetworkPolicies that isolate it.
    pub(in crate::compile) policies: Vec<Arc<NetworkPolicy>>,
    /// Whether there are such, and all of them are in audit mode.
    pub(in crate::compile) audited: bool,
    /// The ClusterNetworkPolicies that choose it, in the order in which they are asked, and whether that is certain.
    cluster_policies: Vec<(Arc<ClusterNetworkPolicy>, bool)>,
    /// The chains of the rules of all of them, in the order in which they are asked, and whether it is certain that the
    /// policy chooses the pod.
    pub(in crate::compile) rules: Vec<(ChainId, bool)>,
}

/// What a subject is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum SubjectName {
    /// A pod, with those of its addresses that no other pod shows.
    Pod(ObjectName),
    /// An address that several pods show: what all of their policies allow passes.
    Shared(IpAddr),
}

/// Addresses that are judged alike.
pub(super) struct Subject {
    /// Whose policies judge: those of one pod, or of several that show the address. At least one.
    pub(super) pods: Vec<Judged>,
    pub(super) addresses: Vec<IpAddr>,
}

impl Judged {
    /// `None` if no policy judges the pod.
    fn of(pod: &Arc<Pod>, direction: Direction, world: &World) -> Option<Self> {
        let policies: Vec<_> = world.isolating(pod, direction).cloned().collect();
        let choosing = world.choosing(pod, direction).into_iter();
        let cluster_policies: Vec<_> = choosing.map(|(policy, certain)| (policy.clone(), certain)).collect();
        if policies.is_empty() && cluster_policies.is_empty() {
            return None;
        }
        let audited = !policies.is_empty() && policies.iter().all(|policy| world.is_audited(policy));
        let mut judged = Self { pod: pod.clone(), policies, audited, cluster_policies, rules: Vec::new() };
        let chains = |policy: Policy, certain| {
            rule_chains(&policy, direction).into_iter().map(move |chain| (chain, certain))
        };
        let of_tier = |tier| {
            let policies = judged.cluster_policies.iter().filter(move |(policy, _)| policy.tier == tier);
            policies.flat_map(|(policy, certain)| chains(Policy::Cluster(policy.clone()), *certain))
        };
        let namespaced = judged.policies.iter();
        let namespaced = namespaced.flat_map(|policy| chains(Policy::Namespaced(policy.clone()), true));
        let rules = of_tier(Tier::Admin).chain(namespaced).chain(of_tier(Tier::Baseline)).collect();
        judged.rules = rules;
        Some(judged)
    }

    /// Whether policies isolate the pod.
    pub(in crate::compile) fn is_isolated(&self) -> bool {
        !self.policies.is_empty()
    }

    /// Whether ClusterNetworkPolicies judge the pod.
    pub(in crate::compile) fn has_tiers(&self) -> bool {
        !self.cluster_policies.is_empty()
    }

    /// The policies of both kinds.
    fn all_policies(&self) -> impl Iterator<Item = Policy> {
        let cluster = self.cluster_policies.iter().map(|(policy, _)| Policy::Cluster(policy.clone()));
        self.policies.iter().cloned().map(Policy::Namespaced).chain(cluster)
    }

    /// Whether the table treats both alike.
    fn is_like(&self, other: &Self) -> bool {
        self.pod.name == other.pod.name
            && self.pod.ports == other.pod.ports
            && self.audited == other.audited
            && self.rules == other.rules
            && self.all_policies().count() == other.all_policies().count()
            && self.all_policies().zip(other.all_policies()).all(|(one, other)| one.is(&other))
    }
}

impl Subject {
    /// `None` if that is nobody of the node, or nobody whom policies judge, or has no address yet.
    fn of(name: &SubjectName, direction: Direction, world: &World) -> Option<Self> {
        match name {
            SubjectName::Pod(name) => {
                let pod = world.pod(name).filter(|pod| world.runs(pod))?;
                world.judged_addresses(pod).next()?;
                let addresses = world.judged_addresses(pod).filter(|address| !world.is_shared(*address));
                let addresses = addresses.collect();
                Some(Self { pods: vec![Judged::of(pod, direction, world)?], addresses })
            }
            SubjectName::Shared(address) => {
                if !world.is_shared(*address) {
                    return None;
                }
                let pods = world.judged(*address);
                let pods: Vec<_> = pods.filter_map(|pod| Judged::of(pod, direction, world)).collect();
                (!pods.is_empty()).then(|| Self { pods, addresses: vec![*address] })
            }
        }
    }

    /// Whether policies isolate it.
    pub(super) fn is_isolated(&self) -> bool {
        self.pods.iter().any(Judged::is_isolated)
    }

    /// Whether policies isolate it that are all in audit mode. What is in audit mode denies nothing that another allows,
    /// so of several pods, those count whose policies are not, if there are any.
    pub(super) fn is_audited(&self) -> bool {
        let mut isolated = self.pods.iter().filter(|pod| pod.is_isolated()).peekable();
        isolated.peek().is_some() && isolated.all(|pod| pod.audited)
    }

    /// The policies that isolate, by name for each pod.
    pub(super) fn isolating(&self) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        let audited = self.is_audited();
        self.pods.iter().filter(move |pod| pod.audited == audited).flat_map(|pod| &pod.policies)
    }

    /// What stands behind the rules of the policies of one of its pods.
    pub(super) fn isolation(&self, pod: &Judged) -> Isolation {
        match (pod.is_isolated(), pod.audited) {
            (true, false) => Isolation::Denying,
            (true, true) if self.is_audited() => Isolation::Audited,
            _ => Isolation::None,
        }
    }

    /// Whether ClusterNetworkPolicies judge it.
    pub(super) fn has_tiers(&self) -> bool {
        self.pods.iter().any(Judged::has_tiers)
    }

    /// The policies of both kinds, for each pod.
    fn policies(&self) -> impl Iterator<Item = Policy> {
        self.pods.iter().flat_map(Judged::all_policies)
    }

    /// The chains of all rules of those.
    pub(super) fn rules(&self) -> impl Iterator<Item = &ChainId> {
        self.pods.iter().flat_map(|pod| &pod.rules).map(|(chain, _)| chain)
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
        let mut namespaces: BTreeSet<_> = changed.policies.iter().map(|policy| &policy.namespace).collect();
        if world.has_cluster_policies() {
            namespaces.extend(&changed.namespaces);
        }
        let in_namespaces = namespaces.into_iter().flat_map(|namespace| world.pods_in(namespace));
        let before = changed.cluster_policies.values().flatten();
        let now = changed.cluster_policies.keys().filter_map(|name| world.cluster_policy(name));
        let policies: Vec<_> =
            before.chain(now).filter(|policy| !policy.rules(self.direction).is_empty()).collect();
        let chosen = policies.into_iter().flat_map(|policy| world.chosen(policy));
        let is_shared = |pod: &Pod| pod.addresses.iter().any(|address| world.is_shared(*address));
        let chosen = chosen.filter(|pod| world.runs(pod) || is_shared(pod));
        let pods: BTreeSet<&ObjectName> =
            changed.pods.iter().chain(in_namespaces.chain(chosen).map(|pod| &pod.name)).collect();
        let addresses = pods.iter().filter_map(|name| world.pod(name)).flat_map(|pod| &pod.addresses);
        let shared = addresses.filter(|address| world.is_shared(**address));
        let no_more = |address: &&IpAddr| self.subjects.contains_key(&SubjectName::Shared(**address));
        let shared: Vec<_> = shared.chain(changed.addresses.iter().filter(no_more)).copied().collect();
        let pods = pods.into_iter().cloned().map(SubjectName::Pod);
        pods.chain(shared.into_iter().map(SubjectName::Shared)).collect()
    }

    /// Has the policies know about a subject's change.
    fn enlist(&mut self, name: &SubjectName, old: Option<&Subject>, new: Option<&Subject>) {
        for policy in old.into_iter().flat_map(Subject::policies) {
            if let Some(active) = self.active.get_mut(&policy.name()) {
                active.subjects.remove(name);
            }
        }
        for policy in new.into_iter().flat_map(Subject::policies) {
            self.active.entry(policy.name()).or_default().subjects.insert(name.clone());
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
        let of_subjects = before.chain(after).flat_map(Subject::policies).map(|policy| policy.name());
        let namespaced = changed.policies.iter().cloned().map(PolicyName::Namespaced);
        let cluster = changed.cluster_policies.keys().cloned().map(PolicyName::Cluster);
        let mut replaced = false;
        let touched: BTreeSet<PolicyName> = of_subjects.chain(namespaced).chain(cluster).collect();
        for name in touched {
            let Some(active) = self.active.get_mut(&name) else { continue };
            let new = world.any_policy(&name).filter(|_| !active.subjects.is_empty());
            let old = std::mem::replace(&mut active.policy, new.clone());
            if new.is_none() {
                self.active.remove(&name);
            }
            if !old.as_ref().zip(new.as_ref()).is_some_and(|(old, new)| old.is(new)) {
                self.replace_rules(world, old.as_ref(), new.as_ref(), draft, pass);
                replaced = true;
            }
        }
        if replaced {
            self.names_all_pods = self.rules.values().any(|rule| rule.has_crowd(Crowd::Pods));
        }
        if changed.nodes {
            self.move_nodes(world, pass);
        }
        self.settle_peer_sets(pass);
    }

    fn replace_rules(
        &mut self,
        world: &World,
        old: Option<&Policy>,
        new: Option<&Policy>,
        draft: &mut Draft,
        pass: &mut Pass,
    ) {
        let mut gone: BTreeSet<ChainId> = BTreeSet::new();
        for chain in old.into_iter().flat_map(|policy| rule_chains(policy, self.direction)) {
            let Some(rule) = self.rules.remove(&chain) else { continue };
            if let Some(set) = rule.peers {
                self.question(set, pass);
                self.peer_sets.remove(set, &chain);
            }
            pass.rules.insert(chain.clone(), rule.peers);
            gone.insert(chain);
        }
        let come = new.into_iter().flat_map(|policy| {
            let chains = rule_chains(policy, self.direction).into_iter();
            chains.zip(ActiveRule::all_of(policy, self.direction))
        });
        for (chain, (rule, peers)) in come {
            if let Some(set) = peers.map(Arc::new) {
                self.question(set.id(), pass);
                self.peer_sets.add(world, &set, &chain, rule.usage(self.direction));
            }
            if !gone.remove(&chain) {
                draft.pin(&chain);
                verdicts::put_rule(draft, &chain);
            }
            self.rules.insert(chain, rule);
        }
        for chain in &gone {
            draft.unpin(chain);
        }
    }

    /// Notes how rules use a set before that changes.
    fn question(&self, id: PeerSetId, pass: &mut Pass) {
        pass.peer_sets.entry(id).or_insert_with(|| InQuestion {
            before: self.peer_sets.asked(id),
            ranges: self.peer_sets.ranges(id),
            identities: self.peer_sets.identities(id).cloned().collect(),
        });
    }

    /// Takes in which addresses nodes have.
    fn move_nodes(&mut self, world: &World, pass: &mut Pass) {
        for set in self.peer_sets.moved(world) {
            self.question(set, pass);
            self.peer_sets.move_nodes(world, set);
        }
    }

    /// Drops the sets that are out of use, and leaves in question only those that are otherwise than before.
    fn settle_peer_sets(&mut self, pass: &mut Pass) {
        pass.peer_sets.retain(|id, in_question| {
            self.peer_sets.drop_unused(*id);
            self.peer_sets.asked(*id) != in_question.before
                || self.peer_sets.ranges(*id) != in_question.ranges
        });
    }
}
