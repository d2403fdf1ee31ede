//! The CNI plugin `podfence-cni`, which the container runtime runs behind the plugin that gives pods their interface.

mod plugin;

use std::io::{Write, stdin, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    let (output, code) = match plugin::run(|name| std::env::var(name).ok(), stdin()) {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err(failure) => (failure.to_json(), ExitCode::FAILURE),
    };
    match stdout().write_all(output.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
