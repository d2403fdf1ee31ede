//! Ranges of addresses, and the one way to cut them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use rangemap::{RangeInclusiveMap, RangeInclusiveSet, StepFns};

use crate::model::{Family, IpBlock};
use crate::ruleset::ElementKey;

/// A value for each of some addresses of both families. Neighbours of one family with equal values are one range.
pub(super) type AddressMap<V> = RangeInclusiveMap<IpAddr, V, AddressSteps>;

/// Addresses of both families as ranges.
pub(super) type AddressRanges = RangeInclusiveSet<IpAddr, AddressSteps>;

/// Which addresses are neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AddressSteps {}

impl StepFns<IpAddr> for AddressSteps {
    /// The highest address of a family has no neighbour above it, not even the lowest of the other family.
    fn add_one(address: &IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().saturating_add(1)).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().saturating_add(1)).into(),
        }
    }

    fn sub_one(address: &IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().saturating_sub(1)).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().saturating_sub(1)).into(),
        }
    }
}

/// The addresses of a network.
pub(super) fn of_network(network: IpNet) -> RangeInclusive<IpAddr> {
    network.network()..=network.broadcast()
}

/// The addresses of some networks.
pub(super) fn of_networks<'a>(networks: impl IntoIterator<Item = &'a IpNet>) -> AddressRanges {
    let mut ranges = AddressRanges::default();
    networks.into_iter().for_each(|network| ranges.insert(of_network(*network)));
    ranges
}

/// The addresses of some blocks, each without its exceptions.
pub(super) fn of_blocks(blocks: &[IpBlock]) -> AddressRanges {
    let mut all = AddressRanges::default();
    for block in blocks {
        if block.except.is_empty() {
            all.insert(of_network(block.cidr));
            continue;
        }
        let mut ranges = of_networks([&block.cidr]);
        block.except.iter().for_each(|hole| ranges.remove(of_network(*hole)));
        ranges.iter().for_each(|range| all.insert(range.clone()));
    }
    all
}

/// The keys of a set that has the addresses of a family among these.
pub(super) fn elements(ranges: &AddressRanges, family: Family) -> impl Iterator<Item = ElementKey> {
    let of_family = ranges.iter().filter(move |range| Family::of(*range.start()) == family);
    of_family.map(|range| ElementKey::AddressRange(*range.start(), *range.end()))
}

/// The ranges that are in one of both only, and whether that is `now`.
pub(super) fn differences(
    before: &AddressRanges,
    now: &AddressRanges,
) -> Vec<(RangeInclusive<IpAddr>, bool)> {
    let without = |all: &AddressRanges, others: &AddressRanges| {
        let mut left = all.clone();
        others.iter().for_each(|range| left.remove(range.clone()));
        left
    };
    let [gone, come] = [without(before, now), without(now, before)];
    let gone = gone.iter().map(|range| (range.clone(), false));
    gone.chain(come.iter().map(|range| (range.clone(), true))).collect()
}

/// Link-local addresses: from outside a pod's door it cannot be seen whose one is.
pub(super) fn link_local() -> RangeInclusive<IpAddr> {
    let (first, last) = (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 0xfebf << 112 | u128::MAX >> 16);
    first.into()..=Ipv6Addr::from_bits(last).into()
}

/// The parts of a range outside and inside another one, and whether they are inside.
pub(super) fn apart(
    range: &RangeInclusive<IpAddr>,
    other: &RangeInclusive<IpAddr>,
) -> Vec<(RangeInclusive<IpAddr>, bool)> {
    let mut whole = AddressRanges::default();
    whole.insert(range.clone());
    let mut outside = whole.clone();
    outside.remove(other.clone());
    let inside = differences(&whole, &outside).into_iter().map(|(part, _)| (part, true));
    outside.iter().map(|part| (part.clone(), false)).chain(inside).collect()
}

