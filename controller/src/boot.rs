//! What a node enforces when it boots: the last table is kept on disk and restored before there is an API server, and
//! what is closed until then is opened when its time has come.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use podfence_cni::closed;
use podfence_cni::protocol::{PodReference, Sandbox};
use podfence_cni::state::{self, Outcome, Ranges, SavedPod, State};
use policy_compiler::compile::Compiler;
use tracing::{debug, error, info, warn};

use crate::error::chain;
use crate::health::{Condition, Health};
use crate::kernel::give_back_memory;
use crate::metrics::Metrics;

/// The state is read and written at most so often, also where that fails: a large table takes a tenth of a second.
const INTERVAL: Duration = Duration::from_secs(10);

/// The longest that the enforcer may take to say which pods the node has.
const PATIENCE: Duration = Duration::from_secs(5);

/// Restores the saved state if the kernel has no table, and says of one that is restored how old it is.
pub(crate) fn begin(path: Option<&Path>, node: &str, health: &Health, metrics: &Metrics) {
    match path.map(|path| state::restore_if_missing(path, Some(node), &[])) {
        Some(Err(failure)) => {
            metrics.state_failure();
            error!(error = chain(&failure), "this node enforces no policy until the objects are known");
        }
        Some(Ok(outcome @ Outcome::Restored(_))) => info!("{outcome}"),
        Some(Ok(Outcome::TablePresent | Outcome::NothingSaved(_))) | None => {}
    }
    match state::restored() {
        Ok(None) => {}
        Ok(Some(saved)) => {
            metrics.restored(true);
            health.bad(Condition::Boot, format!("enforcing the state of {saved}"));
        }
        Err(error) => warn!(error = chain(&error), "whether the table is a restored one is not known"),
    }
}

/// The state that may be restored in the kernel.
pub(crate) struct Saved {
    path: PathBuf,
    node: String,
}

impl Saved {
    pub(crate) fn new(path: PathBuf, node: &str) -> Self {
        Self { path, node: node.to_owned() }
    }

    /// Has the restored table enforce a pod at the addresses that it has now, if the table is a restored one and the pod
    /// is in it.
    pub(crate) fn readdress(&self, sandbox: &Sandbox) -> bool {
        let outcome = state::readdress(&self.path, Some(&self.node), &sandbox.pod, &sandbox.addresses);
        outcome.inspect_err(|error| debug!(error = chain(error), pod = %sandbox.pod, "not as saved")).is_ok()
    }
}

/// The pods of the node, as the enforcer has them in the kernel.
#[derive(Debug, Default, Clone)]
pub(crate) struct NodePods {
    /// Those that have networks and addresses of their own.
    pods: Vec<SavedPod>,
    /// The ranges of their addresses, as far as the Node names them.
    ranges: Vec<IpNet>,
}

impl NodePods {
    /// Those that a compiler knows.
    pub(crate) fn of(compiler: &Compiler) -> Self {
        let pods = compiler.local_pods().map(|pod| SavedPod {
            pod: PodReference {
                namespace: pod.name.namespace.to_string(),
                name: pod.name.name.to_string(),
                uid: None,
            },
            addresses: pod.addresses.clone(),
        });
        let pods = pods.filter(|pod| !pod.addresses.is_empty()).collect();
        Self { pods, ranges: compiler.pod_ranges().to_vec() }
    }

    /// The ranges, and the addresses that are in none.
    fn all_addresses(&self) -> Vec<IpNet> {
        let addresses = self.pods.iter().flat_map(|pod| &pod.addresses);
        let outside = addresses.filter(|address| !self.ranges.iter().any(|range| range.contains(*address)));
        let all: Vec<_> = self.ranges.iter().copied().chain(outside.map(|it| IpNet::from(*it))).collect();
        IpNet::aggregate(&all)
    }
}

/// Notes that the kernel is in step with the objects. It never waits.
#[derive(Debug, Clone)]
pub(crate) struct Commits {
    notes: SyncSender<()>,
    ending: Arc<AtomicBool>,
}

impl Commits {
    /// And the end that hears of it.
    pub(crate) fn channel() -> (Self, Receiver<()>) {
        let (notes, hearing) = mpsc::sync_channel(1);
        (Self { notes, ending: Arc::default() }, hearing)
    }

