//! A ruleset under change: it remembers what was touched, and collects what nothing refers to any more.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::ruleset::{
    Chain, ChainId, Difference, Element, ElementKey, Hook, Rule, Ruleset, Set, SetId, SetKind, TableFamily,
    Transaction,
};

/// The ruleset, and what has happened to it since the last transaction.
#[derive(Default)]
pub(super) struct Draft {
    ruleset: Ruleset,
    /// How many rules and elements lead to a chain, and how many pins hold it.
    chain_references: HashMap<ChainId, usize>,
    /// How many rules look into a set.
    set_references: HashMap<SetId, usize>,
    /// Chains whose last reference went away; some may have found a new one since.
    orphans: Vec<ChainId>,
    /// How many elements all sets have: counting them would cost what exists, not what changes.
    elements: usize,
    before: Before,
}

/// What the things touched since the last transaction were before it. `None`: they did not exist.
#[derive(Default)]
struct Before {
    sets: BTreeMap<SetId, Option<Set>>,
    elements: BTreeMap<SetId, BTreeMap<ElementKey, Option<Element>>>,
    chains: BTreeMap<ChainId, Option<Chain>>,
}

impl Draft {
    /// An empty table.
    pub(super) fn new(table: TableFamily) -> Self {
        Self { ruleset: Ruleset { table, ..Ruleset::default() }, ..Self::default() }
    }

    /// Which table it is.
    pub(super) fn table(&self) -> TableFamily {
        self.ruleset.table
    }

