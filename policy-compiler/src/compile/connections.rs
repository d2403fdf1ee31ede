//! What becomes of open connections when the ruleset changes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::ranges::AddressRanges;
use crate::model::{Direction, Family, Protocol};
use crate::ruleset::{
    ChainId, ChainRole, Element, ElementKey, Operation, Rule, Ruleset, SetId, SetRole, TableFamily,
    TierEffect, Transaction, Tuple,
};

/// The open connections that a change may deny.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concerned {
    /// Any.
    All,
    /// Those with one of these ends.
    Ends(Ends),
}

/// Ends of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ends {
    /// Who opened them.
    pub sources: Addresses,
    /// Who was asked, after destination NAT.
    pub destinations: Addresses,
}

/// A set of addresses.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// One by one.
    single: BTreeSet<IpAddr>,
    ranges: AddressRanges,
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.single).entries(self.ranges()).finish()
    }
}

impl Addresses {
    /// Whether an address is among them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.single.contains(&address) || self.ranges.contains(&address)
    }

    /// Those of them that are not in a range.
    pub fn single(&self) -> impl Iterator<Item = IpAddr> {
        self.single.iter().copied()
    }

    /// The ranges. No two have a common border.
    pub fn ranges(&self) -> impl Iterator<Item = &RangeInclusive<IpAddr>> {
        self.ranges.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.single.is_empty() && self.ranges.is_empty()
    }

    /// Adds the addresses in the key of an element.
    pub fn insert(&mut self, key: ElementKey) {
        match key {
            ElementKey::Address(address) => drop(self.single.insert(address)),
            ElementKey::AddressRange(first, last) => self.ranges.insert(first..=last),
            ElementKey::AddressPair(one, other) => self.single.extend([one, other]),
            ElementKey::ProtocolPort(..) | ElementKey::Tuple(_) => {}
        }
    }

    fn extend(&mut self, other: Self) {
        self.single.extend(other.single);
        other.ranges.iter().for_each(|range| self.ranges.insert(range.clone()));
    }
}

impl Concerned {
    /// No connection.
    pub fn none() -> Self {
        Self::Ends(Ends::default())
    }

    /// Those that the transaction may deny, which has led to the ruleset.
    ///
    /// To take an element away denies something, except where it isolates a pod, and of strict start's pod ranges. To put
    /// one in does where it leads to a chain that may drop packets. What a chain does is given by its name and by elements,
    /// so one that stays and has other rules than before is something unforeseen.
    pub fn by(transaction: &Transaction, ruleset: &Ruleset) -> Self {
        let come_or_gone: HashSet<&ChainId> = transaction
            .operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::AddChain(chain, _) | Operation::DeleteChain(chain) => Some(chain),
                _ => None,
            })
            .collect();
        let mut ends = Ends::default();
        let mut denials = Denials::of(ruleset);
        for operation in &transaction.operations {
            match operation {
                Operation::AddElements(set, elements) => match Lookup::of(set) {
                    Lookup::Isolated(direction) => ends.insert(subject(direction), elements),
                    Lookup::Guarded => ends.insert_both(elements),
                    Lookup::Named(direction) => {
                        let denied = elements.iter().filter(|(_, element)| denials.of_identity(element));
                        ends.insert(peer(direction), denied);
                    }
                    Lookup::Reached(direction) => {
                        let denied = elements.iter().filter(|(_, element)| may_deny(element));
                        ends.insert(subject(direction), denied);
                    }
                    Lookup::Pods if denials.exist() => ends.insert_both(elements),
                    Lookup::Pods | Lookup::Other => {}
                },
                Operation::DeleteElements(set, elements) => match Lookup::of(set) {
                    Lookup::Isolated(_) | Lookup::Guarded => {}
                    Lookup::Named(direction) => ends.insert(peer(direction), elements),
                    Lookup::Reached(_) | Lookup::Pods | Lookup::Other => {
                        if elements.iter().any(|(key, _)| matches!(key, ElementKey::ProtocolPort(..))) {
                            return Self::All;
                        }
                        ends.insert_both(elements);
                    }
                },
                Operation::DeleteTable => return Self::All,
                Operation::FlushChain(chain) | Operation::AddRule(chain, _)
                    if !come_or_gone.contains(chain) =>
                {
                    return Self::All;
                }
                Operation::AddTable
                | Operation::OwnTable
                | Operation::AddSet(..)
                | Operation::AddChain(..)
                | Operation::FlushChain(_)
                | Operation::AddRule(..)
                | Operation::DeleteChain(_)
                | Operation::DeleteSet(_) => {}
            }
        }
        Self::Ends(ends)
    }

    /// Whether this is none.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Ends(ends) if ends.sources.is_empty() && ends.destinations.is_empty())
    }

    /// Whether a connection is among them; its destination is the one after destination NAT.
    pub fn contains(&self, source: IpAddr, destination: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Ends(ends) => ends.sources.contains(source) || ends.destinations.contains(destination),
        }
    }

    /// These connections and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ends(mut ends), Self::Ends(other)) => {
                ends.sources.extend(other.sources);
                ends.destinations.extend(other.destinations);
                Self::Ends(ends)
            }
            _ => Self::All,
        }
    }
}

