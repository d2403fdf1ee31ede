//! Which ports a number of rules open together, and which rule counts a packet.

use std::collections::BTreeMap;
use std::fmt;

use rangemap::RangeInclusiveMap;

use super::ranges;
use crate::model::{PortMatch, PortNumber, Protocol};
use crate::ruleset::{ChainId, Element, ElementKey, KeyType, SetKind};

/// What some rules allow between two ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// Every protocol and port; this rule says so.
    Everything(ChainId),
    /// These ports, sorted and without overlaps.
    Ports(Vec<Opening>),
}

/// A range of ports that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    protocol: Protocol,
    first: u16,
    last: u16,
    /// The chain of the first rule that opens it.
    rule: ChainId,
}

impl Opening {
    /// The chain of the rule that opens it.
    pub(super) fn rule(&self) -> &ChainId {
        &self.rule
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}-{} {}", self.protocol, self.first, self.last, self.rule)
    }
}

impl Access {
    /// What `rules` allow together: of each the chain, its `ports`, and what its named ports resolve to.
    /// `None` if that is nothing.
    pub(super) fn of<'a>(
        rules: impl Iterator<Item = (&'a ChainId, Option<&'a [PortMatch]>, Vec<(Protocol, PortNumber)>)>,
    ) -> Option<Self> {
        let mut opened: BTreeMap<Protocol, RangeInclusiveMap<u16, &ChainId>> = BTreeMap::new();
        for (chain, ports, named) in rules {
            let Some(ports) = ports else {
                return Some(Self::Everything(chain.clone()));
            };
            let numeric = ports.iter().filter_map(|port| match port {
                PortMatch::All(protocol) => Some((*protocol, 0, u16::MAX)),
                PortMatch::Range(protocol, range) => {
                    Some((*protocol, range.first().get(), range.last().get()))
                }
                PortMatch::Named(..) => None,
            });
            let named = named.into_iter().map(|(protocol, port)| (protocol, port.get(), port.get()));
            for (protocol, first, last) in numeric.chain(named) {
                // Where several rules open a port, the first has it.
                ranges::change(opened.entry(protocol).or_default(), &(first..=last), |before| {
                    Some(before.copied().unwrap_or(chain))
                });
            }
        }
        let ports: Vec<_> = opened
            .into_iter()
            .flat_map(|(protocol, ranges)| {
                ranges.into_iter().map(move |(range, rule)| Opening {
                    protocol,
                    first: *range.start(),
                    last: *range.end(),
                    rule: rule.clone(),
                })
            })
            .collect();
        (!ports.is_empty()).then_some(Self::Ports(ports))
    }
}

impl Access {
    /// What both of them allow; `None` if that is nothing. The rules of `self` say so.
    fn and(&self, other: &Self) -> Option<Self> {
        let (ours, theirs) = match (self, other) {
            (_, Self::Everything(_)) => return Some(self.clone()),
            (Self::Everything(_), Self::Ports(_)) => return Some(other.clone()),
            (Self::Ports(ours), Self::Ports(theirs)) => (ours, theirs),
        };
        let mut ports = Vec::new();
        for our in ours {
            for their in theirs.iter().filter(|their| their.protocol == our.protocol) {
                let (first, last) = (our.first.max(their.first), our.last.min(their.last));
                if first <= last {
                    ports.push(Opening { first, last, ..our.clone() });
                }
            }
        }
        (!ports.is_empty()).then_some(Self::Ports(ports))
    }

    /// What all of them allow; `None` if that is nothing, or there is none of them.
    pub(super) fn common(mut all: impl Iterator<Item = Option<Self>>) -> Option<Self> {
        let first = all.next()??;
        all.try_fold(first, |common, next| common.and(&next?))
    }
}

/// The map that open ports become.
pub(super) fn port_map(ports: &[Opening]) -> (SetKind, BTreeMap<ElementKey, Element>) {
    let interval = ports.iter().any(|port| port.first != port.last);
    let elements = ports.iter().map(|port| {
        let element = Element { target: Some(port.rule.clone()), comment: None };
        (ElementKey::ProtocolPort(port.protocol, port.first, port.last), element)
    });
    (SetKind { key: KeyType::ProtocolPort, interval, verdicts: true }, elements.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PortRange;

    type Ranges<'a> = &'a [(u16, u16, &'a ChainId)];

    #[test]
    fn what_is_common_to_several_is_what_each_allows() {
        use Protocol::{Tcp, Udp};
        let [a, b] = ["a", "b"].map(ChainId::read);
        let everything = |rule: &ChainId| Some(Access::Everything(rule.clone()));
        let ports = |rule: &ChainId, ranges: &[(Protocol, u16, u16)]| {
            let opening = |(protocol, first, last)| Opening { protocol, first, last, rule: rule.clone() };
            Some(Access::Ports(ranges.iter().copied().map(opening).collect()))
        };
        let cases = [
            (everything(&a), everything(&b), everything(&a)),
            (everything(&a), ports(&b, &[(Tcp, 80, 80)]), ports(&b, &[(Tcp, 80, 80)])),
            (ports(&a, &[(Tcp, 80, 80)]), everything(&b), ports(&a, &[(Tcp, 80, 80)])),
            (
                ports(&a, &[(Tcp, 50, 60), (Tcp, 70, 80), (Udp, 1, 9)]),
                ports(&b, &[(Tcp, 60, 75), (Udp, 3, 4)]),
                ports(&a, &[(Tcp, 60, 60), (Tcp, 70, 75), (Udp, 3, 4)]),
            ),
            (ports(&a, &[(Tcp, 80, 80)]), ports(&b, &[(Udp, 80, 80)]), None),
            (everything(&a), None, None),
        ];
        for (one, other, common) in cases {
            assert_eq!(Access::common([one.clone(), other.clone()].into_iter()), common, "{one:?} {other:?}");
        }
        assert_eq!(Access::common(std::iter::empty()), None);
    }

    #[test]
    fn where_rules_open_the_same_ports_the_first_has_them() {
        let [a, b] = ["a", "b"].map(ChainId::read);
        let cases: [(Ranges<'_>, Ranges<'_>); 6] = [
            (&[(80, 80, &a), (443, 443, &b)], &[(80, 80, &a), (443, 443, &b)]),
            (&[(80, 80, &a), (80, 80, &b)], &[(80, 80, &a)]),
            (&[(50, 60, &a), (1, u16::MAX, &b)], &[(1, 49, &b), (50, 60, &a), (61, u16::MAX, &b)]),
            (&[(10, 20, &a), (15, 30, &b)], &[(10, 20, &a), (21, 30, &b)]),
            (&[(10, 20, &a), (21, 30, &a)], &[(10, 30, &a)]),
            (&[(u16::MAX, u16::MAX, &a), (1, u16::MAX, &a)], &[(1, u16::MAX, &a)]),
        ];
        for (ranges, expected) in cases {
            let port = |number| PortNumber::new(number).unwrap();
            let matches: Vec<_> = ranges
                .iter()
                .map(|(first, last, _)| PortRange::new(port(*first), port(*last)).unwrap())
                .map(|range| [PortMatch::Range(Protocol::Tcp, range)])
                .collect();
            let rules = ranges.iter().zip(&matches);
            let access = Access::of(rules.map(|((_, _, rule), ports)| (*rule, Some(&ports[..]), Vec::new())));
            let expected = expected.iter().map(|(first, last, rule)| Opening {
                protocol: Protocol::Tcp,
                first: *first,
                last: *last,
                rule: (*rule).clone(),
            });
            assert_eq!(access, Some(Access::Ports(expected.collect())), "{ranges:?}");
        }
    }
}
