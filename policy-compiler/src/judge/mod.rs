//! Whether a connection is allowed, and which policies and rules decide.
//!
//! Written from the specification alone, apart from what compiles rulesets, so that the two can be held
//! against each other. A [`Judge`] resolves every selector once; after that a question costs a few look-ups.
//!
//! ```
//! use std::collections::BTreeSet;
//! use policy_compiler::judge::{Connection, Endpoint, Judge, Traffic};
//! use policy_compiler::model::{
//!     Cluster, ContainerPort, LabelSelector, Labels, NamespaceScope, NetworkPolicy, ObjectName, Operator, Peer,
//!     Pod, PodPeer, PortMatch, PortNumber, PortRange, Protocol, Requirement, Rule,
//! };
//!
//! let port = PortNumber::new(8080).unwrap();
//! let pod = |name: &str| Pod {
//!     labels: Labels::from([("app".to_owned(), name.to_owned())]),
//!     ports: vec![ContainerPort { name: Some("http".to_owned()), protocol: Protocol::Tcp, number: port }],
//!     ..Pod::new(ObjectName::new("shop", name))
//! };
//! let app = |name: &str| LabelSelector {
//!     requirements: vec![Requirement {
//!         key: "app".to_owned(),
//!         operator: Operator::In(BTreeSet::from([name.to_owned()])),
//!     }],
//! };
//! let mut cluster = Cluster::new();
//! ["web", "db", "batch"].map(|name| cluster.insert_pod(pod(name)));
//! cluster.insert_policy(NetworkPolicy {
//!     name: ObjectName::new("shop", "db"),
//!     subjects: app("db"),
//!     ingress: Some(vec![Rule {
//!         peers: Some(vec![Peer::Pods(PodPeer { namespaces: NamespaceScope::Own, pods: app("web") })]),
//!         ports: Some(vec![PortMatch::Range(Protocol::Tcp, PortRange::single(port))]),
//!         origin: None,
//!     }]),
//!     egress: None,
//!     audited: false,
//!     origin: None,
//! });
//!
//! let judge = Judge::new(&cluster);
//! let allowed = |from, to| {
//!     let end = |name| judge.party(Endpoint::Pod(&cluster.pods()[&ObjectName::new("shop", name)]));
//!     let (from, to) = (end(from), end(to));
//!     from.families_with(&to).iter().all(|&family| {
//!         judge.verdict(&Connection { from, to, family, traffic: Traffic::Port(Protocol::Tcp, port) }).allowed()
//!     })
//! };
//! assert!(allowed("web", "db"));
//! assert!(!allowed("batch", "db"));
//! assert!(allowed("db", "batch"));
//! ```

mod addresses;
mod allowed;
mod isolation;
mod kinds;
mod miss;
mod party;
mod pod_set;
mod traffic;
mod verdict;

pub use addresses::AddressRange;
pub use miss::{LabelMiss, PeerMiss, RuleMiss, Unlabelled};
pub use party::{Endpoint, Party};
pub use traffic::TrafficRange;
pub use verdict::{Exemption, PolicyRule, Ruling, Verdict};

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{
    Cluster, Direction, Family, IpBlock, ObjectName, Pod, PodsToNode, PortMatch, PortNumber, Protocol, Rule,
};
use isolation::{Isolation, Isolations, ResolvedRule, isolations, members};
use pod_set::Member;

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// A protocol that policies can name, to this port of the destination.
    Port(Protocol, PortNumber),
    /// ICMP or any other protocol that no policy can name: only rules without `ports` cover it.
    Other,
}

/// A connection as the judge sees it: after destination NAT and before source NAT.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// Who opens it.
    pub from: Party<'a>,
    /// Who is connected to.
    pub to: Party<'a>,
    /// The family of its packets, one of [`Party::families_with`]. No block matches without one.
    pub family: Option<Family>,
    /// What it carries.
    pub traffic: Traffic,
}

impl<'a> Connection<'a> {
    /// The ends as one direction sees them: whose policies judge, and whom their peers must cover.
    pub fn subject_and_peer(&self, direction: Direction) -> (&Party<'a>, &Party<'a>) {
        match direction {
            Direction::Egress => (&self.from, &self.to),
            Direction::Ingress => (&self.to, &self.from),
        }
    }
}

