//! Address blocks, cut at every boundary: each piece knows exactly which rules name it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::model::{Family, IpBlock};

/// A run of addresses that the same blocks contain.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<T> {
    pub(super) first: IpAddr,
    pub(super) last: IpAddr,
    /// What belongs to the blocks that contain it; never empty.
    pub(super) members: BTreeSet<T>,
}

/// The pieces of `blocks` of one family, in ascending order. Neighbours differ in their members.
pub(super) fn pieces<'a, T: Ord + Clone + 'a>(
    family: Family,
    blocks: impl Iterator<Item = (&'a IpBlock, &'a T)>,
) -> Vec<Piece<T>> {
    let mut boundaries: Vec<Boundary<'a, T>> = Vec::new();
    for (block, member) in blocks {
        let covered = Bounds::of(block.cidr);
        if Family::of(block.cidr.addr()) == family {
            for range in without(covered, &block.except) {
                boundaries.push(Boundary { at: range.first, opens: Some(member), closes: None });
                if let Some(behind) = range.last.checked_add(1) {
                    boundaries.push(Boundary { at: behind, opens: None, closes: Some(member) });
                }
            }
        }
    }
    boundaries.sort_by_key(|boundary| boundary.at);
    sweep(family, &boundaries)
}

/// Where a block begins or ends; the place is an address as a number.
struct Boundary<'a, T> {
    at: u128,
    opens: Option<&'a T>,
    closes: Option<&'a T>,
}

fn sweep<T: Ord + Clone>(family: Family, boundaries: &[Boundary<'_, T>]) -> Vec<Piece<T>> {
    // How many open blocks a member has here: one rule may name overlapping blocks.
    let mut open: std::collections::BTreeMap<&T, usize> = std::collections::BTreeMap::new();
    let mut pieces: Vec<Piece<T>> = Vec::new();
    for (index, boundary) in boundaries.iter().enumerate() {
        if let Some(member) = boundary.opens {
            *open.entry(member).or_default() += 1;
        }
        if let Some(member) = boundary.closes
            && let Some(count) = open.get_mut(member)
        {
            *count -= 1;
            if *count == 0 {
                open.remove(member);
            }
        }
        let next = boundaries.get(index + 1).map(|next| next.at);
        if next == Some(boundary.at) || open.is_empty() {
            continue;
        }
        let members: BTreeSet<T> = open.keys().map(|member| (*member).clone()).collect();
        let first = address(family, boundary.at);
        let last = next.map_or_else(|| highest(family), |next| address(family, next - 1));
        match pieces.last_mut() {
            Some(before)
                if before.members == members && number(before.last).checked_add(1) == Some(boundary.at) =>
            {
                before.last = last;
            }
            _ => pieces.push(Piece { first, last, members }),
        }
    }
    pieces
}

#[derive(Clone, Copy)]
struct Bounds {
    first: u128,
    last: u128,
}

impl Bounds {
    fn of(network: IpNet) -> Self {
        Self { first: number(network.network()), last: number(network.broadcast()) }
    }
}

/// What is left of `covered` without the holes, in ascending order.
fn without(covered: Bounds, holes: &[IpNet]) -> Vec<Bounds> {
    let mut holes: Vec<Bounds> = holes.iter().map(|hole| Bounds::of(*hole)).collect();
    holes.sort_by_key(|hole| hole.first);
    let mut left = Vec::new();
    let mut next = Some(covered.first);
    for hole in holes {
        let Some(first) = next else { break };
        if hole.first > first {
            left.push(Bounds { first, last: hole.first - 1 });
        }
        next = hole.last.checked_add(1).map(|behind| behind.max(first));
    }
    if let Some(first) = next
        && first <= covered.last
    {
        left.push(Bounds { first, last: covered.last });
    }
    left
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        // The sum of a block's bounds and one never leaves the family: the highest address opens no piece.
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX))),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

fn highest(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::BROADCAST),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
    }
}
