//! What policies do besides what they are for.

use std::collections::{BTreeSet, HashSet};

use ipnet::IpNet;

use super::Denied;
use crate::judge::{Connection, Endpoint, Judge, Party, TrafficRange};
use crate::model::{Cluster, Direction, NetworkPolicy, Pod, PortMatch};

/// What was denied and is allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Opened {
    /// Who may connect: `namespace/pod`, an address or blocks.
    pub from: String,
    /// Who may be connected to.
    pub to: String,
    /// What it may carry.
    pub traffic: TrafficRange,
}

/// The pods that are isolated by nothing but these policies.
pub(super) fn isolates<'a>(judge: &Judge<'a>, policies: &[NetworkPolicy]) -> Vec<(Direction, &'a Pod)> {
    let mut isolates = Vec::new();
    for policy in policies {
        for direction in Direction::BOTH.into_iter().filter(|direction| policy.rules(*direction).is_some()) {
            let subjects = subjects(judge.cluster(), policy);
            let open = subjects.filter(|pod| !judge.is_isolated(direction, &judge.party(Endpoint::Pod(pod))));
            isolates.extend(open.map(|pod| (direction, pod)));
        }
    }
    isolates.sort_by_key(|(direction, pod)| (*direction, &pod.name));
    isolates.dedup_by_key(|(direction, pod)| (*direction, &pod.name));
    isolates
}

/// The pods that a policy isolates.
fn subjects<'a>(cluster: &'a Cluster, policy: &NetworkPolicy) -> impl Iterator<Item = &'a Pod> {
    let pods = cluster.pods().values().filter(|pod| pod.selectable());
    pods.filter(|pod| pod.name.namespace == policy.name.namespace && policy.subjects.matches(&pod.labels))
}

/// Policies before and after they are applied, and what they are for.
pub(super) struct Change<'a, 'b> {
    before: &'b Judge<'a>,
    after: &'b Judge<'b>,
    /// Everybody whom the policies may let in or out.
    others: Vec<Party<'a>>,
    /// The connections that are to be allowed, by their ends' names.
    asked: HashSet<(String, String, TrafficRange)>,
    /// Those of whole blocks.
    asked_of_blocks: Vec<(IpNet, &'b Connection<'a>)>,
}

impl<'a, 'b> Change<'a, 'b> {
    pub(super) fn new(before: &'b Judge<'a>, after: &'b Judge<'b>, denied: &'b [Denied<'a>]) -> Self {
        let connections = || denied.iter().map(|denied| &denied.connection);
        let outside = connections().flat_map(|it| [it.from, it.to]).filter(|end| end.pod().is_none());
        let outside: BTreeSet<_> = outside.flat_map(|end| end.addresses().to_vec()).collect();
        let pods = before.cluster().pods().values().filter(|pod| !pod.finished).map(Endpoint::Pod);
        let ends = pods.chain(outside.into_iter().map(Endpoint::Address));
        Self {
            before,
            after,
            others: ends.map(|end| before.party(end)).collect(),
            asked: connections()
                .map(|it| (it.from.to_string(), it.to.to_string(), it.traffic.into()))
                .collect(),
            asked_of_blocks: denied.iter().filter_map(|it| Some((it.block?, &it.connection))).collect(),
        }
    }

    /// What `policies` open that was not asked for.
    pub(super) fn opens(&self, policies: &[NetworkPolicy]) -> Vec<Opened> {
        let mut opened = BTreeSet::new();
        for policy in policies {
            for direction in Direction::BOTH.into_iter().filter(|it| policy.rules(*it).is_some()) {
                for subject in subjects(self.before.cluster(), policy) {
                    let subject = self.before.party(Endpoint::Pod(subject));
                    let by_peer =
                        self.others.iter().flat_map(|other| self.between(policy, direction, subject, *other));
                    opened.extend(by_peer);
                }
            }
        }
        joined(opened)
    }

    /// What a policy opens between a pod that it isolates and another end.
    fn between(
        &self,
        policy: &NetworkPolicy,
        direction: Direction,
        subject: Party<'a>,
        other: Party<'a>,
    ) -> Vec<Opened> {
        let (from, to) = match direction {
            Direction::Egress => (subject, other),
            Direction::Ingress => (other, subject),
        };
        let rules = policy.rules(direction).unwrap_or_default();
        let parts = rules.iter().flat_map(|rule| match &rule.ports {
            Some(ports) => ports.iter().filter_map(named).collect(),
            None => self.before.traffic_parts(&from, &to),
        });
        let opened = parts.filter(|part| {
            self.is_opened(from, to, *part) && !self.is_asked_of_block(direction, &subject, &other, *part)
        });
        let opened = opened.map(|traffic| Opened { from: self.name(&from), to: self.name(&to), traffic });
        let is_asked = |it: &Opened| self.asked.contains(&(it.from.clone(), it.to.clone(), it.traffic));
        opened.filter(|it| !is_asked(it)).collect()
    }

    fn is_opened(&self, from: Party<'a>, to: Party<'a>, part: TrafficRange) -> bool {
        from.families_with(&to).iter().any(|&family| {
            let traffic = part.example();
            let connection = Connection { from, to, family, traffic, through_service: false };
            is_allowed(self.after, &self.after.translate(&connection))
                && !is_allowed(self.before, &connection)
        })
    }

    /// Whether it is a connection of an address in a block, all of which is to be allowed.
    fn is_asked_of_block(
        &self,
        direction: Direction,
        subject: &Party<'a>,
        other: &Party<'a>,
        part: TrafficRange,
    ) -> bool {
        self.asked_of_blocks.iter().any(|(block, asked)| {
            let (asked_subject, _) = asked.subject_and_peer(direction);
            part == asked.traffic.into()
                && is_in(*block, other)
                && subject.to_string() == asked_subject.to_string()
        })
    }

    /// What an end is called: a block, if it is an address that stands for one.
    fn name(&self, end: &Party<'_>) -> String {
        let mut blocks = self.asked_of_blocks.iter().filter(|_| end.pod().is_none()).map(|(block, _)| block);
        let block = blocks.find(|block| is_in(**block, end));
        block.map_or_else(|| end.to_string(), IpNet::to_string)
    }
}

fn is_allowed<'a>(judge: &Judge<'a>, connection: &Connection<'a>) -> bool {
    Direction::BOTH.into_iter().all(|direction| judge.allows(direction, connection))
}

fn is_in(block: IpNet, end: &Party<'_>) -> bool {
    end.addresses().iter().any(|address| block.contains(address))
}

/// The ports that a suggested rule names.
fn named(port: &PortMatch) -> Option<TrafficRange> {
    match port {
        PortMatch::Range(protocol, ports) => Some(TrafficRange::Ports(*protocol, *ports)),
        PortMatch::All(protocol) => Some(TrafficRange::every_port(*protocol)),
        PortMatch::Named(..) => None,
    }
}

/// The same with what follows upon another in one.
fn joined(opened: BTreeSet<Opened>) -> Vec<Opened> {
    let mut joined: Vec<Opened> = Vec::new();
    for next in opened {
        match joined.last_mut() {
            Some(last) if (&last.from, &last.to) == (&next.from, &next.to) => {
                match last.traffic.joined(next.traffic) {
                    Some(traffic) => last.traffic = traffic,
                    None => joined.push(next),
                }
            }
            _ => joined.push(next),
        }
    }
    joined
}