/// A cluster's policies with every selector resolved.
#[derive(Debug)]
pub struct Judge<'a> {
    cluster: &'a Cluster,
    members: HashMap<&'a ObjectName, Member>,
    egress: Isolations<'a>,
    ingress: Isolations<'a>,
    /// Whose an address is: the pods that live and show it, or else those that have finished.
    claimants: HashMap<IpAddr, Vec<&'a Pod>>,
    /// The addresses of each node: the Node object's, and those of its `hostNetwork` pods.
    node_addresses: HashSet<(&'a str, IpAddr)>,
    pods_to_node: PodsToNode,
}

impl<'a> Judge<'a> {
    /// Resolves every selector. Takes about a label match for each policy's every peer and every pod.
    pub fn new(cluster: &'a Cluster) -> Self {
        let of_nodes = cluster
            .nodes()
            .values()
            .flat_map(|node| node.addresses.iter().map(|address| (&*node.name, *address)));
        let of_host_network_pods = cluster
            .pods()
            .values()
            .filter(|pod| pod.host_network && !pod.finished)
            .filter_map(|pod| Some((pod.node.as_deref()?, &pod.addresses)))
            .flat_map(|(node, addresses)| addresses.iter().map(move |address| (node, *address)));
        Self {
            cluster,
            members: members(cluster).map(|(member, pod)| (&pod.name, member)).collect(),
            egress: isolations(cluster, Direction::Egress),
            ingress: isolations(cluster, Direction::Ingress),
            claimants: claimants(cluster),
            node_addresses: of_nodes.chain(of_host_network_pods).collect(),
            pods_to_node: PodsToNode::default(),
        }
    }

    /// The same with what pods may send to their own node. Which addresses a node has besides those of its object and
    /// its `hostNetwork` pods, the judge does not know: they are outside the cluster.
    #[must_use]
    pub fn with_pods_to_node(self, pods_to_node: PodsToNode) -> Self {
        Self { pods_to_node, ..self }
    }

