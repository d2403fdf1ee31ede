//! Policies and peers that match nothing, which is seldom meant.

use std::collections::BTreeMap;

use policy_compiler::manifest::Problem;
use policy_compiler::model::{
    Cluster, Direction, LabelSelector, NamespaceScope, NetworkPolicy, Origin, Peer, Pod, PodPeer,
};

/// A warning for each sort. None where there are no pods: then nothing can match.
pub(crate) fn warnings(cluster: &Cluster) -> Vec<Problem> {
    if cluster.pods().is_empty() {
        return Vec::new();
    }
    let mut by_namespace = BTreeMap::<&str, Vec<&Pod>>::new();
    for pod in cluster.pods().values() {
        by_namespace.entry(&pod.name.namespace).or_default().push(pod);
    }
    let pods = Pods { cluster, by_namespace };
    let (mut idle, mut host_network, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for policy in cluster.policies().values() {
        let name = &policy.name;
        let mut subjects = pods.matching(&name.namespace, &policy.subjects).peekable();
        if subjects.peek().is_none() {
            // One for all pods of a namespace is there for those to come.
            let is_meant = policy.subjects == LabelSelector::everything();
            idle.extend(
                (!is_meant).then(|| warning(policy.origin.as_ref(), format!("{name} selects no pod"))),
            );
        } else if subjects.all(|pod| pod.host_network) {
            let message = format!("{name} selects only hostNetwork pods, which no policy isolates");
            host_network.push(warning(policy.origin.as_ref(), message));
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

struct Pods<'a> {
    cluster: &'a Cluster,
    by_namespace: BTreeMap<&'a str, Vec<&'a Pod>>,
}

impl<'a> Pods<'a> {
    fn matching(&self, namespace: &str, selector: &LabelSelector) -> impl Iterator<Item = &'a Pod> {
        let pods = self.by_namespace.get(namespace).into_iter().flatten();
        pods.copied().filter(move |pod| selector.matches(&pod.labels))
    }

    /// The peers of a policy that look into namespaces with pods, and match none of them.
    fn idle_peers(&self, policy: &NetworkPolicy) -> Vec<Option<Problem>> {
        let mut idle = Vec::new();
        for direction in Direction::BOTH {
            let field = match direction {
                Direction::Egress => "to",
                Direction::Ingress => "from",
            };
            for (index, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
                for (place, peer) in rule.peers.iter().flatten().enumerate() {
                    if let Peer::Pods(peer) = peer
                        && self.is_idle(policy, peer)
                    {
                        let peer = format!("{direction}[{index}].{field}[{place}]");
                        let message = format!("{}: {peer} matches no pod", policy.name);
                        idle.push(warning(rule.origin.as_ref(), message));
                    }
                }
            }
        }
        idle
    }

    fn is_idle(&self, policy: &NetworkPolicy, peer: &PodPeer) -> bool {
        let is_in_scope = |namespace: &&&str| match &peer.namespaces {
            NamespaceScope::Own => **namespace == &*policy.name.namespace,
            NamespaceScope::Matching(selector) => {
                selector.matches_namespace(namespace, self.cluster.namespaces().get(**namespace))
            }
        };
        let mut namespaces = self.by_namespace.keys().filter(is_in_scope).peekable();
        namespaces.peek().is_some()
            && namespaces.all(|namespace| self.matching(namespace, &peer.pods).next().is_none())
    }
}
