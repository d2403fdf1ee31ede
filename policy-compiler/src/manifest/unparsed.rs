//! Files of a directory that are no YAML.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::{PassedOver, PassedOverKind, Placeholder, Problem, Reading};
use crate::model::Origin;

/// So much of a file is looked at.
const MAX_BYTES: u64 = 16 << 20;

/// What becomes of a file of a directory that cannot be parsed: it is passed over if it is a template, or has nothing in
/// it that looks like an object.
///
/// # Errors
/// The problem, if the file looks like an object, or has a policy in it.
pub(super) fn triage(path: &Path, problem: Problem) -> Result<Reading, Problem> {
    let Ok(text) = beginning(path) else { return Err(problem) };
    let placeholder = Placeholder::find(&text);
    if let Some(line) = line_of_policy(&text) {
        let Some(placeholder) = placeholder else { return Err(problem) };
        let origin = Origin { line, ..problem.origin };
        let message = format!("a NetworkPolicy in {placeholder}");
        return Err(Problem { origin, field: String::new(), message });
    }
    let kind = match placeholder {
        Some(placeholder) => PassedOverKind::Template(placeholder),
        None if has_key(&text, "apiVersion") && has_key(&text, "kind") => return Err(problem),
        None => PassedOverKind::NotYaml(problem.message),
    };
    let passed_over = vec![PassedOver { origin: problem.origin, kind, policies: 0 }];
    Ok(Reading { passed_over, ..Reading::default() })
}

/// The text of a regular file, as far as it has to be looked at.
fn beginning(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The line on which something that looks like a NetworkPolicy has its kind, of this engine or another.
fn line_of_policy(text: &str) -> Option<usize> {
    let is_policy =
        |line: &str| values(line, "kind").any(|kind| kind.to_lowercase().contains("networkpolicy"));
    text.lines().position(is_policy).map(|index| index + 1)
}

fn has_key(text: &str, key: &str) -> bool {
    text.lines().any(|line| values(line, key).next().is_some())
}

/// What follows a key in a line of YAML or JSON, wherever it stands there.
fn values<'l>(line: &'l str, key: &'l str) -> impl Iterator<Item = &'l str> {
    line.match_indices(key).filter_map(move |(start, _)| {
        let rest = line.get(start + key.len()..)?.trim_start_matches(['"', '\'']).trim_start();
        let value = rest.strip_prefix(':')?.trim_start_matches([' ', '"', '\'']);
        value.split([' ', '"', '\'', ',', '}']).next()
    })
}
