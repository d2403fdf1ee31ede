//! The matrix as a graph, for Graphviz.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::cell::Cell;
use super::grid::Grid;
use super::nodes::{Node, Nodes};
use crate::cli::args::Only;

/// Writes a node for ends that are equal as sources and as destinations, and an edge for what is allowed, or for what
/// is denied with `--only denied`. Edges that all nodes of a namespace would have are one, at a node for the namespace.
pub(super) fn write(grid: &Grid<'_>, output: &mut impl Write) -> io::Result<()> {
    let only = grid.only;
    let nodes = Nodes::new(grid);
    let namespaces = nodes.by_namespace();
    let mut graph = Graph { edges: String::new(), whole: vec![false; namespaces.len()] };
    for (from, (_, sources)) in namespaces.iter().enumerate() {
        for (to, (_, destinations)) in namespaces.iter().enumerate() {
            let label = |from: &Node, to: &Node| {
                let (.., cell) = nodes.pair(&from.concat(), &to.concat())?;
                label(cell, only)
            };
            let labels = |from: &Node| destinations.iter().map(|to| label(from, to)).collect();
            graph.add(from, to, &sources.iter().map(labels).collect::<Vec<_>>());
        }
    }
    writeln!(output, "digraph podfence {{\n  rankdir=LR;\n  node [shape=box];")?;
    if only == Some(Only::Denied) {
        writeln!(output, "  edge [color=red, style=dashed];")?;
    }
    for (index, ((place, members), whole)) in namespaces.iter().zip(&graph.whole).enumerate() {
        writeln!(output, "  subgraph cluster_{index} {{\n    label={};", quoted(place))?;
        for (member, node) in members.iter().enumerate() {
            let names = nodes.names.list(&node.concat()).join("\n");
            writeln!(output, "    {} [label={}];", name(index, Some(member)), quoted(&names))?;
        }
        if *whole {
            let names = quoted(&format!("all of {place}"));
            writeln!(output, "    {} [label={names}, shape=ellipse];", name(index, None))?;
        }
        writeln!(output, "  }}")?;
    }
    writeln!(output, "{}}}", graph.edges)
}

/// The edges, and the namespaces at which some of them end as a whole.
struct Graph {
    edges: String,
    whole: Vec<bool>,
}

impl Graph {
    /// Adds the edges from the nodes of one namespace to those of another, by their labels.
    fn add(&mut self, from: usize, to: usize, labels: &[Vec<Option<String>>]) {
        let rows: Vec<_> = labels.iter().map(|row| common(row).filter(|_| from != to).cloned()).collect();
        if let Some(label) = common(&rows) {
            self.edge((from, None), (to, None), label);
            return;
        }
        for (source, (row, whole)) in labels.iter().zip(rows).enumerate() {
            if let Some(label) = whole {
                self.edge((from, Some(source)), (to, None), &label);
                continue;
            }
            for (destination, label) in row.iter().enumerate() {
                if let Some(label) = label {
                    self.edge((from, Some(source)), (to, Some(destination)), label);
                }
            }
        }
    }

    /// As an `xlabel`: Graphviz lays large graphs with a `label` on edges out slowly or not at all.
    fn edge(&mut self, from: (usize, Option<usize>), to: (usize, Option<usize>), label: &str) {
        let label = if label.is_empty() { String::new() } else { format!(" [xlabel={}]", quoted(label)) };
        let [from_name, to_name] = [from, to].map(|(namespace, member)| name(namespace, member));
        // A string takes all that is written.
        let _ = writeln!(self.edges, "  {from_name} -> {to_name}{label};");
        for (namespace, _) in [from, to].into_iter().filter(|(_, member)| member.is_none()) {
            self.whole.get_mut(namespace).into_iter().for_each(|whole| *whole = true);
        }
    }
}

/// What all have, if they are several.
fn common(labels: &[Option<String>]) -> Option<&String> {
    let first = labels.first()?;
    (labels.len() > 1 && labels.iter().all(|label| label == first)).then_some(first.as_ref()).flatten()
}

fn name(namespace: usize, member: Option<usize>) -> String {
    member.map_or_else(|| format!("all_{namespace}"), |member| format!("pods_{namespace}_{member}"))
}

/// The label of an edge; `None` where there is no edge.
fn label(cell: &Cell, only: Option<Only>) -> Option<String> {
    match (cell, only) {
        (Cell::Allowed, _) | (Cell::Denied, Some(Only::Denied)) => Some(String::new()),
        (Cell::Partly(ports), Some(Only::Denied)) => Some(format!("all but {ports}")),
        (Cell::Partly(ports), _) => Some(ports.clone()),
        (Cell::Itself | Cell::LeftOut | Cell::NotAsked | Cell::Denied, _) => None,
    }
}

/// A quoted string of the DOT language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
