//! What the kernel says about devices, routes, and the other ends of links; remembered as long as nothing hints
//! at a change.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use policy_compiler::model::{LinkAddress, Tunnel};

use super::assignment::{Candidate, Lead};
use crate::kernel::routes::{Link, Socket};

/// The kinds of devices that container runtimes put pods behind: a pair with one end in the pod, and the taps of
/// virtual machines. A route to any other leads to no pod: hardware and tunnels lead out of the node, and
/// what macvlan and ipvlan carry bypasses it.
const DOORS: [&str; 3] = ["veth", "netkit", "tun"];

/// Devices on top of others that hand on what comes in below them.
const STACKED: [&str; 5] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"];

/// Devices that never deliver a packet of their own to the node: `ifb` gives packets back to where they came
/// from, a dummy drops them, `nlmon` copies netlink, and `vcan` carries no IP.
const SILENT: [&str; 4] = ["ifb", "dummy", "nlmon", "vcan"];

const NONE: &BTreeSet<IpAddr> = &BTreeSet::new();

/// The devices and routes of a network namespace.
pub(super) struct Network {
    socket: Socket,
    generic: Socket,
    links: BTreeMap<u32, Link>,
    /// When devices appeared, as far as that was seen.
    appeared: BTreeMap<u32, Instant>,
    tunnels: BTreeSet<Tunnel>,
    leads: BTreeMap<IpAddr, Lead>,
    /// The addresses of the devices' other ends.
    shown: BTreeMap<u32, BTreeSet<IpAddr>>,
    /// Whose were listed in this round.
    fresh: BTreeSet<u32>,
    /// The addresses of bridges, as they were in this round.
    bridges: BTreeMap<u32, BTreeSet<IpAddr>>,
}

