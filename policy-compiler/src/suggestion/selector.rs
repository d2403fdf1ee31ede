//! The smallest selector of a pod.

use super::Obstacle;
use crate::model::{Cluster, LabelSelector, Pod};

/// Labels that say what a pod is, the best first (the "Recommended Labels" of Kubernetes, and older customs).
const TELLING: [&str; 7] = [
    "app.kubernetes.io/name",
    "app",
    "k8s-app",
    "app.kubernetes.io/component",
    "component",
    "name",
    "app.kubernetes.io/instance",
];

/// Labels that are other ones on each pod, each revision or each release: a policy that names them is soon stale.
const VOLATILE: [&str; 14] = [
    "app.kubernetes.io/version",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "chart",
    "controller-revision-hash",
    "controller-uid",
    "helm.sh/chart",
    "job-name",
    "pod-template-generation",
    "pod-template-hash",
    "rollouts-pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// What selects a Job's pods where nothing else does: the Job controller puts it there.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// A selector of `pod` and of no more other pods of its namespace than must be: by one label if one is enough, else by
/// two, or else by all that last.
pub(super) fn selector_of(cluster: &Cluster, pod: &Pod) -> Result<LabelSelector, Obstacle> {
    let of_job = |key: &str| key == JOB_NAME && pod.workload.as_deref() == Some("Job");
    let mut labels: Vec<_> = pod
        .labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .filter(|(key, _)| !VOLATILE.contains(key) || of_job(key))
        .collect();
    let rank = |key: &str| TELLING.iter().position(|telling| *telling == key).unwrap_or(TELLING.len());
    labels.sort_by_key(|(key, _)| (rank(key), *key));
    if labels.is_empty() {
        return Err(Obstacle::NoLabels(pod.name.clone()));
    }
    let neighbours: Vec<_> =
        cluster.pods().values().filter(|other| other.name.namespace == pod.name.namespace).collect();
    let selected =
        |selector: &LabelSelector| neighbours.iter().filter(|other| selector.matches(&other.labels)).count();
    let all = LabelSelector::equal(labels.iter().copied());
    let fewest = selected(&all);
    let singles = labels.iter().map(|label| LabelSelector::equal([*label]));
    let pairs = labels.iter().enumerate().flat_map(|(index, one)| {
        labels.iter().skip(index + 1).map(move |other| LabelSelector::equal([*one, *other]))
    });
    Ok(singles.chain(pairs).find(|selector| selected(selector) == fewest).unwrap_or(all))
}
