//! The dry-run compiler: what manifests mean, without a kernel.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
