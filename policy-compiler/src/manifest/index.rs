//! The objects of files that change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::assemble::{assemble, identity};
use super::{Object, Problem, Reading, Resource};
use crate::model::{Cluster, Namespace};

/// The objects of many files, of which one after the other changes: what [`assemble`] makes of them all, at the cost of
/// what changed.
///
/// Objects bear on one another where they have a name in common, their own or that of their owner. So when a file
/// changes, `assemble` is given the objects that its own are connected with in this way, directly or through others.
#[derive(Debug, Default)]
pub struct Index {
    files: BTreeMap<Arc<Path>, Vec<Object>>,
    /// Where the objects are that have to do with a name.
    places: BTreeMap<Name, BTreeSet<Place>>,
    /// How many objects of the cluster are in a namespace. One in which there are some exists, declared or not.
    inhabitants: BTreeMap<Arc<str>, usize>,
}

/// The part of a cluster that has to do with what changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The part as it was.
    pub before: Cluster,
    /// The part as it is now.
    pub after: Cluster,
    /// The contradictions in it.
    pub problems: Vec<Problem>,
}

/// A namespace, or none for an object that is in none, and a name.
type Name = (Option<Arc<str>>, Arc<str>);

/// A file and the place in its list of objects.
type Place = (Arc<Path>, usize);

impl Index {
    /// Puts the objects of files in the place of what these files said before.
    pub fn update(&mut self, files: impl IntoIterator<Item = (Arc<Path>, Vec<Object>)>) -> Change {
        let files: Vec<_> = files.into_iter().collect();
        let before = files.iter().filter_map(|(file, _)| self.files.get(file));
        let objects = before.chain(files.iter().map(|(_, objects)| objects)).flatten();
        let names = self.connected(objects.flat_map(names).collect());
        let (mut before, _) = self.part(&names);
        for (file, objects) in files {
            self.replace(file, objects);
        }
        let (mut after, problems) = self.part(&names);

        self.declare_inhabited(&names, &mut before);
        for namespace in inhabited(&before) {
            if let Some(count) = self.inhabitants.get_mut(namespace) {
                *count = count.saturating_sub(1);
            }
        }
        for namespace in inhabited(&after) {
            *self.inhabitants.entry(namespace.clone()).or_default() += 1;
        }
        self.inhabitants.retain(|_, count| *count > 0);
        self.declare_inhabited(&names, &mut after);
        Change { before, after, problems }
    }

    /// The names that are connected with these through objects.
    fn connected(&self, mut found: BTreeSet<Name>) -> BTreeSet<Name> {
        let mut waiting: Vec<_> = found.iter().cloned().collect();
        while let Some(name) = waiting.pop() {
            for (file, index) in self.places.get(&name).into_iter().flatten() {
                let object = self.files.get(file).and_then(|objects| objects.get(*index));
                let new = object.into_iter().flat_map(names).filter(|name| found.insert(name.clone()));
                waiting.extend(new);
            }
        }
        found
    }

    /// What the objects with these names make, and the contradictions between them.
    fn part(&self, names: &BTreeSet<Name>) -> (Cluster, Vec<Problem>) {
        let namespaces: BTreeSet<Name> = namespaces(names).map(|name| (None, name.clone())).collect();
        let places: BTreeSet<_> =
            names.union(&namespaces).filter_map(|name| self.places.get(name)).flatten().collect();
        let objects =
            places.into_iter().filter_map(|(file, index)| self.files.get(file)?.get(*index).cloned());
        let (manifests, problems) = assemble([Reading { objects: objects.collect(), ..Reading::default() }]);
        (manifests.cluster, problems)
    }

    fn replace(&mut self, file: Arc<Path>, objects: Vec<Object>) {
        for (index, object) in self.files.remove(&file).unwrap_or_default().iter().enumerate() {
            for name in names(object) {
                if let Some(places) = self.places.get_mut(&name) {
                    places.remove(&(file.clone(), index));
                    if places.is_empty() {
                        self.places.remove(&name);
                    }
                }
            }
        }
        for (index, object) in objects.iter().enumerate() {
            for name in names(object) {
                self.places.entry(name).or_default().insert((file.clone(), index));
            }
        }
        if !objects.is_empty() {
            self.files.insert(file, objects);
        }
    }

    /// Adds the namespaces that exist because of objects that are not in this part.
    fn declare_inhabited(&self, names: &BTreeSet<Name>, part: &mut Cluster) {
        for name in namespaces(names) {
            if self.inhabitants.contains_key(name) && !part.namespaces().contains_key(name) {
                part.insert_namespace(Namespace::undeclared(name.clone()));
            }
        }
    }
}

/// The namespaces that these are names in or of.
fn namespaces(names: &BTreeSet<Name>) -> impl Iterator<Item = &Arc<str>> {
    names.iter().map(|(namespace, name)| namespace.as_ref().unwrap_or(name))
}

/// The namespace of each object in one.
fn inhabited(cluster: &Cluster) -> impl Iterator<Item = &Arc<str>> {
    let names = cluster.pods().keys().chain(cluster.policies().keys()).chain(cluster.services().keys());
    names.map(|name| &name.namespace)
}

/// The names that an object has to do with.
fn names(object: &Object) -> Vec<Name> {
    let (_, namespace, name) = identity(&object.resource);
    let owners = match &object.resource {
        Resource::Workload(workload) => &*workload.owners,
        _ => &[],
    };
    let names = owners.iter().map(|owner| &owner.name).chain([&name]);
    names.map(|name| (namespace.clone(), without_kind(name).into())).collect()
}

/// A name as it was before [`assemble`] perhaps put a kind behind it. That the same is cut off of others only connects
/// more than has to be.
fn without_kind(name: &str) -> &str {
    name.split_once('.').map_or(name, |(before, _)| before)
}
