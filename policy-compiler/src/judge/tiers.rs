//! The ClusterNetworkPolicies that apply to each pod.

use std::sync::Arc;

use super::pod_set::{Member, PodSet};
use super::resolve::{Certainty, ResolvedRule, World, members};
use super::verdict::ClusterRule;
use crate::model::{Action, ClusterNetworkPolicy, Direction};

/// A policy that applies to pods in one direction.
#[derive(Debug)]
pub(super) struct Applied<'a> {
    pub(super) policy: &'a ClusterNetworkPolicy,
    pub(super) effects: Vec<Effect<'a>>,
    /// The pods that it certainly applies to; to the others it may.
    certain: PodSet,
}

/// What a rule does to the connections that it covers.
#[derive(Debug)]
pub(super) struct Effect<'a> {
    pub(super) rule: ClusterRule<'a>,
    pub(super) action: Action,
    pub(super) covered: ResolvedRule<'a>,
    certainty: Certainty,
}

/// What applies to each member in one direction, in the order in which it is asked.
pub(super) type Applications<'a> = Vec<Vec<Arc<Applied<'a>>>>;

/// Finds what applies to each member in `direction`.
pub(super) fn applications<'a>(world: &World<'a>, direction: Direction) -> Applications<'a> {
    let mut applications: Applications<'_> = members(world.cluster).map(|_| Vec::new()).collect();
    let policies = world.cluster.cluster_policies().values();
    let mut policies: Vec<_> = policies.filter(|policy| !policy.rules(direction).is_empty()).collect();
    policies.sort_by_key(|policy| policy.precedence());
    for policy in policies {
        let subjects = |certainty| {
            let (namespaces, pods) = (&policy.subject.namespaces, &policy.subject.pods);
            world.select(None, namespaces, pods, certainty).map(|(member, _)| member)
        };
        let mut certain = PodSet::default();
        certain.extend(subjects(Certainty::Certain));
        let applied = Arc::new(Applied { policy, effects: effects(world, policy, direction), certain });
        for subject in subjects(Certainty::Perhaps) {
            if let Some(applying) = applications.get_mut(subject) {
                applying.push(Arc::clone(&applied));
            }
        }
    }
    applications
}

/// What the rules of a policy do, in their order: to what they certainly cover, and then to what they may cover.
fn effects<'a>(world: &World<'a>, policy: &'a ClusterNetworkPolicy, direction: Direction) -> Vec<Effect<'a>> {
    let rules = policy.rules(direction).iter().enumerate();
    let effects = rules.flat_map(|(index, rule)| {
        // A Deny does the same whether it is certain or not.
        let certain = Some(rule.action).filter(|action| action.in_doubt() != Some(*action));
        let perhaps = rule.action.in_doubt();
        [(Certainty::Certain, certain), (Certainty::Perhaps, perhaps)].into_iter().filter_map(
            move |(certainty, action)| {
                let covered = world.resolve(None, &rule.rule, certainty);
                Some(Effect {
                    rule: ClusterRule { policy, index, rule },
                    action: action?,
                    covered,
                    certainty,
                })
            },
        )
    });
    effects.collect()
}

impl<'a> Applied<'a> {
    /// What the rules do to connections of a pod that the policy applies to.
    pub(super) fn effects_on(&self, subject: Member) -> impl Iterator<Item = &Effect<'a>> {
        let is_certain = self.applies_certainly_to(subject);
        self.effects.iter().filter(move |effect| is_certain || effect.certainty == Certainty::Perhaps)
    }

    /// Whether it is known that the policy applies to a pod.
    pub(super) fn applies_certainly_to(&self, subject: Member) -> bool {
        self.certain.contains(subject)
    }
}
