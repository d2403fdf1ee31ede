//! What an object is: `apiVersion` and `kind`, and what may have been meant by them.

use std::sync::Arc;

use super::WorkloadKind;
use super::names::closest;
use super::quoted::quoted;

/// The kinds that are read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Namespace,
    Node,
    Service,
    Endpoints,
    EndpointSlice,
    NetworkPolicy,
    ClusterNetworkPolicy,
    Workload(WorkloadKind),
}

/// What `apiVersion` and `kind` come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    /// A kind that is read.
    Read(Kind),
    /// The API server knows no such kind in this version, and this one is meant.
    WrongVersion(Kind),
    /// The API server knows no such kind, and this one is meant.
    WrongKind(Kind),
    /// Any other kind.
    Other,
}

const NETWORKING: &str = "networking.k8s.io";

/// The group of policies of the whole cluster.
const CLUSTER_NETWORKING: &str = "policy.networking.k8s.io";

/// The versions of ClusterNetworkPolicy, which do not differ.
const CLUSTER_POLICY_VERSIONS: [&str; 2] =
    ["policy.networking.k8s.io/v1beta1", "policy.networking.k8s.io/v1alpha2"];

/// The kinds by which other engines decide about connections. Others that end in `NetworkPolicy` do too.
const OTHER_POLICIES: [&str; 11] = [
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "CiliumClusterwideNetworkPolicy",
    "CiliumNetworkPolicy",
    "ClusterNetworkPolicy",
    "GlobalNetworkPolicy",
    "AuthorizationPolicy",
    "EgressFirewall",
    "MeshTrafficPermission",
    "ServerAuthorization",
    "ServiceIntentions",
];

impl Kind {
    fn all() -> impl Iterator<Item = Self> {
        let kinds = [
            Self::Namespace,
            Self::Node,
            Self::Service,
            Self::Endpoints,
            Self::EndpointSlice,
            Self::NetworkPolicy,
            Self::ClusterNetworkPolicy,
        ];
        kinds.into_iter().chain(WorkloadKind::KNOWN.map(Self::Workload))
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.as_str() == name)
    }

    /// The kind that was probably meant.
    fn like(name: &str) -> Option<Self> {
        let kinds: Vec<_> = Self::all().collect();
        closest(name, kinds.iter().map(Self::as_str)).and_then(Self::named)
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Service => "Service",
            Self::Endpoints => "Endpoints",
            Self::EndpointSlice => "EndpointSlice",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::Workload(kind) => kind.as_str(),
        }
    }

    /// Whether its objects live in namespaces.
    pub(super) fn is_namespaced(&self) -> bool {
        !matches!(self, Self::Namespace | Self::Node | Self::ClusterNetworkPolicy)
    }

    /// Whether its objects decide about connections.
    pub(super) fn is_policy(&self) -> bool {
        matches!(self, Self::NetworkPolicy | Self::ClusterNetworkPolicy)
    }

    pub(super) fn api_version(&self) -> &'static str {
        match self {
            Self::Namespace | Self::Node | Self::Service | Self::Endpoints => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::ClusterNetworkPolicy => CLUSTER_POLICY_VERSIONS[0],
            Self::Workload(kind) => match kind {
                WorkloadKind::Pod | WorkloadKind::ReplicationController | WorkloadKind::Other(_) => "v1",
                WorkloadKind::Job | WorkloadKind::CronJob => "batch/v1",
                WorkloadKind::Deployment
                | WorkloadKind::StatefulSet
                | WorkloadKind::DaemonSet
                | WorkloadKind::ReplicaSet => "apps/v1",
            },
        }
    }

    /// What is wrong with the version of an object that is of this kind, and is not [accepted](Self::accepts).
    pub(super) fn wrong_version(&self, given: &str) -> String {
        let (kind, shown, right) = (self.as_str(), quoted(given), self.api_version());
        match self {
            Self::ClusterNetworkPolicy if group(given) == CLUSTER_NETWORKING => {
                let versions = CLUSTER_POLICY_VERSIONS.join(" and ");
                format!("{kind} is not read in {shown}, but in {versions}")
            }
            _ => format!("there is no {kind} in {shown}: write `apiVersion: {right}`"),
        }
    }

    /// Whether a group that is none of Kubernetes' own, or does not exist, was probably meant to be that of this kind.
    fn is_meant_by(&self, group: &str) -> bool {
        match self {
            Self::NetworkPolicy => is_meant_for_networking(group),
            Self::ClusterNetworkPolicy => {
                is_of_kubernetes(group) || closest(group, [CLUSTER_NETWORKING]).is_some()
            }
            _ => false,
        }
    }

    /// Whether objects of that version are written like those of [`Self::api_version`].
    fn accepts(&self, api_version: &str) -> bool {
        if *self == Self::ClusterNetworkPolicy {
            return CLUSTER_POLICY_VERSIONS.contains(&api_version);
        }
        let old = match (group(api_version), group(self.api_version())) {
            (given, right @ ("apps" | "batch" | "discovery.k8s.io")) => {
                given == right || given == "extensions"
            }
            _ => false,
        };
        old || api_version == self.api_version()
    }
}

