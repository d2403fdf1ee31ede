//! The objects that decide about packets, parsed into types.
//!
//! What stands here has been checked: a [`PortMatch`] range is not empty, an exception lies inside its
//! block, a namespace carries its own name as a label. Nothing behind this module checks again.

mod audit;
mod cluster;
mod cluster_policy;
mod default_deny;
mod door;
mod labels;
mod pod;
mod pods_to_node;
mod policy;
mod port;
mod service;

pub use audit::{AUDIT_ANNOTATION, asks_for_audit};
pub use cluster::{Cluster, NAMESPACE_NAME_LABEL, Namespace, Node};
pub use cluster_policy::{Action, ClusterNetworkPolicy, Priority, Tier, TierRule};
pub use default_deny::DefaultDeny;
pub use door::{ALLOWED_SOURCES_ANNOTATION, Door, Doors, LinkAddress, Tunnel};
pub use labels::{LabelSelector, Labels, Operator, Requirement};
pub use pod::{ContainerPort, Pod, PodUid, STATIC_POD_ANNOTATION};
pub use pods_to_node::{PodsToNode, UnknownChoice};
pub use policy::{IpBlock, NamespaceScope, NetworkPolicy, Peer, PodPeer, PortMatch, PortRange, Rule};
pub use port::{PortNumber, Protocol, UnknownProtocol};
pub use service::{EndpointPort, EndpointSubset, Endpoints, Service, ServicePort, TargetPort};

use std::fmt;
use std::sync::Arc;

/// A namespaced object's name, shown as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// `metadata.namespace`
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
}

impl ObjectName {
    /// The name of the object `name` in `namespace`.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The name of a policy of either kind, shown as `namespace/name` or `ClusterNetworkPolicy name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyName {
    /// That of a `NetworkPolicy`.
    Namespaced(ObjectName),
    /// That of a `ClusterNetworkPolicy`.
    Cluster(Arc<str>),
}

impl From<ObjectName> for PolicyName {
    fn from(name: ObjectName) -> Self {
        Self::Namespaced(name)
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespaced(name) => name.fmt(f),
            Self::Cluster(name) => write!(f, "ClusterNetworkPolicy {name}"),
        }
    }
}

/// Where in the manifests something was written; shown as `file:line`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file as the user named it or as it was found below a directory; `-` is standard input.
    pub file: Arc<str>,
    /// The line, counted from 1; 0 for the file as a whole.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// The direction of a connection as its subject sees it (`policyTypes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the subject.
    Ingress,
    /// From the subject.
    Egress,
}

impl Direction {
    /// Both, in the order in which ruleset and reports name them.
    pub const BOTH: [Self; 2] = [Self::Egress, Self::Ingress];

    /// `ingress` or `egress`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An address family of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4
    Ipv4,
    /// IPv6
    Ipv6,
}

impl Family {
    /// Both families.
    pub const BOTH: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family of an address.
    pub fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}
