//! Reads the manifests and says on standard error what deserves a word.

use std::collections::BTreeMap;
use std::io::{self, Write};

use policy_compiler::manifest::{self, Problem};
use policy_compiler::model::{Cluster, DefaultDeny};

use super::args::Manifests;

/// More warnings than this are counted.
const WARNINGS_SHOWN: usize = 5;

/// Reads every object.
pub(crate) fn read(manifests: &Manifests) -> anyhow::Result<Cluster> {
    let mut read = manifest::read(&manifests.inputs)?;
    if let Some(namespaces) = manifests.default_deny.clone() {
        let Manifests { default_deny_allow_dns: allow_dns, pods_to_node, .. } = *manifests;
        DefaultDeny { namespaces, allow_dns, pods_to_node }.apply(&mut read.cluster);
    }
    // Without standard error there is nobody to tell, and the answer stands all the same.
    let _ = report(&read.ignored, &read.warnings);
    Ok(read.cluster)
}

fn report(ignored: &BTreeMap<String, usize>, warnings: &[Problem]) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    for warning in warnings.iter().take(WARNINGS_SHOWN) {
        writeln!(stderr, "warning: {warning}")?;
    }
    if let Some(more @ 1..) = warnings.len().checked_sub(WARNINGS_SHOWN) {
        writeln!(stderr, "warning: {more} more like these")?;
    }
    if !ignored.is_empty() {
        let kinds: Vec<_> = ignored.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        writeln!(stderr, "note: passed over {}", kinds.join(", "))?;
    }
    Ok(())
}
