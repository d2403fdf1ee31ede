//! Policies that outlive their objects: those of a namespace that is being deleted hold until its last pod is gone
//! (CVE-2024-7598).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::world::{Changed, World};
use crate::model::{Direction, LabelSelector, NetworkPolicy, ObjectName, Operator, Pod, Requirement};

impl World {
    pub(super) fn put_policy(
        &mut self,
        name: &ObjectName,
        policy: Option<NetworkPolicy>,
        changed: &mut Changed,
    ) {
        if policy.is_some() {
            self.outliving.remove(name);
        } else if self.policy(name).is_some() && self.outlives_policies(&name.namespace) {
            self.outliving.insert(name.clone());
            return;
        }
        self.set_policy(name, policy, changed);
    }

    /// Whether policies of a namespace hold although their objects are gone: it is being deleted, or it is not known
    /// and pods of it are.
    fn outlives_policies(&self, namespace: &Arc<str>) -> bool {
        match self.namespaces.get(namespace) {
            Some(namespace) => namespace.is_terminating(),
            None => self.population.contains_key(namespace),
        }
    }

    /// Ends what only holds as long as a namespace [outlives its policies](Self::outlives_policies).
    pub(super) fn end_outliving(&mut self, namespace: &Arc<str>, changed: &mut Changed) {
        if self.outliving.is_empty() || self.outlives_policies(namespace) {
            return;
        }
        let ended: Vec<_> =
            self.outliving.iter().filter(|name| name.namespace == *namespace).cloned().collect();
        for name in ended {
            self.outliving.remove(&name);
            self.set_policy(&name, None, changed);
        }
    }

    /// Keeps a pod isolated in a direction, without rules, if the policies that did that may have gone with its
    /// namespace: it outlives them.
    pub(super) fn keep_isolated(&mut self, pod: &ObjectName, direction: Direction, changed: &mut Changed) {
        let Some(pod) = self.pod(pod).filter(|pod| self.runs(pod)).cloned() else { return };
        if !self.outlives_policies(&pod.name.namespace) || self.isolating(&pod, direction).next().is_some() {
            return;
        }
        // No object can have this name: names begin with a letter or digit.
        let name = ObjectName::new(pod.name.namespace.clone(), format!("--kept.{}", pod.name.name));
        let mut policy = match self.policy(&name) {
            Some(policy) => NetworkPolicy::clone(policy),
            None => NetworkPolicy {
                name: name.clone(),
                subjects: self.selector_of(&pod),
                ingress: None,
                egress: None,
                audited: false,
                origin: None,
            },
        };
        match direction {
            Direction::Ingress => policy.ingress = Some(Vec::new()),
            Direction::Egress => policy.egress = Some(Vec::new()),
        }
        self.outliving.insert(name.clone());
        self.set_policy(&name, Some(policy), changed);
    }

    /// A selector that matches a pod and none of its namespace that has other labels.
    fn selector_of(&self, pod: &Pod) -> LabelSelector {
        let own = pod.labels.iter().map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In(BTreeSet::from([value.clone()])),
        });
        let of_all = self.pods_in(&pod.name.namespace).flat_map(|other| other.labels.keys());
        let of_others: BTreeSet<_> = of_all.filter(|key| !pod.labels.contains_key(*key)).collect();
        let lacking = of_others
            .into_iter()
            .map(|key| Requirement { key: key.clone(), operator: Operator::DoesNotExist });
        LabelSelector { requirements: own.chain(lacking).collect() }
    }
}
