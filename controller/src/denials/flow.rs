//! What a packet says of itself in its headers.

use std::fmt;
use std::net::IpAddr;

use policy_compiler::judge::Traffic;
use policy_compiler::model::{PortNumber, Protocol};

/// Where a packet goes to, and where from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    /// The address it comes from.
    pub(crate) source: IpAddr,
    /// The address it goes to, after destination NAT.
    pub(crate) destination: IpAddr,
    /// What it carries.
    pub(crate) transport: Transport,
    /// The port it goes to; `None` where the protocol has none that policies know, or the packet is a later fragment.
    pub(crate) port: Option<PortNumber>,
}

/// A protocol's number in the IP header (IANA "Protocol Numbers").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Transport(u8);

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// IPv6 extension headers that lead to another header (RFC 8200, section 4; RFC 4302; RFC 6275).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;

impl Flow {
    /// Reads the beginning of a packet; `None` if there is no whole IP header.
    pub(crate) fn of(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::of_ipv4(packet),
            6 => Self::of_ipv6(packet),
            _ => None,
        }
    }

    fn of_ipv4(packet: &[u8]) -> Option<Self> {
        let fragment = u16::from_be_bytes(array(packet, 6)?) & 0x1fff;
        let length = usize::from(packet.first()? & 0xf) * 4;
        let segment = packet.get(length..).filter(|_| fragment == 0);
        Some(Self::new(
            IpAddr::from(array::<4>(packet, 12)?),
            IpAddr::from(array::<4>(packet, 16)?),
            *packet.get(9)?,
            segment,
        ))
    }

    fn of_ipv6(packet: &[u8]) -> Option<Self> {
        let (source, destination) = (array::<16>(packet, 8)?, array::<16>(packet, 24)?);
        let (mut kind, mut rest) = (*packet.get(6)?, packet.get(40..));
        // What is cut off stays `None`.
        while let Some(header) = rest {
            let length = |unit: usize, beside| Some((usize::from(*header.get(1)?) + beside) * unit);
            let length = match kind {
                HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY => length(8, 1),
                AUTHENTICATION => length(4, 2),
                FRAGMENT => Some(8),
                _ => break,
            };
            let later =
                kind == FRAGMENT && array(header, 2).is_none_or(|field| u16::from_be_bytes(field) >> 3 != 0);
            let Some(next) = header.first() else { break };
            kind = *next;
            rest = length.and_then(|length| header.get(length..)).filter(|_| !later);
        }
        Some(Self::new(source.into(), destination.into(), kind, rest))
    }

    fn new(source: IpAddr, destination: IpAddr, protocol: u8, segment: Option<&[u8]>) -> Self {
        let transport = Transport(protocol);
        let port = segment.filter(|_| transport.protocol().is_some()).and_then(|segment| array(segment, 2));
        let port = port.and_then(|port| PortNumber::new(u16::from_be_bytes(port)));
        Self { source, destination, transport, port }
    }

    /// What the connection carries that the packet opens.
    pub(crate) fn traffic(&self) -> Traffic {
        match (self.transport.protocol(), self.port) {
            (Some(protocol), Some(port)) => Traffic::Port(protocol, port),
            _ => Traffic::Other,
        }
    }
}

impl Transport {
    /// The protocol, if policies can name it.
    fn protocol(self) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.number() == self.0)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.protocol(), self.0) {
            (Some(protocol), _) => protocol.fmt(f),
            (None, ICMP) => f.write_str("ICMP"),
            (None, ICMPV6) => f.write_str("ICMPv6"),
            (None, number) => write!(f, "protocol {number}"),
        }
    }
}

