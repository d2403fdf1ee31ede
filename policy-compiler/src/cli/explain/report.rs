//! The facts of an explanation, as `-o json` prints them.

use policy_compiler::judge::{Connection, Exemption, Judge, Party, PolicyRule, RuleMiss, Ruling, Traffic};
use policy_compiler::model::{Direction, NetworkPolicy, Origin, PortMatch, PortNumber, Protocol};
use serde::Serialize;
use serde_json::Value;

use super::suggestion::suggest;

/// The whole answer.
#[derive(Serialize)]
pub(super) struct Report {
    /// Who connects, as it was asked.
    pub(super) from: String,
    /// Who is connected to, as it was asked.
    pub(super) to: String,
    /// The port, as it was asked, with its protocol.
    pub(super) port: String,
    /// Denied if one of the connections is.
    pub(super) verdict: Word,
    /// What the question comes to: one for each backend of a Service, each number of a port's name, and
    /// each family where they disagree.
    pub(super) connections: Vec<Explained>,
}

/// One connection.
#[derive(Serialize)]
pub(super) struct Explained {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) port: u16,
    pub(super) protocol: &'static str,
    /// Set where the families disagree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) family: Option<String>,
    pub(super) verdict: Word,
    pub(super) egress: Side,
    pub(super) ingress: Side,
    /// NetworkPolicies, one for each direction that denies, which together would let the connection through.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) suggestions: Vec<Value>,
}

/// What one direction says.
#[derive(Serialize)]
pub(super) struct Side {
    pub(super) verdict: Word,
    /// The verdict's reason in a sentence.
    pub(super) reason: String,
    /// The policies that isolate, the nearest to allowing the connection first. None if they have no say.
    pub(super) policies: Vec<Policy>,
}

/// A policy that isolates.
#[derive(Serialize)]
pub(super) struct Policy {
    pub(super) name: String,
    /// `file:line`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<String>,
    /// Its rules of this direction, the nearest first.
    pub(super) rules: Vec<Rule>,
}

/// A rule, and what it lacks.
#[derive(Serialize)]
pub(super) struct Rule {
    /// The rule's path below `spec`, such as `ingress[0]`.
    pub(super) path: String,
    /// `file:line`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<String>,
    pub(super) covers: bool,
    /// Why no peer covers the other end, peer by peer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) peers: Vec<String>,
    /// Why no port covers the connection's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ports: Option<String>,
    #[serde(skip)]
    distance: usize,
}

/// `allow` or `deny`
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Word {
    Allow,
    Deny,
}

impl Word {
    pub(super) fn of(allowed: bool) -> Self {
        if allowed { Self::Allow } else { Self::Deny }
    }

    pub(super) fn allows(self) -> bool {
        self == Self::Allow
    }
}

/// A connection to explain, in all families.
pub(super) struct Question<'a> {
    pub(super) from: Party<'a>,
    pub(super) to: Party<'a>,
    pub(super) protocol: Protocol,
    pub(super) port: PortNumber,
}

impl<'a> Question<'a> {
    /// The explanation; one for each family if their verdicts differ in a direction.
    pub(super) fn explain(&self, judge: &Judge<'a>) -> Vec<Explained> {
        let Self { from, to, protocol, port } = *self;
        let traffic = Traffic::Port(protocol, port);
        let connections =
            from.families_with(&to).iter().map(|&family| Connection { from, to, family, traffic });
        let allows = |connection: &Connection<'a>| {
            Direction::BOTH.map(|direction| judge.allows(direction, connection))
        };
        let mut distinct: Vec<_> = connections.collect();
        distinct.dedup_by_key(|connection| allows(connection));
        let disagree = distinct.len() > 1;
        distinct
            .iter()
            .map(|connection| {
                let family = connection.family.filter(|_| disagree);
                let [egress, ingress] =
                    Direction::BOTH.map(|direction| Side::new(judge, direction, connection));
                let denying = [(Direction::Egress, &egress), (Direction::Ingress, &ingress)]
                    .into_iter()
                    .filter(|(_, side)| !side.verdict.allows());
                Explained {
                    from: name(&from),
                    to: name(&to),
                    port: port.get(),
                    protocol: protocol.as_str(),
                    family: family.map(|family| family.to_string()),
                    verdict: Word::of(egress.verdict.allows() && ingress.verdict.allows()),
                    suggestions: denying
                        .filter_map(|(direction, _)| suggest(direction, connection, family))
                        .collect(),
                    egress,
                    ingress,
                }
            })
            .collect()
    }
}

/// How a report calls an end.
fn name(party: &Party<'_>) -> String {
    match (party.pod(), party.addresses()) {
        (Some(pod), _) => pod.name.to_string(),
        (None, [address, ..]) => address.to_string(),
        (None, []) => "nobody".to_owned(),
    }
}

