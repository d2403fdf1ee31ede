//! A ruleset as `nft -j -f` reads it (libnftables-json(5)).

use std::io::{self, Write};

use policy_compiler::model::{Family, Protocol};
use policy_compiler::ruleset::{
    Chain, ChainId, Element, ElementKey, Fields, KeyType, LOG_BURST, LOG_GROUP, LOG_RATE, LOG_SNAP_LENGTH,
    Rule, Ruleset, Set, SetId, Statement, TABLE, Transient, Tuple, Verdict, dhcp_ports, icmp6_type_name,
    protocol_name,
};
use serde_json::{Value, json};

/// Writes an object a line: the table, then all that others refer to, then the rules.
pub(super) fn write(ruleset: &Ruleset, output: &mut impl Write) -> io::Result<()> {
    // Devices are no part of a dry run, and nor is the table that guards them.
    let Ruleset { sets, chains, table: _ } = ruleset;
    let table = json!({ "table": { "family": "inet", "name": TABLE } });
    // An element may lead to a chain, so the chains come before what fills the sets.
    let chain_objects = chains.iter().map(|(name, chain)| chain_object(name, chain));
    let set_objects = sets.iter().map(|(name, set)| set_object(name, set));
    let rules =
        chains.iter().flat_map(|(name, chain)| chain.rules.iter().map(|rule| rule_object(name, rule)));
    write!(output, "{{\"nftables\":[\n{table}")?;
    for object in chain_objects.chain(set_objects).chain(rules) {
        write!(output, ",\n{object}")?;
    }
    output.write_all(b"\n]}\n")
}

fn chain_object(name: &ChainId, chain: &Chain) -> Value {
    let mut object = json!({ "family": "inet", "table": TABLE, "name": name.name() });
    if let Some(hook) = &chain.hook {
        object["type"] = json!("filter");
        object["hook"] = json!(hook.as_str());
        if let Some(device) = hook.device() {
            object["dev"] = json!(&**device);
        }
        object["prio"] = json!(hook.priority());
        object["policy"] = json!("accept");
    }
    json!({ "chain": object })
}

fn set_object(name: &SetId, set: &Set) -> Value {
    let mut object =
        json!({ "family": "inet", "table": TABLE, "name": name.name(), "type": key_type(set.kind.key) });
    if set.kind.interval {
        object["flags"] = json!(["interval"]);
    }
    if let Some(Transient { size, collected_every, dynamic }) = set.kind.transient() {
        object["size"] = json!(size);
        object["flags"] = if dynamic { json!(["dynamic", "timeout"]) } else { json!(["timeout"]) };
        object["gc-interval"] = json!(collected_every.as_secs());
    }
    if !set.elements.is_empty() {
        object["elem"] = set.elements.iter().map(|(key, element)| element_value(*key, element)).collect();
    }
    if set.kind.verdicts {
        object["map"] = json!("verdict");
        json!({ "map": object })
    } else {
        json!({ "set": object })
    }
}

fn key_type(key: KeyType) -> Value {
    let address = |family| match family {
        Family::Ipv4 => "ipv4_addr",
        Family::Ipv6 => "ipv6_addr",
    };
    match key {
        KeyType::Address(family) => json!(address(family)),
        KeyType::AddressPair(family) => json!([address(family), address(family)]),
        KeyType::ProtocolPort => json!(["inet_proto", "inet_service"]),
        KeyType::Tuple(family) => {
            json!([address(family), address(family), "inet_proto", "inet_service", "inet_service"])
        }
        KeyType::Answer => key_type(KeyType::Tuple(Family::Ipv6)),
    }
}

fn element_value(key: ElementKey, element: &Element) -> Value {
    let key = match key {
        ElementKey::Address(address) => json!(address),
        ElementKey::AddressRange(first, last) if first == last => json!(first),
        ElementKey::AddressRange(first, last) => json!({ "range": [first, last] }),
        ElementKey::AddressPair(source, destination) => json!({ "concat": [source, destination] }),
        ElementKey::ProtocolPort(protocol, first, last) => {
            let ports = if first == last { json!(first) } else { json!({ "range": [first, last] }) };
            json!({ "concat": [inet_proto(protocol), ports] })
        }
        ElementKey::Tuple(Tuple { source, destination, protocol, source_port, destination_port }) => {
            json!({ "concat": [source, destination, inet_proto(protocol), source_port, destination_port] })
        }
    };
    let key = match &element.comment {
        Some(comment) => json!({ "elem": { "val": key, "comment": &**comment } }),
        None => key,
    };
    match &element.target {
        Some(chain) => json!([key, { "goto": { "target": chain.name() } }]),
        None => key,
    }
}

