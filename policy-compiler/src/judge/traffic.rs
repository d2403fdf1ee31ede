//! All that a connection may carry, cut so that each part is treated alike.

use std::collections::BTreeSet;
use std::fmt;

use super::{Judge, Party, Traffic};
use crate::model::{Direction, PortMatch, PortNumber, PortRange, Protocol};

/// Traffic that one answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrafficRange {
    /// A protocol that policies can name, to any of these ports of the destination.
    Ports(Protocol, PortRange),
    /// ICMP and every other protocol that no policy can name.
    Other,
}

impl TrafficRange {
    /// Every port of a protocol.
    pub fn every_port(protocol: Protocol) -> Self {
        let all = PortRange::new(PortNumber::MIN, PortNumber::MAX);
        Self::Ports(protocol, all.unwrap_or(PortRange::single(PortNumber::MIN)))
    }

    /// What none of `ranges`, which are in ascending order and have nothing in common, is about.
    pub fn all_but(ranges: &[Self]) -> Vec<Self> {
        let ports = Protocol::ALL.into_iter().flat_map(|protocol| {
            let taken = ranges.iter().filter_map(move |range| match range {
                Self::Ports(of, ports) if *of == protocol => Some(*ports),
                _ => None,
            });
            // No port is 0: there is no gap behind the last port, nor before the first.
            let gap = move |first: u16, last: u16| {
                let ports = PortRange::new(PortNumber::new(first)?, PortNumber::new(last)?)?;
                Some(Self::Ports(protocol, ports))
            };
            let begins = [1].into_iter().chain(taken.clone().map(|ports| ports.last().get().wrapping_add(1)));
            let ends = taken.map(|ports| ports.first().get() - 1).chain([u16::MAX]);
            begins.zip(ends).filter_map(move |(first, last)| gap(first, last))
        });
        let other = (!ranges.contains(&Self::Other)).then_some(Self::Other);
        ports.chain(other).collect()
    }

    /// One of the connections that it is about.
    pub fn example(self) -> Traffic {
        match self {
            Self::Ports(protocol, ports) => Traffic::Port(protocol, ports.first()),
            Self::Other => Traffic::Other,
        }
    }

    /// Whether it is about this traffic.
    pub fn contains(self, traffic: Traffic) -> bool {
        match (self, traffic) {
            (Self::Ports(protocol, ports), Traffic::Port(of, port)) => protocol == of && ports.contains(port),
            (Self::Other, Traffic::Other) => true,
            _ => false,
        }
    }

    /// This and `next` in one, where nothing lies between the two.
    pub fn joined(self, next: Self) -> Option<Self> {
        match (self, next) {
            (Self::Ports(protocol, one), Self::Ports(of, other))
                if protocol == of && one.last().checked_add(1) == Some(other.first()) =>
            {
                PortRange::new(one.first(), other.last()).map(|ports| Self::Ports(protocol, ports))
            }
            _ => None,
        }
    }
}

impl From<Traffic> for TrafficRange {
    fn from(traffic: Traffic) -> Self {
        match traffic {
            Traffic::Port(protocol, port) => Self::Ports(protocol, PortRange::single(port)),
            Traffic::Other => Self::Other,
        }
    }
}

/// `80/TCP`, `8000-8999/TCP`, `every UDP port`, `ICMP and other protocols`
impl fmt::Display for TrafficRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports(protocol, _) if *self == Self::every_port(*protocol) => {
                write!(f, "every {protocol} port")
            }
            Self::Ports(protocol, ports) if ports.first() == ports.last() => {
                write!(f, "{}/{protocol}", ports.first())
            }
            Self::Ports(protocol, ports) => write!(f, "{}-{}/{protocol}", ports.first(), ports.last()),
            Self::Other => f.write_str("ICMP and other protocols"),
        }
    }
}

impl<'a> Judge<'a> {
    /// Everything that can go from one end to another, cut so that each rule of the policies that isolate them covers
    /// all of a part or nothing of it. In ascending order.
    pub fn traffic_parts(&self, from: &Party<'a>, to: &Party<'a>) -> Vec<TrafficRange> {
        let cuts = self.cuts(from, to);
        let parts = Protocol::ALL.into_iter().flat_map(|protocol| {
            let mut begins = BTreeSet::from([PortNumber::MIN]);
            for (_, ports) in cuts.iter().filter(|(of, _)| *of == protocol) {
                begins.insert(ports.first());
                begins.extend(ports.last().checked_add(1));
            }
            let before = |next: &PortNumber| PortNumber::new(next.get() - 1);
            let ends: Vec<_> = begins.iter().filter_map(before).chain([PortNumber::MAX]).collect();
            let ranges = begins.into_iter().zip(ends).filter_map(|(first, last)| PortRange::new(first, last));
            ranges.map(move |ports| TrafficRange::Ports(protocol, ports)).collect::<Vec<_>>()
        });
        parts.chain([TrafficRange::Other]).collect()
    }

    /// The ports of every rule that judges an end in one direction.
    fn ports_named(&self, direction: Direction, subject: &Party<'a>) -> Vec<&'a PortMatch> {
        let mut rules = Vec::new();
        for subject in self.each(subject) {
            rules.extend(
                self.isolating(direction, &subject).iter().flat_map(|by| &by.rules).map(|by| by.rule),
            );
            let effects = subject.member.into_iter().flat_map(|member| self.tiers(direction).on(member));
            rules.extend(effects.map(|effect| effect.covered.rule));
        }
        rules.into_iter().flat_map(|rule| rule.ports.iter().flatten()).collect()
    }

    /// The ports that the rules name.
    fn cuts(&self, from: &Party<'a>, to: &Party<'a>) -> Vec<(Protocol, PortRange)> {
        let mut cuts = Vec::new();
        for (direction, subject) in [(Direction::Egress, from), (Direction::Ingress, to)] {
            for port in self.ports_named(direction, subject) {
                match port {
                    PortMatch::All(_) => {}
                    PortMatch::Range(protocol, range) => cuts.push((*protocol, *range)),
                    PortMatch::Named(protocol, name) => {
                        let pods = self.each(to).into_iter().filter_map(|end| end.pod);
                        let numbers = pods.flat_map(|pod| pod.resolve(name, *protocol));
                        cuts.extend(numbers.map(|number| (*protocol, PortRange::single(number))));
                    }
                }
            }
        }
        cuts
    }
}