/// The other end of a device.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) link_address: Option<LinkAddress>,
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl Network {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: Socket::open()?,
            generic: Socket::generic()?,
            links: BTreeMap::new(),
            appeared: BTreeMap::new(),
            tunnels: BTreeSet::new(),
            leads: BTreeMap::new(),
            shown: BTreeMap::new(),
            fresh: BTreeSet::new(),
            bridges: BTreeMap::new(),
        })
    }

    /// Begins a round, in which nothing is asked twice.
    pub(super) fn begin(&mut self) {
        self.fresh.clear();
        self.bridges.clear();
    }

    /// Lists the devices anew. What is known of those that are no more, or that are others of the same index,
    /// is forgotten.
    pub(super) fn list(&mut self) -> io::Result<()> {
        let links: BTreeMap<_, _> = self.socket.links()?.into_iter().map(|link| (link.index, link)).collect();
        let tunnels = links.values().filter(|link| link.up).flat_map(|link| link.tunnels.iter().copied());
        self.tunnels = tunnels.chain(self.generic.fou_ports()?).collect();
        let before = std::mem::replace(&mut self.links, links);
        let same = |index: &u32| match (before.get(index), self.links.get(index)) {
            (Some(before), Some(now)) => (&before.kind, before.end) == (&now.kind, now.end),
            _ => false,
        };
        self.shown.retain(|index, _| same(index));
        self.appeared.retain(|index, _| same(index));
        if !before.is_empty() {
            let now = Instant::now();
            let new = self.links.keys().filter(|index| !same(index));
            self.appeared.extend(new.map(|index| (*index, now)));
        }
        Ok(())
    }

    pub(super) fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// When a device appeared, if that was seen; said once.
    pub(super) fn take_appearance(&mut self, index: u32) -> Option<Instant> {
        self.appeared.remove(&index)
    }

    /// The device of a name.
    pub(super) fn named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| &*link.name == name)
    }

    /// What the devices that are up unpack, and FOU.
    pub(super) fn tunnels(&self) -> &BTreeSet<Tunnel> {
        &self.tunnels
    }

    /// Where the route to an address led when it was last looked up.
    pub(super) fn lead(&self, address: IpAddr) -> Lead {
        self.leads.get(&address).copied().unwrap_or(Lead::Nowhere)
    }

    /// Looks up the route to an address; says whether it leads elsewhere than before.
    pub(super) fn look_up(&mut self, address: IpAddr) -> io::Result<bool> {
        let route = self.socket.route_to(address)?.filter(|route| !route.indirect);
        let link = route.and_then(|route| self.links.get(&route.device));
        let lead = link.map_or(Lead::Nowhere, |link| self.lead_of(link));
        Ok(self.leads.insert(address, lead) != Some(lead))
    }

    /// Keeps nothing of addresses that are none any more.
    pub(super) fn forget_all_but(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.leads.retain(|address, _| addresses.contains(address));
    }

    fn lead_of(&self, link: &Link) -> Lead {
        let below = link.lower.and_then(|lower| self.links.get(&lower));
        match (link.kind.as_str(), below) {
            ("bridge", _) => Lead::Bridge(link.index),
            // A bridge that tells its ports apart by VLANs is reached by a device of the VLAN.
            ("vlan", Some(below)) if below.kind == "bridge" => Lead::Bridge(below.index),
            (kind, _) if DOORS.contains(&kind) => Lead::Device(link.index),
            _ => Lead::Nowhere,
        }
    }

    /// The bridge of which a device is a port.
    pub(super) fn bridge_of(&self, link: &Link) -> Option<u32> {
        let master = self.links.get(&link.master?)?;
        (master.kind == "bridge").then_some(master.index)
    }

    /// All devices that can be doors.
    pub(super) fn candidates(&self) -> BTreeMap<u32, Candidate<'_>> {
        let doors = self.links.values().filter(|link| DOORS.contains(&link.kind.as_str()));
        let candidate = |link: &Link| Candidate {
            bridge: self.bridge_of(link),
            shows: self.shown.get(&link.index).unwrap_or(NONE),
        };
        doors.map(|link| (link.index, candidate(link))).collect()
    }

    /// The ports of a bridge whose other ends can be seen.
    pub(super) fn ports(&self, bridge: u32) -> Vec<u32> {
        let ports = self.links.values().filter(|link| link.master == Some(bridge) && link.end.is_some());
        ports.map(|link| link.index).collect()
    }

    /// Whether the other end of a device showed one of some addresses when it was last asked.
    pub(super) fn shows(&self, device: u32, addresses: &[IpAddr]) -> bool {
        let shown = self.shown.get(&device);
        shown.is_some_and(|shown| addresses.iter().any(|address| shown.contains(address)))
    }

    /// Lists the addresses of a device's other end, unless that was done in this round.
    pub(super) fn show(&mut self, device: u32) -> io::Result<()> {
        if let Some(end) = self.links.get(&device).and_then(|link| link.end)
            && !self.fresh.contains(&device)
        {
            let addresses = self.socket.addresses_at(end)?;
            self.shown.insert(device, addresses);
            self.fresh.insert(device);
        }
        Ok(())
    }

    /// What the other end of a device shows now.
    pub(super) fn end(&mut self, device: u32) -> io::Result<Shown> {
        let Some(end) = self.links.get(&device).and_then(|link| link.end) else {
            return Ok(Shown::default());
        };
        self.show(device)?;
        let addresses = self.shown.get(&device).cloned().unwrap_or_default();
        Ok(Shown { link_address: self.socket.link_address_at(end)?, addresses })
    }

    /// The addresses of the bridge of which a device is a port.
    pub(super) fn beside(&mut self, device: u32) -> io::Result<&BTreeSet<IpAddr>> {
        let bridge = self.links.get(&device).and_then(|link| self.bridge_of(link));
        let Some(bridge) = bridge else { return Ok(NONE) };
        Ok(match self.bridges.entry(bridge) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(self.socket.addresses_of(bridge)?),
        })
    }

    /// Whether a device of the node has a link address.
    pub(super) fn has(&self, address: LinkAddress) -> bool {
        self.links.values().any(|link| link.address == Some(address))
    }

    /// The devices, up or down, by which packets come in that have not come by a door. These are all, except
    ///
    /// - the loopback device and the doors;
    /// - bridges with a door among their ports, and what is stacked on these: what comes in by them has come in
    ///   by a port. The ports that are no doors belong to this list;
    /// - devices that deliver nothing.
    pub(super) fn elsewhere(&self, doors: &BTreeSet<u32>) -> BTreeSet<Arc<str>> {
        let bridges: BTreeSet<_> = doors
            .iter()
            .filter_map(|door| self.links.get(door))
            .filter_map(|link| self.bridge_of(link))
            .collect();
        let covered = |link: &&Link| {
            let stacked = link.lower.filter(|_| STACKED.contains(&link.kind.as_str()));
            doors.contains(&link.index)
                || bridges.contains(&link.index)
                || stacked.is_some_and(|lower| bridges.contains(&lower))
        };
        self.links
            .values()
            .filter(|link| !link.loopback && !SILENT.contains(&link.kind.as_str()) && !covered(link))
            .map(|link| link.name.clone())
            .collect()
    }
}
