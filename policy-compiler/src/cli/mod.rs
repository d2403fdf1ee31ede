//! The command line: [`args`] parses the flags, and each subcommand has a module that gives them meaning.

mod args;
mod compile;
mod completions;
mod explain;
mod guess;
mod idle;
mod input;
mod man;
mod matrix;
mod output;
mod pod_addresses;
mod port;
mod warnings;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use output::Output;

/// How a command that did its work ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Exit code 0.
    Fine,
    /// Exit code 1: the answer is "denied".
    Denied,
}

/// Runs the program. An error is exit code 2, as clap has it for usage.
pub(crate) fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Denied) => ExitCode::from(1),
        Err(error) if output::reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Without standard error there is nobody left to tell.
            let _ = input::report_error(&error);
            ExitCode::from(2)
        }
    }
}

fn run(args: Args) -> anyhow::Result<Outcome> {
    let mut output = Output::stdout();
    let outcome = match args.command {
        Command::Compile(args) => compile::run(&args, &mut output)?,
        Command::Explain(args) => explain::run(&args, &mut output)?,
        Command::Matrix(args) => matrix::run(&args, &mut output)?,
        Command::Completions(args) => completions::run(&args, &mut output)?,
        Command::Man(args) => man::run(&args, &mut output)?,
    };
    output.flush()?;
    Ok(outcome)
}
