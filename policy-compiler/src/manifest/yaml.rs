//! From YAML to trees, built from the parser's events.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use granit_parser::{
    BorrowedInput, ErrorKind, Event, Input, Parser, ScalarStyle, ScanError, StrInput, Tag,
    input::{SkipTabs, WhitespaceResult},
    options,
};

use super::error::SyntaxError;
use super::flow::Flow;
use super::meter::Meter;
use super::scalar::Scalar;
use super::text::Text;
use super::tree::{Entry, Node, Part, Sink, Value, mark_repeated};

/// Characters that are decoded before the parser takes many at once.
const SLICE: usize = 1 << 8;

/// Hands on the documents of a text, without those that are empty, and the items of their lists.
pub(super) fn read<R: Read>(
    text: &mut Text<'_, R>,
    meter: &Meter,
    sink: Sink<'_>,
) -> Result<(), SyntaxError> {
    let lines_before = meter.line() - 1;
    let parser = Parser::with_options(
        Characters { text, window: 0, flow: Flow::default() },
        options! { bom_inside_document_as_content: true },
    );
    let mut builder = Builder { meter, sink, open: Vec::new(), anchors: HashMap::new() };
    for event in parser {
        let (event, span) = event.map_err(|error: ScanError| {
            let line = lines_before + error.marker().line();
            SyntaxError::new(line, format!("not valid YAML: {}", error.kind()))
        })?;
        builder.add(event, lines_before + span.start.line())?;
    }
    Ok(())
}

/// The text as the parser takes it.
struct Characters<'t, 'm, R> {
    text: &'t mut Text<'m, R>,
    /// How many characters the parser looks ahead.
    window: usize,
    flow: Flow,
}

impl<R: Read> Characters<'_, '_, R> {
    /// What the parser is shown as the next character.
    #[inline]
    fn next(&self) -> Option<char> {
        match self.text.next() {
            // The parser refuses tabs that might indent.
            Some('\t') if self.flow.ignores_indentation() => Some(' '),
            // The parser does not know this escape.
            Some('\\') if self.flow.has_escapes() && self.text.rest().starts_with("\\'") => Some('\''),
            next => next,
        }
    }

    fn take(&mut self, bytes: usize) {
        self.text.take(bytes);
        self.text.fill(self.window);
    }

    /// Has the parser's own input take characters of one line from what is decoded. It says whether it came to an end;
    /// where that is the end of what is decoded, it did not.
    fn with_slice(&mut self, read: impl FnOnce(&mut StrInput<'_>) -> (bool, usize)) -> (bool, usize) {
        self.text.fill(SLICE);
        let mut slice = StrInput::new(self.text.rest());
        let (is_end, count) = read(&mut slice);
        let taken = slice.byte_offset().unwrap_or_default();
        let is_end = is_end && (self.text.has_ended() || taken + 1 < self.text.rest().len());
        self.take(taken);
        (is_end, count)
    }
}

impl<R: Read> Input for Characters<'_, '_, R> {
    fn lookahead(&mut self, count: usize) {
        self.window = self.window.max(count.min(self.bufmaxlen()));
        self.text.fill(self.window);
    }

    fn buflen(&self) -> usize {
        self.window
    }

    fn bufmaxlen(&self) -> usize {
        64
    }

    fn raw_read_ch(&mut self) -> char {
        self.text.fill(2);
        let Some(next) = self.next() else { return char::default() };
        let is_escaped = next == '\'' && self.text.next() == Some('\\');
        self.flow.take(next);
        self.take(next.len_utf8() + usize::from(is_escaped));
        next
    }

    fn raw_read_non_breakz_ch(&mut self) -> Option<char> {
        self.text.fill(1);
        self.text.next().filter(|c| !matches!(c, '\n' | '\r'))?;
        Some(self.raw_read_ch())
    }

    fn skip(&mut self) {
        let _ = self.raw_read_ch();
    }

    fn skip_n(&mut self, count: usize) {
        for _ in 0..count {
            self.skip();
        }
    }

    fn peek(&self) -> char {
        self.next().unwrap_or_default()
    }

    fn peek_nth(&self, n: usize) -> char {
        match self.text.rest().chars().nth(n) {
            // To libyaml a `-` before one of these is text, as in `[-, a]`; this parser refuses it. It does not look
            // at what is behind a `-` but to find that out and to see whether it is white space.
            Some(',' | '[' | ']' | '{' | '}') if n == 1 && self.peek() == '-' => 'x',
            other => other.unwrap_or_default(),
        }
    }

    fn fetch_plain_scalar_chunk(&mut self, out: &mut String, count: usize, in_flow: bool) -> (bool, usize) {
        self.flow.take_plain();
        self.with_slice(|slice| slice.fetch_plain_scalar_chunk(out, count, in_flow))
    }

    fn fetch_block_scalar_line(&mut self, out: &mut String) -> usize {
        let mut taken = 0;
        loop {
            let (is_end, count) = self.with_slice(|slice| (true, slice.fetch_block_scalar_line(out)));
            taken += count;
            if is_end {
                return taken;
            }
        }
    }

