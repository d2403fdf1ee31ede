//! The one thread that owns the state: it takes changes in, compiles them, and keeps the kernel in step.

mod adoption;
mod search;
mod start;
mod starting_pods;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use policy_compiler::compile::{self, Compiler, Concerned};
use policy_compiler::model::{ObjectName, Pod, PolicyName};
use policy_compiler::ruleset::{Operation, Packet, Ruleset, SetRole, TableFamily, Transaction, in_steps};
use tracing::{debug, error, info, warn};

use crate::boot::{Commits, NodePods, Saved};
use crate::cutter::Cutter;
use crate::denials::Findings;
use crate::doors::DoorKeeper;
use crate::error::chain;
use crate::health::{Condition, Health};
use crate::kernel::{self, Connection, Nftables, Tables};
use crate::message::{Case, Message, Question};
use crate::metrics::Metrics;
use crate::node_addresses::RefusedAddresses;
use crate::refusals::Refusals;
use crate::sandboxes::Sandboxes;
use crate::source::Update;
use crate::status::isolated_pods;
use adoption::{adopt_all, keep_barred};
use search::Search;

/// The first wait after a failure; it doubles up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// How many messages are taken together before the kernel gets them.
const BURST: usize = 10_000;

/// The state, and the way to the kernel.
pub(crate) struct Enforcer<K> {
    compiler: Compiler,
    kernel: K,
    /// Cuts open connections that a change denies; `None` to keep them.
    cutter: Option<Cutter>,
    /// Finds the doors of the node's pods; `None` to go by addresses alone.
    doors: Option<DoorKeeper>,
    health: Health,
    metrics: Arc<Metrics>,
    refusals: Refusals,
    /// The pods as the CNI plugin reports them; `None` if it is not listened to.
    sandboxes: Option<Sandboxes>,
    /// The state that is restored when the node boots; `None` if none is saved.
    saved: Option<Saved>,
    /// The policies that have changed since the kernel was last in step.
    changed: BTreeSet<PolicyName>,
    standing: Standing,
    /// Whether the table has been in step once.
    programmed: bool,
    /// Whether somebody asked for strict start, so that it must have pod ranges to guard.
    must_guard: bool,
    /// Whether strict start has been found to lack pod ranges.
    idle_strictness: bool,
    refused: RefusedAddresses,
    /// Hears of commits, if anybody does.
    commits: Option<Commits>,
    /// Those who wait for the node's pods, as they are in the kernel.
    inquirers: Vec<Sender<NodePods>>,
    /// When the oldest change that is not in the kernel was heard of.
    waiting_since: Option<Instant>,
    retry: Duration,
}

/// How the kernel relates to the compiler's ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The objects are not all known: what the kernel holds stays.
    Waiting,
    /// The kernel must be read: it may hold anything.
    Unknown,
    /// The kernel holds the ruleset of the last update.
    InStep,
}

impl<K: Nftables> Enforcer<K> {
    /// Takes over the kernel; programs nothing until the objects are known.
    pub(crate) fn new(
        compiler: Compiler,
        kernel: K,
        cutter: Option<Cutter>,
        doors: Option<DoorKeeper>,
        health: Health,
        metrics: Arc<Metrics>,
        refusals: Refusals,
    ) -> Self {
        Self {
            compiler,
            kernel,
            cutter,
            doors,
            health,
            metrics,
            refusals,
            sandboxes: None,
            saved: None,
            changed: BTreeSet::new(),
            standing: Standing::Waiting,
            programmed: false,
            must_guard: false,
            idle_strictness: false,
            refused: RefusedAddresses::default(),
            commits: None,
            inquirers: Vec::new(),
            waiting_since: None,
            retry: FIRST_RETRY,
        }
    }

    /// The same; if it `must_guard`, it is not ready without pod ranges.
    #[must_use]
    pub(crate) fn guarding(self, must_guard: bool) -> Self {
        Self { must_guard, ..self }
    }

    /// The same; pods are as the CNI plugin reports them, and until the objects are known as they are saved.
    #[must_use]
    pub(crate) fn with_sandboxes(self, sandboxes: Option<Sandboxes>, saved: Option<Saved>) -> Self {
        Self { sandboxes, saved, ..self }
    }

