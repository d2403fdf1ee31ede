//! Random rulesets, each reached from the one before it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use policy_compiler::model::{Family, Protocol};
use policy_compiler::ruleset::{
    ChainId, Element, ElementKey, Fields, Hook, KeyType, Rule, Ruleset, Set, SetId, SetKind, Statement,
    Transaction, Verdict,
};

use crate::rulesets::{PAIRS4, PAIRS6, PORTS, TUPLES6, V4, V6, accept, base_chain, chain, drop, jump};
use crate::support::{in_namespace, kernel_with, present};

/// Numbers that look random and are the same for the same seed (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 1).unwrap() % limit
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

/// Chains that others lead to, and that lead nowhere.
const LEAVES: [&str; 4] = ["leaf_1", "leaf_2", "leaf_3", "leaf_4"];

fn random_ruleset(random: &mut Random) -> Ruleset {
    let mut ruleset = Ruleset::default();
    let mut leaves = Vec::new();
    for leaf in LEAVES {
        if leaf == LEAVES[0] || !random.one_in(3) {
            leaves.push(ChainId::read(leaf));
            let rules: Vec<_> = (0..random.below(3)).map(|_| simple_rule(random)).collect();
            ruleset.chains.insert(ChainId::read(leaf), chain(rules));
        }
    }
    for index in 0..8 {
        if !random.one_in(3) {
            // Most names always stand for sets of one kind; the others make the table be replaced.
            let variety = if random.one_in(20) { random.below(24) } else { index * 3 };
            let kind = kind(variety);
            let elements = random_elements(random, kind, &leaves);
            ruleset.sets.insert(SetId::read(&format!("set_{index}")), Set { kind, elements });
        }
    }
    for name in ["forward", "output", "middle_1", "middle_2"] {
        if random.one_in(4) {
            continue;
        }
        let rules: Vec<_> =
            (0..random.below(6)).map(|_| random_rule(random, &ruleset.sets, &leaves)).collect();
        let chain = match name {
            "forward" => base_chain(Hook::Forward, rules),
            "output" => base_chain(if random.one_in(10) { Hook::Forward } else { Hook::Output }, rules),
            _ => chain(rules),
        };
        ruleset.chains.insert(ChainId::read(name), chain);
    }
    ruleset
}

fn kind(variety: usize) -> SetKind {
    let key = [V4, V6, PORTS, PAIRS4, PAIRS6, TUPLES6][variety % 6];
    let interval =
        (variety / 6).is_multiple_of(2) && !matches!(key, KeyType::AddressPair(_) | KeyType::Tuple(_));
    let verdicts = (variety / 12).is_multiple_of(2) && !matches!(key, KeyType::Tuple(_));
    SetKind { key, interval, verdicts }
}

fn random_elements(
    random: &mut Random,
    kind: SetKind,
    leaves: &[ChainId],
) -> std::collections::BTreeMap<ElementKey, Element> {
    let keys: Vec<_> = match (kind.key, kind.interval) {
        (KeyType::Address(family), true) => ranges(random, 32)
            .into_iter()
            .map(|(first, last)| {
                ElementKey::AddressRange(spread(family, first, 0), spread(family, last, u128::MAX))
            })
            .collect(),
        (KeyType::ProtocolPort, true) => Protocol::ALL
            .into_iter()
            .flat_map(|protocol| {
                let ranges = ranges(random, 16).into_iter();
                ranges
                    .map(move |(first, last)| {
                        let port = |number| u16::try_from(number).unwrap();
                        ElementKey::ProtocolPort(protocol, port(first), port(last))
                    })
                    .collect::<Vec<_>>()
            })
            .collect(),
        // No part of a ruleset.
        (KeyType::Tuple(_) | KeyType::Answer, _) => Vec::new(),
        (key, _) => (0..random.below(20)).map(|_| single(random, key)).collect(),
    };
    let element = |random: &mut Random| Element {
        target: kind.verdicts.then(|| random.pick(leaves)),
        comment: random.one_in(3).then(|| format!("comment {}", random.below(3)).into()),
    };
    keys.into_iter().map(|key| (key, element(random))).collect()
}

