//! The smallest policy that would let a denied connection through.

use std::net::IpAddr;

use ipnet::IpNet;
use policy_compiler::judge::{Connection, Party, Traffic};
use policy_compiler::model::{Direction, Family, Labels, NAMESPACE_NAME_LABEL, Pod};
use serde_json::{Value, json};

/// Labels that controllers put on each pod or each revision anew: a policy that names them is soon stale.
const VOLATILE_LABELS: [&str; 7] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "controller-revision-hash",
    "controller-uid",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// The longest `metadata.name` (RFC 1123 subdomain).
const NAME_MAX: usize = 253;

/// A NetworkPolicy that allows exactly this connection in one direction; in all families without `family`.
/// `None` where no policy can: the subject is no pod, or no peer can describe the other end.
pub(super) fn suggest(
    direction: Direction,
    connection: &Connection<'_>,
    family: Option<Family>,
) -> Option<Value> {
    let (subject, other) = connection.subject_and_peer(direction);
    let pod = subject.pod()?;
    let (rules, peers_field, policy_type) = match direction {
        Direction::Egress => ("egress", "to", "Egress"),
        Direction::Ingress => ("ingress", "from", "Ingress"),
    };
    let mut rule = json!({ peers_field: peers(pod, other, family)? });
    let mut name = name(direction, pod, other);
    if let Traffic::Port(protocol, port) = connection.traffic {
        rule["ports"] = json!([{ "port": port, "protocol": protocol.as_str() }]);
        name = format!("{name}-{port}");
    }
    Some(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": name, "namespace": &*pod.name.namespace },
        "spec": {
            "podSelector": selector(&pod.labels),
            "policyTypes": [policy_type],
            rules: [rule],
        },
    }))
}

/// The peers of a rule that cover `other`.
fn peers(subject: &Pod, other: &Party<'_>, family: Option<Family>) -> Option<Value> {
    match other.pod() {
        Some(pod) if pod.selectable() && pod.name.namespace == subject.name.namespace => {
            Some(json!([{ "podSelector": selector(&pod.labels) }]))
        }
        Some(pod) if pod.selectable() => Some(json!([{
            "namespaceSelector": { "matchLabels": { NAMESPACE_NAME_LABEL: &*pod.name.namespace } },
            "podSelector": selector(&pod.labels),
        }])),
        _ => {
            let in_family = |address: &&IpAddr| family.is_none_or(|family| Family::of(**address) == family);
            let addresses = other.addresses().iter().filter(in_family);
            let blocks: Vec<_> = addresses
                .map(|address| json!({ "ipBlock": { "cidr": IpNet::from(*address).to_string() } }))
                .collect();
            (!blocks.is_empty()).then_some(Value::Array(blocks))
        }
    }
}

fn selector(labels: &Labels) -> Value {
    let lasting: Labels = labels
        .iter()
        .filter(|(key, _)| !VOLATILE_LABELS.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if lasting.is_empty() { json!({}) } else { json!({ "matchLabels": lasting }) }
}

fn name(direction: Direction, subject: &Pod, other: &Party<'_>) -> String {
    let other = match (other.pod(), other.addresses()) {
        (Some(pod), _) => pod.name.name.to_string(),
        (None, [address, ..]) => address.to_string().replace(':', "-"),
        (None, []) => "nobody".to_owned(),
    };
    let name = match direction {
        Direction::Egress => format!("allow-{}-to-{other}", subject.name.name),
        Direction::Ingress => format!("allow-{}-from-{other}", subject.name.name),
    };
    name.chars().take(NAME_MAX - "-65535".len()).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}
