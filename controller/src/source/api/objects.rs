//! The objects as the API server sends them, without what decides about no packet.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use policy_compiler::manifest::{self, Problem};
use policy_compiler::model::{
    self, ALLOWED_SOURCES_ANNOTATION, AUDIT_ANNOTATION, ContainerPort, ObjectName, PodUid, PolicyName,
    PortNumber, Protocol, STATIC_POD_ANNOTATION, asks_for_audit,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::source::Update;

/// A kind of objects that is followed.
pub(super) trait Kind:
    Resource<DynamicType: Clone + Default> + DeserializeOwned + Clone + Debug + Send + 'static
{
    /// Tells one object of the kind from all others.
    type Name: Clone + Eq + Hash + Display;

    /// Whether the policies are enforced without the kind where it may not be read.
    const READ_IF_ALLOWED: bool = false;

    /// What becomes of an object that cannot be decoded, for the log.
    const UNDECODABLE: &str;

    /// The name of an object; `None` if it has none.
    fn name_of(metadata: &ObjectMeta) -> Option<Self::Name>;

    /// The object as it is now. What somebody should know about it besides is added to `remarks`.
    fn update(name: Self::Name, object: Self, remarks: &mut Vec<Remark>) -> Update;

    /// That the object is gone.
    fn gone(name: Self::Name) -> Update;

    /// What to go by where an object cannot be decoded; `None` to go on with what was known of it.
    fn undecodable(name: Self::Name) -> Option<Update>;

    /// The name of the policy that an object is; `None` for one that is none.
    fn policy(_: &Self::Name) -> Option<PolicyName> {
        None
    }
}

/// A kind as its objects have it, such as `Pod`.
pub(super) fn kind<K: Kind>() -> String {
    K::kind(&K::DynamicType::default()).into_owned()
}

/// A kind as the API's paths and messages have it, such as `pods`.
pub(super) fn plural<K: Kind>() -> String {
    K::plural(&K::DynamicType::default()).into_owned()
}

/// What somebody should know about an object that is not entirely what was probably meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Remark {
    /// The field, such as `spec.egress[0].to[0].domainNames`.
    pub(super) field: String,
    /// What is the matter with it.
    pub(super) message: String,
    /// What follows from that.
    pub(super) consequence: &'static str,
}

impl Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, message, consequence } = self;
        write!(f, "{field}: {message} ({consequence})")
    }
}

impl Remark {
    fn about(problem: Problem, consequence: &'static str) -> Self {
        let Problem { field, message, .. } = problem;
        Self { field, message, consequence }
    }
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

    fn update(name: Arc<str>, Self { metadata }: Self, remarks: &mut Vec<Remark>) -> Update {
        let annotation = |key| metadata.annotations.as_ref().and_then(|all| all.get(key));
        let audited = annotation(AUDIT_ANNOTATION).is_some_and(|value| asks_for_audit(value));
        let sources = annotation(ALLOWED_SOURCES_ANNOTATION).map(|value| allowed_sources(value, remarks));
        let namespace = model::Namespace::new(name.clone(), metadata.labels.unwrap_or_default())
            .with_audit(audited)
            .with_terminating(metadata.deletion_timestamp.is_some())
            .with_allowed_sources(sources.unwrap_or_default());
        Update::Namespace(name, Some(namespace))
    }

    fn gone(name: Arc<str>) -> Update {
        Update::Namespace(name, None)
    }

    fn undecodable(name: Arc<str>) -> Option<Update> {
        Some(Update::Namespace(name, None))
    }
}

/// Reads the sources that a namespace allows its pods. What cannot be read allows nothing.
fn allowed_sources(annotation: &str, remarks: &mut Vec<Remark>) -> Vec<IpNet> {
    let (sources, unread) = manifest::allowed_sources(annotation);
    remarks.extend(unread.into_iter().map(|text| Remark {
        field: format!("metadata.annotations.{ALLOWED_SOURCES_ANNOTATION}"),
        message: format!("{text:?} is neither an address nor a block"),
        consequence: "it allows nothing",
    }));
    sources
}

