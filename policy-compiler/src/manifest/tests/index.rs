//! What the index makes of changing files is what `assemble` makes of all of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Reading, assemble, reading};
use crate::manifest::Index;
use crate::model::Cluster;

/// Objects that get in one another's way.
fn object() -> impl Strategy<Value = String> {
    let name =
        prop::sample::select(vec!["a", "b", "a.deployment", "a.deployment.job", "a.rollout", "c.replicaset"]);
    let namespace = prop::sample::select(vec!["a", "b", "default"]);
    let kind = prop::sample::select(vec![
        "v1 Pod",
        "v1 Pod",
        "apps/v1 Deployment",
        "apps/v1 ReplicaSet",
        "batch/v1 Job",
        "batch/v1 CronJob",
        "v1 Service",
        "example.com/v1 Rollout",
        "v1 Namespace",
        "v1 Node",
        "networking.k8s.io/v1 NetworkPolicy",
        "policy.networking.k8s.io/v1beta1 ClusterNetworkPolicy",
    ]);
    let owner = prop::sample::select(vec![
        "",
        "",
        "{kind: Deployment, name: a}",
        "{kind: ReplicaSet, name: a}",
        "{kind: ReplicaSet, name: c.replicaset}",
        "{kind: CronJob, name: b}",
        "{kind: Job, name: a}",
    ]);
    let label = prop::sample::select(vec!["x", "z"]);
    (kind, name, namespace, owner, label).prop_map(|(kind, name, namespace, owner, label)| {
        let (version, kind) = kind.split_once(' ').unwrap();
        let name = if matches!(kind, "Namespace" | "Service") { &name[..1] } else { name };
        format!(
            "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}, \
             labels: {{l: {label}}}, ownerReferences: [{owner}]}}\nspec: {{template: {{}}, jobTemplate: {{spec: \
             {{template: {{}}}}}}}}\n"
        )
    })
}

/// Takes the objects of a part out of a map, and puts those that it has now there.
fn step<K: Ord + Clone, V: Clone + PartialEq + std::fmt::Debug>(
    known: &mut BTreeMap<K, V>,
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) {
    for (name, object) in before {
        assert_eq!(known.remove(name).as_ref(), Some(object));
    }
    known.extend(after.iter().map(|(name, object)| (name.clone(), object.clone())));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_parts_make_the_whole(
        steps in prop::collection::vec(
            prop::collection::vec((0..4_usize, prop::collection::vec(object(), 0..5)), 1..3),
            1..12,
        )
    ) {
        let mut index = Index::default();
        let mut files: BTreeMap<Arc<Path>, Reading> = BTreeMap::new();
        let (mut namespaces, mut nodes, mut pods, mut policies, mut cluster_policies) = Default::default();
        for step_files in steps {
            let changed: BTreeMap<Arc<Path>, Reading> = step_files
                .into_iter()
                .map(|(file, objects)| (Path::new(&file.to_string()).into(), reading(&objects.concat())))
                .collect();
            let objects = changed.iter().map(|(file, reading)| (file.clone(), reading.objects.clone()));
            let change = index.update(objects);
            files.extend(changed);
            let all = files.values().map(|reading| Reading { objects: reading.objects.clone(), ..Reading::default() });
            let (manifests, problems) = assemble(all);
            let whole: Cluster = manifests.cluster;
            step(&mut namespaces, change.before.namespaces(), change.after.namespaces());
            step(&mut nodes, change.before.nodes(), change.after.nodes());
            step(&mut pods, change.before.pods(), change.after.pods());
            step(&mut policies, change.before.policies(), change.after.policies());
            step(&mut cluster_policies, change.before.cluster_policies(), change.after.cluster_policies());
            prop_assert_eq!(&namespaces, whole.namespaces());
            prop_assert_eq!(&nodes, whole.nodes());
            prop_assert_eq!(&pods, whole.pods());
            prop_assert_eq!(&policies, whole.policies());
            prop_assert_eq!(&cluster_policies, whole.cluster_policies());
            prop_assert!(change.problems.iter().all(|problem| problems.contains(problem)));
        }
    }
}
