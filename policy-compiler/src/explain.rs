//! Why a connection is allowed or denied, in the words of `podfence explain`.

mod tier;

pub use tier::{Effect, TierRule};

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::judge::{Connection, Decision, Exemption, Judge, Party, PolicyRule, RuleMiss, Ruling, Step};
use crate::model::{Direction, NetworkPolicy, Origin, PortMatch, Tier};

/// More rules of one direction than this are counted.
const RULES_SHOWN: usize = 6;

/// What one direction says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
pub struct Side {
    #[cfg_attr(feature = "cli", serde(skip))]
    direction: Direction,
    /// Whether the direction allows the connection.
    pub verdict: Word,
    /// Whether it is allowed only because policies are in audit mode.
    #[cfg_attr(feature = "cli", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub audited: bool,
    /// The verdict's reason in a sentence.
    pub reason: String,
    /// The rules of ClusterNetworkPolicies that cover the connection, and where one denies it those that come nearest to
    /// sparing it, in the order in which they are asked.
    #[cfg_attr(feature = "cli", serde(skip_serializing_if = "Vec::is_empty"))]
    pub tiers: Vec<TierRule>,
    /// The NetworkPolicies that isolate, the nearest to allowing the connection first. None if they have no say.
    pub policies: Vec<Policy>,
}

/// A policy that isolates.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
pub struct Policy {
    /// `namespace/name`
    pub name: String,
    /// `file:line`
    #[cfg_attr(feature = "cli", serde(skip_serializing_if = "Option::is_none"))]
    pub origin: Option<String>,
    /// Its rules of this direction, the nearest first.
    pub rules: Vec<Rule>,
}

/// A rule, and what it lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
pub struct Rule {
    /// The rule's path below `spec`, such as `ingress[0]`.
    pub path: String,
    /// `file:line`
    #[cfg_attr(feature = "cli", serde(skip_serializing_if = "Option::is_none"))]
    pub origin: Option<String>,
    /// Whether it covers the connection.
    pub covers: bool,
    /// Why no peer covers the other end, peer by peer.
    #[cfg_attr(feature = "cli", serde(skip_serializing_if = "Vec::is_empty"))]
    pub peers: Vec<String>,
    /// Why no port covers the connection's.
    #[cfg_attr(feature = "cli", serde(skip_serializing_if = "Option::is_none"))]
    pub ports: Option<String>,
    #[cfg_attr(feature = "cli", serde(skip))]
    distance: usize,
}

/// `allow` or `deny`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum Word {
    /// It is allowed.
    Allow,
    /// It is denied.
    Deny,
}

impl Word {
    /// The word for a verdict.
    pub fn of(allowed: bool) -> Self {
        if allowed { Self::Allow } else { Self::Deny }
    }

    /// Whether it is [`Word::Allow`].
    pub fn allows(self) -> bool {
        self == Self::Allow
    }
}

impl Side {
    /// What a direction says of a connection, and why.
    pub fn new<'a>(judge: &Judge<'a>, direction: Direction, connection: &Connection<'a>) -> Self {
        let shared = [connection.from, connection.to].into_iter().filter(Party::is_shared);
        let shared: Vec<_> = shared.flat_map(|end| end.addresses().to_vec()).collect();
        let connection = &judge.deciding(direction, connection);
        let (subject, _) = connection.subject_and_peer(direction);
        let ruling = judge.ruling(direction, connection);
        let allowed = ruling.allowed();
        let mut policies: Vec<_> = isolating(&ruling)
            .iter()
            .map(|policy| Policy::new(judge, direction, policy, connection))
            .collect();
        policies.sort_by_key(|policy| policy.rules.first().map_or(usize::MAX, |rule| rule.distance));
        let audits = if allowed { audits(&ruling) } else { Vec::new() };
        let reason = match audits.as_slice() {
            [] => reason(judge, &ruling, subject, direction),
            audits => {
                let reason = reason(judge, &ruling, subject, direction);
                format!("{reason}: it would be denied, but for the audit of {}", audits.join(", "))
            }
        };
        let reason = match shared.as_slice() {
            [] => reason,
            _ => format!("{reason} ({})", several_show(&shared, connection)),
        };
        Self {
            direction,
            verdict: Word::of(allowed),
            audited: !audits.is_empty(),
            reason,
            tiers: TierRule::all(judge, &ruling, direction, connection),
            policies,
        }
    }

    /// Which direction this is.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The names of the policies that deny the connection, or would but for audit mode.
    pub fn denying(&self) -> impl Iterator<Item = &str> {
        let tiers = self.tiers.iter().filter(|rule| matches!(rule.effect, Effect::Deny | Effect::Audit));
        let is_covered = self.policies.iter().flat_map(|policy| &policy.rules).any(|rule| rule.covers);
        let policies = self.policies.iter().filter(move |_| !is_covered);
        tiers.map(|rule| &*rule.policy).chain(policies.map(|policy| &*policy.name))
    }

    /// The policies that matter, each with the rules that do and how many more there are: those that cover the connection,
    /// or else those that come nearest to it.
    pub fn shown(&self) -> impl Iterator<Item = (&Policy, Vec<&Rule>, usize)> {
        let allowed = self.policies.iter().flat_map(|policy| &policy.rules).any(|rule| rule.covers);
        let mut room = RULES_SHOWN;
        self.policies.iter().filter_map(move |policy| {
            let mut rules: Vec<_> = policy.rules.iter().filter(|rule| rule.covers || !allowed).collect();
            if allowed && rules.is_empty() {
                return None;
            }
            let hidden = rules.len().saturating_sub(room);
            rules.truncate(room);
            room -= rules.len();
            Some((policy, rules, hidden))
        })
    }
}

