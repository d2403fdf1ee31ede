//! `ClusterNetworkPolicy` as a resource of the API server.

use kube::api::{ApiResource, GroupVersionKind};

const GROUP: &str = "policy.networking.k8s.io";

/// The versions that are read, the preferred one first. Their objects are alike.
pub(crate) const VERSIONS: [&str; 2] = ["v1beta1", "v1alpha2"];

/// The resource in one of its versions.
pub(crate) fn resource(version: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, version, "ClusterNetworkPolicy"))
}
