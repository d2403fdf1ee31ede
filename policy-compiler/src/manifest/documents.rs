//! The documents of a text, whatever they are written in.

use std::io::Read;

use serde::Deserializer;

use super::error::SyntaxError;
use super::meter::Meter;
use super::placeholders::Placeholder;
use super::text::Text;
use super::tree::Sink;
use super::{json, yaml};

/// Hands on what a text consists of, as soon as it is read; `file` is its name. Ends with the first error.
///
/// As `kubectl` does it takes a text that begins with a JSON object for JSON: objects one after the other, with white
/// space between them or nothing. Here YAML documents may follow.
pub(super) fn read(source: impl Read, file: &str, sink: Sink<'_>) -> Result<(), SyntaxError> {
    let meter = Meter::new();
    let mut text = Text::new(source, &meter);
    let result = read_text(&mut text, &meter, sink);
    meter.failure().map_or(result, Err).map_err(|error| {
        // What is not filled in is seldom valid.
        let template =
            text.line(error.line).map(str::trim).and_then(|line| Some((line, Placeholder::find(line)?)));
        match template {
            Some((line, placeholder)) => SyntaxError::new(error.line, placeholder.in_text(line, file)),
            None => error,
        }
    })
}

/// Hands on a document that something else has read, which knows no lines.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(source: D, sink: Sink<'_>) -> Result<(), SyntaxError> {
    let meter = Meter::new();
    let result = json::read_document(source, &meter, sink)
        .map_err(|error| SyntaxError::new(meter.line(), error.to_string()));
    meter.failure().map_or(result, Err)
}

fn read_text<R: Read>(text: &mut Text<'_, R>, meter: &Meter, sink: Sink<'_>) -> Result<(), SyntaxError> {
    // `{a: b}` and `{{ template }}` are no JSON.
    if matches!(text.next_two(), (Some('{'), Some('"' | '}'))) {
        while !matches!(text.next_two().0, None | Some('-' | '#')) {
            json::read(text, meter, sink)?;
        }
    }
    yaml::read(text, meter, sink)
}
