//! What is probably not meant, or not in the answer.

use std::collections::BTreeMap;

use super::{idle, ties};
use policy_compiler::manifest::{Manifests, PassedOver, PassedOverKind, Problem};
use policy_compiler::model::{Cluster, LabelSelector, NamespaceScope, Origin, Peer};

/// All of it, what weighs most first.
pub(crate) fn all(read: &Manifests, default_deny: Option<&LabelSelector>) -> Vec<Problem> {
    let mut warnings = not_judged(read);
    warnings.extend(passed_over(&read.passed_over));
    warnings.extend(undeclared(read, default_deny));
    warnings.extend(ties::warning(&read.cluster));
    warnings.extend(idle::warnings(&read.cluster));
    warnings.extend(read.warnings.iter().cloned());
    warnings
}

/// A message about the first of several.
#[derive(Default)]
struct Group<'a> {
    first: Option<&'a Origin>,
    count: usize,
}

impl<'a> Group<'a> {
    fn add(&mut self, origin: &'a Origin, count: usize) {
        self.first.get_or_insert(origin);
        self.count += count;
    }

    fn problem(self, message: impl FnOnce(usize) -> String) -> Option<Problem> {
        let origin = self.first?.clone();
        Some(Problem { origin, field: String::new(), message: message(self.count) })
    }
}

/// The policies that the answer leaves out: those of other engines, by kind, and those that are inside something else.
fn not_judged(read: &Manifests) -> Vec<Problem> {
    let mut of_others = BTreeMap::<_, Group<'_>>::new();
    let mut inside = BTreeMap::<_, Group<'_>>::new();
    for unread in &read.unread {
        if unread.is_policy {
            of_others.entry(unread.kind.as_str()).or_default().add(&unread.origin, 1);
        } else if unread.policies_inside > 0 {
            inside.entry(unread.kind.as_str()).or_default().add(&unread.origin, unread.policies_inside);
        }
    }
    for document in read.passed_over.iter().filter(|document| document.policies > 0) {
        inside.entry("what is no object").or_default().add(&document.origin, document.policies);
    }
    let of_others = of_others.into_iter().filter_map(|(kind, group)| {
        group.problem(|count| format!("not judged: the answer leaves {} out", counted(count, kind)))
    });
    let inside = inside.into_iter().filter_map(|(kind, group)| {
        group.problem(|count| {
            format!("not judged: the answer leaves {} inside {kind} out", counted(count, "policy"))
        })
    });
    of_others.chain(inside).collect()
}

/// `2 CiliumNetworkPolicies`, `1 NetworkPolicy of projectcalico.org`
fn counted(count: usize, kind: &str) -> String {
    let (kind, group) =
        kind.split_once('.').map_or((kind, String::new()), |(kind, group)| (kind, format!(" of {group}")));
    let kind = match kind.strip_suffix('y') {
        _ if count == 1 => kind.to_owned(),
        Some(stem) => format!("{stem}ies"),
        None => format!("{}s", kind.trim_end_matches('s')),
    };
    format!("{count} {kind}{group}")
}

/// A warning for each sort of what is passed over and might have been an object.
fn passed_over(documents: &[PassedOver]) -> impl Iterator<Item = Problem> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for document in documents {
        match &document.kind {
            PassedOverKind::Foreign => continue,
            PassedOverKind::NotYaml(_) => groups.entry(None).or_default(),
            PassedOverKind::Template(placeholder) => groups.entry(Some(*placeholder)).or_default(),
        }
        .push(document);
    }
    groups.into_values().filter_map(|documents| {
        let problems = documents.into_iter().map(PassedOver::to_problem);
        Problem::first_of(
            problems.map(|it| Problem { message: format!("passed over: {}", it.message), ..it }),
        )
    })
}

/// A warning about the namespaces that nothing declares, if anything asks for labels that they may have.
fn undeclared(read: &Manifests, default_deny: Option<&LabelSelector>) -> Option<Problem> {
    let mut selectors = namespace_selectors(&read.cluster).chain(default_deny);
    let asked = selectors.any(LabelSelector::asks_beyond_name);
    Problem::first_of(read.undeclared.iter().filter(|_| asked).map(|(name, origin)| Problem {
        origin: origin.clone(),
        field: String::new(),
        message: format!("namespace {name} is not declared: it is taken to have no labels but its name"),
    }))
}

fn namespace_selectors(cluster: &Cluster) -> impl Iterator<Item = &LabelSelector> {
    let policies = cluster.policies().values();
    let rules = policies.flat_map(|policy| [&policy.ingress, &policy.egress]).flatten().flatten();
    let tier_policies = cluster.cluster_policies().values();
    let tier_rules = tier_policies.clone().flat_map(|policy| policy.ingress.iter().chain(&policy.egress));
    let peers = rules.chain(tier_rules.map(|rule| &rule.rule)).flat_map(|rule| rule.peers.iter().flatten());
    let peers = peers.filter_map(|peer| match peer {
        Peer::Pods(peer) => Some(peer),
        _ => None,
    });
    peers.chain(tier_policies.map(|policy| &policy.subject)).filter_map(|peer| match &peer.namespaces {
        NamespaceScope::Matching(selector) => Some(selector),
        NamespaceScope::Own => None,
    })
}

/// That objects were put into `default`, where that can make a difference.
pub(crate) fn assumed_default(read: &Manifests) -> Option<String> {
    let first = read.in_default.first()?;
    let cluster = &read.cluster;
    let names = cluster.pods().keys().chain(cluster.policies().keys());
    let differs = names.into_iter().any(|name| &*name.namespace != "default")
        || namespace_selectors(cluster).any(|selector| !selector.requirements.is_empty());
    let count = read.in_default.len();
    let objects = if count == 1 { "1 object names".to_owned() } else { format!("{count} objects name") };
    differs.then(|| {
        format!("{objects} no namespace, the first at {first}: taken for `default`, unless -n names another")
    })
}
