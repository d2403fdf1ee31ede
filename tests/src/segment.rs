//! What stands behind an IP header: segments, datagrams and chunks, with the right checksums.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::link::LinkAddress;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;

pub(crate) const TCP_SYN: u8 = 0x02;
pub(crate) const TCP_ACK: u8 = 0x10;
pub(crate) const SCTP_INIT: u8 = 1;

/// A parameter of INIT that means nothing (RFC 4820, 4).
const SCTP_PADDING: u16 = 0x8005;

const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
/// An option for experiments (RFC 4727), which everybody passes over.
const EXPERIMENT: u8 = 253;

/// A UDP datagram.
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut segment = ports(from, to);
    segment.extend(length(8 + payload.len()).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    with_checksum(from.ip(), to.ip(), UDP, segment, 6)
}

/// The first segment of a TCP connection. What it carries is passed over by those that know no TCP Fast Open.
pub(crate) fn tcp_syn(from: SocketAddr, to: SocketAddr, sequence: [u8; 4], payload: &[u8]) -> Vec<u8> {
    tcp(from, to, TCP_SYN, sequence, payload)
}

pub(crate) fn tcp(from: SocketAddr, to: SocketAddr, flags: u8, sequence: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut segment = ports(from, to);
    segment.extend(sequence);
    segment.extend([0, 0, 0, 0, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    with_checksum(from.ip(), to.ip(), TCP, segment, 16)
}

/// An echo request of the address's family.
pub(crate) fn echo_request(from: IpAddr, to: IpAddr, tag: [u8; 4], payload: &[u8]) -> Vec<u8> {
    icmp(from, to, if to.is_ipv4() { 8 } else { 128 }, 0, &[&tag, payload].concat())
}

/// An ICMP or `ICMPv6` message, by the family of the addresses: its type, its code and what follows the checksum.
pub fn icmp(from: IpAddr, to: IpAddr, kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let number = if to.is_ipv4() { ICMP } else { ICMPV6 };
    with_checksum(from, to, number, [&[kind, code, 0, 0], body].concat(), 2)
}

/// An SCTP packet that opens an association, with a parameter that carries a payload and means nothing.
pub(crate) fn sctp_init(from: u16, to: u16, tag: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut body = sctp_init_body(tag);
    if !payload.is_empty() {
        body.extend(SCTP_PADDING.to_be_bytes());
        body.extend(length(4 + payload.len()).to_be_bytes());
        body.extend(payload);
    }
    sctp(from, to, 0, SCTP_INIT, &body)
}

/// INIT behind its chunk header: initiate tag, window, one stream each way, first sequence number.
pub(crate) fn sctp_init_body(tag: [u8; 4]) -> Vec<u8> {
    [tag, [0, 0, 0xff, 0xff], [0, 1, 0, 1], tag].concat()
}

/// An SCTP packet of one chunk (RFC 9260, 3).
pub(crate) fn sctp(from: u16, to: u16, verification_tag: u32, chunk: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    packet.extend(verification_tag.to_be_bytes());
    packet.extend([0, 0, 0, 0, chunk, 0]);
    packet.extend(length(4 + body.len()).to_be_bytes());
    packet.extend(body);
    packet.resize(packet.len().next_multiple_of(4), 0);
    let checksum = crc32c(&packet).to_le_bytes();
    fill_in(&mut packet, 8, &checksum);
    packet
}

/// A neighbour advertisement: `target` is at `link`. With a payload that means nothing.
pub fn neighbour_advertisement(
    from: IpAddr,
    to: IpAddr,
    target: Ipv6Addr,
    link: LinkAddress,
    payload: &[u8],
) -> Vec<u8> {
    /// Override what is known.
    const OVERRIDE: u8 = 0x20;
    let body = [&[OVERRIDE, 0, 0, 0], &target.octets()[..], &option(TARGET_LINK_ADDRESS, &link.0)].concat();
    icmp(from, to, NEIGHBOUR_ADVERTISEMENT, 0, &[body, option(EXPERIMENT, payload)].concat())
}

/// A neighbour solicitation: who has `target`? With the asker's link address but where it asks for itself, and
/// with a payload that means nothing.
pub fn neighbour_solicitation(
    from: IpAddr,
    to: IpAddr,
    target: Ipv6Addr,
    link: Option<LinkAddress>,
    payload: &[u8],
) -> Vec<u8> {
    let link = link.map(|link| option(SOURCE_LINK_ADDRESS, &link.0)).unwrap_or_default();
    let body = [&[0; 4], &target.octets()[..], &link, &option(EXPERIMENT, payload)].concat();
    icmp(from, to, NEIGHBOUR_SOLICITATION, 0, &body)
}

/// A router advertisement: `link` is the way to everywhere. With a payload that means nothing.
pub fn router_advertisement(from: IpAddr, to: IpAddr, link: LinkAddress, payload: &[u8]) -> Vec<u8> {
    // Hop limit, flags, lifetime in seconds, and two timers that stay as they are.
    let body = [64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    let options = [option(SOURCE_LINK_ADDRESS, &link.0), option(EXPERIMENT, payload)].concat();
    icmp(from, to, ROUTER_ADVERTISEMENT, 0, &[&body[..], &options].concat())
}

/// A redirect: `target` is the way to `destination`. With a payload that means nothing.
pub fn redirect(
    from: IpAddr,
    to: IpAddr,
    target: Ipv6Addr,
    destination: Ipv6Addr,
    payload: &[u8],
) -> Vec<u8> {
    let body = [&[0; 4], &target.octets()[..], &destination.octets(), &option(EXPERIMENT, payload)].concat();
    icmp(from, to, REDIRECT, 0, &body)
}

/// An option of neighbour discovery, filled up to a multiple of eight octets.
fn option(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut option = vec![kind, 0];
    option.extend(value);
    option.resize(option.len().next_multiple_of(8), 0);
    let eights = u8::try_from(option.len() / 8).unwrap_or(u8::MAX);
    fill_in(&mut option, 1, &[eights]);
    option
}

/// Fills in the Internet checksum at `offset`, over the pseudo header where there is one.
fn with_checksum(from: IpAddr, to: IpAddr, number: u8, mut segment: Vec<u8>, offset: usize) -> Vec<u8> {
    let mut covered = Vec::new();
    if number != ICMP {
        covered.extend(octets(from));
        covered.extend(octets(to));
        covered.extend([0, number]);
        covered.extend(length(segment.len()).to_be_bytes());
    }
    covered.extend(&segment);
    fill_in(&mut segment, offset, &internet_checksum(&covered).to_be_bytes());
    segment
}

/// The Internet checksum (RFC 1071).
pub(crate) fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let octet = |index| u32::from(pair.get(index).copied().unwrap_or(0));
        octet(0) << 8 | octet(1)
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(0)
}

/// Puts bytes in the place of others.
pub(crate) fn fill_in(bytes: &mut [u8], offset: usize, values: &[u8]) {
    for (place, value) in bytes.iter_mut().skip(offset).zip(values) {
        *place = *value;
    }
}

/// `CRC32c` as SCTP uses it (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| {
                if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 }
            },
        )
    })
}

fn ports(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    [from.port().to_be_bytes(), to.port().to_be_bytes()].concat()
}

/// A length as headers write it.
pub(crate) fn length(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// The bytes of an address.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_of_the_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
