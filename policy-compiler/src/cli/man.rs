//! `podfence man`

use anyhow::Context;
use clap::CommandFactory;

use super::args::{Args, Man};
use super::{Outcome, Output};

pub(crate) fn run(args: &Man, output: &mut Output) -> anyhow::Result<Outcome> {
    match &args.directory {
        Some(directory) => clap_mangen::generate_to(Args::command(), directory)
            .with_context(|| format!("cannot write the manual pages to {}", directory.display()))?,
        None => clap_mangen::Man::new(Args::command()).render(output)?,
    }
    Ok(Outcome::Fine)
}
