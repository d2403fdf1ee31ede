//! The blocks of which a matrix consists where people read it.

use super::cell::Cell;
use super::end::by_place;
use super::grid::{Grid, Group, Mark, merge};
use super::names::Names;

/// Some destinations, and what every source may do there.
pub(super) struct Block<'g> {
    /// The namespaces of the destinations; empty where the block has all destinations.
    pub(super) places: Vec<&'g str>,
    pub(super) columns: Vec<Column<'g>>,
    pub(super) lines: Vec<Line<'g>>,
}

/// Destinations that all sources reach alike.
pub(super) struct Column<'g> {
    pub(super) place: &'g str,
    pub(super) names: Vec<String>,
}

/// Sources that reach all destinations of the block alike.
pub(super) struct Line<'g> {
    /// The namespace to list them under, where the block has all destinations.
    pub(super) place: Option<&'g str>,
    pub(super) names: Vec<String>,
    pub(super) cells: Vec<&'g Cell>,
}

/// What stands before the names of a line.
pub(super) const INDENT: usize = 2;

/// What stands between two columns.
pub(super) const GAP: usize = 2;

/// A column has so many names above it before the rest is counted.
pub(super) const NAMES_ABOVE: usize = 6;

/// Of the largest group of a namespace so many names are listed: if there are more, it is the rest.
const NAMES_LISTED: usize = 12;

/// Lays out blocks.
pub(super) struct Layout<'g, 'a> {
    grid: &'g Grid<'a>,
    names: Names<'g, 'a>,
    /// How wide a block should be at most.
    width: usize,
}

impl<'g> Block<'g> {
    /// How wide each column has to be.
    pub(super) fn column_widths(&self) -> Vec<usize> {
        let of_column = |(index, column): (usize, &Column<'_>)| {
            let cells = self.lines.iter().filter_map(|line| line.cells.get(index)).map(|cell| cell.text());
            let names = column.names.iter().take(NAMES_ABOVE).map(String::as_str);
            cells.chain(names).map(|text| text.chars().count()).max().unwrap_or(1)
        };
        let mut widths: Vec<_> = self.columns.iter().enumerate().map(of_column).collect();
        let mut begin = 0;
        for (place, count) in self.headings() {
            let own = widths.get_mut(begin..begin + count).unwrap_or_default();
            let room = own.iter().map(|width| width + GAP).sum::<usize>().saturating_sub(GAP);
            if let Some(last) = own.last_mut() {
                *last += place.chars().count().saturating_sub(room);
            }
            begin += count;
        }
        widths
    }

    /// The namespaces that stand above the columns, each with the number of its columns. None where the block is about
    /// certain namespaces alone.
    pub(super) fn headings(&self) -> Vec<(&'g str, usize)> {
        let columns = self.columns.chunk_by(|one, other| one.place == other.place);
        let headings = columns.filter(|_| self.places.is_empty());
        headings.filter_map(|columns| Some((columns.first()?.place, columns.len()))).collect()
    }

    /// The least width of what stands before the cells.
    pub(super) fn label_width(&self) -> usize {
        let names = self.lines.iter().flat_map(|line| &line.names);
        names.map(|name| INDENT + name.chars().count() + ",".len()).max().unwrap_or(0)
    }

    /// The least width of all of it.
    fn width(&self) -> usize {
        self.label_width() + self.column_widths().into_iter().map(|width| width + GAP).sum::<usize>()
    }
}

/// Equal destinations, with a mark for each source, and the first of their namespaces.
type Destinations<'g> = (&'g str, Group);

impl<'g, 'a> Layout<'g, 'a> {
    pub(super) fn new(grid: &'g Grid<'a>, width: usize) -> Self {
        Self { grid, names: Names::new(&grid.ends), width }
    }