impl Side {
    fn new<'a>(judge: &Judge<'a>, direction: Direction, connection: &Connection<'a>) -> Self {
        let (subject, _) = connection.subject_and_peer(direction);
        let ruling = judge.ruling(direction, connection);
        let allowed = ruling.allowed();
        let (reason, policies) = match ruling {
            Ruling::Exempt(exemption) => (exempt(exemption, subject, direction), Vec::new()),
            Ruling::Isolated { by, .. } => {
                let isolated = match by.len() {
                    1 => format!("a policy isolates {}", name(subject)),
                    several => format!("{several} policies isolate {}", name(subject)),
                };
                let outcome = if allowed { "and a rule covers this" } else { "and no rule covers this" };
                let mut policies: Vec<_> =
                    by.iter().map(|policy| Policy::new(judge, direction, policy, connection)).collect();
                policies.sort_by_key(|policy| policy.rules.first().map_or(usize::MAX, |rule| rule.distance));
                (format!("{isolated}, {outcome}"), policies)
            }
        };
        Self { verdict: Word::of(allowed), reason, policies }
    }
}

fn exempt(exemption: Exemption, subject: &Party<'_>, direction: Direction) -> String {
    let name = name(subject);
    match exemption {
        Exemption::Itself => "a pod always reaches itself".to_owned(),
        Exemption::NotSubject if subject.pod().is_some() => {
            format!("{name} is in its node's network (hostNetwork), which no policy judges")
        }
        Exemption::NotSubject => format!("no policy judges {name}, an address outside the cluster"),
        Exemption::NotIsolated => format!("no policy isolates {name} for {direction}"),
        Exemption::OwnNode => format!("{name} and its own node always reach one another"),
    }
}

impl Policy {
    fn new<'a>(
        judge: &Judge<'a>,
        direction: Direction,
        policy: &'a NetworkPolicy,
        connection: &Connection<'a>,
    ) -> Self {
        let rules = policy.rules(direction).unwrap_or_default().iter().enumerate();
        let mut rules: Vec<_> = rules
            .map(|(index, rule)| {
                let miss = judge.miss(direction, PolicyRule { policy, index, rule }, connection);
                let path = format!("{direction}[{index}]");
                Rule::new(path, rule.origin.as_ref(), miss.as_ref(), direction, connection)
            })
            .collect();
        rules.sort_by_key(|rule| rule.distance);
        Self { name: policy.name.to_string(), origin: policy.origin.as_ref().map(Origin::to_string), rules }
    }
}

impl Rule {
    fn new(
        path: String,
        origin: Option<&Origin>,
        miss: Option<&RuleMiss<'_>>,
        direction: Direction,
        connection: &Connection<'_>,
    ) -> Self {
        let field = match direction {
            Direction::Egress => "to",
            Direction::Ingress => "from",
        };
        let peers = match miss.and_then(|miss| miss.peers.as_deref()) {
            None => Vec::new(),
            Some([]) => vec![format!("{field}: covers nobody")],
            Some(peers) => {
                peers.iter().enumerate().map(|(index, miss)| format!("{field}[{index}]: {miss}")).collect()
            }
        };
        Self {
            path,
            origin: origin.map(Origin::to_string),
            covers: miss.is_none(),
            peers,
            ports: miss.and_then(|miss| miss.ports).map(|ports| uncovered(ports, &connection.to)),
            distance: miss.map_or(0, RuleMiss::distance),
        }
    }
}

/// What a rule's ports cover instead.
fn uncovered(ports: &[PortMatch], destination: &Party<'_>) -> String {
    let ports: Vec<_> = ports.iter().map(|port| covered(port, destination)).collect();
    format!("only {}", if ports.is_empty() { "none".to_owned() } else { ports.join(", ") })
}

fn covered(port: &PortMatch, destination: &Party<'_>) -> String {
    match port {
        PortMatch::All(protocol) => format!("every {protocol} port"),
        PortMatch::Range(protocol, range) if range.first() == range.last() => {
            format!("{}/{protocol}", range.first())
        }
        PortMatch::Range(protocol, range) => format!("{}-{}/{protocol}", range.first(), range.last()),
        PortMatch::Named(protocol, port) => {
            let resolved = destination.pod().into_iter().flat_map(|pod| pod.resolve(port, *protocol));
            let numbers: Vec<_> = resolved.map(|number| number.to_string()).collect();
            let meaning = if numbers.is_empty() { "no such port".to_owned() } else { numbers.join(", ") };
            format!("{port}/{protocol} ({meaning} on {})", name(destination))
        }
    }
}
