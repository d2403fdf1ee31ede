//! The dry run over a cluster.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use lab::program;
use serde_json::{Value, json};

use crate::Figure;
use crate::objects::{namespaces, pods, policies};

/// What is measured: the pods that `matrix` pairs with one another, the output, and the bar.
const MATRICES: [(usize, &str, &str); 3] =
    [(1_000, "csv", "< 1 s"), (2_000, "csv", "< 2 s"), (2_000, "table", "< 2 s")];

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    MATRICES.iter().map(|(count, format, bar)| matrix(folder.path(), *count, format, bar)).collect()
}

fn matrix(folder: &Path, count: usize, format: &str, bar: &'static str) -> Result<Figure> {
    let file = folder.join("cluster.json");
    let items: Vec<Value> = namespaces().chain(pods().take(count)).chain(policies()).collect();
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    let mut matrix = Command::new(program("podfence")?);
    matrix.args(["matrix", "--port", "9100", "-o", format, "-f"]).arg(&file).stdout(Stdio::null());
    let begin = Instant::now();
    ensure!(matrix.status()?.success(), "podfence matrix fails");
    let pairs = count * count;
    Ok(Figure::time(
        format!("`podfence matrix -o {format}` over {count} pods, {pairs} pairs"),
        bar,
        begin.elapsed(),
    ))
}