    /// The same; it notes its commits there.
    #[must_use]
    pub(crate) fn noting(self, commits: Commits) -> Self {
        Self { commits: Some(commits), ..self }
    }

    /// Runs until a message stops it, or until nobody is left who could send one.
    pub(crate) fn run(mut self, messages: &Receiver<Message>) {
        let mut retry_at: Option<Instant> = None;
        loop {
            let received = match retry_at.into_iter().chain(self.next_look()).min() {
                Some(at) => messages.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let first = match received {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.health.busy(true);
            // What has piled up becomes one change of the table.
            for message in first.into_iter().chain(messages.try_iter().take(BURST)) {
                if !self.take(message) {
                    return;
                }
            }
            // Messages do not shorten the pause: another owner of the table causes one with all that it does.
            if retry_at.is_none_or(|at| at <= Instant::now()) {
                retry_at = self.enforce().is_err().then(|| Instant::now() + self.next_retry());
            }
            self.answer_plugin();
            self.health.busy(false);
        }
    }

    /// When there is something to do although nothing is heard: doors to look for, or policies to try again.
    fn next_look(&self) -> Option<Instant> {
        let in_step = self.standing == Standing::InStep;
        let doors = self.doors.as_ref().and_then(DoorKeeper::look_again);
        let work = doors.into_iter().chain(self.refusals.retry_at()).min().filter(|_| in_step);
        let sandboxes = self.sandboxes.as_ref().and_then(Sandboxes::look_again);
        work.into_iter().chain(sandboxes).min()
    }

    fn next_retry(&mut self) -> Duration {
        let retry = self.retry;
        self.retry = (retry * 2).min(LONGEST_RETRY);
        retry
    }

    /// Takes a message in; false if it was the last.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Stop => return false,
            Message::TableChanged => {
                if self.standing == Standing::InStep {
                    self.standing = Standing::Unknown;
                }
                self.refusals.kernel_changed();
            }
            Message::LinksChanged => {
                if let Some(doors) = &mut self.doors {
                    doors.links_changed();
                }
            }
            Message::Judge(case) => self.judge(case),
            Message::Explain(question) => self.answer(question),
            Message::Sandbox(order) => self.take_order(order),
            Message::NodePods(inquirer) => self.inquirers.push(inquirer),
            Message::Changes(changes) => {
                if !changes.updates.is_empty() {
                    self.waiting_since.get_or_insert(changes.received);
                }
                changes.updates.into_iter().for_each(|update| self.put(update));
                self.refused.report(self.compiler.refused_addresses(), &self.metrics);
                self.learn(&changes.knowledge);
            }
        }
        true
    }

    fn put(&mut self, update: Update) {
        match update {
            Update::Namespace(name, namespace) => self.compiler.put_namespace(&name, namespace),
            Update::Node(name, node) => self.compiler.put_node(&name, node),
            Update::Pod(name, pod) => {
                let pod = match &mut self.sandboxes {
                    Some(sandboxes) => sandboxes.note(&name, pod),
                    None => pod,
                };
                self.put_pod(&name, pod);
            }
            Update::Policy(name, policy) => {
                self.compiler.put_policy(&name, policy);
                self.changed.insert(name.into());
            }
            Update::ClusterPolicy(name, policy) => {
                self.compiler.put_cluster_policy(&name, policy);
                self.changed.insert(PolicyName::Cluster(name));
            }
        }
    }

    fn put_pod(&mut self, name: &ObjectName, pod: Option<Pod>) {
        if let Some(doors) = &mut self.doors {
            doors.note(name, pod.as_ref());
        }
        self.compiler.put_pod(name, pod);
    }

