//! The NetworkPolicies that isolate each pod.

use std::sync::Arc;

use super::resolve::{Certainty, ResolvedRule, World, members};
use crate::model::{Direction, NamespaceScope, NetworkPolicy};

/// A policy that isolates one direction.
#[derive(Debug)]
pub(super) struct Isolation<'a> {
    pub(super) policy: &'a NetworkPolicy,
    pub(super) rules: Vec<ResolvedRule<'a>>,
    /// Whether the policy is in audit mode.
    pub(super) audited: bool,
}

/// What isolates each member, in one direction.
pub(super) type Isolations<'a> = Vec<Vec<Arc<Isolation<'a>>>>;

/// Finds what isolates each member in `direction`, policies by name.
pub(super) fn isolations<'a>(world: &World<'a>, direction: Direction) -> Isolations<'a> {
    let cluster = world.cluster;
    let mut isolations: Isolations<'_> = members(cluster).map(|_| Vec::new()).collect();
    for policy in cluster.policies().values() {
        let Some(rules) = policy.rules(direction) else { continue };
        let own = Some(&*policy.name.namespace);
        let rules = rules.iter().map(|rule| world.resolve(own, rule, Certainty::Certain)).collect();
        let isolation = Arc::new(Isolation { policy, rules, audited: cluster.is_audited(policy) });
        for (subject, _) in world.select(own, &NamespaceScope::Own, &policy.subjects, Certainty::Certain) {
            if let Some(isolating) = isolations.get_mut(subject) {
                isolating.push(Arc::clone(&isolation));
            }
        }
    }
    isolations
}
