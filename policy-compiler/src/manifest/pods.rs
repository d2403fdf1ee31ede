//! Pods, and the pod templates of workloads.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::WorkloadKind;
use super::addresses::address;
use super::fields::{Field, Mapping, Read};
use super::labels::labels;
use super::names::is_dns_subdomain;
use super::ports::{port_number, protocol};
use super::quoted::quoted;
use super::tree::{Node, Value};
use crate::model::{ContainerPort, ObjectName, Pod};

/// The way from an object to its pod template.
type Path = &'static [&'static str];

/// The fields of a pod. Templates are found written with all of them.
const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// Where kinds that are not Kubernetes' own have their pod template.
const PLACES: [Path; 5] = [
    &["spec", "template"],
    &["spec", "jobTemplate", "spec", "template"],
    &["spec", "jobTargetRef", "template"],
    &["spec", "virtualMachineTemplate", "spec", "template"],
    &["template"],
];

/// Where an object has its pod template; `None` if it is of a kind that is not Kubernetes' own and has none.
pub(super) fn template(object: &Mapping<'_>, kind: &WorkloadKind) -> Option<Path> {
    let places: &[Path] = match kind {
        WorkloadKind::Pod => return Some(&[]),
        WorkloadKind::CronJob => return Some(&["spec", "jobTemplate", "spec", "template"]),
        // A revision of a Knative Service, and what a virtual machine of KubeVirt becomes, are templates as a whole.
        WorkloadKind::Other(kind) if matches!(&**kind, "Revision" | "VirtualMachineInstance") => &[&[]],
        WorkloadKind::Other(_) => &PLACES,
        _ => return Some(&["spec", "template"]),
    };
    let has = |place: &Path, key| object.peek(&[place, &["spec", key][..]].concat());
    places.iter().copied().find(|place| {
        let containers =
            has(place, "containers").is_some_and(|node| matches!(node.value, Value::Sequence(_)));
        // Of a virtual machine of KubeVirt.
        containers || has(place, "domain").is_some_and(|node| matches!(node.value, Value::Mapping(_)))
    })
}

/// The pod, or the one that a workload's template describes. What cannot be read of it is left out.
pub(super) fn pod(object: &Mapping<'_>, kind: &WorkloadKind, name: ObjectName) -> Pod {
    let is_pod = *kind == WorkloadKind::Pod;
    let workload = (!is_pod).then(|| kind.as_str().into());
    let mut pod = Pod { workload, origin: Some(object.field().origin()), ..Pod::new(name) };
    let path = template(object, kind).unwrap_or_default();
    let _ = at(object, path, &mut |template| {
        if !matches!(kind, WorkloadKind::Other(_)) {
            let _ = template.only(&FIELDS);
        }
        read_template(template, &mut pod)
    });
    if is_pod {
        let _ = object.get("metadata").map(|metadata| read_times(&metadata, &mut pod));
        let _ = object.get("status").map(|status| read_status(&status, &mut pod));
    }
    for (key, value) in controller_labels(object, kind, &pod.name.name) {
        pod.labels.entry(key.to_owned()).or_insert(value);
    }
    pod
}

