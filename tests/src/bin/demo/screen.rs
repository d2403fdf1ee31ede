//! How the demo looks: colours on a terminal only, and not where `NO_COLOR` is set.

use std::io::{IsTerminal, Write, stdout};
use std::time::Instant;

/// The terminal, or what stands for it.
pub(crate) struct Screen {
    colours: bool,
    begin: Instant,
}

const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const FAINT: &str = "2";

impl Screen {
    pub(crate) fn new() -> Self {
        let colours =
            stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colours, begin: Instant::now() }
    }

    /// Begins a part of the demo.
    pub(crate) fn step(&self, title: &str) {
        let time = format!("[{:4.1} s]", self.begin.elapsed().as_secs_f64());
        print(&format!("\n{} {}\n", self.paint(FAINT, &time), self.paint(BOLD, title)));
    }

    pub(crate) fn line(&self, text: &str) {
        print(format!("  {text}").trim_end());
        print("\n");
    }

    pub(crate) fn success(&self, text: &str) {
        print(&format!("  {} {text}\n", self.paint(GREEN, "✓")));
    }

    pub(crate) fn failure(&self, text: &str) {
        print(&format!("  {} {text}\n", self.paint(RED, "✗")));
    }

    /// Two grids side by side: rows are sources, columns are destinations in the same order.
    pub(crate) fn grids(&self, port: u16, names: &[&str], said: &[Vec<bool>], measured: &[Vec<bool>]) {
        let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
        let columns = |titles: &mut dyn Iterator<Item = String>| titles.collect::<Vec<_>>().join(" ");
        let numbers = || columns(&mut (1..=names.len()).map(|number| format!("{number:>2}")));
        let gap = " ".repeat(6);
        self.line("");
        self.line(&format!(
            "{:<indent$}  {:<grid$}{gap}the packets did",
            format!("TCP {port}"),
            "the policies say",
            indent = width + 3,
            grid = numbers().len().max(16),
        ));
        let grid = numbers().len();
        let pad = " ".repeat(16_usize.saturating_sub(grid));
        self.line(&format!(
            "{:indent$}  {}{pad}{gap}{}",
            "from ↓ to →",
            numbers(),
            numbers(),
            indent = width + 3
        ));
        for (index, name) in names.iter().enumerate() {
            let cells = |row: Option<&Vec<bool>>| {
                columns(&mut row.into_iter().flatten().map(|allowed| format!(" {}", self.mark(*allowed))))
            };
            let label = format!("{} {name:<width$}", index + 1);
            self.line(&format!(
                "{label:<indent$}  {}{pad}{gap}{}",
                cells(said.get(index)),
                cells(measured.get(index)),
                indent = width + 3
            ));
        }
    }

    fn mark(&self, allowed: bool) -> String {
        if allowed { self.paint(GREEN, "✓") } else { self.paint(RED, "✗") }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A closed terminal is no reason to fail.
fn print(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