fn single(random: &mut Random, key: KeyType) -> ElementKey {
    let address = |random: &mut Random, family| match family {
        Family::Ipv4 => IpAddr::from(Ipv4Addr::from_bits(u32::try_from(random.below(30)).unwrap())),
        Family::Ipv6 => IpAddr::from(Ipv6Addr::from_bits((0xfd << 120) + random.below(30) as u128)),
    };
    match key {
        KeyType::Address(family) => ElementKey::Address(address(random, family)),
        KeyType::AddressPair(family) => {
            ElementKey::AddressPair(address(random, family), address(random, family))
        }
        KeyType::ProtocolPort => {
            let port = u16::try_from(random.below(20)).unwrap();
            ElementKey::ProtocolPort(random.pick(&Protocol::ALL), port, port)
        }
        KeyType::Tuple(_) | KeyType::Answer => unreachable!("such sets stay empty"),
    }
}

/// Ranges of numbers of so many bits that do not overlap; many touch, and some lie at the edges.
fn ranges(random: &mut Random, bits: u32) -> Vec<(u32, u32)> {
    let highest = u32::MAX >> (32 - bits);
    let edges = [0, 1, 2, 7, 8, 9, 100, highest / 2, highest / 2 + 1, highest - 1, highest];
    let mut ranges = Vec::new();
    let mut next = 0;
    for last in edges {
        let first = next;
        if random.one_in(2) {
            continue;
        }
        next = last + u32::from(last < highest);
        if !random.one_in(3) {
            ranges.push((first, last));
        }
    }
    ranges
}

/// The number as the upper bits of an address, the bits below it those of `rest`.
fn spread(family: Family, number: u32, rest: u128) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::from_bits(number).into(),
        Family::Ipv6 => Ipv6Addr::from_bits((u128::from(number) << 96) | (rest >> 32)).into(),
    }
}

fn simple_rule(random: &mut Random) -> Rule {
    let verdict = random.pick(&[accept(), drop(), Statement::Verdict(Verdict::Return), Statement::Counter]);
    let condition = random.pick(&[
        Statement::EstablishedOrRelated,
        Statement::NEIGHBOUR_DISCOVERY,
        Statement::SourceIsLocal,
        Statement::TcpSyn,
        Statement::SctpInit,
        Statement::Counter,
    ]);
    let rule = Rule::new([condition, verdict]);
    if random.one_in(3) { rule.comment("a comment") } else { rule }
}

fn random_rule(
    random: &mut Random,
    sets: &std::collections::BTreeMap<SetId, Set>,
    leaves: &[ChainId],
) -> Rule {
    let names: Vec<_> = sets.keys().cloned().collect();
    if names.is_empty() || random.one_in(5) {
        return if random.one_in(2) {
            simple_rule(random)
        } else {
            Rule::new([jump(random.pick(leaves).name())])
        };
    }
    let name = random.pick(&names);
    let kind = sets[&name].kind;
    let fields = match kind.key {
        KeyType::Address(family) => random.pick(&[Fields::Source(family), Fields::Destination(family)]),
        KeyType::AddressPair(family) => Fields::SourceAndDestination(family),
        KeyType::ProtocolPort => Fields::ProtocolAndPort,
        KeyType::Tuple(family) => Fields::Tuple(family),
        KeyType::Answer => Fields::Tuple(Family::Ipv6),
    };
    if kind.verdicts {
        Rule::new([Statement::Counter, Statement::VerdictMap(fields, name)])
    } else {
        Rule::new([
            Statement::InSet(fields, name),
            Statement::Counter,
            Statement::Verdict(Verdict::Goto(random.pick(leaves))),
        ])
    }
}

#[test]
fn between_leads_from_any_ruleset_to_any_other() {
    for seed in 0..4 {
        in_namespace(|| {
            let mut random = Random(seed);
            let mut old = Ruleset::default();
            let mut kernel = kernel_with(&old);
            for step in 0..100 {
                let new = random_ruleset(&mut random);
                let transaction = Transaction::between(&old, &new);
                kernel
                    .apply(&transaction)
                    .unwrap_or_else(|error| panic!("seed {seed}, step {step}: {error:?}\n{old}\n{new}"));
                assert_eq!(present(&mut kernel, &new), new, "seed {seed}, step {step}");
                assert!(Transaction::between(&new, &new).is_empty());
                old = new;
            }
        });
    }
}
