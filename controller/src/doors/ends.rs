//! What is known of the pods' ends of their links.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

use policy_compiler::model::{LinkAddress, ObjectName};

use super::Finder;
use crate::kernel::routes::{End, Link};

/// A door, and what its other end is known by.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) device: u32,
    pub(super) end: Option<End>,
    pub(super) link_address: Option<LinkAddress>,
    pub(super) link_local: BTreeSet<Ipv6Addr>,
    /// The node's link-local addresses at the bridge.
    pub(super) beside: BTreeSet<Ipv6Addr>,
    /// Whether the end shows something that is another's.
    withheld: bool,
}

impl Held {
    pub(super) fn new(link: &Link) -> Self {
        Self {
            device: link.index,
            end: link.end,
            link_address: None,
            link_local: BTreeSet::new(),
            beside: BTreeSet::new(),
            withheld: false,
        }
    }
}

impl Finder {
    /// Reads the other ends of the doors that a round is about, and of those which were denied something that
    /// may be free by now. Says whether one is known by something else than before.
    pub(super) fn read_ends(&mut self, moved: &BTreeSet<ObjectName>) -> io::Result<bool> {
        let names = self
            .held
            .iter()
            .filter(|(name, held)| held.withheld || moved.contains(*name) || self.concerned.contains(*name));
        let names: Vec<_> = names.map(|(name, _)| name.clone()).collect();
        names.iter().try_fold(false, |changed, name| Ok(self.read_end(name)? || changed))
    }

    /// A door is known by what its end shows, except what another door is known by already, what the node's
    /// devices have, and what is no address of a single device. In the place of a link address that it may not
    /// have, it keeps the one before.
    fn read_end(&mut self, name: &ObjectName) -> io::Result<bool> {
        let Some(device) = self.held.get(name).map(|held| held.device) else { return Ok(false) };
        let shown = self.network.end(device)?;
        let beside: BTreeSet<_> = self.network.beside(device)?.iter().filter_map(link_local).collect();
        let others = || self.held.iter().filter(|(other, _)| *other != name).map(|(_, held)| held);

        let is_unicast = |address: &LinkAddress| address.0[0] & 1 == 0 && address.0 != [0; 6];
        let is_own = |address: &LinkAddress| {
            !self.network.has(*address) && others().all(|held| held.link_address != Some(*address))
        };
        let link_address = shown.link_address.filter(|address| is_unicast(address) && is_own(address));
        let link_local: BTreeSet<_> = shown.addresses.iter().filter_map(link_local).collect();
        let is_others = |address: &Ipv6Addr| {
            beside.contains(address) || others().any(|held| held.link_local.contains(address))
        };
        let own: BTreeSet<_> = link_local.iter().copied().filter(|address| !is_others(address)).collect();

        let withheld = link_address != shown.link_address || own != link_local;
        let Some(held) = self.held.get_mut(name) else { return Ok(false) };
        held.withheld = withheld;
        let link_address = link_address.or(held.link_address);
        let changed = (held.link_address, &held.link_local, &held.beside) != (link_address, &own, &beside);
        (held.link_address, held.link_local, held.beside) = (link_address, own, beside);
        Ok(changed)
    }
}

/// The address, if it is one of `fe80::/10`.
fn link_local(address: &IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => Some(*address),
        IpAddr::V6(_) | IpAddr::V4(_) => None,
    }
}
