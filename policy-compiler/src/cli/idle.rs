//! Policies and peers that match nothing, which is seldom meant.

use std::collections::BTreeMap;
use std::fmt;

use policy_compiler::manifest::Problem;
use policy_compiler::model::{
    Cluster, ClusterNetworkPolicy, Direction, LabelSelector, NamespaceScope, NetworkPolicy, ObjectName,
    Origin, Peer, Pod, PodPeer, Rule,
};

/// A warning for each sort. None where there are no pods: then nothing can match.
pub(crate) fn warnings(cluster: &Cluster) -> Vec<Problem> {
    if cluster.pods().is_empty() {
        return Vec::new();
    }
    let pods = Pods::new(cluster);
    let (mut idle, mut host_network, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    let policies = cluster.policies().values().map(AnyPolicy::Namespaced);
    for policy in policies.chain(cluster.cluster_policies().values().map(AnyPolicy::Cluster)) {
        let mut subjects = pods.subjects(policy).peekable();
        if subjects.peek().is_none() {
            if !policy.is_for_those_to_come() {
                idle.push(warning(policy.origin(), format!("{policy} selects no pod")));
            }
        } else if subjects.all(|pod| pod.host_network) {
            let message = format!("{policy} selects only hostNetwork pods, which no policy judges");
            host_network.push(warning(policy.origin(), message));
        } else {
            peers.extend(pods.idle_peers(policy));
        }
    }
    [idle, host_network, peers]
        .into_iter()
        .filter_map(|sort| Problem::first_of(sort.into_iter().flatten()))
        .collect()
}

fn warning(origin: Option<&Origin>, message: String) -> Option<Problem> {
    Some(Problem { origin: origin?.clone(), field: String::new(), message })
}

/// A policy of a namespace or of the whole cluster.
#[derive(Clone, Copy)]
enum AnyPolicy<'a> {
    Namespaced(&'a NetworkPolicy),
    Cluster(&'a ClusterNetworkPolicy),
}

impl<'a> AnyPolicy<'a> {
    fn origin(self) -> Option<&'a Origin> {
        match self {
            Self::Namespaced(policy) => policy.origin.as_ref(),
            Self::Cluster(policy) => policy.origin.as_ref(),
        }
    }

    /// Whether it selects every pod of its namespace or of the cluster.
    fn is_for_those_to_come(self) -> bool {
        match self {
            Self::Namespaced(policy) => policy.subjects == LabelSelector::everything(),
            Self::Cluster(policy) => policy.subject.is_every_pod(),
        }
    }

    fn rules(self, direction: Direction) -> Vec<&'a Rule> {
        match self {
            Self::Namespaced(policy) => policy.rules(direction).unwrap_or_default().iter().collect(),
            Self::Cluster(policy) => policy.rules(direction).iter().map(|rule| &rule.rule).collect(),
        }
    }

    /// The namespace that it is in.
    fn namespace(self) -> Option<&'a str> {
        match self {
            Self::Namespaced(NetworkPolicy { name: ObjectName { namespace, .. }, .. }) => Some(namespace),
            Self::Cluster(_) => None,
        }
    }
}

impl fmt::Display for AnyPolicy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespaced(policy) => policy.name.fmt(f),
            Self::Cluster(policy) => write!(f, "ClusterNetworkPolicy {}", policy.name),
        }
    }
}

/// The pods by their namespace.
pub(super) struct Pods<'a> {
    cluster: &'a Cluster,
    by_namespace: BTreeMap<&'a str, Vec<&'a Pod>>,
}

impl<'a> Pods<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let mut by_namespace = BTreeMap::<&str, Vec<&Pod>>::new();
        for pod in cluster.pods().values() {
            by_namespace.entry(&pod.name.namespace).or_default().push(pod);
        }
        Self { cluster, by_namespace }
    }

    fn subjects(&self, policy: AnyPolicy<'a>) -> Box<dyn Iterator<Item = &'a Pod> + '_> {
        match policy {
            AnyPolicy::Namespaced(policy) => {
                Box::new(self.matching(&policy.name.namespace, &policy.subjects))
            }
            AnyPolicy::Cluster(policy) => Box::new(self.selected(&policy.subject)),
        }
    }

    /// The pods that the subject of a ClusterNetworkPolicy selects.
    pub(super) fn selected(&self, subject: &'a PodPeer) -> impl Iterator<Item = &'a Pod> {
        let namespaces = self.by_namespace.keys().filter(|name| self.is_in_scope(subject, None, name));
        namespaces.flat_map(|namespace| self.matching(namespace, &subject.pods))
    }

    fn matching(&self, namespace: &str, selector: &'a LabelSelector) -> impl Iterator<Item = &'a Pod> {
        let pods = self.by_namespace.get(namespace).into_iter().flatten();
        pods.copied().filter(move |pod| selector.matches(&pod.labels))
    }

    /// Whether a peer looks into a namespace; `own` is that of its policy.
    fn is_in_scope(&self, peer: &PodPeer, own: Option<&str>, namespace: &str) -> bool {
        match &peer.namespaces {
            NamespaceScope::Own => Some(namespace) == own,
            NamespaceScope::Matching(selector) => {
                selector.matches_namespace(namespace, self.cluster.namespaces().get(namespace))
            }
        }
    }

    /// The peers of a policy that look into namespaces with pods and match none of them, and those that match no node.
    fn idle_peers(&self, policy: AnyPolicy<'a>) -> Vec<Option<Problem>> {
        let mut idle = Vec::new();
        for direction in Direction::BOTH {
            let field = match direction {
                Direction::Egress => "to",
                Direction::Ingress => "from",
            };
            for (index, rule) in policy.rules(direction).into_iter().enumerate() {
                for (place, peer) in rule.peers.iter().flatten().enumerate() {
                    let what = match peer {
                        Peer::Pods(peer) if self.is_idle(policy, peer) => "pod",
                        Peer::Nodes(selector) if self.is_no_node(selector) => "node",
                        _ => continue,
                    };
                    let peer = format!("{direction}[{index}].{field}[{place}]");
                    let message = format!("{policy}: {peer} matches no {what}");
                    idle.push(warning(rule.origin.as_ref(), message));
                }
            }
        }
        idle
    }

    fn is_idle(&self, policy: AnyPolicy<'a>, peer: &'a PodPeer) -> bool {
        let in_scope = |namespace: &&&str| self.is_in_scope(peer, policy.namespace(), namespace);
        let mut namespaces = self.by_namespace.keys().filter(in_scope).peekable();
        namespaces.peek().is_some()
            && namespaces.all(|namespace| self.matching(namespace, &peer.pods).next().is_none())
    }

    /// Whether there are nodes, and none that a selector matches.
    fn is_no_node(&self, selector: &LabelSelector) -> bool {
        let mut nodes = self.cluster.nodes().values().peekable();
        nodes.peek().is_some() && nodes.all(|node| !selector.matches(&node.labels))
    }
}
