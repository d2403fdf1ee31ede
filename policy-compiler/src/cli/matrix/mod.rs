//! `podfence matrix`

mod records;
mod rows;
mod table;

use std::io::{self, Write};

use policy_compiler::judge::Judge;

use super::args::{Matrix, MatrixFormat};
use super::{Outcome, Output, input};
use rows::Rows;

pub(crate) fn run(args: &Matrix, output: &mut Output) -> anyhow::Result<Outcome> {
    let cluster = input::read(&args.manifests)?.cluster;
    let judge = Judge::new(&cluster).with_pods_to_node(args.manifests.pods_to_node);
    let rows = Rows::new(&cluster, &judge, &args.ports, &args.external);
    match args.output {
        MatrixFormat::Table => table::write(&rows, output)?,
        MatrixFormat::Json => records::write_json(&rows, output)?,
        MatrixFormat::Csv => records::write_csv(&rows, output)?,
        MatrixFormat::Md => records::write_markdown(&rows, output)?,
    }
    if args.ports.is_empty() && !args.external.is_empty() {
        // Without standard error there is nobody to tell.
        let _ = writeln!(
            io::stderr(),
            "note: outside addresses declare no ports: give --port to see connections to them"
        );
    }
    Ok(Outcome::Fine)
}
