//! The objects as the API server sends them, without what decides about no packet.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use policy_compiler::manifest::{self, Problem};
use policy_compiler::model::{
    self, ALLOWED_SOURCES_ANNOTATION, AUDIT_ANNOTATION, ContainerPort, ObjectName, PortNumber, Protocol,
    asks_for_audit,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use tracing::warn;

use crate::source::Update;

/// A kind of objects that is followed.
pub(super) trait Kind:
    Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static
{
    /// Tells one object of the kind from all others.
    type Name: Clone + Eq + Hash + Display;

    /// Whether the policies are enforced without the kind where it may not be read.
    const READ_IF_ALLOWED: bool = false;

    /// What becomes of an object that cannot be decoded, for the log.
    const UNDECODABLE: &str;

    /// The name of an object; `None` if it has none.
    fn name_of(metadata: &ObjectMeta) -> Option<Self::Name>;

    /// The object as it is now; `None` if it is gone.
    fn update(name: Self::Name, object: Option<Self>) -> Update;

    /// What to go by where an object cannot be decoded; `None` to go on with what was known of it.
    fn undecodable(name: Self::Name) -> Option<Update>;
}

/// `v1 Namespace`
#[derive(Debug, Clone, Resource, Deserialize)]
#[resource(inherit = k8s_openapi::api::core::v1::Namespace)]
pub(super) struct Namespace {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
}

impl Kind for Namespace {
    type Name = Arc<str>;

    const UNDECODABLE: &str = "nothing but its name is known";

    fn name_of(metadata: &ObjectMeta) -> Option<Arc<str>> {
        cluster_name(metadata)
    }

    fn update(name: Arc<str>, object: Option<Self>) -> Update {
        let namespace = object.map(|Self { metadata }| {
            let annotation = |key| metadata.annotations.as_ref().and_then(|all| all.get(key));
            let audited = annotation(AUDIT_ANNOTATION).is_some_and(|value| asks_for_audit(value));
            let sources = annotation(ALLOWED_SOURCES_ANNOTATION).map(|value| allowed_sources(&name, value));
            model::Namespace::new(name.clone(), metadata.labels.unwrap_or_default())
                .with_audit(audited)
                .with_terminating(metadata.deletion_timestamp.is_some())
                .with_allowed_sources(sources.unwrap_or_default())
        });
        Update::Namespace(name, namespace)
    }

    fn undecodable(name: Arc<str>) -> Option<Update> {
        Some(Update::Namespace(name, None))
    }
}

/// Reads the sources that a namespace allows its pods. What cannot be read allows nothing and is logged.
fn allowed_sources(namespace: &str, annotation: &str) -> Vec<IpNet> {
    let (sources, unread) = manifest::allowed_sources(annotation);
    for text in unread {
        warn!(namespace, text, "an allowed source is neither an address nor a block: it allows nothing");
    }
    sources
}

/// `networking.k8s.io/v1 NetworkPolicy`, for the reader of manifests.
#[derive(Debug, Clone, Resource, Deserialize)]
#[resource(inherit = k8s_openapi::api::networking::v1::NetworkPolicy)]
pub(super) struct NetworkPolicy {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Kind for NetworkPolicy {
    type Name = ObjectName;

    const UNDECODABLE: &str = "every pod of its namespace is isolated in both directions";

    fn name_of(metadata: &ObjectMeta) -> Option<ObjectName> {
        object_name(metadata)
    }

    fn update(name: ObjectName, object: Option<Self>) -> Update {
        let policy = object.map(|object| network_policy(&name, &object.metadata, object.rest));
        Update::Policy(name, policy)
    }

    fn undecodable(name: ObjectName) -> Option<Update> {
        Some(Update::Policy(name.clone(), Some(model::NetworkPolicy::unreadable(name))))
    }
}

/// Reads a policy as it is read in a manifest. What cannot be read of it allows nothing and is logged.
fn network_policy(
    name: &ObjectName,
    metadata: &ObjectMeta,
    mut object: Map<String, Value>,
) -> model::NetworkPolicy {
    let metadata = json!({
        "namespace": *name.namespace, "name": *name.name, "annotations": metadata.annotations,
    });
    object.insert("metadata".to_owned(), metadata);
    let (resource, problems) = as_manifest::<NetworkPolicy>(&name.to_string(), object);
    for Problem { field, message, .. } in &problems {
        warn!(policy = %name, field, message, "what cannot be read allows nothing");
    }
    let policy = match resource {
        // There is no file that somebody could look into.
        Some(manifest::Resource::NetworkPolicy(policy)) => Some(policy.without_origins()),
        _ => None,
    };
    policy.unwrap_or_else(|| model::NetworkPolicy::unreadable(name.clone()))
}

/// Reads an object as it is read in a manifest; `name` is that of the manifest.
fn as_manifest<K: Kind>(
    name: &str,
    mut object: Map<String, Value>,
) -> (Option<manifest::Resource>, Vec<Problem>) {
    // The items of a list come without them.
    object.insert("apiVersion".to_owned(), json!(K::api_version(&())));
    object.insert("kind".to_owned(), json!(K::kind(&())));
    match manifest::deserialize(Value::Object(object), name) {
        Ok(reading) => (reading.objects.into_iter().next().map(|object| object.resource), reading.problems),
        Err(problem) => (None, vec![problem]),
    }
}

/// `v1 Node`, for the reader of manifests.
#[derive(Debug, Clone, Resource, Deserialize)]
#[resource(inherit = k8s_openapi::api::core::v1::Node)]
pub(super) struct Node {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct NodeSpec {
    #[serde(rename = "podCIDRs", skip_serializing_if = "Option::is_none")]
    pod_cidrs: Option<Vec<String>>,
    #[serde(rename = "podCIDR", skip_serializing_if = "Option::is_none")]
    pod_cidr: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct NodeStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<NodeAddress>>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

impl Kind for Node {
    type Name = Arc<str>;

    const READ_IF_ALLOWED: bool = true;

    const UNDECODABLE: &str = "what was known of it is kept";

    fn name_of(metadata: &ObjectMeta) -> Option<Arc<str>> {
        cluster_name(metadata)
    }

    fn update(name: Arc<str>, object: Option<Self>) -> Update {
        let node = object.and_then(|Self { spec, status, .. }| node(&name, &spec, &status));
        Update::Node(name, node)
    }

    fn undecodable(_: Arc<str>) -> Option<Update> {
        None
    }
}

/// Reads a node as it is read in a manifest. What cannot be read of it is left out and logged.
fn node(name: &str, spec: &NodeSpec, status: &NodeStatus) -> Option<model::Node> {
    let fields = [("metadata", json!({"name": name})), ("spec", json!(spec)), ("status", json!(status))];
    let object = fields.map(|(field, value)| (field.to_owned(), value));
    let (resource, problems) = as_manifest::<Node>(name, object.into_iter().collect());
    for Problem { field, message, .. } in &problems {
        warn!(node = name, field, message, "a part of the node cannot be read");
    }
    match resource {
        Some(manifest::Resource::Node(node)) => Some(node),
        _ => None,
    }
}

/// `v1 Pod`
#[derive(Debug, Clone, Resource, Deserialize)]
#[resource(inherit = k8s_openapi::api::core::v1::Pod)]
pub(super) struct Pod {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
    init_containers: Option<Vec<Container>>,
    containers: Option<Vec<Container>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    restart_policy: Option<String>,
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    #[serde(rename = "containerPort")]
    number: i64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<Address>>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "hostIPs")]
    host_ips: Option<Vec<Address>>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Address {
    ip: String,
}

impl Kind for Pod {
    type Name = ObjectName;

    const UNDECODABLE: &str = "what was known of it is kept";

    fn name_of(metadata: &ObjectMeta) -> Option<ObjectName> {
        object_name(metadata)
    }

    fn update(name: ObjectName, object: Option<Self>) -> Update {
        let pod = object.map(|object| object.into_model(name.clone()));
        Update::Pod(name, pod)
    }

    fn undecodable(_: ObjectName) -> Option<Update> {
        None
    }
}

impl Pod {
    fn into_model(self, name: ObjectName) -> model::Pod {
        let Self { metadata, spec, status } = self;
        let host_network = spec.host_network.unwrap_or(false);
        let mut addresses = read_addresses(&name, status.pod_ips, status.pod_ip);
        if addresses.is_empty() && host_network {
            addresses = read_addresses(&name, status.host_ips, status.host_ip);
        }
        let restartable = |container: &Container| container.restart_policy.as_deref() == Some("Always");
        let init_containers = spec.init_containers.into_iter().flatten().filter(restartable);
        let containers = init_containers.chain(spec.containers.into_iter().flatten());
        model::Pod {
            labels: metadata.labels.unwrap_or_default(),
            node: spec.node_name.filter(|name| !name.is_empty()).map(Into::into),
            host_network,
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            ending: metadata.deletion_timestamp.is_some(),
            created: metadata.creation_timestamp.map(|time| time.0.to_string().into()),
            addresses,
            ports: containers
                .flat_map(|c| c.ports.unwrap_or_default())
                .filter_map(Port::into_model)
                .collect(),
            ..model::Pod::new(name)
        }
    }
}

impl Port {
    /// `None` for a port that no connection can have.
    fn into_model(self) -> Option<ContainerPort> {
        Some(ContainerPort {
            name: self.name.filter(|name| !name.is_empty()),
            protocol: self.protocol.map_or(Ok(Protocol::Tcp), |protocol| protocol.parse()).ok()?,
            number: u16::try_from(self.number).ok().and_then(PortNumber::new)?,
        })
    }
}

/// The addresses of the list and of the single field that came before the list in the API.
fn read_addresses(pod: &ObjectName, list: Option<Vec<Address>>, single: Option<String>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    let listed = list.into_iter().flatten().map(|address| address.ip);
    for text in listed.chain(single).filter(|text| !text.is_empty()) {
        match manifest::ip_address(&text) {
            Some(address) if addresses.contains(&address) => {}
            Some(address) => addresses.push(address),
            None => warn!(%pod, text, "an address of the pod cannot be read; nothing applies to it"),
        }
    }
    addresses
}

/// The name of an object that belongs to the cluster.
fn cluster_name(metadata: &ObjectMeta) -> Option<Arc<str>> {
    metadata.name.as_deref().filter(|name| !name.is_empty()).map(Arc::from)
}

/// The name of an object that belongs to a namespace.
fn object_name(metadata: &ObjectMeta) -> Option<ObjectName> {
    let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty())?;
    Some(ObjectName { namespace: namespace.into(), name: cluster_name(metadata)? })
}

/// The few fields of `ObjectMeta` that are of use: the others, most of all `managedFields`, are larger than
/// the rest of the object.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kept {
        name: Option<String>,
        namespace: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<Annotations>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
    }
    #[derive(Deserialize)]
    struct Annotations {
        // `AUDIT_ANNOTATION`
        #[serde(rename = "podfence.io/audit")]
        audit: Option<String>,
        // `ALLOWED_SOURCES_ANNOTATION`
        #[serde(rename = "podfence.io/allowed-sources")]
        allowed_sources: Option<String>,
    }
    let Kept {
        name,
        namespace,
        labels,
        annotations,
        resource_version,
        creation_timestamp,
        deletion_timestamp,
    } = Kept::deserialize(deserializer)?;
    let annotations = annotations.map(|Annotations { audit, allowed_sources }| {
        let kept = [(AUDIT_ANNOTATION, audit), (ALLOWED_SOURCES_ANNOTATION, allowed_sources)];
        kept.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    });
    let rest = ObjectMeta::default();
    Ok(ObjectMeta {
        name,
        namespace,
        labels,
        annotations,
        resource_version,
        creation_timestamp,
        deletion_timestamp,
        ..rest
    })
}
