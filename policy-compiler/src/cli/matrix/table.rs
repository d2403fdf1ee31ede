//! The grid: a line for each source, a column for each destination. Both carry the same numbers, so the
//! lines name the columns.

use std::io::{self, Write};

use policy_compiler::model::Protocol;

use super::rows::{End, Row, Rows};
use crate::cli::output::{Output, Styles};

/// A cell lists so many ports before it counts the rest.
const PORTS_SHOWN: usize = 3;

/// What a cell says about a pair.
enum Cell {
    NotAsked,
    Allowed,
    Denied,
    /// Only these ports.
    Partly(String),
}

/// One destination: what each source may do there.
struct Column {
    number: usize,
    cells: Vec<Cell>,
    width: usize,
}

/// How many pairs have which answer.
#[derive(Default)]
struct Tally {
    allowed: usize,
    denied: usize,
    partly: usize,
}

/// Writes the grid, in as many blocks of columns as the width asks for.
pub(super) fn write(rows: &Rows<'_>, output: &mut Output) -> io::Result<()> {
    let names = rows.ends.iter().map(|end| place_and_name(end).1.chars().count());
    let name_width = names.max().unwrap_or(0);
    let digits = rows.ends.len().to_string().len();
    let mut columns =
        rows.ends.iter().enumerate().map(|(index, to)| Column::new(rows, index + 1, to)).peekable();
    let mut tally = Tally::default();
    while columns.peek().is_some() {
        let mut room = output.width.saturating_sub(digits + name_width + 3);
        let mut block = Vec::new();
        while let Some(column) = columns.next_if(|column| block.is_empty() || column.width + 2 <= room) {
            room = room.saturating_sub(column.width + 2);
            tally.add(&column);
            block.push(column);
        }
        write_block(rows, &block, digits, name_width, output)?;
        writeln!(output)?;
    }
    let Tally { allowed, denied, partly } = tally;
    writeln!(output, "{allowed} pairs allowed, {denied} denied, {partly} allowed on some ports only")?;
    let Styles { allow, deny, dim, .. } = output.styles;
    writeln!(
        output,
        "{allow}✓{allow:#} every port asked for   {deny}✗{deny:#} none   80 only this one   {dim}·{dim:#} nothing asked"
    )
}

fn write_block(
    rows: &Rows<'_>,
    block: &[Column],
    digits: usize,
    name_width: usize,
    output: &mut Output,
) -> io::Result<()> {
    let Styles { heading, .. } = output.styles;
    let margin = digits + name_width + 3;
    write!(output, "{heading}{:<margin$}{heading:#}", "from ↓ to →")?;
    for Column { number, width, .. } in block {
        write!(output, "  {heading}{number:>width$}{heading:#}")?;
    }
    writeln!(output)?;
    let mut current = None;
    for (index, from) in rows.ends.iter().enumerate() {
        let (place, name) = place_and_name(from);
        if current.replace(place) != Some(place) {
            writeln!(output, "{heading}{place}{heading:#}")?;
        }
        write!(output, "  {:>digits$} {name:<name_width$}", index + 1)?;
        for column in block {
            if let Some(cell) = column.cells.get(index) {
                write_cell(cell, column.width, output)?;
            }
        }
        writeln!(output)?;
    }
    Ok(())
}

fn write_cell(cell: &Cell, width: usize, output: &mut Output) -> io::Result<()> {
    let Styles { allow, deny, partly, dim, .. } = output.styles;
    let (style, text) = match cell {
        Cell::NotAsked => (dim, "·"),
        Cell::Allowed => (allow, "✓"),
        Cell::Denied => (deny, "✗"),
        Cell::Partly(ports) => (partly, ports.as_str()),
    };
    write!(output, "  {style}{text:>width$}{style:#}")
}

/// The heading under which an end is listed, and its name there.
fn place_and_name<'e>(end: &'e End<'_>) -> (&'e str, &'e str) {
    match end.pod {
        Some(pod) => (&pod.name.namespace, &pod.name.name),
        None => ("outside", &end.name),
    }
}

impl Column {
    fn new<'a>(rows: &Rows<'a>, number: usize, to: &End<'a>) -> Self {
        let cells: Vec<_> = rows.ends.iter().map(|from| Cell::new(rows.of(from, to))).collect();
        let widest = cells.iter().map(Cell::width).max().unwrap_or(0);
        Self { number, cells, width: widest.max(number.to_string().len()) }
    }
}

impl Cell {
    fn new(rows: impl Iterator<Item = Row>) -> Self {
        let (allowed, denied): (Vec<_>, Vec<_>) = rows.partition(|row: &Row| row.allowed());
        match (allowed.len(), denied.len()) {
            (0, 0) => Self::NotAsked,
            (_, 0) => Self::Allowed,
            (0, _) => Self::Denied,
            _ => Self::Partly(list(&allowed)),
        }
    }

    fn width(&self) -> usize {
        match self {
            Self::Partly(ports) => ports.chars().count(),
            _ => 1,
        }
    }
}

fn list(rows: &[Row]) -> String {
    let mut ports: Vec<_> = rows.iter().take(PORTS_SHOWN).copied().map(port).collect();
    if let Some(more @ 1..) = rows.len().checked_sub(PORTS_SHOWN) {
        ports.push(format!("+{more}"));
    }
    ports.join(",")
}

/// A port, with what is out of the ordinary about it.
fn port(row: Row) -> String {
    let protocol = match row.protocol {
        Protocol::Tcp => String::new(),
        other => format!("/{other}"),
    };
    let family = row.family.map(|family| format!(" {family}")).unwrap_or_default();
    format!("{}{protocol}{family}", row.port)
}

impl Tally {
    fn add(&mut self, column: &Column) {
        for cell in &column.cells {
            match cell {
                Cell::NotAsked => {}
                Cell::Allowed => self.allowed += 1,
                Cell::Denied => self.denied += 1,
                Cell::Partly(_) => self.partly += 1,
            }
        }
    }
}
