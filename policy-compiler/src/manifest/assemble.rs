//! From the objects of many files to one cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::kinds::Kind;
use super::{Manifests, Object, Owner, Problem, Reading, Resource, Workload, WorkloadKind};
use crate::model::{Cluster, Namespace, ObjectName, Origin, Pod, Service};

/// Puts together what was read from all files.
///
/// An object that is written twice with the same content counts once, with a warning; of two that
/// contradict each other the first counts, and the problem names both places. A workload is left out where a pod of
/// it that has not finished is listed itself, or the workload that owns it is. The problems are those of the readings
/// and the contradictions; what the manifests say is never more than the readable part allows, so a caller
/// may report the problems and go on.
pub fn assemble(readings: impl IntoIterator<Item = Reading>) -> (Manifests, Vec<Problem>) {
    let mut manifests = Manifests::default();
    let mut problems = Vec::new();
    let mut objects = Vec::new();
    for reading in readings {
        objects.extend(reading.objects);
        problems.extend(reading.problems);
        manifests.warnings.extend(reading.warnings);
        manifests.unread.extend(reading.unread);
        manifests.passed_over.extend(reading.passed_over);
    }
    let mut workloads = Vec::new();
    for object in without_repetitions(objects, &mut problems, &mut manifests.warnings) {
        match object.resource {
            Resource::Namespace(namespace) => manifests.cluster.insert_namespace(namespace),
            Resource::Node(node) => manifests.cluster.insert_node(node),
            Resource::Service(service) => manifests.cluster.insert_service(service),
            Resource::Endpoints(endpoints) | Resource::EndpointSlice(endpoints) => {
                manifests.cluster.insert_endpoints(endpoints);
            }
            Resource::NetworkPolicy(policy) => manifests.cluster.insert_policy(policy),
            Resource::ClusterNetworkPolicy(policy) => manifests.cluster.insert_cluster_policy(policy),
            Resource::Workload(workload) => workloads.push((object.origin, workload)),
        }
    }
    let workloads = without_represented(workloads);
    insert_pods(&mut manifests, workloads);
    complete(&mut manifests);
    manifests.warnings.extend(refused_addresses(&manifests.cluster));
    (manifests, problems)
}

/// Manifests often leave their namespaces out: these exist all the same, with their names as their only labels.
fn complete(manifests: &mut Manifests) {
    let cluster = &mut manifests.cluster;
    let pods = cluster.pods().values().map(|pod| (&pod.name, pod.origin.clone()));
    let others = cluster.policies().keys().chain(cluster.services().keys()).map(|name| (name, None));
    let mut undeclared: BTreeMap<Arc<str>, Option<Origin>> = BTreeMap::new();
    for (name, origin) in pods.chain(others) {
        if !cluster.namespaces().contains_key(&name.namespace) {
            undeclared.entry(name.namespace.clone()).or_insert(origin);
        }
    }
    for (name, origin) in undeclared {
        cluster.insert_namespace(Namespace::undeclared(name.clone()));
        manifests.undeclared.extend(origin.map(|origin| (name, origin)));
    }
}

/// A warning for each pod that shows an address of a node and is not in its node's network.
fn refused_addresses(cluster: &Cluster) -> impl Iterator<Item = Problem> {
    let nodes = cluster.nodes().values();
    let of_nodes: BTreeMap<_, _> =
        nodes.flat_map(|node| node.addresses.iter().map(move |address| (address, &node.name))).collect();
    let pods = cluster.pods().values().filter(|pod| pod.selectable());
    let shown = pods.flat_map(|pod| pod.addresses.iter().map(move |address| (pod, address)));
    shown.filter_map(move |(pod, address)| {
        let node = of_nodes.get(address)?;
        let name = &pod.name;
        Some(Problem {
            origin: pod.origin.clone()?,
            field: "status.podIPs".to_owned(),
            message: format!(
                "{address} is an address of node {node} and not of pod {name}, which has no hostNetwork: no policy \
                 applies to it"
            ),
        })
    })
}

