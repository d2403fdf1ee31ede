//! Rulesets to try.

use std::net::IpAddr;

use policy_compiler::model::{Family, Protocol};
use policy_compiler::ruleset::{
    Chain, ChainName, Element, ElementKey, Fields, Hook, KeyType, Rule, Ruleset, Set, SetKind, SetName,
    Statement, Verdict,
};

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
    Element { target: Some(ChainName::new(chain)), comment: None }
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
        sets: sets.into_iter().map(|(name, set)| (SetName::new(name), set)).collect(),
        chains: chains.into_iter().map(|(name, chain)| (ChainName::new(name), chain)).collect(),
    }
}

pub(crate) fn in_set(fields: Fields, set: &str) -> Statement {
    Statement::InSet(fields, SetName::new(set))
}

pub(crate) fn verdict_map(fields: Fields, map: &str) -> Statement {
    Statement::VerdictMap(fields, SetName::new(map))
}

pub(crate) fn jump(chain: &str) -> Statement {
    Statement::Verdict(Verdict::Jump(ChainName::new(chain)))
}

pub(crate) fn accept() -> Statement {
    Statement::Verdict(Verdict::Accept)
}

pub(crate) fn drop() -> Statement {
    Statement::Verdict(Verdict::Drop)
}

/// A small table like podfence's: one pod is isolated, and one address may reach one of its ports.
pub(crate) fn small() -> Ruleset {
    let (v4, destination) = (KeyType::Address(Family::Ipv4), Fields::Destination(Family::Ipv4));
    ruleset(
        [
            ("isolated_in4", set(set_kind(v4, false, true), [(address("10.0.0.1"), goto("group_1"))])),
            ("peers", set(set_kind(v4, false, false), [(address("10.0.0.2"), plain())])),
            ("blocks", set(set_kind(v4, true, false), [(range("192.168.0.0", "192.168.255.255"), plain())])),
            (
                "ports",
                set(
                    set_kind(KeyType::ProtocolPort, true, true),
                    [(ElementKey::ProtocolPort(Protocol::Tcp, 80, 90), goto("rule_1"))],
                ),
            ),
        ],
        [
            (
                "forward",
                base_chain(
                    Hook::Forward,
                    [
                        Rule::new([Statement::EstablishedOrRelated, accept()]),
                        Rule::new([verdict_map(destination, "isolated_in4")]),
                    ],
                ),
            ),
            (
                "group_1",
                chain([
                    Rule::new([
                        in_set(Fields::Source(Family::Ipv4), "peers"),
                        verdict_map(Fields::ProtocolAndPort, "ports"),
                    ]),
                    Rule::new([in_set(Fields::Source(Family::Ipv4), "blocks"), accept()]),
                    Rule::new([Statement::Counter, drop()]).comment("denied"),
                ]),
            ),
            ("rule_1", chain([Rule::new([Statement::Counter, accept()])])),
        ],
    )
}

