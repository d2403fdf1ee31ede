//! Connections tried all the time, in the background, while something happens to the rules.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::flow::Flows;
use crate::namespace::in_thread;
use crate::privilege::raise_file_limit;
use crate::probe::{Outcome, Probe, QUIET};

/// Every probe is tried once in this time: more than 1,000 a second.
const INTERVAL: Duration = Duration::from_micros(800);

/// How many intervals are made up for at once after the machine was busy elsewhere.
const MOST_AT_ONCE: u32 = 4;

/// How long an answer may take. Less than TCP's first retransmission (1 s), so that one dropped packet counts.
const GRACE: Duration = Duration::from_millis(950);

/// How many incidents are described; all are counted.
const MOST_INCIDENTS: usize = 20;

/// What became of the connections tried so far. Those under way count nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that had to come through and were tried.
    pub allowed: u64,
    /// Connections that had to be denied and were tried.
    pub denied: u64,
    /// Connections that had to be denied and came through.
    pub leaks: u64,
    /// Connections that had to come through and did not.
    pub wrong_denials: u64,
    /// The first leaks and wrong denials.
    pub incidents: Vec<Incident>,
}

/// A connection with the wrong outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// What was tried.
    pub probe: String,
    /// When its first packet was sent, after the start of the prober.
    pub after: Duration,
    /// What came of it.
    pub outcome: Outcome,
}

/// Tries connections in the background, each probe more than 1,000 times a second as a new flow, until it is
/// stopped or dropped.
#[derive(Debug)]
pub struct Prober {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    totals: Mutex<Totals>,
}

impl Shared {
    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prober {
    /// Starts trying. TCP and UDP are meant; the other protocols work, at more cost.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub fn start(allowed: &[Probe], denied: &[Probe]) -> Result<Self> {
        let probes = [allowed, denied].concat();
        let allowed = allowed.len();
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("prober".into()).spawn(move || run(&probes, allowed, &seen))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What became of the connections so far.
    pub fn totals(&self) -> Totals {
        self.shared.totals().clone()
    }

    /// Stops trying, waits for the answers that are under way and returns what became of all connections.
    ///
    /// # Errors
    /// The prober ran into trouble of its own, for instance too many open files.
    pub fn stop(mut self) -> Result<Totals> {
        match self.finish() {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            Some(Ok(Err(error))) => Err(error),
            Some(Ok(Ok(()))) | None => Ok(self.totals()),
        }
    }

    fn finish(&mut self) -> Option<std::thread::Result<Result<()>>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        // Who drops a prober instead of stopping it does not want to know.
        let _ = self.finish();
    }
}

/// Tries until it is told to stop. The first `allowed` probes have to come through, the others not.
fn run(probes: &[Probe], allowed: usize, shared: &Shared) -> Result<()> {
    let begin = Instant::now();
    let mut volley = Volley::new()?;
    loop {
        let goes_on = !shared.stop.load(Ordering::Relaxed);
        let concluded = volley.go_on(if goes_on { probes } else { &[] })?;
        let mut totals = shared.totals();
        for Concluded { probe, sent, outcome } in concluded {
            let must_pass = probe < allowed;
            let passed = outcome != Outcome::Denied;
            *(if must_pass { &mut totals.allowed } else { &mut totals.denied }) += 1;
            if must_pass == passed {
                continue;
            }
            *(if must_pass { &mut totals.wrong_denials } else { &mut totals.leaks }) += 1;
            if totals.incidents.len() < MOST_INCIDENTS
                && let Some(probe) = probes.get(probe)
            {
                let after = sent.duration_since(begin);
                totals.incidents.push(Incident { probe: probe.to_string(), after, outcome });
            }
        }
        if !goes_on && volley.waiting.is_empty() {
            return Ok(());
        }
    }
}

/// Tries a connection all the time until its outcome is, and stays, `expected`, and returns how long after the
/// call the first such try was sent.
pub(crate) fn wait_for(probe: &Probe, expected: Outcome, bound: Duration) -> Result<Duration> {
    let begin = Instant::now();
    in_thread(|| {
        let mut volley = Volley::new()?;
        let mut other_until = begin;
        let mut last = None;
        while begin.elapsed() < bound {
            for Concluded { sent, outcome, .. } in volley.go_on(std::slice::from_ref(probe))? {
                last = Some(outcome);
                if outcome != expected {
                    other_until = other_until.max(sent);
                } else if expected != Outcome::Denied {
                    return Ok(sent.duration_since(begin));
                }
            }
            // Silence is known to be silence only after a while.
            if expected == Outcome::Denied && other_until.elapsed() >= QUIET {
                return Ok(other_until.duration_since(begin));
            }
        }
        bail!("{probe} is not {expected:?} after {bound:?}, but {last:?}")
    })
}

/// Flows that are opened at a steady rate and given up after [`GRACE`].
struct Volley {
    flows: Flows<(usize, Instant)>,
    waiting: VecDeque<(Instant, u64)>,
    next: Instant,
}

/// A flow with an answer, or without one for long enough.
struct Concluded {
    probe: usize,
    sent: Instant,
    outcome: Outcome,
}

impl Volley {
    fn new() -> Result<Self> {
        raise_file_limit();
        Ok(Self { flows: Flows::new()?, waiting: VecDeque::new(), next: Instant::now() })
    }

    /// Opens the flows that are due, waits until the next are, and returns what was concluded meanwhile.
    fn go_on(&mut self, probes: &[Probe]) -> Result<Vec<Concluded>> {
        for _ in 0..MOST_AT_ONCE {
            let now = Instant::now();
            if self.next > now {
                break;
            }
            for (index, probe) in probes.iter().enumerate() {
                let token = self.flows.open(probe, (index, now))?;
                self.waiting.push_back((now, token));
            }
            self.next += INTERVAL;
        }
        self.next = self.next.max(Instant::now());

        let replies = self.flows.wait(self.next.saturating_duration_since(Instant::now()))?;
        let mut concluded: Vec<_> = replies
            .into_iter()
            .map(|((probe, sent), reply)| Concluded { probe, sent, outcome: reply.outcome })
            .collect();
        while let Some((sent, token)) = self.waiting.front().copied()
            && sent.elapsed() > GRACE
        {
            self.waiting.pop_front();
            if let Some((probe, sent)) = self.flows.close(token) {
                concluded.push(Concluded { probe, sent, outcome: Outcome::Denied });
            }
        }
        Ok(concluded)
    }
}
