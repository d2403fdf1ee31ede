//! The dry run over a cluster.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use lab::program;
use serde_json::{Value, json};

use crate::Figure;
use crate::objects::{namespaces, pods, policies};

/// The pods that `matrix` pairs with one another.
const PODS: usize = 1_000;

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("cluster.json");
    let items: Vec<Value> = namespaces().chain(pods().take(PODS)).chain(policies()).collect();
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    let mut matrix = Command::new(program("podfence")?);
    matrix.args(["matrix", "--port", "9100", "-o", "csv", "-f"]).arg(&file).stdout(Stdio::null());
    let begin = Instant::now();
    ensure!(matrix.status()?.success(), "podfence matrix fails");
    Ok(vec![Figure::time("`podfence matrix` over 1,000 pods, 1,000,000 pairs", "< 1 s", begin.elapsed())])
}