impl Type {
    pub(super) fn of(api_version: &str, kind: &str) -> Self {
        let group = group(api_version);
        if let Some(kind) = Kind::named(kind) {
            return match is_foreign(group) && !kind.is_meant_by(group) {
                _ if kind.accepts(api_version) => Self::Read(kind),
                true => Self::Other,
                false => Self::WrongVersion(kind),
            };
        }
        if group == NETWORKING && kind.to_lowercase().starts_with("net") {
            return Self::WrongKind(Kind::NetworkPolicy);
        }
        let meant = Kind::like(kind).filter(|meant| !is_foreign(group) || meant.is_meant_by(group));
        meant.map_or(Self::Other, Self::WrongKind)
    }
}

/// The kind as it is named beside those that are read: `Service.serving.knative.dev`.
pub(super) fn qualified(api_version: &str, kind: &str) -> String {
    match Kind::named(kind) {
        Some(_) => format!("{kind}.{}", group(api_version)),
        None => kind.to_owned(),
    }
}

/// Whether objects of a kind are policies, of whatever engine; mistyped ones too.
pub(super) fn is_policy_kind(kind: &str) -> bool {
    kind.ends_with("NetworkPolicy") || closest(kind, OTHER_POLICIES).is_some()
}

/// Whether an object of this kind would be read, or was probably meant to be a policy that is.
pub(super) fn is_known_or_policy(kind: &str) -> bool {
    Kind::named(kind).is_some() || Kind::like(kind).is_some_and(|kind| kind.is_policy())
}

/// Whether a kind that is read is of this version.
pub(super) fn is_known_version(api_version: &str) -> bool {
    Kind::all().any(|kind| kind.accepts(api_version))
}

impl WorkloadKind {
    /// The kinds of Kubernetes' own; a name that several workloads have stays with the first of them.
    pub(super) const KNOWN: [Self; 8] = [
        Self::Pod,
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::ReplicaSet,
        Self::ReplicationController,
        Self::Job,
        Self::CronJob,
    ];

    /// `kind`; where another kind of that name is read, with its group behind it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pod => "Pod",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
            Self::Other(kind) => kind,
        }
    }

    /// The kind that an owner reference names.
    pub(super) fn of(api_version: &str, kind: &str) -> Self {
        let known = Self::KNOWN.into_iter().find(|known| known.as_str() == kind);
        known.filter(|_| !is_foreign(group(api_version))).unwrap_or_else(|| Self::other(api_version, kind))
    }

    pub(super) fn other(api_version: &str, kind: &str) -> Self {
        Self::Other(Arc::from(qualified(api_version, kind)))
    }
}

/// The API group; the core group is empty.
fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether the group is not one of Kubernetes' own, so that it may have a kind of any name.
fn is_foreign(group: &str) -> bool {
    group.contains('.') && !matches!(group, NETWORKING | "discovery.k8s.io")
}

/// Whether a group that does not exist was probably meant to be that of NetworkPolicy.
fn is_meant_for_networking(group: &str) -> bool {
    closest(group, [NETWORKING]).is_some() || (is_of_kubernetes(group) && group != CLUSTER_NETWORKING)
}

/// Whether the name of a group lies below `k8s.io` or `kubernetes.io`, which belong to Kubernetes.
fn is_of_kubernetes(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|domain| group.ends_with(domain))
}