fn inet_proto(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn rule_object(chain: &ChainId, rule: &Rule) -> Value {
    let statements: Vec<_> = rule.statements.iter().flat_map(statement).collect();
    let mut object = json!({ "family": "inet", "table": TABLE, "chain": chain.name(), "expr": statements });
    if let Some(comment) = &rule.comment {
        object["comment"] = json!(&**comment);
    }
    json!({ "rule": object })
}

fn statement(statement: &Statement) -> Vec<Value> {
    let matches = |operator, left: Value, right: Value| json!({ "match": { "op": operator, "left": left, "right": right } });
    let conntrack_state = |states: &[&str]| matches("in", json!({ "ct": { "key": "state" } }), json!(states));
    let is_local = |end| matches("==", json!({ "fib": { "result": "type", "flags": end } }), json!("local"));
    let one = match statement {
        Statement::EstablishedOrRelated => conntrack_state(&["established", "related"]),
        Statement::InvalidOrUntracked => conntrack_state(&["invalid", "untracked"]),
        Statement::Icmp6(first, last) if first == last => {
            matches("==", payload("icmpv6", "type"), json!(icmp6_type_name(*first)))
        }
        Statement::Icmp6(first, last) => {
            matches("==", payload("icmpv6", "type"), json!({ "range": [first, last] }))
        }
        Statement::OfFamily(Family::Ipv4) => matches("==", meta("nfproto"), json!("ipv4")),
        Statement::OfFamily(Family::Ipv6) => matches("==", meta("nfproto"), json!("ipv6")),
        Statement::Transport(number) => matches("==", meta("l4proto"), json!(protocol_name(*number))),
        Statement::Dhcp(family) => {
            let (client, server) = dhcp_ports(*family);
            let port = |field, number| matches("==", payload("udp", field), json!(number));
            return vec![port("sport", client), port("dport", server)];
        }
        Statement::SourceIsLocal => is_local("saddr"),
        Statement::DestinationIsLocal => is_local("daddr"),
        Statement::TcpSyn => {
            let flags = json!({ "&": [payload("tcp", "flags"), ["fin", "syn", "rst", "ack"]] });
            matches("==", flags, json!("syn"))
        }
        Statement::SctpInit => {
            let first_chunk = json!({ "payload": { "base": "th", "offset": 96, "len": 8 } });
            return vec![matches("==", meta("l4proto"), json!("sctp")), matches("==", first_chunk, json!(1))];
        }
        Statement::InSet(of, set) => matches("==", fields(*of), json!(format!("@{set}"))),
        Statement::VerdictMap(of, map) => {
            json!({ "vmap": { "key": fields(*of), "data": format!("@{map}") } })
        }
        Statement::WithinLogRate => {
            json!({ "limit": { "rate": LOG_RATE, "burst": LOG_BURST, "per": "second" } })
        }
        Statement::Log(prefix) => json!({ "log": {
            "prefix": prefix.to_string(), "group": LOG_GROUP, "snaplen": LOG_SNAP_LENGTH,
        } }),
        // Of the table that guards devices: no dry run has it.
        Statement::Frame(_) | Statement::InputDevice(_) | Statement::ExpectAnswer(_) => return Vec::new(),
        Statement::Counter => json!({ "counter": null }),
        Statement::Verdict(Verdict::Accept) => json!({ "accept": null }),
        Statement::Verdict(Verdict::Drop) => json!({ "drop": null }),
        Statement::Verdict(Verdict::Return) => json!({ "return": null }),
        Statement::Verdict(Verdict::Jump(chain)) => json!({ "jump": { "target": chain.name() } }),
        Statement::Verdict(Verdict::Goto(chain)) => json!({ "goto": { "target": chain.name() } }),
    };
    vec![one]
}

fn fields(fields: Fields) -> Value {
    let header = |family| match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    };
    match fields {
        Fields::Source(family) => payload(header(family), "saddr"),
        Fields::Destination(family) => payload(header(family), "daddr"),
        Fields::SourceAndDestination(family) => {
            json!({ "concat": [payload(header(family), "saddr"), payload(header(family), "daddr")] })
        }
        Fields::ProtocolAndPort => {
            json!({ "concat": [meta("l4proto"), payload("th", "dport")] })
        }
        Fields::Tuple(family) => json!({ "concat": [
            payload(header(family), "saddr"), payload(header(family), "daddr"), meta("l4proto"),
            payload("th", "sport"), payload("th", "dport"),
        ] }),
        Fields::ArpSource => payload("arp", "saddr ip"),
    }
}

fn meta(key: &str) -> Value {
    json!({ "meta": { "key": key } })
}

