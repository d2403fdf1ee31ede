//! Whether the agent enforces, and why not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What can keep the agent from enforcing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Condition {
    /// Whether the objects are known.
    Source,
    /// Whether the kernel has what the objects ask for.
    Kernel,
    /// Whether strict start, if it is asked for, knows the addresses to guard.
    PodRanges,
    /// Whether packets of pods traverse the rules.
    Datapath,
    /// Whether the node is the one of its name.
    NodeName,
    /// Whether a thread of the agent runs, by its name.
    Thread(&'static str),
    /// Whether the kernel takes every policy.
    Policies,
    /// Whether every object of the API server can be read.
    Objects,
    /// Whether the CNI plugin, if it is to be installed, is.
    Plugin,
    /// Whether what is enforced is what the objects say, and no saved state from before the node booted.
    Boot,
}

impl Condition {
    /// Whether the agent is ready without it: where one object is at fault, everything else is enforced, and the
    /// object is closed. Whoever may write a policy must not be able to hold up the agents' upgrades. Without the plugin
    /// pods are enforced as soon as the API server shows their addresses.
    fn is_tolerable(self) -> bool {
        matches!(self, Self::Policies | Self::Objects | Self::Plugin)
    }
}

/// How long the enforcer may be busy with one change before it counts as hanging.
const LONGEST_CHANGE: Duration = Duration::from_secs(30);

/// Whether the agent enforces, and if not, why; shared by all who know.
#[derive(Clone)]
pub(crate) struct Health {
    reasons: Arc<Mutex<BTreeMap<Condition, String>>>,
    /// Since when the enforcer has been busy with a change; `None` while it waits for one.
    busy_since: Arc<Mutex<Option<Instant>>>,
}

impl Default for Health {
    /// Not ready: nothing is known and nothing is enforced.
    fn default() -> Self {
        let reasons = [
            (Condition::Source, "the objects have not been read yet".to_owned()),
            (Condition::Kernel, "the kernel has not been programmed yet".to_owned()),
        ];
        Self { reasons: Arc::new(Mutex::new(BTreeMap::from(reasons))), busy_since: Arc::default() }
    }
}

impl Health {
    /// Says that a condition holds.
    pub(crate) fn good(&self, condition: Condition) {
        self.reasons(|reasons| reasons.remove(&condition));
    }

    /// Says that a condition does not hold, and why.
    pub(crate) fn bad(&self, condition: Condition, reason: String) {
        self.reasons(|reasons| reasons.insert(condition, reason));
    }

    /// Whether a condition holds.
    pub(crate) fn is_good(&self, condition: Condition) -> bool {
        self.reasons(|reasons| !reasons.contains_key(&condition))
    }

    /// Why the agent is not ready; nothing if it is.
    pub(crate) fn why_not_ready(&self) -> Option<String> {
        let busy = self
            .busy_for()
            .filter(|busy| *busy > LONGEST_CHANGE)
            .map(|busy| format!("the enforcer has been busy with one change for {} seconds", busy.as_secs()));
        let reasons = self.summary(|condition| !condition.is_tolerable()).into_iter().chain(busy);
        let all: Vec<String> = reasons.collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// What is wrong although the agent is ready; `None` if nothing is.
    pub(crate) fn remarks(&self) -> Option<String> {
        self.summary(Condition::is_tolerable)
    }

    fn summary(&self, which: impl Fn(Condition) -> bool) -> Option<String> {
        self.reasons(|reasons| {
            let chosen = reasons.iter().filter(|(condition, _)| which(**condition));
            let all: Vec<&str> = chosen.map(|(_, reason)| reason.as_str()).collect();
            (!all.is_empty()).then(|| all.join("; "))
        })
    }

    /// The enforcer begins with a change, or is done with it.
    pub(crate) fn busy(&self, busy: bool) {
        *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner) = busy.then(Instant::now);
    }

    /// How long the enforcer has been busy with a change; `None` while it waits for one.
    fn busy_for(&self) -> Option<Duration> {
        self.busy_since.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }

    fn reasons<T>(&self, action: impl FnOnce(&mut BTreeMap<Condition, String>) -> T) -> T {
        action(&mut self.reasons.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