    pub(super) fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }

    pub(super) fn elements(&self) -> usize {
        self.elements
    }

    pub(super) fn into_ruleset(self) -> Ruleset {
        self.ruleset
    }

    /// Declares a set, if it is not there. It lives as long as a rule looks into it.
    pub(super) fn put_set(&mut self, name: &SetId, kind: SetKind) {
        if !self.ruleset.sets.contains_key(name) {
            self.before.sets.entry(name.clone()).or_insert(None);
            self.ruleset.sets.insert(name.clone(), Set::new(kind));
        }
    }

    /// Keeps a set although no rule may look into it.
    pub(super) fn pin_set(&mut self, name: &SetId) {
        *self.set_references.entry(name.clone()).or_default() += 1;
    }

    /// Puts an element into a set, in the place of one with the same key.
    pub(super) fn put_element(&mut self, set: &SetId, key: ElementKey, element: Element) {
        self.change_element(set, key, Some(element));
    }

    /// Puts an address into a set that says nothing more about it, or takes it out.
    pub(super) fn list_address(&mut self, set: &SetId, address: IpAddr, is_in: bool) {
        self.change_element(set, ElementKey::Address(address), is_in.then_some(Element::BARE));
    }

    /// Takes an element out of a set, if both are there.
    pub(super) fn remove_element(&mut self, set: &SetId, key: ElementKey) {
        self.change_element(set, key, None);
    }

    /// Makes `elements` all that is in a set.
    pub(super) fn replace_elements(&mut self, set: &SetId, elements: BTreeMap<ElementKey, Element>) {
        let gone: Vec<_> = self.ruleset.sets.get(set).map_or_else(Vec::new, |set| {
            set.elements.keys().filter(|key| !elements.contains_key(key)).copied().collect()
        });
        for key in gone {
            self.remove_element(set, key);
        }
        for (key, element) in elements {
            self.put_element(set, key, element);
        }
    }

    pub(super) fn has_elements(&self, set: &SetId) -> bool {
        self.ruleset.sets.get(set).is_some_and(|set| !set.elements.is_empty())
    }

    fn change_element(&mut self, set: &SetId, key: ElementKey, element: Option<Element>) {
        self.change_elements(set, [(key, element)]);
    }

    /// Puts elements into a set and takes those out that are `None`.
    pub(super) fn change_elements(
        &mut self,
        name: &SetId,
        changes: impl IntoIterator<Item = (ElementKey, Option<Element>)>,
    ) {
        let mut changes = changes.into_iter().peekable();
        let Some(set) = self.ruleset.sets.get_mut(name).filter(|_| changes.peek().is_some()) else { return };
        let before = self.before.elements.entry(name.clone()).or_default();
        // What is released may have found another reference by the end.
        let mut released = Vec::new();
        self.elements -= set.elements.len();
        for (key, element) in changes {
            if let Some(chain) = element.as_ref().and_then(|element| element.target.as_ref()) {
                *self.chain_references.entry(chain.clone()).or_default() += 1;
            }
            let old = match element {
                Some(element) => set.elements.insert(key, element),
                None => set.elements.remove(&key),
            };
            released.extend(old.as_ref().and_then(|old| old.target.clone()));
            before.entry(key).or_insert(old);
        }
        self.elements += set.elements.len();
        for chain in &released {
            self.release(chain);
        }
    }

    /// Puts a chain in, in the place of one of the same name. It lives as long as something leads to it or
    /// it is pinned.
    pub(super) fn put_chain(&mut self, name: &ChainId, hook: Option<Hook>, rules: Vec<Rule>) {
        let chain = Chain { hook, rules };
        if self.ruleset.chains.get(name) == Some(&chain) {
            return;
        }
        for rule in &chain.rules {
            rule.chains().for_each(|chain| self.refer_to(chain));
            for set in rule.sets() {
                *self.set_references.entry(set.clone()).or_default() += 1;
            }
        }
        if !self.chain_references.contains_key(name) {
            self.orphans.push(name.clone());
        }
        let old = self.ruleset.chains.insert(name.clone(), chain);
        self.forget_chain(name, old);
    }

    pub(super) fn has_chain(&self, name: &ChainId) -> bool {
        self.ruleset.chains.contains_key(name)
    }

    /// Keeps a chain although nothing may lead to it.
    pub(super) fn pin(&mut self, chain: &ChainId) {
        self.refer_to(chain);
    }

    /// Takes a pin back.
    pub(super) fn unpin(&mut self, chain: &ChainId) {
        self.release(chain);
    }

    fn refer_to(&mut self, chain: &ChainId) {
        *self.chain_references.entry(chain.clone()).or_default() += 1;
    }

    fn release(&mut self, chain: &ChainId) {
        if let Some(references) = self.chain_references.get_mut(chain) {
            *references -= 1;
            if *references == 0 {
                self.chain_references.remove(chain);
                self.orphans.push(chain.clone());
            }
        }
    }

    /// Notes what a chain was, and lets go of what it referred to.
    fn forget_chain(&mut self, name: &ChainId, old: Option<Chain>) {
        for rule in old.iter().flat_map(|chain| &chain.rules) {
            rule.chains().for_each(|chain| self.release(chain));
            rule.sets().for_each(|set| self.release_set(set));
        }
        self.before.chains.entry(name.clone()).or_insert(old);
    }

    fn release_set(&mut self, name: &SetId) {
        let Some(references) = self.set_references.get_mut(name) else { return };
        *references -= 1;
        if *references > 0 {
            return;
        }
        self.set_references.remove(name);
        if let Some(set) = self.ruleset.sets.remove(name) {
            self.elements -= set.elements.len();
            let before = self.before.elements.entry(name.clone()).or_default();
            for (key, element) in &set.elements {
                before.entry(*key).or_insert_with(|| Some(element.clone()));
            }
            for chain in set.elements.values().filter_map(|element| element.target.as_ref()) {
                self.release(chain);
            }
            self.before.sets.entry(name.clone()).or_insert(Some(set));
        }
    }

    /// Ends the change: drops every chain that nothing leads to, with the sets that only it used, and
    /// returns the names of those chains and the way from the last transaction's ruleset to this one.
    pub(super) fn finish(&mut self) -> (Vec<ChainId>, Transaction) {
        let mut collected = Vec::new();
        while let Some(name) = self.orphans.pop() {
            if self.chain_references.contains_key(&name) {
                continue;
            }
            if let Some(chain) = self.ruleset.chains.remove(&name) {
                self.forget_chain(&name, Some(chain));
                collected.push(name);
            }
        }
        let before = std::mem::take(&mut self.before);
        (collected, Transaction::of(self.ruleset.table, &self.difference(&before)))
    }

    fn difference<'a>(&'a self, before: &'a Before) -> Difference<'a> {
        let mut difference = Difference::default();
        for (name, old) in &before.sets {
            let change = (old.as_ref(), self.ruleset.sets.get(name));
            if change.0.is_some() != change.1.is_some() {
                difference.sets.insert(name, change);
            }
        }
        for (name, elements) in &before.elements {
            if let Some(set) = self.ruleset.sets.get(name)
                && !difference.sets.contains_key(name)
            {
                let changes = elements.iter().map(|(key, old)| (*key, (old.as_ref(), set.elements.get(key))));
                difference.elements.insert(name, changes.filter(|(_, (old, new))| old != new).collect());
            }
        }
        for (name, old) in &before.chains {
            let change = (old.as_ref(), self.ruleset.chains.get(name));
            if change.0 != change.1 {
                difference.chains.insert(name, change);
            }
        }
        difference
    }
}
