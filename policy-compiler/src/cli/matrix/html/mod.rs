//! The matrix as a page for a browser: one file, which asks for nothing from elsewhere.

mod data;

use std::io::{self, Write};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use policy_compiler::judge::Judge;
use sha2::{Digest, Sha256};

use super::grid::Grid;
use data::Data;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Writes the page.
pub(super) fn write<'a>(grid: &Grid<'a>, judge: &Judge<'a>, output: &mut impl Write) -> anyhow::Result<()> {
    let data = serde_json::to_string(&Data::new(grid, judge)).map_err(io::Error::from)?;
    // No text may end the element that holds it.
    let data = data.replace('<', "\\u003c");
    let page = PAGE
        .replace("{{script-hash}}", &hash(SCRIPT))
        .replace("{{style-hash}}", &hash(STYLE))
        .replace("{{style}}", STYLE)
        .replace("{{script}}", SCRIPT);
    let (before, after) = page.split_once("{{data}}").context("the template has no place for its data")?;
    for part in [before, &data, after] {
        output.write_all(part.as_bytes())?;
    }
    Ok(())
}

/// A source as `Content-Security-Policy` names it.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}