    /// A commit.
    pub(crate) fn note(&self) {
        // If there is no room, one is noted already that nobody has looked at.
        let _ = self.notes.try_send(());
    }

    /// Has the keeper save what is not saved yet, for at most as long as this.
    pub(crate) fn finish(&self, keeper: &JoinHandle<()>, patience: Duration) {
        self.ending.store(true, Ordering::Release);
        self.note();
        let begin = Instant::now();
        while !keeper.is_finished() && begin.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Keeps the saved state in step with the kernel, and opens what was closed until the agent knows it.
pub(crate) struct Keeper<A> {
    /// Where the state is kept; `None` to keep none.
    path: Option<PathBuf>,
    node: String,
    /// Asks the enforcer for the node's pods.
    ask: A,
    health: Health,
    metrics: Arc<Metrics>,
    /// The digest of the state that is written, and the ranges beside it.
    saved: Option<(String, Ranges)>,
    /// Whether the last try to write failed.
    failing: bool,
    /// Whether the kernel has been in step once.
    in_step: bool,
}

impl<A: Fn() -> Option<Receiver<NodePods>>> Keeper<A> {
    pub(crate) fn new(
        path: Option<PathBuf>,
        node: String,
        ask: A,
        health: Health,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { path, node, ask, health, metrics, saved: None, failing: false, in_step: false }
    }

    /// Runs until the agent ends.
    pub(crate) fn run(mut self, commits: &Commits, noted: &Receiver<()>) {
        let mut due = Instant::now();
        let mut pending = false;
        loop {
            let note = if pending {
                noted.recv_timeout(due.saturating_duration_since(Instant::now()))
            } else {
                noted.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            let ending = commits.ending.load(Ordering::Acquire);
            match note {
                Ok(()) => {
                    if !ending {
                        self.open();
                    }
                    pending = self.in_step && self.path.is_some();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if pending && (ending || due <= Instant::now()) {
                pending = !self.save();
                give_back_memory();
                due = Instant::now() + INTERVAL;
            }
            if ending {
                return;
            }
        }
    }

    /// Opens what was closed until the agent knows it.
    fn open(&mut self) {
        if !self.in_step {
            self.in_step = true;
            self.metrics.restored(false);
            self.health.good(Condition::Boot);
            if let Err(error) = closed::open_ranges() {
                warn!(error = chain(&error), "the ranges of the pods' addresses stay closed");
            }
        }
        let open = || {
            let addresses = closed::addresses()?;
            if addresses.is_empty() {
                return Ok(());
            }
            let Some(NodePods { pods, .. }) = self.pods() else { return Ok(()) };
            let mut known: Vec<_> = pods.into_iter().flat_map(|pod| pod.addresses).collect();
            known.retain(|address| addresses.contains(address));
            closed::open(&known)
        };
        if let Err(error) = open() {
            warn!(error = chain(&error), "addresses stay closed until the next change");
        }
    }

    /// The node's pods, all of them in the kernel.
    fn pods(&self) -> Option<NodePods> {
        (self.ask)()?.recv_timeout(PATIENCE).ok()
    }

    /// Writes what the kernel has, if that is not written yet. Whether it is written then.
    fn save(&mut self) -> bool {
        let Some(path) = self.path.clone() else { return true };
        let Some(pods) = self.pods() else { return false };
        let ranges = Ranges { node: self.node.clone(), host: state::host(), ranges: pods.all_addresses() };
        let state = match State::of_kernel(&self.node, pods.pods) {
            Ok(state) => state,
            Err(error) => {
                debug!(error = chain(&error), "the state is saved later");
                return false;
            }
        };
        let content = Some((state.digest(), ranges.clone()));
        if self.saved == content {
            return true;
        }
        // Ranges beside no state mean a state that is lost.
        match state.save(&path).and_then(|()| ranges.save(&path)) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    info!("the state is saved again");
                }
                self.metrics.state_saved(state.header.saved.seconds());
                self.saved = content;
                true
            }
            Err(error) => {
                self.metrics.state_failure();
                if !std::mem::replace(&mut self.failing, true) {
                    let error = chain(&error);
                    warn!(error, "the state is not saved: after a reboot the node enforces an older one");
                }
                self.saved = None;
                false
            }
        }
    }
}
