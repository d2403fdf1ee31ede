//! Reads manifests: YAML and JSON files, directories of them, standard input.
//!
//! Kubernetes' defaults are applied and its validation rules are enforced, so that what comes out is a
//! [`Cluster`] of checked objects. Everything that is wrong is found in one go, with file, line and field:
//!
//! ```
//! use policy_compiler::manifest;
//!
//! let text = "
//! apiVersion: networking.k8s.io/v1
//! kind: NetworkPolicy
//! metadata: {name: web, namespace: shop}
//! spec:
//!   podSelector: {matchLabels: {app: web}}
//!   ingress:
//!   - from:
//!     - ipBlock: {cidr: 10.0.0.0/33}
//! ";
//! let reading = manifest::parse(text.as_bytes(), "web.yaml")?;
//! assert_eq!(
//!     reading.problems[0].to_string(),
//!     "web.yaml:9: spec.ingress[0].from[0].ipBlock.cidr: `10.0.0.0/33` is no block: the length must be 0 to 32",
//! );
//!
//! // What is left after the unreadable peer isolates the pods of `web`, and lets nobody in.
//! let (manifests, problems) = manifest::assemble([reading]);
//! assert_eq!(problems.len(), 1);
//! assert_eq!(manifests.cluster.policies().len(), 1);
//! # Ok::<(), manifest::Problem>(())
//! ```

mod addresses;
mod annotations;
mod assemble;
mod cluster_policy;
mod documents;
mod error;
mod fields;
mod files;
mod flow;
mod index;
mod json;
mod kinds;
mod kustomize;
mod labels;
mod meter;
mod names;
mod objects;
mod placeholders;
mod pods;
mod policy;
mod ports;
mod quoted;
mod read;
mod resources;
mod scalar;
mod selector;
mod services;
mod surrogates;
mod text;
mod tree;
mod unparsed;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserializer;

pub use addresses::{allowed_sources, ip_address, ip_block};
pub use assemble::assemble;
pub use files::files;
pub use index::{Change, Index};
pub use names::{InvalidNamespace, namespace_name};
pub use placeholders::Placeholder;
pub use read::{Exclude, ReadOptions, read, read_with};
pub use selector::{SelectorError, label_selector};

use crate::model::{
    Cluster, ClusterNetworkPolicy, Endpoints, Namespace, NetworkPolicy, Node, ObjectName, Origin, Pod,
    Service,
};
use error::SyntaxError;
use fields::{Field, Report};
use tree::{Part, Sink};

/// Something that manifests are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A file, whatever its name, or a directory with the files that [`files`] finds in it.
    Path(PathBuf),
    /// Standard input.
    Stdin,
}

impl From<OsString> for Input {
    /// `-` is standard input, everything else a path.
    fn from(argument: OsString) -> Self {
        if argument == "-" { Self::Stdin } else { Self::Path(argument.into()) }
    }
}

/// All that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifests {
    /// The objects.
    pub cluster: Cluster,
    /// The objects of kinds that are not read.
    pub unread: Vec<Unread>,
    /// The documents that are passed over.
    pub passed_over: Vec<PassedOver>,
    /// What is readable but probably not meant.
    pub warnings: Vec<Problem>,
    /// The namespaces that pods live in and nothing declares, each with the place of one of its pods. They are in the
    /// cluster, with their names as their only labels.
    pub undeclared: BTreeMap<Arc<str>, Origin>,
    /// The workloads that own pods, by the pods' names. They need not be among the objects.
    pub owners: BTreeMap<ObjectName, Vec<Owner>>,
    /// The objects that name no namespace and were put into `default`, because [`ReadOptions::namespace`] does not say
    /// otherwise.
    pub in_default: Vec<Origin>,
}

