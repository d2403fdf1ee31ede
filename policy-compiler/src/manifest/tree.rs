//! YAML and JSON as a tree with line numbers, built from the parser's events within fixed limits.

use std::borrow::Cow;
use std::collections::HashSet;
use std::collections::hash_map::{self, HashMap};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};

/// Lists and objects inside one another, aliases counted as what they stand for.
const MAX_DEPTH: usize = 100;

/// Values in one file, aliases counted as what they stand for. 64 MiB of `kubectl get pods -o yaml` have
/// three million.
const MAX_NODES: usize = 4_000_000;

/// A value and the line (from 1) on which it starts.
#[derive(Debug, Clone)]
pub(super) struct Node<'t> {
    pub(super) line: usize,
    pub(super) value: Value<'t>,
}

#[derive(Debug, Clone)]
pub(super) enum Value<'t> {
    Scalar(Scalar<'t>),
    Sequence(Vec<Node<'t>>),
    Mapping(Vec<Entry<'t>>),
    /// What a key stands for that its mapping has more than once: nobody can know which is meant.
    Repeated {
        /// The line of the key's first use.
        first: usize,
    },
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry<'t> {
    pub(super) key: Cow<'t, str>,
    /// The line of the key.
    pub(super) line: usize,
    pub(super) value: Node<'t>,
}

/// A scalar as it was written.
#[derive(Debug, Clone)]
pub(super) struct Scalar<'t> {
    text: Cow<'t, str>,
    /// Neither quoted nor a block: it may stand for something other than a string.
    plain: bool,
}

/// What a scalar stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Resolved<'s> {
    Null,
    Bool(bool),
    /// `None` if it does not fit, or if YAML 1.1 and 1.2 differ on it (`0123`).
    Integer(Option<i64>),
    Float,
    String(&'s str),
}

/// The text is not YAML or exceeds a limit.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

impl Node<'_> {
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.resolve() == Resolved::Null)
    }

    /// The values in it, itself included, with long texts counted by their length; and how deep it goes.
    fn measure(&self) -> (usize, usize) {
        fn add(sum: (usize, usize), child: &Node<'_>) -> (usize, usize) {
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

impl Scalar<'_> {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Resolves it as `kubectl` does: the core schema of YAML 1.2, and the booleans and digit separators
    /// of YAML 1.1, which `kubectl` does not take for strings either.
    pub(super) fn resolve(&self) -> Resolved<'_> {
        let text = &*self.text;
        if !self.plain {
            return Resolved::String(text);
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Resolved::Null,
            "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "y" | "Y" | "on" | "On" | "ON" => {
                Resolved::Bool(true)
            }
            "false" | "False" | "FALSE" | "no" | "No" | "NO" | "n" | "N" | "off" | "Off" | "OFF" => {
                Resolved::Bool(false)
            }
            _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) => {
                number(text)
            }
            _ => Resolved::String(text),
        }
    }
}

fn number(text: &str) -> Resolved<'_> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = unsigned.replace('_', "");
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let prefixed = [("0x", 16), ("0X", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, radix)| digits.strip_prefix(prefix).map(|rest| (rest, radix)));
    if let Some((rest, radix)) = prefixed {
        if !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)) {
            return Resolved::Integer(i64::from_str_radix(rest, radix).ok().map(|value| sign * value));
        }
    } else if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        let ambiguous = digits.len() > 1 && digits.starts_with('0');
        return Resolved::Integer(digits.parse().ok().filter(|_| !ambiguous).map(|value: i64| sign * value));
    }
    let special = matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN");
    let numeric = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    if special || (numeric && digits.parse::<f64>().is_ok()) {
        return Resolved::Float;
    }
    Resolved::String(text)
}

/// The documents of a text, without those that are empty. Ends after the first error.
pub(super) fn documents(text: &str) -> impl Iterator<Item = Result<Node<'_>, SyntaxError>> {
    let mut reader = Reader { parser: Parser::new_from_str(text), nodes: 0, ended: false };
    std::iter::from_fn(move || {
        let document = reader.next_document().transpose();
        reader.ended |= !matches!(document, Some(Ok(_)));
        document
    })
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    /// Values made so far.
    nodes: usize,
    ended: bool,
}

