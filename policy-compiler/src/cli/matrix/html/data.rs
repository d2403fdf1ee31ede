//! What the page knows, as its script reads it.

use std::collections::HashMap;
use std::hash::Hash;

use policy_compiler::explain::{Rule, Side};
use policy_compiler::judge::Judge;
use serde::Serialize;

use super::super::cell::Cell;
use super::super::end::{Asked, End};
use super::super::grid::Grid;
use super::super::nodes::{Nodes, Unit};
use crate::cli::explain::{self, Question};

/// So many characters of explanations a page has at most, about: browsers become slow with more.
const CHARACTERS: usize = 2_000_000;

/// What a number in a list takes, about.
const NUMBER: usize = 6;

/// Everything. What is the same in many places is listed once, and named by its place in the list.
#[derive(Serialize)]
pub(super) struct Data<'g> {
    summary: String,
    note: Option<&'static str>,
    /// The full names of pods and addresses.
    ends: Vec<&'g str>,
    namespaces: Vec<Namespace<'g>>,
    units: Vec<UnitData>,
    cells: Vec<CellData<'g>>,
    /// For each unit as a source, the cell for each unit as a destination; none where it was not chosen.
    matrix: Vec<Vec<Option<usize>>>,
    /// For each cell of `matrix` its reasons, where there are any.
    why: Vec<Vec<Option<usize>>>,
    reasons: Vec<Reasons>,
    traffic: Vec<String>,
    sides: Vec<SideData>,
    lines: Vec<Line>,
}

#[derive(Serialize)]
struct Namespace<'g> {
    name: &'g str,
    /// Units that are alike, by their places in `units`.
    nodes: Vec<Vec<usize>>,
}

#[derive(Serialize)]
struct UnitData {
    name: String,
    /// The places of the pods in `ends`.
    members: Unit,
}

#[derive(Serialize, PartialEq, Eq, Hash, Clone)]
struct CellData<'g> {
    kind: &'static str,
    text: &'g str,
}

/// The ends of an example, and what may pass there and why.
#[derive(Serialize, PartialEq, Eq, Hash, Clone)]
struct Reasons(usize, usize, Vec<Part>);

/// Traffic of which the same is to be said, and what egress and ingress say, by their places.
#[derive(Serialize, PartialEq, Eq, Hash, Clone)]
struct Part(usize, usize, usize);

/// What a direction says: whether it allows the connection, and the lines, by their places.
#[derive(Serialize, PartialEq, Eq, Hash, Clone)]
struct SideData(bool, Vec<usize>);

/// A line of an explanation: how far it is indented, its text, and where in the manifests that is.
#[derive(Serialize, PartialEq, Eq, Hash, Clone)]
struct Line(u8, String, Option<String>);

/// A list of different things.
struct Listed<T> {
    items: Vec<T>,
    places: HashMap<T, usize>,
}

impl<T: Clone + Eq + Hash> Listed<T> {
    fn new() -> Self {
        Self { items: Vec::new(), places: HashMap::new() }
    }

    fn place(&mut self, item: T) -> usize {
        *self.places.entry(item).or_insert_with_key(|item| {
            self.items.push(item.clone());
            self.items.len() - 1
        })
    }
}

impl<'g> Data<'g> {
    pub(super) fn new<'a>(grid: &'g Grid<'a>, judge: &Judge<'a>) -> Self {
        let nodes = Nodes::new(grid);
        let mut units: Vec<Unit> = Vec::new();
        let mut namespaces = Vec::new();
        for (name, members) in nodes.by_namespace() {
            let places = members.iter().map(|node| {
                let first = units.len();
                units.extend(node.iter().cloned());
                (first..units.len()).collect()
            });
            namespaces.push(Namespace { name, nodes: places.collect() });
        }
        let mut cells = Listed::new();
        let mut explanations = Explanations::new(judge, &grid.ends);
        let (mut matrix, mut why) = (Vec::new(), Vec::new());
        for from in &units {
            let pairs: Vec<_> = units.iter().map(|to| nodes.pair(from, to)).collect();
            matrix.push(
                pairs.iter().map(|pair| pair.map(|(.., cell)| cells.place(CellData::new(cell)))).collect(),
            );
            let reasons = |pair: &Option<(usize, usize, &Cell)>| {
                let (from, to, cell) = (*pair)?;
                let is_asked = !matches!(cell, Cell::Itself | Cell::NotAsked | Cell::LeftOut);
                is_asked.then(|| explanations.of(from, to)).flatten()
            };
            why.push(pairs.iter().map(reasons).collect());
        }
        let name = |unit: &Unit| nodes.names.list(unit).join(", ");
        let units = units.into_iter().map(|members| UnitData { name: name(&members), members });
        Self {
            summary: grid.summary(),
            note: grid.notes(),
            ends: grid.ends.iter().map(|end| end.name.as_str()).collect(),
            namespaces,
            units: units.collect(),
            cells: cells.items,
            matrix,
            why,
            reasons: explanations.reasons.items,
            traffic: explanations.traffic.items,
            sides: explanations.sides.items,
            lines: explanations.lines.items,
        }
    }
}

