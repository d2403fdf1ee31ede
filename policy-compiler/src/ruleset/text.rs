//! A ruleset as `nft -f` reads it, in the form of `nft list table`.

use std::fmt::{self, Display, Formatter};

use super::{
    ANSWER_LIFETIME, Chain, Element, ElementKey, Fields, Hook, KeyType, LOG_BURST, LOG_GROUP, LOG_RATE,
    LOG_SNAP_LENGTH, Rule, Ruleset, Set, SetId, SetKind, Statement, TABLE, TableFamily, Transient, Tuple,
    Verdict, dhcp_ports, icmp6_type_name, protocol_name,
};
use crate::model::{Family, Protocol};

impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {TABLE} {{", self.table)?;
        let mut separator = "";
        for (name, set) in &self.sets {
            f.write_str(separator)?;
            write_set(f, name, set)?;
            separator = "\n";
        }
        for (name, chain) in &self.chains {
            f.write_str(separator)?;
            writeln!(f, "\tchain {name} {{")?;
            write_chain(f, chain)?;
            writeln!(f, "\t}}")?;
            separator = "\n";
        }
        writeln!(f, "}}")
    }
}

impl Display for TableFamily {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Inet => "inet",
            Self::Netdev => "netdev",
        })
    }
}

fn write_set(f: &mut Formatter<'_>, name: &SetId, set: &Set) -> fmt::Result {
    let SetKind { key, interval, verdicts } = set.kind;
    writeln!(f, "\t{} {name} {{", if verdicts { "map" } else { "set" })?;
    writeln!(f, "\t\ttype {key}{}", if verdicts { " : verdict" } else { "" })?;
    if interval {
        writeln!(f, "\t\tflags interval")?;
    }
    if let Some(Transient { size, collected_every, dynamic }) = set.kind.transient() {
        let minutes = collected_every.as_secs() / 60;
        let dynamic = if dynamic { "dynamic," } else { "" };
        writeln!(f, "\t\tsize {size}\n\t\tflags {dynamic}timeout\n\t\tgc-interval {minutes}m")?;
    }
    for (index, (key, element)) in set.elements.iter().enumerate() {
        f.write_str(if index == 0 { "\t\telements = { " } else { ",\n\t\t\t     " })?;
        write_element(f, *key, element)?;
    }
    if !set.elements.is_empty() {
        f.write_str(" }\n")?;
    }
    writeln!(f, "\t}}")
}

fn write_element(f: &mut Formatter<'_>, key: ElementKey, element: &Element) -> fmt::Result {
    write!(f, "{key}")?;
    if let Some(comment) = &element.comment {
        write!(f, " comment \"{comment}\"")?;
    }
    match &element.target {
        Some(chain) => write!(f, " : goto {chain}"),
        None => Ok(()),
    }
}

fn write_chain(f: &mut Formatter<'_>, chain: &Chain) -> fmt::Result {
    if let Some(hook) = &chain.hook {
        write!(f, "\t\ttype filter hook {hook} priority ")?;
        match hook.priority() {
            0 => f.write_str("filter")?,
            other => write!(f, "{other}")?,
        }
        f.write_str("; policy accept;\n")?;
    }
    chain.rules.iter().try_for_each(|rule| writeln!(f, "\t\t{rule}"))
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.device() {
            Some(device) => write!(f, "{} device \"{device}\"", self.as_str()),
            None => f.pad(self.as_str()),
        }
    }
}

impl Display for KeyType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let address = |family| match family {
            Family::Ipv4 => "ipv4_addr",
            Family::Ipv6 => "ipv6_addr",
        };
        match *self {
            Self::Address(family) => f.write_str(address(family)),
            Self::AddressPair(family) => write!(f, "{0} . {0}", address(family)),
            Self::ProtocolPort => f.write_str("inet_proto . inet_service"),
            Self::Tuple(family) => {
                write!(f, "{0} . {0} . inet_proto . inet_service . inet_service", address(family))
            }
            Self::Answer => Self::Tuple(Family::Ipv6).fmt(f),
        }
    }
}

