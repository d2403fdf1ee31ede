//! `podfence compile`

mod json;

use std::collections::BTreeSet;
use std::io::{self, Write};

use policy_compiler::compile::Compiler;
use policy_compiler::model::{Cluster, Pod};

use super::args::{Compile, RulesetFormat};
use super::guess::did_you_mean;
use super::input;
use super::output::{Outcome, Output};
use super::pod_addresses::lacks_address;

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
    warn_of_missing_addresses(&cluster, node);
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

/// Packets of a pod without an address are not known to be its own.
fn warn_of_missing_addresses(cluster: &Cluster, node: Option<&str>) {
    let is_compiled =
        |pod: &&Pod| pod.selectable() && node.is_none_or(|node| pod.node.as_deref() == Some(node));
    let pods: Vec<_> = cluster.pods().values().filter(is_compiled).collect();
    let lacking = pods.iter().filter(|pod| lacks_address(pod)).count();
    if lacking > 0 {
        // As above.
        let _ = writeln!(
            io::stderr(),
            "warning: {lacking} of {} pods have no address (status.podIPs): nothing is enforced for them: give --pod-cidr",
            pods.len()
        );
    }
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