    /// Brings the kernel in step with the objects.
    fn enforce(&mut self) -> Result<(), kernel::Error> {
        let outcome = match self.standing {
            Standing::Waiting => return Ok(()),
            Standing::InStep => self.update().and_then(|()| self.try_again()),
            Standing::Unknown => self.adopt(),
        };
        let outcome = match outcome {
            Err(error) if error.is_lasting() => self.close(&error),
            outcome => outcome,
        };
        match &outcome {
            Ok(()) => {
                self.changed.clear();
                self.refusals.review(&self.compiler);
                self.standing = Standing::InStep;
                self.retry = FIRST_RETRY;
                self.health.good(Condition::Kernel);
                if let Some(doors) = &mut self.doors {
                    doors.committed();
                }
                let waiting_since = self.waiting_since.take();
                if let Some(since) = waiting_since {
                    self.metrics.committed(since.elapsed());
                }
                if waiting_since.is_some() || !self.programmed {
                    self.commits.iter().for_each(Commits::note);
                }
                self.programmed = true;
                for inquirer in self.inquirers.drain(..) {
                    // If nobody waits any more, nobody needs it.
                    let _ = inquirer.send(NodePods::of(&self.compiler));
                }
            }
            Err(error) => self.fail(error),
        }
        outcome
    }

    fn fail(&mut self, error: &kernel::Error) {
        self.standing = Standing::Unknown;
        if let Some(doors) = &mut self.doors {
            // A device that is gone is a reason to refuse.
            doors.links_changed();
        }
        self.metrics.failure();
        let error = chain(error);
        error!(error, "the kernel is not in step with the objects; what it holds stays");
        self.health.bad(Condition::Kernel, error);
    }

    fn update(&mut self) -> Result<(), kernel::Error> {
        if let Some(doors) = &mut self.doors {
            doors.find(&mut self.compiler);
        }
        let policies = self.compiler.update();
        let concerned = Concerned::by(&policies, self.compiler.ruleset());
        let doors = self.compiler.update_doors();
        self.apply(std::iter::once(policies).chain(doors).collect())?;
        self.examine(concerned);
        Ok(())
    }

    /// Reads the kernel's tables and applies what they lack.
    fn adopt(&mut self) -> Result<(), kernel::Error> {
        let tables = self.kernel.read_all()?;
        if !self.programmed {
            self.recall(&tables);
        }
        if let Some(doors) = &mut self.doors {
            doors.find(&mut self.compiler);
        }
        self.compiler.update();
        self.compiler.update_doors();
        let transactions = keep_barred(adopt_all(&tables, &self.compiler))?;
        let operations = self.apply(transactions)?;
        if !self.programmed {
            self.compare_with(&tables);
        }
        // What was open before may have been opened under any rules, or while there were none.
        self.examine(Concerned::All);
        if !self.programmed {
            info!(operations, "the tables are in step");
        } else if operations > 0 {
            self.metrics.repair();
            warn!(operations, "the tables were not what they should be; they are repaired");
        }
        Ok(())
    }

    /// Takes over what an agent before this one knew and no object says any more.
    fn recall(&mut self, tables: &Tables) {
        for (pod, direction) in tables.policies.iter().flat_map(isolated_pods) {
            self.compiler.keep_isolated(&pod, direction);
        }
        if let Some(doors) = &mut self.doors {
            doors.recall(tables.doors.as_ref());
        }
    }

    /// Says it if pods were isolated before this agent and none is any more: all policies may have been lost.
    fn compare_with(&self, before: &Tables) {
        let isolates = self
            .compiler
            .ruleset()
            .sets
            .iter()
            .any(|(name, set)| matches!(name.role(), SetRole::Isolated(..)) && !set.elements.is_empty());
        if !isolates && before.policies.iter().flat_map(isolated_pods).next().is_some() {
            warn!(
                "pods of this node were isolated, and none is any more. If nobody has deleted pods or policies, etcd \
                 may have been restored from a backup that lacks them"
            );
        }
    }

    /// Closes the policies at fault where the kernel refuses for good, and applies the rest.
    fn close(&mut self, error: &kernel::Error) -> Result<(), kernel::Error> {
        let tables = self.kernel.read_all()?;
        let plan = |compiler: &Compiler| adopt_all(&tables, compiler);
        let found = Search::new(&mut self.compiler, &mut self.kernel, plan).close(&self.changed)?;
        self.metrics.failure();
        debug!(error = chain(error), policies = ?found.reasons, "the kernel has been asked what it refuses");
        self.refusals.closed(&self.compiler, found.reasons, found.untried);
        self.apply(keep_barred(adopt_all(&tables, &self.compiler))?)?;
        self.examine(Concerned::All);
        Ok(())
    }

