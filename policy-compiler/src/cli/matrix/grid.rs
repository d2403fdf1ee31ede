//! All cells, and how equal lines of them become one.

use std::collections::HashMap;

use super::answers::Answers;
use super::cell::Cell;
use super::end::End;
use crate::cli::args::Only;

/// A cell's place among the different ones, and whether it holds for pairs like this one: what a pod may send to
/// itself or to its own node says nothing about others, so it agrees with every cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u32);

impl Mark {
    /// The bit of what holds for this pair alone.
    const SINGULAR: u32 = 1 << 31;

    /// In the place of a pair that was not chosen.
    pub(super) const ABSENT: Self = Self(Self::SINGULAR - 1);

    /// The place of [`Cell::Itself`].
    const ITSELF: usize = 0;

    pub(super) fn new(cell: usize, singular: bool) -> Self {
        let cell = u32::try_from(cell).unwrap_or(Self::SINGULAR - 1);
        Self(if singular { cell | Self::SINGULAR } else { cell })
    }

    pub(super) fn cell(self) -> usize {
        (self.0 & !Self::SINGULAR) as usize
    }

    pub(super) fn is_singular(self) -> bool {
        self.0 & Self::SINGULAR != 0
    }

    fn is_itself(self) -> bool {
        self == Self::new(Self::ITSELF, true)
    }
}

/// The cells of every source and every destination that were chosen.
pub(super) struct Grid<'a> {
    pub(super) ends: Vec<End<'a>>,
    /// The chosen sources, by their places in `ends`.
    pub(super) sources: Vec<usize>,
    /// The chosen destinations.
    pub(super) destinations: Vec<usize>,
    /// The column of each destination, a mark for each source.
    columns: Vec<Vec<Mark>>,
    cells: Vec<Cell>,
    pub(super) only: Option<Only>,
    /// Whether something is allowed between a pod and the network of its own node.
    pub(super) within_nodes: bool,
    /// How many pairs have which answer.
    pub(super) tally: Tally,
}

/// How many pairs have which answer, without pods and themselves.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) allowed: usize,
    pub(super) denied: usize,
    pub(super) partly: usize,
}

/// The places of all different cells.
struct Cells {
    different: Vec<Cell>,
    places: HashMap<Cell, usize>,
}

impl<'a> Grid<'a> {
    pub(super) fn new(
        ends: Vec<End<'a>>,
        sources: Vec<usize>,
        destinations: Vec<usize>,
        only: Option<Only>,
        answers: &mut Answers<'a>,
    ) -> Self {
        let mut cells =
            Cells { different: vec![Cell::Itself], places: HashMap::from([(Cell::Itself, Mark::ITSELF)]) };
        let mut of_answers: Vec<usize> = Vec::new();
        let mut tally = Tally::default();
        let mut within_nodes = false;
        let chosen = |members: &[usize]| -> Vec<(usize, &End<'a>)> {
            members.iter().filter_map(|index| Some((*index, ends.get(*index)?))).collect()
        };
        let (from_ends, to_ends) = (chosen(&sources), chosen(&destinations));
        let mut columns = Vec::with_capacity(to_ends.len());
        for (_, to) in &to_ends {
            let mut column = Vec::with_capacity(from_ends.len());
            for (_, from) in &from_ends {
                if from.is_itself(to) {
                    column.push(Mark::new(Mark::ITSELF, true));
                    continue;
                }
                let answer = answers.index_of(from, to);
                for answer in answers.different().iter().skip(of_answers.len()) {
                    of_answers.push(cells.place(Cell::new(answer, only)));
                }
                let cell = of_answers.get(answer).copied().unwrap_or(Mark::ITSELF);
                let outside = from.pod.is_none() && to.pod.is_none();
                let on_node = from.is_on_node_of(to);
                column.push(Mark::new(cell, outside || on_node));
                if let Some(cell) = cells.different.get(cell) {
                    tally.add(cell);
                    within_nodes |= on_node && *cell == Cell::Allowed;
                }
            }
            columns.push(column);
        }
        Self { ends, sources, destinations, columns, cells: cells.different, only, within_nodes, tally }
    }

    /// The cell of a mark.
    pub(super) fn cell(&self, mark: Mark) -> &Cell {
        self.cells.get(mark.cell()).unwrap_or(&Cell::NotAsked)
    }

    /// The column of a destination, by its place among the destinations.
    pub(super) fn column(&self, destination: usize) -> &[Mark] {
        self.columns.get(destination).map_or(&[], Vec::as_slice)
    }

    /// Whether a line says nothing of what was wanted.
    pub(super) fn is_empty(&self, line: &[Mark]) -> bool {
        line.iter().all(|mark| self.cell(*mark).is_empty())
    }

