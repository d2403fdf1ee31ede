//! Addresses and blocks, read as leniently as Kubernetes reads the ones it stored long ago.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::fields::{Field, Read};
use super::quoted::quoted;

/// An address; IPv4 written as IPv6 (`::ffff:10.0.0.1`) is the IPv4 address.
pub(super) fn address(field: &Field<'_>) -> Read<IpAddr> {
    let text = field.text()?;
    ip_address(text).ok_or_else(|| field.problem(format!("{} is no IP address", quoted(text))))
}

/// An address that others reach: none of those that the API server refuses in Endpoints, EndpointSlices and
/// `externalIPs`, because they stand for the node itself or its link.
pub(super) fn reachable_address(field: &Field<'_>) -> Read<IpAddr> {
    let address = address(field)?;
    let is_local = match address {
        IpAddr::V4(v4) => {
            v4.is_unspecified()
                || v4.is_loopback()
                || v4.is_link_local()
                || matches!(v4.octets(), [224, 0, 0, _])
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_unicast_link_local()
                || matches!(v6.segments(), [first, ..] if first & 0xff0f == 0xff02)
        }
    };
    if is_local {
        let message = format!(
            "the API server refuses {address} here: it is an unspecified, loopback or link-local address"
        );
        return Err(field.problem(message));
    }
    Ok(address)
}

/// Reads an address as leniently as it is read in manifests: IPv4 may have leading zeros, and IPv4 written as
/// IPv6 (`::ffff:10.0.0.1`) is the IPv4 address. `None` if it is no address.
pub fn ip_address(text: &str) -> Option<IpAddr> {
    parse_address(text).map(|address| address.to_canonical())
}

/// Reads a block without its host bits; a block of IPv4 written as IPv6 is the IPv4 block. `None` if it is no block.
pub fn ip_block(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().map(|block| unmapped(block.trunc()))
}

/// Reads what stands in [`ALLOWED_SOURCES_ANNOTATION`](crate::model::ALLOWED_SOURCES_ANNOTATION): addresses and blocks,
/// without their host bits, and the parts that are neither.
pub fn allowed_sources(text: &str) -> (Vec<IpNet>, Vec<String>) {
    let (mut sources, mut unread) = (Vec::new(), Vec::new());
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let address = || ip_address(part).map(IpNet::from);
        match ip_block(part).or_else(address) {
            Some(source) => sources.push(source),
            None => unread.push(part.to_owned()),
        }
    }
    (sources, unread)
}

/// A block in CIDR notation. Kubernetes accepts some that are not in their canonical form; their host bits
/// are cut off, leading zeros of decimal numbers mean nothing, and a block of IPv4 written as IPv6
/// (`::ffff:10.0.0.0/104`) is the IPv4 block, because it never matched anything else.
pub(super) fn block(field: &Field<'_>) -> Read<IpNet> {
    let (block, is_canonical) = read_block(field)?;
    if !is_canonical {
        let shown = quoted(field.text()?);
        field.warn(format!("read as {block}: write it so, because the API server may refuse {shown}"));
    }
    Ok(block)
}

/// A block as the CEL functions of the API server read one: without host bits, and not of IPv4 written as IPv6.
pub(super) fn canonical_block(field: &Field<'_>) -> Read<IpNet> {
    match read_block(field)? {
        (block, true) => Ok(block),
        (block, false) => {
            Err(field.problem(format!("the API server refuses {}: write {block}", quoted(field.text()?))))
        }
    }
}

/// A block, and whether it is written in its canonical form.
fn read_block(field: &Field<'_>) -> Read<(IpNet, bool)> {
    let text = field.text()?;
    let shown = quoted(text);
    let Some((address, length)) = text.split_once('/') else {
        return Err(field.problem(match parse_address(text) {
            Some(IpAddr::V4(address)) => format!("{shown} is no block: for one address write {address}/32"),
            Some(IpAddr::V6(address)) => format!("{shown} is no block: for one address write {address}/128"),
            None => format!("{shown} is no block: write ADDRESS/LENGTH, such as 10.0.0.0/8"),
        }));
    };
    let Some(address) = parse_address(address) else {
        return Err(field.problem(format!("{shown} is no block: what is before the `/` is no IP address")));
    };
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    let block = length.parse().ok().filter(|_| digits).and_then(|length| IpNet::new(address, length).ok());
    let Some(block) = block else {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        return Err(field.problem(format!("{shown} is no block: the length must be 0 to {longest}")));
    };
    let canonical = unmapped(block.trunc());
    Ok((canonical, canonical.to_string() == text || is_same_text(text, canonical)))
}

/// Whether the text is just another spelling of the same IPv6 block (`2001:DB8:0::/32`).
fn is_same_text(text: &str, block: IpNet) -> bool {
    matches!(block, IpNet::V6(_)) && text.parse() == Ok(block)
}

fn unmapped(block: IpNet) -> IpNet {
    let (IpAddr::V4(address), Some(length)) =
        (block.network().to_canonical(), block.prefix_len().checked_sub(96))
    else {
        return block;
    };
    match (block, Ipv4Net::new(address, length)) {
        (IpNet::V6(_), Ok(block)) => IpNet::V4(block),
        _ => block,
    }
}

fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| decimal_with_zeros(text).map(IpAddr::V4))
}

/// Four decimal numbers, with leading zeros or without.
fn decimal_with_zeros(text: &str) -> Option<Ipv4Addr> {
    let octet = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let number = part.trim_start_matches('0');
        if number.is_empty() { Some(0) } else { number.parse::<u8>().ok() }.filter(|_| digits)
    };
    let octets: Vec<u8> = text.split('.').map(octet).collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from)
}
