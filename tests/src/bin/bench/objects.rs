//! A cluster of the size that the bars are about, as its users would write it.
//!
//! Pods of 1,000 applications, ten of each, are spread over nodes and namespaces. Each policy isolates the pods of
//! one application, lets those of another in, and admits one port from everywhere in the cluster.

use anyhow::{Context, Result, bail};
use policy_compiler::manifest;
use policy_compiler::model::Cluster;
use serde_json::{Value, json};

pub(crate) const PODS: u16 = 10_000;
pub(crate) const POLICIES: u16 = 1_000;
pub(crate) const NODES: u16 = 100;
pub(crate) const NAMESPACES: u16 = 100;
pub(crate) const CLUSTER_POLICIES: u16 = 100;

/// Namespaces of one team have a label in common.
const TEAMS: u16 = 10;

pub(crate) fn namespaces() -> impl Iterator<Item = Value> {
    (0..NAMESPACES).map(|index| {
        let labels = json!({"team": team(index)});
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": format!("namespace-{index}"), "labels": labels},
        })
    })
}

pub(crate) fn pods() -> impl Iterator<Item = Value> {
    (0..PODS).map(|index| {
        let [high, low] = index.to_be_bytes();
        let address = format!("10.128.{high}.{low}");
        let app = index % POLICIES;
        let half = if index % 2 == 0 { "one" } else { "other" };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": namespace_of(app), "name": format!("pod-{index}"),
                "labels": {"app": format!("app-{app}"), "half": half},
            },
            "spec": {
                "nodeName": format!("node-{}", index / (PODS / NODES)),
                "containers": [{"name": "main", "image": "example.invalid/none"}],
            },
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        })
    })
}

pub(crate) fn policies() -> impl Iterator<Item = Value> {
    (0..POLICIES).map(|app| {
        let labels = |app: u16| json!({"matchLabels": {"app": format!("app-{app}")}});
        let next = json!({"namespaceSelector": {}, "podSelector": labels((app + 1) % POLICIES)});
        let metrics = json!([{"protocol": "TCP", "port": 9100}]);
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": namespace_of(app), "name": format!("policy-{app}")},
            "spec": {
                "podSelector": labels(app),
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [next]}, {"from": [{"namespaceSelector": {}}], "ports": metrics}],
            },
        })
    })
}

/// Half of them guard rails of a team, which let a namespace in, leave another team to the namespaces and deny a third one;
/// half of them its defaults.
pub(crate) fn cluster_policies() -> impl Iterator<Item = Value> {
    (0..CLUSTER_POLICIES).map(|index| {
        let of_team = |index: u16| json!({"matchLabels": {"team": team(index)}});
        let from = |namespaces: Value| json!([{"namespaces": namespaces}]);
        let named = json!({"matchLabels": {"kubernetes.io/metadata.name": format!("namespace-{index}")}});
        let port = |number: u16| json!([{"tcp": {"destinationPort": {"number": number}}}]);
        let (tier, ingress, egress) = if index < CLUSTER_POLICIES / 2 {
            let ingress = json!([
                {"action": "Accept", "from": from(named), "protocols": port(8080 + index)},
                {"action": "Pass", "from": from(of_team(index + 1)), "protocols": port(443)},
                {"action": "Deny", "from": from(of_team(index + 2))},
            ]);
            let network = json!([{"networks": [format!("192.0.2.{index}/32")]}]);
            ("Admin", ingress, json!([{"action": "Deny", "to": network}]))
        } else {
            let ingress = json!([
                {"action": "Accept", "from": from(named), "protocols": port(8080 + index)},
                {"action": "Deny", "from": from(json!({}))},
            ]);
            let pods = json!([{"namespaces": of_team(index)}, {"networks": ["10.0.0.0/8"]}]);
            ("Baseline", ingress, json!([{"action": "Accept", "to": pods}, {"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]}]))
        };
        json!({
            "apiVersion": "policy.networking.k8s.io/v1beta1", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": format!("cluster-policy-{index}")},
            "spec": {
                "tier": tier, "priority": index, "subject": {"namespaces": of_team(index)},
                "ingress": ingress, "egress": egress,
            },
        })
    })
}

/// What the objects say together.
pub(crate) fn cluster(objects: impl Iterator<Item = Value>) -> Result<Cluster> {
    let items: Vec<Value> = objects.collect();
    let text = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let reading = manifest::parse(text.as_bytes(), "bench.json").context("the benchmark's own objects")?;
    let (manifests, problems) = manifest::assemble([reading]);
    match problems.into_iter().next() {
        Some(problem) => bail!(problem),
        None => Ok(manifests.cluster),
    }
}

fn team(index: u16) -> String {
    format!("team-{}", index % TEAMS)
}

fn namespace_of(app: u16) -> String {
    format!("namespace-{}", app % NAMESPACES)
}
