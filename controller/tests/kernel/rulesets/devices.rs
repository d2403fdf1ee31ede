//! Rulesets of the table whose base chains are at devices.

use policy_compiler::model::{Family, LinkAddress, PortNumber, Protocol};
use policy_compiler::ruleset::{
    Chain, ChainId, EtherType, Fields, FrameMatch, Hook, KeyType, LogPrefix, Rule, Ruleset, SetId,
    SpoofReason, Statement, TableFamily, Verdict,
};

use super::{
    PORTS, V4, V6, accept, address, base_chain, chain, commented, drop, goto, in_set, ip, jump, plain, ports,
    range, ruleset, set, set_kind, small, verdict_map,
};
use crate::support;

/// The devices that the rulesets are about: one, and one with the longest of names.
const DEVICES: [&str; 2] = ["v1", "veth-012345.100"];

const LINK: LinkAddress = LinkAddress([0x02, 0x44, 0, 0, 1, 2]);

/// The greatest that there is: no digit of it may get lost.
const HIGHEST_LINK: LinkAddress = LinkAddress([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]);

const TYPES: [EtherType; 5] =
    [EtherType::Ipv4, EtherType::Arp, EtherType::Ipv6, EtherType::VlanTag, EtherType::ServiceTag];

/// Makes the devices.
pub(crate) fn raise_devices() {
    for (index, device) in DEVICES.into_iter().enumerate() {
        support::ip(&format!("link add {device} type veth peer name far{index}"));
    }
}

/// The small ruleset, whose base chain is at a device here.
pub(crate) fn small_at_device() -> Ruleset {
    let mut ruleset = Ruleset { table: TableFamily::Netdev, ..small() };
    let base = ruleset.chains.get_mut("forward").unwrap();
    base.hook = Some(Hook::Ingress(DEVICES[0].into()));
    base.rules[0] = Rule::new([FrameMatch::Header(LINK, EtherType::Arp).into(), accept()]);
    ruleset
}

/// Everything that a ruleset at devices can have.
pub(crate) fn everything_at_devices() -> Ruleset {
    let sets = [
        ("addresses4", set(set_kind(V4, false, false), [(address("10.0.0.1"), commented(plain(), "pod"))])),
        ("addresses6", set(set_kind(V6, false, false), [(address("fe80::1"), plain())])),
        ("answers", set(set_kind(KeyType::Answer, false, false), [])),
        ("behind4", set(set_kind(V4, false, true), [(address("10.0.0.1"), goto("end"))])),
        ("behind6", set(set_kind(V6, false, true), [(address("fd00::1"), goto("end"))])),
        ("blocks4", set(set_kind(V4, true, true), [(range("10.1.0.0", "10.1.255.255"), goto("end"))])),
        ("blocks6", set(set_kind(V6, true, true), [(range("fd01::", "fd01::ffff"), goto("end"))])),
        ("port_map", set(set_kind(PORTS, true, true), [(ports(Protocol::Udp, 5353, 5354), goto("end"))])),
        ("sources4", set(set_kind(V4, true, false), [(range("10.2.0.0", "10.2.0.255"), plain())])),
    ];
    let [ingress, egress] = [Hook::Ingress, Hook::Egress];
    let chains = [
        ("in", base_chain(ingress(DEVICES[0].into()), frame_rules())),
        ("in_long", base_chain(ingress(DEVICES[1].into()), combined_rules())),
        ("out", base_chain(egress(DEVICES[0].into()), set_rules())),
        ("out_long", base_chain(egress(DEVICES[1].into()), [Rule::new([jump("end")])])),
        ("end", end()),
    ];
    Ruleset { table: TableFamily::Netdev, ..ruleset(sets, chains) }
}

/// Each match on a frame, alone.
fn frame_rules() -> Vec<Rule> {
    let port = PortNumber::new(8472).unwrap();
    let neighbour = |kind, target: &str| FrameMatch::Neighbour(kind, target.parse().unwrap());
    let mut matches = vec![
        FrameMatch::From(LINK),
        FrameMatch::NotFrom(LINK),
        FrameMatch::NotTo(HIGHEST_LINK),
        FrameMatch::Unicast,
        FrameMatch::Source(ip("10.0.0.1")),
        FrameMatch::Source(ip("fd00::1")),
        FrameMatch::Destination(ip("255.255.255.255")),
        FrameMatch::Destination(ip("::")),
        FrameMatch::ArpSource("0.0.0.0".parse().unwrap()),
        FrameMatch::NotArpFrom(LINK),
        FrameMatch::UdpTo(port),
        neighbour(135, "fe80::1"),
        neighbour(136, "fd00::1"),
        neighbour(136, "::1"),
    ];
    for kind in TYPES {
        let headers = [LINK, HIGHEST_LINK].map(|from| FrameMatch::Header(from, kind));
        matches.extend(headers.into_iter().chain([FrameMatch::Type(kind), FrameMatch::Protocol(kind)]));
    }
    matches.into_iter().map(|frame| Rule::new([frame.into(), accept()])).collect()
}

