//! Kinds as `kubectl` lets people write them.

/// The kinds that have short names: the kind, its plural and the short name.
const KINDS: [[&str; 3]; 9] = [
    ["Pod", "pods", "po"],
    ["Service", "services", "svc"],
    ["Deployment", "deployments", "deploy"],
    ["StatefulSet", "statefulsets", "sts"],
    ["DaemonSet", "daemonsets", "ds"],
    ["ReplicaSet", "replicasets", "rs"],
    ["ReplicationController", "replicationcontrollers", "rc"],
    ["Job", "jobs", "job"],
    ["CronJob", "cronjobs", "cj"],
];

/// Whether `text` means `kind`: its name in any case, its plural, its short name, any of them with the group behind it
/// (`deployments.apps`).
pub(crate) fn is_meant(kind: &str, text: &str) -> bool {
    if text.eq_ignore_ascii_case(kind) {
        return true;
    }
    let text = text.split('.').next().unwrap_or(text).to_ascii_lowercase();
    let short = KINDS.iter().find(|[name, ..]| *name == kind);
    text == kind.to_ascii_lowercase()
        || short.is_some_and(|[_, plural, short]| text == *plural || text == *short)
        || short.is_none() && text.strip_suffix('s') == Some(&kind.to_ascii_lowercase())
}

/// Whether `text` is one of the kinds that Kubernetes has pods or Services of.
pub(crate) fn is_kind(text: &str) -> bool {
    KINDS.iter().any(|[kind, ..]| is_meant(kind, text))
}
