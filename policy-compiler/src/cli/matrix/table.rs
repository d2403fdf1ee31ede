//! The table for people: a line for each kind of source, a column for each kind of destination.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::cell::Cell;
use super::end::by_place;
use super::grid::Grid;
use super::layout::{Block, Column, GAP, INDENT, Layout, Line, NAMES_ABOVE};
use super::names::wrapped;
use super::summary;
use crate::cli::output::{Output, Styles};

/// Where the table has more lines than this, and more namespaces, a summary takes its place.
const LINES_SHOWN: usize = 400;
const NAMESPACES_SHOWN: usize = 3;

/// Writes the table, or a summary where it would be too long to read.
pub(super) fn write(grid: &Grid<'_>, output: &mut Output) -> io::Result<()> {
    let blocks = Layout::new(grid, output.width).blocks();
    let lines: usize = blocks.iter().map(|block| block.lines.len() + 3).sum();
    let namespaces = by_place(&grid.ends, grid.destinations.iter().copied()).len();
    let is_summarized = lines > LINES_SHOWN && namespaces > NAMESPACES_SHOWN;
    if is_summarized {
        summary::write(grid, output)?;
        writeln!(output, "{}", grid.summary())?;
        writeln!(output, "This is a summary by namespace: the whole table has {lines} lines.")?;
        return writeln!(output, "--from and --to NAMESPACE/ show a part of it, -o html all of it.");
    }
    for block in blocks.iter().filter(|block| !block.lines.is_empty()) {
        write_block(block, output)?;
    }
    write_legend(grid, output)
}

fn write_block(block: &Block<'_>, output: &mut Output) -> io::Result<()> {
    let Styles { heading, .. } = output.styles;
    let widths = block.column_widths();
    let room = output.width.saturating_sub(widths.iter().map(|width| width + GAP).sum());
    let title = if block.places.is_empty() { "from ↓ to →" } else { "from ↓" };
    let natural = block.lines.iter().map(|line| INDENT + line.names.join(", ").chars().count());
    let natural = natural.max().unwrap_or(0);
    let label = natural.min(room.max(block.label_width())).max(title.chars().count());
    for line in wrapped(block.places.iter().copied(), output.width.saturating_sub("to ".len())) {
        writeln!(output, "{heading}to {line}{heading:#}")?;
    }
    write_headings(block, title, label, &widths, output)?;
    let mut current = None;
    for line in &block.lines {
        if let Some(place) = line.place
            && current.replace(place) != Some(place)
        {
            writeln!(output, "{heading}{place}{heading:#}")?;
        }
        write_line(line, label, &widths, output)?;
    }
    for Column { names, .. } in block.columns.iter().filter(|column| column.names.len() > NAMES_ABOVE) {
        let (shown, more) = names.split_at_checked(NAMES_ABOVE - 1).unwrap_or_default();
        let begin = format!("  with {}: ", shown.last().map_or("", String::as_str));
        let width = output.width.saturating_sub(begin.chars().count());
        for (index, line) in wrapped(more.iter().map(String::as_str), width).into_iter().enumerate() {
            let begin = if index == 0 { begin.clone() } else { " ".repeat(begin.chars().count()) };
            writeln!(output, "{begin}{line}")?;
        }
    }
    writeln!(output)
}

/// The namespaces and names of the columns, the names down to the cells.
fn write_headings(
    block: &Block<'_>,
    title: &str,
    label: usize,
    widths: &[usize],
    output: &mut Output,
) -> io::Result<()> {
    // A string takes all that is written.
    let mut lines = Vec::new();
    if block.places.is_empty() {
        let mut line = " ".repeat(label);
        let mut widths = widths.iter();
        for (place, count) in block.headings() {
            let width = widths.by_ref().take(count).map(|width| width + GAP).sum::<usize>() - GAP;
            let _ = write!(line, "{:GAP$}{place:width$}", "");
        }
        lines.push(line);
    }
    let stacks: Vec<_> = block.columns.iter().map(stack).collect();
    let depth = stacks.iter().map(Vec::len).max().unwrap_or(0);
    for row in 0..depth {
        let mut line = format!("{:label$}", if row + 1 == depth { title } else { "" });
        for (stack, width) in stacks.iter().zip(widths) {
            let name = (row + stack.len()).checked_sub(depth).and_then(|index| stack.get(index));
            let _ = write!(line, "{:GAP$}{:width$}", "", name.map_or("", String::as_str));
        }
        lines.push(line);
    }
    let Styles { heading, .. } = output.styles;
    lines.iter().try_for_each(|line| writeln!(output, "{heading}{}{heading:#}", line.trim_end()))
}

/// What stands above a column.
fn stack(column: &Column<'_>) -> Vec<String> {
    if column.names.len() <= NAMES_ABOVE {
        return column.names.clone();
    }
    let shown = column.names.iter().take(NAMES_ABOVE - 1).cloned();
    shown.chain([format!("+{}", column.names.len() + 1 - NAMES_ABOVE)]).collect()
}

fn write_line(line: &Line<'_>, label: usize, widths: &[usize], output: &mut Output) -> io::Result<()> {
    let mut names = wrapped(line.names.iter().map(String::as_str), label.saturating_sub(INDENT)).into_iter();
    write!(output, "{:INDENT$}{:rest$}", "", names.next().unwrap_or_default(), rest = label - INDENT)?;
    for (index, (cell, width)) in line.cells.iter().zip(widths).enumerate() {
        let is_last = index + 1 == line.cells.len();
        write_cell(cell, if is_last { 0 } else { *width }, output)?;
    }
    writeln!(output)?;
    names.try_for_each(|more| writeln!(output, "{:INDENT$}{more}", ""))
}

fn write_cell(cell: &Cell, width: usize, output: &mut Output) -> io::Result<()> {
    let style = style(cell, output.styles);
    let text = cell.text();
    let padding = width.saturating_sub(text.chars().count());
    write!(output, "{:GAP$}{style}{text}{style:#}{:padding$}", "", "")
}

pub(super) fn style(cell: &Cell, styles: Styles) -> anstyle::Style {
    match cell {
        Cell::Itself | Cell::LeftOut | Cell::NotAsked => styles.dim,
        Cell::Allowed => styles.allow,
        Cell::Denied => styles.deny,
        Cell::Partly(_) => styles.partly,
    }
}

/// What the cells mean, those that there are.
fn write_legend(grid: &Grid<'_>, output: &mut Output) -> io::Result<()> {
    let meaning = |(cell, meaning): &(Cell, &str)| {
        let style = style(cell, output.styles);
        format!("{style}{}{style:#} {meaning}", cell.text())
    };
    let meanings: Vec<_> = grid.legend().iter().map(meaning).collect();
    if !meanings.is_empty() {
        writeln!(output, "{}", meanings.join("   "))?;
    }
    writeln!(output, "{}", grid.summary())?;
    grid.notes().map_or(Ok(()), |note| writeln!(output, "{note}"))
}
