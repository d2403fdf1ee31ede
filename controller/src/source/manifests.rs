//! A watched directory of manifests.
//!
//! Each file counts for itself: one that cannot be read, or is invalid, keeps what it last said. A file is
//! read when its writer has closed it, and not while somebody writes it. The system tells a little later than
//! it happens who writes and who closes, so a file that has changed without a word of that is given some time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, DataChange, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use policy_compiler::manifest::{self, Index, Object, Problem};
use policy_compiler::model::Cluster;
use tracing::{info, warn};

use super::{Changes, Knowledge, Update};

#[cfg(test)]
mod tests;

/// How long a file must be gone until its objects are: editors replace a file by deleting it first.
const GRACE: Duration = Duration::from_millis(100);

/// How long a file that has changed is not read yet, should nobody be known to have closed it.
const SETTLING: Duration = Duration::from_millis(50);

/// How long a new folder may take to be watched.
const RESTLESS: Duration = Duration::from_secs(2);

/// How long the directory is not read at all at the most, should no event come.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Why the directory cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch the manifests in {}", directory.display())]
pub(crate) struct Error {
    directory: PathBuf,
    source: notify::Error,
}

/// The directory, as it was read last.
pub(crate) struct Manifests {
    directory: PathBuf,
    files: BTreeMap<PathBuf, File>,
    writing: BTreeMap<PathBuf, Writing>,
    index: Index,
    /// What files say that is not in the index yet.
    read: Vec<(Arc<Path>, Vec<Object>)>,
    /// Until when the directory is read again and again: what was put into a new folder before it could be
    /// watched, no event tells of.
    restless_until: Option<Instant>,
    events: Receiver<notify::Result<notify::Event>>,
    /// Watches as long as it lives.
    _watcher: RecommendedWatcher,
}

/// What was last heard of those who write a file.
#[derive(PartialEq, Eq)]
enum Writing {
    /// Somebody has it open and has written to it.
    Begun,
    /// It was closed, or put in its place or removed as a whole, since the directory was read last.
    Done,
}

/// One file.
#[derive(Default)]
struct File {
    /// What the file system said of it when it was read.
    signature: Option<Signature>,
    /// What it says now, if that is something else, and since when.
    changed: Option<(Signature, Instant)>,
    /// How many objects there were in the last reading that counts; `None` if none ever did.
    objects: Option<usize>,
    /// Since when it is gone.
    missing: Option<Instant>,
}

