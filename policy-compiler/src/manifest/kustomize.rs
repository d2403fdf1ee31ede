//! Directories that kustomize builds: overlays and patches there are parts of objects, which contradict the whole.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::Problem;

/// The names that a file has by which kustomize knows a directory.
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Whether a file of this name is a kustomization.
pub(super) fn is_kustomization(name: &str) -> bool {
    KUSTOMIZATIONS.contains(&name)
}

/// What is wrong with objects, and which of them contradict each other.
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) contradictions: Vec<Problem>,
    /// The files that have a NetworkPolicy in them.
    pub(super) files_with_policies: HashSet<Arc<str>>,
}

impl Findings {
    /// The problems that are left, where overlays and patches explain the others: one message says so of all of them. It
    /// is a problem where a policy is concerned, and else the warning that is returned beside.
    pub(super) fn settle(self) -> (Vec<Problem>, Option<Problem>) {
        let is_policy = |problem: &Problem| self.files_with_policies.contains(&problem.origin.file);
        let is_explained = |problem: &Problem| directory(problem).is_some();
        let (mut explained, mut left): (Vec<_>, Vec<_>) =
            self.contradictions.into_iter().partition(is_explained);
        for problem in self.problems {
            let is_part = is_explained(&problem) && !is_policy(&problem);
            if is_part { &mut explained } else { &mut left }.push(problem);
        }
        let of_policy = explained.iter().find(|problem| is_policy(problem));
        let summary = of_policy.or(explained.first()).map(|first| summary(first, explained.len() - 1));
        if of_policy.is_some() {
            left.extend(summary);
            return (left, None);
        }
        (left, summary)
    }
}

/// One message for many.
fn summary(first: &Problem, more: usize) -> Problem {
    let directory = directory(first).filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let count = if more == 0 { String::new() } else { format!(" ({more} more like this)") };
    let command = format!("`kubectl kustomize {} | podfence … -f -`", directory.display());
    let message = format!("{}{count}; this directory is built by kustomize: {command}", first.message);
    Problem { message, ..first.clone() }
}

/// The directory with a kustomization that the problem's file is in.
fn directory(problem: &Problem) -> Option<&Path> {
    let mut directories = Path::new(&*problem.origin.file).ancestors().skip(1);
    directories.find(|directory| KUSTOMIZATIONS.iter().any(|name| directory.join(name).is_file()))
}
