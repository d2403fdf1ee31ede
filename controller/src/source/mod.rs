//! Where objects come from.

pub(crate) mod api;
pub(crate) mod manifests;

use std::sync::Arc;
use std::time::Instant;

use policy_compiler::model::{ClusterNetworkPolicy, Namespace, NetworkPolicy, Node, ObjectName, Pod};

/// An object as it is now; `None` if it is gone.
#[derive(Debug, Clone, Hash)]
pub(crate) enum Update {
    /// `v1 Namespace`
    Namespace(Arc<str>, Option<Namespace>),
    /// `v1 Node`
    Node(Arc<str>, Option<Node>),
    /// `v1 Pod`
    Pod(ObjectName, Option<Pod>),
    /// `networking.k8s.io/v1 NetworkPolicy`
    Policy(ObjectName, Option<NetworkPolicy>),
    /// `policy.networking.k8s.io ClusterNetworkPolicy`
    ClusterPolicy(Arc<str>, Option<ClusterNetworkPolicy>),
}

/// What a source knows so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Knowledge {
    /// Every object that exists has been handed on.
    Complete,
    /// Every object that existed has been handed on, but changes may be missed; this says why.
    Stale(String),
    /// Not every object that exists has been handed on yet, and this is why; the rest is still to come.
    Pending(String),
    /// Something that exists cannot be read, and never could be since the source began; this says what.
    Partial(String),
}

/// Objects that changed together.
#[derive(Debug)]
pub(crate) struct Changes {
    /// The objects.
    pub(crate) updates: Vec<Update>,
    /// When the source heard of the first of them.
    pub(crate) received: Instant,
    /// What is known with these.
    pub(crate) knowledge: Knowledge,
}
