//! The table as the kernel has it.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

use policy_compiler::ruleset::{self, ChainId, Hook, Ruleset, Set, SetId, SetKind, TableFamily, Verdict};

use super::expression::{Expression, expressions};

/// The tables of podfence, as they were at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// `inet podfence`; `None` if there is none.
    pub policies: Option<Table>,
    /// `netdev podfence`; `None` if there is none.
    pub doors: Option<Table>,
}

impl Tables {
    /// Those that exist.
    pub fn iter(&self) -> impl Iterator<Item = &Table> {
        self.policies.iter().chain(&self.doors)
    }
}

/// Everything in a table of podfence, as it was at one moment.
///
/// What the kernel has beyond that (named counters, flow tables) no rule of podfence can refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Which one.
    pub family: TableFamily,
    /// Sets and maps by name; `None` for one that podfence cannot have made. Transient ones appear empty.
    pub sets: BTreeMap<SetId, Option<Set>>,
    /// Chains by name.
    pub chains: BTreeMap<ChainId, Chain>,
    /// Whether the kernel calls the table's base chains (it does not where the flag `dormant` is set).
    pub awake: bool,
    /// Whether [`Transaction::adopt`] can make the table the writer's own. The kernel refuses that for one that
    /// was not made to have owners, as by `nft -f`: it must be replaced.
    ///
    /// [`Transaction::adopt`]: policy_compiler::ruleset::Transaction::adopt
    pub adoptable: bool,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Where it is called from.
    pub place: Place,
    /// The rules in their order.
    pub rules: Vec<Rule>,
}

/// Where a chain is called from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Other chains.
    Called,
    /// A hook, with the type, priority and policy that podfence gives its base chains.
    Hook(Hook),
    /// A hook, or with a type, priority, policy or flag, that podfence gives no chain.
    Foreign,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The number that the kernel has given to the rule.
    pub handle: u64,
    /// What stands beside it.
    pub comment: Option<Arc<str>>,
    /// What its statement `counter` has counted; `None` if it has none.
    pub counter: Option<Counter>,
    /// The instructions, without the counts; `None` if podfence cannot have made them.
    pub(super) expressions: Option<Vec<Expression>>,
}

/// What has traversed a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counter {
    /// The number of packets.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
}

impl AddAssign for Counter {
    fn add_assign(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

impl Chain {
    /// What the rules have counted, together.
    pub fn counter(&self) -> Counter {
        let mut sum = Counter::default();
        self.rules.iter().filter_map(|rule| rule.counter).for_each(|counter| sum += counter);
        sum
    }
}

impl Rule {
    /// The chain in which packets go on behind the rule, if it ends with `goto`.
    pub fn leads_to(&self) -> Option<&ChainId> {
        match self.expressions.as_ref()?.last()? {
            Expression::Verdict(Verdict::Goto(chain)) => Some(chain),
            _ => None,
        }
    }
}

impl Table {
    /// What of `expected` is really there, so that [`Transaction::between`] leads from it to `expected`.
    ///
    /// A chain counts as the expected one if its rules are, instruction by instruction, what the expected
    /// ones become. What differs, and what is not podfence's, appears as something that has to be repaired:
    /// a chain with a rule without statements, a set of another kind.
    ///
    /// [`Transaction::between`]: policy_compiler::ruleset::Transaction::between
    pub fn as_ruleset(&self, expected: &Ruleset) -> Ruleset {
        let sets = self.sets.iter().map(|(name, set)| {
            let set = set.clone().unwrap_or_else(|| Set::new(other_kind(expected.sets.get(name))));
            (name.clone(), set)
        });
        let intervals = |set: &SetId| expected.sets.get(set).is_some_and(|set| set.kind.interval);
        let chains = self
            .chains
            .iter()
            .map(|(name, chain)| (name.clone(), self.as_chain(chain, expected.chains.get(name), intervals)));
        Ruleset { table: self.family, sets: sets.collect(), chains: chains.collect() }
    }

    fn as_chain(
        &self,
        chain: &Chain,
        expected: Option<&ruleset::Chain>,
        intervals: impl Fn(&SetId) -> bool,
    ) -> ruleset::Chain {
        let hook = match &chain.place {
            Place::Called => None,
            Place::Hook(hook) if self.awake => Some(hook.clone()),
            // One that the expected chain does not have.
            _ if expected.is_some_and(|chain| chain.hook.is_some()) => None,
            _ => Some(Hook::Forward),
        };
        let same = |expected: &&ruleset::Chain| {
            expected.rules.len() == chain.rules.len()
                && expected.rules.iter().zip(&chain.rules).all(|(expected, rule)| {
                    rule.comment == expected.comment
                        && rule.expressions.as_ref()
                            == Some(&expressions(self.family, &expected.statements, &intervals))
                })
        };
        let rules = match expected.filter(same) {
            Some(expected) => expected.rules.clone(),
            None if chain.rules.is_empty() => Vec::new(),
            None => vec![ruleset::Rule::new([])],
        };
        ruleset::Chain { hook, rules }
    }
}

/// A kind that the expected set does not have.
fn other_kind(expected: Option<&Set>) -> SetKind {
    let kind = expected.map(|set| set.kind);
    SetKind {
        key: ruleset::KeyType::ProtocolPort,
        interval: false,
        verdicts: kind.is_some_and(|kind| !kind.verdicts),
    }
}
