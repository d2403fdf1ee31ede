//! `make bench`: what a packet and a change cost, beside the bars that podfence sets itself.
//!
//! Every part (`packets`, `changes`, …) can be run alone: its name is an argument.
//!
//! Without Go, and without an API server on the machine, the part that needs one fails, as the last.
//!
//! Packets are measured as ratios inside one run, so that a slow machine does not matter; the rounds of the
//! rulesets that are compared take turns.

mod changes;
mod cluster;
mod connections;
mod doors;
mod dry_run;
mod objects;
mod packets;
mod policies;

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};

fn main() -> ExitCode {
    match lab::available().map_err(anyhow::Error::msg).and_then(|()| run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print(&format!("error: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

/// A part of the benchmark: the name by which it can be asked for, and what measures it.
type Part = (&'static str, fn() -> Result<Vec<Figure>>);

const PARTS: [Part; 6] = [
    ("packets", packets::measure),
    ("changes", changes::measure),
    ("policies", policies::measure),
    ("connections", connections::measure),
    ("dry-run", dry_run::measure),
    ("cluster", cluster::measure),
];

fn run() -> Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let unknown = asked.iter().find(|part| PARTS.iter().all(|(name, _)| name != part));
    ensure!(unknown.is_none(), "there is no part {}", unknown.map_or("", String::as_str));
    print(&format!("{:<82} {:>10} {:>12}\n", "", "bar", "measured"));
    for (_, measure) in
        PARTS.into_iter().filter(|(name, _)| asked.is_empty() || asked.iter().any(|part| part == name))
    {
        for Figure { what, bar, measured } in measure()? {
            print(&format!("{what:<82} {bar:>10} {measured:>12}\n"));
        }
    }
    Ok(())
}

/// A line of the result.
struct Figure {
    what: String,
    bar: &'static str,
    measured: String,
}

impl Figure {
    fn new(what: impl Into<String>, bar: &'static str, measured: impl Into<String>) -> Self {
        Self { what: what.into(), bar, measured: measured.into() }
    }

    fn ratio(what: impl Into<String>, bar: &'static str, ratio: f64) -> Self {
        Self::new(what, bar, format!("{ratio:.3}×"))
    }

    fn time(what: impl Into<String>, bar: &'static str, time: Duration) -> Self {
        Self::new(what, bar, format!("{:.3} ms", time.as_secs_f64() * 1e3))
    }
}

/// So many per cent of the values lie below the returned one, which is `values[0]`'s type's zero if there are
/// none.
fn percentile<T: PartialOrd + Copy + Default>(values: &mut [T], percent: usize) -> T {
    values.sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() * percent / 100).or(values.last()).copied().unwrap_or_default()
}

fn print(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
