//! Which denials are logged, and which only counted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Denial, Subject};
use crate::token_bucket::TokenBucket;

/// How long a denial that has been logged is only counted; twice as long each time that it goes on.
const FIRST_SILENCE: Duration = Duration::from_secs(5);
const LONGEST_SILENCE: Duration = Duration::from_secs(320);

/// How many denials of one isolated pod are logged at once, and how soon another one is.
const OF_A_POD: (u32, Duration) = (50, Duration::from_secs(1));

/// The same of all pods together.
const IN_ALL: (u32, Duration) = (200, Duration::from_millis(50));

/// How many denials are remembered.
const MEMORY: usize = 1024;

/// What has been logged lately.
pub(super) struct Tally {
    logged: HashMap<Denial, Logged>,
    /// Of the pods of which something has been logged lately.
    of_pods: HashMap<Subject, TokenBucket>,
    in_all: TokenBucket,
}

struct Logged {
    at: Instant,
    silence: Duration,
    /// How many packets have been like it since.
    repeated: u64,
}

/// What to do about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    /// It is news.
    Log,
    /// One like it has been logged a short time ago.
    Count,
    /// There are too many.
    Omit,
}

impl Tally {
    pub(super) fn new(now: Instant) -> Self {
        let (most, interval) = IN_ALL;
        Self {
            logged: HashMap::new(),
            of_pods: HashMap::new(),
            in_all: TokenBucket::new(most, interval, now),
        }
    }

    /// Takes a packet in.
    pub(super) fn note(&mut self, denial: &Denial, now: Instant) -> Treatment {
        if let Some(logged) = self.logged.get_mut(denial) {
            logged.repeated += 1;
            return Treatment::Count;
        }
        let (most, interval) = OF_A_POD;
        let of_pod =
            self.of_pods.entry(denial.subject()).or_insert_with(|| TokenBucket::new(most, interval, now));
        if self.logged.len() < MEMORY && of_pod.take(now) && self.in_all.take(now) {
            self.logged.insert(denial.clone(), Logged { at: now, silence: FIRST_SILENCE, repeated: 0 });
            Treatment::Log
        } else {
            Treatment::Omit
        }
    }

    /// Those of which it is time to say how many packets have been like them, with that number. What has not
    /// happened again is forgotten.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Denial, u64)> {
        let mut due = Vec::new();
        let in_all = &mut self.in_all;
        self.logged.retain(|denial, logged| {
            let over = now.saturating_duration_since(logged.at) >= logged.silence;
            if over && logged.repeated > 0 && in_all.take(now) {
                due.push((denial.clone(), logged.repeated));
                let silence = (logged.silence * 2).min(LONGEST_SILENCE);
                *logged = Logged { at: now, silence, repeated: 0 };
                return true;
            }
            !over || logged.repeated > 0
        });
        self.of_pods.retain(|_, bucket| !bucket.is_full(now));
        due
    }

    /// Whether there is nothing that could become due.
    pub(super) fn is_empty(&self) -> bool {
        self.logged.is_empty() && self.of_pods.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use policy_compiler::model::Direction;
    use policy_compiler::ruleset::{LogEvent, LogPrefix};

    use super::super::flow::Flow;
    use super::*;

    /// A packet from a source to a pod and a port.
    fn denial(pod: u8, port: u16) -> Denial {
        let [high, low] = port.to_be_bytes();
        let packet = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 10, 0, 0, pod, 0, 1, high, low];
        let prefix = LogPrefix::Judged { direction: Direction::Ingress, event: LogEvent::Denied };
        Denial { prefix, flow: Flow::of(&packet), device: None }
    }

    #[test]
    fn what_has_been_told_is_counted_and_told_again_after_a_silence() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        let (often, once) = (denial(1, 80), denial(2, 80));
        assert_eq!([&often, &once].map(|denial| tally.note(denial, start)), [Treatment::Log; 2]);
        for _ in 0..5000 {
            assert_eq!(tally.note(&often, start), Treatment::Count);
        }
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(tally.due(after(4)), []);
        assert_eq!(tally.due(after(5)), [(often.clone(), 5000)]);
        assert_eq!(tally.note(&often, after(5)), Treatment::Count);
        assert_eq!(tally.note(&once, after(5)), Treatment::Log);
        assert_eq!(tally.due(after(14)), []);
        assert_eq!(tally.due(after(15)), [(often, 1)]);
        assert_eq!(tally.due(after(35)), []);
        assert!(tally.is_empty());
    }

    #[test]
    fn many_denials_of_one_pod_leave_room_for_those_of_others() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        let logged = (1..5000).filter(|port| tally.note(&denial(1, *port), start) == Treatment::Log);
        assert_eq!(logged.count(), 50);
        assert_eq!(tally.note(&denial(2, 80), start), Treatment::Log);
        assert_eq!(tally.note(&denial(1, 9000), start + Duration::from_secs(1)), Treatment::Log);
    }

    #[test]
    fn memory_is_bounded() {
        let mut now = Instant::now();
        let mut tally = Tally::new(now);
        let mut logged = 0;
        for port in 1..=60_001 {
            now += Duration::from_millis(1);
            for pod in [1, 2] {
                logged += usize::from(tally.note(&denial(pod, port), now) == Treatment::Log);
            }
            tally.due(now);
        }
        // Fifty at once, and one every second.
        assert_eq!(logged, 2 * (50 + 60));
        assert!(tally.logged.len() <= 2 * 6, "what does not happen again is forgotten");
        assert_eq!(tally.of_pods.len(), 2);
    }
}