#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

impl Ends {
    fn insert_both(&mut self, elements: &[(ElementKey, Element)]) {
        self.insert(End::Source, elements);
        self.insert(End::Destination, elements);
    }

    fn insert<'a>(&mut self, end: End, elements: impl IntoIterator<Item = &'a (ElementKey, Element)>) {
        let addresses = match end {
            End::Source => &mut self.sources,
            End::Destination => &mut self.destinations,
        };
        for (key, _) in elements {
            addresses.insert(*key);
        }
    }
}

/// What rules of ClusterNetworkPolicies deny in a ruleset.
struct Denials<'a> {
    ruleset: &'a Ruleset,
    /// Whether something between an identity and a subject is denied.
    of_identities: HashMap<&'a ChainId, bool>,
}

impl<'a> Denials<'a> {
    fn of(ruleset: &'a Ruleset) -> Self {
        Self { ruleset, of_identities: HashMap::new() }
    }

    /// Whether there is any.
    fn exist(&self) -> bool {
        let denies =
            |chain: &ChainId| matches!(chain.role(), ChainRole::TierRule { effect: TierEffect::Deny, .. });
        self.ruleset.chains.keys().any(denies)
    }

    /// Whether something is denied to the identity that an element leads to.
    fn of_identity(&mut self, element: &Element) -> bool {
        let Some((name, chain)) =
            element.target.as_ref().and_then(|target| self.ruleset.chains.get_key_value(target))
        else {
            return false;
        };
        let sets = chain.rules.iter().flat_map(Rule::sets);
        let mut sets = sets.filter_map(|set| self.ruleset.sets.get(set));
        *self.of_identities.entry(name).or_insert_with(|| sets.any(|set| set.elements.values().any(may_deny)))
    }
}

/// Whether an element leads to a chain in which packets may be dropped.
fn may_deny(element: &Element) -> bool {
    let target = element.target.as_ref().map(ChainId::role);
    match target {
        None | Some(ChainRole::Rule { .. } | ChainRole::Ports(..)) => false,
        Some(ChainRole::TierRule { effect, .. }) => *effect == TierEffect::Deny,
        Some(_) => true,
    }
}

/// The end that is isolated in a direction.
fn subject(direction: Direction) -> End {
    match direction {
        Direction::Ingress => End::Destination,
        Direction::Egress => End::Source,
    }
}

/// The end that a direction's rules name.
fn peer(direction: Direction) -> End {
    match direction {
        Direction::Ingress => End::Source,
        Direction::Egress => End::Destination,
    }
}

/// What a set's elements say.
enum Lookup {
    /// That a pod is isolated.
    Isolated(Direction),
    /// That rules name an address.
    Named(Direction),
    /// What becomes of packets between an identity and its subjects.
    Reached(Direction),
    /// That addresses are those of pods.
    Pods,
    /// That only known pods have these addresses.
    Guarded,
    Other,
}

impl Lookup {
    fn of(set: &SetId) -> Self {
        match *set.role() {
            SetRole::Isolated(direction, _) => Self::Isolated(direction),
            SetRole::Peers(direction, _) | SetRole::Blocks(direction, _) => Self::Named(direction),
            SetRole::Reached(direction, ..) => Self::Reached(direction),
            SetRole::OwnNode(_) => Self::Isolated(Direction::Egress),
            SetRole::Pods(_) => Self::Pods,
            SetRole::PodRanges(_) => Self::Guarded,
            _ => Self::Other,
        }
    }
}

