//! `--from` and `--to`: which ends are shown.

use std::collections::BTreeSet;

use anyhow::bail;

use super::end::End;
use crate::cli::guess::did_you_mean;
use crate::cli::query::{Selection, kind};

impl Selection {
    fn includes(&self, end: &End<'_>) -> bool {
        match self {
            Self::Address(address) => end.party.addresses().contains(address),
            Self::Namespace(namespace) => end.place() == namespace,
            Self::Name(name) => end.short_name() == name,
            Self::Qualified(before, name) => {
                end.short_name() == name && (end.place() == before || is_kind(end, before))
            }
            Self::Full(kind, namespace, name) => {
                end.short_name() == name && end.place() == namespace && is_kind(end, kind)
            }
        }
    }

    /// What is called like it, where it matches nothing.
    fn unknown(&self, ends: &[End<'_>]) -> String {
        let names = || ends.iter().map(|end| end.name.clone());
        match self {
            Self::Address(address) => {
                format!("no pod has the address {address}: name it with --external too")
            }
            Self::Namespace(wanted) => {
                let places: BTreeSet<_> = ends.iter().map(|end| end.place().to_owned()).collect();
                format!("no pod is in namespace `{wanted}`{}", did_you_mean(wanted, places))
            }
            Self::Name(wanted) => format!("no pod is called `{wanted}`{}", did_you_mean(wanted, names())),
            Self::Qualified(before, name) | Self::Full(_, before, name) => {
                let wanted = format!("{before}/{name}");
                format!("no pod is called `{wanted}`{}", did_you_mean(&wanted, names()))
            }
        }
    }
}

fn is_kind(end: &End<'_>, text: &str) -> bool {
    end.pod.is_some_and(|pod| kind::is_meant(pod.workload.as_deref().unwrap_or("Pod"), text))
}

/// The ends that any of the selections includes, all without one; an error where a selection includes none.
pub(super) fn select(selections: &[Selection], ends: &[End<'_>]) -> anyhow::Result<Vec<usize>> {
    if let Some(idle) = selections.iter().find(|selection| !ends.iter().any(|end| selection.includes(end))) {
        bail!("{}", idle.unknown(ends));
    }
    let is_chosen = |end: &End<'_>| selections.iter().any(|selection| selection.includes(end));
    let chosen = ends.iter().enumerate().filter(|(_, end)| selections.is_empty() || is_chosen(end));
    Ok(chosen.map(|(index, _)| index).collect())
}