impl<'g> CellData<'g> {
    fn new(cell: &'g Cell) -> Self {
        let kind = match cell {
            Cell::Itself => "itself",
            Cell::LeftOut => "left-out",
            Cell::NotAsked => "not-asked",
            Cell::Allowed => "allowed",
            Cell::Denied => "denied",
            Cell::Partly(_) => "partly",
        };
        Self { kind, text: cell.text() }
    }
}

/// The reasons so far.
struct Explanations<'j, 'g, 'a> {
    judge: &'j Judge<'a>,
    ends: &'g [End<'a>],
    /// How many characters more there may be.
    room: usize,
    reasons: Listed<Reasons>,
    traffic: Listed<String>,
    sides: Listed<SideData>,
    lines: Listed<Line>,
}

impl<'j, 'g, 'a> Explanations<'j, 'g, 'a> {
    fn new(judge: &'j Judge<'a>, ends: &'g [End<'a>]) -> Self {
        let (reasons, traffic, sides, lines) = (Listed::new(), Listed::new(), Listed::new(), Listed::new());
        Self { judge, ends, room: CHARACTERS, reasons, traffic, sides, lines }
    }

    /// What `podfence explain` says of a pair; `None` where there is no room for it.
    fn of(&mut self, source: usize, destination: usize) -> Option<usize> {
        let (from, to) = self.ends.get(source).zip(self.ends.get(destination)).filter(|_| self.room > 0)?;
        let asked = match &to.asked {
            Asked::Everything => explain::Asked::Everything,
            Asked::Traffic(traffic) => {
                explain::Asked::Only(traffic.iter().map(|traffic| (*traffic).into()).collect())
            }
        };
        let mut parts: Vec<(String, [usize; 2])> = Vec::new();
        for answer in Question::between(from.party, to.party, asked).answers(self.judge) {
            let family = answer.family.map(|family| format!(" over {family}")).unwrap_or_default();
            let traffic = format!("{}{family}", answer.traffic);
            let sides = [self.side(&answer.egress), self.side(&answer.ingress)];
            match parts.iter_mut().find(|(_, others)| *others == sides) {
                Some((others, _)) => *others = format!("{others}, {traffic}"),
                None => parts.push((traffic, sides)),
            }
        }
        let parts = parts.into_iter();
        let parts: Vec<_> = parts
            .map(|(traffic, [egress, ingress])| Part(self.traffic.place(traffic), egress, ingress))
            .collect();
        self.take((2 + 3 * parts.len()) * NUMBER);
        (!parts.is_empty()).then(|| self.reasons.place(Reasons(source, destination, parts)))
    }

    fn side(&mut self, side: &Side) -> usize {
        let word = if side.verdict.allows() { "allowed" } else { "denied" };
        let direction = side.direction();
        let mut lines = vec![Line(0, format!("{direction} {word}: {}", side.reason), None)];
        for rules in side.tiers.chunk_by(|one, other| one.policy == other.policy) {
            lines.extend(rules.first().map(|rule| Line(1, rule.policy_in_words(), None)));
            for rule in rules {
                let words = format!("{} {}", rule.rule_in_words(), rule.effect_in_words());
                lines.push(Line(2, words, rule.origin.clone()));
                lines.extend(lacks(&rule.peers, rule.ports.as_deref()));
            }
        }
        for (policy, rules, hidden) in side.shown() {
            lines.push(Line(1, policy.name.clone(), policy.origin.clone()));
            if policy.rules.is_empty() {
                lines.push(Line(2, format!("has no {direction} rule"), None));
            }
            for rule in rules {
                lines.extend(of_rule(rule));
            }
            if hidden > 0 {
                lines.push(Line(2, format!("and {hidden} rules further from it"), None));
            }
        }
        let before = (self.lines.items.len(), self.sides.items.len());
        let count = lines.len();
        let lines = lines.into_iter().map(|line| self.lines.place(line)).collect();
        let place = self.sides.place(SideData(side.verdict.allows(), lines));
        let new = self.lines.items.get(before.0..).unwrap_or_default();
        let texts: usize =
            new.iter().map(|Line(_, text, origin)| text.len() + origin.as_ref().map_or(0, String::len)).sum();
        self.take(texts + new.len() * 2 * NUMBER + if place == before.1 { count * NUMBER } else { 0 });
        place
    }

    fn take(&mut self, characters: usize) {
        self.room = self.room.saturating_sub(characters);
    }
}

fn of_rule(rule: &Rule) -> impl Iterator<Item = Line> {
    let covers = if rule.covers { " covers it" } else { "" };
    let heading = Line(2, format!("{}{covers}", rule.path), rule.origin.clone());
    [heading].into_iter().chain(lacks(&rule.peers, rule.ports.as_deref()))
}

/// What a rule lacks to cover a connection.
fn lacks(peers: &[String], ports: Option<&str>) -> impl Iterator<Item = Line> {
    let ports = ports.map(|miss| format!("ports: {miss}"));
    peers.iter().cloned().chain(ports).map(|miss| Line(3, miss, None))
}
