//! A block of addresses, cut so that each part is treated alike.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Judge;
use crate::model::{Direction, Family, NetworkPolicy, Rule};

/// Addresses from the first to the last, both of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    /// The lowest address.
    pub first: IpAddr,
    /// The highest address.
    pub last: IpAddr,
}

impl AddressRange {
    /// The blocks that hold these addresses and no others, the fewest there are.
    pub fn blocks(self) -> Vec<IpNet> {
        match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                ipnet::Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                ipnet::Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Judge<'_> {
    /// The addresses of `block`, cut so that all of a part are in the same blocks of policies and none or one of them
    /// belongs to a pod or node. In ascending order.
    pub fn address_parts(&self, block: IpNet) -> Vec<AddressRange> {
        let policies = self.cluster.policies().values();
        let rules = policies.flat_map(|policy: &NetworkPolicy| {
            Direction::BOTH.into_iter().filter_map(|direction| policy.rules(direction)).flatten()
        });
        let policies = self.cluster.cluster_policies().values();
        let tier_rules = policies
            .flat_map(|policy| Direction::BOTH.into_iter().flat_map(|direction| policy.rules(direction)));
        let rules = rules.chain(tier_rules.map(|rule| &rule.rule));
        let of_rules =
            rules.flat_map(Rule::blocks).flat_map(|block| block.except.iter().chain([&block.cidr]));
        let of_pods = self.cluster.pods().values().flat_map(|pod| &pod.addresses);
        let of_nodes = self.cluster.nodes().values().flat_map(|node| &node.addresses);
        let single = of_pods.chain(of_nodes).map(|address| IpNet::from(*address));
        let inside = of_rules.copied().chain(single).filter(|other| block.contains(other));
        let begins: BTreeSet<_> = inside
            .flat_map(|part| [Some(number(part.network())), number(part.broadcast()).checked_add(1)])
            .flatten()
            .chain([number(block.network())])
            .filter(|begin| *begin <= number(block.broadcast()))
            .collect();
        let ends = begins.iter().skip(1).map(|next| next - 1).chain([number(block.broadcast())]);
        let family = Family::of(block.addr());
        begins
            .iter()
            .zip(ends)
            .map(|(first, last)| AddressRange { first: address(family, *first), last: address(family, last) })
            .collect()
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address of a [`number`] of the same family.
fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        Family::Ipv6 => IpAddr::V6(number.into()),
    }
}
