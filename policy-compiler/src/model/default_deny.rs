//! Namespaces under default deny as a whole, as if a policy stood in each.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{
    Cluster, LabelSelector, NAMESPACE_NAME_LABEL, Namespace, NamespaceScope, NetworkPolicy, ObjectName,
    Operator, Peer, PodPeer, PodsToNode, PortMatch, PortNumber, PortRange, Protocol, Requirement, Rule,
};

/// The port of DNS servers.
const DNS: PortNumber = match PortNumber::new(53) {
    Some(port) => port,
    None => PortNumber::MIN,
};

/// `--default-deny`: every pod of the chosen namespaces is isolated in both directions.
///
/// Namespaces whose names begin with `kube-`, which Kubernetes keeps for its own, are left out unless the
/// selector asks for their names: `kubernetes.io/metadata.name in (kube-system)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultDeny {
    /// Chooses the namespaces by their labels.
    pub namespaces: LabelSelector,
    /// Whether their pods reach the cluster's DNS: UDP and TCP port 53 of the pods labelled
    /// `k8s-app: kube-dns` in `kube-system`.
    pub allow_dns: bool,
    /// Where policies judge what pods send to their node, `allow_dns` is about these ports of the node too: a cache
    /// may listen there, on an address of its own or on that of the cluster's DNS.
    pub pods_to_node: PodsToNode,
}

impl DefaultDeny {
    /// The name of a namespace's policy. No object can have it: names begin with a letter or digit.
    pub fn policy_name(namespace: &Arc<str>) -> ObjectName {
        ObjectName::new(namespace.clone(), "--default-deny")
    }

    /// The policy of a namespace; `None` if it is not chosen.
    pub fn policy(&self, namespace: &Namespace) -> Option<NetworkPolicy> {
        self.policy_if(namespace.name(), |requirement| requirement.matches(namespace.labels()))
    }

    /// The policy of a namespace of which only the name is known. What its labels may be counts as a match.
    pub fn policy_of_unknown(&self, name: &Arc<str>) -> Option<NetworkPolicy> {
        self.policy_if(name, |requirement| requirement.matches_name(name) != Some(false))
    }

    /// Puts the policies into a cluster's namespaces, those that only pods are known of included. Whether there is one.
    pub fn apply(&self, cluster: &mut Cluster) -> bool {
        let known = cluster.namespaces();
        let of_pods: BTreeSet<_> = cluster.pods().keys().map(|name| &name.namespace).collect();
        let unknown = of_pods.into_iter().filter(|name| !known.contains_key(*name));
        let policies: Vec<_> = known
            .values()
            .filter_map(|namespace| self.policy(namespace))
            .chain(unknown.filter_map(|name| self.policy_of_unknown(name)))
            .collect();
        let is_chosen = !policies.is_empty();
        for policy in policies {
            cluster.insert_policy(policy);
        }
        is_chosen
    }

    fn policy_if(&self, name: &Arc<str>, holds: impl Fn(&Requirement) -> bool) -> Option<NetworkPolicy> {
        let chosen = self.namespaces.requirements.iter().all(holds);
        let for_pods = !name.starts_with("kube-") || self.asks_for(name);
        (chosen && for_pods).then(|| NetworkPolicy {
            name: Self::policy_name(name),
            subjects: LabelSelector::everything(),
            ingress: Some(Vec::new()),
            egress: Some(self.allow_dns.then(|| self.to_dns()).into_iter().collect()),
            audited: false,
            origin: None,
        })
    }

    /// Whether the selector asks for a namespace by its name.
    fn asks_for(&self, name: &str) -> bool {
        self.namespaces.requirements.iter().any(|requirement| {
            requirement.key == NAMESPACE_NAME_LABEL
                && matches!(&requirement.operator, Operator::In(names) if names.contains(name))
        })
    }

    /// The DNS add-on, by what it is known by in every common distribution, and a cache on the node.
    fn to_dns(&self) -> Rule {
        let namespaces =
            NamespaceScope::Matching(LabelSelector::equal([(NAMESPACE_NAME_LABEL, "kube-system")]));
        let pods = LabelSelector::equal([("k8s-app", "kube-dns")]);
        let mut peers = vec![Peer::Pods(PodPeer { namespaces, pods })];
        if self.pods_to_node == PodsToNode::Policy {
            peers.push(Peer::OwnNode);
        }
        let port = PortRange::single(DNS);
        let ports = [Protocol::Udp, Protocol::Tcp].map(|protocol| PortMatch::Range(protocol, port));
        Rule { peers: Some(peers), ports: Some(ports.into()), origin: None }
    }
}
