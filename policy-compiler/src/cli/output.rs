//! Standard output: one lock, one buffer, and colours where somebody sees them.

use std::io::{self, BufWriter, StdoutLock, Write};

use anstyle::{AnsiColor, Style};

/// Large enough that millions of rows cost few system calls.
const BUFFER_BYTES: usize = 1 << 18;

/// The width of tables where neither a terminal nor `COLUMNS` says otherwise.
const WIDTH: usize = 100;

/// How a command that did its work ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Exit code 0.
    Fine,
    /// Exit code 1: the answer is "denied".
    Denied,
}

/// Standard output.
pub(crate) struct Output {
    writer: BufWriter<StdoutLock<'static>>,
    /// The styles to write with.
    pub(crate) styles: Styles,
    /// How many columns a line should not exceed.
    pub(crate) width: usize,
}

/// What is told apart by colour. All plain unless a terminal shows them and `NO_COLOR` is not set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Styles {
    /// What is allowed.
    pub(crate) allow: Style,
    /// What is denied.
    pub(crate) deny: Style,
    /// What is allowed in part.
    pub(crate) partly: Style,
    /// Headings.
    pub(crate) heading: Style,
    /// What matters less.
    pub(crate) dim: Style,
}

impl Output {
    pub(crate) fn stdout() -> Self {
        let stdout = io::stdout();
        let coloured = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        let terminal = terminal_size::terminal_size_of(&stdout).map(|(width, _)| width.0.into());
        let width = terminal.or_else(wanted_width).unwrap_or(WIDTH);
        Self {
            writer: BufWriter::with_capacity(BUFFER_BYTES, stdout.lock()),
            styles: if coloured { Styles::coloured() } else { Styles::default() },
            width,
        }
    }
}

/// What `COLUMNS` says, as for the programs of POSIX that make columns.
fn wanted_width() -> Option<usize> {
    std::env::var("COLUMNS").ok()?.parse().ok().filter(|width| *width > 0)
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Styles {
    fn coloured() -> Self {
        Self {
            allow: AnsiColor::Green.on_default(),
            deny: AnsiColor::Red.on_default().bold(),
            partly: AnsiColor::Yellow.on_default(),
            heading: Style::new().bold(),
            dim: Style::new().dimmed(),
        }
    }

    /// The style of what is allowed or denied.
    pub(crate) fn verdict(&self, allowed: bool) -> Style {
        if allowed { self.allow } else { self.deny }
    }
}

/// Whether the error is that nobody reads standard output any longer, as behind `| head`.
pub(crate) fn reader_left(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