/// The labels that the controller of a workload gives its pods, as far as their values are known: not those with a hash
/// or a time in them, and not the number of one of several pods.
fn controller_labels(object: &Mapping<'_>, kind: &WorkloadKind, name: &str) -> Vec<(&'static str, String)> {
    let same = |keys: &[&'static str]| keys.iter().map(|key| (*key, name.to_owned())).collect();
    match kind {
        WorkloadKind::Job => same(&["batch.kubernetes.io/job-name", "job-name"]),
        WorkloadKind::StatefulSet => {
            let number = |path: &[&str], default| object.peek(path).map_or(Some(default), Node::integer);
            match (number(&["spec", "replicas"], 1), number(&["spec", "ordinals", "start"], 0)) {
                (Some(1), Some(index)) => vec![
                    ("apps.kubernetes.io/pod-index", index.to_string()),
                    ("statefulset.kubernetes.io/pod-name", format!("{name}-{index}")),
                ],
                _ => Vec::new(),
            }
        }
        WorkloadKind::Other(kind) => match &**kind {
            "DeploymentConfig" => same(&["deploymentconfig"]),
            "Service.serving.knative.dev" => {
                same(&["serving.knative.dev/configuration", "serving.knative.dev/service"])
            }
            "VirtualMachine" | "VirtualMachineInstance" => {
                vec![("kubevirt.io", "virt-launcher".to_owned()), ("vm.kubevirt.io/name", name.to_owned())]
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Goes down the required fields of a path.
fn at(object: &Mapping<'_>, path: &[&str], read: &mut dyn FnMut(&Mapping<'_>) -> Read<()>) -> Read<()> {
    match path.split_first() {
        None => read(object),
        Some((key, rest)) => at(&object.required(key)?.mapping()?, rest, read),
    }
}

/// `PodTemplateSpec`, which a pod is too.
fn read_template(template: &Mapping<'_>, pod: &mut Pod) -> Read<()> {
    if let Some(Ok(metadata)) = template.get("metadata").as_ref().map(Field::mapping) {
        pod.labels = metadata.get("labels").as_ref().map(labels).unwrap_or_default();
    }
    let Some(spec) = template.get("spec") else { return Ok(()) };
    let spec = spec.mapping()?;
    pod.node = spec.optional("nodeName", node_name).ok().flatten().flatten();
    pod.host_network = spec.flag("hostNetwork").unwrap_or(false);
    for (list, init) in [("initContainers", true), ("containers", false)] {
        let ports = spec.list(list, |container| container_ports(container, init)).unwrap_or_default();
        pod.ports.extend(ports.into_iter().flatten().flatten());
    }
    Ok(())
}

/// The ports of a container; none of an init container that does not keep running.
fn container_ports(field: &Field<'_>, init: bool) -> Read<Vec<ContainerPort>> {
    let container = field.mapping()?;
    if init && container.optional("restartPolicy", |field| Ok(field.text()? == "Always"))? != Some(true) {
        return Ok(Vec::new());
    }
    let ports = container.list("ports", |field| {
        let port = field.mapping()?;
        let name = port.optional("name", |field| field.text().map(str::to_owned));
        let protocol = protocol(&port);
        let number = port.required("containerPort").and_then(|field| port_number(&field));
        Ok(ContainerPort { name: name?, protocol: protocol?, number: number? })
    });
    Ok(ports?.into_iter().filter_map(Read::ok).collect())
}

/// What `ObjectMeta` says of a pod's life.
fn read_times(metadata: &Field<'_>, pod: &mut Pod) -> Read<()> {
    let metadata = metadata.mapping()?;
    let time = |key| metadata.optional(key, |field| field.text().map(Into::into)).ok().flatten();
    pod.created = time("creationTimestamp");
    pod.ending = time("deletionTimestamp").is_some();
    Ok(())
}

/// `PodStatus`
fn read_status(status: &Field<'_>, pod: &mut Pod) -> Read<()> {
    let status = status.mapping()?;
    let phase = status.optional("phase", |field| Ok(matches!(field.text()?, "Succeeded" | "Failed")));
    pod.finished = phase.ok().flatten().unwrap_or(false);
    pod.addresses = addresses(&status, "podIPs", "podIP");
    if pod.addresses.is_empty() && pod.host_network {
        pod.addresses = addresses(&status, "hostIPs", "hostIP");
    }
    Ok(())
}

fn node_name(field: &Field<'_>) -> Read<Option<Arc<str>>> {
    match field.text()? {
        "" => Ok(None),
        name if is_dns_subdomain(name) => Ok(Some(name.into())),
        name => {
            let syntax = "use lower-case letters, digits, `-` and `.`";
            Err(field.problem(format!("{} is no node name: {syntax}", quoted(name))))
        }
    }
}

/// The addresses of the list and of the single field that came before the list in the API.
fn addresses(status: &Mapping<'_>, list: &str, single: &str) -> Vec<IpAddr> {
    let listed = status.list(list, |item| item.mapping()?.required("ip").and_then(|ip| address(&ip)));
    let alone = status.optional(single, |field| match field.text()? {
        "" => Ok(None),
        _ => address(field).map(Some),
    });
    let mut addresses: Vec<IpAddr> = listed.unwrap_or_default().into_iter().flatten().collect();
    addresses.extend(alone.ok().flatten().flatten());
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    addresses
}
