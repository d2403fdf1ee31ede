//! The table as Markdown, short enough for a comment on a pull request.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::cell::Cell;
use super::grid::Grid;
use super::layout::{Block, Layout};

/// A block is split where it would be wider than this.
const WIDTH: usize = 160;

/// The longest comment that GitHub takes, in characters, with room for a few words beside the tables.
const CHARACTERS: usize = 65_536 - 4_096;

/// Writes as many blocks as a comment has room for, and says how many it has not.
pub(super) fn write(grid: &Grid<'_>, output: &mut impl Write) -> io::Result<()> {
    let mut room = CHARACTERS;
    let mut left_out = 0;
    for block in Layout::new(grid, WIDTH).blocks().iter().filter(|block| !block.lines.is_empty()) {
        let table = table(block);
        match room.checked_sub(table.chars().count()) {
            Some(left) if left_out == 0 => {
                room = left;
                output.write_all(table.as_bytes())?;
            }
            _ => left_out += 1,
        }
    }
    if left_out > 0 {
        writeln!(output, "{left_out} more tables are left out: a comment has no room for them.\n")?;
    }
    let legend: Vec<_> =
        grid.legend().iter().map(|(cell, meaning)| format!("{} {meaning}", text_of(cell))).collect();
    let legend = if legend.is_empty() { String::new() } else { format!("{}. ", legend.join(", ")) };
    writeln!(output, "{legend}{}", grid.summary())?;
    grid.notes().map_or(Ok(()), |note| writeln!(output, "{note}"))
}

fn table(block: &Block<'_>) -> String {
    // A string takes all that is written.
    let mut text = String::new();
    if !block.places.is_empty() {
        let _ = writeln!(text, "**to {}**\n", escaped(&block.places.join(", ")));
    }
    let _ = write!(text, "| from ↓ to → |");
    for column in &block.columns {
        let names: Vec<_> = column.names.iter().map(|name| escaped(name)).collect();
        let place = if block.places.is_empty() { format!("{}/<br>", column.place) } else { String::new() };
        let _ = write!(text, " {place}{} |", names.join("<br>"));
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(block.columns.len()));
    for line in &block.lines {
        let place = line.place.map(|place| format!("{place}: ")).unwrap_or_default();
        let _ = write!(text, "| {place}{} |", escaped(&line.names.join(", ")));
        for cell in &line.cells {
            let _ = write!(text, " {} |", text_of(cell));
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

fn text_of(cell: &Cell) -> String {
    match cell {
        Cell::Denied => "**✗**".to_owned(),
        other => escaped(other.text()),
    }
}

/// Names of objects hold nothing that Markdown takes for its own, but for what nobody validated.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|character| match character {
            '|' | '*' | '_' | '`' | '<' | '[' | '\\' => vec!['\\', character],
            '\n' | '\r' => vec![' '],
            other => vec![other],
        })
        .collect()
}