/// Matches that follow one another, and what comes before them decides what has to be asked again.
fn combined_rules() -> Vec<Rule> {
    let (unspecified4, unspecified6) = (FrameMatch::Source(ip("0.0.0.0")), FrameMatch::Source(ip("::")));
    let header = |kind| Statement::from(FrameMatch::Header(LINK, kind));
    let link_local = || Statement::from(FrameMatch::Source(ip("fe80::1")));
    let icmp6 = |kind| Statement::Icmp6(kind, kind);
    let neighbour = |kind| Statement::from(FrameMatch::Neighbour(kind, "fd00::1".parse().unwrap()));
    let mut all = vec![
        vec![header(EtherType::Ipv4), FrameMatch::Source(ip("10.0.0.1")).into()],
        vec![header(EtherType::Ipv4), FrameMatch::SourceOfIpv4("10.0.0.1".parse().unwrap()).into()],
        vec![header(EtherType::Ipv4), FrameMatch::SourceOfIpv4("255.255.255.255".parse().unwrap()).into()],
        vec![header(EtherType::Ipv6), Statement::Transport(58)],
        vec![FrameMatch::Type(EtherType::Ipv4).into(), FrameMatch::Source(ip("10.0.0.1")).into()],
        vec![FrameMatch::Protocol(EtherType::Ipv4).into(), FrameMatch::Source(ip("10.0.0.1")).into()],
        vec![FrameMatch::NotTo(LINK).into(), FrameMatch::Unicast.into()],
        vec![unspecified4.into(), Statement::GROUP_MANAGEMENT],
        vec![
            unspecified4.into(),
            FrameMatch::Destination(ip("255.255.255.255")).into(),
            Statement::Dhcp(Family::Ipv4),
        ],
        vec![link_local(), Statement::Dhcp(Family::Ipv6)],
        vec![link_local(), in_set(Fields::Destination(Family::Ipv6), "addresses6")],
        vec![unspecified6.into(), neighbour(135)],
        vec![unspecified6.into(), Statement::Icmp6(130, 133)],
        vec![unspecified6.into(), Statement::LISTENER_REPORT, Statement::Counter],
        vec![Statement::Dhcp(Family::Ipv4)],
        vec![Statement::Dhcp(Family::Ipv6)],
        vec![Statement::LISTENER_DISCOVERY],
        vec![Statement::TcpSyn],
        vec![Statement::SctpInit],
        vec![Statement::SourceIsLocal],
        vec![Statement::InputDevice(DEVICES[0].into())],
        vec![Statement::InputDevice(DEVICES[1].into())],
    ];
    all.extend([133, 134, 135, 136, 137, 143].map(|kind| vec![icmp6(kind)]));
    all.extend([2, 4, 41, 47, 58].map(|protocol| vec![Statement::Transport(protocol)]));
    let goto_end = || Statement::Verdict(Verdict::Goto(ChainId::read("end")));
    all.into_iter().map(|matches| Rule::new([matches, vec![goto_end()]].concat())).collect()
}

fn set_rules() -> Vec<Rule> {
    let expect = Statement::ExpectAnswer(SetId::read("answers"));
    let sender6 = || Statement::from(FrameMatch::Source(ip("fe80::1")));
    let mut rules = vec![
        Rule::new([expect.clone()]),
        Rule::new([sender6(), expect, accept()]),
        Rule::new([in_set(Fields::Tuple(Family::Ipv6), "answers"), accept()]),
        Rule::new([in_set(Fields::Source(Family::Ipv4), "addresses4"), accept()]),
        Rule::new([in_set(Fields::Source(Family::Ipv4), "sources4"), accept()]).comment("a namespace's"),
        Rule::new([in_set(Fields::ArpSource, "sources4"), accept()]),
        Rule::new([verdict_map(Fields::ArpSource, "behind4")]),
        Rule::new([verdict_map(Fields::ProtocolAndPort, "port_map")]),
        Rule::new([
            in_set(Fields::Source(Family::Ipv6), "addresses6"),
            verdict_map(Fields::ProtocolAndPort, "port_map"),
        ]),
    ];
    let maps = [(Family::Ipv4, ["behind4", "blocks4"]), (Family::Ipv6, ["behind6", "blocks6"])];
    for (family, maps) in maps {
        for map in maps {
            rules.push(Rule::new([verdict_map(Fields::Source(family), map)]));
            rules.push(Rule::new([verdict_map(Fields::Destination(family), map)]));
        }
    }
    rules
}

/// What is logged and dropped, for each reason.
fn end() -> Chain {
    let rules = SpoofReason::ALL.map(|reason| {
        let log = Statement::Log(LogPrefix::Spoofed(reason));
        let tag = || Statement::from(FrameMatch::Type(EtherType::VlanTag));
        [
            Rule::new([tag(), Statement::WithinLogRate, log]),
            Rule::new([tag(), Statement::Counter, drop()]).comment(reason.as_str()),
        ]
    });
    chain(rules.concat())
}
