//! The policies that the kernel refuses: they are closed, reported by name, and tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy_compiler::compile::Compiler;
use policy_compiler::model::PolicyName;
use tokio::sync::mpsc::Sender;
use tracing::{info, warn};

use crate::health::{Condition, Health};
use crate::metrics::Metrics;

/// The first wait until a policy is tried again that has not changed; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 60);

/// The wait where there is reason to hope: the kernel's tables have changed, or it has not been asked about all.
const SHORT_PAUSE: Duration = Duration::from_secs(1);

/// How many policies `/readyz` names.
const NAMED: usize = 5;

/// What becomes an event on a policy.
#[derive(Debug, Clone)]
pub(crate) struct PolicyNews {
    /// The policy.
    pub(crate) policy: PolicyName,
    /// What there is to say.
    pub(crate) content: PolicyContent,
}

/// What there is to say about a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PolicyContent {
    /// Why the kernel refuses it.
    Refused(String),
    /// The kernel takes it again.
    Enforced,
    /// What is not entirely what was probably meant.
    Remark(String),
}

/// The policies that are closed because the kernel refuses them, and where that is reported.
pub(crate) struct Refusals {
    policies: BTreeSet<PolicyName>,
    /// Those among them that the kernel has not been asked about one by one: they may be innocent.
    untried: Vec<PolicyName>,
    retry_at: Option<Instant>,
    pause: Duration,
    health: Health,
    metrics: Arc<Metrics>,
    events: Sender<PolicyNews>,
}

impl Refusals {
    pub(crate) fn new(health: Health, metrics: Arc<Metrics>, events: Sender<PolicyNews>) -> Self {
        let (policies, untried) = (BTreeSet::new(), Vec::new());
        Self { policies, untried, retry_at: None, pause: FIRST_PAUSE, health, metrics, events }
    }

    /// When the policies are to be tried again; `None` if there are none.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// The kernel is not as it was: it may take what it has refused.
    pub(crate) fn kernel_changed(&mut self) {
        if let Some(at) = &mut self.retry_at {
            *at = (*at).min(Instant::now() + SHORT_PAUSE);
        }
    }

    /// The policies to try again now: those that have not been tried, or else all.
    pub(crate) fn take_due(&mut self, compiler: &Compiler) -> Option<Vec<PolicyName>> {
        self.retry_at.filter(|at| *at <= Instant::now())?;
        let untried = std::mem::take(&mut self.untried);
        Some(if untried.is_empty() { compiler.closed_policies().collect() } else { untried })
    }

    /// Policies have been closed for these reasons, each of which is said. Some of them are `untried`.
    pub(crate) fn closed(
        &mut self,
        compiler: &Compiler,
        reasons: BTreeMap<PolicyName, String>,
        untried: Vec<PolicyName>,
    ) {
        for (policy, reason) in &reasons {
            warn!(%policy, reason, "the kernel refuses the policy: {}", consequence(policy));
            self.metrics.policy_refusal();
        }
        if !reasons.is_empty() {
            self.pause = FIRST_PAUSE;
            self.kept(compiler, reasons, untried);
        }
    }

    /// Policies stay closed for these reasons after they have been tried again, or have not been tried.
    pub(crate) fn kept(
        &mut self,
        compiler: &Compiler,
        reasons: BTreeMap<PolicyName, String>,
        untried: Vec<PolicyName>,
    ) {
        if untried.is_empty() {
            self.retry_at = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        } else {
            self.retry_at = Some(Instant::now() + SHORT_PAUSE);
        }
        self.untried = untried;
        for (policy, reason) in reasons {
            self.publish(policy, PolicyContent::Refused(reason));
        }
        self.review(compiler);
    }

    /// Says which policies are closed no longer: the kernel takes them, or they are gone.
    pub(crate) fn review(&mut self, compiler: &Compiler) {
        let closed: BTreeSet<PolicyName> = compiler.closed_policies().collect();
        if closed == self.policies {
            return;
        }
        for policy in self.policies.difference(&closed) {
            if compiler.has_policy(policy) {
                info!(%policy, "the kernel takes the policy: its rules are enforced again");
                self.publish(policy.clone(), PolicyContent::Enforced);
            } else {
                info!(%policy, "the policy that the kernel refused is gone");
            }
        }
        if closed.is_empty() {
            (self.retry_at, self.pause) = (None, FIRST_PAUSE);
        }
        self.policies = closed;
        self.remark();
    }

    fn remark(&self) {
        self.metrics.policies_refused(self.policies.len());
        if self.policies.is_empty() {
            return self.health.good(Condition::Policies);
        }
        let named: Vec<String> = self.policies.iter().take(NAMED).map(ToString::to_string).collect();
        let more = self.policies.len() - named.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let reason = format!(
            "the kernel refuses policies, and nothing that their rules would let through passes: {}{more}",
            named.join(", ")
        );
        self.health.bad(Condition::Policies, reason);
    }

    /// Where nobody follows an API server, or too many are waiting already, the log has it.
    fn publish(&self, policy: PolicyName, content: PolicyContent) {
        let _ = self.events.try_send(PolicyNews { policy, content });
    }
}

/// What it means for a policy to be refused.
pub(crate) fn consequence(policy: &PolicyName) -> &'static str {
    match policy {
        PolicyName::Namespaced(_) => {
            "the pods that the policy selects are isolated, and its rules let nothing through"
        }
        PolicyName::Cluster(_) => {
            "the Accept rules of the policy allow nothing, and its other rules deny everything to the pods that it selects"
        }
    }
}
