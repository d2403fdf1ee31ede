//! What becomes of the packets between two ends, for every protocol and port.

use std::cmp::Ordering;

use crate::model::Protocol;
use crate::ruleset::ChainId;

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// What counts it on the way.
    pub(super) passed: Vec<Passed>,
    pub(super) decision: Decision,
}

/// What counts a packet and decides nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Passed {
    /// A rule that passes it on, or would deny it but for audit mode.
    Rule(ChainId),
    /// The policies that isolate the pod and are all in audit mode.
    AuditedIsolation,
}

/// What decides about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// A rule allows it.
    Accepted(ChainId),
    /// A rule denies it.
    Denied(ChainId),
    /// Policies isolate the pod, and no rule lets it through.
    Isolated,
    /// Nothing does, so it is allowed.
    Open,
}

impl Outcome {
    /// Whether the packet may be dropped on this way.
    pub(super) fn denies(&self) -> bool {
        matches!(self.decision, Decision::Denied(_) | Decision::Isolated)
    }

    /// Where several pods may be meant, which of their outcomes counts: the highest.
    fn rank(&self) -> u8 {
        // Behind an isolation, some packets are left alone.
        let is_audited = self.passed.contains(&Passed::AuditedIsolation);
        match self.decision {
            Decision::Denied(_) if !is_audited => 5,
            Decision::Denied(_) => 4,
            Decision::Isolated => 3,
            _ if is_audited => 2,
            Decision::Open if self.passed.is_empty() => 0,
            Decision::Accepted(_) | Decision::Open => 1,
        }
    }
}

/// A value for every packet between two ends: for each protocol and port, and for what has no ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcomes<V: Eq + Clone = Outcome> {
    /// Of each protocol, in the order of [`Protocol::ALL`].
    ports: [Spans<V>; 3],
    other: V,
}

/// A value for every port: the first port of each span, and the value of all up to the next. Neighbours differ.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spans<V>(Vec<(u16, V)>);

impl<V: Eq + Clone> Spans<V> {
    /// The spans, each with its first and last port.
    fn iter(&self) -> impl Iterator<Item = (u16, u16, &V)> {
        let next = self.0.iter().skip(1).map(|(first, _)| first - 1).chain([u16::MAX]);
        self.0.iter().zip(next).map(|((first, value), last)| (*first, last, value))
    }

    /// Gives the ports of a range another value, by the one that each has.
    fn change(&mut self, first: u16, last: u16, mut value: impl FnMut(&V) -> V) {
        let from = self.cut(first);
        let to = last.checked_add(1).map_or(self.0.len(), |behind| self.cut(behind));
        for (_, old) in self.0.iter_mut().take(to).skip(from) {
            *old = value(old);
        }
        self.0.dedup_by(|next, before| next.1 == before.1);
    }

    /// Has a span begin at a port; its index.
    fn cut(&mut self, port: u16) -> usize {
        let index = self.0.partition_point(|(first, _)| *first < port);
        let begins = self.0.get(index).is_some_and(|(first, _)| *first == port);
        if !begins
            && let Some((_, value)) = index.checked_sub(1).and_then(|before| self.0.get(before)).cloned()
        {
            self.0.insert(index, (port, value));
        }
        index
    }

    fn map<W: Eq>(self, value: &mut impl FnMut(V) -> W) -> Spans<W> {
        let mut spans: Vec<_> = self.0.into_iter().map(|(first, before)| (first, value(before))).collect();
        spans.dedup_by(|next, before| next.1 == before.1);
        Spans(spans)
    }
}

/// A range of ports, and what becomes of packets to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) protocol: Protocol,
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) outcome: Outcome,
}

/// Where outcomes are not what they would be by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Divergence {
    /// The ports where they are not, sorted; with `other`, those where they are not that.
    pub(super) ports: Vec<Piece>,
    /// What becomes of packets to all other ports, and of those without ports, if it is not the default.
    pub(super) other: Option<Outcome>,
}

impl Divergence {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.other.is_none()
    }
}

impl<V: Eq + Clone> Outcomes<V> {
    /// The same for every packet.
    pub(super) fn uniform(value: &V) -> Self {
        Self { ports: Protocol::ALL.map(|_| Spans(vec![(0, value.clone())])), other: value.clone() }
    }

    /// Gives every packet another value, by the one that it has.
    pub(super) fn change(&mut self, mut value: impl FnMut(&V) -> V) {
        for ports in &mut self.ports {
            ports.change(0, u16::MAX, &mut value);
        }
        self.other = value(&self.other);
    }

    /// Gives packets to some ports another value.
    pub(super) fn change_ports(
        &mut self,
        protocol: Protocol,
        first: u16,
        last: u16,
        value: impl FnMut(&V) -> V,
    ) {
        let [tcp, udp, sctp] = &mut self.ports;
        let ports = match protocol {
            Protocol::Tcp => tcp,
            Protocol::Udp => udp,
            Protocol::Sctp => sctp,
        };
        ports.change(first, last, value);
    }

    /// The values as something else.
    pub(super) fn map<W: Eq + Clone>(self, mut value: impl FnMut(V) -> W) -> Outcomes<W> {
        Outcomes { ports: self.ports.map(|ports| ports.map(&mut value)), other: value(self.other) }
    }

    /// The values of ports: protocol, first and last port.
    fn ports(&self) -> impl Iterator<Item = (Protocol, u16, u16, &V)> {
        Protocol::ALL.into_iter().zip(&self.ports).flat_map(|(protocol, ports)| {
            ports.iter().map(move |(first, last, value)| (protocol, first, last, value))
        })
    }
}

