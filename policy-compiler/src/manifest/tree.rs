//! YAML and JSON as a tree with line numbers, built from the parser's events within fixed limits.

use std::collections::HashSet;
use std::collections::hash_map::{self, HashMap};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::scalar::{Resolved, Scalar};

/// Lists and objects inside one another, aliases counted as what they stand for.
const MAX_DEPTH: usize = 100;

/// Values in one file, aliases counted as what they stand for. 64 MiB of `kubectl get pods -o yaml` have
/// three million.
const MAX_NODES: usize = 4_000_000;

/// `[`, `{` and `,` in one file, wherever they stand: the parser keeps the whole of a list in `[...]` or an
/// object in `{...}` in memory before it tells what is in it, at some 500 bytes for each of these.
const MAX_FLOW_MARKS: usize = 2_000_000;

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
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    /// The line of the key.
    pub(super) line: usize,
    pub(super) value: Node,
}

/// The text is not YAML or exceeds a limit.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

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
    fn measure(&self) -> (usize, usize) {
        fn add(sum: (usize, usize), child: &Node) -> (usize, usize) {
            let (size, depth) = child.measure();
            (sum.0 + size, sum.1.max(depth + 1))
        }
        match &self.value {
            Value::Scalar(scalar) => (1 + scalar.text.len() / 64, 0),
            Value::Sequence(items) => items.iter().fold((1, 1), add),
            Value::Mapping(entries) => entries.iter().map(|entry| &entry.value).fold((1, 1), add),
            Value::Repeated { .. } => (1, 0),
        }
    }
}

/// The documents of a text, without those that are empty. Ends after the first error.
pub(super) fn documents(text: &str) -> impl Iterator<Item = Result<Node, SyntaxError>> {
    let mut reader = Reader { parser: Parser::new_from_str(text), nodes: 0 };
    let mut too_much_flow = check_flow(text).err();
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let document = match too_much_flow.take() {
            Some(error) => Some(Err(error)),
            None => reader.next_document().transpose(),
        };
        ended = !matches!(document, Some(Ok(_)));
        document
    })
}

fn check_flow(text: &str) -> Result<(), SyntaxError> {
    let marks = text.bytes().filter(|byte| matches!(byte, b'[' | b'{' | b',')).count();
    if marks > MAX_FLOW_MARKS {
        return Err(SyntaxError::new(1, "too many values in `[...]` and `{...}` for one file: split it"));
    }
    Ok(())
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    /// Values made so far.
    nodes: usize,
}

impl Reader<'_> {
    fn next_document(&mut self) -> Result<Option<Node>, SyntaxError> {
        while let Some(event) = self.parser.next_event() {
            if matches!(event?.0, Event::DocumentStart(_)) {
                let root = Builder::new(self).document()?;
                if !root.is_null() {
                    return Ok(Some(root));
                }
            }
        }
        Ok(None)
    }

    fn charge(&mut self, nodes: usize, line: usize) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} values in one file, aliases expanded: split it");
            return Err(SyntaxError { line, message });
        }
        Ok(())
    }
}

fn check_depth(depth: usize, line: usize) -> Result<(), SyntaxError> {
    if depth > MAX_DEPTH {
        return Err(SyntaxError { line, message: format!("nested deeper than {MAX_DEPTH} levels") });
    }
    Ok(())
}

/// Builds one document. It keeps its own stack: how deep a text goes is checked, not suffered.
struct Builder<'r, 't> {
    reader: &'r mut Reader<'t>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchor>,
}

/// A list or an object whose end has not come yet.
struct Open {
    line: usize,
    anchor: usize,
    collection: Collection,
}

enum Collection {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        /// What `<<` brought in; an own key goes before it.
        merged: Vec<Entry>,
        key: Option<Key>,
    },
}

struct Key {
    text: Box<str>,
    line: usize,
    /// An unquoted `<<`.
    merge: bool,
}

struct Anchor {
    node: Node,
    size: usize,
    depth: usize,
}

impl<'r, 't> Builder<'r, 't> {
    fn new(reader: &'r mut Reader<'t>) -> Self {
        Self { reader, open: Vec::new(), anchors: HashMap::new() }
    }

