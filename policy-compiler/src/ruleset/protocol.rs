//! Numbers in the headers of packets, and nft's names for some of them.

use super::Statement;
use crate::model::Family;

/// Protocols in IP (IANA "Protocol Numbers").
const IGMP: u8 = 2;
const IPV4: u8 = 4;
const IPV6: u8 = 41;
const GRE: u8 = 47;
pub(crate) const ICMP6: u8 = 58;

/// Types of `ICMPv6` (RFC 2710, RFC 4861, RFC 3810).
pub(crate) const LISTENER_QUERY: u8 = 130;
const LISTENER_DONE: u8 = 132;
pub(crate) const ROUTER_SOLICITATION: u8 = 133;
pub(crate) const ROUTER_ADVERTISEMENT: u8 = 134;
pub(crate) const NEIGHBOUR_SOLICITATION: u8 = 135;
pub(crate) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
pub(crate) const REDIRECT: u8 = 137;
const LISTENER_REPORT_2: u8 = 143;

/// nft's names for the protocols that rules name.
const PROTOCOLS: [(u8, &str); 5] =
    [(IGMP, "igmp"), (IPV4, "ipencap"), (IPV6, "ipv6"), (GRE, "gre"), (ICMP6, "ipv6-icmp")];

/// nft's names for the types of `ICMPv6` that rules name one by one.
const ICMP6_TYPES: [(u8, &str); 6] = [
    (ROUTER_SOLICITATION, "nd-router-solicit"),
    (ROUTER_ADVERTISEMENT, "nd-router-advert"),
    (NEIGHBOUR_SOLICITATION, "nd-neighbor-solicit"),
    (NEIGHBOUR_ADVERTISEMENT, "nd-neighbor-advert"),
    (REDIRECT, "nd-redirect"),
    (LISTENER_REPORT_2, "mld2-listener-report"),
];

impl Statement {
    /// `icmpv6 type 133-137`: router and neighbour discovery (RFC 4861, section 4).
    pub const NEIGHBOUR_DISCOVERY: Self = Self::Icmp6(ROUTER_SOLICITATION, REDIRECT);
    /// `icmpv6 type 130-132`: multicast listener discovery (RFC 2710, section 3.1).
    pub const LISTENER_DISCOVERY: Self = Self::Icmp6(LISTENER_QUERY, LISTENER_DONE);
    /// `icmpv6 type mld2-listener-report`: the report of its second version (RFC 3810, section 5.2).
    pub const LISTENER_REPORT: Self = Self::Icmp6(LISTENER_REPORT_2, LISTENER_REPORT_2);
    /// `meta l4proto igmp`: what listener discovery is with IPv4.
    pub const GROUP_MANAGEMENT: Self = Self::Transport(IGMP);
}

/// A protocol in IP as nft writes it.
pub fn protocol_name(number: u8) -> String {
    name(&PROTOCOLS, number)
}

/// A type of `ICMPv6` as nft writes it.
pub fn icmp6_type_name(number: u8) -> String {
    name(&ICMP6_TYPES, number)
}

fn name(names: &[(u8, &str)], number: u8) -> String {
    let entry = names.iter().find(|(of, _)| *of == number);
    entry.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

/// The ports of a DHCP client and of the servers that it asks (RFC 2131, section 4.1; for `DHCPv6` RFC 9915).
pub const fn dhcp_ports(family: Family) -> (u16, u16) {
    match family {
        Family::Ipv4 => (68, 67),
        Family::Ipv6 => (546, 547),
    }
}
