//! Who is paired with whom, and what is asked of each destination.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use policy_compiler::judge::{Endpoint, Judge, Party, Traffic};
use policy_compiler::model::{Cluster, Pod};

use crate::cli::query::TrafficQuery;

/// Where addresses outside the cluster are listed.
const OUTSIDE: &str = "outside";

/// Somebody who connects and is connected to.
pub(super) struct End<'a> {
    /// `namespace/pod`, or the address.
    pub(super) name: String,
    /// The pod; `None` for what was given as an address.
    pub(super) pod: Option<&'a Pod>,
    /// What is asked of it as a destination.
    pub(super) asked: Asked,
    /// The end as the judge knows it.
    pub(super) party: Party<'a>,
    /// Its number by [`Judge::kinds`].
    pub(super) kind: Option<usize>,
}

/// What is asked of a destination.
pub(super) enum Asked {
    /// Each of these.
    Traffic(BTreeSet<Traffic>),
    /// Whatever is allowed.
    Everything,
}

/// What to ask of a destination that declares no ports, where no port is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WithoutPorts {
    /// Nothing.
    Nothing,
    /// What it may receive at all.
    Everything,
}

/// The pods by namespace and name, then the outside addresses in ascending order.
pub(super) fn ends<'a>(
    cluster: &'a Cluster,
    judge: &Judge<'a>,
    queries: &[TrafficQuery],
    external: &[IpAddr],
    without_ports: WithoutPorts,
) -> Vec<End<'a>> {
    let kinds = judge.kinds();
    let external: BTreeSet<_> = external.iter().copied().collect();
    let pods = cluster.pods().values().filter(|pod| !pod.finished);
    let pods = pods.map(|pod| (pod.name.to_string(), Some(pod), judge.party(Endpoint::Pod(pod))));
    let addresses = external.into_iter().map(|address| {
        let party = judge.party(Endpoint::Address(address));
        (address.to_string(), None, party)
    });
    pods.chain(addresses)
        .map(|(name, pod, party)| {
            let kind = pod.and_then(|pod| kinds.get(&pod.name).copied());
            let asked = asked(&party, queries, without_ports);
            End { name, pod, asked, party, kind }
        })
        .collect()
}

fn asked(party: &Party<'_>, queries: &[TrafficQuery], without_ports: WithoutPorts) -> Asked {
    let declared = || party.pod().into_iter().flat_map(|pod| &pod.ports);
    let undeclared = queries.is_empty() && declared().next().is_none();
    if (undeclared || queries.contains(&TrafficQuery::All)) && without_ports == WithoutPorts::Everything {
        return Asked::Everything;
    }
    Asked::Traffic(if queries.is_empty() {
        declared().map(|port| Traffic::Port(port.protocol, port.number)).collect()
    } else {
        queries.iter().flat_map(|query| traffic(query, party.pod())).collect()
    })
}

/// What a query asks of a destination; of an outside address (`None`) it asks nothing by the name of a port.
fn traffic(query: &TrafficQuery, destination: Option<&Pod>) -> BTreeSet<Traffic> {
    match query {
        TrafficQuery::Port(port) => {
            let numbers = port.numbers_on(destination).into_iter();
            numbers.map(|number| Traffic::Port(port.protocol, number)).collect()
        }
        TrafficQuery::Other => BTreeSet::from([Traffic::Other]),
        TrafficQuery::All => BTreeSet::new(),
    }
}

impl End<'_> {
    /// The heading under which it is listed: its namespace.
    pub(super) fn place(&self) -> &str {
        self.pod.map_or(OUTSIDE, |pod| &pod.name.namespace)
    }

    /// What it is called under its heading.
    pub(super) fn short_name(&self) -> &str {
        self.pod.map_or(&self.name, |pod| &pod.name.name)
    }

    /// Whether it is a pod in the network of its node.
    pub(super) fn is_host_network(&self) -> bool {
        self.pod.is_some_and(|pod| pod.host_network)
    }

    /// Whether it is a Pod that is paired with itself: always allowed, and no answer to a question.
    pub(super) fn is_itself(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) && self.pod.is_some_and(|pod| pod.workload.is_none())
    }

    /// Whether one is a pod and the other is in the network of the node that runs it. Such a pair says nothing about
    /// other nodes.
    pub(super) fn is_on_node_of(&self, other: &Self) -> bool {
        let node = |end: &Self| end.pod.and_then(|pod| pod.node.clone());
        self.is_host_network() != other.is_host_network()
            && self.pod.is_some_and(|pod| pod.node.is_some())
            && node(self) == node(other)
    }
}

/// The ends of each heading, by their places in `ends`.
pub(super) fn by_place<'e>(
    ends: &'e [End<'_>],
    members: impl IntoIterator<Item = usize>,
) -> Vec<(&'e str, Vec<usize>)> {
    let mut places: Vec<(&str, Vec<usize>)> = Vec::new();
    let mut found = HashMap::new();
    for member in members {
        let Some(end) = ends.get(member) else { continue };
        let index = *found.entry(end.place()).or_insert(places.len());
        match places.get_mut(index) {
            Some((_, members)) => members.push(member),
            None => places.push((end.place(), vec![member])),
        }
    }
    places
}