    fn take_quoted_scalar_chunk(&mut self, single: bool) -> (&str, usize) {
        self.text.fill(SLICE);
        let mut slice = StrInput::new(self.text.rest());
        let (chunk, count) = slice.take_quoted_scalar_chunk(single);
        let bytes = chunk.len();
        self.flow.take_quoted();
        (self.text.take(bytes), count)
    }

    fn next_is_z(&self) -> bool {
        self.text.is_at_end()
    }

    fn skip_ws_to_eol_blanks(&mut self, skip_tabs: SkipTabs) -> (usize, WhitespaceResult) {
        let (mut spaces, mut tabs) = (0, 0);
        loop {
            match self.look_ch() {
                ' ' => spaces += 1,
                '\t' if skip_tabs != SkipTabs::No => tabs += 1,
                // libyaml wants no space before a comment.
                next => return (spaces + tabs, WhitespaceResult::new(tabs > 0, spaces > 0 || next == '#')),
            }
            self.skip();
        }
    }

    fn take_source_error(&mut self) -> Option<ErrorKind> {
        // The meter has the message.
        self.text.has_failed().then(|| ErrorKind::InputDecoding { message: String::new() })
    }
}

impl<R: Read> BorrowedInput<'static> for Characters<'_, '_, R> {
    fn slice_borrowed(&self, _: usize, _: usize) -> Option<&'static str> {
        None
    }
}

/// Builds documents. It keeps its own stack: how deep a text goes is checked, not suffered.
struct Builder<'b> {
    meter: &'b Meter,
    sink: Sink<'b>,
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

impl Builder<'_> {
    fn add(&mut self, event: Event<'_>, line: usize) -> Result<(), SyntaxError> {
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                self.meter.add_value(text.len(), line)?;
                // A copy: the parser's own strings have room for much more than they hold.
                let text = Box::from(&*text);
                let plain = tag.map_or(style == ScalarStyle::Plain, |tag| stands_for_other(&tag));
                self.complete(Node { line, value: Value::Scalar(Scalar { text, plain }) }, anchor)?;
            }
            Event::Alias(anchor) => {
                let node = self.aliased(anchor, line)?;
                self.complete(node, 0)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(line, anchor, Collection::Sequence(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, _) => {
                let (entries, merged) = (Vec::new(), Vec::new());
                self.open(line, anchor, Collection::Mapping { entries, merged, key: None })?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { line, anchor, collection }) = self.open.pop() {
                    self.complete(Node { line, value: collection.close() }, anchor)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, line: usize, anchor: usize, collection: Collection) -> Result<(), SyntaxError> {
        self.meter.add_value(0, line)?;
        Meter::check_depth(self.open.len() + 1, line)?;
        self.open.push(Open { line, anchor, collection });
        Ok(())
    }

    /// A copy of what the anchor names, paid for before it is made.
    fn aliased(&mut self, anchor: usize, line: usize) -> Result<Node, SyntaxError> {
        let Some(anchor) = self.anchors.get(&anchor) else {
            return Err(SyntaxError::new(line, "the alias names no anchor before it in this document"));
        };
        Meter::check_depth(self.open.len() + anchor.depth, line)?;
        self.meter.add_copy(anchor.size, line)?;
        Ok(anchor.node.clone())
    }

    /// Puts a value where it belongs.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        if anchor > 0 {
            let (size, depth) = node.measure();
            self.meter.add_copy(size, node.line)?;
            self.anchors.insert(anchor, Anchor { node: node.clone(), size, depth });
        }
        match &mut *self.open {
            [] => {
                if !node.is_null() {
                    (self.sink)(Part::Document(node));
                }
                self.meter.end_document();
            }
            // The items of a document. A list that can be repeated later has to stay whole.
            [
                Open { collection: Collection::Mapping { entries: list, key: Some(key), .. }, .. },
                Open { anchor: 0, collection: Collection::Sequence(items), .. },
            ] if *key.text == *"items" => {
                items.push(node.hand_on(items.len(), list, self.meter, self.sink));
            }
            [.., Open { collection: Collection::Sequence(items), .. }] => items.push(node),
            [.., Open { collection: Collection::Mapping { entries, merged, key }, .. }] => match key.take() {
                None => *key = Some(Key::new(node)?),
                Some(Key { merge: true, line, .. }) => merged.extend(entries_to_merge(node, line)?),
                Some(Key { text, line, .. }) => entries.push(Entry { key: text, line, value: node }),
            },
        }
        Ok(())
    }
}

impl Key {
    fn new(node: Node) -> Result<Self, SyntaxError> {
        let line = node.line;
        let Value::Scalar(scalar) = node.value else {
            return Err(SyntaxError::new(line, "a key must be a string"));
        };
        let merge = scalar.plain && &*scalar.text == "<<";
        Ok(Self { text: scalar.into_key(), line, merge })
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
    ["null", "bool", "int", "float"].into_iter().any(|kind| tag.is_yaml_core_schema_tag(kind))
}
