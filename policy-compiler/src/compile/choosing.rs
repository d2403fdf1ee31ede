//! Which pods the policies of the whole cluster choose.

use std::sync::Arc;

use super::policies::Replaced;
use super::world::{Changed, World};
use crate::model::{ClusterNetworkPolicy, Direction, NamespaceScope, Pod};

impl World {
    pub(super) fn put_cluster_policy(
        &mut self,
        name: &Arc<str>,
        policy: Option<ClusterNetworkPolicy>,
        changed: &mut Changed,
    ) {
        let audit = self.audit;
        let policy = policy.map(|policy| ClusterNetworkPolicy { audited: policy.audited || audit, ..policy });
        if let Some(Replaced(before)) = self.cluster_policies.put(name, policy) {
            changed.cluster_policies.entry(name.clone()).or_insert(before);
        }
    }

    pub(super) fn cluster_policy(&self, name: &Arc<str>) -> Option<&Arc<ClusterNetworkPolicy>> {
        self.cluster_policies.enforced().get(name)
    }

    /// The ClusterNetworkPolicies with rules in a direction that choose a pod, in the order in which they are asked, and
    /// whether that is certain.
    pub(super) fn choosing(
        &self,
        pod: &Pod,
        direction: Direction,
    ) -> Vec<(&Arc<ClusterNetworkPolicy>, bool)> {
        let policies = self.cluster_policies.enforced().values();
        let policies = policies.filter(|policy| !policy.rules(direction).is_empty());
        let choosing = policies.filter_map(|policy| {
            let certain = self.chooses_in(policy, &pod.name.namespace)?;
            policy.subject.pods.matches(&pod.labels).then_some((policy, certain))
        });
        let mut choosing: Vec<_> = choosing.collect();
        choosing.sort_by_key(|(policy, _)| policy.precedence());
        choosing
    }

    /// Whether it is certain that a policy can choose pods of a namespace; `None` if it cannot.
    fn chooses_in(&self, policy: &ClusterNetworkPolicy, namespace: &Arc<str>) -> Option<bool> {
        match &policy.subject.namespaces {
            NamespaceScope::Matching(selector) => self.selects(selector, namespace),
            NamespaceScope::Own => None,
        }
    }

    /// The pods that a policy chooses, or perhaps does.
    pub(super) fn chosen<'a>(
        &'a self,
        policy: &'a ClusterNetworkPolicy,
    ) -> impl Iterator<Item = &'a Arc<Pod>> {
        let namespaces = self.namespaces_with_pods();
        let namespaces = namespaces.filter(|namespace| self.chooses_in(policy, namespace).is_some());
        let pods = namespaces.flat_map(|namespace| self.pods_in(namespace));
        pods.filter(|pod| policy.subject.pods.matches(&pod.labels))
    }

    /// Whether there is any ClusterNetworkPolicy.
    pub(super) fn has_cluster_policies(&self) -> bool {
        !self.cluster_policies.enforced().is_empty()
    }
}
