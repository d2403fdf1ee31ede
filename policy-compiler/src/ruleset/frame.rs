//! What rules ask of frames at a device.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::icmp6_type_name;
use crate::model::{LinkAddress, PortNumber};

/// The protocol in a frame (IEEE 802 numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EtherType {
    /// 0x0800
    Ipv4,
    /// 0x0806
    Arp,
    /// 0x86dd
    Ipv6,
    /// 0x8100: a VLAN tag (802.1Q)
    VlanTag,
    /// 0x88a8: a VLAN tag of a service provider (802.1ad)
    ServiceTag,
}

impl EtherType {
    /// The number.
    pub fn number(self) -> u16 {
        match self {
            Self::Ipv4 => 0x0800,
            Self::Arp => 0x0806,
            Self::Ipv6 => 0x86dd,
            Self::VlanTag => 0x8100,
            Self::ServiceTag => 0x88a8,
        }
    }
}

/// One thing that only a rule of [`TableFamily::Netdev`](super::TableFamily::Netdev) asks, of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameMatch {
    /// `@ll,48,64 0x244000001020800`: the link address that the frame comes from and the type that stands behind it,
    /// in one look. A frame with a tag has the tag's type there.
    Header(LinkAddress, EtherType),
    /// `@ll,96,16 0x800`: the type in the frame. A frame with a tag has the tag's.
    Type(EtherType),
    /// `meta protocol ip`: the protocol behind the tag, if there is one.
    Protocol(EtherType),
    /// `ether saddr 02:44:00:00:01:02`
    From(LinkAddress),
    /// `ether saddr != 02:44:00:00:01:02`
    NotFrom(LinkAddress),
    /// `ether daddr != 02:44:00:00:01:02`
    NotTo(LinkAddress),
    /// `ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00`: the frame is for one receiver.
    Unicast,
    /// `ip saddr 10.0.0.1`, or the same of `ip6`
    Source(IpAddr),
    /// `@nh,96,32 0xa000001`: the source of a packet that a match before has found to be IPv4. `ip saddr` would ask for
    /// that again.
    SourceOfIpv4(Ipv4Addr),
    /// `ip daddr 10.0.0.1`, or the same of `ip6`
    Destination(IpAddr),
    /// `arp saddr ip 10.0.0.1`: the address that the sender speaks for
    ArpSource(Ipv4Addr),
    /// `arp saddr ether != 02:44:00:00:01:02`: the link address that the sender gives as its own
    NotArpFrom(LinkAddress),
    /// `udp dport 8472`
    UdpTo(PortNumber),
    /// `icmpv6 type nd-neighbor-advert @th,64,128 0xfd…`: the type, and the address that is asked for or spoken for
    /// (RFC 4861, sections 4.3 and 4.4)
    Neighbour(u8, Ipv6Addr),
}

impl fmt::Display for FrameMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Header(LinkAddress(from), kind) => {
                let number = from.iter().fold(0, |number, octet| number << 8 | u64::from(*octet));
                write!(f, "@ll,48,64 0x{:x}", number << 16 | u64::from(kind.number()))
            }
            Self::Type(kind) => write!(f, "@ll,96,16 0x{:x}", kind.number()),
            Self::Protocol(kind) => f.write_str(match kind {
                EtherType::Ipv4 => "meta protocol ip",
                EtherType::Arp => "meta protocol arp",
                EtherType::Ipv6 => "meta protocol ip6",
                EtherType::VlanTag => "meta protocol 8021q",
                EtherType::ServiceTag => "meta protocol 8021ad",
            }),
            Self::From(address) => write!(f, "ether saddr {address}"),
            Self::NotFrom(address) => write!(f, "ether saddr != {address}"),
            Self::NotTo(address) => write!(f, "ether daddr != {address}"),
            Self::Unicast => f.write_str("ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00"),
            Self::Source(address) => write!(f, "{} saddr {address}", header(address)),
            Self::SourceOfIpv4(address) => write!(f, "@nh,96,32 0x{:x}", address.to_bits()),
            Self::Destination(address) => write!(f, "{} daddr {address}", header(address)),
            Self::ArpSource(address) => write!(f, "arp saddr ip {address}"),
            Self::NotArpFrom(address) => write!(f, "arp saddr ether != {address}"),
            Self::UdpTo(port) => write!(f, "udp dport {port}"),
            Self::Neighbour(kind, target) => {
                write!(f, "icmpv6 type {} @th,64,128 0x{:x}", icmp6_type_name(kind), target.to_bits())
            }
        }
    }
}

fn header(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}
