//! `--from` and `--to`: which ends are shown.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::IpAddr;
use std::str::FromStr;

use anyhow::bail;

use super::end::End;
use crate::cli::explain::kind;
use crate::cli::guess::did_you_mean;

/// Ends that a text stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// An outside address, or the pods that show it.
    Address(IpAddr),
    /// `namespace/`: every pod of it; `outside/` is what no namespace has.
    Namespace(String),
    /// `name`, in every namespace.
    Name(String),
    /// `namespace/name`, or `kind/name` in every namespace.
    Qualified(String, String),
    /// `kind/namespace/name`
    Full(String, String, String),
}

impl FromStr for Selection {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        let parts: Vec<_> = text.splitn(3, '/').map(str::to_owned).collect();
        Ok(match <[String; 3]>::try_from(parts) {
            Ok([kind, namespace, name]) => Self::Full(kind, namespace, name),
            Err(_) => match text.split_once('/') {
                None => Self::Name(text.to_owned()),
                Some((namespace, "")) => Self::Namespace(namespace.to_owned()),
                Some((before, name)) => Self::Qualified(before.to_owned(), name.to_owned()),
            },
        })
    }
}

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
