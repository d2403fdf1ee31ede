//! Where the packets of a node's pods come out: what the node's devices say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use super::{ObjectName, PortNumber};

/// The annotation of a namespace that lets its pods send from other addresses than their own: CIDRs and addresses with
/// commas between them.
pub const ALLOWED_SOURCES_ANNOTATION: &str = "podfence.io/allowed-sources";

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkAddress(pub [u8; 6]);

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.0.map(|octet| format!("{octet:02x}"));
        f.pad(&octets.join(":"))
    }
}

/// A pod's door: the node's end of its link, by which all of its packets come out and go in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// The device's name.
    pub device: Arc<str>,
    /// Whether the device is a port of a bridge; otherwise packets are routed to it.
    pub bridged: bool,
    /// The link address of the pod's end; `None` where it has none, or none that is the pod's alone: no two doors have
    /// the same, and no door has one of the node's.
    pub link_address: Option<LinkAddress>,
    /// The link-local addresses (`fe80::/10`) of the pod's end. No two doors share one, and no bridged door has one of
    /// its bridge.
    pub link_local: BTreeSet<Ipv6Addr>,
}

/// An encapsulation that a device of the node takes packets out of, without knowing who put them in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tunnel {
    /// In UDP, to this port (VXLAN, Geneve, FOU).
    Udp(PortNumber),
    /// In IP, as this protocol (IANA "Protocol Numbers": IPIP 4, SIT 41, GRE 47).
    Protocol(u8),
}

/// What the devices of a node say about its pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doors {
    /// The doors that were found.
    pub of_pods: BTreeMap<ObjectName, Door>,
    /// The other devices by which packets come in. No packet of a pod with a door comes in there.
    pub elsewhere: BTreeSet<Arc<str>>,
    /// The node's own link-local addresses at the bridges of the doors.
    pub node_link_local: BTreeSet<Ipv6Addr>,
    /// The encapsulations of the node's tunnels.
    pub tunnels: BTreeSet<Tunnel>,
}
