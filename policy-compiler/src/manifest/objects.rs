//! From a document to the objects in it.

use std::sync::Arc;

use super::addresses::{address, block};
use super::annotations::{is_audited, sources};
use super::fields::{Field, Mapping, Read, quoted, report_repeated_keys};
use super::labels::labels;
use super::names::{is_dns_label, is_dns_subdomain, is_plain_name};
use super::pods::pod;
use super::policy::network_policy;
use super::services::{endpoint_slice, endpoints, service};
use super::{Object, Owner, Reading, Resource, Unread, Workload, WorkloadKind};
use crate::model::{Namespace, Node, ObjectName};

/// The kinds that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Namespace,
    Node,
    Service,
    Endpoints,
    EndpointSlice,
    NetworkPolicy,
    Workload(WorkloadKind),
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        match name {
            "Namespace" => Some(Self::Namespace),
            "Node" => Some(Self::Node),
            "Service" => Some(Self::Service),
            "Endpoints" => Some(Self::Endpoints),
            "EndpointSlice" => Some(Self::EndpointSlice),
            "NetworkPolicy" => Some(Self::NetworkPolicy),
            _ => WorkloadKind::named(name).map(Self::Workload),
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::Node | Self::Service | Self::Endpoints => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::Workload(kind) => kind.api_version(),
        }
    }

    /// Whether objects of that version are written like those of [`Self::api_version`].
    fn accepts(self, api_version: &str) -> bool {
        let old = match (group(api_version), group(self.api_version())) {
            (given, right @ ("apps" | "batch" | "discovery.k8s.io")) => {
                given == right || given == "extensions"
            }
            _ => false,
        };
        old || api_version == self.api_version()
    }
}

/// The API group; the core group is empty.
fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether the group is not one of Kubernetes' own, so that it may have a kind of any name.
fn is_foreign(group: &str) -> bool {
    group.contains('.') && !matches!(group, "networking.k8s.io" | "discovery.k8s.io")
}

/// `apiVersion` and `kind`, where a list says it for its items.
#[derive(Clone, Copy, Default)]
struct ItemType<'a> {
    api_version: Option<&'a str>,
    kind: Option<&'a str>,
}

/// Adds the objects of a document to what was read before.
pub(super) fn read_document(root: &Field<'_>, reading: &mut Reading) {
    let _ = read_object(root, ItemType::default(), reading);
}

fn read_object(field: &Field<'_>, item: ItemType<'_>, reading: &mut Reading) -> Read<()> {
    let object = field.mapping()?;
    let api_version = type_field(&object, "apiVersion", item.api_version);
    let kind_name = type_field(&object, "kind", item.kind);
    let (api_version, kind_name) = match (api_version, kind_name) {
        (Ok(api_version), Ok(kind_name)) => (api_version, kind_name),
        (api_version, kind_name) => {
            report_repeated_keys(field);
            return api_version.and(kind_name).map(drop);
        }
    };

    if let (Some(item_kind), Some(items)) = (kind_name.strip_suffix("List"), object.get("items")) {
        let item = match item_kind {
            "" => ItemType::default(),
            _ => ItemType { api_version: Some(&api_version), kind: Some(item_kind) },
        };
        let read = items.items(|object| {
            let _ = read_object(object, item, reading);
        });
        return read.map(drop).inspect_err(|_| report_repeated_keys(&items));
    }

    let kind = match Kind::named(&kind_name) {
        Some(kind) if kind.accepts(&api_version) || !is_foreign(group(&api_version)) => kind,
        other => {
            let group = other.map(|_| format!(".{}", group(&api_version))).unwrap_or_default();
            reading.unread.push(unread(format!("{kind_name}{group}"), &object));
            return Ok(());
        }
    };
    report_repeated_keys(field);
    if !kind.accepts(&api_version) {
        let (given, right) = (quoted(&api_version), kind.api_version());
        let message = format!("there is no {kind_name} in {given}: write `apiVersion: {right}`");
        object.get("apiVersion").as_ref().unwrap_or(field).problem(message);
    }
    let resource = read_resource(kind, &object)?;
    reading.objects.push(Object { origin: field.origin(), resource });
    Ok(())
}

/// What is kept of an object that is not read. Nothing that is wrong in it matters.
fn unread(kind: String, object: &Mapping<'_>) -> Unread {
    let text = |key| Some(object.peek(&["metadata", key])?.text()?.into());
    Unread { kind, namespace: text("namespace"), name: text("name"), origin: object.field().origin() }
}

fn type_field(object: &Mapping<'_>, key: &str, default: Option<&str>) -> Read<String> {
    match (object.get(key), default) {
        (None, Some(default)) => Ok(default.to_owned()),
        _ => Ok(object.required(key)?.text()?.to_owned()),
    }
}

