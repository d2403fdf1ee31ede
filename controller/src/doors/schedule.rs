//! When to look again, since the kernel reports no change of addresses in another namespace.

use std::time::{Duration, Instant};

/// The first pause after something has changed; it doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(10);

/// Looks that become rarer.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    pause: Duration,
    due: Option<Instant>,
}

impl Schedule {
    /// Whether it is time to look again.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Whether nothing has changed for so long that the pauses grow no more.
    pub(super) fn is_calm(&self) -> bool {
        self.pause >= LONGEST
    }

    /// Begins anew: something has changed.
    pub(super) fn begin(&mut self) {
        self.pause = FIRST;
        self.due = Some(Instant::now() + FIRST);
    }

    /// Makes the next pause longer: what was due is done.
    pub(super) fn go_on(&mut self) {
        self.pause = (self.pause * 2).clamp(FIRST, LONGEST);
        self.due = Some(Instant::now() + self.pause);
    }

    /// There is nothing to look at.
    pub(super) fn end(&mut self) {
        self.due = None;
    }

    /// How long it is until the next look.
    pub(super) fn remaining(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }
}