    /// A judge of another cluster that asks the same of it.
    pub fn of_cluster<'b>(&self, cluster: &'b Cluster) -> Judge<'b> {
        Judge::new(cluster).with_pods_to_node(self.pods_to_node)
    }

    /// The objects that it judges by.
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// Looks up the ends of another judge's connection.
    pub fn translate(&self, connection: &Connection<'_>) -> Connection<'a> {
        let translated = |end: &Party<'_>| match (end.address, end.pod) {
            (Some(address), _) => self.party(Endpoint::Address(address)),
            (None, Some(pod)) => self.party(Endpoint::Pod(pod)),
            (None, None) => self.party_of(None, None),
        };
        let Connection { family, traffic, .. } = *connection;
        Connection { from: translated(&connection.from), to: translated(&connection.to), family, traffic }
    }

    /// Looks up one end of a connection. A pod that is not of this cluster is nobody: no policy judges it and no peer
    /// covers it. Nor does a peer cover a pod that has finished, and no policy judges it once others have its addresses.
    /// A pod that is named is itself alone, whoever else shows its addresses.
    pub fn party(&self, endpoint: Endpoint<'_>) -> Party<'a> {
        match endpoint {
            Endpoint::Pod(pod) => {
                let is_left = |pod: &&Pod| !pod.finished || pod.addresses.iter().any(|ip| self.has(pod, *ip));
                self.party_of(self.cluster.pods().get(&pod.name).filter(is_left), None)
            }
            Endpoint::Address(address) => {
                let claimants = self.claimants.get(&address).map_or(&[][..], Vec::as_slice);
                let likeliest =
                    claimants.iter().copied().max_by(|one, other| one.claim().cmp(&other.claim()));
                let party = self.party_of(likeliest, Some(address));
                Party { shared: claimants.len() > 1, ..party }
            }
        }
    }

    fn party_of(&self, pod: Option<&'a Pod>, address: Option<IpAddr>) -> Party<'a> {
        let member = pod.and_then(|pod| self.members.get(&pod.name).copied());
        Party { pod, member, address, shared: false }
    }

    /// Whether a pod is one of those that have an address.
    fn has(&self, pod: &Pod, address: IpAddr) -> bool {
        self.claimants.get(&address).is_some_and(|pods| pods.iter().any(|other| other.name == pod.name))
    }

    /// The ends that an end may be in truth: of an address that several pods show, each of those.
    fn each(&self, party: &Party<'a>) -> Vec<Party<'a>> {
        match party.address.filter(|_| party.shared).and_then(|address| self.claimants.get(&address)) {
            Some(pods) => pods.iter().map(|pod| self.party_of(Some(pod), party.address)).collect(),
            None => vec![*party],
        }
    }

    /// The connection that decides about one direction of another, whose ends may be addresses that several pods show:
    /// it must pass whoever of them has the address. One that is denied, if there is one; its ends are single pods.
    pub fn deciding(&self, direction: Direction, connection: &Connection<'a>) -> Connection<'a> {
        if !connection.from.shared && !connection.to.shared {
            return *connection;
        }
        let (sources, destinations) = (self.each(&connection.from), self.each(&connection.to));
        let pairs = sources.iter().flat_map(|from| destinations.iter().map(move |to| (*from, *to)));
        let connections = pairs.map(|(from, to)| Connection { from, to, ..*connection });
        let rank = |connection: &Connection<'a>| {
            let is_exempt = self.exemption(direction, connection).is_some();
            let is_allowed = self.allowing(direction, connection).next().is_some();
            (is_exempt || is_allowed || self.is_audited(direction, connection), is_exempt, is_allowed)
        };
        connections.min_by_key(rank).unwrap_or(*connection)
    }

    /// Whether a connection is allowed, and why.
    pub fn verdict(&self, connection: &Connection<'a>) -> Verdict<'a> {
        Verdict {
            egress: self.ruling(Direction::Egress, connection),
            ingress: self.ruling(Direction::Ingress, connection),
        }
    }

    /// Whether one direction of a connection is allowed: [`Self::verdict`] without the reasons.
    pub fn allows(&self, direction: Direction, connection: &Connection<'a>) -> bool {
        let connection = &self.deciding(direction, connection);
        self.exemption(direction, connection).is_some()
            || self.allowing(direction, connection).next().is_some()
            || self.is_audited(direction, connection)
    }

    /// What keeps `rule`, of a policy that isolates in the [deciding](Self::deciding) connection, from covering it;
    /// `None` if it does cover it.
    pub fn miss(
        &self,
        direction: Direction,
        rule: PolicyRule<'a>,
        connection: &Connection<'a>,
    ) -> Option<RuleMiss<'a>> {
        miss::of(self, direction, rule, &self.deciding(direction, connection))
    }

    /// Whether one direction of a connection is allowed, and why.
    pub fn ruling(&self, direction: Direction, connection: &Connection<'a>) -> Ruling<'a> {
        let connection = &self.deciding(direction, connection);
        let (subject, _) = connection.subject_and_peer(direction);
        match self.exemption(direction, connection) {
            Some(exemption) => Ruling::Exempt(exemption),
            None => Ruling::Isolated {
                by: self.isolating(direction, subject).iter().map(|isolation| isolation.policy).collect(),
                allowed_by: self.allowing(direction, connection).collect(),
                audited: self.is_audited(direction, connection),
            },
        }
    }

    fn exemption(&self, direction: Direction, connection: &Connection<'a>) -> Option<Exemption> {
        let (subject, peer) = connection.subject_and_peer(direction);
        if subject.member.is_none() {
            Some(Exemption::NotSubject)
        } else if subject.member == peer.member && subject.pod.is_some_and(|pod| pod.workload.is_none())
            || subject.address.is_some() && subject.address == peer.address
        {
            Some(Exemption::Itself)
        } else if !self.is_isolated(direction, subject) {
            Some(Exemption::NotIsolated)
        } else {
            let exempt = direction == Direction::Ingress || self.pods_to_node == PodsToNode::Allow;
            (exempt && self.is_own_node(subject, peer)).then_some(Exemption::OwnNode)
        }
    }

    /// Whether a policy isolates an end in one direction.
    pub fn is_isolated(&self, direction: Direction, end: &Party<'a>) -> bool {
        !self.isolating(direction, end).is_empty()
    }

    /// Whether `peer` is the node that runs `subject`: a `hostNetwork` pod there, or an address of the node.
    fn is_own_node(&self, subject: &Party<'_>, peer: &Party<'_>) -> bool {
        let Some(node) = subject.pod.and_then(|pod| pod.node.as_deref()) else { return false };
        peer.member.is_none()
            && (peer.pod.is_some_and(|peer| peer.node.as_deref() == Some(node))
                || peer.addresses().iter().any(|address| self.node_addresses.contains(&(node, *address))))
    }

    fn isolating(&self, direction: Direction, subject: &Party<'a>) -> &[Arc<Isolation<'a>>] {
        let isolations = match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        };
        subject.member.and_then(|member| isolations.get(member)).map_or(&[], Vec::as_slice)
    }

    /// Whether all policies that isolate the subject are in audit mode.
    fn is_audited(&self, direction: Direction, connection: &Connection<'a>) -> bool {
        let (subject, _) = connection.subject_and_peer(direction);
        self.isolating(direction, subject).iter().all(|isolation| isolation.audited)
    }

    fn allowing(
        &self,
        direction: Direction,
        connection: &Connection<'a>,
    ) -> impl Iterator<Item = PolicyRule<'a>> {
        let (subject, peer) = connection.subject_and_peer(direction);
        self.isolating(direction, subject).iter().flat_map(move |isolation| {
            isolation
                .rules
                .iter()
                .enumerate()
                .filter(move |(_, rule)| {
                    (covers_peer(rule, peer, connection.family)
                        || rule.own_node && self.is_own_node(subject, peer))
                        && covers_port(rule.rule, connection)
                })
                .map(|(index, resolved)| PolicyRule { policy: isolation.policy, index, rule: resolved.rule })
        })
    }
}

/// The pods that have each address, by name: those that live and show it, or else those that have finished. None has
/// the address of a node.
fn claimants(cluster: &Cluster) -> HashMap<IpAddr, Vec<&Pod>> {
    let of_nodes: HashSet<_> = cluster.nodes().values().flat_map(|node| &node.addresses).collect();
    let mut claimants = HashMap::<IpAddr, Vec<&Pod>>::new();
    for (_, pod) in members(cluster) {
        for address in pod.addresses.iter().filter(|address| !of_nodes.contains(address)) {
            claimants.entry(*address).or_default().push(pod);
        }
    }
    for pods in claimants.values_mut() {
        if pods.iter().any(|pod| !pod.finished) {
            pods.retain(|pod| !pod.finished);
        }
    }
    claimants
}

fn covers_peer(rule: &ResolvedRule<'_>, peer: &Party<'_>, family: Option<Family>) -> bool {
    rule.rule.peers.is_none()
        || peer.member.is_some_and(|member| rule.pods.contains(member))
        || rule.blocks.iter().any(|block| is_inside(peer, block, family))
}

/// Whether a block has an end of a connection in a family. A pod that has no address yet is in those that have them all.
fn is_inside(end: &Party<'_>, block: &IpBlock, family: Option<Family>) -> bool {
    if end.lacks_address() {
        return block.is_whole_family()
            && family.is_none_or(|family| family == Family::of(block.cidr.addr()));
    }
    family.is_some_and(|family| end.addresses_of(family).any(|address| block.contains(address)))
}

/// Whether the rule's ports cover the traffic. A port's name is resolved on the destination.
fn covers_port(rule: &Rule, connection: &Connection<'_>) -> bool {
    let Some(ports) = &rule.ports else { return true };
    let Traffic::Port(protocol, number) = connection.traffic else { return false };
    ports.iter().any(|port| match port {
        PortMatch::All(of) => *of == protocol,
        PortMatch::Range(of, range) => *of == protocol && range.contains(number),
        PortMatch::Named(of, name) => {
            *of == protocol
                && connection
                    .to
                    .pod
                    .is_some_and(|pod| pod.resolve(name, protocol).any(|resolved| resolved == number))
        }
    })
}