/// Bars the way for the answers of connections that conntrack is to forget.
///
/// Conntrack would take the next of them for the beginning of a new connection, opened by who answers
/// (`nf_conntrack_tcp_loose`), and the policies may allow that, now or after a later change. What the opener sends
/// is judged by the same rules as what it opened the connection with, so it needs no bar: it passes when the
/// policies allow that again, and not before.
///
/// `connections` are as their opener sends, after destination NAT and before source NAT.
pub fn cut(connections: impl IntoIterator<Item = Tuple>) -> Transaction {
    let barred = connections.into_iter().filter(|tuple| !answers_may_open(*tuple));
    bar(barred.map(Tuple::reversed))
}

/// Bars the way for packets of these tuples, unless they truly open a connection.
pub fn bar(tuples: impl IntoIterator<Item = Tuple>) -> Transaction {
    let mut elements: [BTreeSet<ElementKey>; 2] = Default::default();
    let [ipv4, ipv6] = &mut elements;
    for tuple in tuples {
        let of_family = if tuple.source.is_ipv4() { &mut *ipv4 } else { &mut *ipv6 };
        of_family.insert(ElementKey::Tuple(tuple));
    }
    let additions = Family::BOTH.into_iter().zip(elements).filter(|(_, keys)| !keys.is_empty());
    let operations = additions.map(|(family, keys)| {
        let elements = keys.into_iter().map(|key| (key, Element::BARE)).collect();
        Operation::AddElements(SetRole::Cut(family).into(), elements)
    });
    Transaction { table: TableFamily::Inet, operations: operations.collect() }
}

/// The set in which the answers of connections that were cut are barred.
pub fn barred(family: Family) -> SetId {
    SetRole::Cut(family).into()
}

/// The lowest port that systems give to clients by themselves: Linux 32768 to 60999 (`ip_local_port_range`), others
/// 49152 to 65535 (RFC 6335, section 6).
const FIRST_EPHEMERAL_PORT: u16 = 32768;