impl Outcomes {
    /// Where any of several pods may be meant: a packet is allowed if it is for all of them. Nothing is allowed where
    /// there is none.
    pub(super) fn common(all: impl Iterator<Item = Self>) -> Self {
        let nobody = Outcome { passed: Vec::new(), decision: Decision::Isolated };
        all.reduce(|common, next| common.and(&next)).unwrap_or_else(|| Self::uniform(&nobody))
    }

    fn and(mut self, other: &Self) -> Self {
        let higher = |one: &Outcome, other: &Outcome| match one.rank().cmp(&other.rank()) {
            Ordering::Less => other.clone(),
            Ordering::Equal | Ordering::Greater => one.clone(),
        };
        for (protocol, first, last, outcome) in other.ports() {
            self.change_ports(protocol, first, last, |one| higher(one, outcome));
        }
        self.other = higher(&self.other, &other.other);
        self
    }

    /// Where these outcomes are not `default`.
    pub(super) fn divergence(&self, default: &Self) -> Divergence {
        let other = (self.other != default.other).then(|| self.other.clone());
        let mut diverging = self.clone().map(Some);
        match &other {
            Some(other) => diverging.change(|outcome| outcome.clone().filter(|outcome| outcome != other)),
            None => {
                for (protocol, first, last, default) in default.ports() {
                    diverging.change_ports(protocol, first, last, |outcome| {
                        outcome.clone().filter(|outcome| outcome != default)
                    });
                }
            }
        }
        let pieces = diverging.ports().filter_map(|(protocol, first, last, outcome)| {
            Some(Piece { protocol, first, last, outcome: outcome.clone()? })
        });
        Divergence { ports: pieces.collect(), other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(decision: Decision) -> Outcome {
        Outcome { passed: Vec::new(), decision }
    }

    fn accepted(rule: &str) -> Outcome {
        outcome(Decision::Accepted(ChainId::read(rule)))
    }

    fn denied(rule: &str) -> Outcome {
        outcome(Decision::Denied(ChainId::read(rule)))
    }

    /// Outcomes that are one for these ranges of TCP ports, and another everywhere else.
    fn outcomes(ranges: &[(u16, u16, Outcome)], else_: &Outcome) -> Outcomes {
        let mut outcomes = Outcomes::uniform(else_);
        for (first, last, outcome) in ranges {
            outcomes.change_ports(Protocol::Tcp, *first, *last, |_| outcome.clone());
        }
        outcomes
    }

    #[test]
    fn of_several_pods_the_strictest_outcome_counts() {
        let (isolated, open) = (outcome(Decision::Isolated), outcome(Decision::Open));
        let audited = |decision| Outcome { passed: vec![Passed::AuditedIsolation], decision };
        let passed = Outcome { passed: vec![Passed::Rule(ChainId::read("pass"))], decision: Decision::Open };
        let denied_behind = audited(Decision::Denied(ChainId::read("baseline")));
        let ascending = [open, passed, audited(Decision::Open), isolated, denied_behind, denied("deny")];
        for (index, higher) in ascending.iter().enumerate() {
            for lower in ascending.iter().take(index + 1) {
                for pair in [[lower, higher], [higher, lower]] {
                    let common = Outcomes::common(pair.into_iter().map(Outcomes::uniform));
                    assert_eq!(common, Outcomes::uniform(higher), "{lower:?} {higher:?}");
                }
            }
        }
        assert_eq!(
            Outcomes::common(std::iter::empty()),
            Outcomes::uniform(&outcome(Decision::Isolated)),
            "nobody is allowed anything"
        );
    }

    #[test]
    fn what_is_common_is_found_port_by_port() {
        let isolated = outcome(Decision::Isolated);
        let one = outcomes(&[(50, 60, accepted("a")), (70, 80, accepted("a"))], &isolated);
        let other = outcomes(&[(60, 75, accepted("b"))], &isolated);
        let common = outcomes(&[(60, 60, accepted("a")), (70, 75, accepted("a"))], &isolated);
        assert_eq!(Outcomes::common([one, other].into_iter()), common);
    }

    #[test]
    fn a_divergence_has_what_is_not_the_default_and_no_more() {
        let isolated = outcome(Decision::Isolated);
        let default = outcomes(&[(80, 80, accepted("everybody"))], &isolated);
        let cases = [
            ("the same", default.clone(), vec![], None),
            (
                "one port more",
                outcomes(&[(80, 80, accepted("everybody")), (443, 443, accepted("a"))], &isolated),
                vec![(443, 443, accepted("a"))],
                None,
            ),
            (
                "a range around a port that is the default",
                outcomes(&[(1, 100, accepted("everybody"))], &isolated),
                vec![(1, 79, accepted("everybody")), (81, 100, accepted("everybody"))],
                None,
            ),
            (
                "a range across a border of the default is one piece",
                outcomes(&[(70, 90, denied("d"))], &isolated),
                vec![(70, 90, denied("d"))],
                None,
            ),
            ("a port that is no more", outcomes(&[], &isolated), vec![(80, 80, isolated.clone())], None),
            (
                "all but a port that is the default",
                outcomes(&[(80, 80, accepted("everybody"))], &denied("d")),
                vec![(80, 80, accepted("everybody"))],
                Some(denied("d")),
            ),
        ];
        for (name, outcomes, expected, other) in cases {
            let divergence = outcomes.divergence(&default);
            assert_eq!(divergence.other, other, "{name}");
            assert_eq!(divergence.is_empty(), expected.is_empty() && divergence.other.is_none(), "{name}");
            let ports = divergence.ports.into_iter().map(|piece| {
                assert_eq!(piece.protocol, Protocol::Tcp, "{name}");
                (piece.first, piece.last, piece.outcome)
            });
            assert_eq!(ports.collect::<Vec<_>>(), expected, "{name}");
        }
    }
}
