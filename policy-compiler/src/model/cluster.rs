//! All objects of one cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{
    ClusterNetworkPolicy, EndpointSubset, Endpoints, Labels, NetworkPolicy, ObjectName, Pod, Service,
};

/// The label that the API server puts on every namespace; its value is the namespace's name.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The objects of a cluster that decide about connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    namespaces: BTreeMap<Arc<str>, Namespace>,
    nodes: BTreeMap<Arc<str>, Node>,
    pods: BTreeMap<ObjectName, Pod>,
    services: BTreeMap<ObjectName, Service>,
    endpoints: BTreeMap<ObjectName, Vec<Endpoints>>,
    policies: BTreeMap<ObjectName, NetworkPolicy>,
    tier_policies: BTreeMap<Arc<str>, ClusterNetworkPolicy>,
}

/// `core/v1 Namespace`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace {
    name: Arc<str>,
    labels: Labels,
    audited: bool,
    allowed_sources: Vec<IpNet>,
    terminating: bool,
    declared: bool,
}

impl Namespace {
    /// A namespace; its name becomes a label too, as the API server sees to.
    pub fn new(name: impl Into<Arc<str>>, mut labels: Labels) -> Self {
        let name = name.into();
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.to_string());
        Self { name, labels, audited: false, allowed_sources: Vec::new(), terminating: false, declared: true }
    }

    /// A namespace that objects live in and no manifest declares: its name is its only label.
    pub fn undeclared(name: impl Into<Arc<str>>) -> Self {
        Self { declared: false, ..Self::new(name, Labels::new()) }
    }

    /// The namespace with its policies in audit mode, or not.
    #[must_use]
    pub fn with_audit(self, audited: bool) -> Self {
        Self { audited, ..self }
    }

    /// The namespace with pods that may send from these addresses besides their own.
    #[must_use]
    pub fn with_allowed_sources(self, allowed_sources: Vec<IpNet>) -> Self {
        Self { allowed_sources, ..self }
    }

    /// The namespace as one that is being deleted, or not.
    #[must_use]
    pub fn with_terminating(self, terminating: bool) -> Self {
        Self { terminating, ..self }
    }

    /// `metadata.name`
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// `metadata.deletionTimestamp` is set: the namespace is being deleted, and all that is in it one by one, the
    /// policies perhaps before the pods.
    pub fn is_terminating(&self) -> bool {
        self.terminating
    }

    /// Whether its labels are known, and not only its name.
    pub fn is_declared(&self) -> bool {
        self.declared
    }

    /// Whether all policies of the namespace are in audit mode.
    pub fn is_audited(&self) -> bool {
        self.audited
    }

    /// The sources besides their own that pods of the namespace may use
    /// ([`ALLOWED_SOURCES_ANNOTATION`](super::ALLOWED_SOURCES_ANNOTATION)).
    pub fn allowed_sources(&self) -> &[IpNet] {
        &self.allowed_sources
    }

    /// `metadata.labels`, with [`NAMESPACE_NAME_LABEL`].
    pub fn labels(&self) -> &Labels {
        &self.labels
    }
}

/// `core/v1 Node`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// `metadata.name`
    pub name: Arc<str>,
    /// `metadata.labels`
    pub labels: Labels,
    /// The IP addresses in `status.addresses`.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`, or `spec.podCIDR` where that is empty.
    pub pod_ranges: Vec<IpNet>,
}

impl Cluster {
    /// A cluster without objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a namespace in, in the place of one of the same name.
    pub fn insert_namespace(&mut self, namespace: Namespace) {
        self.namespaces.insert(namespace.name.clone(), namespace);
    }

    /// Puts a node in, in the place of one of the same name.
    pub fn insert_node(&mut self, node: Node) {
        self.nodes.insert(node.name.clone(), node);
    }

    /// Puts a pod in, in the place of one of the same name.
    pub fn insert_pod(&mut self, pod: Pod) {
        self.pods.insert(pod.name.clone(), pod);
    }

    /// Puts a Service in, in the place of one of the same name.
    pub fn insert_service(&mut self, service: Service) {
        self.services.insert(service.name.clone(), service);
    }

    /// Adds backends of a Service.
    pub fn insert_endpoints(&mut self, endpoints: Endpoints) {
        let service = ObjectName::new(endpoints.name.namespace.clone(), endpoints.service.clone());
        self.endpoints.entry(service).or_default().push(endpoints);
    }

    /// Puts a policy in, in the place of one of the same name.
    pub fn insert_policy(&mut self, policy: NetworkPolicy) {
        self.policies.insert(policy.name.clone(), policy);
    }

    /// Puts a policy of the whole cluster in, in the place of one of the same name.
    pub fn insert_cluster_policy(&mut self, policy: ClusterNetworkPolicy) {
        self.tier_policies.insert(policy.name.clone(), policy);
    }

    /// The namespaces that are known, by name. Of others that objects live in nothing but the name is known.
    pub fn namespaces(&self) -> &BTreeMap<Arc<str>, Namespace> {
        &self.namespaces
    }

    /// The nodes, by name.
    pub fn nodes(&self) -> &BTreeMap<Arc<str>, Node> {
        &self.nodes
    }

    /// The pods and workloads, by namespace and name.
    pub fn pods(&self) -> &BTreeMap<ObjectName, Pod> {
        &self.pods
    }

    /// The Services, by namespace and name.
    pub fn services(&self) -> &BTreeMap<ObjectName, Service> {
        &self.services
    }

    /// What Endpoints and EndpointSlices name as backends of a Service. They may name some twice, because the
    /// endpoint controllers copy the one into the other.
    pub fn endpoints_of(&self, service: &ObjectName) -> impl Iterator<Item = &EndpointSubset> + use<'_> {
        self.endpoints.get(service).into_iter().flatten().flat_map(|endpoints| &endpoints.subsets)
    }

    /// Whether a policy of the cluster is in audit mode.
    pub fn is_audited(&self, policy: &NetworkPolicy) -> bool {
        policy.is_audited_in(self.namespaces.get(&policy.name.namespace))
    }

    /// The policies, by namespace and name.
    pub fn policies(&self) -> &BTreeMap<ObjectName, NetworkPolicy> {
        &self.policies
    }

    /// The policies of the whole cluster, by name.
    pub fn cluster_policies(&self) -> &BTreeMap<Arc<str>, ClusterNetworkPolicy> {
        &self.tier_policies
    }
}
