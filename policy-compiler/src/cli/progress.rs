//! A line on a terminal that says that something takes its time.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the line changes. What is over sooner shows none.
const INTERVAL: Duration = Duration::from_millis(500);

/// Back to the beginning of the line, and nothing left of it.
const CLEAR: &str = "\r\x1b[K";

/// The line. It is gone when this is dropped, and there is none where standard error is no terminal.
pub(crate) struct Progress {
    state: Arc<Mutex<State>>,
    /// Dropped to end the thread that writes.
    _running: Option<Sender<()>>,
}

struct State {
    text: &'static str,
    begin: Instant,
    bytes: u64,
    is_shown: bool,
    is_over: bool,
}

impl Progress {
    /// Shows `text`, with the time that has passed since, until it is dropped.
    pub(crate) fn start(text: &'static str) -> Self {
        let state = State { text, begin: Instant::now(), bytes: 0, is_shown: false, is_over: false };
        let state = Arc::new(Mutex::new(state));
        let running = io::stderr().is_terminal().then(|| {
            let (running, ended) = mpsc::channel::<()>();
            let state = state.clone();
            thread::spawn(move || {
                while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    lock(&state).show();
                }
            });
            running
        });
        Self { state, _running: running }
    }

    /// The same source, with the bytes that are read from it shown.
    pub(crate) fn count<'a>(&'a self, source: impl Read + 'a) -> impl Read + 'a {
        Counted { source, state: &self.state }
    }

    /// Writes something else to standard error.
    pub(crate) fn interrupt(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        state.clear();
        // Without standard error there is nobody to tell.
        let _ = io::stderr().write_all(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.clear();
        state.is_over = true;
    }
}

impl State {
    fn show(&mut self) {
        if self.is_over {
            return;
        }
        let Self { text, begin, bytes, .. } = self;
        let seconds = begin.elapsed().as_secs();
        let size = if *bytes > 0 { format!(", {} MiB", *bytes >> 20) } else { String::new() };
        let _ = write!(io::stderr(), "{CLEAR}{text} … {seconds} s{size}");
        self.is_shown = true;
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let _ = write!(io::stderr(), "{CLEAR}");
        }
    }
}

struct Counted<'a, R> {
    source: R,
    state: &'a Mutex<State>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        lock(self.state).bytes += length as u64;
        Ok(length)
    }
}

/// A thread that panicked while it wrote left nothing behind that matters.
fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
