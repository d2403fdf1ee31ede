//! Why there is no answer: lines on standard error, and where JSON is asked for, an object on standard output too.

use std::io::{self, Write};

use policy_compiler::manifest::{Problem, Problems};
use serde::Serialize;

/// More problems than this are counted on standard error.
const SHOWN: usize = 20;

/// Writes each problem in a line of its own.
pub(crate) fn report(error: &anyhow::Error) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    match error.downcast_ref::<Problems>() {
        Some(problems) => write_capped(&mut stderr, "error", problems.as_slice(), SHOWN),
        None => writeln!(stderr, "error: {error:#}"),
    }
}

/// Writes the first of some problems, each behind the word, and how many more there are.
pub(crate) fn write_capped(
    output: &mut impl Write,
    word: &str,
    problems: &[Problem],
    shown: usize,
) -> io::Result<()> {
    for problem in problems.iter().take(shown) {
        writeln!(output, "{word}: {problem}")?;
    }
    match problems.len().checked_sub(shown) {
        Some(more @ 1..) => writeln!(output, "{word}: {more} more like these"),
        _ => Ok(()),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    problems: Vec<Entry<'a>>,
}

/// A problem, without what is not known of its place.
#[derive(Serialize)]
struct Entry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    message: String,
}

impl<'a> From<&'a Problem> for Entry<'a> {
    fn from(Problem { origin, field, message }: &'a Problem) -> Self {
        Self {
            file: Some(&origin.file),
            line: (origin.line > 0).then_some(origin.line),
            field: (!field.is_empty()).then_some(field),
            message: message.clone(),
        }
    }
}

/// Writes all problems as `{"problems": [{"file", "line", "field", "message"}, …]}`.
pub(crate) fn write_json(error: &anyhow::Error, output: &mut impl Write) -> io::Result<()> {
    let problems = match error.downcast_ref::<Problems>() {
        Some(problems) => problems.as_slice().iter().map(Entry::from).collect(),
        None => vec![Entry { file: None, line: None, field: None, message: format!("{error:#}") }],
    };
    serde_json::to_writer_pretty(&mut *output, &Report { problems })?;
    writeln!(output)
}
