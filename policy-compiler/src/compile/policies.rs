//! The policies that the compiler knows, of either kind, and which of them are closed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{ClusterNetworkPolicy, Direction, NetworkPolicy, PolicyName};

/// A policy of either kind.
#[derive(Debug, Clone)]
pub(super) enum Policy {
    Namespaced(Arc<NetworkPolicy>),
    Cluster(Arc<ClusterNetworkPolicy>),
}

impl Policy {
    pub(super) fn name(&self) -> PolicyName {
        match self {
            Self::Namespaced(policy) => policy.name.clone().into(),
            Self::Cluster(policy) => PolicyName::Cluster(policy.name.clone()),
        }
    }

    /// How many rules it has in a direction.
    pub(super) fn count_rules(&self, direction: Direction) -> usize {
        match self {
            Self::Namespaced(policy) => policy.rules(direction).map_or(0, <[_]>::len),
            Self::Cluster(policy) => policy.rules(direction).len(),
        }
    }

    /// Whether both are the same reading of one policy.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Namespaced(one), Self::Namespaced(other)) => Arc::ptr_eq(one, other),
            (Self::Cluster(one), Self::Cluster(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// The policies of one kind, by name.
pub(super) struct Policies<N, P> {
    /// What is enforced of each.
    enforced: BTreeMap<N, Arc<P>>,
    /// Those that are closed, as they were put.
    closed: BTreeMap<N, Arc<P>>,
}

/// What was enforced of a policy before.
pub(super) struct Replaced<P>(pub(super) Option<Arc<P>>);

/// What can be closed where the kernel refuses it.
pub(super) trait Close: PartialEq {
    /// What is left of it then.
    fn closed(&self) -> Self;
}

impl Close for NetworkPolicy {
    fn closed(&self) -> Self {
        self.closed()
    }
}

impl Close for ClusterNetworkPolicy {
    fn closed(&self) -> Self {
        self.closed()
    }
}

impl<N: Ord + Clone, P: Close> Policies<N, P> {
    pub(super) fn new() -> Self {
        Self { enforced: BTreeMap::new(), closed: BTreeMap::new() }
    }

    /// What is enforced of each policy.
    pub(super) fn enforced(&self) -> &BTreeMap<N, Arc<P>> {
        &self.enforced
    }

    /// The policies that are closed.
    pub(super) fn closed(&self) -> impl Iterator<Item = &N> {
        self.closed.keys()
    }

    /// The policies that closing would narrow.
    pub(super) fn closable(&self) -> impl Iterator<Item = &N> {
        self.enforced.iter().filter(|(_, policy)| policy.closed() != ***policy).map(|(name, _)| name)
    }

    /// Puts a policy, or takes it out, and returns what was enforced of it before if that is something else.
    pub(super) fn put(&mut self, name: &N, policy: Option<P>) -> Option<Replaced<P>> {
        if policy.is_some() && self.closed.get(name).map(AsRef::as_ref) == policy.as_ref() {
            return None;
        }
        // What says something else now deserves to be tried.
        self.closed.remove(name);
        if self.enforced.get(name).map(AsRef::as_ref) == policy.as_ref() {
            return None;
        }
        Some(Replaced(match policy {
            Some(policy) => self.enforced.insert(name.clone(), Arc::new(policy)),
            None => self.enforced.remove(name),
        }))
    }

    /// Closes a policy until it is opened or says something else; false if there is none, or it is closed.
    pub(super) fn close(&mut self, name: &N) -> bool {
        if self.closed.contains_key(name) {
            return false;
        }
        let Some(policy) = self.enforced.get_mut(name) else { return false };
        let closed = Arc::new(policy.closed());
        self.closed.insert(name.clone(), std::mem::replace(policy, closed));
        true
    }

    /// Opens a policy; false if it is not closed.
    pub(super) fn open(&mut self, name: &N) -> bool {
        let Some(policy) = self.closed.remove(name) else { return false };
        self.enforced.insert(name.clone(), policy);
        true
    }
}
