//! The policies as the API server sends them.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::ClusterResourceScope;
use policy_compiler::manifest;
use policy_compiler::model::{self, ObjectName, PolicyName};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::objects::{Kind, Remark, as_manifest, cluster_name, metadata, object_name};
use crate::cluster_policies::{self, Version};
use crate::source::Update;

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

    fn update(name: ObjectName, Self { metadata, rest }: Self, remarks: &mut Vec<Remark>) -> Update {
        let metadata = json!({
            "namespace": *name.namespace, "name": *name.name, "annotations": metadata.annotations,
        });
        let unread = "what cannot be read allows nothing";
        let policy = match as_manifest::<Self>(metadata, rest, unread, remarks) {
            // There is no file that somebody could look into.
            Some(manifest::Resource::NetworkPolicy(policy)) => policy.without_origins(),
            _ => model::NetworkPolicy::unreadable(name.clone()),
        };
        Update::Policy(name, Some(policy))
    }

    fn gone(name: ObjectName) -> Update {
        Update::Policy(name, None)
    }

    fn undecodable(name: ObjectName) -> Option<Update> {
        Some(Update::Policy(name.clone(), Some(model::NetworkPolicy::unreadable(name))))
    }

    fn policy(name: &ObjectName) -> Option<PolicyName> {
        Some(name.clone().into())
    }
}

/// `policy.networking.k8s.io ClusterNetworkPolicy`, for the reader of manifests.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ClusterNetworkPolicy {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Resource for ClusterNetworkPolicy {
    type DynamicType = Version;
    type Scope = ClusterResourceScope;

    fn kind(_: &Version) -> Cow<'_, str> {
        cluster_policies::KIND.into()
    }

    fn group(_: &Version) -> Cow<'_, str> {
        cluster_policies::GROUP.into()
    }

    fn version(version: &Version) -> Cow<'_, str> {
        version.as_str().into()
    }

    fn plural(_: &Version) -> Cow<'_, str> {
        cluster_policies::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Kind for ClusterNetworkPolicy {
    type Name = Arc<str>;

    const UNDECODABLE: &str = "every pod is denied everything";

    fn name_of(metadata: &ObjectMeta) -> Option<Arc<str>> {
        cluster_name(metadata)
    }

    fn update(name: Arc<str>, Self { metadata, rest }: Self, remarks: &mut Vec<Remark>) -> Update {
        let metadata = json!({"name": *name, "annotations": metadata.annotations});
        let unread = "an Accept rule that cannot be read allows nothing, another one denies everything";
        let policy = match as_manifest::<Self>(metadata, rest, unread, remarks) {
            Some(manifest::Resource::ClusterNetworkPolicy(policy)) => policy.without_origins(),
            _ => model::ClusterNetworkPolicy::unreadable(name.clone()),
        };
        Update::ClusterPolicy(name, Some(policy))
    }

    fn gone(name: Arc<str>) -> Update {
        Update::ClusterPolicy(name, None)
    }

    fn undecodable(name: Arc<str>) -> Option<Update> {
        let policy = model::ClusterNetworkPolicy::unreadable(name.clone());
        Some(Update::ClusterPolicy(name, Some(policy)))
    }

    fn policy(name: &Arc<str>) -> Option<PolicyName> {
        Some(PolicyName::Cluster(name.clone()))
    }
}
