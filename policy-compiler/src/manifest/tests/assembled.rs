//! Several objects together: repetitions, owners and names.

use super::{assemble, parse, reading, said};
use crate::manifest::{Manifests, Problem};

fn assembled(files: &[(&str, &str)]) -> (Manifests, Vec<Problem>) {
    assemble(files.iter().map(|(file, text)| parse(text.as_bytes(), file).unwrap()))
}

fn pods(manifests: &Manifests) -> Vec<String> {
    manifests.cluster.pods().keys().map(ToString::to_string).collect()
}

/// A workload of the kind, with its owner as `Kind/name` where it has one.
fn workload(kind: &str, name: &str, owner: &str) -> String {
    let (api_version, spec) = match kind {
        "Pod" => ("v1", "{}"),
        "ReplicationController" => ("v1", "{template: {}}"),
        "Job" => ("batch/v1", "{template: {}}"),
        "CronJob" => ("batch/v1", "{jobTemplate: {spec: {template: {}}}}"),
        _ => ("apps/v1", "{template: {}}"),
    };
    let owners = match owner.split_once('/') {
        Some((kind, name)) => format!(", ownerReferences: [{{kind: {kind}, name: {name}}}]"),
        None => String::new(),
    };
    format!(
        "---\n{{apiVersion: {api_version}, kind: {kind}, metadata: {{name: {name}{owners}}}, spec: {spec}}}\n"
    )
}

#[test]
fn a_workload_gives_way_to_its_listed_pods_and_to_its_listed_owner() {
    for (objects, expected) in [
        (&[("Pod", "p", "ReplicaSet/r"), ("ReplicaSet", "r", "")][..], &["default/p"][..]),
        (&[("ReplicaSet", "r", "Deployment/d"), ("Deployment", "d", "")], &["default/d"]),
        (
            &[("Pod", "p", "ReplicaSet/r"), ("ReplicaSet", "r", "Deployment/d"), ("Deployment", "d", "")],
            &["default/p"],
        ),
        (&[("Job", "j", "CronJob/c"), ("CronJob", "c", "")], &["default/c"]),
        (&[("Pod", "p", "Job/j"), ("Job", "j", "CronJob/c"), ("CronJob", "c", "")], &["default/p"]),
        (&[("Pod", "p", "StatefulSet/s"), ("StatefulSet", "other", "")], &["default/other", "default/p"]),
        (&[("Pod", "p", "Node/n"), ("ReplicaSet", "r", "Rollout/x")], &["default/p", "default/r"]),
        (&[("ReplicaSet", "a", "ReplicaSet/a")], &[]),
    ] {
        let text: String = objects.iter().map(|(kind, name, owner)| workload(kind, name, owner)).collect();
        let (manifests, problems) = assembled(&[("f", &text)]);
        assert_eq!(
            (pods(&manifests), problems),
            (expected.iter().map(ToString::to_string).collect(), vec![]),
            "{text}"
        );
    }
}

#[test]
fn a_workload_whose_listed_pods_have_all_finished_stands_for_one() {
    let finished = |name: &str| {
        let pod = workload("Pod", name, "Job/j");
        pod.replace("spec: {}", "spec: {}, status: {phase: Succeeded}")
    };
    let owners = workload("Job", "j", "CronJob/c") + &workload("CronJob", "c", "");
    for (pods_text, expected) in [
        (finished("p"), &["default/c", "default/p"][..]),
        (finished("p") + &workload("Pod", "q", "Job/j"), &["default/p", "default/q"]),
    ] {
        let (manifests, problems) = assembled(&[("f", &(pods_text + &owners))]);
        assert_eq!(problems, []);
        assert_eq!(pods(&manifests), expected);
    }
}

#[test]
fn workloads_of_one_name_are_told_apart_by_their_kind() {
    let text = ["Job", "StatefulSet", "Pod"].map(|kind| workload(kind, "web", "")).concat();
    let (manifests, problems) = assembled(&[("f", &text)]);
    assert_eq!(problems, []);
    assert_eq!(pods(&manifests), ["default/web", "default/web.job", "default/web.statefulset"]);
    assert_eq!(
        said(&manifests.warnings),
        [
            "4: StatefulSet default/web is called default/web.statefulset: another has its name",
            "2: Job default/web is called default/web.job: another has its name",
        ]
    );
}