/// Changes with every write, as far as a file system can tell.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl From<Metadata> for Signature {
    fn from(metadata: Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Signature {
    /// `None` if there is no such file. What the file system refuses to tell will be found out by reading.
    fn of(path: &Path) -> Option<Self> {
        match path.metadata() {
            Ok(metadata) => Some(metadata.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(_) => Some(Self::default()),
        }
    }
}

impl Manifests {
    /// Begins to watch a directory.
    ///
    /// # Errors
    ///
    /// If it does not exist or the system does not let it be watched.
    pub(crate) fn watch(directory: &Path) -> Result<Self, Error> {
        let (sender, events) = std::sync::mpsc::channel();
        let watch = || {
            let mut watcher = notify::recommended_watcher(sender)?;
            watcher.watch(directory, RecursiveMode::Recursive)?;
            Ok(watcher)
        };
        let watcher = watch().map_err(|source| Error { directory: directory.to_owned(), source })?;
        Ok(Self {
            directory: directory.to_owned(),
            files: BTreeMap::new(),
            writing: BTreeMap::new(),
            index: Index::default(),
            read: Vec::new(),
            restless_until: None,
            events,
            _watcher: watcher,
        })
    }

    /// Reads the directory, and then whatever changes in it, and hands every change to `tell`, until that
    /// returns false.
    pub(crate) fn follow(mut self, mut tell: impl FnMut(Changes) -> bool) {
        let mut received = Instant::now();
        let mut knowledge = None;
        loop {
            let wake = self.read(received, knowledge.is_none());
            let changes = self.changes(received);
            if knowledge.as_ref() != Some(&changes.knowledge) || !changes.updates.is_empty() {
                knowledge = Some(changes.knowledge.clone());
                if !tell(changes) {
                    return;
                }
            }
            received = match self.wait(received + wake) {
                Ok(received) => received,
                Err(RecvTimeoutError::Timeout) => Instant::now(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
        }
    }

    /// Waits for a change of the directory, and returns when it was heard of.
    fn wait(&mut self, until: Instant) -> Result<Instant, RecvTimeoutError> {
        loop {
            let event = self.events.recv_timeout(until.saturating_duration_since(Instant::now()))?;
            let received = Instant::now();
            let mut changed = self.note(event);
            while let Ok(event) = self.events.try_recv() {
                changed |= self.note(event);
            }
            if changed {
                return Ok(received);
            }
        }
    }

    /// Notes who is writing, and says whether there may be something to read.
    fn note(&mut self, event: notify::Result<notify::Event>) -> bool {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                warn!(%error, "an event of the manifests' directory is lost");
                return true;
            }
        };
        match event.kind {
            EventKind::Modify(ModifyKind::Data(DataChange::Any | DataChange::Content | DataChange::Size)) => {
                self.writing.extend(event.paths.into_iter().map(|path| (path, Writing::Begun)));
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_)) => {
                self.writing.extend(event.paths.into_iter().map(|path| (path, Writing::Done)));
            }
            // Also by this thread, whenever it reads.
            EventKind::Access(AccessKind::Open(_)) => return false,
            EventKind::Create(CreateKind::Folder) => self.restless_until = Some(Instant::now() + RESTLESS),
            _ if event.need_rescan() => self.writing.clear(),
            _ => {}
        }
        true
    }

    /// Reads what has changed; returns how long nothing needs to be read if no event comes. The first time there
    /// are no events to wait for.
    fn read(&mut self, now: Instant, first: bool) -> Duration {
        let listed = match manifest::files(&self.directory) {
            Ok(listed) => listed,
            Err(problem) => {
                warn!(%problem, "everything that was read before stays enforced");
                return GRACE;
            }
        };
        self.restless_until = self.restless_until.filter(|until| now < *until);
        let mut rest = if self.restless_until.is_some() { SETTLING } else { LONGEST_REST };
        let mut present = BTreeSet::new();
        for path in listed {
            let Some(signature) = Signature::of(&path) else { continue };
            let writing = self.writing.get(&path);
            if writing != Some(&Writing::Begun) {
                let file = self.files.entry(path.clone()).or_default();
                let settled = first || writing == Some(&Writing::Done);
                if let Some(objects) = file.read_if_changed(&path, signature, settled, now) {
                    self.read.push((path.as_path().into(), objects));
                }
                rest = rest.min(file.settles_in(now));
            }
            present.insert(path);
        }
        self.files.retain(|path, file| {
            if present.contains(path) {
                file.missing = None;
                return true;
            }
            // What has just been heard of was there until now.
            let heard_of = self.writing.contains_key(path);
            let since = file.missing.filter(|_| !heard_of).unwrap_or(now);
            file.missing = Some(since);
            let gone_for = now.duration_since(since);
            if gone_for < GRACE {
                rest = rest.min(GRACE.saturating_sub(gone_for));
                return true;
            }
            info!(file = %path.display(), "the file is gone");
            self.read.push((path.as_path().into(), Vec::new()));
            false
        });
        self.writing.retain(|path, writing| *writing == Writing::Begun && present.contains(path));
        rest
    }

    /// What differs from what is known.
    fn changes(&mut self, received: Instant) -> Changes {
        let unread: Vec<String> = self
            .files
            .iter()
            .filter(|(_, file)| file.signature.is_some() && file.objects.is_none())
            .map(|(path, _)| path.display().to_string())
            .collect();
        let knowledge = if unread.is_empty() {
            Knowledge::Complete
        } else {
            Knowledge::Partial(format!("cannot be read: {}", unread.join(", ")))
        };
        let change = self.index.update(mem::take(&mut self.read));
        for problem in &change.problems {
            warn!(%problem, "objects contradict each other");
        }
        Changes { updates: differences(&change.before, &change.after), received, knowledge }
    }
}

impl File {
    /// Reads the file if it is another than last time, and it is `settled` or has had time for that. Returns what it
    /// says, if that counts.
    fn read_if_changed(
        &mut self,
        path: &Path,
        signature: Signature,
        settled: bool,
        now: Instant,
    ) -> Option<Vec<Object>> {
        if self.signature == Some(signature) {
            self.changed = None;
            return None;
        }
        let since = self.changed.filter(|(seen, _)| *seen == signature).map_or(now, |(_, since)| since);
        if !settled && now.duration_since(since) < SETTLING {
            self.changed = Some((signature, since));
            return None;
        }
        self.changed = None;
        self.read(path, signature)
    }

    /// When to come back if no event comes.
    fn settles_in(&self, now: Instant) -> Duration {
        self.changed.map_or(LONGEST_REST, |(_, since)| SETTLING.saturating_sub(now.duration_since(since)))
    }

    fn read(&mut self, path: &Path, signature: Signature) -> Option<Vec<Object>> {
        let reading = match manifest::read_file(path) {
            // Gone since it was listed: the next listing will say so.
            Err(_) if !path.exists() => return None,
            other => other,
        };
        self.signature = Some(signature);
        let reading = reading.inspect_err(|problem| self.keep(problem)).ok()?;
        let count = reading.objects.len() + reading.unread.len();
        if !reading.problems.is_empty() && self.objects.is_some() {
            reading.problems.iter().for_each(|problem| self.keep(problem));
            return None;
        }
        // A file that had objects and says nothing any more is about to be written anew.
        if count == 0 && self.objects.is_some_and(|objects| objects > 0) {
            warn!(file = %path.display(), "the file is empty; what it last said stays enforced");
            return None;
        }
        for problem in &reading.problems {
            warn!(%problem, "what cannot be read allows nothing");
        }
        for warning in &reading.warnings {
            warn!(%warning, "read all the same");
        }
        info!(file = %path.display(), objects = reading.objects.len(), "read");
        self.objects = Some(count);
        Some(reading.objects)
    }

    fn keep(&self, problem: &Problem) {
        warn!(%problem, objects = self.objects, "what the file last said stays enforced");
    }
}

fn differences(old: &Cluster, new: &Cluster) -> Vec<Update> {
    let mut updates = Vec::new();
    updates
        .extend(changed(old.namespaces(), new.namespaces()).map(|(name, new)| Update::Namespace(name, new)));
    updates.extend(changed(old.nodes(), new.nodes()).map(|(name, new)| Update::Node(name, new)));
    updates.extend(changed(old.pods(), new.pods()).map(|(name, new)| Update::Pod(name, new)));
    updates.extend(changed(old.policies(), new.policies()).map(|(name, new)| Update::Policy(name, new)));
    let cluster_policies = changed(old.cluster_policies(), new.cluster_policies());
    updates.extend(cluster_policies.map(|(name, new)| Update::ClusterPolicy(name, new)));
    updates
}

/// The entries that differ, as they are now.
fn changed<'a, K: Ord + Clone, V: PartialEq + Clone>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (K, Option<V>)> + 'a {
    let gone = old.keys().filter(|key| !new.contains_key(key)).map(|key| (key.clone(), None));
    let come = new.iter().filter(|(key, value)| old.get(key) != Some(value));
    gone.chain(come.map(|(key, value)| (key.clone(), Some(value.clone()))))
}
