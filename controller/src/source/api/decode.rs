//! Objects one by one: what cannot be decoded of a list or a watch is one object, not the list or the watch.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::objects::Kind;

/// An object, or what can be said of one that cannot be decoded.
#[derive(Debug, Clone)]
pub(super) enum Object<K> {
    Decoded(K),
    Undecodable(Box<Undecodable>),
}

/// What is left of an object that cannot be decoded.
#[derive(Debug, Clone)]
pub(super) struct Undecodable {
    /// Name, namespace, version and identifier, as far as they can be read.
    pub(super) metadata: ObjectMeta,
    /// Why it cannot be decoded.
    pub(super) reason: String,
}

impl<'de, K: Kind> Deserialize<'de> for Object<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let text = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            uid: text("uid"),
            ..ObjectMeta::default()
        };
        Ok(match serde_json::from_value(value.take()) {
            Ok(object) => Self::Decoded(object),
            Err(error) => Self::Undecodable(Box::new(Undecodable { metadata, reason: error.to_string() })),
        })
    }
}

impl<K: Kind> Resource for Object<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Decoded(object) => object.meta(),
            Self::Undecodable(object) => &object.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Decoded(object) => object.meta_mut(),
            Self::Undecodable(object) => &mut object.metadata,
        }
    }
}
