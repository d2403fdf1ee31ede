//! Where packets of pods enter a node, and by what else packets come in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use super::{ObjectName, PortNumber};

/// An Ethernet address, shown as `02:44:00:00:01:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkAddress(pub [u8; 6]);

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.map(|octet| format!("{octet:02x}")).join(":"))
    }
}

/// The node's end of a pod's link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Door {
    /// The name of the device.
    pub device: Arc<str>,
    /// Whether the device is a port of a bridge.
    pub bridged: bool,
    /// The link address of the pod's end. `None` where it has none, or none that is the pod's alone: no two
    /// doors have the same, and no door has one of the node's.
    pub link_address: Option<LinkAddress>,
    /// The addresses of `fe80::/10` of the pod's end. No two doors share one, and no bridged door has one of its
    /// bridge.
    pub link_local: BTreeSet<Ipv6Addr>,
}

/// An encapsulation that a node unpacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tunnel {
    /// Inside UDP to a port: VXLAN, Geneve, FOU and the like.
    Udp(PortNumber),
    /// Directly inside IP, by the protocol number: 4 and 41 (IP in IP), 47 (GRE).
    Protocol(u8),
}

/// By which devices packets come into a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doors {
    /// The door of each local pod that has one. A device is the door of one pod at most.
    pub of_pods: BTreeMap<ObjectName, Door>,
    /// The devices by which packets come in that leave no local pod with a door.
    pub elsewhere: BTreeSet<Arc<str>>,
    /// What the node unpacks.
    pub tunnels: BTreeSet<Tunnel>,
}