    /// One block if it is not too wide, or else one for each namespace of destinations, in parts that are not.
    pub(super) fn blocks(&self) -> Vec<Block<'g>> {
        let places = self.destinations();
        let all: Vec<_> = places.iter().flat_map(|(_, groups)| groups.clone()).collect();
        if all.len() * (GAP + 1) < self.width {
            let all = self.block(Vec::new(), &all);
            if all.width() <= self.width {
                return vec![all];
            }
        }
        let blocks = with_equal_namespaces_merged(places);
        blocks.into_iter().flat_map(|(places, groups)| self.parts(&places, &groups)).collect()
    }

    /// Equal destinations of each namespace, without those of which nothing is wanted.
    fn destinations(&self) -> Vec<(&'g str, Vec<Destinations<'g>>)> {
        let columns = self.grid.destinations.iter().enumerate();
        let columns = columns.map(|(column, end)| Group::new(*end, self.grid.column(column).to_vec()));
        let mut columns: Vec<_> = columns.collect();
        columns.retain(|column| !self.grid.is_empty(&column.marks));
        let ends = columns.iter().flat_map(|column| &column.members).copied();
        let places = by_place(&self.grid.ends, ends);
        let mut columns = columns.into_iter();
        places
            .into_iter()
            .map(|(place, ends)| {
                let groups = self.rest_last(merge(columns.by_ref().take(ends.len())));
                (place, groups.into_iter().map(|group| (place, group)).collect())
            })
            .collect()
    }

    /// The block of these destinations, in parts that fit.
    fn parts(&self, places: &[&'g str], groups: &[Destinations<'g>]) -> Vec<Block<'g>> {
        let mut parts: Vec<Block<'g>> = Vec::new();
        let mut begin = 0;
        for end in 1..=groups.len() {
            let block = |begin| self.block(places.to_vec(), groups.get(begin..end).unwrap_or_default());
            let extended = block(begin);
            match parts.last_mut() {
                Some(part) if extended.width() <= self.width => *part = extended,
                Some(_) => {
                    begin = end - 1;
                    parts.push(block(begin));
                }
                None => parts.push(extended),
            }
        }
        parts
    }

    fn block(&self, places: Vec<&'g str>, groups: &[Destinations<'g>]) -> Block<'g> {
        let columns = groups.iter().map(|(place, group)| self.column(place, group)).collect();
        let mark = |source: usize, (_, group): &Destinations<'_>| group.marks.get(source).copied();
        let sources = self.grid.sources.iter().enumerate();
        let sources = sources.map(|(source, end)| {
            Group::new(*end, groups.iter().filter_map(|group| mark(source, group)).collect())
        });
        let sources = sources.filter(|source| !self.grid.is_empty(&source.marks)).collect();
        let lines = match places.as_slice() {
            [] => self.lines_by_place(sources),
            [place] => self.lines_around(Some(place), sources),
            _ => self.lines_around(None, sources),
        };
        Block { places, columns, lines }
    }

    fn column(&self, place: &'g str, group: &Group) -> Column<'g> {
        let all = self.names.all_of(place, &group.members).map(|name| vec![name]);
        Column { place, names: all.unwrap_or_else(|| self.names_of(group)) }
    }

    /// Lines under the headings of their namespaces.
    fn lines_by_place(&self, sources: Vec<Group>) -> Vec<Line<'g>> {
        let ends = sources.iter().flat_map(|source| &source.members).copied();
        let places = by_place(&self.grid.ends, ends);
        let mut sources = sources.into_iter();
        places
            .into_iter()
            .flat_map(|(place, ends)| {
                let groups = self.rest_last(merge(sources.by_ref().take(ends.len())));
                groups.into_iter().map(move |group| (place, group))
            })
            .map(|(place, group)| self.line(Some(place), self.names_of(&group), &group.marks))
            .collect()
    }

    /// The lines of the block's own namespace, then those of the others.
    fn lines_around(&self, own: Option<&str>, sources: Vec<Group>) -> Vec<Line<'g>> {
        let is_own = |source: &Group| {
            let ends = source.members.iter().filter_map(|member| self.grid.ends.get(*member));
            own.is_some_and(|own| ends.into_iter().all(|end| end.place() == own))
        };
        let (own, others): (Vec<_>, Vec<_>) = sources.into_iter().partition(is_own);
        let own = self.rest_last(merge(own));
        let mut others = merge(others);
        others.sort_by_key(|group| group.members.len());
        let rest = others.pop_if(|group| by_place(&self.grid.ends, group.members.iter().copied()).len() > 1);
        let mut lines: Vec<_> = own
            .iter()
            .map(|group| self.line(None, self.names_of(group), &group.marks))
            .chain(
                others
                    .iter()
                    .map(|group| self.line(None, self.names.list_anywhere(&group.members), &group.marks)),
            )
            .collect();
        lines.extend(rest.map(|group| {
            let everybody = lines.is_empty();
            let count = group.members.len();
            let name = if everybody { format!("all {count}") } else { format!("all others ({count})") };
            self.line(None, vec![name], &group.marks)
        }));
        lines
    }

    /// The groups of one namespace, at the end the one that is the rest.
    fn rest_last(&self, mut groups: Vec<Group>) -> Vec<Group> {
        let largest =
            (0..groups.len()).max_by_key(|index| groups.get(*index).map(|group| group.members.len()));
        let is_rest = |group: &Group| self.names.list(&group.members).len() > NAMES_LISTED;
        if groups.len() > 1
            && self.grid.only.is_none()
            && let Some(largest) = largest.filter(|largest| groups.get(*largest).is_some_and(is_rest))
        {
            let mut rest = groups.remove(largest);
            rest.is_rest = true;
            groups.push(rest);
        }
        groups
    }

    fn names_of(&self, group: &Group) -> Vec<String> {
        if group.is_rest {
            return vec![format!("the other {}", group.members.len())];
        }
        self.names.list(&group.members)
    }

    fn line(&self, place: Option<&'g str>, names: Vec<String>, marks: &[Mark]) -> Line<'g> {
        let cells = marks.iter().map(|mark| self.grid.cell(*mark)).collect();
        Line { place, names, cells }
    }
}

/// The destinations of each block: a namespace, or several all of whose pods are reached alike.
fn with_equal_namespaces_merged<'g>(
    places: Vec<(&'g str, Vec<Destinations<'g>>)>,
) -> Vec<(Vec<&'g str>, Vec<Destinations<'g>>)> {
    let mut blocks: Vec<(Vec<&str>, Vec<Destinations<'_>>)> = Vec::new();
    for (place, mut groups) in places {
        if let [(_, group)] = groups.as_mut_slice() {
            let alike = blocks.iter_mut().find_map(|(places, others)| match others.as_mut_slice() {
                [(_, other)] if other.agrees(group) => Some((places, other)),
                _ => None,
            });
            if let Some((places, other)) = alike {
                places.push(place);
                other.take_in(group.clone());
                continue;
            }
        }
        blocks.push((vec![place], groups));
    }
    blocks
}
