//! `podfence completions`

use clap::CommandFactory;

use super::args::{Args, Completions};
use super::output::{Outcome, Output};

pub(crate) fn run(args: &Completions, output: &mut Output) -> anyhow::Result<Outcome> {
    // The generator panics where it cannot write, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "podfence", &mut script);
    std::io::Write::write_all(output, &script)?;
    Ok(Outcome::Fine)
}
