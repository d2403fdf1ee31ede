//! `podfence compile`

mod json;

use std::collections::BTreeSet;
use std::io::{self, Write};

use policy_compiler::compile::Compiler;
use policy_compiler::model::Cluster;

use super::args::{Compile, RulesetFormat};
use super::guess::did_you_mean;
use super::{Outcome, Output, input};

pub(crate) fn run(args: &Compile, output: &mut Output) -> anyhow::Result<Outcome> {
    let cluster = input::read(&args.manifests)?.cluster;
    let node = args.node.as_deref();
    if let Some(node) = node {
        warn_of_unknown(&cluster, node);
    }
    let compiler = match node {
        Some(node) if args.strict_start || args.manifests.default_deny.is_some() => Compiler::strict(node),
        node => Compiler::new(node),
    };
    let mut compiler = compiler.with_pods_to_node(args.manifests.pods_to_node);
    compiler.put_cluster(&cluster);
    if compiler.lacks_pod_ranges() {
        // As below.
        let _ = writeln!(
            io::stderr(),
            "warning: strict start has nothing to guard: no manifest names a pod range of the node"
        );
    }
    compiler.update();
    let ruleset = compiler.ruleset();
    match args.output {
        RulesetFormat::Nft => write!(output, "{ruleset}")?,
        RulesetFormat::Json => json::write(ruleset, output)?,
    }
    Ok(Outcome::Fine)
}

/// A node that neither a Node object nor a pod names may be a slip of the pen, or have no pod yet.
fn warn_of_unknown(cluster: &Cluster, wanted: &str) {
    let declared = cluster.nodes().keys();
    let named = cluster.pods().values().filter_map(|pod| pod.node.as_ref());
    let known: BTreeSet<_> = declared.chain(named).map(ToString::to_string).collect();
    if !known.contains(wanted) {
        let hint = did_you_mean(wanted, known);
        // Without standard error there is nobody to tell, and the answer stands all the same.
        let _ = writeln!(io::stderr(), "warning: --node: no manifest names the node `{wanted}`{hint}");
    }
}
