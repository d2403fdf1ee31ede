//! `networking.k8s.io/v1 NetworkPolicy`

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Direction, LabelSelector, Namespace, ObjectName, Origin, PortNumber, Protocol};

/// A policy whose `policyTypes` have been defaulted and applied.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NetworkPolicy {
    /// Namespace and name.
    pub name: ObjectName,
    /// `spec.podSelector`: the pods of the policy's namespace that it isolates.
    pub subjects: LabelSelector,
    /// The ingress rules; `None` if `policyTypes` leaves ingress alone.
    pub ingress: Option<Vec<Rule>>,
    /// The egress rules; `None` if `policyTypes` leaves egress alone.
    pub egress: Option<Vec<Rule>>,
    /// Whether the policy itself is in audit mode; its namespace may be too
    /// ([`Cluster::is_audited`](super::Cluster::is_audited)).
    pub audited: bool,
    /// Where it was written.
    pub origin: Option<Origin>,
}

impl NetworkPolicy {
    /// The rules of one direction; `None` if the policy does not isolate it.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Whether the policy, or its namespace, is in audit mode: where all policies that isolate a pod are, what they
    /// deny passes.
    pub fn is_audited_in(&self, namespace: Option<&Namespace>) -> bool {
        self.audited || namespace.is_some_and(Namespace::is_audited)
    }

    /// What is left of the policy where its rules cannot be enforced: it isolates the same pods in the same
    /// directions, lets nothing through, and is not in audit mode.
    #[must_use]
    pub fn closed(&self) -> Self {
        let closed = |rules: &Option<Vec<Rule>>| rules.as_ref().map(|_| Vec::new());
        Self {
            name: self.name.clone(),
            subjects: self.subjects.clone(),
            ingress: closed(&self.ingress),
            egress: closed(&self.egress),
            audited: false,
            origin: self.origin.clone(),
        }
    }

    /// What a policy becomes of which nothing can be read: it isolates its whole namespace in both directions.
    pub fn unreadable(name: ObjectName) -> Self {
        Self {
            name,
            subjects: LabelSelector::everything(),
            ingress: Some(Vec::new()),
            egress: Some(Vec::new()),
            audited: false,
            origin: None,
        }
    }

    /// The policy without a word about where it and its rules were written.
    #[must_use]
    pub fn without_origins(mut self) -> Self {
        self.origin = None;
        for rule in [&mut self.ingress, &mut self.egress].into_iter().flatten().flatten() {
            rule.origin = None;
        }
        self
    }
}

/// One `ingress` or `egress` rule: one of its peers AND one of its ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// `from` or `to`. `None` is no restriction; what is unreadable in a list matches nothing, so a list
    /// may be empty and then matches nothing.
    pub peers: Option<Vec<Peer>>,
    /// `ports`. `None` is every protocol; a list never covers other protocols than those it names, and an
    /// empty one matches nothing.
    pub ports: Option<Vec<PortMatch>>,
    /// Where it was written.
    pub origin: Option<Origin>,
}

impl Rule {
    /// The rule's `ipBlock` peers.
    pub fn blocks(&self) -> impl Iterator<Item = &IpBlock> {
        self.peers.iter().flatten().filter_map(|peer| match peer {
            Peer::Block(block) => Some(block),
            Peer::Pods(_) | Peer::Nodes(_) | Peer::Domains(_) | Peer::OwnNode => None,
        })
    }
}

/// `NetworkPolicyPeer`, or what a `from` or `to` of a [`ClusterNetworkPolicy`](super::ClusterNetworkPolicy) names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Peer {
    /// `podSelector`, `namespaceSelector` or both; `namespaces` or `pods` of a ClusterNetworkPolicy.
    Pods(PodPeer),
    /// `ipBlock`, or one of `networks`.
    Block(IpBlock),
    /// `nodes` of a ClusterNetworkPolicy: the addresses of the nodes that it selects.
    Nodes(LabelSelector),
    /// `domainNames` of a ClusterNetworkPolicy, in an Accept rule only. Nothing resolves them: it matches nothing.
    Domains(Vec<String>),
    /// The node that runs the subject, by any of its addresses. No manifest can say so; [`DefaultDeny`] does.
    ///
    /// [`DefaultDeny`]: super::DefaultDeny
    OwnNode,
}

/// Pods chosen by their labels and those of their namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodPeer {
    /// Where the pods live.
    pub namespaces: NamespaceScope,
    /// `podSelector`; selects everything where the peer has none.
    pub pods: LabelSelector,
}

impl PodPeer {
    /// Whether it is every pod of the cluster, whatever the labels are.
    pub fn is_every_pod(&self) -> bool {
        let everything = LabelSelector::everything();
        self.pods == everything && self.namespaces == NamespaceScope::Matching(everything)
    }
}

/// The namespaces that a pod peer looks into.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceScope {
    /// The policy's own: the peer has no `namespaceSelector`.
    Own,
    /// Those that `namespaceSelector` selects.
    Matching(LabelSelector),
}

/// `IPBlock`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpBlock {
    /// `cidr`, without host bits.
    pub cidr: IpNet,
    /// `except`: blocks of the same family inside `cidr`, without host bits.
    pub except: Vec<IpNet>,
}

impl IpBlock {
    /// Whether every address of its family lies in the block.
    pub fn is_whole_family(&self) -> bool {
        self.cidr.prefix_len() == 0 && self.except.is_empty()
    }

    /// Whether the address lies in the block and in none of its exceptions.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address) && !self.except.iter().any(|hole| hole.contains(&address))
    }
}

/// `10.0.0.0/8 except 10.1.0.0/16`
impl fmt::Display for IpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let except: Vec<_> = self.except.iter().map(IpNet::to_string).collect();
        let word = if except.is_empty() { "" } else { " except " };
        write!(f, "{}{word}{}", self.cidr, except.join(", "))
    }
}

/// `NetworkPolicyPort`, its protocol defaulted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// No `port`: every port of the protocol.
    All(Protocol),
    /// A numeric `port`, with or without `endPort`.
    Range(Protocol, PortRange),
    /// A port's name, resolved on the destination pod.
    Named(Protocol, String),
}

/// `port` to `endPort`, both inclusive; one port where they are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: PortNumber,
    last: PortNumber,
}

impl PortRange {
    /// `None` if `last` lies below `first`.
    pub fn new(first: PortNumber, last: PortNumber) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The range of one port.
    pub fn single(port: PortNumber) -> Self {
        Self { first: port, last: port }
    }

    /// `port`
    pub fn first(self) -> PortNumber {
        self.first
    }

    /// `endPort`
    pub fn last(self) -> PortNumber {
        self.last
    }

    /// Whether `port` lies between the ends or is one of them.
    pub fn contains(self, port: PortNumber) -> bool {
        self.first <= port && port <= self.last
    }
}
