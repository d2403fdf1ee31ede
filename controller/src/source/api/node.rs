//! Whether the node that the agent is to enforce exists.

use std::collections::HashSet;

use policy_compiler::model::ObjectName;

use crate::source::Update;

/// What is known of the own node by its name. A name that is not right selects no pods, and an agent with it would
/// program a table that isolates nobody.
#[derive(Debug)]
pub(super) struct OwnNode {
    name: String,
    /// Whether Nodes may be read and there is one. Otherwise nothing shows that the name is wrong.
    has_nodes: bool,
    exists: bool,
    /// The pods that are bound to it. They prove the name right while the Node is made anew.
    pods: HashSet<ObjectName>,
}

impl OwnNode {
    /// The one of this name, of which nothing is known.
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), has_nodes: true, exists: false, pods: HashSet::new() }
    }

    /// Whether Nodes may be read and the cluster has any.
    pub(super) fn among_nodes(&mut self, has_nodes: bool) {
        self.has_nodes = has_nodes;
    }

    /// Takes changes in.
    pub(super) fn note(&mut self, updates: &[Update]) {
        for update in updates {
            match update {
                Update::Node(name, node) if **name == *self.name => self.exists = node.is_some(),
                Update::Pod(name, pod) => {
                    if pod.as_ref().is_some_and(|pod| pod.node.as_deref() == Some(&self.name)) {
                        self.pods.insert(name.clone());
                    } else {
                        self.pods.remove(name);
                    }
                }
                Update::Node(..) | Update::Namespace(..) | Update::Policy(..) | Update::ClusterPolicy(..) => {
                }
            }
        }
    }

    /// Whether pods of a namespace are bound to it.
    pub(super) fn has_pods_in(&self, namespace: &str) -> bool {
        self.pods.iter().any(|pod| *pod.namespace == *namespace)
    }

    /// Why the name seems to be wrong, if it does. To be asked when Nodes and pods are listed.
    pub(super) fn why_unknown(&self) -> Option<String> {
        (self.has_nodes && !self.exists && self.pods.is_empty()).then(|| {
            format!(
                "no Node is named {name} and no pod is bound to it: --node-name (NODE_NAME) has to be the name that \
                 pods have in spec.nodeName",
                name = self.name
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use policy_compiler::model::{Labels, Node, Pod};

    use super::*;

    #[test]
    fn a_name_is_right_if_a_node_or_a_bound_pod_has_it() {
        let pod = |node: Option<&str>| {
            let name = ObjectName::new("shop", "web");
            let pod = node.map(|node| Pod { node: Some(node.into()), ..Pod::new(name.clone()) });
            Update::Pod(name, pod)
        };
        let node = |name: &str, exists: bool| {
            let object = Node {
                name: name.into(),
                labels: Labels::new(),
                pod_ranges: Vec::new(),
                addresses: Vec::new(),
            };
            Update::Node(name.into(), exists.then_some(object))
        };
        let mut own = OwnNode::new("n1");
        for (update, is_known) in [
            (pod(Some("n2")), false),
            (node("n2", true), false),
            (pod(Some("n1")), true),
            (node("n1", true), true),
            (pod(None), true),
            (node("n1", false), false),
            (pod(Some("n1")), true),
            (pod(Some("n2")), false),
        ] {
            let shown = format!("{update:?}");
            own.note(&[update]);
            assert_eq!(own.why_unknown().is_none(), is_known, "after {shown}");
        }
        own.among_nodes(false);
        assert_eq!(own.why_unknown(), None);
    }
}
