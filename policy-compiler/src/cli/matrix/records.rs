//! The formats with a record for each row: JSON, CSV and Markdown.

use std::io::{self, Write};

use super::rows::{Row, Rows};

/// An array of objects, one a line.
pub(super) fn write_json(rows: &Rows<'_>, output: &mut impl Write) -> io::Result<()> {
    output.write_all(b"[")?;
    let mut separator = "\n";
    let quoted = |name: &str| serde_json::Value::from(name).to_string();
    for_each(rows, quoted, |from, to, row| {
        write_pieces(output, &[separator, "{\"from\":", from, ",\"to\":", to, ",\"port\":"])?;
        write!(output, "{}", row.port)?;
        write_pieces(
            output,
            &[",\"protocol\":\"", row.protocol.as_str(), "\",\"egress\":\"", word(row.egress)],
        )?;
        write_pieces(
            output,
            &["\",\"ingress\":\"", word(row.ingress), "\",\"verdict\":\"", word(row.allowed())],
        )?;
        separator = ",\n";
        match row.family {
            Some(family) => write!(output, "\",\"family\":\"{family}\"}}"),
            None => output.write_all(b"\"}"),
        }
    })?;
    output.write_all(b"\n]\n")
}

/// A header, then a line for each row; `family` is empty where the families agree.
pub(super) fn write_csv(rows: &Rows<'_>, output: &mut impl Write) -> io::Result<()> {
    output.write_all(b"from,to,port,protocol,family,egress,ingress,verdict\n")?;
    let quoted = |name: &str| {
        if name.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", name.replace('"', "\"\""))
        } else {
            name.to_owned()
        }
    };
    for_each(rows, quoted, |from, to, row| {
        let Row { port, protocol, egress, ingress, .. } = row;
        let family = row.family.map(|family| family.to_string()).unwrap_or_default();
        let (egress, ingress, verdict) = (word(egress), word(ingress), word(row.allowed()));
        writeln!(output, "{from},{to},{port},{protocol},{family},{egress},{ingress},{verdict}")
    })
}

/// A table for a pull request.
pub(super) fn write_markdown(rows: &Rows<'_>, output: &mut impl Write) -> io::Result<()> {
    output.write_all(b"| from | to | port | egress | ingress | verdict |\n|---|---|---|---|---|---|\n")?;
    let escaped = |name: &str| name.replace('|', "\\|");
    for_each(rows, escaped, |from, to, row| {
        let Row { port, protocol, egress, ingress, .. } = row;
        let family = row.family.map(|family| format!(" {family}")).unwrap_or_default();
        let (egress, ingress) = (word(egress), word(ingress));
        let verdict = if row.allowed() { "✓ allow" } else { "✗ **deny**" };
        writeln!(output, "| {from} | {to} | {port}/{protocol}{family} | {egress} | {ingress} | {verdict} |")
    })
}

fn word(allowed: bool) -> &'static str {
    if allowed { "allow" } else { "deny" }
}

/// Calls `write` for each row. There may be millions of them, so names are rendered once, by `quote`.
fn for_each(
    rows: &Rows<'_>,
    quote: impl Fn(&str) -> String,
    mut write: impl FnMut(&str, &str, Row) -> io::Result<()>,
) -> io::Result<()> {
    let names: Vec<_> = rows.ends.iter().map(|end| quote(&end.name)).collect();
    let ends = || rows.ends.iter().zip(&names);
    for (from, from_name) in ends() {
        for (to, to_name) in ends() {
            rows.of(from, to).try_for_each(|row| write(from_name, to_name, row))?;
        }
    }
    Ok(())
}

fn write_pieces(output: &mut impl Write, pieces: &[&str]) -> io::Result<()> {
    pieces.iter().try_for_each(|piece| output.write_all(piece.as_bytes()))
}