/// Leaves the first of several objects that have kind, namespace and name in common.
fn without_repetitions(
    objects: Vec<Object>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Vec<Object> {
    let mut first_index: BTreeMap<Identity, usize> = BTreeMap::new();
    let mut kept: Vec<Object> = Vec::new();
    for object in objects {
        let first = *first_index.entry(identity(&object.resource)).or_insert(kept.len());
        let Some(first) = kept.get(first) else {
            kept.push(object);
            continue;
        };
        let (kind, namespace, name) = identity(&object.resource);
        let name = namespace.map_or_else(|| name.to_string(), |namespace| format!("{namespace}/{name}"));
        let kind = kind.as_str();
        let remark = |message| Problem { origin: object.origin.clone(), field: String::new(), message };
        if without_origins(object.resource.clone()) == without_origins(first.resource.clone()) {
            warnings
                .push(remark(format!("{kind} {name} is also at {}, with the same content", first.origin)));
        } else {
            problems.push(remark(format!(
                "{kind} {name} is also at {}, with other content: keep one of them",
                first.origin
            )));
        }
    }
    kept
}

/// Kind, namespace if it has one, and name.
pub(super) type Identity = (Kind, Option<Arc<str>>, Arc<str>);

pub(super) fn identity(resource: &Resource) -> Identity {
    let namespaced = |kind, name: &ObjectName| (kind, Some(name.namespace.clone()), name.name.clone());
    match resource {
        Resource::Namespace(namespace) => (Kind::Namespace, None, namespace.name().clone()),
        Resource::Node(node) => (Kind::Node, None, node.name.clone()),
        Resource::Service(service) => namespaced(Kind::Service, &service.name),
        Resource::Endpoints(endpoints) => namespaced(Kind::Endpoints, &endpoints.name),
        Resource::EndpointSlice(slice) => namespaced(Kind::EndpointSlice, &slice.name),
        Resource::NetworkPolicy(policy) => namespaced(Kind::NetworkPolicy, &policy.name),
        Resource::ClusterNetworkPolicy(policy) => (Kind::ClusterNetworkPolicy, None, policy.name.clone()),
        Resource::Workload(workload) => namespaced(Kind::Workload(workload.kind.clone()), &workload.pod.name),
    }
}

fn without_origins(resource: Resource) -> Resource {
    match resource {
        Resource::Namespace(_) | Resource::Node(_) | Resource::Endpoints(_) | Resource::EndpointSlice(_) => {
            resource
        }
        Resource::Service(service) => Resource::Service(Service { origin: None, ..service }),
        Resource::NetworkPolicy(policy) => Resource::NetworkPolicy(policy.without_origins()),
        Resource::ClusterNetworkPolicy(policy) => Resource::ClusterNetworkPolicy(policy.without_origins()),
        Resource::Workload(workload) => {
            Resource::Workload(Workload { pod: Pod { origin: None, ..workload.pod }, ..workload })
        }
    }
}

/// Leaves out a workload one of whose pods is listed and lives, directly or through a workload between, and one whose
/// owner is listed.
fn without_represented(mut workloads: Vec<(Origin, Workload)>) -> Vec<(Origin, Workload)> {
    let key = |workload: &Workload| {
        (workload.kind.clone(), workload.pod.name.namespace.clone(), workload.pod.name.name.clone())
    };
    let owner_key = |workload: &Workload, owner: &Owner| {
        (owner.kind.clone(), workload.pod.name.namespace.clone(), owner.name.clone())
    };
    let is_pod = |workload: &Workload| workload.kind == WorkloadKind::Pod;
    let by_key: BTreeMap<_, _> = workloads.iter().map(|(_, workload)| (key(workload), workload)).collect();
    let mut left_out = BTreeSet::new();
    let mut with_pods: Vec<&Workload> =
        by_key.values().copied().filter(|workload| is_pod(workload) && !workload.pod.finished).collect();
    while let Some(workload) = with_pods.pop() {
        for owner in &workload.owners {
            let owner = owner_key(workload, owner);
            if let Some(listed) = by_key.get(&owner)
                && left_out.insert(owner)
            {
                with_pods.push(listed);
            }
        }
    }
    for (key, workload) in &by_key {
        let owned = workload.owners.iter().any(|owner| by_key.contains_key(&owner_key(workload, owner)));
        if !is_pod(workload) && owned {
            left_out.insert(key.clone());
        }
    }
    workloads.retain(|(_, workload)| !left_out.contains(&key(workload)));
    workloads
}

/// Pods keep their names; a workload that has the name of something before it gets its kind behind it.
fn insert_pods(manifests: &mut Manifests, mut workloads: Vec<(Origin, Workload)>) {
    workloads.sort_by(|(_, one), (_, other)| one.kind.cmp(&other.kind));
    for (origin, Workload { kind, mut pod, owners }) in workloads {
        let written = pod.name.clone();
        while manifests.cluster.pods().contains_key(&pod.name) {
            let name = format!("{}.{}", pod.name.name, kind.as_str().to_lowercase());
            pod.name = ObjectName { name: name.into(), ..pod.name };
        }
        if pod.name != written {
            let message = format!("{} {written} is called {}: another has its name", kind.as_str(), pod.name);
            manifests.warnings.push(Problem { origin, field: String::new(), message });
        }
        if !owners.is_empty() {
            manifests.owners.insert(pod.name.clone(), owners);
        }
        manifests.cluster.insert_pod(pod);
    }
}
