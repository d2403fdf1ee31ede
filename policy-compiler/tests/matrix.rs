//! `podfence matrix` over whole clusters: readable at any size and width, and every format says the same.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// The nodes over which pods are spread.
const NODES: usize = 7;

/// A policy of `namespace` about the pods of an app.
fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    })
}

/// A cluster as its API server shows it, of about so many pods: namespaces with the same few workloads under default
/// deny, one in four of them open; monitoring, and a DaemonSet in the network of the nodes.
fn cluster(pods: usize) -> Value {
    let mut items = Vec::new();
    let mut count = 0;
    let mut replicas = |namespace: &str, app: &str, replicas: usize, ports: &[(&str, u16)], host: bool| {
        let ports: Vec<_> =
            ports.iter().map(|(name, number)| json!({"name": name, "containerPort": number})).collect();
        for index in 0..replicas {
            count += 1;
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "namespace": namespace, "name": format!("{app}-5d8c7b-{count:05}"),
                    "labels": {"app": app, "pod-template-hash": "5d8c7b"},
                },
                "spec": {
                    "nodeName": format!("node-{}", (count + index) % NODES), "hostNetwork": host,
                    "containers": [{"name": "main", "image": "x", "ports": ports}],
                },
                "status": {"podIPs": [{"ip": format!("10.0.{}.{}", count / 250, count % 250 + 1)}]},
            });
            items.push(pod);
        }
    };
    replicas("monitoring", "node-exporter", NODES, &[("metrics", 9100)], true);
    replicas("monitoring", "prometheus", 2, &[("web", 9090)], false);
    let namespaces: Vec<_> = (0..pods / 14).map(|index| format!("team-{index}")).collect();
    for namespace in &namespaces {
        replicas(namespace, "web", 3, &[("http", 8080), ("metrics", 9102)], false);
        replicas(namespace, "api", 3, &[("http", 8000), ("metrics", 9102)], false);
        replicas(namespace, "db", 1, &[("postgres", 5432)], false);
        replicas(namespace, "cache", 2, &[("redis", 6379)], false);
        replicas(namespace, "worker", 5, &[], false);
    }
    let app = |name: &str| json!({"podSelector": {"matchLabels": {"app": name}}});
    for (index, namespace) in namespaces.iter().enumerate().filter(|(index, _)| index % 4 != 3) {
        let allow = |name: &str, from: &[&str], port: u16| {
            let from: Vec<_> = from.iter().map(|name| app(name)).collect();
            let rule = json!({"from": from, "ports": [{"port": port}]});
            policy(namespace, name, &json!({"podSelector": app(name)["podSelector"], "ingress": [rule]}))
        };
        let monitoring = json!({"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}});
        let metrics = json!({"from": [{"namespaceSelector": monitoring}], "ports": [{"port": "metrics"}]});
        items.push(policy(namespace, "deny", &json!({"podSelector": {}, "policyTypes": ["Ingress"]})));
        items.push(policy(namespace, "metrics", &json!({"podSelector": {}, "ingress": [metrics]})));
        items.push(allow("api", &["web", "worker"], 8000));
        items.push(allow("db", &["api"], 5432));
        items.push(allow("cache", &["api", "cache"], 6379));
        if index % 3 == 0 {
            let to_own = json!({"podSelector": app("worker")["podSelector"], "policyTypes": ["Egress"],
                "egress": [{"to": [{"podSelector": {}}]}]});
            items.push(policy(namespace, "worker", &to_own));
        }
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn write(name: &str, pods: usize) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, cluster(pods).to_string()).unwrap();
    path
}

fn matrix(file: &Path, width: usize, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_podfence"))
        .args(["matrix", "-f"])
        .arg(file)
        .args(arguments)
        .env("COLUMNS", width.to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_table_is_short_and_narrow_enough() {
    // Pods, and the lines that a table or summary of them may have.
    for (pods, most) in [(30, 40), (300, 300), (700, 400)] {
        let file = write(&format!("table-{pods}.json"), pods);
        for width in [80, 200] {
            let table = matrix(&file, width, &[]);
            for line in table.lines() {
                assert!(line.chars().count() <= width, "{pods} pods, {width} columns:\n{line}");
            }
            assert!(table.lines().count() <= most, "{pods} pods, {width} columns:\n{table}");
        }
        let comment = matrix(&file, 80, &["-o", "md"]);
        assert!(comment.chars().count() < 65_536, "{pods} pods: {}", comment.len());
    }
}

#[test]
fn what_is_merged_is_what_the_rows_say() {
    let file = write("merged.json", 120);
    let mut rows: HashMap<(String, String), Vec<bool>> = HashMap::new();
    for line in matrix(&file, 80, &["-o", "csv"]).lines().skip(1) {
        let fields: Vec<_> = line.split(',').collect();
        rows.entry((fields[0].to_owned(), fields[1].to_owned())).or_default().push(fields[7] == "allow");
    }
    let page = matrix(&file, 80, &["-o", "html"]);
    let (_, data) = page.split_once("id=\"data\">").unwrap();
    let data: Value = serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap();
    let units = data["units"].as_array().unwrap();
    assert!(units.len() < 60, "{} units", units.len());
    let place = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let members = |unit: &Value| -> Vec<String> {
        let members = unit["members"].as_array().unwrap().iter();
        members.map(|end| data["ends"][place(end)].as_str().unwrap().to_owned()).collect()
    };
    let is_host_network = |name: &str| name.contains("node-exporter");
    let mut compared = 0;
    for (from, sources) in units.iter().enumerate() {
        for (to, destinations) in units.iter().enumerate() {
            let cell = &data["cells"][place(&data["matrix"][from][to])];
            for source in members(sources) {
                for destination in members(destinations) {
                    let Some(verdicts) = rows.get(&(source.clone(), destination.clone())) else { continue };
                    // What a pod may send to itself, or on its own node, says nothing about the others.
                    if source == destination || is_host_network(&source) != is_host_network(&destination) {
                        continue;
                    }
                    let kind = match verdicts.iter().filter(|allowed| **allowed).count() {
                        0 => "denied",
                        all if all == verdicts.len() => "allowed",
                        _ => "partly",
                    };
                    assert_eq!(cell["kind"], kind, "{source} -> {destination}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 5_000, "{compared} pairs");
}

#[test]
fn a_part_is_the_same_part_in_every_format() {
    let file = write("part.json", 60);
    let everything = matrix(&file, 80, &["-o", "csv"]);
    let header = everything.lines().next().unwrap();
    for (arguments, is_meant) in [
        (&["--from", "team-1/"][..], (|row| row.starts_with("team-1/")) as fn(&str) -> bool),
        (&["--to", "pod/team-0/db-5d8c7b-00016"], |row| row.contains(",team-0/db-5d8c7b-00016,")),
        (&["--only", "denied"], |row| row.ends_with(",deny")),
        (&["--only", "allowed", "--from", "monitoring/"], |row| {
            row.starts_with("monitoring/") && row.ends_with(",allow")
        }),
    ] {
        let expected: Vec<_> =
            [header].into_iter().chain(everything.lines().skip(1).filter(|row| is_meant(row))).collect();
        let csv = matrix(&file, 80, &[&["-o", "csv"], arguments].concat());
        assert_eq!(csv.lines().collect::<Vec<_>>(), expected, "{arguments:?}");
        let rows: Vec<Value> =
            serde_json::from_str(&matrix(&file, 80, &[&["-o", "json"], arguments].concat())).unwrap();
        assert_eq!(rows.len() + 1, expected.len(), "{arguments:?}");
    }
}
