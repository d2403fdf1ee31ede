//! IP packets made by hand, whole or in fragments.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use rustix::net::{SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};

use crate::endpoint::Endpoint;
use crate::flow::family;
use crate::probe::Protocol;
use crate::segment::{self, ICMP, ICMPV6, SCTP, TCP, UDP, internet_checksum, length, octets};
use crate::wire::Token;

/// The numbers of IPv6 extension headers.
const FRAGMENT: u8 = 44;

/// An IP packet of the family of its addresses.
#[derive(Debug, Clone)]
pub struct Packet {
    from: IpAddr,
    to: IpAddr,
    number: u8,
    hop_limit: u8,
    fragment: Option<Fragment>,
    payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Fragment {
    identification: u16,
    /// In units of eight bytes.
    offset: u16,
    more: bool,
}

impl Packet {
    /// A packet of the protocol with this number.
    pub fn new(from: IpAddr, to: IpAddr, number: u8, payload: Vec<u8>) -> Self {
        Self { from, to, number, hop_limit: 64, fragment: None, payload }
    }

    /// The first packet of a connection; it carries a token.
    pub fn opening(protocol: Protocol, from: SocketAddr, to: SocketAddr, token: Token) -> Self {
        let (tag @ [a, b, c, d], payload) = (token.tag(), &token.bytes());
        let segment = match protocol {
            Protocol::Tcp => segment::tcp_syn(from, to, tag, payload),
            Protocol::Udp => segment::udp(from, to, payload),
            Protocol::Sctp => segment::sctp_init(from.port(), to.port(), tag, payload),
            // The identifier comes first; by it conntrack tells echoes apart.
            Protocol::Icmp => segment::echo_request(from.ip(), to.ip(), [c, d, a, b], payload),
        };
        Self::new(from.ip(), to.ip(), number(protocol, to.is_ipv4()), segment)
    }

    /// A UDP datagram with any payload.
    pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Self {
        Self::new(from.ip(), to.ip(), UDP, segment::udp(from, to, payload))
    }

    /// A TCP segment of a connection that is open.
    pub fn tcp_acknowledgement(from: SocketAddr, to: SocketAddr) -> Self {
        Self::new(from.ip(), to.ip(), TCP, segment::tcp(from, to, segment::TCP_ACK, [1; 4], &[]))
    }

    /// The first TCP segment of a connection.
    pub fn tcp_syn(from: SocketAddr, to: SocketAddr) -> Self {
        Self::new(from.ip(), to.ip(), TCP, segment::tcp_syn(from, to, [1; 4], &[]))
    }

    /// An ICMP or `ICMPv6` message that routers do not pass on.
    pub fn icmp(from: IpAddr, to: IpAddr, message: Vec<u8>) -> Self {
        Self::new(from, to, number(Protocol::Icmp, to.is_ipv4()), message).hop_limit(255)
    }

    /// The same with another hop limit, or time to live.
    #[must_use]
    pub fn hop_limit(self, hop_limit: u8) -> Self {
        Self { hop_limit, ..self }
    }

    /// The same with one more IPv6 extension header in front of what it carries: its number, and what follows its
    /// next header and its length, two bytes less than a multiple of eight.
    #[must_use]
    pub fn extended(self, number: u8, body: &[u8]) -> Self {
        let eights = u8::try_from((2 + body.len()) / 8).unwrap_or(u8::MAX);
        let header = [self.number, eights.saturating_sub(1)];
        Self { number, payload: [&header, body, &self.payload].concat(), ..self }
    }

    /// The packet in two fragments, of which the first has so many bytes, a multiple of eight; in one if that is all.
    pub fn fragments(&self, first: usize, token: Token) -> Vec<Self> {
        let (first, rest) = self.payload.split_at(first.min(self.payload.len()));
        let fragment = |offset: usize, more, payload: &[u8]| {
            let fragment = Fragment { identification: token.port(), offset: length(offset / 8), more };
            Self { fragment: Some(fragment), payload: payload.to_vec(), ..self.clone() }
        };
        let mut fragments = vec![fragment(0, !rest.is_empty(), first)];
        fragments.extend((!rest.is_empty()).then(|| fragment(first.len(), false, rest)));
        fragments
    }

    /// The type of the frames that carry it.
    pub fn ethertype(&self) -> u16 {
        if self.to.is_ipv4() { 0x0800 } else { 0x86dd }
    }

    /// Where it goes.
    pub fn to(&self) -> IpAddr {
        self.to
    }

    /// The packet as it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let addresses = [octets(self.from), octets(self.to)].concat();
        if self.to.is_ipv4() {
            let mut header = vec![0x45, 0];
            header.extend(length(20 + self.payload.len()).to_be_bytes());
            header.extend(self.fragment.map_or([0; 4], Fragment::ipv4));
            header.extend([self.hop_limit, self.number, 0, 0]);
            header.extend(addresses);
            let checksum = internet_checksum(&header).to_be_bytes();
            segment::fill_in(&mut header, 10, &checksum);
            return [header, self.payload.clone()].concat();
        }
        let extension = self.fragment.map(|fragment| fragment.ipv6(self.number)).unwrap_or_default();
        let next = if extension.is_empty() { self.number } else { FRAGMENT };
        let length = length(extension.len() + self.payload.len()).to_be_bytes();
        let header = [&[0x60, 0, 0, 0], &length[..], &[next, self.hop_limit]].concat();
        [header, addresses, extension, self.payload.clone()].concat()
    }
}

/// Sends packets of one family out of an endpoint, one after the other.
///
/// # Errors
/// One of them cannot be sent.
pub fn send_packets(from: &Endpoint, packets: impl Iterator<Item = Packet> + Send) -> Result<()> {
    from.namespace().run(|| {
        let mut packets = packets.peekable();
        let Some(first) = packets.peek() else { return Ok(()) };
        let socket =
            socket_with(family(first.to), SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?;
        for packet in packets {
            sendto(&socket, &packet.bytes(), SendFlags::empty(), &SocketAddr::new(packet.to, 0))?;
        }
        Ok(())
    })
}

impl Fragment {
    /// Identification, flags and offset of an IPv4 header.
    fn ipv4(self) -> [u8; 4] {
        let [a, b] = self.identification.to_be_bytes();
        let [c, d] = (u16::from(self.more) << 13 | self.offset).to_be_bytes();
        [a, b, c, d]
    }

    /// The extension header of IPv6 in front of a protocol.
    fn ipv6(self, next: u8) -> Vec<u8> {
        let place = self.offset << 3 | u16::from(self.more);
        let identification = u32::from(self.identification).to_be_bytes();
        [&[next, 0], &place.to_be_bytes()[..], &identification].concat()
    }
}

/// The number of a protocol in IP headers.
pub(crate) fn number(protocol: Protocol, ipv4: bool) -> u8 {
    match (protocol, ipv4) {
        (Protocol::Icmp, true) => ICMP,
        (Protocol::Icmp, false) => ICMPV6,
        (Protocol::Tcp, _) => TCP,
        (Protocol::Udp, _) => UDP,
        (Protocol::Sctp, _) => SCTP,
    }
}
