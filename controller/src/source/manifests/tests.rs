//! What a change of a file costs, and what it is taken for.

use std::fs;

use super::*;

const FILES: usize = 50;
const PODS: usize = 200;

fn pod(name: &str, label: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {label}}}}}\n\
         spec: {{containers: [{{name: c, ports: [{{containerPort: 80}}]}}]}}\n"
    )
}

fn text(file: usize) -> String {
    (0..PODS).map(|number| pod(&format!("p-{file}-{number}"), "a")).collect()
}

/// The updates after a file has been written, and how long they took.
fn updates(manifests: &mut Manifests) -> (Vec<Update>, Duration) {
    let start = Instant::now();
    manifests.read(start, true);
    let changes = manifests.changes(start);
    assert_eq!(changes.knowledge, Knowledge::Complete);
    (changes.updates, start.elapsed())
}

#[test]
fn a_change_of_one_pod_costs_no_more_than_that_pod() {
    let directory = std::env::temp_dir().join(format!("podfence-manifests-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    for file in 0..FILES {
        fs::write(directory.join(format!("{file}.yaml")), text(file)).unwrap();
    }
    let one = directory.join("one.yaml");
    fs::write(&one, pod("one", "a")).unwrap();
    let mut manifests = Manifests::watch(&directory).unwrap();
    let (all, for_all) = updates(&mut manifests);
    assert_eq!(all.len(), FILES * PODS + 2, "the pods and their namespace");

    let shop = |name: &str| policy_compiler::model::ObjectName::new("shop", name);
    let mut shortest = Duration::MAX;
    for label in ["b", "c", "d", "e", "f"] {
        fs::write(&one, pod("one", label)).unwrap();
        let (changed, time) = updates(&mut manifests);
        let [Update::Pod(name, Some(pod))] = &*changed else { panic!("{changed:?}") };
        assert_eq!((name, pod.labels["app"].as_str()), (&shop("one"), label));
        shortest = shortest.min(time);
    }
    assert!(shortest * 50 < for_all, "{shortest:?} of {for_all:?}");

    fs::write(&one, text(0) + &pod("two", "a")).unwrap();
    let (changed, _) = updates(&mut manifests);
    let names: Vec<_> = changed
        .iter()
        .map(|update| match update {
            Update::Pod(name, pod) => (name.clone(), pod.is_some()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, [(shop("one"), false), (shop("two"), true)], "the first of equal objects counts");
    fs::remove_dir_all(&directory).unwrap();
}
