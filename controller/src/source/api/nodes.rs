//! Which Nodes are followed. Every agent follows its own; all of them only where a policy names nodes: their objects are
//! many in a large cluster, and change often.

use std::cell::RefCell;

use kube::runtime::watcher;
use policy_compiler::model::{ClusterNetworkPolicy, Direction, Peer};

use super::objects::{Node, plural};
use super::{Ended, Follower};
use crate::source::{Changes, Update};

impl<F: Fn(Changes) -> bool> Follower<'_, F> {
    /// Follows the node of this name, and the others while a policy names nodes.
    pub(super) async fn follow_nodes(&self, all: &watcher::Config, own: &str) -> Ended {
        let known = RefCell::default();
        let own = all.clone().fields(&format!("metadata.name={own}"));
        let mut naming = self.naming_nodes.subscribe();
        loop {
            let all_are_named = !naming.borrow_and_update().is_empty();
            let which = if all_are_named { all } else { &own };
            tokio::select! {
                // A list of the own node must not pass for one of all.
                biased;
                // The sender lives as long as `self`.
                _ = naming.wait_for(|policies| policies.is_empty() == all_are_named) => {}
                ended = self.follow::<Node>(which, &(), &known) => return ended,
            }
        }
    }

    /// Notes which policies name nodes.
    pub(super) fn note_named_nodes(&self, updates: &[Update]) {
        for update in updates {
            let Update::ClusterPolicy(name, policy) = update else { continue };
            let names_nodes = policy.as_ref().is_some_and(names_nodes);
            let first = self.naming_nodes.borrow().is_empty();
            self.naming_nodes.send_if_modified(|policies| {
                if names_nodes { policies.insert(name.clone()) } else { policies.remove(name) }
            });
            if names_nodes && first {
                let nodes = plural::<Node>();
                let reason = format!("{nodes} are not all listed yet");
                self.missing.borrow_mut().insert(nodes, reason);
            }
        }
    }
}

fn names_nodes(policy: &ClusterNetworkPolicy) -> bool {
    let rules = Direction::BOTH.into_iter().flat_map(|direction| policy.rules(direction));
    let peers = rules.filter_map(|rule| rule.rule.peers.as_ref()).flatten();
    peers.into_iter().any(|peer| matches!(peer, Peer::Nodes(_)))
}
