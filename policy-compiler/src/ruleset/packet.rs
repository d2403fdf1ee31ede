//! What a ruleset does with a packet.

use std::net::{IpAddr, Ipv6Addr};

use super::{ChainId, Element, ElementKey, Fields, Hook, Rule, Ruleset, SetId, Statement, Verdict};
use crate::model::{Family, Protocol};

/// The first packet of a connection, as the node forwards or takes it: after destination NAT, before source NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// `ip saddr`
    pub source: IpAddr,
    /// `ip daddr`, of the same family
    pub destination: IpAddr,
    /// The protocol and the destination's port; `None` for ICMP and whatever else no policy can name.
    pub port: Option<(Protocol, u16)>,
}

/// A packet in one of the hooks.
#[derive(Clone, Copy)]
struct Passing<'a> {
    packet: &'a Packet,
    hook: &'a Hook,
}

/// The most chains that call one another (`NFT_JUMP_STACK_SIZE`): the kernel refuses more.
const DEPTH: usize = 16;

/// Behind every range, in the order of keys.
const HIGHEST: IpAddr = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));

impl Ruleset {
    /// Whether the node forwards a packet that opens a connection.
    ///
    /// That is the verdict of the policies alone: [transient](super::SetKind::transient) sets count as empty.
    /// The kernel takes no ruleset that refers to what it does not have; here such a set is empty, and such a
    /// chain drops.
    pub fn forwards(&self, packet: &Packet) -> bool {
        self.passes(&Hook::Forward, packet)
    }

    /// Whether the node takes a packet that opens a connection to one of its own addresses, as [`Self::forwards`].
    pub fn delivers(&self, packet: &Packet) -> bool {
        self.passes(&Hook::Input, packet)
    }

    fn passes(&self, hook: &Hook, packet: &Packet) -> bool {
        let mut base = self.chains.iter().filter(|(_, chain)| chain.hook.as_ref() == Some(hook));
        let packet = Passing { packet, hook };
        base.all(|(name, _)| self.run(name, packet, 0) != Some(false))
    }

    /// Whether a chain accepts the packet; `None` if it returns.
    fn run(&self, name: &ChainId, packet: Passing<'_>, depth: usize) -> Option<bool> {
        let Some(chain) = self.chains.get(name).filter(|_| depth < DEPTH) else { return Some(false) };
        for rule in &chain.rules {
            match self.verdict(rule, packet) {
                None => {}
                Some(Verdict::Accept) => return Some(true),
                Some(Verdict::Drop) => return Some(false),
                Some(Verdict::Return) => return None,
                Some(Verdict::Goto(chain)) => return self.run(&chain, packet, depth + 1),
                Some(Verdict::Jump(chain)) => {
                    if let Some(accepted) = self.run(&chain, packet, depth + 1) {
                        return Some(accepted);
                    }
                }
            }
        }
        None
    }

    /// What a rule says; `None` if it does not match, or says nothing.
    fn verdict(&self, rule: &Rule, Passing { packet, hook }: Passing<'_>) -> Option<Verdict> {
        for statement in &rule.statements {
            let matches = match statement {
                Statement::EstablishedOrRelated
                | Statement::InvalidOrUntracked
                | Statement::Icmp6(..)
                | Statement::Transport(_)
                | Statement::Dhcp(_)
                | Statement::SourceIsLocal
                | Statement::InputDevice(_)
                | Statement::Frame(_) => false,
                Statement::OfFamily(family) => Family::of(packet.source) == *family,
                Statement::DestinationIsLocal => *hook == Hook::Input,
                Statement::TcpSyn => matches!(packet.port, Some((Protocol::Tcp, _))),
                Statement::SctpInit => matches!(packet.port, Some((Protocol::Sctp, _))),
                Statement::InSet(fields, set) => self.look_up(set, *fields, packet).is_some(),
                Statement::VerdictMap(fields, map) => {
                    return self.look_up(map, *fields, packet)?.target.clone().map(Verdict::Goto);
                }
                Statement::WithinLogRate
                | Statement::Log(_)
                | Statement::ExpectAnswer(_)
                | Statement::Counter => true,
                Statement::Verdict(verdict) => return Some(verdict.clone()),
            };
            if !matches {
                return None;
            }
        }
        None
    }