/// What is wrong in a manifest, and where; shown as `file:line: field: message`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// File and line.
    pub origin: Origin,
    /// The field's path below the document, such as `spec.ingress[1].from[0].ipBlock.cidr`; empty where it
    /// is about the whole document or file.
    pub field: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl Problem {
    /// The first of several that are alike, with the number of the others.
    pub fn first_of(problems: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut problems = problems.into_iter();
        let first = problems.next()?;
        Some(match problems.count() {
            0 => first,
            more => Self { message: format!("{} ({more} more like this)", first.message), ..first },
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, field, message } = self;
        if field.is_empty() {
            write!(f, "{origin}: {message}")
        } else {
            write!(f, "{origin}: {field}: {message}")
        }
    }
}

/// At least one problem; shown one in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// An error if there are problems.
    ///
    /// # Errors
    /// All of them.
    pub fn check(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }

    /// The problems, in the order of the files and of the lines in them.
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What one file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The objects. Where something is unreadable they say less than was written and never allow more: an
    /// unreadable peer, port or rule matches nothing, an unreadable `podSelector` selects the whole
    /// namespace and leaves the policy without rules, unreadable `policyTypes` stand for both directions,
    /// and a policy with unknown fields isolates in both directions and has no rules.
    pub objects: Vec<Object>,
    /// The objects of kinds that are not read.
    pub unread: Vec<Unread>,
    /// The documents that are passed over.
    pub passed_over: Vec<PassedOver>,
    /// What is unreadable or invalid, by line.
    pub problems: Vec<Problem>,
    /// What is readable but probably not meant, by line.
    pub warnings: Vec<Problem>,
}

impl Reading {
    /// Adds the objects of another reading of the same file.
    fn add(&mut self, other: Self) {
        self.objects.extend(other.objects);
        self.unread.extend(other.unread);
        self.passed_over.extend(other.passed_over);
    }

    /// Remembers the policies of a list that turned out to be a part of something else.
    fn contains_policies_of(&mut self, items: &Self) {
        let count = items.objects.iter().filter(|object| object.resource.is_policy()).count();
        match (self.unread.last_mut(), self.passed_over.last_mut()) {
            (Some(unread), _) => unread.policies_inside += count,
            (None, Some(document)) => document.policies += count,
            (None, None) => {}
        }
    }
}

/// One object of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Where it starts.
    pub origin: Origin,
    /// What it is.
    pub resource: Resource,
    /// Whether it names no namespace and was put into `default`.
    pub in_default: bool,
}

/// An object of a kind that is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// `kind`; where a kind of that name is read, with its group behind it: `Service.serving.knative.dev`.
    pub kind: String,
    /// `metadata.namespace`; `None` where it names none.
    pub namespace: Option<Arc<str>>,
    /// `metadata.name`; `None` where it has none.
    pub name: Option<Arc<str>>,
    /// Where it was written.
    pub origin: Origin,
    /// Whether it is a policy, which another engine enforces.
    pub is_policy: bool,
    /// How many policies are written inside it, as in an `OpenShift` Template.
    pub policies_inside: usize,
}

/// A document that is passed over, because it is no Kubernetes object or none yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// Where it starts.
    pub origin: Origin,
    /// What it is instead.
    pub kind: PassedOverKind,
    /// How many policies are written inside it.
    pub policies: usize,
}

/// What a document is that is passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassedOverKind {
    /// Another program's: it has neither `apiVersion` nor `kind`, or is no mapping.
    Foreign,
    /// A file that is no YAML, and has nothing in it that looks like an object: why it is none.
    NotYaml(String),
    /// An object with a placeholder that something has to fill in.
    Template(Placeholder),
}

impl PassedOver {
    /// What another program's document is, where its file has a well-known name.
    pub fn sort(&self) -> Option<&'static str> {
        let name = Path::new(&*self.origin.file).file_name()?.to_string_lossy();
        let name = match self.kind {
            PassedOverKind::Foreign => &*name,
            PassedOverKind::NotYaml(_) | PassedOverKind::Template(_) => return None,
        };
        match name {
            "Chart.yaml" => Some("a Helm chart"),
            _ if kustomize::is_kustomization(name) => Some("a kustomization"),
            _ if name.starts_with("values") => Some("the values of a Helm chart"),
            _ => None,
        }
    }

    /// What it would be to whoever wants to have nothing passed over.
    pub fn to_problem(&self) -> Problem {
        Problem { origin: self.origin.clone(), field: String::new(), message: self.to_string() }
    }
}

/// What it is, and what can be done about it.
impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            PassedOverKind::Template(placeholder) => f.write_str(&placeholder.remedy(&self.origin.file)),
            PassedOverKind::NotYaml(problem) => f.write_str(problem),
            PassedOverKind::Foreign => match self.sort() {
                Some(sort) => write!(f, "no Kubernetes object, but {sort}"),
                None => f.write_str("no Kubernetes object"),
            },
        }
    }
}

