//! A node whose tables guard the doors of its pods, programmed as the agent does it.

use anyhow::{Context, Result, ensure};
use controller::doors::Finder;
use controller::kernel::Kernel;
use lab::Node;
use lab::testbed::{BOUND, wait_until};
use policy_compiler::compile::Compiler;
use policy_compiler::model::{Cluster, Doors};
use policy_compiler::ruleset::Transaction;

/// The doors of a node's pods, as the agent finds them.
pub(crate) fn find(node: &Node, cluster: &Cluster) -> Result<Doors> {
    node.namespace().run(|| {
        let mut finder = Finder::open(node.name())?;
        for (name, pod) in cluster.pods() {
            finder.note(name, Some(pod));
        }
        wait_until(BOUND, || {
            finder.find()?;
            let doors = finder.doors();
            let complete = doors.of_pods.values().all(|door| door.link_address.is_some());
            ensure!(complete && finder.missing().is_empty(), "not all doors are found: {doors:?}");
            Ok(doors.clone())
        })
    })
}

/// Puts both tables in the place of what the kernel of the calling thread's namespace has.
pub(crate) fn program(kernel: &mut Kernel, compiler: &mut Compiler, doors: &Doors) -> Result<()> {
    compiler.put_doors(doors);
    compiler.update();
    compiler.update_doors();
    let of_doors = compiler.door_ruleset().context("a compiler with doors")?;
    let transactions = [compiler.ruleset(), of_doors].map(Transaction::replace);
    Ok(kernel.apply_all(&transactions)?)
}
