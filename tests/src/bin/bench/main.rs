//! `make bench`: what a packet and a change cost, beside the bars that podfence sets itself.
//!
//! Without Go, and without an API server on the machine, the part that needs one fails, as the last.
//!
//! Packets are measured as ratios inside one run, so that a slow machine does not matter; the rounds of the
//! rulesets that are compared take turns.

mod changes;
mod cluster;
mod connections;
mod dry_run;
mod objects;
mod packets;

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

fn main() -> ExitCode {
    match lab::available().map_err(anyhow::Error::msg).and_then(|()| run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print(&format!("error: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    print(&format!("{:<76} {:>10} {:>12}\n", "", "bar", "measured"));
    for measure in
        [packets::measure, changes::measure, connections::measure, dry_run::measure, cluster::measure]
    {
        for Figure { what, bar, measured } in measure()? {
            print(&format!("{what:<76} {bar:>10} {measured:>12}\n"));
        }
    }
    Ok(())
}

/// A line of the result.
struct Figure {
    what: &'static str,
    bar: &'static str,
    measured: String,
}

impl Figure {
    fn ratio(what: &'static str, bar: &'static str, ratio: f64) -> Self {
        Self { what, bar, measured: format!("{ratio:.3}×") }
    }

    fn time(what: &'static str, bar: &'static str, time: Duration) -> Self {
        Self { what, bar, measured: format!("{:.3} ms", time.as_secs_f64() * 1e3) }
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
