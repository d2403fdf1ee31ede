//! What is tried again, and when.

use std::time::Duration;

/// The wait after the first failure; it doubles up to [`LONGEST_RETRY`], and up to a half of it is left out by
/// chance, so that not all nodes come back at once.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(4);

/// Failures in a row.
#[derive(Default)]
pub(super) struct Retries {
    failures: u32,
    /// What failed last.
    reason: String,
}

impl Retries {
    /// Whether something else failed before.
    pub(super) fn is_new(&mut self, reason: &str) -> bool {
        let new = self.reason != reason;
        reason.clone_into(&mut self.reason);
        new
    }

    /// Counts a failure; returns how long to wait after it.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST_RETRY);
        self.failures += 1;
        wait.mul_f64(1.0 - fastrand::f64() / 2.0)
    }

    /// Counts a success; whether there were failures before it.
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(self).failures > 0
    }
}
