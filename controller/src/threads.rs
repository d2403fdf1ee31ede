//! The threads of the agent: none of them ends unseen.

use std::panic;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use tracing::error;

use crate::health::{Condition, Health};
use crate::metrics::Metrics;

/// The exit code of a process that a panic ends: it has failed.
const FAILED: i32 = 1;

/// From now on a panic in any thread ends the process, after it is logged. The tables stay in the kernel, and whoever
/// started the agent starts it again.
pub fn end_process_on_panic() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current().name().unwrap_or("unnamed").to_owned();
        error!(thread, %panic, "a panic ends the agent; the rules stay");
        process::exit(FAILED);
    }));
}

/// Starts the threads that have to run as long as the agent does.
#[derive(Clone)]
pub(crate) struct Threads {
    health: Health,
    metrics: Arc<Metrics>,
    stopping: Arc<AtomicBool>,
}

impl Threads {
    pub(crate) fn new(health: Health, metrics: Arc<Metrics>) -> Self {
        Self { health, metrics, stopping: Arc::default() }
    }

    /// Starts a thread. If it ends before the agent does, the agent is not ready.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>> {
        let threads = self.clone();
        self.metrics.thread(name, true);
        let run = move || {
            body();
            threads.ended(name);
        };
        thread::Builder::new().name(name.to_owned()).spawn(run).context("cannot start a thread")
    }

    /// The agent ends, and with it the threads.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn ended(&self, name: &'static str) {
        if !self.stopping.load(Ordering::Relaxed) {
            self.metrics.thread(name, false);
            let reason = format!("the thread {name} has ended: restart the agent; its log says why");
            error!("{reason}");
            self.health.bad(Condition::Thread(name), reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_thread_ends_the_process() {
        let program = std::env::current_exe().unwrap();
        let output = process::Command::new(program)
            .args(["--exact", "threads::tests::panics_in_a_thread", "--ignored"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(FAILED), "{output:?}");
    }

    /// Run by the test above, in a process of its own.
    #[test]
    #[ignore = "it ends the process"]
    fn panics_in_a_thread() {
        end_process_on_panic();
        let _ = thread::spawn(|| panic!("as planned")).join();
        process::exit(0);
    }

    #[test]
    fn a_thread_that_ends_makes_the_agent_not_ready_unless_that_stops() {
        for (stops, running) in [(false, 0), (true, 1)] {
            let (health, metrics) = (Health::default(), Arc::new(Metrics::default()));
            health.good(Condition::Source);
            health.good(Condition::Kernel);
            let threads = Threads::new(health.clone(), metrics.clone());
            if stops {
                threads.stop();
            }
            threads.spawn("short", || {}).unwrap().join().unwrap();
            let reason = health.why_not_ready();
            assert_eq!(reason.is_some_and(|reason| reason.contains("the thread short has ended")), !stops);
            let metric = format!("podfence_thread_running{{thread=\"short\"}} {running}");
            assert!(metrics.text().contains(&metric), "{}", metrics.text());
        }
    }
}
