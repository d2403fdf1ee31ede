//! What has been told of a kind: enough to know, after a list, what is gone.

use std::collections::HashMap;

use kube::runtime::watcher::Event;

use super::objects::Kind;
use crate::source::Update;

/// The objects of one kind that somebody has been told of.
pub(super) struct Told<K: Kind> {
    /// Each one's name, with the number of the last list that had it.
    names: HashMap<K::Name, u64>,
    /// The number of the list that is read or was read last.
    list: u64,
    /// What the list that is being read has so far.
    listing: Vec<Update>,
}

impl<K: Kind> Default for Told<K> {
    fn default() -> Self {
        Self { names: HashMap::new(), list: 0, listing: Vec::new() }
    }
}

impl<K: Kind> Told<K> {
    /// Takes an event in. Returns what is to be told; nothing while a list is not complete, because an address
    /// may have gone from an object at its end to one at its beginning.
    pub(super) fn take(&mut self, event: Event<K>) -> Option<Vec<Update>> {
        match event {
            Event::Init => {
                self.list += 1;
                self.listing.clear();
                None
            }
            Event::InitApply(object) => {
                let update = self.put(object);
                self.listing.push(update);
                None
            }
            Event::InitDone => {
                let mut updates = std::mem::take(&mut self.listing);
                self.names.retain(|name, list| {
                    let exists = *list == self.list;
                    if !exists {
                        updates.push(K::update(name.clone(), None));
                    }
                    exists
                });
                Some(updates)
            }
            Event::Apply(object) => Some(vec![self.put(object)]),
            Event::Delete(object) => {
                let name = object.name();
                self.names.remove(&name);
                Some(vec![K::update(name, None)])
            }
        }
    }

    fn put(&mut self, object: K) -> Update {
        let name = object.name();
        self.names.insert(name.clone(), self.list);
        K::update(name, Some(object))
    }
}