/// The range with the neighbours at both of its ends.
pub(super) fn with_neighbours(range: &RangeInclusive<IpAddr>) -> RangeInclusive<IpAddr> {
    AddressSteps::sub_one(range.start())..=AddressSteps::add_one(range.end())
}

/// Gives every key of a range another value, by the one that it has; without a value, a key is in no range.
pub(super) fn change<K: Ord + Clone, V: Eq + Clone, Steps: StepFns<K>>(
    map: &mut RangeInclusiveMap<K, V, Steps>,
    range: &RangeInclusive<K>,
    mut value: impl FnMut(Option<&V>) -> Option<V>,
) {
    let inside = |part: &RangeInclusive<K>| {
        part.start().max(range.start()).clone()..=part.end().min(range.end()).clone()
    };
    let mut parts: Vec<(RangeInclusive<K>, Option<V>)> = Vec::new();
    parts.extend(map.overlapping(range).map(|(part, old)| (inside(part), value(Some(old)))));
    parts.extend(map.gaps(range).map(|gap| (gap, value(None))));
    for (part, value) in parts {
        match value {
            Some(value) => map.insert(part, value),
            None => map.remove(part),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, except: &[&str]) -> IpBlock {
        let network = |text: &str| text.parse().unwrap();
        IpBlock { cidr: network(cidr), except: except.iter().map(|hole| network(hole)).collect() }
    }

    #[test]
    fn a_block_is_what_its_exceptions_leave() {
        let cases: [(&str, &[&str], &[&str]); 9] = [
            ("10.0.0.0/30", &[], &["10.0.0.0-10.0.0.3"]),
            ("10.0.0.0/29", &["10.0.0.6/31", "10.0.0.0/31"], &["10.0.0.2-10.0.0.5"]),
            ("10.0.0.0/29", &["10.0.0.2/31", "10.0.0.4/32"], &["10.0.0.0-10.0.0.1", "10.0.0.5-10.0.0.7"]),
            ("10.0.0.0/29", &["10.0.0.4/30", "10.0.0.4/31", "10.0.0.4/31"], &["10.0.0.0-10.0.0.3"]),
            ("10.0.0.0/31", &["10.0.0.1/32", "10.0.0.0/32"], &[]),
            ("0.0.0.0/0", &["0.0.0.0/32"], &["0.0.0.1-255.255.255.255"]),
            ("0.0.0.0/0", &["128.0.0.0/1"], &["0.0.0.0-127.255.255.255"]),
            ("255.255.255.254/31", &[], &["255.255.255.254-255.255.255.255"]),
            ("::/0", &["8000::/1", "::/128"], &["::1-7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]),
        ];
        for (cidr, except, expected) in cases {
            let ranges = of_blocks(&[block(cidr, except)]);
            let ranges: Vec<_> =
                ranges.iter().map(|range| format!("{}-{}", range.start(), range.end())).collect();
            assert_eq!(ranges, expected, "{cidr} except {except:?}");
        }
    }

    #[test]
    fn the_families_have_no_common_border() {
        let both = of_networks(&["0.0.0.0/0", "::/0"].map(|network| network.parse().unwrap()));
        assert_eq!(both.iter().count(), 2);
    }

    #[test]
    fn a_change_cuts_what_it_overlaps_and_fills_the_gaps() {
        let mut map = RangeInclusiveMap::<u16, &str>::new();
        map.insert(10..=20, "a");
        map.insert(30..=40, "b");
        change(&mut map, &(15..=35), |old| match old {
            Some(&"a") => None,
            Some(_) => Some("changed"),
            None => Some("new"),
        });
        change(&mut map, &(u16::MAX..=u16::MAX), |_| Some("last"));
        let ranges: Vec<_> =
            map.iter().map(|(range, value)| (*range.start(), *range.end(), *value)).collect();
        let last = (u16::MAX, u16::MAX, "last");
        assert_eq!(ranges, [(10, 14, "a"), (21, 29, "new"), (30, 35, "changed"), (36, 40, "b"), last]);
    }
}