fn payload(protocol: &str, field: &str) -> Value {
    json!({ "payload": { "protocol": protocol, "field": field } })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use policy_compiler::model::Direction;
    use policy_compiler::ruleset::{Hook, LogEvent, LogPrefix, SetKind, TableFamily};

    use super::*;

    fn chain(hook: Option<Hook>, rules: Vec<Rule>) -> Chain {
        Chain { hook, rules }
    }

    fn set(key: KeyType, interval: bool, elements: &[(ElementKey, Element)]) -> Set {
        let verdicts = elements.iter().any(|(_, element)| element.target.is_some());
        Set { kind: SetKind { key, interval, verdicts }, elements: elements.iter().cloned().collect() }
    }

    fn element(target: Option<&str>, comment: Option<&str>) -> Element {
        Element { target: target.map(ChainId::read), comment: comment.map(Into::into) }
    }

    #[test]
    fn every_part_of_a_ruleset_has_its_libnftables_form() {
        let address = |text: &str| text.parse().unwrap();
        let sets = [
            (
                "pairs",
                set(
                    KeyType::AddressPair(Family::Ipv6),
                    false,
                    &[(ElementKey::AddressPair(address("fd00::1"), address("fd00::2")), element(None, None))],
                ),
            ),
            (
                "peers",
                set(
                    KeyType::Address(Family::Ipv4),
                    true,
                    &[
                        (
                            ElementKey::AddressRange(address("10.0.0.1"), address("10.0.0.1")),
                            element(Some("a"), None),
                        ),
                        (
                            ElementKey::AddressRange(address("10.0.0.2"), address("10.0.0.9")),
                            element(Some("a"), Some("b")),
                        ),
                    ],
                ),
            ),
            (
                "ports",
                set(
                    KeyType::ProtocolPort,
                    true,
                    &[
                        (ElementKey::ProtocolPort(Protocol::Tcp, 80, 80), element(Some("a"), None)),
                        (ElementKey::ProtocolPort(Protocol::Udp, 1, 9), element(Some("a"), None)),
                    ],
                ),
            ),
        ];
        let family = Family::Ipv4;
        let tuples = ("tuples", set(KeyType::Tuple(family), false, &[]));
        let prefix = LogPrefix::Judged { direction: Direction::Ingress, event: LogEvent::Denied };
        let statements = vec![
            Rule::new([Statement::EstablishedOrRelated, Statement::Verdict(Verdict::Accept)]),
            Rule::new([Statement::InvalidOrUntracked, Statement::Counter]),
            Rule::new([Statement::NEIGHBOUR_DISCOVERY, Statement::Verdict(Verdict::Return)]),
            Rule::new([Statement::SourceIsLocal, Statement::Verdict(Verdict::Jump(ChainId::read("a")))]),
            Rule::new([Statement::DestinationIsLocal, Statement::Verdict(Verdict::Accept)]),
            Rule::new([Statement::LISTENER_DISCOVERY, Statement::Counter]),
            Rule::new([Statement::LISTENER_REPORT, Statement::Counter]),
            Rule::new([Statement::GROUP_MANAGEMENT, Statement::Counter]),
            Rule::new([Statement::Dhcp(Family::Ipv4), Statement::Counter]),
            Rule::new([Statement::Dhcp(Family::Ipv6), Statement::Counter]),
            Rule::new([Statement::InSet(Fields::SourceAndDestination(Family::Ipv6), SetId::read("pairs"))]),
            Rule::new([Statement::TcpSyn, Statement::Counter]),
            Rule::new([Statement::SctpInit, Statement::Counter]),
            Rule::new([Statement::InSet(Fields::Tuple(family), SetId::read("tuples"))]),
            Rule::new([Statement::VerdictMap(Fields::Source(family), SetId::read("peers"))]),
            Rule::new([Statement::VerdictMap(Fields::ProtocolAndPort, SetId::read("ports"))]).comment("why"),
            Rule::new([Statement::WithinLogRate, Statement::Log(prefix)]),
            Rule::new([Statement::Counter, Statement::Verdict(Verdict::Drop)]),
        ];
        let chains = [
            ("a", chain(None, vec![])),
            ("forward", chain(Some(Hook::Forward), statements)),
            ("input", chain(Some(Hook::Input), vec![])),
        ];
        let ruleset = Ruleset {
            table: TableFamily::Inet,
            sets: sets.into_iter().chain([tuples]).map(|(name, set)| (SetId::read(name), set)).collect(),
            chains: BTreeMap::from(chains.map(|(name, chain)| (ChainId::read(name), chain))),
        };
        let mut written = Vec::new();
        write(&ruleset, &mut written).unwrap();
        // `nft -j -f` reads this file.
        let expected = include_str!("../../../tests/cli/ruleset.json");
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }
}
