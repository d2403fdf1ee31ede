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
//!         let traffic = Traffic::Port(Protocol::Tcp, port);
//!         judge.verdict(&Connection { from, to, family, traffic, through_service: false }).allowed()
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
mod number_set;
mod outcome;
mod party;
mod resolve;
mod tiers;
mod traffic;
mod verdict;

pub use addresses::AddressRange;
pub use miss::{LabelMiss, PeerMiss, RuleMiss, Unlabelled};
pub use party::{Endpoint, Party};
pub use traffic::TrafficRange;
pub use verdict::{ClusterRule, Decision, Exemption, PolicyRule, Ruling, Step, Verdict};

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{
    Action, Cluster, Direction, Family, ObjectName, Pod, PodsToNode, PortNumber, Protocol, Tier,
};
use isolation::{Isolation, Isolations, isolations};
use number_set::Member;
use outcome::{Outcome, policies};
use resolve::{World, members};
use tiers::Tiers;

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
    /// Whether a Service led to `to`. It matters where that is `from`: then the tiers judge it.
    pub through_service: bool,
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
    /// The ClusterNetworkPolicies, for egress and for ingress.
    tiers: [Tiers<'a>; 2],
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
        let world = World::new(cluster);
        Self {
            cluster,
            members: members(cluster).map(|(member, pod)| (&pod.name, member)).collect(),
            egress: isolations(&world, Direction::Egress),
            ingress: isolations(&world, Direction::Ingress),
            tiers: Direction::BOTH.map(|direction| Tiers::new(&world, direction)),
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
        Connection {
            from: translated(&connection.from),
            to: translated(&connection.to),
            family: connection.family,
            traffic: connection.traffic,
            through_service: connection.through_service,
        }
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
            let mut audited = false;
            let outcome = self.outcome(direction, connection, |step| audited |= step.is_audited());
            (outcome.allowed(), !audited, matches!(outcome, Outcome::Exempt(_) | Outcome::Undecided))
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
        self.outcome(direction, &self.deciding(direction, connection), |_| ()).allowed()
    }

    /// What keeps `rule`, of a policy that isolates in the [deciding](Self::deciding) connection, from covering it;
    /// `None` if it does cover it.
    pub fn miss(
        &self,
        direction: Direction,
        PolicyRule { policy, rule, .. }: PolicyRule<'a>,
        connection: &Connection<'a>,
    ) -> Option<RuleMiss<'a>> {
        let own = Some(&*policy.name.namespace);
        miss::of(self, direction, own, rule, &self.deciding(direction, connection))
    }

    /// The rules that would have kept a rule of a tier from denying the connection, if they covered it: the Accepts and
    /// Passes that were asked before it. In their order, with what each lacks.
    pub fn missed(
        &self,
        direction: Direction,
        connection: &Connection<'a>,
    ) -> Vec<(ClusterRule<'a>, RuleMiss<'a>)> {
        let connection = &self.deciding(direction, connection);
        let Ruling { way, decision: Decision::Denied(denying) } = self.ruling(direction, connection) else {
            return Vec::new();
        };
        // A tier is asked up to the rule that decides or passes the connection on.
        let last = |rule: &ClusterRule<'a>| *rule == denying || way.contains(&Step::Passed(*rule));
        let (subject, _) = connection.subject_and_peer(direction);
        let effects = subject.member.into_iter().flat_map(|member| self.tiers(direction).on(member));
        let rules: Vec<_> = effects.map(|effect| effect.rule).collect();
        let mut missed: Vec<(ClusterRule<'a>, _)> = Vec::new();
        for tier in Tier::ALL.into_iter().filter(|tier| *tier <= denying.policy.tier) {
            let asked = rules.iter().filter(|rule| rule.policy.tier == tier).take_while(|rule| !last(rule));
            for rule in asked.filter(|rule| rule.rule.action != Action::Deny) {
                let is_new = missed.last().is_none_or(|(before, _)| before != rule);
                let miss = miss::of(self, direction, None, &rule.rule.rule, connection);
                missed.extend(miss.filter(|_| is_new).map(|miss| (*rule, miss)));
            }
        }
        missed
    }

    /// Whether one direction of a connection is allowed, and why.
    pub fn ruling(&self, direction: Direction, connection: &Connection<'a>) -> Ruling<'a> {
        let connection = &self.deciding(direction, connection);
        let mut way = Vec::new();
        let outcome = self.outcome(direction, connection, |step| way.push(step));
        let decision = match outcome {
            Outcome::Exempt(exemption) => Decision::Exempt(exemption),
            Outcome::Accepted(rule) => Decision::Accepted(rule),
            Outcome::Denied(rule) => Decision::Denied(rule),
            Outcome::Isolated { by, .. } => Decision::Isolated {
                by: policies(by),
                allowed_by: self.allowing(direction, connection).collect(),
            },
            Outcome::Undecided => Decision::Undecided,
        };
        Ruling { way, decision }
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

    fn tiers(&self, direction: Direction) -> &Tiers<'a> {
        let [egress, ingress] = &self.tiers;
        match direction {
            Direction::Egress => egress,
            Direction::Ingress => ingress,
        }
    }

    fn allowing(
        &self,
        direction: Direction,
        connection: &Connection<'a>,
    ) -> impl Iterator<Item = PolicyRule<'a>> {
        let ends = connection.subject_and_peer(direction);
        self.isolating(direction, ends.0).iter().flat_map(move |isolation| {
            isolation
                .rules
                .iter()
                .enumerate()
                .filter(move |(_, rule)| rule.covers(self, ends, connection))
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
