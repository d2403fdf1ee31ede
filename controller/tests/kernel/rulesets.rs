//! Rulesets to try.

mod devices;

pub(crate) use devices::{everything_at_devices, raise_devices, small_at_device};

use std::net::IpAddr;
use std::sync::LazyLock;

use policy_compiler::model::{Direction, Family, Protocol};
use policy_compiler::ruleset::{
    Chain, ChainId, Element, ElementKey, Fields, Hook, KeyType, LogEvent, LogPrefix, Rule, Ruleset, Set,
    SetId, SetKind, Statement, TableFamily, Verdict,
};

pub(crate) const V4: KeyType = KeyType::Address(Family::Ipv4);
pub(crate) const V6: KeyType = KeyType::Address(Family::Ipv6);
pub(crate) const PAIRS4: KeyType = KeyType::AddressPair(Family::Ipv4);
pub(crate) const PAIRS6: KeyType = KeyType::AddressPair(Family::Ipv6);
pub(crate) const PORTS: KeyType = KeyType::ProtocolPort;
pub(crate) const TUPLES4: KeyType = KeyType::Tuple(Family::Ipv4);
pub(crate) const TUPLES6: KeyType = KeyType::Tuple(Family::Ipv6);

pub(crate) fn set_kind(key: KeyType, interval: bool, verdicts: bool) -> SetKind {
    SetKind { key, interval, verdicts }
}

pub(crate) fn set(kind: SetKind, elements: impl IntoIterator<Item = (ElementKey, Element)>) -> Set {
    Set { kind, elements: elements.into_iter().collect() }
}

pub(crate) fn plain() -> Element {
    Element { target: None, comment: None }
}

pub(crate) fn goto(chain: &str) -> Element {
    Element { target: Some(ChainId::read(chain)), comment: None }
}

pub(crate) fn commented(element: Element, comment: &str) -> Element {
    Element { comment: Some(comment.into()), ..element }
}

pub(crate) fn address(text: &str) -> ElementKey {
    ElementKey::Address(ip(text))
}

pub(crate) fn range(first: &str, last: &str) -> ElementKey {
    ElementKey::AddressRange(ip(first), ip(last))
}

pub(crate) fn pair(source: &str, destination: &str) -> ElementKey {
    ElementKey::AddressPair(ip(source), ip(destination))
}