/// The explanation on one line.
impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        self.tiers.iter().try_for_each(|rule| write!(f, "; {rule}"))?;
        for (policy, rules, hidden) in self.shown() {
            write!(f, "; {}", policy.name)?;
            if policy.rules.is_empty() {
                write!(f, " has no {} rule", self.direction)?;
            }
            for (index, rule) in rules.into_iter().enumerate() {
                write!(f, "{}{rule}", if index == 0 { " " } else { ", " })?;
            }
            if hidden > 0 {
                write!(f, " and {hidden} rules further from it")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if self.covers {
            return f.write_str(" covers it");
        }
        let ports = self.ports.iter().map(|miss| format!("ports: {miss}"));
        let misses: Vec<_> = self.peers.iter().cloned().chain(ports).collect();
        write!(f, " ({})", misses.join("; "))
    }
}

/// That a connection must pass whoever has an address that several pods show.
fn several_show(addresses: &[IpAddr], connection: &Connection<'_>) -> String {
    let addresses: BTreeSet<_> = addresses.iter().map(IpAddr::to_string).collect();
    let addresses = addresses.into_iter().collect::<Vec<_>>().join(" and ");
    format!(
        "several pods show {addresses}, and it must be allowed for each of them: here from {} to {}",
        connection.from, connection.to
    )
}

/// The NetworkPolicies that decide, or would but for audit mode.
fn isolating<'r, 'a>(ruling: &'r Ruling<'a>) -> &'r [&'a NetworkPolicy] {
    let audited = ruling.way.iter().find_map(|step| match step {
        Step::AuditedIsolation(by) => Some(&**by),
        Step::Passed(_) | Step::Audited(_) => None,
    });
    match &ruling.decision {
        Decision::Isolated { by, .. } => by,
        _ => audited.unwrap_or_default(),
    }
}

/// The policies in audit mode that would deny the connection.
fn audits(ruling: &Ruling<'_>) -> Vec<String> {
    let audits = ruling.way.iter().flat_map(|step| match step {
        Step::Passed(_) => Vec::new(),
        Step::Audited(rule) => vec![rule.policy.name.to_string()],
        Step::AuditedIsolation(by) => by.iter().map(|policy| policy.name.to_string()).collect(),
    });
    audits.collect()
}

/// What decides, in a sentence.
fn reason(judge: &Judge<'_>, ruling: &Ruling<'_>, subject: &Party<'_>, direction: Direction) -> String {
    let by = isolating(ruling);
    let isolated = match by.len() {
        1 => format!("a policy isolates {subject}"),
        several => format!("{several} policies isolate {subject}"),
    };
    match &ruling.decision {
        Decision::Exempt(exemption) => exempt(*exemption, subject, direction),
        Decision::Accepted(rule) => format!("{} policy allows this", a(rule.policy.tier)),
        Decision::Denied(rule) => format!("{} policy denies this", a(rule.policy.tier)),
        Decision::Isolated { allowed_by, .. } if allowed_by.is_empty() => {
            format!("{isolated}, and no rule covers this")
        }
        Decision::Isolated { .. } => format!("{isolated}, and a rule covers this"),
        Decision::Undecided if !by.is_empty() => format!("{isolated}, and no rule covers this"),
        Decision::Undecided if judge.cluster().cluster_policies().is_empty() => {
            format!("no policy isolates {subject} for {direction}")
        }
        Decision::Undecided => {
            format!(
                "no policy isolates {subject} for {direction}, and no ClusterNetworkPolicy decides about this"
            )
        }
    }
}

/// A tier with its article.
fn a(tier: Tier) -> &'static str {
    match tier {
        Tier::Admin => "an Admin",
        Tier::Baseline => "a Baseline",
    }
}

fn exempt(exemption: Exemption, subject: &Party<'_>, direction: Direction) -> String {
    match exemption {
        Exemption::Itself => "a pod always reaches itself".to_owned(),
        Exemption::NotSubject if subject.pod().is_some() => {
            format!("{subject} is in its node's network (hostNetwork), which no policy judges")
        }
        Exemption::NotSubject if direction == Direction::Ingress && is_heard_by_neighbours(subject) => {
            format!(
                "no policy judges {subject} itself, but every isolated pod that receives it judges the sender"
            )
        }
        Exemption::NotSubject => format!("no policy judges {subject}, an address outside the cluster"),
        Exemption::OwnNode => match direction {
            Direction::Egress => format!("{subject} always reaches its own node"),
            Direction::Ingress => format!("its own node always reaches {subject}"),
        },
    }
}

/// Whether an end is an address by which a sender reaches others on its link: a group, all, or a link-local one.
fn is_heard_by_neighbours(end: &Party<'_>) -> bool {
    end.addresses().iter().any(|address| match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast() || address.is_unicast_link_local(),
    })
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
        let (peers, ports) = miss.map(|miss| lacks(miss, direction, connection)).unwrap_or_default();
        Self {
            path,
            origin: origin.map(Origin::to_string),
            covers: miss.is_none(),
            peers,
            ports,
            distance: miss.map_or(0, RuleMiss::distance),
        }
    }
}

/// Why no peer of a rule covers the other end, peer by peer, and why no port covers the connection's.
fn lacks(
    miss: &RuleMiss<'_>,
    direction: Direction,
    connection: &Connection<'_>,
) -> (Vec<String>, Option<String>) {
    let field = match direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    let peers = match miss.peers.as_deref() {
        None => Vec::new(),
        Some([]) => vec![format!("{field}: covers nobody")],
        Some(peers) => {
            peers.iter().enumerate().map(|(index, miss)| format!("{field}[{index}]: {miss}")).collect()
        }
    };
    (peers, miss.ports.map(|ports| uncovered(ports, &connection.to)))
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
            format!("{port}/{protocol} ({meaning} on {destination})")
        }
    }
}
