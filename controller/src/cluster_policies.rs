//! `ClusterNetworkPolicy` as a resource of the API server.

use kube::api::{ApiResource, GroupVersionKind};

/// The group of the API.
pub(crate) const GROUP: &str = "policy.networking.k8s.io";

/// The kind.
pub(crate) const KIND: &str = "ClusterNetworkPolicy";

/// The kind as the API's paths have it.
pub(crate) const PLURAL: &str = "clusternetworkpolicies";

/// A version of the API that is read. Their objects are alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Version {
    #[default]
    V1beta1,
    V1alpha2,
}

impl Version {
    /// All of them, the preferred one first.
    pub(crate) const ALL: [Self; 2] = [Self::V1beta1, Self::V1alpha2];

    /// The name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V1beta1 => "v1beta1",
            Self::V1alpha2 => "v1alpha2",
        }
    }

    /// The resource in this version.
    pub(crate) fn resource(self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, self.as_str(), KIND), PLURAL)
    }
}