/// Reads an object as it is read in a manifest, with this metadata. What becomes of a part that cannot be read, `unread`
/// says.
pub(super) fn as_manifest<K: Kind>(
    metadata: Value,
    mut object: Map<String, Value>,
    unread: &'static str,
    remarks: &mut Vec<Remark>,
) -> Option<manifest::Resource> {
    // The items of a list come without them.
    object.insert("apiVersion".to_owned(), json!(K::api_version(&K::DynamicType::default())));
    object.insert("kind".to_owned(), json!(kind::<K>()));
    object.insert("metadata".to_owned(), metadata);
    match manifest::deserialize(Value::Object(object), "") {
        Ok(reading) => {
            remarks.extend(reading.problems.into_iter().map(|problem| Remark::about(problem, unread)));
            let warnings = reading.warnings.into_iter();
            remarks.extend(warnings.map(|problem| Remark::about(problem, "it is read all the same")));
            reading.objects.into_iter().next().map(|object| object.resource)
        }
        Err(problem) => {
            remarks.push(Remark::about(problem, unread));
            None
        }
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

    fn update(name: Arc<str>, object: Self, remarks: &mut Vec<Remark>) -> Update {
        let Self { metadata, spec, status } = object;
        let metadata = json!({"name": *name, "labels": metadata.labels});
        let fields = [("spec", json!(spec)), ("status", json!(status))];
        let object = fields.map(|(field, value)| (field.to_owned(), value));
        let unread = "this part of the node is left out";
        let node = match as_manifest::<Self>(metadata, object.into_iter().collect(), unread, remarks) {
            Some(manifest::Resource::Node(node)) => Some(node),
            _ => None,
        };
        Update::Node(name, node)
    }

    fn gone(name: Arc<str>) -> Update {
        Update::Node(name, None)
    }

    fn undecodable(_: Arc<str>) -> Option<Update> {
        None
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

    fn update(name: ObjectName, object: Self, remarks: &mut Vec<Remark>) -> Update {
        Update::Pod(name.clone(), Some(object.into_model(name, remarks)))
    }

    fn gone(name: ObjectName) -> Update {
        Update::Pod(name, None)
    }

    fn undecodable(_: ObjectName) -> Option<Update> {
        None
    }
}

impl Pod {
    fn into_model(self, name: ObjectName, remarks: &mut Vec<Remark>) -> model::Pod {
        let Self { metadata, spec, status } = self;
        let host_network = spec.host_network.unwrap_or(false);
        let mut addresses = read_addresses(status.pod_ips, status.pod_ip, remarks);
        if addresses.is_empty() && host_network {
            addresses = read_addresses(status.host_ips, status.host_ip, remarks);
        }
        let restartable = |container: &Container| container.restart_policy.as_deref() == Some("Always");
        let init_containers = spec.init_containers.into_iter().flatten().filter(restartable);
        let containers = init_containers.chain(spec.containers.into_iter().flatten());
        let static_uid = metadata.annotations.as_ref().and_then(|all| all.get(STATIC_POD_ANNOTATION));
        let uid = static_uid.or(metadata.uid.as_ref()).and_then(|uid| PodUid::parse(uid));
        model::Pod {
            uid,
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
fn read_addresses(
    list: Option<Vec<Address>>,
    single: Option<String>,
    remarks: &mut Vec<Remark>,
) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    let listed = list.into_iter().flatten().map(|address| address.ip);
    for text in listed.chain(single).filter(|text| !text.is_empty()) {
        match manifest::ip_address(&text) {
            Some(address) if addresses.contains(&address) => {}
            Some(address) => addresses.push(address),
            None => remarks.push(Remark {
                field: "status".to_owned(),
                message: format!("{text:?} is no address"),
                consequence: "nothing applies to it",
            }),
        }
    }
    addresses
}

/// The name of an object that belongs to the cluster.
pub(super) fn cluster_name(metadata: &ObjectMeta) -> Option<Arc<str>> {
    metadata.name.as_deref().filter(|name| !name.is_empty()).map(Arc::from)
}

/// The name of an object that belongs to a namespace.
pub(super) fn object_name(metadata: &ObjectMeta) -> Option<ObjectName> {
    let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty())?;
    Some(ObjectName { namespace: namespace.into(), name: cluster_name(metadata)? })
}

/// The few fields of `ObjectMeta` that are of use: the others, most of all `managedFields`, are larger than
/// the rest of the object.
pub(super) fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kept {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
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
        // `STATIC_POD_ANNOTATION`
        #[serde(rename = "kubernetes.io/config.hash")]
        static_pod: Option<String>,
    }
    let Kept {
        name,
        namespace,
        uid,
        labels,
        annotations,
        resource_version,
        creation_timestamp,
        deletion_timestamp,
    } = Kept::deserialize(deserializer)?;
    let annotations = annotations.map(|Annotations { audit, allowed_sources, static_pod }| {
        let kept = [
            (AUDIT_ANNOTATION, audit),
            (ALLOWED_SOURCES_ANNOTATION, allowed_sources),
            (STATIC_POD_ANNOTATION, static_pod),
        ];
        kept.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    });
    let rest = ObjectMeta::default();
    Ok(ObjectMeta {
        name,
        namespace,
        uid,
        labels,
        annotations,
        resource_version,
        creation_timestamp,
        deletion_timestamp,
        ..rest
    })
}
