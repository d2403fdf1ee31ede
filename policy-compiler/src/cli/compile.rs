//! `podfence compile`

use std::io::Write;

use policy_compiler::compile::compile;

use super::args::{Compile, RulesetFormat};
use super::{Outcome, Output, input};

pub(crate) fn run(args: &Compile, output: &mut Output) -> anyhow::Result<Outcome> {
    let cluster = input::read(&args.manifests)?;
    let ruleset = compile(&cluster, args.node.as_deref());
    match args.output {
        RulesetFormat::Nft => write!(output, "{ruleset}")?,
        RulesetFormat::Json => {}
    }
    Ok(Outcome::Fine)
}
