//! Reads the manifests and says on standard error what deserves a word.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use policy_compiler::manifest::{self, Problem, Unread};
use policy_compiler::model::{Cluster, DefaultDeny, LabelSelector, NamespaceScope, Origin, Peer, PodPeer};

use super::args::Manifests;
use super::cluster::LiveCluster;

/// More warnings than this are counted.
const WARNINGS_SHOWN: usize = 5;

/// Reads every object.
pub(crate) fn read(manifests: &Manifests) -> anyhow::Result<manifest::Manifests> {
    let context = manifests.context.as_deref();
    let live = manifests.cluster || context.is_some();
    let live = live.then(|| LiveCluster { context, namespace: None }.read()).transpose()?;
    let mut read = manifest::read_beside(&manifests.inputs, live.into_iter().collect())?;
    let mut warnings = std::mem::take(&mut read.warnings);
    warnings.extend(undeclared(&read.undeclared, &read.cluster, manifests.default_deny.as_ref()));
    if let Some(namespaces) = manifests.default_deny.clone() {
        let Manifests { default_deny_allow_dns: allow_dns, pods_to_node, .. } = *manifests;
        DefaultDeny { namespaces, allow_dns, pods_to_node }.apply(&mut read.cluster);
    }
    // Without standard error there is nobody to tell, and the answer stands all the same.
    let _ = report(&read.unread, &warnings);
    Ok(read)
}

/// A warning for each namespace that nothing declares, if anything asks for labels that it may have.
fn undeclared<'a>(
    undeclared: &'a BTreeMap<Arc<str>, Origin>,
    cluster: &'a Cluster,
    default_deny: Option<&'a LabelSelector>,
) -> impl Iterator<Item = Problem> + 'a {
    let policies = cluster.policies().values();
    let rules = policies.flat_map(|policy| [&policy.ingress, &policy.egress]).flatten().flatten();
    let peers = rules.flat_map(|rule| rule.peers.iter().flatten());
    let selectors = peers.filter_map(|peer| match peer {
        Peer::Pods(PodPeer { namespaces: NamespaceScope::Matching(selector), .. }) => Some(selector),
        _ => None,
    });
    let asked = selectors.chain(default_deny).any(LabelSelector::asks_beyond_name);
    undeclared.iter().filter(move |_| asked).map(|(name, origin)| Problem {
        origin: origin.clone(),
        field: String::new(),
        message: format!("namespace {name} is not declared: it is taken to have no labels but its name"),
    })
}

fn report(unread: &[Unread], warnings: &[Problem]) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    for warning in warnings.iter().take(WARNINGS_SHOWN) {
        writeln!(stderr, "warning: {warning}")?;
    }
    if let Some(more @ 1..) = warnings.len().checked_sub(WARNINGS_SHOWN) {
        writeln!(stderr, "warning: {more} more like these")?;
    }
    if !unread.is_empty() {
        let mut counts = BTreeMap::<_, usize>::new();
        for unread in unread {
            *counts.entry(&unread.kind).or_default() += 1;
        }
        let kinds: Vec<_> = counts.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        writeln!(stderr, "note: passed over {}", kinds.join(", "))?;
    }
    Ok(())
}
