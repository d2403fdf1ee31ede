//! From an object to what is kept of it.

use std::sync::Arc;

use super::addresses::{address, block};
use super::annotations::{is_audited, sources};
use super::cluster_policy::cluster_network_policy;
use super::fields::{Field, Mapping, Read};
use super::kinds::Kind;
use super::labels::labels;
use super::names::{generated_name, is_dns_label, is_dns_subdomain, is_plain_name};
use super::pods::pod;
use super::policy::network_policy;
use super::quoted::quoted;
use super::services::{endpoint_slice, endpoints, service};
use super::{Owner, Resource, Workload, WorkloadKind, tree};
use crate::model::{Namespace, Node, ObjectName};

/// The namespace of objects that name none, where nobody says otherwise.
const DEFAULT_NAMESPACE: &str = "default";

/// Reads an object, as far as it can be read; an object without a good name cannot.
pub(super) fn read_resource(kind: &Kind, object: &Mapping<'_>) -> Read<Resource> {
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
        Kind::Node => Resource::Node(node(object, &metadata, dns_name(&metadata, is_dns_subdomain)?)),
        Kind::Service => Resource::Service(service(object, object_name(&metadata, is_dns_label)?)),
        Kind::Endpoints => Resource::Endpoints(endpoints(object, object_name(&metadata, is_dns_subdomain)?)),
        Kind::EndpointSlice => {
            Resource::EndpointSlice(endpoint_slice(object, object_name(&metadata, is_dns_subdomain)?))
        }
        Kind::NetworkPolicy => {
            Resource::NetworkPolicy(network_policy(object, object_name(&metadata, is_dns_subdomain)?))
        }
        Kind::ClusterNetworkPolicy => {
            let name = dns_name(&metadata, is_dns_subdomain)?;
            Resource::ClusterNetworkPolicy(cluster_network_policy(object, name))
        }
        Kind::Workload(kind) => {
            let pod = pod(object, kind, object_name(&metadata, is_dns_subdomain)?);
            Resource::Workload(Workload { kind: kind.clone(), owners: owners(&metadata), pod })
        }
    })
}

/// Whether the object is being deleted: `metadata.deletionTimestamp` is set.
fn is_terminating(metadata: &Mapping<'_>) -> bool {
    metadata.optional("deletionTimestamp", |field| field.text().map(drop)).is_ok_and(|time| time.is_some())
}

/// Namespace and name; without a namespace the object goes into [`DEFAULT_NAMESPACE`].
fn object_name(metadata: &Mapping<'_>, valid: fn(&str) -> bool) -> Read<ObjectName> {
    let namespace = metadata.optional("namespace", |field| match field.text()? {
        "" => Ok(DEFAULT_NAMESPACE.into()),
        name => checked_name(field, name, is_dns_label),
    });
    let name = dns_name(metadata, valid);
    Ok(ObjectName { namespace: namespace?.unwrap_or_else(|| DEFAULT_NAMESPACE.into()), name: name? })
}

fn dns_name(metadata: &Mapping<'_>, valid: fn(&str) -> bool) -> Read<Arc<str>> {
    if metadata.get("name").is_none()
        && let Some(prefix) = metadata.get("generateName")
    {
        return checked_name(&prefix, &generated_name(prefix.text()?, &prefix.origin()), valid);
    }
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
        let text = |key| reference.peek(&[key]).and_then(tree::Node::text);
        let kind = text("kind").map(|kind| WorkloadKind::of(text("apiVersion").unwrap_or_default(), kind));
        Ok(kind.zip(text("name")).map(|(kind, name)| Owner { kind, name: name.into() }))
    });
    references.unwrap_or_default().into_iter().filter_map(|owner: Read<_>| owner.ok().flatten()).collect()
}

fn node(object: &Mapping<'_>, metadata: &Mapping<'_>, name: Arc<str>) -> Node {
    let labels = metadata.get("labels").as_ref().map(labels).unwrap_or_default();
    let mut node = Node { name, labels, addresses: Vec::new(), pod_ranges: Vec::new() };
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
