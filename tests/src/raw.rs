//! Packets made by hand: for protocols without sockets (SCTP, ICMP) and for senders who are not who they say.

use std::net::SocketAddr;

use crate::packet::{Packet, number as protocol_number};
use crate::probe::Protocol;
use crate::segment::{
    SCTP_INIT, TCP_ACK, TCP_SYN, echo_request, sctp, sctp_init, sctp_init_body, tcp_syn, udp,
};

const SCTP_DATA: u8 = 0;
const SCTP_INIT_ACK: u8 = 2;
const SCTP_ABORT: u8 = 6;
const SCTP_COOKIE_ECHO: u8 = 10;
const SCTP_COOKIE_ACK: u8 = 11;
/// Length of the fixed part of INIT and INIT ACK behind the chunk's header (RFC 9260, 3.3.2).
const SCTP_INIT_LENGTH: usize = 16;
const SCTP_STATE_COOKIE: u16 = 7;

const TCP_RST: u8 = 0x04;

/// The first packet of a connection, which carries `token` so that its answer can be told from any other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    pub(crate) protocol: Protocol,
    /// For ICMP the ports mean nothing.
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) token: u64,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The server took the connection, and said its name if the protocol has room for one.
    Accepted(Option<String>),
    /// The host was reached, but nobody listens.
    Refused,
}

impl Opening {
    /// The packet behind its IP header, checksum included.
    pub(crate) fn segment(&self) -> Vec<u8> {
        let (from, to, tag) = (self.from, self.to, self.tag());
        match self.protocol {
            Protocol::Tcp => tcp_syn(from, to, tag, &[]),
            Protocol::Udp => udp(from, to, &self.token.to_be_bytes()),
            Protocol::Sctp => sctp_init(from.port(), to.port(), tag, &[]),
            Protocol::Icmp => echo_request(from.ip(), to.ip(), tag, &[]),
        }
    }

    /// The whole packet with its IP header, for a socket of the protocol `IPPROTO_RAW`.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let number = protocol_number(self.protocol, self.to.is_ipv4());
        Packet::new(self.from.ip(), self.to.ip(), number, self.segment()).bytes()
    }

    /// What a packet that came back from the destination means, if it answers this one.
    pub(crate) fn answer(&self, segment: &[u8]) -> Option<Answer> {
        match self.protocol {
            Protocol::Icmp => {
                let kind = if self.to.is_ipv4() { 0 } else { 129 };
                let ours = segment.first() == Some(&kind) && segment.get(4..8)? == self.tag();
                ours.then_some(Answer::Accepted(None))
            }
            Protocol::Tcp => {
                let ours = between(segment, self.to.port(), self.from.port())
                    && segment.get(8..12)? == (u32::from_be_bytes(self.tag()).wrapping_add(1)).to_be_bytes();
                match segment.get(13)? {
                    _ if !ours => None,
                    flags if flags & TCP_RST != 0 => Some(Answer::Refused),
                    flags if flags & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK => Some(Answer::Accepted(None)),
                    _ => None,
                }
            }
            Protocol::Sctp => {
                let ours =
                    between(segment, self.to.port(), self.from.port()) && segment.get(4..8)? == self.tag();
                match *segment.get(12)? {
                    _ if !ours => None,
                    SCTP_ABORT => Some(Answer::Refused),
                    SCTP_INIT_ACK => {
                        let name = segment.get(16 + SCTP_INIT_LENGTH + 4..).unwrap_or_default();
                        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
                        Some(Answer::Accepted(Some(name)))
                    }
                    _ => None,
                }
            }
            // A datagram's answer comes to a socket of its own.
            Protocol::Udp => None,
        }
    }

    /// The token as far as a packet has room for it: sequence number, initiate tag, or identifier and sequence
    /// of an echo. The lowest bits are the identifier, so that conntrack sees every echo as a new flow.
    fn tag(&self) -> [u8; 4] {
        let [.., a, b, c, d] = self.token.to_be_bytes();
        if self.protocol == Protocol::Icmp { [c, d, a, b] } else { [a, b, c, d] }
    }
}

/// What a listener without a kernel's SCTP answers to a packet: INIT ACK with its name in the cookie if
/// `listens` holds for the port, else ABORT. Anything but an INIT has no answer.
pub(crate) fn answer_sctp(segment: &[u8], name: &str, listens: impl Fn(u16) -> bool) -> Option<Vec<u8>> {
    let (from, to) = (number(segment, 0)?, number(segment, 2)?);
    if *segment.get(12)? != SCTP_INIT {
        return None;
    }
    let tag = segment.get(16..20)?.try_into().map(u32::from_be_bytes).ok()?;
    if !listens(to) {
        return Some(sctp(to, from, tag, SCTP_ABORT, &[]));
    }
    let mut body = segment.get(16..16 + SCTP_INIT_LENGTH)?.to_vec();
    body.extend(SCTP_STATE_COOKIE.to_be_bytes());
    body.extend(u16::try_from(4 + name.len()).ok()?.to_be_bytes());
    body.extend(name.as_bytes());
    Some(sctp(to, from, tag, SCTP_INIT_ACK, &body))
}

/// One end's view of an SCTP association in which both ends have chosen the same tag.
#[derive(Debug)]
pub(crate) struct Association {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) tag: u32,
}

impl Association {
    /// The chunks that open an association; the ends take turns, the client begins (RFC 9260, 5.1).
    pub(crate) const HANDSHAKE: [u8; 4] = [SCTP_INIT, SCTP_INIT_ACK, SCTP_COOKIE_ECHO, SCTP_COOKIE_ACK];

    /// A packet of one chunk of the handshake.
    pub(crate) fn chunk(&self, chunk: u8) -> Vec<u8> {
        let tag = self.tag.to_be_bytes();
        let body = match chunk {
            SCTP_INIT | SCTP_INIT_ACK => sctp_init_body(tag),
            _ => Vec::new(),
        };
        sctp(self.from, self.to, if chunk == SCTP_INIT { 0 } else { self.tag }, chunk, &body)
    }

    /// A packet with a message: sequence number, stream and protocol mean nothing here, then a word of data.
    pub(crate) fn data(&self) -> Vec<u8> {
        sctp(self.from, self.to, self.tag, SCTP_DATA, &[0; 16])
    }

    /// Whether a packet is such a message of the other end.
    pub(crate) fn is_data(&self, segment: &[u8]) -> bool {
        between(segment, self.to, self.from) && segment.get(12) == Some(&SCTP_DATA)
    }
}

/// The part of a received packet behind the IP header: raw IPv4 sockets deliver the header, IPv6 ones do not.
pub(crate) fn behind_header(packet: &[u8], ipv4: bool) -> &[u8] {
    let header = if ipv4 { usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4 } else { 0 };
    packet.get(header..).unwrap_or_default()
}

fn between(segment: &[u8], from: u16, to: u16) -> bool {
    number(segment, 0) == Some(from) && number(segment, 2) == Some(to)
}

fn number(segment: &[u8], offset: usize) -> Option<u16> {
    segment.get(offset..offset + 2)?.try_into().map(u16::from_be_bytes).ok()
}
