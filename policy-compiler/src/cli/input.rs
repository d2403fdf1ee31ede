//! Reads the manifests and says on standard error what deserves a word.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use policy_compiler::manifest::{self, PassedOver, PassedOverKind, Problem, Problems, ReadOptions, Unread};

use policy_compiler::model::{DefaultDeny, Pod};

use super::args::Manifests;
use super::cluster::LiveCluster;
use super::problems::write_capped;
use super::{pod_addresses, warnings};

/// More warnings than this are counted.
const WARNINGS_SHOWN: usize = 5;

/// More names than this are counted.
const NAMES_SHOWN: usize = 5;

/// Reads every object.
pub(crate) fn read(args: &Manifests) -> anyhow::Result<manifest::Manifests> {
    read_with_pods(args, [])
}

/// Reads every object, and adds pods that are asked about and may be in no manifest.
pub(crate) fn read_with_pods(
    args: &Manifests,
    pods: impl IntoIterator<Item = Pod>,
) -> anyhow::Result<manifest::Manifests> {
    let options = ReadOptions { namespace: args.namespace.clone(), exclude: args.exclude.clone() };
    let (context, namespace) = (args.context.as_deref(), args.namespace.as_deref());
    let is_live = args.cluster || context.is_some();
    let live = is_live.then(|| LiveCluster { context, namespace }.read()).transpose()?;
    let mut read = manifest::read_with(&args.inputs, live.into_iter().collect(), &options)?;
    let warnings = warnings::all(&read, args.default_deny.as_ref());
    if args.strict {
        let foreign = foreign(&read.passed_over).map(PassedOver::to_problem);
        Problems::check(foreign.chain(warnings).collect())?;
    } else {
        // Without standard error there is nobody to tell, and the answer stands all the same.
        let _ = report(&read, &warnings);
    }
    pod_addresses::assign(&mut read.cluster, &args.pod_cidrs)?;
    for pod in pods {
        read.cluster.insert_pod(pod);
    }
    let Manifests { default_deny_allow_dns: allow_dns, pods_to_node, .. } = *args;
    let default_deny =
        args.default_deny.clone().map(|namespaces| DefaultDeny { namespaces, allow_dns, pods_to_node });
    if default_deny.is_some_and(|default_deny| !default_deny.apply(&mut read.cluster)) {
        // As above.
        let _ = writeln!(io::stderr(), "warning: --default-deny chooses no namespace");
    }
    Ok(read)
}

fn report(read: &manifest::Manifests, warnings: &[Problem]) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    write_capped(&mut stderr, "warning", warnings, WARNINGS_SHOWN)?;
    let kinds = kinds(&read.unread);
    if !kinds.is_empty() {
        writeln!(stderr, "note: passed over {}", kinds.join(", "))?;
    }
    let documents = documents(&read.passed_over);
    if !documents.is_empty() {
        writeln!(stderr, "note: passed over what is no Kubernetes object: {}", listed(documents))?;
    }
    if let Some(assumed) = warnings::assumed_default(read) {
        writeln!(stderr, "note: {assumed}")?;
    }
    Ok(())
}

/// How many objects there are of each kind that is not read, without policies: a warning is about those.
fn kinds(unread: &[Unread]) -> Vec<String> {
    let mut counts = BTreeMap::<_, usize>::new();
    for unread in unread.iter().filter(|unread| !unread.is_policy) {
        *counts.entry(&unread.kind).or_default() += 1;
    }
    counts.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect()
}

fn foreign(passed_over: &[PassedOver]) -> impl Iterator<Item = &PassedOver> {
    passed_over.iter().filter(|it| it.kind == PassedOverKind::Foreign)
}

/// The files with documents that are no objects, those of a sort that is known with what they are.
fn documents(passed_over: &[PassedOver]) -> Vec<String> {
    let files: BTreeSet<_> = foreign(passed_over)
        .map(|document| match document.sort() {
            Some(sort) => format!("{} ({sort})", document.origin.file),
            None => document.origin.file.to_string(),
        })
        .collect();
    files.into_iter().collect()
}

/// The first names, and how many more there are.
fn listed(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMES_SHOWN);
    names.truncate(NAMES_SHOWN);
    if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") }
}