impl<'t> Reader<'t> {
    fn next_document(&mut self) -> Result<Option<Node<'t>>, SyntaxError> {
        while !self.ended {
            let Some(event) = self.parser.next_event() else { return Ok(None) };
            if matches!(event?.0, Event::DocumentStart(_)) {
                let root = Builder::new(self).document()?;
                if !root.is_null() {
                    return Ok(Some(root));
                }
            }
        }
        Ok(None)
    }
}

/// Builds one document. It keeps its own stack: how deep a text goes is checked, not suffered.
struct Builder<'r, 't> {
    reader: &'r mut Reader<'t>,
    open: Vec<Open<'t>>,
    anchors: HashMap<usize, Anchor<'t>>,
}

/// A list or an object whose end has not come yet.
struct Open<'t> {
    line: usize,
    anchor: usize,
    collection: Collection<'t>,
}

enum Collection<'t> {
    Sequence(Vec<Node<'t>>),
    Mapping {
        entries: Vec<Entry<'t>>,
        /// What `<<` brought in; an own key goes before it.
        merged: Vec<Entry<'t>>,
        key: Option<Key<'t>>,
    },
}

struct Key<'t> {
    text: Cow<'t, str>,
    line: usize,
    /// An unquoted `<<`.
    merge: bool,
}

struct Anchor<'t> {
    node: Node<'t>,
    size: usize,
    depth: usize,
}

impl<'r, 't> Builder<'r, 't> {
    fn new(reader: &'r mut Reader<'t>) -> Self {
        Self { reader, open: Vec::new(), anchors: HashMap::new() }
    }

    fn document(mut self) -> Result<Node<'t>, SyntaxError> {
        loop {
            let Some(event) = self.reader.parser.next_event() else {
                return Err(SyntaxError::new(1, "the document does not end"));
            };
            let (event, span) = event?;
            let line = span.start.line();
            let done = match event {
                Event::Scalar(text, style, anchor, tag) => {
                    self.charge(1, line)?;
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

    fn charge(&mut self, nodes: usize, line: usize) -> Result<(), SyntaxError> {
        self.reader.nodes = self.reader.nodes.saturating_add(nodes);
        if self.reader.nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} values in one file, aliases expanded: split it");
            return Err(SyntaxError { line, message });
        }
        Ok(())
    }

    fn check_depth(&self, more: usize, line: usize) -> Result<(), SyntaxError> {
        if self.open.len() + more > MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels");
            return Err(SyntaxError { line, message });
        }
        Ok(())
    }

    fn open(&mut self, line: usize, anchor: usize, collection: Collection<'t>) -> Result<(), SyntaxError> {
        self.charge(1, line)?;
        self.check_depth(1, line)?;
        self.open.push(Open { line, anchor, collection });
        Ok(())
    }

    /// A copy of what the anchor names, paid for before it is made.
    fn aliased(&mut self, anchor: usize, line: usize) -> Result<Node<'t>, SyntaxError> {
        let Some(Anchor { size, depth, .. }) = self.anchors.get(&anchor) else {
            return Err(SyntaxError::new(line, "the alias names no anchor before it in this document"));
        };
        let (size, depth) = (*size, *depth);
        self.check_depth(depth, line)?;
        self.charge(size, line)?;
        match self.anchors.get(&anchor) {
            Some(anchor) => Ok(anchor.node.clone()),
            None => Err(SyntaxError::new(line, "the alias names no anchor")),
        }
    }

    /// Puts a value where it belongs; gives it back if it is the whole document.
    fn complete(&mut self, node: Node<'t>, anchor: usize) -> Result<Option<Node<'t>>, SyntaxError> {
        if anchor > 0 {
            let (size, depth) = node.measure();
            self.charge(size, node.line)?;
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

impl<'t> Key<'t> {
    fn new(node: Node<'t>) -> Result<Self, SyntaxError> {
        let line = node.line;
        match node.value {
            Value::Scalar(Scalar { text, plain }) => Ok(Self { merge: plain && text == "<<", text, line }),
            _ => Err(SyntaxError::new(line, "a key must be a string")),
        }
    }
}

impl<'t> Collection<'t> {
    fn close(self) -> Value<'t> {
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
fn mark_repeated(entries: &mut Vec<Entry<'_>>) {
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
fn entries_to_merge(node: Node<'_>, line: usize) -> Result<Vec<Entry<'_>>, SyntaxError> {
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
