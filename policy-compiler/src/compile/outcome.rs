//! What becomes of the packets between two ends, for every protocol and port.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use rangemap::RangeInclusiveMap;

use super::ranges;
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
    /// No protocol lacks a port.
    ports: BTreeMap<Protocol, RangeInclusiveMap<u16, V>>,
    other: V,
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
        let all_ports = || RangeInclusiveMap::from_iter([(0..=u16::MAX, value.clone())]);
        let ports = Protocol::ALL.into_iter().map(|protocol| (protocol, all_ports())).collect();
        Self { ports, other: value.clone() }
    }

    /// Gives every packet another value, by the one that it has.
    pub(super) fn change(&mut self, mut value: impl FnMut(&V) -> V) {
        for protocol in Protocol::ALL {
            self.change_ports(protocol, 0, u16::MAX, &mut value);
        }
        self.other = value(&self.other);
    }

    /// Gives packets to some ports another value.
    pub(super) fn change_ports(
        &mut self,
        protocol: Protocol,
        first: u16,
        last: u16,
        mut value: impl FnMut(&V) -> V,
    ) {
        if let Some(ports) = self.ports.get_mut(&protocol) {
            ranges::change(ports, &(first..=last), |before| before.map(&mut value));
        }
    }

    /// The values as something else.
    pub(super) fn map<W: Eq + Clone>(self, mut value: impl FnMut(V) -> W) -> Outcomes<W> {
        let mut map_ports = |ports: RangeInclusiveMap<u16, V>| {
            ports.into_iter().map(|(range, before)| (range, value(before))).collect()
        };
        let ports = self.ports.into_iter().map(|(protocol, ports)| (protocol, map_ports(ports))).collect();
        Outcomes { ports, other: value(self.other) }
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
        for (protocol, ports) in &other.ports {
            for (range, outcome) in ports.iter() {
                self.change_ports(*protocol, *range.start(), *range.end(), |one| higher(one, outcome));
            }
        }
        self.other = higher(&self.other, &other.other);
        self
    }

    /// Where these outcomes are not `default`.
    pub(super) fn divergence(&self, default: &Self) -> Divergence {
        let other = (self.other != default.other).then(|| self.other.clone());
        let mut ports = Vec::new();
        for (protocol, outcomes) in &self.ports {
            for (range, outcome) in outcomes.iter() {
                let piece = |first: u16, last: u16| Piece {
                    protocol: *protocol,
                    first,
                    last,
                    outcome: outcome.clone(),
                };
                match &other {
                    Some(other) if outcome == other => {}
                    Some(_) => ports.push(piece(*range.start(), *range.end())),
                    None => {
                        let differing = default.differing(*protocol, range, outcome);
                        ports.extend(differing.into_iter().map(|(first, last)| piece(first, last)));
                    }
                }
            }
        }
        Divergence { ports, other }
    }

    /// The parts of a range in which these outcomes are not `outcome`.
    fn differing(
        &self,
        protocol: Protocol,
        range: &std::ops::RangeInclusive<u16>,
        outcome: &Outcome,
    ) -> Vec<(u16, u16)> {
        let parts = self.ports.get(&protocol).into_iter().flat_map(|ports| ports.overlapping(range));
        let differing = parts.filter(|(_, default)| *default != outcome);
        let mut differing: Vec<_> = differing
            .map(|(part, _)| (*part.start().max(range.start()), *part.end().min(range.end())))
            .collect();
        // Neighbours are one piece, whatever the default is in each.
        differing.dedup_by(|next, before| {
            let adjacent = before.1.checked_add(1) == Some(next.0);
            if adjacent {
                before.1 = next.1;
            }
            adjacent
        });
        differing
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
