//! `podfence matrix`

mod answers;
mod cell;
mod dot;
mod end;
mod grid;
mod html;
mod layout;
mod markdown;
mod names;
mod nodes;
mod records;
mod remarks;
mod selection;
mod summary;
mod table;

use std::io::{self, Write};

use anyhow::Context;
use policy_compiler::judge::Judge;

use super::args::{Matrix, MatrixFormat};
use super::input;
use super::output::{Outcome, Output};
use answers::Answers;
use end::WithoutPorts;
use grid::Grid;
use records::Records;

pub(crate) fn run(args: &Matrix, output: &mut Output) -> anyhow::Result<Outcome> {
    let cluster = input::read(&args.manifests)?.cluster;
    let judge = Judge::new(&cluster).with_pods_to_node(args.manifests.pods_to_node);
    let is_records = matches!(args.output, MatrixFormat::Json | MatrixFormat::Csv);
    let without_ports = if is_records { WithoutPorts::Nothing } else { WithoutPorts::Everything };
    let ends = end::ends(&cluster, &judge, &args.ports, &args.external, without_ports);
    let sources = selection::select(&args.from, &ends).context("--from")?;
    let destinations = selection::select(&args.to, &ends).context("--to")?;
    let mut remarks = remarks::remarks(args, &cluster, &ends, &destinations);
    let mut answers = Answers::new(&judge, &ends);
    if is_records {
        let records =
            Records { ends: &ends, sources: &sources, destinations: &destinations, only: args.only };
        match args.output {
            MatrixFormat::Json => records.write_json(&mut answers, output)?,
            _ => records.write_csv(&mut answers, output)?,
        }
    } else {
        let grid = Grid::new(ends, sources, destinations, args.only, &mut answers);
        remarks.extend(args.only.filter(|_| grid.is_blank()).map(remarks::nothing_left));
        match args.output {
            MatrixFormat::Md => markdown::write(&grid, output)?,
            MatrixFormat::Html => html::write(&grid, &judge, output)?,
            MatrixFormat::Dot => dot::write(&grid, output)?,
            _ => table::write(&grid, output)?,
        }
    }
    let mut stderr = io::stderr().lock();
    for remark in remarks {
        // Without standard error there is nobody to tell.
        let _ = writeln!(stderr, "{remark}");
    }
    Ok(Outcome::Fine)
}
