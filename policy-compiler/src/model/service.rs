//! Services, and the backends of those that select no pods.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Labels, ObjectName, Origin, PortNumber, Protocol};

/// `core/v1 Service`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `spec.selector`: labels that a backend has; `None` where the Service selects no pods, and
    /// [`Cluster::endpoints_of`](super::Cluster::endpoints_of) has its backends.
    pub selector: Option<Labels>,
    /// `spec.externalName` of a Service of type `ExternalName`: the DNS name that it stands for.
    pub external_name: Option<Arc<str>>,
    /// The addresses whose traffic the nodes send to the backends: `spec.clusterIPs`, `spec.externalIPs`, and those of
    /// its load balancer (`status.loadBalancer.ingress`, `spec.loadBalancerIP`). By [`ServicePort::node_port`] it is
    /// reached at the addresses of the nodes too.
    pub addresses: Vec<IpAddr>,
    /// `spec.ports`
    pub ports: Vec<ServicePort>,
    /// Where it was written.
    pub origin: Option<Origin>,
}

/// `core/v1 ServicePort`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// `name`
    pub name: Option<String>,
    /// `protocol`
    pub protocol: Protocol,
    /// `port`
    pub number: PortNumber,
    /// `targetPort`; the same as `port` where it is left out.
    pub target: TargetPort,
    /// `nodePort`: the port of every node that leads to the backends.
    pub node_port: Option<PortNumber>,
}

/// `targetPort`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// A port of the backend.
    Number(PortNumber),
    /// The name of a container port of the backend.
    Name(String),
}

/// `core/v1 Endpoints` or `discovery.k8s.io/v1 EndpointSlice`: backends of a Service by their addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Namespace and name.
    pub name: ObjectName,
    /// The name of the Service, in the same namespace.
    pub service: Arc<str>,
    /// `subsets`; an EndpointSlice is a single one.
    pub subsets: Vec<EndpointSubset>,
}

/// `core/v1 EndpointSubset`: each of its addresses has each of its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSubset {
    /// `addresses`, without those that are not ready.
    pub addresses: Vec<IpAddr>,
    /// `ports`
    pub ports: Vec<EndpointPort>,
}

/// `core/v1 EndpointPort`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPort {
    /// `name`: that of the Service's port which leads here.
    pub name: Option<String>,
    /// `protocol`
    pub protocol: Protocol,
    /// `port`
    pub number: PortNumber,
}
