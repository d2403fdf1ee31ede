//! What is known of a kind: enough to know what an event changes, and what a new list lacks.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::watcher::Event;
use tracing::{info, warn};

use super::decode::{Object, Undecodable};
use super::objects::{Kind, Remark, kind};
use crate::source::Update;

/// The objects of one kind that have been handed on.
pub(super) struct Known<K: Kind> {
    objects: HashMap<K::Name, Seen>,
    /// The objects that cannot be decoded, each with the version that could not.
    undecodable: HashMap<K::Name, Option<String>>,
    /// How many objects cannot be decoded and have no name, since the last list began. One of them may be any object
    /// that the list lacks.
    nameless: usize,
    /// The newest version that the watch, or the list before it, has shown. Versions of one kind are numbers that grow,
    /// and a watch has them in order.
    newest: u64,
    /// The versions that objects have been asked for at, beside the watch, and that it has not come to yet.
    asked: HashMap<K::Name, u64>,
    /// The number of the list that is read or was read last.
    list: u64,
    /// What the list that is being read has changed so far, and lists before it that broke off.
    listing: Vec<Update>,
    /// What is remarkable about the objects, and has not been taken.
    remarks: Vec<(K::Name, Vec<Remark>)>,
    digests: RandomState,
}

/// What is kept of an object.
struct Seen {
    /// The last list that had it.
    list: u64,
    /// Stands for its content, which would take too much memory. It hides one change in 2⁶⁴, and nobody can
    /// know which. `None` if nothing of it has been handed on.
    digest: Option<u64>,
}

impl<K: Kind> Default for Known<K> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            undecodable: HashMap::new(),
            nameless: 0,
            newest: 0,
            asked: HashMap::new(),
            list: 0,
            listing: Vec::new(),
            remarks: Vec::new(),
            digests: RandomState::new(),
        }
    }
}

impl<K: Kind> Known<K> {
    /// Takes an event in. Returns what it changes, of a list only when it is complete: an address may have gone
    /// from an object at its end to one at its beginning.
    pub(super) fn take(&mut self, event: Event<Object<K>>) -> Option<Vec<Update>> {
        match event {
            Event::Init => {
                self.list += 1;
                self.nameless = 0;
                // A list that begins now is newer than all that was heard before.
                self.newest = 0;
                self.asked.clear();
                None
            }
            Event::InitApply(object) => {
                self.newest = self.newest.max(version(object.meta()).unwrap_or_default());
                let update = self.put(object);
                self.listing.extend(update);
                None
            }
            Event::InitDone => Some(self.complete()),
            Event::Apply(object) => {
                let is_news = self.advance(object.meta()).is_gt();
                Some(is_news.then(|| self.put(object)).flatten().into_iter().collect())
            }
            Event::Delete(object) => {
                // An object may end in the version of its last change.
                let is_news = self.advance(object.meta()).is_ge();
                Some(is_news.then(|| self.delete(&object)).flatten().into_iter().collect())
            }
        }
    }

    /// Takes the end of the kind in: there are no objects of it any more.
    pub(super) fn take_end(&mut self) -> Vec<Update> {
        self.take(Event::Init);
        self.complete()
    }

    /// What is remarkable about objects that the events since the last call have changed.
    pub(super) fn take_remarks(&mut self) -> Vec<(K::Name, Vec<Remark>)> {
        std::mem::take(&mut self.remarks)
    }

    /// Takes in what an object was at a version of its kind, `None` if there was none. It was asked for beside the
    /// watch, which may still have to say what was before that.
    pub(super) fn take_asked(
        &mut self,
        name: &K::Name,
        object: Option<Object<K>>,
        version: Option<u64>,
    ) -> Option<Update> {
        let update = match object {
            Some(object) => self.put(object),
            None => Some(self.remove(name)),
        };
        self.asked.extend(version.map(|version| (name.clone(), version)));
        update
    }