pub(crate) fn ports(protocol: Protocol, first: u16, last: u16) -> ElementKey {
    ElementKey::ProtocolPort(protocol, first, last)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn chain(rules: impl Into<Vec<Rule>>) -> Chain {
    Chain { hook: None, rules: rules.into() }
}

pub(crate) fn base_chain(hook: Hook, rules: impl Into<Vec<Rule>>) -> Chain {
    Chain { hook: Some(hook), rules: rules.into() }
}

pub(crate) fn ruleset<'a>(
    sets: impl IntoIterator<Item = (&'a str, Set)>,
    chains: impl IntoIterator<Item = (&'a str, Chain)>,
) -> Ruleset {
    Ruleset {
        table: TableFamily::Inet,
        sets: sets.into_iter().map(|(name, set)| (SetId::read(name), set)).collect(),
        chains: chains.into_iter().map(|(name, chain)| (ChainId::read(name), chain)).collect(),
    }
}

pub(crate) fn in_set(fields: Fields, set: &str) -> Statement {
    Statement::InSet(fields, SetId::read(set))
}

pub(crate) fn verdict_map(fields: Fields, map: &str) -> Statement {
    Statement::VerdictMap(fields, SetId::read(map))
}

pub(crate) fn jump(chain: &str) -> Statement {
    Statement::Verdict(Verdict::Jump(ChainId::read(chain)))
}

pub(crate) fn accept() -> Statement {
    Statement::Verdict(Verdict::Accept)
}

pub(crate) fn drop() -> Statement {
    Statement::Verdict(Verdict::Drop)
}

/// A small table like podfence's: one pod is isolated, and one address may reach some of its ports.
pub(crate) fn small() -> Ruleset {
    let (source, destination) = (Fields::Source(Family::Ipv4), Fields::Destination(Family::Ipv4));
    let sets = [
        ("isolated_in4", set(set_kind(V4, false, true), [(address("10.0.0.1"), goto("group_1"))])),
        ("peers", set(set_kind(V4, false, false), [(address("10.0.0.2"), plain())])),
        ("blocks", set(set_kind(V4, true, false), [(range("192.168.0.0", "192.168.255.255"), plain())])),
        ("ports", set(set_kind(PORTS, true, true), [(ports(Protocol::Tcp, 80, 90), goto("rule_1"))])),
    ];
    let forward = [
        Rule::new([Statement::EstablishedOrRelated, accept()]),
        Rule::new([verdict_map(destination, "isolated_in4")]),
    ];
    let group = [
        Rule::new([in_set(source, "peers"), verdict_map(Fields::ProtocolAndPort, "ports")]),
        Rule::new([in_set(source, "blocks"), accept()]),
        Rule::new([Statement::Counter, drop()]).comment("denied"),
    ];
    let chains = [
        ("forward", base_chain(Hook::Forward, forward)),
        ("group_1", chain(group)),
        ("rule_1", chain([Rule::new([Statement::Counter, accept()])])),
    ];
    ruleset(sets, chains)
}

/// Names and a comment of the greatest length.
static LONG_SET: LazyLock<String> = LazyLock::new(|| format!("s{}", "x".repeat(254)));
static LONG_MAP: LazyLock<String> = LazyLock::new(|| format!("m{}", "x".repeat(254)));
static LONG_CHAIN: LazyLock<String> = LazyLock::new(|| format!("c{}", "x".repeat(254)));
static LONG_COMMENT: LazyLock<String> = LazyLock::new(|| "y".repeat(128));

/// Everything that a ruleset can have, at the edges of what nft and the kernel take.
pub(crate) fn everything() -> Ruleset {
    let sets = address_sets()
        .into_iter()
        .chain(interval_sets())
        .chain(pair_sets())
        .chain(port_sets())
        .chain(transient_sets());
    let chains = [
        ("forward", base_chain(Hook::Forward, forward_rules())),
        ("input", base_chain(Hook::Input, input_rules())),
        ("output", base_chain(Hook::Output, output_rules())),
        (&**LONG_CHAIN, chain(port_rules())),
        ("end", chain([Rule::new([Statement::Counter, drop()]).comment("denied")])),
        ("nothing", chain([])),
    ];
    ruleset(sets, chains)
}

fn address_sets() -> Vec<(&'static str, Set)> {
    let addresses4 = [
        (address("0.0.0.0"), plain()),
        (address("10.0.0.1"), commented(plain(), &LONG_COMMENT)),
        (address("255.255.255.255"), plain()),
    ];
    let addresses6 = [(address("::"), plain()), (address("fd00::1"), commented(plain(), "a, b {c}; 'd' ä"))];
    let isolated4 = [
        (address("10.0.0.1"), goto("end")),
        (address("10.0.0.2"), commented(goto(&LONG_CHAIN), &LONG_COMMENT)),
    ];
    vec![
        ("addresses4", set(set_kind(V4, false, false), addresses4)),
        ("addresses6", set(set_kind(V6, false, false), addresses6)),
        ("isolated4", set(set_kind(V4, false, true), isolated4)),
        ("isolated6", set(set_kind(V6, false, true), [(address("fd00::1"), goto("end"))])),
        (&LONG_SET, set(set_kind(V4, false, false), [(address("10.0.0.1"), plain())])),
        (&LONG_MAP, set(set_kind(V6, false, true), [(address("fd00::1"), goto(&LONG_CHAIN))])),
    ]
}

fn interval_sets() -> Vec<(&'static str, Set)> {
    const HIGHEST: &str = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let blocks4 = [
        (range("0.0.0.0", "9.255.255.255"), commented(plain(), "from the first address")),
        (range("10.0.0.0", "10.0.0.0"), plain()),
        (range("10.0.0.1", "10.0.0.1"), commented(plain(), "adjacent")),
        (range("10.0.0.2", "10.1.2.3"), plain()),
        (range("192.168.0.0", "192.168.255.255"), plain()),
        (range("255.255.255.255", "255.255.255.255"), commented(plain(), "the last address")),
    ];
    let blocks6 = [
        (range("::1", "::1"), plain()),
        (range("fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), plain()),
        (range("fe80::", HIGHEST), commented(plain(), "to the last address")),
    ];
    let halves4 = [
        (range("0.0.0.0", "127.255.255.255"), goto("end")),
        (range("128.0.0.0", "255.255.255.255"), goto(&LONG_CHAIN)),
    ];
    let all6 = [(range("::", HIGHEST), commented(goto("end"), "everything"))];
    vec![
        ("blocks4", set(set_kind(V4, true, false), blocks4)),
        ("blocks6", set(set_kind(V6, true, false), blocks6)),
        ("all4", set(set_kind(V4, true, true), [(range("0.0.0.0", "255.255.255.255"), goto("end"))])),
        ("all6", set(set_kind(V6, true, true), all6)),
        ("halves4", set(set_kind(V4, true, true), halves4)),
        ("empty", Set::new(set_kind(V4, true, false))),
    ]
}

fn pair_sets() -> Vec<(&'static str, Set)> {
    let itself6 = [(pair("fd00::1", "fd00::1"), commented(plain(), "a pod to itself"))];
    vec![
        ("itself4", set(set_kind(PAIRS4, false, false), [(pair("10.0.0.1", "10.0.0.1"), plain())])),
        ("itself6", set(set_kind(PAIRS6, false, false), itself6)),
        ("pairs4", set(set_kind(PAIRS4, false, true), [(pair("10.0.0.1", "10.0.0.2"), goto("end"))])),
        ("pairs6", set(set_kind(PAIRS6, false, true), [(pair("fd00::1", "fd00::2"), goto("end"))])),
    ]
}

fn port_sets() -> Vec<(&'static str, Set)> {
    let single = [
        (ports(Protocol::Tcp, 80, 80), plain()),
        (ports(Protocol::Udp, 65535, 65535), commented(plain(), "the last")),
    ];
    let port_ranges = [
        (ports(Protocol::Tcp, 0, 65535), plain()),
        (ports(Protocol::Udp, 53, 53), commented(plain(), "one")),
    ];
    let port_range_map = [
        (ports(Protocol::Tcp, 1, 1023), goto("end")),
        (ports(Protocol::Tcp, 1024, 65535), goto("nothing")),
        (ports(Protocol::Sctp, 7, 9), commented(goto("end"), "sctp")),
    ];
    let port_map = [(ports(Protocol::Sctp, 1, 1), goto("end"))];
    vec![
        ("ports", set(set_kind(PORTS, false, false), single)),
        ("port_map", set(set_kind(PORTS, false, true), port_map)),
        ("port_ranges", set(set_kind(PORTS, true, false), port_ranges)),
        ("port_range_map", set(set_kind(PORTS, true, true), port_range_map)),
    ]
}

fn transient_sets() -> Vec<(&'static str, Set)> {
    vec![
        ("tuples4", Set::new(set_kind(TUPLES4, false, false))),
        ("tuples6", Set::new(set_kind(TUPLES6, false, false))),
    ]
}

fn forward_rules() -> Vec<Rule> {
    let (source4, source6) = (Fields::Source(Family::Ipv4), Fields::Source(Family::Ipv6));
    let (destination4, destination6) = (Fields::Destination(Family::Ipv4), Fields::Destination(Family::Ipv6));
    let both = Fields::SourceAndDestination;
    vec![
        Rule::new([Statement::EstablishedOrRelated, accept()]).comment("ä \\ ' {}"),
        Rule::new([Statement::InvalidOrUntracked, Statement::Verdict(Verdict::Goto(ChainId::read("end")))]),
        Rule::new([Statement::NEIGHBOUR_DISCOVERY, Statement::Counter, accept()]),
        Rule::new([in_set(source6, "addresses6"), Statement::NEIGHBOUR_DISCOVERY, accept()]),
        Rule::new([in_set(both(Family::Ipv4), "itself4"), accept()]),
        Rule::new([in_set(both(Family::Ipv6), "itself6"), accept()]),
        Rule::new([verdict_map(both(Family::Ipv4), "pairs4")]),
        Rule::new([verdict_map(both(Family::Ipv6), "pairs6")]),
        Rule::new([in_set(source4, "addresses4"), in_set(destination4, "blocks4"), drop()]),
        Rule::new([in_set(destination6, "blocks6"), Statement::Counter, drop()]),
        Rule::new([verdict_map(source4, "isolated4")]).comment(&**LONG_COMMENT),
        Rule::new([verdict_map(destination6, "isolated6")]),
        Rule::new([verdict_map(source4, "all4")]),
        Rule::new([verdict_map(source6, "all6")]),
        Rule::new([verdict_map(destination4, "halves4")]),
        Rule::new([jump(&LONG_CHAIN)]),
        Rule::new([Statement::Verdict(Verdict::Goto(ChainId::read("end")))]),
    ]
}

fn input_rules() -> Vec<Rule> {
    let source4 = Fields::Source(Family::Ipv4);
    vec![
        Rule::new([Statement::LISTENER_DISCOVERY, accept()]),
        Rule::new([in_set(Fields::Source(Family::Ipv6), "addresses6"), Statement::LISTENER_REPORT, accept()]),
        Rule::new([Statement::GROUP_MANAGEMENT, accept()]),
        Rule::new([Statement::Dhcp(Family::Ipv4), accept()]),
        Rule::new([Statement::Dhcp(Family::Ipv6), Statement::Counter, accept()]),
        Rule::new([Statement::DestinationIsLocal, verdict_map(source4, "isolated4")]),
        Rule::new([Statement::DestinationIsLocal, verdict_map(Fields::ProtocolAndPort, "port_map")]),
    ]
}

fn output_rules() -> Vec<Rule> {
    let (source4, source6) = (Fields::Source(Family::Ipv4), Fields::Source(Family::Ipv6));
    vec![
        Rule::new([Statement::SourceIsLocal, Statement::Verdict(Verdict::Return)]),
        Rule::new([in_set(Fields::Tuple(Family::Ipv4), "tuples4"), jump("end")]),
        Rule::new([in_set(Fields::Tuple(Family::Ipv6), "tuples6"), Statement::TcpSyn, accept()]),
        Rule::new([Statement::TcpSyn, Statement::Verdict(Verdict::Return)]),
        Rule::new([Statement::SctpInit, Statement::Verdict(Verdict::Return)]),
        Rule::new([in_set(source4, &LONG_SET), in_set(Fields::ProtocolAndPort, "ports"), accept()]),
        Rule::new([verdict_map(source6, &LONG_MAP)]),
    ]
}

fn port_rules() -> Vec<Rule> {
    let (source4, ports) = (Fields::Source(Family::Ipv4), Fields::ProtocolAndPort);
    vec![
        Rule::new([in_set(ports, "ports"), Statement::Counter]),
        Rule::new([
            Statement::WithinLogRate,
            Statement::Log(LogPrefix::Judged { direction: Direction::Egress, event: LogEvent::StrictStart }),
        ]),
        Rule::new([verdict_map(ports, "port_map")]),
        Rule::new([in_set(ports, "port_ranges"), Statement::Counter, Statement::Verdict(Verdict::Return)]),
        Rule::new([in_set(source4, "empty"), verdict_map(ports, "port_range_map")]),
    ]
}
