//! What policies do besides what they are for.

use std::collections::BTreeSet;

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
    pub(super) before: &'b Judge<'a>,
    pub(super) after: &'b Judge<'b>,
    pub(super) denied: &'b [Denied<'a>],
}

impl<'a> Change<'a, '_> {
    /// What `policies` open that was not asked for.
    pub(super) fn opens(&self, policies: &[NetworkPolicy]) -> Vec<Opened> {
        let pods = self.before.cluster().pods().values().filter(|pod| !pod.finished);
        let pods = pods.map(|pod| self.before.party(Endpoint::Pod(pod)));
        let asked = self.denied.iter().flat_map(|denied| [denied.connection.from, denied.connection.to]);
        let others: Vec<_> = pods.chain(asked.filter(|end| end.pod().is_none())).collect();
        let mut opened = BTreeSet::new();
        for policy in policies {
            for direction in Direction::BOTH.into_iter().filter(|it| policy.rules(*it).is_some()) {
                for subject in subjects(self.before.cluster(), policy) {
                    let subject = self.before.party(Endpoint::Pod(subject));
                    let by_peer =
                        others.iter().flat_map(|other| self.between(policy, direction, subject, *other));
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
            self.is_opened(from, to, *part) && !self.is_asked(direction, &subject, &other, *part)
        });
        let name = |end: &Party<'_>| {
            let mut blocks = self.denied.iter().filter(|denied| denied.stands_for(end));
            blocks.next().filter(|_| end.pod().is_none()).map_or_else(|| end.to_string(), Denied::blocks_text)
        };
        opened.map(|traffic| Opened { from: name(&from), to: name(&to), traffic }).collect()
    }

    fn is_opened(&self, from: Party<'a>, to: Party<'a>, part: TrafficRange) -> bool {
        from.families_with(&to).iter().any(|&family| {
            let connection = Connection { from, to, family, traffic: part.example() };
            let after = self.after.verdict(&self.after.translate(&connection));
            after.allowed() && !self.before.verdict(&connection).allowed()
        })
    }

    /// Whether it is one of the connections that are to be allowed.
    fn is_asked(
        &self,
        direction: Direction,
        subject: &Party<'a>,
        other: &Party<'a>,
        part: TrafficRange,
    ) -> bool {
        let is = |one: &Party<'_>, other: &Party<'_>| one.to_string() == other.to_string();
        self.denied.iter().any(|denied| {
            let (asked_subject, asked_other) = denied.connection.subject_and_peer(direction);
            part == denied.connection.traffic.into()
                && is(subject, asked_subject)
                && (is(other, asked_other) || denied.stands_for(other))
        })
    }
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
