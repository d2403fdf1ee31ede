//! Ethernet frames made by hand, and packets wrapped into others.

use std::net::IpAddr;

use crate::link::LinkAddress;
use crate::packet::Packet;
use crate::segment::{length, octets};

/// IEEE 802.1Q, the tag of a virtual LAN.
pub const VLAN: u16 = 0x8100;
/// IEEE 802.1ad, the outer one of two such tags.
pub const SERVICE_VLAN: u16 = 0x88a8;

const ARP: u16 = 0x0806;
const TRANSPARENT_BRIDGING: u16 = 0x6558;

/// What an ARP packet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target's address?
    Request,
    /// The sender has its address.
    Reply,
}

/// An Ethernet frame.
#[derive(Debug, Clone)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// A frame with anything in it.
    pub fn new(from: LinkAddress, to: LinkAddress, ethertype: u16, payload: &[u8]) -> Self {
        Self([&to.0, &from.0, &ethertype.to_be_bytes()[..], payload].concat())
    }

    /// A frame with an IP packet in it.
    pub fn of_packet(from: LinkAddress, to: LinkAddress, packet: &Packet) -> Self {
        Self::new(from, to, packet.ethertype(), &packet.bytes())
    }

    /// A frame with an IP packet in an LLC and SNAP header, as IEEE 802.3 has it.
    pub fn of_packet_in_snap(from: LinkAddress, to: LinkAddress, packet: &Packet) -> Self {
        let header = [0xaa, 0xaa, 0x03, 0, 0, 0];
        let payload = [&header, &packet.ethertype().to_be_bytes()[..], &packet.bytes()].concat();
        Self::new(from, to, length(payload.len()), &payload)
    }

    /// An ARP packet: the sender's and the target's addresses, and behind it a payload that means nothing.
    pub fn arp(
        (from, to): (LinkAddress, LinkAddress),
        operation: Operation,
        sender: (LinkAddress, IpAddr),
        target: (LinkAddress, IpAddr),
        payload: &[u8],
    ) -> Self {
        // Ethernet, IPv4, and the lengths of their addresses.
        let mut packet = vec![0, 1, 8, 0, 6, 4];
        packet.extend([0, if operation == Operation::Request { 1 } else { 2 }]);
        for (link, address) in [sender, target] {
            packet.extend(link.0);
            packet.extend(octets(address));
        }
        packet.extend(payload);
        Self::new(from, to, ARP, &packet)
    }

    /// The same with one more tag in front of those that it has: its type, its priority (0 to 7) and the number of
    /// the virtual LAN.
    #[must_use]
    pub fn tagged(self, kind: u16, priority: u16, number: u16) -> Self {
        let (addresses, rest) = self.0.split_at(12);
        Self([addresses, &kind.to_be_bytes(), &(priority << 13 | number).to_be_bytes(), rest].concat())
    }

    /// The frame as it is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What follows the UDP header of a VXLAN packet (RFC 7348, 5).
pub fn vxlan(network: u32, inner: &Frame) -> Vec<u8> {
    [&[0x08, 0, 0, 0], &(network << 8).to_be_bytes()[..], inner.bytes()].concat()
}

/// What follows the UDP header of a Geneve packet (RFC 8926, 3.4).
pub fn geneve(network: u32, inner: &Frame) -> Vec<u8> {
    let kind = TRANSPARENT_BRIDGING.to_be_bytes();
    [&[0, 0], &kind[..], &(network << 8).to_be_bytes(), inner.bytes()].concat()
}

/// A packet in GRE (RFC 2784), between two addresses.
pub fn gre(from: IpAddr, to: IpAddr, inner: &Packet) -> Packet {
    const GRE: u8 = 47;
    let payload = [&[0, 0], &inner.ethertype().to_be_bytes()[..], &inner.bytes()].concat();
    Packet::new(from, to, GRE, payload)
}

/// A packet in a packet: IPIP, SIT, or either of them in IPv6.
pub fn ip_in_ip(from: IpAddr, to: IpAddr, inner: &Packet) -> Packet {
    let number = if inner.to().is_ipv4() { 4 } else { 41 };
    Packet::new(from, to, number, inner.bytes())
}
