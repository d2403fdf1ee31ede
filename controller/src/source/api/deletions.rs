//! The policies that are gone from the API server and hold until it is known whether their namespaces go too.
//!
//! Policies of a namespace that is being deleted hold until its last pod is gone. The watches of both kinds are
//! independent of one another, so a policy's end may be heard of before its namespace's is. So the namespace is asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use policy_compiler::model::ObjectName;
use tokio::sync::Notify;

use super::node::OwnNode;
use crate::source::Update;

/// Deleted policies that are not handed on yet.
#[derive(Default)]
pub(super) struct Deletions {
    /// When the deletion was heard of.
    waiting: RefCell<BTreeMap<ObjectName, Instant>>,
    come: Notify,
}

/// Deleted policies of one namespace.
pub(super) struct Held {
    pub(super) namespace: Arc<str>,
    policies: BTreeMap<ObjectName, Instant>,
}

impl Deletions {
    /// Keeps back those updates that delete policies which may isolate pods of the node.
    pub(super) fn hold(&self, updates: &mut Vec<Update>, received: Instant, node: &OwnNode) {
        let mut waiting = self.waiting.borrow_mut();
        updates.retain(|update| match update {
            Update::Policy(name, None) if node.has_pods_in(&name.namespace) => {
                waiting.entry(name.clone()).or_insert(received);
                self.come.notify_one();
                false
            }
            Update::Policy(name, _) => {
                waiting.remove(name);
                true
            }
            Update::Namespace(..) | Update::Node(..) | Update::Pod(..) | Update::ClusterPolicy(..) => true,
        });
    }

    /// Those of one namespace that wait now, as soon as there are any.
    pub(super) async fn next(&self) -> Held {
        loop {
            if let Some(namespace) = self.waiting.borrow().keys().next().map(|name| name.namespace.clone()) {
                let waiting = self.waiting.borrow();
                let policies = waiting.iter().filter(|(name, _)| name.namespace == namespace);
                return Held {
                    policies: policies.map(|(name, received)| (name.clone(), *received)).collect(),
                    namespace,
                };
            }
            self.come.notified().await;
        }
    }

    /// Lets go of what was held, unless the policy has come back since. Returns what to hand on, and when the first of
    /// it was heard of.
    pub(super) fn release(&self, held: Held) -> (Vec<Update>, Option<Instant>) {
        let mut waiting = self.waiting.borrow_mut();
        let is_still_held = |name: &ObjectName, since: Instant| waiting.get(name) == Some(&since);
        let policies: Vec<_> =
            held.policies.into_iter().filter(|(name, since)| is_still_held(name, *since)).collect();
        for (name, _) in &policies {
            waiting.remove(name);
        }
        let received = policies.iter().map(|(_, received)| *received).min();
        (policies.into_iter().map(|(name, _)| Update::Policy(name, None)).collect(), received)
    }
}