    /// Goes on to the version of what a watch says. Returns how that compares with where the watch was: one that repeats
    /// itself has been there.
    fn advance(&mut self, metadata: &ObjectMeta) -> Ordering {
        let Some(version) = version(metadata) else { return Ordering::Greater };
        let order = version.cmp(&self.newest);
        self.newest = self.newest.max(version);
        self.asked.retain(|_, asked| version < *asked);
        order
    }

    /// Whether no object is known.
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// How many objects cannot be decoded now.
    pub(super) fn undecodable(&self) -> usize {
        self.undecodable.len() + self.nameless
    }

    /// The object, if it is not as it was.
    fn put(&mut self, object: Object<K>) -> Option<Update> {
        let Some(name) = K::name_of(object.meta()) else {
            self.note_nameless(&object);
            return None;
        };
        if self.is_outdated(&name, object.meta()) {
            let list = self.list;
            self.objects.entry(name).and_modify(|seen| seen.list = list);
            return None;
        }
        let mut remarks = Vec::new();
        let update = match object {
            Object::Decoded(object) => {
                if self.undecodable.remove(&name).is_some() {
                    info!(kind = %kind::<K>(), %name, "the object can be decoded again");
                }
                K::update(name.clone(), object, &mut remarks)
            }
            Object::Undecodable(object) => {
                self.note_undecodable(&name, *object);
                let Some(update) = K::undecodable(name.clone()) else {
                    let list = self.list;
                    self.objects.entry(name).or_insert(Seen { list, digest: None }).list = list;
                    return None;
                };
                update
            }
        };
        let digest = Some(self.digests.hash_one((&update, &remarks)));
        let before = self.objects.insert(name.clone(), Seen { list: self.list, digest });
        if before.is_some_and(|before| before.digest == digest) {
            return None;
        }
        if !remarks.is_empty() {
            self.remarks.push((name, remarks));
        }
        Some(update)
    }

    fn delete(&mut self, object: &Object<K>) -> Option<Update> {
        let Some(name) = K::name_of(object.meta()) else {
            self.note_nameless(object);
            return None;
        };
        (!self.is_outdated(&name, object.meta())).then(|| self.remove(&name))
    }

    fn remove(&mut self, name: &K::Name) -> Update {
        self.objects.remove(name);
        self.undecodable.remove(name);
        K::gone(name.clone())
    }

    /// Whether an object has been asked for at a newer version.
    fn is_outdated(&self, name: &K::Name, metadata: &ObjectMeta) -> bool {
        self.asked.get(name).zip(version(metadata)).is_some_and(|(asked, version)| version <= *asked)
    }

    /// What the list has changed, and what it lacks.
    fn complete(&mut self) -> Vec<Update> {
        let mut updates = std::mem::take(&mut self.listing);
        if self.nameless > 0 {
            return updates;
        }
        self.objects.retain(|name, seen| {
            let exists = seen.list == self.list;
            if !exists {
                self.undecodable.remove(name);
                updates.push(K::gone(name.clone()));
            }
            exists
        });
        updates
    }

    /// Says once of each version that it cannot be decoded.
    fn note_undecodable(&mut self, name: &K::Name, Undecodable { metadata, reason }: Undecodable) {
        let version = metadata.resource_version;
        if version.is_none() || self.undecodable.get(name) != Some(&version) {
            let consequence = K::UNDECODABLE;
            warn!(kind = %kind::<K>(), %name, reason, "an object cannot be decoded: {consequence}");
        }
        self.undecodable.insert(name.clone(), version);
    }

    fn note_nameless(&mut self, object: &Object<K>) {
        self.nameless += 1;
        let reason = match object {
            Object::Decoded(_) => "it has no name",
            Object::Undecodable(object) => &object.reason,
        };
        let uid = object.meta().uid.as_deref();
        warn!(
            kind = %kind::<K>(), uid, reason,
            "an object cannot be decoded, not even its name: until it can be, nothing counts as gone that a list lacks"
        );
    }
}

fn version(metadata: &ObjectMeta) -> Option<u64> {
    metadata.resource_version.as_ref()?.parse().ok()
}
