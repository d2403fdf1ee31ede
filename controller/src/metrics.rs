//! The agent's numbers, as `/metrics` shows them.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::counters::Counters;
use crate::heard::Heard;

/// The kinds of objects that an agent follows.
const KINDS: [&str; 5] = ["ClusterNetworkPolicy", "Namespace", "NetworkPolicy", "Node", "Pod"];

/// All metrics; every name starts with `podfence_`.
pub(crate) struct Metrics {
    registry: Registry,
    heard: Heard,
    ready: Gauge,
    source_age: Family<[(&'static str, String); 1], Gauge<f64, AtomicU64>>,
    threads: Family<[(&'static str, &'static str); 1], Gauge>,
    /// From the moment a change was heard of to its commit in the kernel.
    commit: Histogram,
    /// From the appearance of a pod's device until the pod was enforced.
    pod: Histogram,
    /// From the moment the CNI plugin reported a sandbox until its pod was enforced.
    sandbox: Histogram,
    transactions: Counter,
    failures: Counter,
    source_failures: Counter,
    repairs: Counter,
    elements: Gauge,
    chains: Gauge,
    doors: Gauge,
    without_door: Gauge,
    refused_addresses: Gauge,
    plugin_missing: Gauge,
    datapath_problems: Family<[(&'static str, &'static str); 1], Gauge>,
    policies_refused: Gauge,
    policy_refusals: Counter,
    undecodable_objects: Family<[(&'static str, String); 1], Gauge>,
    examined: Counter,
    examination_failures: Counter,
    cut: Counter,
    unbarred: Counter,
    denials_lost: Counter,
    denials_unexplained: Counter,
    state: StateMetrics,
    lists_emptied: Family<[(&'static str, String); 1], Counter>,
}

/// Those of the saved state.
#[derive(Default)]
struct StateMetrics {
    restored: Gauge,
    saved: Gauge,
    failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Heard::default())
    }
}

impl Metrics {
    /// Metrics of an agent that notes in `heard` what it hears of objects.
    pub(crate) fn new(heard: Heard) -> Self {
        let mut registry = Registry::with_prefix("podfence");
        let metrics = Self {
            heard,
            ready: Gauge::default(),
            source_age: Family::default(),
            threads: Family::default(),
            // 50 µs to 1.6 s
            commit: Histogram::new(exponential_buckets(50e-6, 2.0, 16)),
            // 1 ms to 33 s
            pod: Histogram::new(exponential_buckets(1e-3, 2.0, 16)),
            // 1 ms to 8 s
            sandbox: Histogram::new(exponential_buckets(1e-3, 2.0, 14)),
            transactions: Counter::default(),
            failures: Counter::default(),
            source_failures: Counter::default(),
            repairs: Counter::default(),
            elements: Gauge::default(),
            chains: Gauge::default(),
            doors: Gauge::default(),
            without_door: Gauge::default(),
            refused_addresses: Gauge::default(),
            plugin_missing: Gauge::default(),
            datapath_problems: Family::default(),
            policies_refused: Gauge::default(),
            policy_refusals: Counter::default(),
            undecodable_objects: Family::default(),
            examined: Counter::default(),
            examination_failures: Counter::default(),
            cut: Counter::default(),
            unbarred: Counter::default(),
            denials_lost: Counter::default(),
            denials_unexplained: Counter::default(),
            state: StateMetrics::default(),
            lists_emptied: Family::default(),
            registry: Registry::default(),
        };
        metrics.register_histograms(&mut registry);
        metrics.register_counters(&mut registry);
        metrics.register_gauges(&mut registry);
        metrics.register_others(&mut registry);
        registry.register_collector(Box::new(Counters::default()));
        Self { registry, ..metrics }
    }

    fn register_counters(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            (
                "transactions",
                "Changes of the table that the kernel committed, each in one transaction or in steps",
                &self.transactions,
            ),
            ("transaction_failures", "Transactions that failed", &self.failures),
            ("source_failures", "Attempts to list or watch objects that failed", &self.source_failures),
            ("repairs", "Changes by others that were undone", &self.repairs),
            (
                "policy_refusals",
                "Times that a policy was closed because the kernel refused it",
                &self.policy_refusals,
            ),
            (
                "conntrack_entries_examined",
                "Entries of conntrack that were listed because a change may deny them",
                &self.examined,
            ),
            (
                "conntrack_failures",
                "Attempts to examine open connections that failed",
                &self.examination_failures,
            ),
            ("connections_cut", "Open connections that were cut because the policies deny them", &self.cut),
            (
                "connections_unbarred",
                "Connections that were cut and may come back, because their packets could not be barred",
                &self.unbarred,
            ),
            (
                "denial_log_overruns",
                "Times that the kernel reported denied packets faster than they were read, so that some are not \
                 explained",
                &self.denials_lost,
            ),
            (
                "denials_unexplained",
                "Denied packets that were not explained because there were too many different ones",
                &self.denials_unexplained,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
    }

    fn register_gauges(&self, registry: &mut Registry) {
        for (name, help, gauge) in [
            ("ready", "Whether the policies are enforced: 1 or 0, as /readyz says", &self.ready),
            ("elements", "Elements of sets and maps in the tables", &self.elements),
            ("chains", "Chains in the tables", &self.chains),
            ("doors", "Pods of the node whose doors are guarded", &self.doors),
            ("pods_without_door", "Pods of the node whose doors are unknown", &self.without_door),
            (
                "refused_addresses",
                "Addresses of nodes that pods show which are not in their nodes' network: no policy applies to them",
                &self.refused_addresses,
            ),
            (
                "cni_plugin_missing",
                "Whether the CNI plugin is to be in the node's configuration and is not: 1 or 0",
                &self.plugin_missing,
            ),
            (
                "policies_refused",
                "Policies that the kernel refuses: nothing that their rules would let through passes",
                &self.policies_refused,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
    }

    fn register_histograms(&self, registry: &mut Registry) {
        for (name, help, histogram) in [
            ("commit", "Time from hearing of a change to its commit in the kernel", &self.commit),
            (
                "pod_enforced",
                "Time from the appearance of a pod's device on the node to the commit of its policies in the kernel",
                &self.pod,
            ),
            (
                "sandbox_enforced",
                "Time from the CNI plugin's report of a pod to the commit of its policies in the kernel",
                &self.sandbox,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
    }

    /// Those that have labels, and those of the saved state.
    fn register_others(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "source_age",
            "How long nothing has been heard of a kind of objects, no bookmark and no end of a watch either",
            Unit::Seconds,
            self.source_age.clone(),
        );
        registry.register(
            "thread_running",
            "Whether a thread of the agent runs: 1 or 0",
            self.threads.clone(),
        );
        registry.register(
            "datapath_problems",
            "Reasons why packets of pods bypass the rules, or why that is not known",
            self.datapath_problems.clone(),
        );
        registry.register(
            "undecodable_objects",
            "Objects of the API server that cannot be decoded",
            self.undecodable_objects.clone(),
        );
        let help = "Times that the saved state could not be written, or not be restored";
        registry.register("state_failures", help, self.state.failures.clone());
        let help = "When this agent wrote the saved state last, in seconds since 1970; 0 if it has not";
        registry.register("state_saved_timestamp_seconds", help, self.state.saved.clone());
        let help = "Whether a saved state from before the node booted is enforced: 1 or 0";
        registry.register("restored", help, self.state.restored.clone());
        registry.register(
            "lists_emptied",
            "Times that a list of objects had none although some were known, as when etcd is restored",
            self.lists_emptied.clone(),
        );
        for kind in KINDS {
            self.undecodable(kind, 0);
            // One that has never been counted is not shown.
            drop(self.lists_emptied.get_or_create(&[("kind", kind.to_owned())]));
        }
    }

    /// Whether the policies are enforced.
    pub(crate) fn ready(&self, ready: bool) {
        self.ready.set(ready.into());
    }

    /// A change has been committed, so long after it was heard of.
    pub(crate) fn committed(&self, after: Duration) {
        self.commit.observe(after.as_secs_f64());
    }

    /// A pod is enforced, so long after its device has appeared.
    pub(crate) fn pod_enforced(&self, after: Duration) {
        self.pod.observe(after.as_secs_f64());
    }

    /// A pod is enforced, so long after the CNI plugin reported it.
    pub(crate) fn sandbox_enforced(&self, after: Duration) {
        self.sandbox.observe(after.as_secs_f64());
    }

    /// The kernel has taken a transaction that changed the table.
    pub(crate) fn transaction(&self) {
        self.transactions.inc();
    }

    /// So large is the table now.
    pub(crate) fn size(&self, chains: usize, elements: usize) {
        self.chains.set(i64::try_from(chains).unwrap_or(i64::MAX));
        self.elements.set(i64::try_from(elements).unwrap_or(i64::MAX));
    }

    /// So many pods have a door that is known, and so many do not.
    pub(crate) fn doors(&self, known: usize, unknown: usize) {
        self.doors.set(i64::try_from(known).unwrap_or(i64::MAX));
        self.without_door.set(i64::try_from(unknown).unwrap_or(i64::MAX));
    }

    /// So many addresses of nodes are shown by pods that are not in their nodes' network.
    pub(crate) fn refused_addresses(&self, addresses: usize) {
        self.refused_addresses.set(i64::try_from(addresses).unwrap_or(i64::MAX));
    }

    /// Whether the CNI plugin is missing in the node's configuration.
    pub(crate) fn plugin_missing(&self, missing: bool) {
        self.plugin_missing.set(missing.into());
    }

    /// The kernel could not be read or has not taken a transaction.
    pub(crate) fn failure(&self) {
        self.failures.inc();
    }

    /// Objects could not be listed or watched.
    pub(crate) fn source_failure(&self) {
        self.source_failures.inc();
    }

    /// Somebody else's change of the table has been undone.
    pub(crate) fn repair(&self) {
        self.repairs.inc();
    }

    /// So many problems of a kind the data path has now.
    pub(crate) fn datapath(&self, kind: &'static str, problems: usize) {
        let gauge = self.datapath_problems.get_or_create(&[("problem", kind)]);
        gauge.set(i64::try_from(problems).unwrap_or(i64::MAX));
    }

    /// So many policies are closed now because the kernel refuses them.
    pub(crate) fn policies_refused(&self, policies: usize) {
        self.policies_refused.set(i64::try_from(policies).unwrap_or(i64::MAX));
    }

    /// A policy has been closed because the kernel refuses it.
    pub(crate) fn policy_refusal(&self) {
        self.policy_refusals.inc();
    }

    /// So many objects of a kind cannot be decoded.
    pub(crate) fn undecodable(&self, kind: &str, objects: usize) {
        let gauge = self.undecodable_objects.get_or_create(&[("kind", kind.to_owned())]);
        gauge.set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    /// Conntrack has listed so many entries because a change may deny them.
    pub(crate) fn examined(&self, entries: usize) {
        self.examined.inc_by(entries as u64);
    }

    /// Open connections could not be examined.
    pub(crate) fn examination_failure(&self) {
        self.examination_failures.inc();
    }

    /// So many open connections have been cut.
    pub(crate) fn cut(&self, connections: usize) {
        self.cut.inc_by(connections as u64);
    }

    /// So many connections are cut although their packets cannot be barred.
    pub(crate) fn unbarred(&self, connections: usize) {
        self.unbarred.inc_by(connections as u64);
    }

    /// The kernel had more to report of denied packets than there was room for.
    pub(crate) fn denials_lost(&self) {
        self.denials_lost.inc();
    }

    /// Whether a saved state is enforced.
    pub(crate) fn restored(&self, restored: bool) {
        self.state.restored.set(restored.into());
    }

    /// The state has been saved, at so many seconds since 1970.
    pub(crate) fn state_saved(&self, seconds: u64) {
        self.state.saved.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// The state could not be saved or restored.
    pub(crate) fn state_failure(&self) {
        self.state.failures.inc();
    }

    /// A list of objects of a kind had none, although some were known.
    pub(crate) fn list_emptied(&self, kind: &str) {
        self.lists_emptied.get_or_create(&[("kind", kind.to_owned())]).inc();
    }

    /// A denied packet was new, and there were too many new ones.
    pub(crate) fn denial_unexplained(&self) {
        self.denials_unexplained.inc();
    }

    /// A thread of the agent runs, or has ended.
    pub(crate) fn thread(&self, name: &'static str, running: bool) {
        self.threads.get_or_create(&[("thread", name)]).set(running.into());
    }

    /// All of them in the text format of `OpenMetrics`. What the kernel counts is read from it.
    pub(crate) fn text(&self) -> String {
        // One that is not followed any more has no age.
        self.source_age.clear();
        for (kind, age) in self.heard.ages() {
            self.source_age.get_or_create(&[("kind", kind)]).set(age.as_secs_f64());
        }
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n# EOF\n"),
        }
    }
}
