//! Files of a directory that are no YAML.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::{PassedOver, PassedOverKind, Placeholder, Problem};
use crate::model::Origin;

/// So much of a file is looked at.
const MAX_BYTES: u64 = 16 << 20;

/// What a file of a directory is that cannot be parsed.
pub(super) enum Unparsed {
    /// A template, or something that does not look like an object.
    PassedOver(PassedOver),
    /// A template with a policy in it.
    PolicyTemplate(Problem),
    /// Something that looks like an object.
    Broken(Problem),
}

impl Unparsed {
    /// Looks into a file with this problem.
    pub(super) fn of(path: &Path, problem: Problem) -> Self {
        let Ok(text) = beginning(path) else { return Self::Broken(problem) };
        let kind = match (Placeholder::find(&text), line_of_policy(&text)) {
            (Some(placeholder), Some(line)) => {
                let message = format!("a NetworkPolicy in {}", placeholder.remedy(&problem.origin.file));
                let origin = Origin { line, ..problem.origin };
                return Self::PolicyTemplate(Problem { origin, message, ..problem });
            }
            (None, Some(_)) => return Self::Broken(problem),
            (None, None) if has_key(&text, "apiVersion") && has_key(&text, "kind") => {
                return Self::Broken(problem);
            }
            (Some(placeholder), None) => PassedOverKind::Template(placeholder),
            (None, None) => PassedOverKind::NotYaml(problem.message),
        };
        Self::PassedOver(PassedOver { origin: problem.origin, kind, policies: 0 })
    }

    /// What is wrong with a file that has to be a manifest.
    pub(super) fn into_problem(self) -> Problem {
        match self {
            Self::PassedOver(document) => document.to_problem(),
            Self::PolicyTemplate(problem) | Self::Broken(problem) => problem,
        }
    }
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