/// Everything that a ruleset can have, at the edges of what nft and the kernel take.
pub(crate) fn everything() -> Ruleset {
    let long_set = format!("s{}", "x".repeat(254));
    let long_map = format!("m{}", "x".repeat(254));
    let long_chain = format!("c{}", "x".repeat(254));
    let long_comment = "y".repeat(128);
    let (v4, v6) = (KeyType::Address(Family::Ipv4), KeyType::Address(Family::Ipv6));
    let (pairs4, pairs6) = (KeyType::AddressPair(Family::Ipv4), KeyType::AddressPair(Family::Ipv6));
    let port = |protocol, first, last| ElementKey::ProtocolPort(protocol, first, last);
    let sets = [
        (
            "addresses4",
            set(
                set_kind(v4, false, false),
                [
                    (address("0.0.0.0"), plain()),
                    (address("10.0.0.1"), commented(plain(), &long_comment)),
                    (address("255.255.255.255"), plain()),
                ],
            ),
        ),
        (
            "addresses6",
            set(
                set_kind(v6, false, false),
                [(address("::"), plain()), (address("fd00::1"), commented(plain(), "a, b {c}; 'd' ä"))],
            ),
        ),
        (
            "isolated4",
            set(
                set_kind(v4, false, true),
                [
                    (address("10.0.0.1"), goto("end")),
                    (address("10.0.0.2"), commented(goto(&long_chain), &long_comment)),
                ],
            ),
        ),
        ("isolated6", set(set_kind(v6, false, true), [(address("fd00::1"), goto("end"))])),
        (
            "blocks4",
            set(
                set_kind(v4, true, false),
                [
                    (range("0.0.0.0", "9.255.255.255"), commented(plain(), "from the first address")),
                    (range("10.0.0.0", "10.0.0.0"), plain()),
                    (range("10.0.0.1", "10.0.0.1"), commented(plain(), "adjacent")),
                    (range("10.0.0.2", "10.1.2.3"), plain()),
                    (range("192.168.0.0", "192.168.255.255"), plain()),
                    (range("255.255.255.255", "255.255.255.255"), commented(plain(), "the last address")),
                ],
            ),
        ),
        (
            "blocks6",
            set(
                set_kind(v6, true, false),
                [
                    (range("::1", "::1"), plain()),
                    (range("fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), plain()),
                    (
                        range("fe80::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
                        commented(plain(), "to the last address"),
                    ),
                ],
            ),
        ),
        ("all4", set(set_kind(v4, true, true), [(range("0.0.0.0", "255.255.255.255"), goto("end"))])),
        (
            "all6",
            set(
                set_kind(v6, true, true),
                [(
                    range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
                    commented(goto("end"), "everything"),
                )],
            ),
        ),
        (
            "halves4",
            set(
                set_kind(v4, true, true),
                [
                    (range("0.0.0.0", "127.255.255.255"), goto("end")),
                    (range("128.0.0.0", "255.255.255.255"), goto(&long_chain)),
                ],
            ),
        ),
        ("itself4", set(set_kind(pairs4, false, false), [(pair("10.0.0.1", "10.0.0.1"), plain())])),
        (
            "itself6",
            set(
                set_kind(pairs6, false, false),
                [(pair("fd00::1", "fd00::1"), commented(plain(), "a pod to itself"))],
            ),
        ),
        ("pairs4", set(set_kind(pairs4, false, true), [(pair("10.0.0.1", "10.0.0.2"), goto("end"))])),
        ("pairs6", set(set_kind(pairs6, false, true), [(pair("fd00::1", "fd00::2"), goto("end"))])),
        (
            "ports",
            set(
                set_kind(KeyType::ProtocolPort, false, false),
                [
                    (port(Protocol::Tcp, 80, 80), plain()),
                    (port(Protocol::Udp, 65535, 65535), commented(plain(), "the last")),
                ],
            ),
        ),
        (
            "port_map",
            set(set_kind(KeyType::ProtocolPort, false, true), [(port(Protocol::Sctp, 1, 1), goto("end"))]),
        ),
        (
            "port_ranges",
            set(
                set_kind(KeyType::ProtocolPort, true, false),
                [
                    (port(Protocol::Tcp, 0, 65535), plain()),
                    (port(Protocol::Udp, 53, 53), commented(plain(), "one")),
                ],
            ),
        ),
        (
            "port_range_map",
            set(
                set_kind(KeyType::ProtocolPort, true, true),
                [
                    (port(Protocol::Tcp, 1, 1023), goto("end")),
                    (port(Protocol::Tcp, 1024, 65535), goto("nothing")),
                    (port(Protocol::Sctp, 7, 9), commented(goto("end"), "sctp")),
                ],
            ),
        ),
        ("empty", Set::new(set_kind(v4, true, false))),
        (&*long_set, set(set_kind(v4, false, false), [(address("10.0.0.1"), plain())])),
        (&*long_map, set(set_kind(v6, false, true), [(address("fd00::1"), goto(&long_chain))])),
    ];
    let (source4, source6) = (Fields::Source(Family::Ipv4), Fields::Source(Family::Ipv6));
    let (destination4, destination6) = (Fields::Destination(Family::Ipv4), Fields::Destination(Family::Ipv6));
    let forward = [
        Rule::new([Statement::EstablishedOrRelated, accept()]).comment("ä \\ ' {}"),
        Rule::new([Statement::NeighbourDiscovery, Statement::Counter, accept()]),
        Rule::new([in_set(source6, "addresses6"), Statement::NeighbourDiscovery, accept()]),
        Rule::new([in_set(Fields::SourceAndDestination(Family::Ipv4), "itself4"), accept()]),
        Rule::new([in_set(Fields::SourceAndDestination(Family::Ipv6), "itself6"), accept()]),
        Rule::new([verdict_map(Fields::SourceAndDestination(Family::Ipv4), "pairs4")]),
        Rule::new([verdict_map(Fields::SourceAndDestination(Family::Ipv6), "pairs6")]),
        Rule::new([in_set(source4, "addresses4"), in_set(destination4, "blocks4"), drop()]),
        Rule::new([in_set(destination6, "blocks6"), Statement::Counter, drop()]),
        Rule::new([verdict_map(source4, "isolated4")]).comment(long_comment),
        Rule::new([verdict_map(destination6, "isolated6")]),
        Rule::new([verdict_map(source4, "all4")]),
        Rule::new([verdict_map(source6, "all6")]),
        Rule::new([verdict_map(destination4, "halves4")]),
        Rule::new([jump(&long_chain)]),
        Rule::new([Statement::Verdict(Verdict::Goto(ChainName::new("end")))]),
    ];
    let output = [
        Rule::new([Statement::SourceIsLocal, Statement::Verdict(Verdict::Return)]),
        Rule::new([in_set(source4, &long_set), in_set(Fields::ProtocolAndPort, "ports"), accept()]),
        Rule::new([verdict_map(source6, &long_map)]),
    ];
    let ports = [
        Rule::new([in_set(Fields::ProtocolAndPort, "ports"), Statement::Counter]),
        Rule::new([verdict_map(Fields::ProtocolAndPort, "port_map")]),
        Rule::new([
            in_set(Fields::ProtocolAndPort, "port_ranges"),
            Statement::Counter,
            Statement::Verdict(Verdict::Return),
        ]),
        Rule::new([in_set(source4, "empty"), verdict_map(Fields::ProtocolAndPort, "port_range_map")]),
    ];
    let chains = [
        ("forward", base_chain(Hook::Forward, forward)),
        ("output", base_chain(Hook::Output, output)),
        (&*long_chain, chain(ports)),
        ("end", chain([Rule::new([Statement::Counter, drop()]).comment("denied")])),
        ("nothing", chain([])),
    ];
    ruleset(sets, chains)
}
