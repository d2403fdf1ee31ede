//! Tests of the reader, as tables: what is written, and what is read or said about it.

mod assembled;
mod cluster_policy;
mod describe;
mod files;
mod fuzz;
mod index;
mod objects;
mod passed_over;
mod policy;
mod syntax;
mod workloads;

use super::*;

fn reading(text: &str) -> Reading {
    parse(text.as_bytes(), "f").unwrap_or_else(|problem| panic!("{problem}\n{text}"))
}

/// The cluster that a text without problems and warnings describes.
fn cluster(text: &str) -> Cluster {
    let (manifests, problems) = assemble([reading(text)]);
    assert_eq!((problems, manifests.warnings), (vec![], vec![]), "{text}");
    manifests.cluster
}

/// What is said about a text, as `line: field: message` without the file's name.
fn said(list: &[Problem]) -> Vec<String> {
    list.iter().map(|problem| problem.to_string().replacen("f:", "", 1)).collect()
}

/// Checks that a text has these problems and no others.
#[track_caller]
fn assert_problems(text: &str, expected: &[&str]) {
    assert_eq!(said(&reading(text).problems), expected, "{text}");
}

/// A policy `default/p` with the lines of its spec, of which the first is line 6.
fn policy_text(spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\nspec:\n  {spec}\n")
}
