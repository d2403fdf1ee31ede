//! What many ends are called together.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use policy_compiler::model::Pod;

use super::end::{End, by_place};

/// Labels that show that the last part of a pod's name tells it apart from other replicas of its workload
/// ("Well-Known Labels, Annotations and Taints").
const REPLICA_LABELS: [&str; 5] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "job-name",
    "statefulset.kubernetes.io/pod-name",
];

/// The label that holds the last part but one of the name of a Deployment's pod.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// A namespace, and the name that replicas there have in common.
type Stem<'e> = (&'e str, &'e str);

/// The names of all ends.
pub(super) struct Names<'e, 'a> {
    ends: &'e [End<'a>],
    replicas: HashMap<Stem<'e>, usize>,
    populations: HashMap<&'e str, usize>,
}

impl<'e, 'a> Names<'e, 'a> {
    pub(super) fn new(ends: &'e [End<'a>]) -> Self {
        let mut names = Self { ends, replicas: HashMap::new(), populations: HashMap::new() };
        for end in ends {
            *names.populations.entry(end.place()).or_default() += 1;
            if let Some(stem) = stem(end) {
                *names.replicas.entry(stem).or_default() += 1;
            }
        }
        names
    }

    /// The names of ends of one place. Replicas of a workload, if all are there, are one name with their number.
    pub(super) fn list(&self, members: &[usize]) -> Vec<String> {
        let ends = || members.iter().filter_map(|member| self.ends.get(*member));
        let mut here: HashMap<Stem<'_>, usize> = HashMap::new();
        for stem in ends().filter_map(stem) {
            *here.entry(stem).or_default() += 1;
        }
        let mut seen = HashSet::new();
        let mut names = Vec::new();
        for end in ends() {
            let workload = stem(end).and_then(|stem| {
                let count = *here.get(&stem)?;
                let is_worth_it = count > 1 || is_hashed(end);
                (is_worth_it && self.replicas.get(&stem) == Some(&count)).then_some((stem, count))
            });
            match workload {
                None => names.push(marked(end, end.short_name().to_owned())),
                Some((stem, _)) if !seen.insert(stem) => {}
                Some((stem, count)) => names.push(marked(end, format!("{} ×{count}", stem.1))),
            }
        }
        names
    }

    /// One name for all ends of a place, and maybe more elsewhere; `None` where some of them are missing, or where there
    /// is but one.
    pub(super) fn all_of(&self, place: &str, members: &[usize]) -> Option<String> {
        let count = members.len();
        (count >= self.population(place) && self.list(members).len() > 1).then(|| format!("all {count}"))
    }

    /// The names of ends of any places: those of which all ends are among them, and then the others.
    pub(super) fn list_anywhere(&self, members: &[usize]) -> Vec<String> {
        let places = by_place(self.ends, members.iter().copied());
        let is_whole = |(place, members): &(&str, Vec<usize>)| {
            members.len() > 1 && self.populations.get(place) == Some(&members.len())
        };
        let (whole, others): (Vec<_>, Vec<_>) = places.into_iter().partition(is_whole);
        let whole = whole.iter().enumerate().map(|(index, (place, _))| match index {
            0 => format!("all of {place}"),
            _ => (*place).to_owned(),
        });
        let others = others.iter().flat_map(|(place, members)| {
            let names = self.list(members).into_iter().enumerate();
            names.map(move |(index, name)| if index == 0 { format!("{place}: {name}") } else { name })
        });
        whole.chain(others).collect()
    }

    /// How many ends a place has.
    fn population(&self, place: &str) -> usize {
        self.populations.get(place).copied().unwrap_or(0)
    }
}

fn marked(end: &End<'_>, name: String) -> String {
    if end.is_host_network() { format!("{name} (hostNetwork)") } else { name }
}

/// What the replicas of a pod's workload have in common, as far as labels and the name show it.
fn stem<'e>(end: &'e End<'_>) -> Option<Stem<'e>> {
    let pod = end.pod.filter(|pod| pod.workload.is_none())?;
    let (shorter, last) = pod.name.name.rsplit_once('-')?;
    let is_replica = REPLICA_LABELS.iter().any(|label| pod.labels.contains_key(*label))
        || last.bytes().all(|byte| byte.is_ascii_digit());
    let of_deployment = template_hash(pod)
        .and_then(|hash| shorter.strip_suffix(hash))
        .and_then(|name| name.strip_suffix('-'));
    let stem = of_deployment.or(is_replica.then_some(shorter))?;
    Some((&pod.name.namespace, stem))
}

/// What is the same for replicas of a workload, and different for everything else of one place.
pub(super) fn workload<'e>(end: &'e End<'_>) -> &'e str {
    stem(end).map_or(end.short_name(), |(_, name)| name)
}

fn template_hash(pod: &Pod) -> Option<&str> {
    pod.labels.get(TEMPLATE_HASH).map(String::as_str)
}

/// Whether the name ends in letters that say nothing.
fn is_hashed(end: &End<'_>) -> bool {
    let last = end.short_name().rsplit('-').next().unwrap_or_default();
    end.pod.is_some_and(|pod| template_hash(pod).is_some()) || !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Names in lines that are not wider than this, but for a name that is wider alone.
pub(super) fn wrapped<'n>(names: impl IntoIterator<Item = &'n str>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut names = names.into_iter().peekable();
    while let Some(name) = names.next() {
        let comma = if names.peek().is_some() { "," } else { "" };
        match lines.last_mut() {
            Some(line) if (line.chars().count() + 1 + name.chars().count() + comma.len()) <= width => {
                // It cannot fail.
                let _ = write!(line, " {name}{comma}");
            }
            _ => lines.push(format!("{name}{comma}")),
        }
    }
    lines
}
