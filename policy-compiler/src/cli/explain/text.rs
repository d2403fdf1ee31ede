//! An explanation for people.

use std::io::{self, Write};

use policy_compiler::explain::{Policy, Rule, Side};

use super::report::{Explained, Report};
use crate::cli::output::Output;

/// Writes the verdict first, then why, then what would change it.
pub(super) fn write(report: &Report, output: &mut Output) -> anyhow::Result<()> {
    let several = report.connections.len() > 1;
    if several {
        write_summary(report, output)?;
    }
    for connection in &report.connections {
        if several {
            writeln!(output)?;
        }
        write_connection(connection, output)?;
    }
    let mut suggestions: Vec<_> = report.connections.iter().flat_map(|it| &it.suggestions).collect();
    suggestions.dedup();
    if !suggestions.is_empty() {
        let heading = output.styles.heading;
        writeln!(output, "\n{heading}To allow it, apply:{heading:#}\n")?;
        for (index, policy) in suggestions.into_iter().enumerate() {
            let separator = if index == 0 { "" } else { "---\n" };
            write!(output, "{separator}{}", serde_yaml::to_string(policy)?)?;
        }
    }
    Ok(())
}

fn write_summary(report: &Report, output: &mut Output) -> io::Result<()> {
    let Report { from, to, port, connections, .. } = report;
    let allowed = connections.iter().filter(|connection| connection.verdict.allows()).count();
    write_verdict(report.verdict.allows(), output)?;
    writeln!(output, "  {from} → {to}  {port}: {allowed} of {} connections allowed", connections.len())
}

fn write_connection(connection: &Explained, output: &mut Output) -> io::Result<()> {
    let Explained { from, to, port, protocol, .. } = connection;
    write_verdict(connection.verdict.allows(), output)?;
    write!(output, "  {from} → {to}  {port}/{protocol}")?;
    match &connection.family {
        Some(family) => writeln!(output, " over {family}\n")?,
        None => writeln!(output, "\n")?,
    }
    write_side("egress", &connection.egress, output)?;
    write_side("ingress", &connection.ingress, output)
}

fn write_verdict(allowed: bool, output: &mut Output) -> io::Result<()> {
    let style = output.styles.verdict(allowed);
    write!(output, "{style}{}{style:#}", if allowed { "ALLOWED" } else { "DENIED" })
}

fn write_side(direction: &str, side: &Side, output: &mut Output) -> io::Result<()> {
    let allowed = side.verdict.allows();
    let style = output.styles.verdict(allowed);
    let word = if allowed { "allowed" } else { "denied" };
    writeln!(output, "  {direction:<8} {style}{word:<8}{style:#} {}", side.reason)?;
    for (policy, rules, hidden) in side.shown() {
        write_policy(direction, policy, output)?;
        rules.into_iter().try_for_each(|rule| write_rule(rule, output))?;
        if hidden > 0 {
            writeln!(output, "      and {hidden} rules further from it")?;
        }
    }
    Ok(())
}

fn write_policy(direction: &str, policy: &Policy, output: &mut Output) -> io::Result<()> {
    let heading = output.styles.heading;
    write!(output, "    {heading}{}{heading:#}", policy.name)?;
    write_origin(policy.origin.as_deref(), output)?;
    match policy.rules.len() {
        0 => writeln!(output, "\n      has no {direction} rule"),
        _ => writeln!(output),
    }
}

fn write_rule(rule: &Rule, output: &mut Output) -> io::Result<()> {
    write!(output, "      {}", rule.path)?;
    write_origin(rule.origin.as_deref(), output)?;
    writeln!(output, "{}", if rule.covers { "  covers it" } else { "" })?;
    rule.peers.iter().try_for_each(|miss| writeln!(output, "        {miss}"))?;
    rule.ports.iter().try_for_each(|miss| writeln!(output, "        ports: {miss}"))
}

fn write_origin(origin: Option<&str>, output: &mut Output) -> io::Result<()> {
    let dim = output.styles.dim;
    origin.map_or(Ok(()), |origin| write!(output, "  {dim}{origin}{dim:#}"))
}