/// Reads an object, as far as it can be read; an object without a good name cannot.
fn read_resource(kind: Kind, object: &Mapping<'_>) -> Read<Resource> {
    let metadata_field = object.required("metadata")?;
    let metadata = metadata_field.mapping()?;
    Ok(match kind {
        Kind::Namespace => {
            let labels = metadata.get("labels").as_ref().map(labels).unwrap_or_default();
            let namespace = Namespace::new(dns_name(&metadata, is_dns_label)?, labels);
            let namespace =
                namespace.with_audit(is_audited(&metadata)).with_terminating(is_terminating(&metadata));
            Resource::Namespace(namespace.with_allowed_sources(sources(&metadata)))
        }
        Kind::Node => Resource::Node(node(object, dns_name(&metadata, is_dns_subdomain)?)),
        Kind::Service => Resource::Service(service(object, object_name(&metadata, is_dns_label)?)),
        Kind::Endpoints => Resource::Endpoints(endpoints(object, object_name(&metadata, is_dns_subdomain)?)),
        Kind::EndpointSlice => {
            Resource::EndpointSlice(endpoint_slice(object, object_name(&metadata, is_dns_subdomain)?))
        }
        Kind::NetworkPolicy => {
            Resource::NetworkPolicy(network_policy(object, object_name(&metadata, is_dns_subdomain)?))
        }
        Kind::Workload(kind) => Resource::Workload(Workload {
            kind,
            owners: owners(&metadata),
            pod: pod(object, kind, object_name(&metadata, is_dns_subdomain)?),
        }),
    })
}

/// Whether the object is being deleted: `metadata.deletionTimestamp` is set.
fn is_terminating(metadata: &Mapping<'_>) -> bool {
    metadata.optional("deletionTimestamp", |field| field.text().map(drop)).is_ok_and(|time| time.is_some())
}

/// Namespace and name; without a namespace the object goes into `default`.
fn object_name(metadata: &Mapping<'_>, valid: fn(&str) -> bool) -> Read<ObjectName> {
    let namespace = metadata.optional("namespace", |field| match field.text()? {
        "" => Ok("default".into()),
        name => checked_name(field, name, is_dns_label),
    });
    let name = dns_name(metadata, valid);
    Ok(ObjectName { namespace: namespace?.unwrap_or_else(|| "default".into()), name: name? })
}

fn dns_name(metadata: &Mapping<'_>, valid: fn(&str) -> bool) -> Read<Arc<str>> {
    let field = metadata.required("name")?;
    checked_name(&field, field.text()?, valid)
}

/// Names that break the API's syntax are in use with other tools; they do no harm as long as they can be
/// written into a ruleset.
fn checked_name(field: &Field<'_>, name: &str, valid: fn(&str) -> bool) -> Read<Arc<str>> {
    if !valid(name) {
        let shown = quoted(name);
        if !is_plain_name(name) {
            let syntax = "at most 253 letters, digits, `-`, `_` and `.`, a letter or digit at both ends";
            return Err(field.problem(format!("{shown} is no name: {syntax}")));
        }
        let dots = if valid("a.b") { ", `.`" } else { "" };
        field.warn(format!("the API server refuses {shown}: it wants lower-case letters, digits, `-`{dots}"));
    }
    Ok(name.into())
}

/// The workloads that `metadata.ownerReferences` names.
fn owners(metadata: &Mapping<'_>) -> Vec<Owner> {
    let references = metadata.list("ownerReferences", |field| {
        let reference = field.mapping()?;
        let kind = reference.optional("kind", |field| Ok(WorkloadKind::named(field.text()?)));
        let name = reference.optional("name", |field| Ok(Arc::from(field.text()?)));
        Ok(kind?.flatten().zip(name?).map(|(kind, name)| Owner { kind, name }))
    });
    references.unwrap_or_default().into_iter().filter_map(|owner: Read<_>| owner.ok().flatten()).collect()
}

fn node(object: &Mapping<'_>, name: Arc<str>) -> Node {
    let mut node = Node { name, addresses: Vec::new(), pod_ranges: Vec::new() };
    if let Some(Ok(status)) = object.get("status").as_ref().map(Field::mapping) {
        let addresses = status.list("addresses", |field| {
            let entry = field.mapping()?;
            match entry.required("type")?.text()? {
                "InternalIP" | "ExternalIP" => address(&entry.required("address")?).map(Some),
                _ => Ok(None),
            }
        });
        node.addresses =
            addresses.unwrap_or_default().into_iter().filter_map(|a: Read<_>| a.ok().flatten()).collect();
    }
    if let Some(Ok(spec)) = object.get("spec").as_ref().map(Field::mapping) {
        node.pod_ranges = spec.list("podCIDRs", block).unwrap_or_default().into_iter().flatten().collect();
        if node.pod_ranges.is_empty() {
            node.pod_ranges.extend(spec.optional("podCIDR", block).ok().flatten());
        }
    }
    node
}