    /// Opens the closed policies that the kernel takes by now, when their time has come.
    fn try_again(&mut self) -> Result<(), kernel::Error> {
        let Some(closed) = self.refusals.take_due(&self.compiler) else { return Ok(()) };
        let policies = self.compiler.ruleset().clone();
        let doors = self.compiler.door_ruleset().cloned();
        let plan = |compiler: &Compiler| {
            let doors = doors.as_ref().zip(compiler.door_ruleset());
            let doors = doors.map(|(old, new)| Transaction::between(old, new));
            std::iter::once(Transaction::between(&policies, compiler.ruleset())).chain(doors).collect()
        };
        let found = Search::new(&mut self.compiler, &mut self.kernel, plan).open(closed)?;
        self.refusals.kept(&self.compiler, found.reasons, found.untried);
        let transactions = plan(&self.compiler);
        let ruleset = self.compiler.ruleset();
        let concerned = transactions.first().map(|policies| Concerned::by(policies, ruleset));
        self.apply(transactions)?;
        if let Some(concerned) = concerned {
            self.examine(concerned);
        }
        Ok(())
    }

    fn examine(&self, concerned: Concerned) {
        if let Some(cutter) = &self.cutter {
            cutter.examine(concerned);
        }
    }

    /// Judges open connections by the rules that are in force, and bars the way of those that they deny.
    fn judge(&mut self, case: Case) {
        // Other rules may be in force; when they are known, all connections are examined.
        if self.standing != Standing::InStep {
            return;
        }
        let Case { connections, own, denied: answer } = case;
        let ruleset = self.compiler.ruleset();
        let passes = |packet: &Packet| {
            if own.contains(&packet.destination) {
                ruleset.delivers(packet)
            } else {
                ruleset.forwards(packet)
            }
        };
        let is_denied = |connection: &Connection| !passes(&connection.opening);
        let denied: Vec<_> = connections.into_iter().filter(is_denied).collect();
        let cut = compile::cut(denied.iter().filter_map(|connection| connection.tuple));
        match self.kernel.apply(&cut) {
            Ok(()) => {}
            Err(error @ kernel::Error::Refused { .. }) => {
                warn!(error = chain(&error), "connections are cut that may come back");
                self.metrics.unbarred(denied.len());
            }
            Err(error) => return self.fail(&error),
        }
        // If nobody waits any more, the agent is about to end.
        let _ = answer.send(denied);
    }

    /// Hands out what decides about packets, unless the rules in force are those of an agent before this one.
    fn answer(&mut self, Question { denial, answer }: Question) {
        if self.standing == Standing::Waiting {
            return;
        }
        let mut findings = Findings::default();
        if let Some(doors) = &mut self.doors {
            doors.examine(&denial, &mut findings);
        }
        let addresses = denial.flow.into_iter().flat_map(|flow| [flow.source, flow.destination]);
        findings.cluster = self.compiler.excerpt(addresses, findings.ends.iter().flatten());
        // If nobody waits any more, the agent is about to end.
        let _ = answer.send(findings);
    }

    /// Returns how many operations changed what the tables hold.
    fn apply(&mut self, transactions: Vec<Transaction>) -> Result<usize, kernel::Error> {
        let operations = transactions.iter().flat_map(|transaction| &transaction.operations);
        let changes = operations.filter(|step| **step != Operation::OwnTable).count();
        let mut refused = Ok(());
        for step in in_steps(transactions) {
            match self.kernel.apply_all(&step) {
                // Devices come and go by themselves. That one is gone must not keep policies from being enforced.
                Err(error @ kernel::Error::Refused { .. }) if step.len() > 1 => {
                    let (policies, _): (Vec<_>, Vec<_>) =
                        step.into_iter().partition(|transaction| transaction.table == TableFamily::Inet);
                    self.kernel.apply_all(&policies)?;
                    refused = Err(error);
                }
                outcome => outcome?,
            }
        }
        refused?;
        if changes > 0 {
            self.metrics.transaction();
            debug!(operations = changes, "committed");
        }
        let chains = |ruleset: &Ruleset| ruleset.chains.len();
        let chains = chains(self.compiler.ruleset()) + self.compiler.door_ruleset().map_or(0, chains);
        self.metrics.size(chains, self.compiler.elements());
        Ok(changes)
    }
}
