//! YAML and JSON as a tree with line numbers.

use std::collections::hash_map::{self, HashMap};

use super::meter::{Meter, cost};
use super::scalar::{Resolved, Scalar};

/// A value and the line (from 1) on which it starts.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
    /// What a key stands for that its mapping has more than once: nobody can know which is meant.
    Repeated {
        /// The line of the key's first use.
        first: usize,
    },
    /// An item that was handed on before the list that it is in ended.
    HandedOn,
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    /// The line of the key.
    pub(super) line: usize,
    pub(super) value: Node,
}

/// What a text consists of.
pub(super) enum Part {
    /// An item of the list `items` of a document of which the rest is still to come. It has an `apiVersion` and a
    /// `kind`, so that it can be read by itself.
    Item {
        /// Its place in the list.
        index: usize,
        /// The item.
        node: Node,
    },
    /// A document, without the items that were handed on before; never an empty one.
    Document(Node),
}

/// Takes what a text consists of, one part after the other.
pub(super) type Sink<'s> = &'s mut dyn FnMut(Part);

impl Node {
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.resolve() == Resolved::Null)
    }

    /// The value under a key of an object.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Mapping(entries) = &self.value else { return None };
        entries.iter().find(|entry| *entry.key == *key).map(|entry| &entry.value)
    }

    /// What it says, where it is a string.
    pub(super) fn text(&self) -> Option<&str> {
        let Value::Scalar(scalar) = &self.value else { return None };
        match scalar.resolve() {
            Resolved::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number that it is, where it is one.
    pub(super) fn integer(&self) -> Option<i64> {
        let Value::Scalar(scalar) = &self.value else { return None };
        match scalar.resolve() {
            Resolved::Integer(number) => number,
            _ => None,
        }
    }

    /// The values in it, itself included, with long texts counted by their length; and how deep it goes.
    pub(super) fn measure(&self) -> (usize, usize) {
        fn add(sum: (usize, usize), child: &Node) -> (usize, usize) {
            let (size, depth) = child.measure();
            (sum.0 + size, sum.1.max(depth + 1))
        }
        match &self.value {
            Value::Scalar(scalar) => (cost(scalar.text.len()), 0),
            Value::Sequence(items) => items.iter().fold((1, 1), add),
            Value::Mapping(entries) => entries.iter().map(|entry| &entry.value).fold((1, 1), add),
            Value::Repeated { .. } | Value::HandedOn => (1, 0),
        }
    }

    /// Hands the item of a list on, if it can be read by itself: with its own `apiVersion` and `kind`, or those that
    /// `list`, what is known of the list, gives to its items. Returns what stays in the list.
    pub(super) fn hand_on(mut self, index: usize, list: &[Entry], meter: &Meter, sink: Sink<'_>) -> Self {
        let line = self.line;
        let is_typed = match &mut self.value {
            Value::Mapping(entries) => ["apiVersion", "kind"].into_iter().all(|key| {
                if let Some(entry) = entries.iter().find(|entry| *entry.key == *key) {
                    return !entry.value.is_null();
                }
                let given = given_to_items(list, key, line);
                let is_given = given.is_some();
                entries.extend(given);
                is_given
            }),
            _ => false,
        };
        if !is_typed {
            meter.keep();
            return self;
        }
        sink(Part::Item { index, node: self });
        meter.hand_on();
        Self { line, value: Value::HandedOn }
    }
}

/// The `apiVersion` or `kind` that a list such as a `PodList` gives to its items.
fn given_to_items(list: &[Entry], key: &str, line: usize) -> Option<Entry> {
    let text = |key: &str| list.iter().find(|entry| *entry.key == *key)?.value.text();
    let kind = text("kind")?.strip_suffix("List").filter(|kind| !kind.is_empty())?;
    let text = if key == "kind" { kind } else { text(key)? };
    let value = Value::Scalar(Scalar { text: text.into(), plain: false });
    Some(Entry { key: key.into(), line, value: Node { line, value } })
}

/// Leaves one entry for every key, [`Value::Repeated`] where there were several.
pub(super) fn mark_repeated(entries: &mut Vec<Entry>) {
    let mut first_use = HashMap::with_capacity(entries.len());
    let mut repeated = HashMap::new();
    for (index, entry) in entries.iter().enumerate() {
        match first_use.entry(&*entry.key) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert((index, entry.line));
            }
            hash_map::Entry::Occupied(first) => {
                repeated.insert(index, None);
                let (first, first_line) = *first.get();
                repeated.entry(first).or_insert(Some((first_line, entry.line)));
            }
        }
    }
    if repeated.is_empty() {
        return;
    }
    let mut index = 0;
    entries.retain_mut(|entry| {
        let fate = repeated.get(&index);
        index += 1;
        if let Some(Some((first, line))) = fate {
            entry.line = *line;
            entry.value = Node { line: *line, value: Value::Repeated { first: *first } };
        }
        !matches!(fate, Some(None))
    });
}
