//! When something was last heard of each kind of objects.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The kinds of objects that are followed, by the plural that the API's paths have, and when something was last heard
/// of each: an event, a bookmark or the end of its watch, or at first the whole list. Shared by all clones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<BTreeMap<String, Instant>>>);

impl Heard {
    /// Something is heard of a kind now.
    pub(crate) fn note(&self, kind: &str) {
        let mut kinds = self.kinds();
        match kinds.get_mut(kind) {
            Some(at) => *at = Instant::now(),
            None => drop(kinds.insert(kind.to_owned(), Instant::now())),
        }
    }

    /// A kind is not followed any more.
    pub(crate) fn forget(&self, kind: &str) {
        self.kinds().remove(kind);
    }

    /// How long nothing has been heard of each kind.
    pub(crate) fn ages(&self) -> BTreeMap<String, Duration> {
        self.kinds().iter().map(|(kind, at)| (kind.clone(), at.elapsed())).collect()
    }

    fn kinds(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
