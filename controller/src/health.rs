//! Whether the agent enforces, and why not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What can keep the agent from enforcing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Condition {
    /// Whether the objects are known.
    Source,
    /// Whether the kernel has what the objects ask for.
    Kernel,
    /// Whether strict start, if it is asked for, knows the addresses to guard.
    PodRanges,
    /// Whether packets of pods come past the rules.
    Datapath,
}

/// Whether the agent enforces, and if not, why; shared by all who know.
#[derive(Clone)]
pub(crate) struct Health(Arc<Mutex<BTreeMap<Condition, String>>>);

impl Default for Health {
    /// Not ready: nothing is known and nothing is enforced.
    fn default() -> Self {
        let reasons = [
            (Condition::Source, "the objects have not been read yet".to_owned()),
            (Condition::Kernel, "the kernel has not been programmed yet".to_owned()),
        ];
        Self(Arc::new(Mutex::new(BTreeMap::from(reasons))))
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

    /// Why the agent is not ready; nothing if it is.
    pub(crate) fn why_not_ready(&self) -> Option<String> {
        self.reasons(|reasons| {
            let all: Vec<&str> = reasons.values().map(String::as_str).collect();
            (!all.is_empty()).then(|| all.join("; "))
        })
    }

    fn reasons<T>(&self, action: impl FnOnce(&mut BTreeMap<Condition, String>) -> T) -> T {
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