    /// Whether nothing is left of what was wanted.
    pub(super) fn is_blank(&self) -> bool {
        self.columns.iter().all(|column| self.is_empty(column))
    }
}

impl Cells {
    fn place(&mut self, cell: Cell) -> usize {
        *self.places.entry(cell).or_insert_with_key(|cell| {
            self.different.push(cell.clone());
            self.different.len() - 1
        })
    }
}

impl Grid<'_> {
    /// How many pairs have which answer, in words.
    pub(super) fn summary(&self) -> String {
        let Tally { allowed, denied, partly } = self.tally;
        let counts = [
            (allowed, "allowed", self.only != Some(Only::Denied)),
            (denied, "denied", self.only != Some(Only::Allowed)),
            (partly, "allowed on some ports only", true),
        ];
        let counts = counts.iter().filter(|(.., is_shown)| *is_shown);
        let counts: Vec<_> = counts.map(|(count, word, _)| format!("{count} {word}")).collect();
        format!("Pairs: {}.", counts.join(", "))
    }

    /// The different cells that there are, each with its meaning.
    pub(super) fn legend(&self) -> Vec<(Cell, &'static str)> {
        let meanings = [
            (Cell::Allowed, "allowed"),
            (Cell::Denied, "denied"),
            (Cell::Partly("80".to_owned()), "only this port"),
            (Cell::NotAsked, "nothing to ask"),
            (Cell::Itself, "itself"),
        ];
        let is_there = |wanted: &Cell| match wanted {
            Cell::Itself => self.columns.iter().flatten().any(|mark| mark.is_itself()),
            _ => self.cells.iter().any(|cell| std::mem::discriminant(cell) == std::mem::discriminant(wanted)),
        };
        meanings.into_iter().filter(|(cell, _)| is_there(cell)).collect()
    }

    /// What the cells do not say.
    pub(super) fn notes(&self) -> Option<&'static str> {
        let is_hidden = self.within_nodes && self.tally.denied + self.tally.partly > 0;
        is_hidden.then_some("A hostNetwork pod may also reach, and be reached by, pods of its own node.")
    }
}

impl Tally {
    pub(super) fn add(&mut self, cell: &Cell) {
        match cell {
            Cell::Allowed => self.allowed += 1,
            Cell::Denied => self.denied += 1,
            Cell::Partly(_) => self.partly += 1,
            Cell::Itself | Cell::LeftOut | Cell::NotAsked => {}
        }
    }
}

/// Lines of cells that are equal, but for what is singular.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// Whose lines they are.
    pub(super) members: Vec<usize>,
    /// What they have in common.
    pub(super) marks: Vec<Mark>,
    /// Whether they are all that other groups leave.
    pub(super) is_rest: bool,
    /// What the members may send to one another.
    within: Option<Mark>,
}

/// Merges equal lines, in the order in which each is met first.
pub(super) fn merge(lines: impl IntoIterator<Item = Group>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for line in lines {
        match groups.iter_mut().find(|group| group.agrees(&line)) {
            Some(group) => group.take_in(line),
            None => groups.push(line),
        }
    }
    groups
}

impl Group {
    /// A line by itself.
    pub(super) fn new(member: usize, marks: Vec<Mark>) -> Self {
        Self { members: vec![member], marks, is_rest: false, within: None }
    }

    /// The same line as that of somebody else.
    pub(super) fn called(self, member: usize) -> Self {
        Self { members: vec![member], ..self }
    }

    /// Whether the lines are equal, and what the one's members may send to the other's is what those may send back.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let mut within = self.within.or(other.within);
        let mut fits = |mark: Mark| mark.is_singular() || *within.get_or_insert(mark) == mark;
        self.within.is_none_or(&mut fits)
            && other.within.is_none_or(&mut fits)
            && self.marks.iter().zip(&other.marks).all(|(one, other)| {
                one == other
                    || match (one.is_itself(), other.is_itself()) {
                        (true, _) => fits(*other),
                        (_, true) => fits(*one),
                        _ => one.is_singular() || other.is_singular(),
                    }
            })
    }

    pub(super) fn take_in(&mut self, other: Self) {
        self.members.extend(other.members);
        self.within = self.within.or(other.within);
        for (mark, other) in self.marks.iter_mut().zip(other.marks) {
            let (itself, other_itself) = (mark.is_itself(), other.is_itself());
            if itself != other_itself {
                let sent = if itself { other } else { *mark };
                self.within = self.within.or(Some(sent).filter(|sent| !sent.is_singular()));
            }
            if mark.is_singular() && (!other.is_singular() || itself) {
                *mark = other;
            }
        }
    }
}
