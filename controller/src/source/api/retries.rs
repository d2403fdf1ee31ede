//! What is tried again, and when.

use std::time::Duration;

/// The wait after the first failure; it doubles up to [`LONGEST_RETRY`], and up to a half of it is left out by
/// chance, so that not all nodes come back at once.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(4);
/// The longest wait where it is urgent: a node that has booted is to be current within a second of the API server.
const LONGEST_URGENT_RETRY: Duration = Duration::from_millis(700);

/// Failures in a row.
#[derive(Default)]
pub(super) struct Retries {
    failures: u32,
    /// What failed last.
    reason: String,
    /// Whether nothing is known yet, and nobody answers who could be overburdened.
    urgent: bool,
}

impl Retries {
    /// Whether something else failed before.
    pub(super) fn is_new(&mut self, reason: &str) -> bool {
        let new = self.reason != reason;
        reason.clone_into(&mut self.reason);
        new
    }

    /// Says whether nothing is known yet, and nobody answers. A server that begins to answer is tried again soon.
    pub(super) fn set_urgent(&mut self, urgent: bool) {
        if self.urgent && !urgent {
            self.failures = 0;
        }
        self.urgent = urgent;
    }

    /// Counts a failure; returns how long to wait after it.
    pub(super) fn wait(&mut self) -> Duration {
        let longest = if self.urgent { LONGEST_URGENT_RETRY } else { LONGEST_RETRY };
        let wait = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(self.failures)).min(longest);
        self.failures += 1;
        wait.mul_f64(1.0 - fastrand::f64() / 2.0)
    }

    /// Counts a success; whether there were failures before it.
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(self).failures > 0
    }
}