/// Whether what looks like an answer may just as well open a connection of its own, because both ends have fixed
/// ports, as with SIP and gossip: the opener's is none that a system gives to clients, or it is the port of the other
/// end too. Only UDP has no packet that tells the two apart.
fn answers_may_open(tuple: Tuple) -> bool {
    let fixed = tuple.source_port < FIRST_EPHEMERAL_PORT || tuple.source_port == tuple.destination_port;
    tuple.protocol == Protocol::Udp && fixed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::{Rule, Statement};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn keyed(set: &str, key: ElementKey) -> (SetId, Vec<(ElementKey, Element)>) {
        (SetId::read(set), vec![(key, Element::BARE)])
    }

    fn add(set: &str, key: ElementKey) -> Operation {
        let (set, elements) = keyed(set, key);
        Operation::AddElements(set, elements)
    }

    fn delete(set: &str, key: ElementKey) -> Operation {
        let (set, elements) = keyed(set, key);
        Operation::DeleteElements(set, elements)
    }

    fn concerned(operations: &[Operation]) -> Concerned {
        Concerned::by(
            &Transaction { table: TableFamily::Inet, operations: operations.to_vec() },
            &Ruleset::default(),
        )
    }

    /// Of a few connections between four addresses, those that the operations may deny.
    fn of_four(operations: &[Operation]) -> Vec<&'static str> {
        let concerned = concerned(operations);
        let pairs = ["1 → 2", "2 → 1", "3 → 4", "4 → 3"];
        let address = |digit: Option<char>| ip(&format!("10.0.0.{}", digit.unwrap()));
        pairs
            .into_iter()
            .filter(|pair| concerned.contains(address(pair.chars().next()), address(pair.chars().last())))
            .collect()
    }

    #[test]
    fn operations_concern_the_connections_that_they_may_deny() {
        let pod = ElementKey::Address(ip("10.0.0.1"));
        let block = ElementKey::AddressRange(ip("10.0.0.0"), ip("10.0.0.1"));
        let cases: [(Operation, &[&str]); 14] = [
            (add("ingress_isolated_ipv4", pod), &["2 → 1"]),
            (add("egress_isolated_ipv4", pod), &["1 → 2"]),
            (delete("ingress_isolated_ipv4", pod), &[]),
            (delete("ingress_peers_ipv4", pod), &["1 → 2"]),
            (delete("egress_peers_ipv4", pod), &["2 → 1"]),
            (delete("ingress_blocks_ipv4", block), &["1 → 2"]),
            (delete("egress_blocks_ipv4", block), &["2 → 1"]),
            (delete("ingress_peer_0123_ipv4", pod), &["1 → 2", "2 → 1"]),
            (delete("known_ipv4", pod), &["1 → 2", "2 → 1"]),
            (add("pod_ranges_ipv4", block), &["1 → 2", "2 → 1"]),
            (delete("pod_ranges_ipv4", block), &[]),
            (add("ingress_peers_ipv4", pod), &[]),
            (add("egress_peer_0123_ipv4", pod), &[]),
            (add("egress_blocks_ipv4", block), &[]),
        ];
        for (operation, expected) in cases {
            assert_eq!(of_four(std::slice::from_ref(&operation)), expected, "{operation:?}");
        }
        let both = [add("ingress_isolated_ipv4", pod), delete("ingress_blocks_ipv4", block)];
        assert_eq!(of_four(&both), ["1 → 2", "2 → 1"]);
    }

    #[test]
    fn only_what_is_unforeseen_concerns_all() {
        let chain = || ChainId::read("forward");
        let rule = || Operation::AddRule(chain(), Rule::new([Statement::Counter]));
        let port = ElementKey::ProtocolPort(Protocol::Tcp, 80, 80);
        for operations in [
            vec![Operation::DeleteTable],
            vec![Operation::FlushChain(chain())],
            vec![rule()],
            vec![delete("ingress_ports_0123", port)],
        ] {
            assert_eq!(concerned(&operations), Concerned::All, "{operations:?}");
        }
        for operations in [
            vec![],
            vec![Operation::AddChain(chain(), None), rule()],
            vec![Operation::FlushChain(chain()), Operation::DeleteChain(chain())],
            vec![add("ingress_ports_0123", port)],
        ] {
            assert!(concerned(&operations).is_none(), "{operations:?}");
        }
    }

    #[test]
    fn what_concerns_two_changes_concerns_both_together() {
        let [one, other] = ["10.0.0.1", "10.0.0.2"]
            .map(|pod| concerned(&[add("ingress_isolated_ipv4", ElementKey::Address(ip(pod)))]));
        let both = one.clone().and(other);
        assert!(both.contains(ip("10.0.0.3"), ip("10.0.0.1")));
        assert!(both.contains(ip("10.0.0.3"), ip("10.0.0.2")));
        assert!(!both.contains(ip("10.0.0.1"), ip("10.0.0.3")));
        assert_eq!(both.clone().and(Concerned::none()), both);
        assert_eq!(both.and(Concerned::All), Concerned::All);
    }

    #[test]
    fn a_cut_bars_the_answers_unless_they_may_open_a_connection() {
        let (tcp, udp, sctp) = (Protocol::Tcp, Protocol::Udp, Protocol::Sctp);
        let cases = [
            (tcp, 40000, 80, Some("10.0.0.2 . 10.0.0.1 . tcp . 80 . 40000")),
            (tcp, 179, 179, Some("10.0.0.2 . 10.0.0.1 . tcp . 179 . 179")),
            (sctp, 3868, 3868, Some("10.0.0.2 . 10.0.0.1 . sctp . 3868 . 3868")),
            (udp, 32768, 53, Some("10.0.0.2 . 10.0.0.1 . udp . 53 . 32768")),
            (udp, 65535, 40000, Some("10.0.0.2 . 10.0.0.1 . udp . 40000 . 65535")),
            (udp, 32767, 53, None),
            (udp, 5060, 5060, None),
            (udp, 5060, 40000, None),
            (udp, 51820, 51820, None),
        ];
        for (protocol, source_port, destination_port, barred) in cases {
            let (source, destination) = (ip("10.0.0.1"), ip("10.0.0.2"));
            let tuple = Tuple { source, destination, protocol, source_port, destination_port };
            let keys = keys_of(&cut([tuple, tuple]));
            assert_eq!(keys, Vec::from_iter(barred.map(|key| format!("cut_ipv4: {key}"))), "{tuple:?}");
        }
        let ipv6 = Tuple {
            source: ip("fd00::1"),
            destination: ip("fd00::2"),
            protocol: tcp,
            source_port: 1,
            destination_port: 2,
        };
        assert_eq!(keys_of(&cut([ipv6])), ["cut_ipv6: fd00::2 . fd00::1 . tcp . 2 . 1"]);
        assert!(cut([]).is_empty());
    }

    /// The elements that a transaction adds, each behind its set.
    fn keys_of(transaction: &Transaction) -> Vec<String> {
        let added = transaction.operations.iter().flat_map(|operation| match operation {
            Operation::AddElements(set, elements) => {
                elements.iter().map(|(key, _)| format!("{set}: {key}")).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        });
        added.collect()
    }
}
