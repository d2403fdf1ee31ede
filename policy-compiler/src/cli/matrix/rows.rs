//! What is asked, and the answers: a row for each connection.

use std::collections::BTreeSet;
use std::net::IpAddr;

use policy_compiler::judge::{Connection, Endpoint, Judge, Party, Traffic};
use policy_compiler::model::{Cluster, Direction, Family, Pod, PortNumber, Protocol};

use crate::cli::port::PortQuery;

/// Everybody who is paired with everybody, and the policies that judge.
pub(super) struct Rows<'a> {
    judge: &'a Judge<'a>,
    /// The pods by namespace and name, then the outside addresses in ascending order.
    pub(super) ends: Vec<End<'a>>,
}

/// Somebody who connects and is connected to.
pub(super) struct End<'a> {
    /// `namespace/pod`, or the address.
    pub(super) name: String,
    /// The pod; `None` for what was given as an address.
    pub(super) pod: Option<&'a Pod>,
    /// What is asked of it as a destination.
    pub(super) ports: BTreeSet<(Protocol, PortNumber)>,
    party: Party<'a>,
}

/// The answer for one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) protocol: Protocol,
    pub(super) port: PortNumber,
    pub(super) egress: bool,
    pub(super) ingress: bool,
    /// Set where the families disagree, so that each has a row.
    pub(super) family: Option<Family>,
}

impl Row {
    pub(super) fn allowed(self) -> bool {
        self.egress && self.ingress
    }
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        judge: &'a Judge<'a>,
        queries: &[PortQuery],
        external: &[IpAddr],
    ) -> Self {
        let ports_of = |pod: Option<&Pod>| {
            if queries.is_empty() {
                pod.iter().flat_map(|pod| &pod.ports).map(|port| (port.protocol, port.number)).collect()
            } else {
                let numbers = |query: &PortQuery| {
                    let protocol = query.protocol;
                    query.numbers_on(pod).into_iter().map(move |number| (protocol, number))
                };
                queries.iter().flat_map(numbers).collect()
            }
        };
        let pods = cluster.pods().values().filter(|pod| !pod.finished).map(|pod| End {
            name: pod.name.to_string(),
            pod: Some(pod),
            ports: ports_of(Some(pod)),
            party: judge.party(Endpoint::Pod(pod)),
        });
        let external: BTreeSet<_> = external.iter().copied().collect();
        let addresses = external.into_iter().map(|address| {
            let party = judge.party(Endpoint::Address(address));
            End { name: address.to_string(), pod: None, ports: ports_of(party.pod()), party }
        });
        Self { judge, ends: pods.chain(addresses).collect() }
    }

    /// The rows of a pair: one for each port, two where the families disagree about it. Outside addresses
    /// are not paired with one another.
    pub(super) fn of(&self, from: &End<'a>, to: &End<'a>) -> impl Iterator<Item = Row> {
        let families = from.party.families_with(&to.party);
        let ports = (from.pod.is_some() || to.pod.is_some()).then_some(&to.ports);
        ports.into_iter().flatten().flat_map(move |&(protocol, port)| {
            let answer = |&family: &Option<Family>| {
                let traffic = Traffic::Port(protocol, port);
                let connection = Connection { from: from.party, to: to.party, family, traffic };
                let egress = self.judge.allows(Direction::Egress, &connection);
                let ingress = self.judge.allows(Direction::Ingress, &connection);
                Row { protocol, port, egress, ingress, family }
            };
            let disagree = |a: &Row, b: &Row| (a.egress, a.ingress) != (b.egress, b.ingress);
            match families {
                [one, other] => {
                    let (one, other) = (answer(one), answer(other));
                    if disagree(&one, &other) {
                        [Some(one), Some(other)]
                    } else {
                        [Some(Row { family: None, ..one }), None]
                    }
                }
                _ => [families.first().map(answer).map(|row| Row { family: None, ..row }), None],
            }
            .into_iter()
            .flatten()
        })
    }
}