impl Display for ElementKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Address(address) => write!(f, "{address}"),
            Self::AddressRange(first, last) if first == last => write!(f, "{first}"),
            Self::AddressRange(first, last) => write!(f, "{first}-{last}"),
            Self::AddressPair(source, destination) => write!(f, "{source} . {destination}"),
            Self::ProtocolPort(protocol, first, last) => {
                write!(f, "{} . {first}", inet_proto(protocol))?;
                if first == last { Ok(()) } else { write!(f, "-{last}") }
            }
            Self::Tuple(Tuple { source, destination, protocol, source_port, destination_port }) => {
                let protocol = inet_proto(protocol);
                write!(f, "{source} . {destination} . {protocol} . {source_port} . {destination_port}")
            }
        }
    }
}

fn inet_proto(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, statement) in self.statements.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { " " })?;
            write!(f, "{statement}")?;
        }
        match &self.comment {
            Some(comment) => write!(f, " comment \"{comment}\""),
            None => Ok(()),
        }
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::EstablishedOrRelated => f.write_str("ct state established,related"),
            Self::InvalidOrUntracked => f.write_str("ct state invalid,untracked"),
            Self::OfFamily(Family::Ipv4) => f.write_str("meta nfproto ipv4"),
            Self::OfFamily(Family::Ipv6) => f.write_str("meta nfproto ipv6"),
            Self::Icmp6(first, last) if first == last => write!(f, "icmpv6 type {}", icmp6_type_name(*first)),
            Self::Icmp6(first, last) => write!(f, "icmpv6 type {first}-{last}"),
            Self::Transport(number) => write!(f, "meta l4proto {}", protocol_name(*number)),
            Self::Dhcp(family) => {
                let (client, server) = dhcp_ports(*family);
                write!(f, "udp sport {client} udp dport {server}")
            }
            Self::SourceIsLocal => f.write_str("fib saddr type local"),
            Self::DestinationIsLocal => f.write_str("fib daddr type local"),
            Self::InputDevice(device) => write!(f, "iifname \"{device}\""),
            Self::TcpSyn => f.write_str("tcp flags syn / fin,syn,rst,ack"),
            Self::SctpInit => f.write_str("meta l4proto sctp @th,96,8 0x1"),
            Self::InSet(fields, set) => write!(f, "{fields} @{set}"),
            Self::VerdictMap(fields, map) => write!(f, "{fields} vmap @{map}"),
            Self::WithinLogRate => write!(f, "limit rate {LOG_RATE}/second burst {LOG_BURST} packets"),
            Self::Log(prefix) => {
                write!(f, "log prefix \"{prefix}\" group {LOG_GROUP} snaplen {LOG_SNAP_LENGTH}")
            }
            Self::Frame(frame) => write!(f, "{frame}"),
            Self::ExpectAnswer(set) => {
                let minutes = ANSWER_LIFETIME.as_secs() / 60;
                let fields = "ip6 daddr . ip6 saddr . meta l4proto . th dport . th sport";
                write!(f, "update @{set} {{ {fields} timeout {minutes}m }}")
            }
            Self::Counter => f.write_str("counter"),
            Self::Verdict(verdict) => write!(f, "{verdict}"),
        }
    }
}

impl Display for Fields {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let header = |family| match family {
            Family::Ipv4 => "ip",
            Family::Ipv6 => "ip6",
        };
        match *self {
            Self::Source(family) => write!(f, "{} saddr", header(family)),
            Self::Destination(family) => write!(f, "{} daddr", header(family)),
            Self::SourceAndDestination(family) => write!(f, "{0} saddr . {0} daddr", header(family)),
            Self::ProtocolAndPort => f.write_str("meta l4proto . th dport"),
            Self::Tuple(family) => {
                write!(f, "{0} saddr . {0} daddr . meta l4proto . th sport . th dport", header(family))
            }
            Self::ArpSource => f.write_str("arp saddr ip"),
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}
