//! The way from one ruleset to another.

use std::collections::BTreeMap;

use super::{Chain, ChainName, Element, ElementKey, Hook, Rule, Ruleset, Set, SetKind, SetName};

/// Operations that the kernel must take as one, in an order in which each of them is valid: what is
/// referred to exists, and what is deleted is referred to no longer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The operations, the first one first.
    pub operations: Vec<Operation>,
}

/// One step of a transaction, inside the table `inet podfence`.
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
    AddSet(SetName, SetKind),
    /// Creates an empty chain that does not exist.
    AddChain(ChainName, Option<Hook>),
    /// Deletes every rule of a chain.
    FlushChain(ChainName),
    /// Takes elements out of a set that has them.
    DeleteElements(SetName, Vec<(ElementKey, Element)>),
    /// Puts elements into a set that does not have their keys.
    AddElements(SetName, Vec<(ElementKey, Element)>),
    /// Appends a rule to a chain.
    AddRule(ChainName, Rule),
    /// Deletes an empty chain.
    DeleteChain(ChainName),
    /// Deletes a set with its elements.
    DeleteSet(SetName),
}

/// What was and what is to be of one thing; `None` where it is not there.
type Change<'a, T> = (Option<&'a T>, Option<&'a T>);

/// What differs between two rulesets, thing by thing. A set that stays carries its changed elements in
/// `elements`; one that comes or goes comes or goes whole.
#[derive(Default)]
pub(crate) struct Difference<'a> {
    pub(crate) sets: BTreeMap<&'a SetName, Change<'a, Set>>,
    pub(crate) elements: BTreeMap<&'a SetName, Vec<(ElementKey, Change<'a, Element>)>>,
    pub(crate) chains: BTreeMap<&'a ChainName, Change<'a, Chain>>,
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
        Self { operations }
    }

    /// Leads from `old` to `new` inside an existing table. Where a set or a base chain is declared
    /// otherwise than before, which the kernel cannot change in place, the table is replaced as a whole.
    pub fn between(old: &Ruleset, new: &Ruleset) -> Self {
        Difference::between(old, new).map_or_else(|| Self::replace(new), |difference| Self::of(&difference))
    }

    /// As [`Transaction::between`], and makes the table the writer's own.
    pub fn adopt(old: &Ruleset, new: &Ruleset) -> Self {
        let Some(difference) = Difference::between(old, new) else { return Self::replace(new) };
        let mut operations = vec![Operation::OwnTable];
        operations.extend(Self::of(&difference).operations);
        Self { operations }
    }
    /// Carries a difference out: declare what is new, cut every reference, delete what is gone, and only
    /// then refer to what is new.
    pub(crate) fn of(difference: &Difference<'_>) -> Self {
        let (sets, chains) = (&difference.sets, &difference.chains);
        let mut operations = Vec::new();
        for (name, change) in sets {
            if let (None, Some(set)) = change {
                operations.push(Operation::AddSet((*name).clone(), set.kind));
            }
        }
        for (name, change) in chains {
            match change {
                (None, Some(chain)) => operations.push(Operation::AddChain((*name).clone(), chain.hook)),
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
        Self { operations }
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