    fn document(mut self) -> Result<Node, SyntaxError> {
        loop {
            let Some(event) = self.reader.parser.next_event() else {
                return Err(SyntaxError::new(1, "the document does not end"));
            };
            let (event, span) = event?;
            let line = span.start.line();
            let done = match event {
                Event::Scalar(text, style, anchor, tag) => {
                    self.reader.charge(1, line)?;
                    // A copy: the parser's own strings have room for much more than they hold.
                    let text = Box::from(&*text);
                    let plain = tag.map_or(style == ScalarStyle::Plain, |tag| stands_for_other(&tag));
                    self.complete(Node { line, value: Value::Scalar(Scalar { text, plain }) }, anchor)?
                }
                Event::Alias(anchor) => {
                    let node = self.aliased(anchor, line)?;
                    self.complete(node, 0)?
                }
                Event::SequenceStart(anchor, _) => {
                    self.open(line, anchor, Collection::Sequence(Vec::new()))?;
                    None
                }
                Event::MappingStart(anchor, _) => {
                    let (entries, merged) = (Vec::new(), Vec::new());
                    self.open(line, anchor, Collection::Mapping { entries, merged, key: None })?;
                    None
                }
                Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                    Some(Open { line, anchor, collection }) => {
                        self.complete(Node { line, value: collection.close() }, anchor)?
                    }
                    None => None,
                },
                _ => None,
            };
            if let Some(root) = done {
                return Ok(root);
            }
        }
    }

    fn open(&mut self, line: usize, anchor: usize, collection: Collection) -> Result<(), SyntaxError> {
        self.reader.charge(1, line)?;
        check_depth(self.open.len() + 1, line)?;
        self.open.push(Open { line, anchor, collection });
        Ok(())
    }

    /// A copy of what the anchor names, paid for before it is made.
    fn aliased(&mut self, anchor: usize, line: usize) -> Result<Node, SyntaxError> {
        let Some(anchor) = self.anchors.get(&anchor) else {
            return Err(SyntaxError::new(line, "the alias names no anchor before it in this document"));
        };
        check_depth(self.open.len() + anchor.depth, line)?;
        self.reader.charge(anchor.size, line)?;
        Ok(anchor.node.clone())
    }

    /// Puts a value where it belongs; gives it back if it is the whole document.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<Option<Node>, SyntaxError> {
        if anchor > 0 {
            let (size, depth) = node.measure();
            self.reader.charge(size, node.line)?;
            self.anchors.insert(anchor, Anchor { node: node.clone(), size, depth });
        }
        let Some(parent) = self.open.last_mut() else { return Ok(Some(node)) };
        match &mut parent.collection {
            Collection::Sequence(items) => items.push(node),
            Collection::Mapping { entries, merged, key } => match key.take() {
                None => *key = Some(Key::new(node)?),
                Some(Key { merge: true, line, .. }) => merged.extend(entries_to_merge(node, line)?),
                Some(Key { text, line, .. }) => entries.push(Entry { key: text, line, value: node }),
            },
        }
        Ok(None)
    }
}

impl Key {
    fn new(node: Node) -> Result<Self, SyntaxError> {
        let line = node.line;
        match node.value {
            Value::Scalar(Scalar { text, plain }) => Ok(Self { merge: plain && &*text == "<<", text, line }),
            _ => Err(SyntaxError::new(line, "a key must be a string")),
        }
    }
}

impl Collection {
    fn close(self) -> Value {
        match self {
            Self::Sequence(items) => Value::Sequence(items),
            Self::Mapping { mut entries, merged, .. } => {
                mark_repeated(&mut entries);
                if !merged.is_empty() {
                    let mut known: HashSet<_> = entries.iter().map(|entry| entry.key.clone()).collect();
                    entries.extend(merged.into_iter().filter(|entry| known.insert(entry.key.clone())));
                }
                Value::Mapping(entries)
            }
        }
    }
}

/// Leaves one entry for every key, [`Value::Repeated`] where there were several.
fn mark_repeated(entries: &mut Vec<Entry>) {
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

/// The entries that `<<: *alias` or `<<: [*one, *two]` brings into a mapping, the strongest first.
fn entries_to_merge(node: Node, line: usize) -> Result<Vec<Entry>, SyntaxError> {
    match node.value {
        Value::Mapping(entries) => Ok(entries),
        Value::Sequence(items) if items.iter().all(|item| matches!(item.value, Value::Mapping(_))) => {
            let mut all = Vec::new();
            for item in items {
                all.extend(entries_to_merge(item, line)?);
            }
            Ok(all)
        }
        _ => Err(SyntaxError::new(line, "`<<` must be followed by an object or a list of objects")),
    }
}

/// Whether a tag says that the scalar is no string.
fn stands_for_other(tag: &Tag) -> bool {
    tag.is_yaml_core_schema() && matches!(&*tag.suffix, "null" | "bool" | "int" | "float")
}

impl SyntaxError {
    fn new(line: usize, message: &str) -> Self {
        Self { line, message: message.to_owned() }
    }
}

impl From<ScanError> for SyntaxError {
    fn from(error: ScanError) -> Self {
        let line = Marker::line(error.marker());
        Self { line, message: format!("not valid YAML: {}", error.info()) }
    }
}
