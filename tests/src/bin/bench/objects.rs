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

pub(crate) fn namespaces() -> impl Iterator<Item = Value> {
    (0..NAMESPACES).map(|index| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("namespace-{index}")}})
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

fn namespace_of(app: u16) -> String {
    format!("namespace-{}", app % NAMESPACES)
}
