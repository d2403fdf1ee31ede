//! How often something may happen.

use std::time::{Duration, Instant};

/// A token bucket: so many at once, and then one in every so often.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    most: u32,
    interval: Duration,
    left: u32,
    /// When the last one was added to what is left.
    at: Instant,
}

impl TokenBucket {
    /// `most` at once, of which one comes back every `interval`.
    pub(crate) fn new(most: u32, interval: Duration, now: Instant) -> Self {
        Self { most, interval, left: most, at: now }
    }

    /// Takes one, if one is left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let any = self.left > 0;
        self.left -= u32::from(any);
        any
    }

    /// Whether none is missing.
    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left == self.most
    }

    fn refill(&mut self, now: Instant) {
        let come = now.saturating_duration_since(self.at).as_nanos() / self.interval.as_nanos().max(1);
        let come = u32::try_from(come).unwrap_or(u32::MAX);
        if come >= self.most - self.left {
            (self.left, self.at) = (self.most, now);
        } else {
            self.left += come;
            self.at += self.interval * come;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_one_by_one() {
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut bucket = TokenBucket::new(2, Duration::from_millis(10), start);
        assert_eq!([0, 0, 0].map(|at| bucket.take(after(at))), [true, true, false]);
        assert_eq!([9, 10, 11, 19].map(|at| bucket.take(after(at))), [false, true, false, false]);
        assert_eq!([20, 39].map(|at| bucket.is_full(after(at))), [false, true]);
        assert_eq!([1000, 1000, 1000].map(|at| bucket.take(after(at))), [true, true, false]);
    }
}
