//! From files, directories and standard input to one cluster.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use glob::Pattern;

use super::files::{self, file_problem, files};
use super::kustomize::Findings;
use super::unparsed::Unparsed;
use super::{
    Input, Manifests, PassedOver, PassedOverKind, Problem, Problems, Reading, Resource, assemble, parse,
    read_file,
};
use crate::model::Origin;

/// How inputs are read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// The namespace of objects that name none; `default` without it.
    pub namespace: Option<Arc<str>>,
    /// What is left out of directories.
    pub exclude: Vec<Exclude>,
}

/// Files and directories that are left out: `*`, `?`, `[…]` and `**` as in a shell. One with a slash is held against the
/// path below the directory that is read, one without against every name in that path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclude(Pattern);

impl FromStr for Exclude {
    type Err = glob::PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Pattern::new(text.trim_end_matches('/')).map(Self)
    }
}

impl Exclude {
    fn covers(&self, path: &Path) -> bool {
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        path.ancestors().any(|part| match part.file_name() {
            Some(name) if !self.0.as_str().contains('/') => self.0.matches(&name.to_string_lossy()),
            _ => self.0.matches_path_with(part, options),
        })
    }
}

/// What has been read so far.
#[derive(Default)]
struct Found {
    readings: Vec<Reading>,
    unreadable: Vec<Problem>,
    /// The templates with policies, by what is said of them: those of a chart together.
    templates: BTreeMap<String, Vec<Problem>>,
}

/// Reads all inputs into one cluster, as [`read_with`] does without options.
///
/// # Errors
/// As there.
pub fn read(inputs: &[Input]) -> Result<Manifests, Problems> {
    read_with(inputs, Vec::new(), &ReadOptions::default())
}

/// Reads all inputs into one cluster, with what was read from elsewhere.
///
/// In a directory a file that is no manifest is passed over; one that is named by itself has to be one.
///
/// # Errors
/// Every problem of every file; also if there is no object at all.
pub fn read_with(
    inputs: &[Input],
    readings: Vec<Reading>,
    options: &ReadOptions,
) -> Result<Manifests, Problems> {
    let mut found = Found { readings, ..Found::default() };
    for input in inputs {
        if let Err(problem) = found.read(input, options) {
            found.unreadable.push(problem);
        }
    }
    let Found { mut readings, mut unreadable, templates } = found;
    unreadable.extend(templates.into_values().filter_map(Problem::first_of));
    let is_empty = |reading: &Reading| {
        reading.objects.is_empty() && reading.unread.is_empty() && reading.problems.is_empty()
    };
    if let Some(input) = inputs.first().filter(|_| readings.iter().all(is_empty) && unreadable.is_empty()) {
        let input = match input {
            Input::Path(path) => path,
            Input::Stdin => Path::new("-"),
        };
        unreadable.push(file_problem(input, nothing_found(&readings)));
    }
    let in_default = place(&mut readings, options.namespace.as_ref());
    let policies = policies(&readings);
    let problems = readings.iter_mut().flat_map(|reading| std::mem::take(&mut reading.problems)).collect();
    let (manifests, contradictions) = assemble(readings);
    let mut manifests = Manifests { in_default, ..manifests };
    let (mut problems, warnings) = Findings { problems, contradictions, policies }.settle(inputs);
    manifests.warnings.extend(warnings);
    problems.extend(unreadable);
    problems.sort_by(|one, other| one.origin.cmp(&other.origin));
    Problems::check(problems).map(|()| manifests)
}

impl Found {
    fn read(&mut self, input: &Input, options: &ReadOptions) -> Result<(), Problem> {
        match input {
            Input::Stdin => self.add_named(parse(io::stdin().lock(), "-")?),
            Input::Path(path) if path.is_dir() => {
                let listed = files(path)?;
                if listed.is_empty() {
                    return Err(file_problem(path, "no manifests (.yaml, .yml or .json) in this directory"));
                }
                let is_excluded = |file: &PathBuf| {
                    let below = file.strip_prefix(path).unwrap_or(file);
                    options.exclude.iter().any(|exclude| exclude.covers(below))
                };
                for file in listed.iter().filter(|file| !is_excluded(file)) {
                    self.add_found(file);
                }
            }
            Input::Path(path) => {
                let reading = parse(files::open(path)?, &path.to_string_lossy());
                self.add_named(reading.map_err(|problem| Unparsed::of(path, problem).into_problem())?);
            }
        }
        Ok(())
    }

    /// Adds a file that was named by itself: it is meant to be a manifest.
    fn add_named(&mut self, mut reading: Reading) {
        let is_template = |document: &PassedOver| matches!(document.kind, PassedOverKind::Template(_));
        let (templates, others): (Vec<_>, Vec<_>) = reading.passed_over.into_iter().partition(is_template);
        self.unreadable.extend(templates.iter().map(PassedOver::to_problem));
        reading.passed_over = others;
        self.readings.push(reading);
    }

    /// Adds a file of a directory.
    fn add_found(&mut self, path: &Path) {
        match read_file(path).map_err(|problem| Unparsed::of(path, problem)) {
            Ok(reading) => self.readings.push(reading),
            Err(Unparsed::PassedOver(document)) => {
                self.readings.push(Reading { passed_over: vec![document], ..Reading::default() });
            }
            Err(Unparsed::PolicyTemplate(problem)) => {
                self.templates.entry(problem.message.clone()).or_default().push(problem);
            }
            Err(Unparsed::Broken(problem)) => self.unreadable.push(problem),
        }
    }
}

/// Puts the objects that name no namespace where they belong; returns those for which nobody says where that is.
fn place(readings: &mut [Reading], namespace: Option<&Arc<str>>) -> Vec<Origin> {
    let objects = readings.iter_mut().flat_map(|reading| &mut reading.objects);
    let in_default = objects.filter(|object| object.in_default);
    let Some(namespace) = namespace else { return in_default.map(|object| object.origin.clone()).collect() };
    for object in in_default {
        match &mut object.resource {
            Resource::Namespace(_) | Resource::Node(_) | Resource::ClusterNetworkPolicy(_) => {}
            Resource::Service(service) => service.name.namespace = namespace.clone(),
            Resource::Endpoints(endpoints) | Resource::EndpointSlice(endpoints) => {
                endpoints.name.namespace = namespace.clone();
            }
            Resource::NetworkPolicy(policy) => policy.name.namespace = namespace.clone(),
            Resource::Workload(workload) => workload.pod.name.namespace = namespace.clone(),
        }
    }
    Vec::new()
}

/// Where the policies are.
fn policies(readings: &[Reading]) -> HashSet<Origin> {
    let objects = readings.iter().flat_map(|reading| &reading.objects);
    let policies = objects.filter(|object| object.resource.is_policy());
    policies.map(|policy| policy.origin.clone()).collect()
}

fn nothing_found(readings: &[Reading]) -> String {
    let passed_over = readings.iter().flat_map(|reading| &reading.passed_over);
    // Where there are templates, rendering them is what helps.
    match passed_over.min_by_key(|it| !matches!(it.kind, PassedOverKind::Template(_))) {
        Some(passed_over) => format!("no Kubernetes objects found: {}", passed_over.to_problem()),
        None => "no Kubernetes objects found".to_owned(),
    }
}
