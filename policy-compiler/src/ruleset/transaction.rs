//! The way from one ruleset to another.

use std::collections::{BTreeMap, BTreeSet};

use super::{Chain, ChainId, Element, ElementKey, Hook, Rule, Ruleset, Set, SetId, SetKind, TableFamily};

/// Operations on a table that the kernel must take as one, in an order in which each of them is valid: what is
/// referred to exists, and what is deleted is referred to no longer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The table.
    pub table: TableFamily,
    /// The operations, the first one first.
    pub operations: Vec<Operation>,
}

/// One step of a transaction, inside its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Creates the table where there is none.
    AddTable,
    /// Creates the table where there is none, and makes it the writer's own: nobody else can change it until
    /// the writer ends. Where the kernel cannot do that, it is [`Operation::AddTable`].
    OwnTable,
    /// Deletes the table with all that is in it.
    DeleteTable,
    /// Declares a set or map that does not exist.
    AddSet(SetId, SetKind),
    /// Creates an empty chain that does not exist.
    AddChain(ChainId, Option<Hook>),
    /// Deletes every rule of a chain.
    FlushChain(ChainId),
    /// Takes elements out of a set that has them.
    DeleteElements(SetId, Vec<(ElementKey, Element)>),
    /// Puts elements into a set that does not have their keys.
    AddElements(SetId, Vec<(ElementKey, Element)>),
    /// Appends a rule to a chain.
    AddRule(ChainId, Rule),
    /// Deletes an empty chain.
    DeleteChain(ChainId),
    /// Deletes a set with its elements.
    DeleteSet(SetId),
}

/// What was and what is to be of one thing; `None` where it is not there.
type Change<'a, T> = (Option<&'a T>, Option<&'a T>);

/// What differs between two rulesets, thing by thing. A set that stays carries its changed elements in
/// `elements`; one that comes or goes comes or goes whole.
#[derive(Default)]
pub(crate) struct Difference<'a> {
    pub(crate) sets: BTreeMap<&'a SetId, Change<'a, Set>>,
    pub(crate) elements: BTreeMap<&'a SetId, Vec<(ElementKey, Change<'a, Element>)>>,
    pub(crate) chains: BTreeMap<&'a ChainId, Change<'a, Chain>>,
}

impl<'a> Difference<'a> {
    /// `None` where the kernel cannot change in place what differs: how a set or a base chain is declared.
    fn between(old: &'a Ruleset, new: &'a Ruleset) -> Option<Self> {
        let mut difference = Self::default();
        for (name, change) in changes(&old.sets, &new.sets) {
            match change {
                (Some(old), Some(new)) if old.kind != new.kind => return None,
                (Some(old), Some(new)) => {
                    let elements = changes(&old.elements, &new.elements);
                    difference.elements.insert(name, elements.map(|(key, change)| (*key, change)).collect());
                }
                change => {
                    difference.sets.insert(name, change);
                }
            }
        }
        for (name, change) in changes(&old.chains, &new.chains) {
            if matches!(change, (Some(old), Some(new)) if old.hook != new.hook) {
                return None;
            }
            difference.chains.insert(name, change);
        }
        Some(difference)
    }
}

impl Transaction {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Puts `ruleset` in the place of whatever the table holds, or creates the table.
    pub fn replace(ruleset: &Ruleset) -> Self {
        let mut operations = vec![Operation::AddTable, Operation::DeleteTable, Operation::OwnTable];
        operations.extend(Self::between(&Ruleset::default(), ruleset).operations);
        Self { table: ruleset.table, operations }
    }

    /// Leads from `old` to `new` inside an existing table. Where a set or a base chain is declared
    /// otherwise than before, which the kernel cannot change in place, the table is replaced as a whole.
    pub fn between(old: &Ruleset, new: &Ruleset) -> Self {
        let difference = Difference::between(old, new);
        difference.map_or_else(|| Self::replace(new), |difference| Self::of(new.table, &difference))
    }

    /// As [`Transaction::between`], and makes the table the writer's own.
    pub fn adopt(old: &Ruleset, new: &Ruleset) -> Self {
        let Some(difference) = Difference::between(old, new) else { return Self::replace(new) };
        let mut operations = vec![Operation::OwnTable];
        operations.extend(Self::of(new.table, &difference).operations);
        Self { table: new.table, operations }
    }

    /// The operations that belong before the change, those of the change, and those behind it ([`in_steps`]).
    fn into_steps(self) -> [Self; 3] {
        let mut steps = [const { Vec::new() }; 3];
        // A table that is replaced or deleted has nothing in common with the one before.
        let whole = self.operations.contains(&Operation::DeleteTable);
        let parts = (!whole).then(|| Parts::of(&self));
        for operation in self.operations {
            let step = parts.as_ref().map_or(1, |parts| parts.step(&operation));
            steps[step].push(operation);
        }
        steps.map(|operations| Self { table: self.table, operations })
    }

