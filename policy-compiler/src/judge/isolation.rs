//! Every selector, resolved to the pods that it matches.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::pod_set::{Member, PodSet};
use crate::model::{
    Cluster, Direction, IpBlock, LabelSelector, NamespaceScope, NetworkPolicy, Peer, Pod, PodPeer, Rule,
};

/// A policy that isolates one direction.
#[derive(Debug)]
pub(super) struct Isolation<'a> {
    pub(super) policy: &'a NetworkPolicy,
    pub(super) rules: Vec<ResolvedRule<'a>>,
    /// Whether the policy is in audit mode.
    pub(super) audited: bool,
}

/// A rule and whom its peers cover: everybody where it has no list of them.
#[derive(Debug)]
pub(super) struct ResolvedRule<'a> {
    pub(super) rule: &'a Rule,
    pub(super) pods: PodSet,
    pub(super) blocks: Vec<&'a IpBlock>,
    pub(super) own_node: bool,
}

/// What isolates each member, in one direction.
pub(super) type Isolations<'a> = Vec<Vec<Arc<Isolation<'a>>>>;

/// The pods that policies can isolate. Those that have finished are nobody's peers.
pub(super) fn members(cluster: &Cluster) -> impl Iterator<Item = (Member, &Pod)> {
    cluster.pods().values().filter(|pod| !pod.host_network).enumerate()
}

/// Finds what isolates each member in `direction`, policies by name.
pub(super) fn isolations(cluster: &Cluster, direction: Direction) -> Isolations<'_> {
    let world = World::new(cluster);
    let mut isolations: Isolations = members(cluster).map(|_| Vec::new()).collect();
    for policy in cluster.policies().values() {
        let Some(rules) = policy.rules(direction) else { continue };
        let rules = rules.iter().map(|rule| world.resolve(policy, rule)).collect();
        let isolation = Arc::new(Isolation { policy, rules, audited: cluster.is_audited(policy) });
        for (subject, _) in world.select(policy, &NamespaceScope::Own, &policy.subjects) {
            if let Some(isolating) = isolations.get_mut(subject) {
                isolating.push(Arc::clone(&isolation));
            }
        }
    }
    isolations
}

/// The members by their namespace.
struct World<'a> {
    cluster: &'a Cluster,
    members: BTreeMap<&'a str, Vec<(Member, &'a Pod)>>,
}

impl<'a> World<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let mut by_namespace: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (member, pod) in members(cluster) {
            by_namespace.entry(&*pod.name.namespace).or_default().push((member, pod));
        }
        Self { cluster, members: by_namespace }
    }

    /// The members that a pod selector of `policy` matches in a scope.
    fn select<'s>(
        &'s self,
        policy: &'s NetworkPolicy,
        scope: &'s NamespaceScope,
        pods: &'s LabelSelector,
    ) -> impl Iterator<Item = (Member, &'a Pod)> + 's {
        let in_scope = move |namespace: &str| match scope {
            NamespaceScope::Own => *namespace == *policy.name.namespace,
            NamespaceScope::Matching(selector) => {
                selector.matches_namespace(namespace, self.cluster.namespaces().get(namespace))
            }
        };
        let in_scope = self.members.iter().filter(move |(namespace, _)| in_scope(namespace));
        in_scope.flat_map(|(_, members)| members).filter(|(_, pod)| pods.matches(&pod.labels)).copied()
    }

    fn resolve(&self, policy: &NetworkPolicy, rule: &'a Rule) -> ResolvedRule<'a> {
        let mut resolved =
            ResolvedRule { rule, pods: PodSet::default(), blocks: Vec::new(), own_node: false };
        for peer in rule.peers.iter().flatten() {
            match peer {
                Peer::Pods(PodPeer { namespaces, pods }) => {
                    let selected = self.select(policy, namespaces, pods);
                    let live = selected.filter(|(_, pod)| pod.selectable());
                    resolved.pods.extend(live.map(|(member, _)| member));
                }
                Peer::Block(block) => resolved.blocks.push(block),
                Peer::OwnNode => resolved.own_node = true,
                Peer::Nodes(_) | Peer::Domains(_) => {}
            }
        }
        resolved
    }
}