#[test]
fn an_object_may_be_repeated_but_not_contradicted() {
    let policy = |name: &str, spec: &str| {
        format!(
            "\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        )
    };
    let one = policy("p", "{ingress: [{}]}");
    let same = format!("# a copy\n{}", one.replace("name: p", "name: p, annotations: {a: b}"));
    let other = policy("p", "{}");
    let (manifests, problems) = assembled(&[("a", &one), ("b", &same), ("c", &policy("q", "{}"))]);
    assert_eq!(problems, []);
    assert_eq!(
        manifests.warnings[0].to_string(),
        "b:3: NetworkPolicy default/p is also at a:2, with the same content"
    );
    assert_eq!(manifests.cluster.policies().len(), 2);

    let (manifests, problems) = assembled(&[("a", &one), ("b", &other)]);
    assert_eq!(
        problems[0].to_string(),
        "b:2: NetworkPolicy default/p is also at a:2, with other content: keep one of them"
    );
    let kept = manifests.cluster.policies().values().next().unwrap();
    assert_eq!(kept.ingress.as_ref().map(Vec::len), Some(1), "the first one counts");
}

#[test]
fn problems_warnings_and_counts_of_all_files_come_together() {
    let text = "{apiVersion: v1, kind: X}\n---\n{apiVersion: v1, kind: Pod, metadata: {name: a_b}}\n---\n{kind: Pod}\n";
    let (manifests, problems) = assemble([reading(text), parse(text.as_bytes(), "g").unwrap()]);
    assert_eq!(manifests.unread.len(), 2);
    assert_eq!((problems.len(), manifests.warnings.len()), (2, 3));
}

#[test]
fn what_nothing_declares_has_its_name_and_no_other_label() {
    let text = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a}}\n---\n\
                {apiVersion: v1, kind: Pod, metadata: {name: q, namespace: a}}\n---\n\
                {apiVersion: v1, kind: Pod, metadata: {name: p, namespace: b}}\n---\n\
                {apiVersion: v1, kind: Service, metadata: {name: s, namespace: c}}\n---\n\
                {apiVersion: v1, kind: Namespace, metadata: {name: b, deletionTimestamp: \"2026-01-01T00:00:00Z\"}}\n";
    let (manifests, problems) = assembled(&[("f", text)]);
    assert_eq!((problems, &manifests.warnings), (vec![], &vec![]));
    let namespaces = manifests.cluster.namespaces().values();
    let namespaces: Vec<_> = namespaces
        .map(|namespace| (&**namespace.name(), namespace.labels().len(), namespace.is_terminating()))
        .collect();
    assert_eq!(namespaces, [("a", 1, false), ("b", 1, true), ("c", 1, false)]);
    let undeclared = manifests.undeclared.iter().map(|(name, origin)| format!("{name} {origin}"));
    assert_eq!(undeclared.collect::<Vec<_>>(), ["a f:1"]);
}

#[test]
fn a_pod_that_shows_an_address_of_a_node_is_told() {
    let pod = |name: &str, spec: &str, phase: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{spec}}}, \
             status: {{phase: {phase}, podIPs: [{{ip: 10.0.0.1}}, {{ip: 10.0.0.2}}]}}}}\n"
        )
    };
    let node = "{apiVersion: v1, kind: Node, metadata: {name: node-1}, \
                status: {addresses: [{type: InternalIP, address: 10.0.0.2}]}}\n";
    for (pod, expected) in [
        (
            pod("p", "", "Running"),
            &[
                "2: status.podIPs: 10.0.0.2 is an address of node node-1 and not of pod default/p, which has no hostNetwork: \
               no policy applies to it",
            ][..],
        ),
        (pod("p", "hostNetwork: true", "Running"), &[]),
        (pod("p", "", "Succeeded"), &[]),
    ] {
        let (manifests, problems) = assembled(&[("f", &format!("{pod}---\n{node}"))]);
        assert_eq!(
            (said(&manifests.warnings), problems),
            (expected.iter().map(ToString::to_string).collect(), vec![])
        );
    }
}