    /// The element that holds the packet's fields.
    fn look_up(&self, set: &SetId, fields: Fields, packet: &Packet) -> Option<&Element> {
        let Packet { source, destination, port } = *packet;
        let is = |family| Family::of(source) == family;
        let elements = &self.sets.get(set)?.elements;
        let address = match fields {
            Fields::Source(family) => is(family).then_some(source)?,
            Fields::Destination(family) => is(family).then_some(destination)?,
            Fields::SourceAndDestination(family) => {
                is(family).then_some(())?;
                return elements.get(&ElementKey::AddressPair(source, destination));
            }
            Fields::ProtocolAndPort => {
                let (protocol, port) = port?;
                let (key, element) =
                    elements.range(..=ElementKey::ProtocolPort(protocol, port, u16::MAX)).next_back()?;
                let holds =
                    matches!(*key, ElementKey::ProtocolPort(of, _, last) if of == protocol && port <= last);
                return holds.then_some(element);
            }
            Fields::Tuple(_) | Fields::ArpSource => return None,
        };
        elements.get(&ElementKey::Address(address)).or_else(|| {
            let (key, element) = elements.range(..=ElementKey::AddressRange(address, HIGHEST)).next_back()?;
            matches!(*key, ElementKey::AddressRange(_, last) if address <= last).then_some(element)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Chain, KeyType, Set, SetKind, TableFamily};
    use super::*;

    /// A ruleset whose chain `forward` accepts what is in its one set, and drops the rest.
    fn accepting(fields: Fields, key: KeyType, interval: bool, elements: &[ElementKey]) -> Ruleset {
        let set = Set {
            kind: SetKind { key, interval, verdicts: false },
            elements: elements.iter().map(|key| (*key, Element::BARE)).collect(),
        };
        let rules = vec![
            Rule::new([
                Statement::InSet(fields, SetId::read("set")),
                Statement::Counter,
                Statement::Verdict(Verdict::Accept),
            ]),
            Rule::new([Statement::Verdict(Verdict::Drop)]),
        ];
        Ruleset {
            sets: [(SetId::read("set"), set)].into(),
            table: TableFamily::Inet,
            chains: [(ChainId::read("forward"), Chain { hook: Some(Hook::Forward), rules })].into(),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn packet(source: &str, destination: &str, port: Option<(Protocol, u16)>) -> Packet {
        Packet { source: ip(source), destination: ip(destination), port }
    }

    #[test]
    fn ranges_of_addresses_hold_their_ends_and_nothing_beside() {
        let range = |first, last| ElementKey::AddressRange(ip(first), ip(last));
        let elements = [
            range("0.0.0.0", "0.0.0.0"),
            range("10.0.0.2", "10.0.0.9"),
            range("10.0.0.10", "10.0.0.10"),
            range("255.255.255.254", "255.255.255.255"),
        ];
        let kind = KeyType::Address(Family::Ipv4);
        let ruleset = accepting(Fields::Source(Family::Ipv4), kind, true, &elements);
        let forwarded = |source| ruleset.forwards(&packet(source, "10.0.0.5", None));
        for inside in ["0.0.0.0", "10.0.0.2", "10.0.0.9", "10.0.0.10", "255.255.255.255"] {
            assert!(forwarded(inside), "{inside}");
        }
        for outside in ["0.0.0.1", "10.0.0.1", "10.0.0.11", "255.255.255.253"] {
            assert!(!forwarded(outside), "{outside}");
        }
        assert!(!ruleset.forwards(&packet("fd00::1", "fd00::2", None)));
    }

    #[test]
    fn ranges_of_ports_are_those_of_their_protocol() {
        let elements = [
            ElementKey::ProtocolPort(Protocol::Tcp, 80, 90),
            ElementKey::ProtocolPort(Protocol::Tcp, 65535, 65535),
            ElementKey::ProtocolPort(Protocol::Udp, 0, 53),
        ];
        let ruleset = accepting(Fields::ProtocolAndPort, KeyType::ProtocolPort, true, &elements);
        let cases = [
            (Some((Protocol::Tcp, 79)), false),
            (Some((Protocol::Tcp, 80)), true),
            (Some((Protocol::Tcp, 90)), true),
            (Some((Protocol::Tcp, 91)), false),
            (Some((Protocol::Tcp, 65535)), true),
            (Some((Protocol::Udp, 0)), true),
            (Some((Protocol::Udp, 54)), false),
            (Some((Protocol::Sctp, 1)), false),
            (None, false),
        ];
        for (port, expected) in cases {
            assert_eq!(ruleset.forwards(&packet("10.0.0.1", "10.0.0.2", port)), expected, "{port:?}");
        }
    }

    #[test]
    fn a_jump_comes_back_and_what_is_missing_drops() {
        let chain = |hook, rules: &[&[Statement]]| Chain {
            hook,
            rules: rules.iter().map(|statements| Rule::new(*statements)).collect(),
        };
        let jump = |name: &str| Statement::Verdict(Verdict::Jump(ChainId::read(name)));
        let accept = Statement::Verdict(Verdict::Accept);
        let forwards = |to: &str, rules: &[&[Statement]]| {
            let chains = [
                ("forward", chain(Some(Hook::Forward), &[&[jump(to)], &[Statement::Verdict(Verdict::Drop)]])),
                ("other", chain(None, rules)),
            ];
            Ruleset {
                sets: [].into(),
                table: TableFamily::Inet,
                chains: chains.into_iter().map(|(name, chain)| (ChainId::read(name), chain)).collect(),
            }
            .forwards(&packet("10.0.0.1", "10.0.0.2", Some((Protocol::Udp, 53))))
        };
        assert!(forwards("other", &[std::slice::from_ref(&accept)]));
        assert!(!forwards("other", &[]));
        assert!(!forwards("other", &[&[Statement::Verdict(Verdict::Return)], std::slice::from_ref(&accept)]));
        assert!(!forwards("other", &[&[Statement::TcpSyn, accept.clone()]]));
        assert!(!forwards("other", &[&[jump("other")], std::slice::from_ref(&accept)]));
        assert!(!forwards("missing", &[accept].map(|accept| [accept]).each_ref().map(|rule| &rule[..])));
    }
}
