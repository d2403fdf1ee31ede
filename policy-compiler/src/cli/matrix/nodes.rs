//! Ends that are equal as sources and as destinations.

use std::collections::{BTreeMap, HashMap};

use super::cell::Cell;
use super::end::by_place;
use super::grid::{Grid, Group, Mark, merge};
use super::names::{Names, workload};

/// Replicas of one workload that are equal, by their places among the ends.
pub(super) type Unit = Vec<usize>;

/// Equal units of one namespace.
pub(super) type Node = Vec<Unit>;

/// All ends of a grid, and where each stands in it.
pub(super) struct Nodes<'g, 'a> {
    grid: &'g Grid<'a>,
    pub(super) names: Names<'g, 'a>,
    sources: HashMap<usize, usize>,
    destinations: HashMap<usize, usize>,
}

impl<'g, 'a> Nodes<'g, 'a> {
    pub(super) fn new(grid: &'g Grid<'a>) -> Self {
        let positions = |ends: &[usize]| ends.iter().enumerate().map(|(index, end)| (*end, index)).collect();
        let (sources, destinations) = (positions(&grid.sources), positions(&grid.destinations));
        Self { grid, names: Names::new(&grid.ends), sources, destinations }
    }

    /// The nodes of each namespace.
    pub(super) fn by_namespace(&self) -> Vec<(&'g str, Vec<Node>)> {
        let is_chosen = |end: &usize| self.is_source(*end) || self.destinations.contains_key(end);
        let chosen = (0..self.grid.ends.len()).filter(is_chosen);
        by_place(&self.grid.ends, chosen)
            .into_iter()
            .map(|(place, ends)| (place, self.nodes(&ends)))
            .collect()
    }

    pub(super) fn is_source(&self, end: usize) -> bool {
        self.sources.contains_key(&end)
    }

    fn nodes(&self, ends: &[usize]) -> Vec<Node> {
        let mut workloads: BTreeMap<usize, Vec<Group>> = BTreeMap::new();
        let mut first = HashMap::new();
        for end in ends {
            let Some(name) = self.grid.ends.get(*end).map(workload) else { continue };
            let first = *first.entry(name).or_insert(*end);
            workloads.entry(first).or_default().push(self.line(*end));
        }
        let units: Vec<_> = workloads.into_values().flat_map(merge).collect();
        let nodes = merge(units.iter().enumerate().map(|(index, unit)| unit.clone().called(index)));
        let members = |unit: &usize| units.get(*unit).map(|unit| unit.members.clone());
        nodes.iter().map(|node| node.members.iter().filter_map(members).collect()).collect()
    }

    /// What an end may do and what may be done to it, in one line.
    fn line(&self, end: usize) -> Group {
        let as_source = self.sources.get(&end);
        let row = (0..self.grid.destinations.len()).map(|column| match as_source {
            Some(source) => self.mark(*source, column),
            None => Mark::ABSENT,
        });
        let as_destination = self.destinations.get(&end);
        let column = (0..self.grid.sources.len()).map(|source| match as_destination {
            Some(column) => self.mark(source, *column),
            None => Mark::ABSENT,
        });
        Group::new(end, row.chain(column).collect())
    }

    fn mark(&self, source: usize, destination: usize) -> Mark {
        self.grid.column(destination).get(source).copied().unwrap_or(Mark::ABSENT)
    }

    /// The pair that stands for all pairs of equal ends, and its cell; `None` where none of them was chosen.
    pub(super) fn pair(&self, from: &[usize], to: &[usize]) -> Option<(usize, usize, &'g Cell)> {
        let mut found: Option<(usize, usize, &Cell)> = None;
        for from in from {
            for to in to {
                let (source, destination) = self.sources.get(from).zip(self.destinations.get(to))?;
                let mark = self.mark(*source, *destination);
                let pair = (*from, *to, self.grid.cell(mark));
                if !mark.is_singular() {
                    return Some(pair);
                }
                found = found.filter(|(_, _, cell)| **cell != Cell::Itself).or(Some(pair));
            }
        }
        found
    }
}