/// Some of the bytes, from `offset` on.
fn array<const LENGTH: usize>(bytes: &[u8], offset: usize) -> Option<[u8; LENGTH]> {
    bytes.get(offset..offset.checked_add(LENGTH)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment from port 4660 to port 80.
    const SEGMENT: [u8; 8] = [0x12, 0x34, 0, 80, 1, 2, 3, 4];

    fn ipv4(protocol: u8, fragment: u16, options: &[u8], segment: &[u8]) -> Vec<u8> {
        #[expect(clippy::cast_possible_truncation, reason = "at most ten words of options")]
        let mut packet = vec![0x45 + (options.len() / 4) as u8, 0, 0, 0, 0, 0];
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(options);
        packet.extend(segment);
        packet
    }

    fn ipv6(next: u8, rest: &[&[u8]]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        for last in [1, 2] {
            packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        packet.extend(rest.concat());
        packet
    }

    fn shown(packet: &[u8]) -> String {
        let Some(Flow { source, destination, transport, port }) = Flow::of(packet) else {
            return "nothing".to_owned();
        };
        let port = port.map(|port| format!(" {port}")).unwrap_or_default();
        format!("{source} {destination} {transport}{port}")
    }

    #[test]
    fn headers_say_who_and_where() {
        let [first, later] = [[44, 0, 0, 1, 0, 0, 0, 1], [6, 0, 0, 9, 0, 0, 0, 1]];
        let first = [&[17], &first[1..]].concat();
        let cases = [
            (ipv4(6, 0, &[], &SEGMENT), "10.0.0.1 10.0.0.2 TCP 80"),
            (ipv4(17, 0x4000, &[], &SEGMENT), "10.0.0.1 10.0.0.2 UDP 80"),
            (ipv4(132, 0x2000, &[1; 8], &SEGMENT), "10.0.0.1 10.0.0.2 SCTP 80"),
            (ipv4(6, 0x2001, &[], &SEGMENT), "10.0.0.1 10.0.0.2 TCP"),
            (ipv4(6, 0, &[], &SEGMENT[..3]), "10.0.0.1 10.0.0.2 TCP"),
            (ipv4(6, 0, &[], &[0; 8]), "10.0.0.1 10.0.0.2 TCP"),
            (ipv4(1, 0, &[], &SEGMENT), "10.0.0.1 10.0.0.2 ICMP"),
            (ipv4(47, 0, &[], &SEGMENT), "10.0.0.1 10.0.0.2 protocol 47"),
            (ipv6(6, &[&SEGMENT]), "fd00::1 fd00::2 TCP 80"),
            (ipv6(58, &[&SEGMENT]), "fd00::1 fd00::2 ICMPv6"),
            (ipv6(0, &[&[43, 0, 0, 0, 0, 0, 0, 0], &[6; 1], &[1; 15], &SEGMENT]), "fd00::1 fd00::2 TCP 80"),
            (ipv6(51, &[&[132, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &SEGMENT]), "fd00::1 fd00::2 SCTP 80"),
            (ipv6(44, &[&first, &SEGMENT]), "fd00::1 fd00::2 UDP 80"),
            (ipv6(44, &[&later, &SEGMENT]), "fd00::1 fd00::2 TCP"),
            (ipv6(60, &[&[6, 200, 0, 0]]), "fd00::1 fd00::2 TCP"),
            (ipv6(59, &[]), "fd00::1 fd00::2 protocol 59"),
            (vec![], "nothing"),
            (vec![0x45; 19], "nothing"),
            (vec![0x60; 39], "nothing"),
            (vec![0x50; 60], "nothing"),
        ];
        for (packet, expected) in cases {
            assert_eq!(shown(&packet), expected, "{packet:x?}");
        }
    }

    #[test]
    fn whatever_is_cut_off_or_mangled_can_be_read() {
        let whole = ipv6(0, &[&[44, 0, 0, 0, 0, 0, 0, 0], &[6, 0, 0, 1, 0, 0, 0, 1], &SEGMENT]);
        for length in 0..whole.len() {
            assert_eq!(Flow::of(&whole[..length]).is_some(), length >= 40, "{length}");
        }
        for position in 0..whole.len() {
            for byte in 0..=u8::MAX {
                let mut mangled = whole.clone();
                mangled[position] = byte;
                let _ = Flow::of(&mangled);
            }
        }
    }
}
