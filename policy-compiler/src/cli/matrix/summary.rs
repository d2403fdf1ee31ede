//! The matrix namespace by namespace, where it is too large to be read pod by pod.

use std::io::{self, Write};

use anstyle::Style;

use super::end::by_place;
use super::grid::{Grid, Group, Mark, Tally, merge};
use super::names::wrapped;
use crate::cli::output::{Output, Styles};

/// What the sources of a namespace may do in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Everything,
    Something,
    Nothing,
    NotAsked,
}

impl Reach {
    const ALL: [Self; 4] = [Self::Everything, Self::Something, Self::Nothing, Self::NotAsked];

    fn of(tally: &Tally) -> Self {
        match tally {
            Tally { allowed: 0, denied: 0, partly: 0 } => Self::NotAsked,
            Tally { denied: 0, partly: 0, .. } => Self::Everything,
            Tally { allowed: 0, partly: 0, .. } => Self::Nothing,
            _ => Self::Something,
        }
    }

    fn sign(self, styles: Styles) -> (Style, &'static str) {
        match self {
            Self::Everything => (styles.allow, "✓"),
            Self::Something => (styles.partly, "◐"),
            Self::Nothing => (styles.deny, "✗"),
            Self::NotAsked => (styles.dim, "·"),
        }
    }

    fn mark(self, singular: bool) -> Mark {
        Mark::new(self as usize, singular)
    }
}

/// A paragraph for the namespaces that are reached alike, with a line for what may reach them so.
pub(super) fn write(grid: &Grid<'_>, output: &mut Output) -> io::Result<()> {
    let sources = by_place(&grid.ends, grid.sources.iter().copied());
    let destinations = by_place(&grid.ends, grid.destinations.iter().copied());
    let mut columns = grid.destinations.iter().enumerate().map(|(column, _)| grid.column(column));
    let lines = destinations.iter().enumerate().map(|(index, (place, ends))| {
        let columns: Vec<_> = columns.by_ref().take(ends.len()).collect();
        let reaches = reaches(grid, &sources, &columns);
        let own = sources.iter().position(|(source, _)| source == place);
        let from_own = own.and_then(|own| reaches.get(own)).copied().unwrap_or(Reach::NotAsked);
        let others = reaches.iter().enumerate().map(|(source, reach)| reach.mark(own == Some(source)));
        Group::new(index, [from_own.mark(false)].into_iter().chain(others).collect())
    });
    let groups = merge(lines);
    for group in groups {
        let places: Vec<_> =
            group.members.iter().filter_map(|index| Some(destinations.get(*index)?.0)).collect();
        write_paragraph(&places, &sources, &group.marks, output)?;
    }
    let meanings = ["all of it may be reached", "some of it may", "none of it may"];
    let legend = Reach::ALL.iter().zip(meanings).map(|(reach, meaning)| {
        let (style, text) = reach.sign(output.styles);
        format!("{style}{text}{style:#} {meaning}")
    });
    writeln!(output, "\n{}", legend.collect::<Vec<_>>().join("   "))
}

/// What each namespace of sources may do in these columns.
fn reaches(grid: &Grid<'_>, sources: &[(&str, Vec<usize>)], columns: &[&[Mark]]) -> Vec<Reach> {
    let mut begin = 0;
    let of_place = |(_, ends): &(&str, Vec<usize>)| {
        let own = begin..begin + ends.len();
        begin = own.end;
        let mut tally = Tally::default();
        for mark in columns.iter().flat_map(|column| column.get(own.clone()).unwrap_or_default()) {
            tally.add(grid.cell(*mark));
        }
        Reach::of(&tally)
    };
    sources.iter().map(of_place).collect()
}

fn write_paragraph(
    places: &[&str],
    sources: &[(&str, Vec<usize>)],
    marks: &[Mark],
    output: &mut Output,
) -> io::Result<()> {
    let Styles { heading, .. } = output.styles;
    for line in wrapped(places.iter().copied(), output.width.saturating_sub("to ".len())) {
        writeln!(output, "{heading}to {line}{heading:#}")?;
    }
    let (own, others) = marks.split_first().map_or((None, marks), |(own, others)| (Some(own), others));
    let others = || sources.iter().zip(others).filter(|((place, _), _)| places != [*place]);
    let most = Reach::ALL
        .into_iter()
        .max_by_key(|reach| others().filter(|(_, mark)| mark.cell() == *reach as usize).count());
    for reach in Reach::ALL {
        let own = own.filter(|mark| mark.cell() == reach as usize).map(|_| match places.len() {
            1 => "its own pods".to_owned(),
            _ => "the pods of the same namespace".to_owned(),
        });
        let names: Vec<_> = others().filter(|(_, mark)| mark.cell() == reach as usize).collect();
        let names: Vec<_> = if most == Some(reach) && names.len() > 1 {
            own.into_iter().chain([format!("all others ({} namespaces)", names.len())]).collect()
        } else {
            own.into_iter().chain(names.iter().map(|((place, _), _)| (*place).to_owned())).collect()
        };
        write_reach(reach, &names, output)?;
    }
    Ok(())
}

fn write_reach(reach: Reach, names: &[String], output: &mut Output) -> io::Result<()> {
    let (style, text) = reach.sign(output.styles);
    let lines = wrapped(names.iter().map(String::as_str), output.width.saturating_sub(4));
    for (index, line) in lines.iter().enumerate() {
        let text = if index == 0 { text } else { " " };
        writeln!(output, "  {style}{text}{style:#} {line}")?;
    }
    Ok(())
}
