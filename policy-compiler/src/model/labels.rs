//! Labels, and the selectors that match them (`meta/v1 LabelSelector`).

use std::collections::{BTreeMap, BTreeSet};

use super::{NAMESPACE_NAME_LABEL, Namespace};

/// `metadata.labels`
pub type Labels = BTreeMap<String, String>;

/// `LabelSelector`: all of its requirements hold. Without any it selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSelector {
    /// The terms of `matchLabels` (as [`Operator::In`] with one value) and of `matchExpressions`.
    pub requirements: Vec<Requirement>,
}

/// One term of a selector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// `key`
    pub key: String,
    /// `operator` and `values`
    pub operator: Operator,
}

/// What a requirement asks of the value under its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The key is there and its value is one of these.
    In(BTreeSet<String>),
    /// The key is missing, or its value is none of these.
    NotIn(BTreeSet<String>),
    /// The key is there.
    Exists,
    /// The key is missing.
    DoesNotExist,
}

impl LabelSelector {
    /// The selector that selects everything (`{}`).
    pub fn everything() -> Self {
        Self::default()
    }

    /// The selector of what has all of these labels (`matchLabels`).
    pub fn equal<'l>(labels: impl IntoIterator<Item = (&'l str, &'l str)>) -> Self {
        let requirement = |(key, value): (&str, &str)| Requirement {
            key: key.to_owned(),
            operator: Operator::In([value.to_owned()].into()),
        };
        Self { requirements: labels.into_iter().map(requirement).collect() }
    }

    /// Whether every requirement holds for `labels`.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether the selector selects a namespace. Of one that is not known nothing but the name can match: its labels
    /// may be any, so that a label that is asked to be missing may be there.
    pub fn matches_namespace(&self, name: &str, namespace: Option<&Namespace>) -> bool {
        match namespace {
            Some(namespace) => self.matches(namespace.labels()),
            None => self.requirements.iter().all(|requirement| requirement.matches_name(name) == Some(true)),
        }
    }

    /// Whether the selector selects a namespace, or may select it: of one that is not known, its labels may be any that
    /// go with its name.
    pub fn may_match_namespace(&self, name: &str, namespace: Option<&Namespace>) -> bool {
        match namespace {
            Some(namespace) => self.matches(namespace.labels()),
            None => self.requirements.iter().all(|requirement| requirement.matches_name(name) != Some(false)),
        }
    }

    /// Whether the selector asks for labels of a namespace that its name does not give.
    pub fn asks_beyond_name(&self) -> bool {
        self.requirements.iter().any(|requirement| requirement.key != NAMESPACE_NAME_LABEL)
    }
}

impl Requirement {
    /// Whether the requirement holds for `labels`.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.operator.holds(labels.get(&self.key).map(String::as_str))
    }

    /// Whether the requirement holds for a namespace of which only the name is known; `None` where it asks for
    /// anything else.
    pub fn matches_name(&self, name: &str) -> Option<bool> {
        (self.key == NAMESPACE_NAME_LABEL).then(|| self.operator.holds(Some(name)))
    }
}

impl Operator {
    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Self::In(values) => value.is_some_and(|value| values.contains(value)),
            Self::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
        }
    }
}
