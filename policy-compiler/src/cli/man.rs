//! `podfence man`

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::roff::{Roff, roman};

use super::args::{Args, Man};
use super::output::{Outcome, Output};

/// The section in which paragraphs stand that have no heading in the help text.
const NOTES: &str = "NOTES";

pub(crate) fn run(args: &Man, output: &mut Output) -> anyhow::Result<Outcome> {
    // There is no page about `help`.
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    match &args.directory {
        Some(directory) => write_all(&command, directory)
            .with_context(|| format!("cannot write the manual pages to {}", directory.display()))?,
        None => write_page(command, output)?,
    }
    Ok(Outcome::Fine)
}

/// Writes the page of a command and those of its subcommands.
fn write_all(command: &Command, directory: &Path) -> io::Result<()> {
    let name = clap_mangen::Man::new(command.clone()).get_filename();
    write_page(command.clone(), &mut File::create(directory.join(name))?)?;
    command.get_subcommands().try_for_each(|command| write_all(command, directory))
}

/// Writes a page as man-pages(7) has it: what stands behind the help text has sections of its own.
fn write_page(command: Command, output: &mut impl Write) -> io::Result<()> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (has_arguments, has_subcommands) =
        (command.get_arguments().next().is_some(), command.has_subcommands());
    let page = clap_mangen::Man::new(command);
    page.render_title(output)?;
    page.render_name_section(output)?;
    page.render_synopsis_section(output)?;
    page.render_description_section(output)?;
    if has_arguments {
        page.render_options_section(output)?;
    }
    if has_subcommands {
        page.render_subcommands_section(output)?;
    }
    let mut sections = Roff::default();
    for (title, lines) in sections_of(&help) {
        sections.control("SH", [title.as_str()]);
        // As it is written, line by line.
        sections.control("nf", []);
        for line in lines {
            sections.text([roman(line)]);
        }
        sections.control("fi", []);
    }
    sections.to_writer(output)?;
    page.render_version_section(output)
}

/// The parts of a help text by the headings of a manual. A line `Heading:` begins one; what follows is indented.
fn sections_of(help: &str) -> Vec<(String, Vec<&str>)> {
    let mut sections: Vec<(String, Vec<&str>)> = Vec::new();
    for line in help.lines() {
        let indented = line.strip_prefix("  ");
        match (line.strip_suffix(':'), indented) {
            (Some(heading), None) => sections.push((title(heading), Vec::new())),
            (None, None) if !line.is_empty() && sections.last().is_none_or(|(title, _)| title != NOTES) => {
                sections.push((NOTES.to_owned(), vec![line]));
            }
            _ => {
                if let Some((_, lines)) = sections.last_mut() {
                    lines.push(indented.unwrap_or(line));
                }
            }
        }
    }
    for (_, lines) in &mut sections {
        while lines.last() == Some(&"") {
            lines.pop();
        }
    }
    sections
}

fn title(heading: &str) -> String {
    match heading {
        "Example" | "Examples" => "EXAMPLES".to_owned(),
        "Exit codes" => "EXIT STATUS".to_owned(),
        other => other.to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_help_text_gets_the_heading_that_manuals_have() {
        let help = "Examples:\n  podfence a\n  podfence b\n\nA note\nof two lines.\n\nExit codes:\n  0  fine";
        let sections = sections_of(help);
        let expected = [
            ("EXAMPLES", vec!["podfence a", "podfence b"]),
            ("NOTES", vec!["A note", "of two lines."]),
            ("EXIT STATUS", vec!["0  fine"]),
        ];
        assert_eq!(sections, expected.map(|(title, lines)| (title.to_owned(), lines)));
    }
}
