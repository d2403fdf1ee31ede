//! What has been told of a kind: enough to know what an event changes, and what a new list lacks.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use kube::runtime::watcher::Event;

use super::objects::Kind;
use crate::source::Update;

/// The objects of one kind that somebody has been told of.
pub(super) struct Told<K: Kind> {
    objects: HashMap<K::Name, Seen>,
    /// The number of the list that is read or was read last.
    list: u64,
    /// What the list that is being read has changed so far, and lists before it that broke off.
    listing: Vec<Update>,
    digests: RandomState,
}

/// What is kept of an object.
struct Seen {
    /// The last list that had it.
    list: u64,
    /// Stands for its content, which would take too much memory. It hides one change in 2⁶⁴, and nobody can
    /// know which.
    digest: u64,
}

impl<K: Kind> Default for Told<K> {
    fn default() -> Self {
        Self { objects: HashMap::new(), list: 0, listing: Vec::new(), digests: RandomState::new() }
    }
}

impl<K: Kind> Told<K> {
    /// Takes an event in. Returns what it changes, of a list only when it is complete: an address may have gone
    /// from an object at its end to one at its beginning.
    pub(super) fn take(&mut self, event: Event<K>) -> Option<Vec<Update>> {
        match event {
            Event::Init => {
                self.list += 1;
                None
            }
            Event::InitApply(object) => {
                let update = self.put(object);
                self.listing.extend(update);
                None
            }
            Event::InitDone => Some(self.complete()),
            Event::Apply(object) => Some(Vec::from_iter(self.put(object))),
            Event::Delete(object) => {
                let name = object.name();
                self.objects.remove(&name);
                Some(vec![K::update(name, None)])
            }
        }
    }

    /// The object, if it is not as it was.
    fn put(&mut self, object: K) -> Option<Update> {
        let name = object.name();
        let update = K::update(name.clone(), Some(object));
        let digest = self.digests.hash_one(&update);
        let before = self.objects.insert(name, Seen { list: self.list, digest });
        before.is_none_or(|before| before.digest != digest).then_some(update)
    }

    /// What the list has changed, and what it lacks.
    fn complete(&mut self) -> Vec<Update> {
        let mut updates = std::mem::take(&mut self.listing);
        self.objects.retain(|name, seen| {
            let exists = seen.list == self.list;
            if !exists {
                updates.push(K::update(name.clone(), None));
            }
            exists
        });
        updates
    }
}