/// The kinds of objects that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// `v1 Namespace`
    Namespace(Namespace),
    /// `v1 Node`
    Node(Node),
    /// `v1 Service`
    Service(Service),
    /// `v1 Endpoints`
    Endpoints(Endpoints),
    /// `discovery.k8s.io/v1 EndpointSlice`
    EndpointSlice(Endpoints),
    /// `networking.k8s.io/v1 NetworkPolicy`
    NetworkPolicy(NetworkPolicy),
    /// `policy.networking.k8s.io/v1beta1 ClusterNetworkPolicy`, or `v1alpha2`, which is the same
    ClusterNetworkPolicy(ClusterNetworkPolicy),
    /// A pod, or what makes pods.
    Workload(Workload),
}

impl Resource {
    /// Whether it decides about connections.
    fn is_policy(&self) -> bool {
        matches!(self, Self::NetworkPolicy(_) | Self::ClusterNetworkPolicy(_))
    }
}

/// A pod, or the one pod that an object with a pod template stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// What it is written as.
    pub kind: WorkloadKind,
    /// `metadata.ownerReferences`, as far as they are workloads.
    pub owners: Vec<Owner>,
    /// The pod.
    pub pod: Pod,
}

/// `meta/v1 OwnerReference` to a workload in the same namespace
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// `kind`
    pub kind: WorkloadKind,
    /// `name`
    pub name: Arc<str>,
}

/// The kinds that are pods or make pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    /// `v1`
    Pod,
    /// `apps/v1`
    Deployment,
    /// `apps/v1`
    StatefulSet,
    /// `apps/v1`
    DaemonSet,
    /// `apps/v1`
    ReplicaSet,
    /// `v1`
    ReplicationController,
    /// `batch/v1`
    Job,
    /// `batch/v1`
    CronJob,
    /// Any other kind with a pod template, such as `Rollout`; where another kind of that name is read, with its group
    /// behind it: `Service.serving.knative.dev`.
    Other(Arc<str>),
}

/// Reads one regular file, whatever its name.
///
/// # Errors
/// It cannot be opened, is no regular file, or is not YAML.
pub fn read_file(path: &Path) -> Result<Reading, Problem> {
    parse(files::open_regular(path)?, &path.to_string_lossy())
}

/// Reads a manifest, of which no more than one object is in memory at a time; `file` is its name in problems and
/// origins.
///
/// # Errors
/// It cannot be read to its end, is not YAML, or has an object that breaks a limit: 100 levels, a million values,
/// 64 MiB.
pub fn parse(source: impl Read, file: &str) -> Result<Reading, Problem> {
    read_parts(file, |sink| documents::read(source, file, sink))
}

/// Reads an object that something else has parsed, a `serde_json::Value` for one, as it is read in a manifest. `name`
/// stands for the file in problems and origins, all of them in line 1.
///
/// # Errors
/// It cannot be deserialized, or breaks a limit.
pub fn deserialize<'de>(object: impl Deserializer<'de>, name: &str) -> Result<Reading, Problem> {
    read_parts(name, |sink| documents::deserialize(object, sink))
}

/// Reads what `read` hands on.
fn read_parts(
    file: &str,
    read: impl FnOnce(Sink<'_>) -> Result<(), SyntaxError>,
) -> Result<Reading, Problem> {
    let report = Report::new(file);
    let mut reading = Reading::default();
    // What is read of a list whose end has not come yet: it may turn out to be none.
    let mut items = (Reading::default(), Report::new(file));
    let result = read(&mut |part| match part {
        Part::Item { index, node } => {
            objects::read_document(&Field::item(&node, index, &items.1), &mut items.0);
        }
        Part::Document(node) => {
            let mut rest = Reading::default();
            let is_list = objects::read_document(&Field::root(&node, &report), &mut rest);
            let (items, items_report) = mem::replace(&mut items, (Reading::default(), Report::new(file)));
            if is_list {
                reading.add(items);
                report.add(items_report);
            } else {
                rest.contains_policies_of(&items);
            }
            reading.add(rest);
        }
    });
    result.map_err(|SyntaxError { line, message }| Problem {
        origin: report.origin(line),
        field: String::new(),
        message,
    })?;
    (reading.problems, reading.warnings) = report.finish();
    Ok(reading)
}