    /// Carries a difference out: declare what is new, cut every reference, delete what is gone, and only
    /// then refer to what is new.
    pub(crate) fn of(table: TableFamily, difference: &Difference<'_>) -> Self {
        let (sets, chains) = (&difference.sets, &difference.chains);
        let mut operations = Vec::new();
        for (name, change) in sets {
            if let (None, Some(set)) = change {
                operations.push(Operation::AddSet((*name).clone(), set.kind));
            }
        }
        for (name, change) in chains {
            match change {
                (None, Some(chain)) => {
                    operations.push(Operation::AddChain((*name).clone(), chain.hook.clone()));
                }
                (Some(old), _) if !old.rules.is_empty() => {
                    operations.push(Operation::FlushChain((*name).clone()));
                }
                _ => {}
            }
        }
        for (name, changes) in &difference.elements {
            let gone = pick(changes, |(old, _)| old);
            if !gone.is_empty() {
                operations.push(Operation::DeleteElements((*name).clone(), gone));
            }
        }
        for (name, change) in sets {
            if let (Some(_), None) = change {
                operations.push(Operation::DeleteSet((*name).clone()));
            }
        }
        for (name, change) in chains {
            if let (Some(_), None) = change {
                operations.push(Operation::DeleteChain((*name).clone()));
            }
        }
        for (name, change) in sets {
            if let (None, Some(set)) = change
                && !set.elements.is_empty()
            {
                let elements = set.elements.iter().map(|(key, element)| (*key, element.clone())).collect();
                operations.push(Operation::AddElements((*name).clone(), elements));
            }
        }
        for (name, changes) in &difference.elements {
            let come = pick(changes, |(_, new)| new);
            if !come.is_empty() {
                operations.push(Operation::AddElements((*name).clone(), come));
            }
        }
        for (name, change) in chains {
            let rules = change.1.map_or(&[][..], |chain| &chain.rules);
            operations.extend(rules.iter().map(|rule| Operation::AddRule((*name).clone(), rule.clone())));
        }
        Self { table, operations }
    }
}

/// The transactions of several tables in up to three steps, each of which the kernel must take as one. The second is
/// the change: before it comes what nothing refers to yet, and after it goes what nothing refers to any longer.
///
/// The kernel runs a packet through the rules of the generation in which it came (`nft_do_chain`), but looks
/// its fields up among the elements of the generation in which it gets to a set (`nft_genmask_cur`). So a
/// packet on its way while a transaction is committed may find a new element, whose chain has no rules yet
/// for that packet, and be let through (about one packet in 20,000 while the table changes a hundred times a
/// second); or the chain of an old element, whose sets are empty already. With the rules in place before and
/// after, it finds whole chains either way.
pub fn in_steps(
    transactions: impl IntoIterator<Item = Transaction>,
) -> impl Iterator<Item = Vec<Transaction>> {
    let mut steps = [const { Vec::new() }; 3];
    for transaction in transactions {
        for (all, step) in steps.iter_mut().zip(transaction.into_steps()) {
            all.extend((!step.is_empty()).then_some(step));
        }
    }
    steps.into_iter().filter(|step| !step.is_empty())
}

/// What a transaction makes and what it deletes.
struct Parts {
    sets: [BTreeSet<SetId>; 2],
    chains: [BTreeSet<ChainId>; 2],
}

impl Parts {
    fn of(transaction: &Transaction) -> Self {
        let mut parts = Self { sets: Default::default(), chains: Default::default() };
        let ([new_sets, gone_sets], [new_chains, gone_chains]) = (&mut parts.sets, &mut parts.chains);
        for operation in &transaction.operations {
            match operation {
                Operation::AddSet(set, _) => drop(new_sets.insert(set.clone())),
                Operation::DeleteSet(set) => drop(gone_sets.insert(set.clone())),
                // A base chain sees packets as soon as it is there.
                Operation::AddChain(chain, None) => drop(new_chains.insert(chain.clone())),
                Operation::DeleteChain(chain) => drop(gone_chains.insert(chain.clone())),
                _ => {}
            }
        }
        parts
    }

    /// Whether the operation belongs to what comes before the change (0), to the change (1), or behind it (2).
    fn step(&self, operation: &Operation) -> usize {
        let ([new_sets, gone_sets], [new_chains, gone_chains]) = (&self.sets, &self.chains);
        match operation {
            Operation::AddTable | Operation::OwnTable | Operation::AddSet(..) => 0,
            Operation::AddChain(chain, _) | Operation::AddRule(chain, _) if new_chains.contains(chain) => 0,
            Operation::AddElements(set, _) if new_sets.contains(set) => 0,
            Operation::FlushChain(chain) | Operation::DeleteChain(chain) if gone_chains.contains(chain) => 2,
            Operation::DeleteSet(set) if gone_sets.contains(set) => 2,
            _ => 1,
        }
    }
}

fn pick<'a>(
    changes: &[(ElementKey, Change<'a, Element>)],
    side: impl Fn(Change<'a, Element>) -> Option<&'a Element>,
) -> Vec<(ElementKey, Element)> {
    changes.iter().filter_map(|(key, change)| side(*change).map(|element| (*key, element.clone()))).collect()
}

/// What differs between two maps, key by key.
fn changes<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Change<'a, V>)> {
    let gone_or_changed = old.iter().map(|(key, value)| (key, (Some(value), new.get(key))));
    let come =
        new.iter().filter(|(key, _)| !old.contains_key(key)).map(|(key, value)| (key, (None, Some(value))));
    gone_or_changed.chain(come).filter(|(_, (old, new))| old != new)
}
