//! The command line: [`args`] parses the flags, and each subcommand has a module that gives them meaning.

mod args;
mod cluster;
mod compile;
mod completions;
mod explain;
mod guess;
mod idle;
mod input;
mod man;
mod matrix;
mod output;
mod plugin;
mod pod_addresses;
mod problems;
mod progress;
mod query;
mod ties;
mod warnings;

use std::io::Write;
use std::process::ExitCode;

use clap::FromArgMatches;

use args::{Args, Command};
use output::{Outcome, Output};
use plugin::Invocation;

/// Runs the program. An error is exit code 2, as clap has it for usage.
pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Denied) => ExitCode::from(1),
        Err(error) if output::reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Without standard error there is nobody left to tell.
            let _ = problems::report(&error);
            ExitCode::from(2)
        }
    }
}

fn run() -> anyhow::Result<Outcome> {
    let invocation = Invocation::of_process();
    let mut output = Output::stdout();
    if invocation == Invocation::PluginCompletion {
        plugin::complete(std::env::args_os(), &mut output)?;
        output.flush()?;
        return Ok(Outcome::Fine);
    }
    let mut command = invocation.command();
    let matches = command.get_matches_mut();
    let mut args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit());
    if invocation == Invocation::Plugin {
        plugin::read_cluster_by_default(&mut args);
    }
    let outcome = answer(&args.command, &mut output);
    if let Err(error) = &outcome
        && args.command.answers_in_json()
        && !output::reader_left(error)
    {
        problems::write_json(error, &mut output)?;
    }
    output.flush()?;
    outcome
}

fn answer(command: &Command, output: &mut Output) -> anyhow::Result<Outcome> {
    match command {
        Command::Compile(args) => compile::run(args, output),
        Command::Explain(args) => explain::run(args, output),
        Command::Matrix(args) => matrix::run(args, output),
        Command::Completions(args) => completions::run(args, output),
        Command::Man(args) => man::run(args, output),
    }
}
