//! Devices.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use nftnl::nftnl_sys::libc;
use policy_compiler::model::{Family, LinkAddress, Tunnel};

use super::addresses::is_absence;
use super::{Socket, tunnels};
use podfence_cni::netlink::{self, Attributes, Message, native_u32};

/// The length of `struct ifinfomsg`, and where index and flags of the device stand.
const LINK: usize = 16;
const LINK_INDEX: usize = 4;
const LINK_FLAGS: usize = 8;

const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;

const IFLA_TARGET_NETNSID: u16 = 46;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

const IFLA_BR_NF_CALL_IPTABLES: u16 = 36;
const IFLA_BR_NF_CALL_IP6TABLES: u16 = 37;

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// By what the kernel knows it.
    pub(crate) index: u32,
    pub(crate) name: Arc<str>,
    /// As `ip link` names it behind `type`; empty for a device of hardware.
    pub(crate) kind: String,
    pub(crate) up: bool,
    pub(crate) loopback: bool,
    pub(crate) address: Option<LinkAddress>,
    /// The bridge, or the like, of which it is a port.
    pub(crate) master: Option<u32>,
    /// The device of the same namespace that it sits on, or that is its other end.
    pub(crate) lower: Option<u32>,
    /// Its other end, if that is in another namespace.
    pub(crate) end: Option<End>,
    /// What it unpacks while it is up.
    pub(crate) tunnels: BTreeSet<Tunnel>,
    calls_netfilter: Vec<Family>,
}

/// A device of another namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// By what its namespace is known here.
    pub(crate) namespace: u32,
    /// By what it is known there.
    pub(crate) device: u32,
}

impl Link {
    /// Whether this bridge shows packets of a family to netfilter, whatever others do.
    pub(crate) fn calls_netfilter(&self, family: Family) -> bool {
        self.calls_netfilter.contains(&family)
    }

    fn of(message: &Message<'_>) -> Option<Self> {
        let attributes = message.attributes_behind(LINK);
        let information = attributes.nested(libc::IFLA_LINKINFO).unwrap_or_default();
        let data = information.nested(libc::IFLA_INFO_DATA).unwrap_or_default();
        let kind = information.text(libc::IFLA_INFO_KIND).unwrap_or_default();
        let flags = native_u32(message.payload, LINK_FLAGS)?;
        let number = |kind| attributes.get(kind).and_then(|value| native_u32(value, 0));
        let (other, namespace) = (number(libc::IFLA_LINK), number(libc::IFLA_LINK_NETNSID));
        let calls = |family: &Family| data.get(netfilter_attribute(*family)) == Some(&[1]);
        Some(Self {
            index: native_u32(message.payload, LINK_INDEX)?,
            name: attributes.text(libc::IFLA_IFNAME)?.into(),
            kind: kind.to_owned(),
            up: flags & IFF_UP != 0,
            loopback: flags & IFF_LOOPBACK != 0,
            address: link_address(attributes),
            master: number(libc::IFLA_MASTER),
            lower: other.filter(|_| namespace.is_none()),
            // A namespace that has no number here is -1.
            end: namespace
                .filter(|namespace| namespace.cast_signed() >= 0)
                .zip(other)
                .map(|(namespace, device)| End { namespace, device }),
            tunnels: tunnels::unpacked_by(kind, data).collect(),
            calls_netfilter: Family::BOTH.into_iter().filter(calls).collect(),
        })
    }
}

impl Socket {
    /// All devices, in the order of their indices.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let short = RTEXT_FILTER_SKIP_STATS.to_ne_bytes();
        let mut links =
            self.list(libc::RTM_GETLINK, &link_header(0), &[(libc::IFLA_EXT_MASK, &short)], Link::of)?;
        links.sort_unstable_by_key(|link| link.index);
        Ok(links)
    }

    /// What the device of an index is; `None` if it is gone.
    pub(crate) fn link(&mut self, index: u32) -> io::Result<Option<Link>> {
        match self.request(libc::RTM_GETLINK, &link_header(index), &[], Link::of) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            link => Ok(link?.flatten()),
        }
    }

    /// The link address of a device in another namespace; `None` if it has none, is gone, or the kernel does
    /// not let its namespace be seen.
    pub(crate) fn link_address_at(&mut self, end: End) -> io::Result<Option<LinkAddress>> {
        let namespace = end.namespace.to_ne_bytes();
        let attributes: [(u16, &[u8]); 1] = [(IFLA_TARGET_NETNSID, &namespace)];
        match self.request(libc::RTM_GETLINK, &link_header(end.device), &attributes, |answer| {
            link_address(answer.attributes_behind(LINK))
        }) {
            Err(error) if is_absence(&error) => Ok(None),
            address => Ok(address?.flatten()),
        }
    }

    /// Makes a bridge show packets of a family to netfilter. Needs `CAP_NET_ADMIN`, and `br_netfilter` to have
    /// an effect.
    pub(crate) fn call_netfilter(&mut self, bridge: u32, family: Family) -> io::Result<()> {
        let (mut data, mut information) = (Vec::new(), Vec::new());
        netlink::write_attributes(&mut data, &[(netfilter_attribute(family), &[1])]);
        netlink::write_attributes(
            &mut information,
            &[(libc::IFLA_INFO_KIND, b"bridge\0"), (libc::IFLA_INFO_DATA, &data)],
        );
        let attributes: [(u16, &[u8]); 1] = [(libc::IFLA_LINKINFO, &information)];
        self.request(libc::RTM_NEWLINK, &link_header(bridge), &attributes, |_| ()).map(drop)
    }
}

fn link_header(index: u32) -> [u8; LINK] {
    let mut link = [0; LINK];
    link[LINK_INDEX..LINK_INDEX + 4].copy_from_slice(&index.to_ne_bytes());
    link
}

fn link_address(attributes: Attributes<'_>) -> Option<LinkAddress> {
    attributes.get(libc::IFLA_ADDRESS)?.try_into().ok().map(LinkAddress)
}

fn netfilter_attribute(family: Family) -> u16 {
    match family {
        Family::Ipv4 => IFLA_BR_NF_CALL_IPTABLES,
        Family::Ipv6 => IFLA_BR_NF_CALL_IP6TABLES,
    }
}
