//! Directories that kustomize builds: overlays and patches there are parts of objects, which contradict the whole.

use std::collections::HashSet;
use std::path::Path;

use super::{Input, Problem};
use crate::model::Origin;

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
    /// Where the policies are.
    pub(super) policies: HashSet<Origin>,
}

impl Findings {
    /// The problems that are left, and warnings in the place of others. `kubectl` would apply one of several objects
    /// after the other, so those found in a directory are a problem only where a policy is concerned; if kustomize builds
    /// the directory, overlays and patches explain all of them, and one message says so.
    pub(super) fn settle(self, inputs: &[Input]) -> (Vec<Problem>, Vec<Problem>) {
        let files_with_policies: HashSet<_> = self.policies.iter().map(|policy| &policy.file).collect();
        let (mut left, mut of_policies, mut parts, mut others) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for problem in self.problems {
            let is_part =
                directory(&problem).is_some() && !files_with_policies.contains(&problem.origin.file);
            if is_part { &mut parts } else { &mut left }.push(problem);
        }
        for problem in self.contradictions {
            let is_policy = self.policies.contains(&problem.origin);
            let is_named = inputs.iter().any(|input| is(input, &problem.origin.file));
            match (directory(&problem).is_some(), is_policy) {
                (true, true) => &mut of_policies,
                (true, false) => &mut parts,
                (false, false) if !is_named => &mut others,
                (false, _) => &mut left,
            }
            .push(problem);
        }
        left.extend(Problem::first_of(of_policies).map(built));
        let others = Problem::first_of(others)
            .map(|it| Problem { message: format!("{}; the first counts", it.message), ..it });
        (left, Problem::first_of(parts).map(built).into_iter().chain(others).collect())
    }
}

/// Whether the input is this file, and not a directory that it is in.
fn is(input: &Input, file: &str) -> bool {
    match input {
        Input::Path(path) => path == Path::new(file),
        Input::Stdin => file == "-",
    }
}

fn built(problem: Problem) -> Problem {
    let directory = directory(&problem).filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let command = format!("`kubectl kustomize {} | podfence … -f -`", directory.display());
    Problem {
        message: format!("{}; this directory is built by kustomize: {command}", problem.message),
        ..problem
    }
}

/// The directory with a kustomization that the problem's file is in.
fn directory(problem: &Problem) -> Option<&Path> {
    let mut directories = Path::new(&*problem.origin.file).ancestors().skip(1);
    directories.find(|directory| KUSTOMIZATIONS.iter().any(|name| directory.join(name).is_file()))
}
