//! ClusterNetworkPolicies of one tier and priority: which of them is asked first the API leaves open.

use policy_compiler::manifest::Problem;
use policy_compiler::model::{Action, Cluster, ClusterNetworkPolicy, Direction, Pod};

use super::idle::Pods;

/// A warning about those that apply to one pod and do not do the same in a direction.
pub(crate) fn warning(cluster: &Cluster) -> Option<Problem> {
    let pods = Pods::new(cluster);
    let mut policies: Vec<_> = cluster.cluster_policies().values().collect();
    policies.sort_by_key(|policy| policy.precedence());
    let pairs = policies.iter().enumerate().flat_map(|(index, first)| {
        let same =
            |other: &&&&ClusterNetworkPolicy| (other.tier, other.priority) == (first.tier, first.priority);
        policies
            .iter()
            .skip(index + 1)
            .take_while(move |other| same(&other))
            .map(move |other| (*first, *other))
    });
    Problem::first_of(pairs.filter(|(first, other)| may_differ(first, other)).filter_map(|(first, other)| {
        let pod = common_subject(&pods, first, other)?;
        let message = format!(
            "ClusterNetworkPolicies {} and {} have tier {} and priority {}, and both apply to {}: which of them is \
             asked first is not defined; podfence asks {} first",
            first.name, other.name, first.tier, first.priority, pod.name, first.name
        );
        Some(Problem { origin: other.origin.clone()?, field: String::new(), message })
    }))
}

/// Whether the order of two policies can matter: rules of theirs for one direction have different actions.
fn may_differ(first: &ClusterNetworkPolicy, other: &ClusterNetworkPolicy) -> bool {
    let actions = |policy: &ClusterNetworkPolicy, direction| -> Vec<Action> {
        policy.rules(direction).iter().map(|rule| rule.action).collect()
    };
    Direction::BOTH.into_iter().any(|direction| {
        let others = actions(other, direction);
        actions(first, direction).iter().any(|action| others.iter().any(|other| other != action))
    })
}

fn common_subject<'a>(
    pods: &Pods<'a>,
    first: &'a ClusterNetworkPolicy,
    other: &'a ClusterNetworkPolicy,
) -> Option<&'a Pod> {
    let others: Vec<_> = pods.selected(&other.subject).collect();
    pods.selected(&first.subject)
        .find(|pod| pod.selectable() && others.iter().any(|other| other.name == pod.name))
}
