//! From JSON, and from everything else that serde reads, to trees.

use std::fmt;
use std::io::Read;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::error::SyntaxError;
use super::meter::Meter;
use super::scalar::Scalar;
use super::surrogates::Surrogates;
use super::text::Text;
use super::tree::{Entry, Node, Part, Sink, Value, mark_repeated};

/// Hands on a JSON value that a text begins with, unless it is `null`, and the items of its list.
pub(super) fn read<R: Read>(
    text: &mut Text<'_, R>,
    meter: &Meter,
    sink: Sink<'_>,
) -> Result<(), SyntaxError> {
    // It takes no byte more than it has to, so that the meter knows the line of every value.
    let mut source = serde_json::Deserializer::from_reader(Surrogates::new(text));
    read_document(&mut source, meter, sink).map_err(|error| {
        let message = error.to_string();
        // The place is that in this value alone.
        let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
        SyntaxError::new(meter.line(), format!("not valid JSON: {message}"))
    })
}

/// Hands on a document and the items of its list.
pub(super) fn read_document<'de, D: Deserializer<'de>>(
    source: D,
    meter: &Meter,
    sink: Sink<'_>,
) -> Result<(), D::Error> {
    let tree = Tree { meter, sink: &mut *sink, place: Place::Document, depth: 0 };
    let document = tree.deserialize(source)?;
    if !document.is_null() {
        sink(Part::Document(document));
    }
    meter.end_document();
    Ok(())
}

/// Makes a tree of what it is given.
struct Tree<'t> {
    meter: &'t Meter,
    sink: Sink<'t>,
    place: Place<'t>,
    /// The lists and objects around it.
    depth: usize,
}

/// Where a value stands.
#[derive(Clone, Copy)]
enum Place<'t> {
    Document,
    /// The `items` of a document of which this is known.
    Items(&'t [Entry]),
    Elsewhere,
}

impl Tree<'_> {
    fn scalar<E: Error>(&self, text: &str, plain: bool) -> Result<Node, E> {
        let line = self.meter.line();
        self.checked(self.meter.add_value(text.len(), line))?;
        Ok(Node { line, value: Value::Scalar(Scalar { text: text.into(), plain }) })
    }

    /// The line of a list or an object that begins here.
    fn begin<E: Error>(&self) -> Result<usize, E> {
        let line = self.meter.line();
        self.checked(self.meter.add_value(0, line))?;
        self.checked(Meter::check_depth(self.depth + 1, line))?;
        Ok(line)
    }

    fn child<'c>(&'c mut self, place: Place<'c>) -> Tree<'c> {
        Tree { meter: self.meter, sink: &mut *self.sink, place, depth: self.depth + 1 }
    }

    fn checked<E: Error>(&self, result: Result<(), SyntaxError>) -> Result<(), E> {
        result.map_err(|error| {
            self.meter.fail(error.line, error.message);
            E::custom("a limit")
        })
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Node, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.scalar("null", true)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        self.scalar(if value { "true" } else { "false" }, true)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        self.scalar(&value.to_string(), true)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        self.scalar(&value.to_string(), true)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        self.scalar(&format!("{value:?}"), true)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        self.scalar(text, false)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut source: A) -> Result<Node, A::Error> {
        let line = self.begin()?;
        let mut items = Vec::new();
        while let Some(item) = source.next_element_seed(self.child(Place::Elsewhere))? {
            items.push(match self.place {
                Place::Items(list) => item.hand_on(items.len(), list, self.meter, self.sink),
                _ => item,
            });
        }
        Ok(Node { line, value: Value::Sequence(items) })
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut source: A) -> Result<Node, A::Error> {
        let line = self.begin()?;
        let mut entries = Vec::new();
        while let Some(key) = source.next_key::<Box<str>>()? {
            let line = self.meter.line();
            self.checked(self.meter.add_value(key.len(), line))?;
            let place = match self.place {
                Place::Document if *key == *"items" => Place::Items(&entries),
                _ => Place::Elsewhere,
            };
            let value = source.next_value_seed(self.child(place))?;
            entries.push(Entry { key, line, value });
        }
        mark_repeated(&mut entries);
        Ok(Node { line, value: Value::Mapping(entries) })
    }
}
