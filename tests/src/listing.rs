//! The table `inet podfence` as nft lists it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::agent::program;
use crate::namespace::Namespace;
use crate::node::Node;

/// A table without what its counters have counted: the lines of every set, map and chain by kind and name, in
/// an order that does not depend on the table's history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing(BTreeMap<String, Vec<String>>);

impl Listing {
    /// What a namespace has; nothing if there is no such table.
    ///
    /// # Errors
    /// nft cannot list it.
    pub fn of(namespace: &Namespace) -> Result<Self> {
        let tables = namespace.feed("nft", &["list", "tables"], "")?;
        if !tables.lines().any(|line| line == "table inet podfence") {
            return Ok(Self::default());
        }
        Ok(Self::parse(&namespace.feed("nft", &["--stateless", "list", "table", "inet", "podfence"], "")?))
    }

    /// What nft makes of a text.
    ///
    /// # Errors
    /// nft refuses it.
    pub fn of_text(text: &str) -> Result<Self> {
        let namespace = Namespace::new()?;
        namespace.nft(text)?;
        Self::of(&namespace)
    }

    /// The names of the sets, maps and chains, each behind its kind.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What another one has differently, one line for each set, map and chain.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let names: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let different = names.into_iter().filter(|name| self.0.get(*name) != other.0.get(*name));
        different.map(|name| format!("{name}: {:?} and {:?}", self.0.get(name), other.0.get(name))).collect()
    }

    fn parse(text: &str) -> Self {
        let mut listing = BTreeMap::<_, Vec<_>>::new();
        let mut name = String::new();
        for line in text.lines() {
            match line.strip_prefix('\t') {
                // The table's own flags: it has an owner, or had one.
                Some(flags) if flags.starts_with("flags") => {}
                Some(title) if !title.starts_with(['\t', '}']) => {
                    title.trim_end_matches(" {").clone_into(&mut name);
                    listing.insert(name.clone(), Vec::new());
                }
                Some(line) if line != "}" => {
                    listing.entry(name.clone()).or_default().push(line.trim().to_owned());
                }
                _ => {}
            }
        }
        for (_, lines) in listing.iter_mut().filter(|(title, _)| !title.starts_with("chain ")) {
            *lines = sorted_elements(&lines.join(" "));
        }
        Self(listing)
    }
}

/// nft lists the elements of a set as they come from the kernel's hash table. Those that time out are what became
/// of connections, and no part of the ruleset.
fn sorted_elements(set: &str) -> Vec<String> {
    let (head, elements) = set.split_once(" elements = { ").unwrap_or((set, ""));
    let elements = elements.trim_end_matches(" }").split(", ").map(str::to_owned);
    let elements: BTreeSet<String> =
        elements.filter(|element| !element.is_empty() && !element.contains(" timeout ")).collect();
    std::iter::once(head.to_owned()).chain(elements).collect()
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, lines)| writeln!(f, "{name}: {}", lines.join("; ")))
    }
}

/// What `podfence compile` prints for a node, with more arguments.
///
/// # Errors
/// The manifests are invalid.
pub fn dry_run(node: &Node, manifests: &Path, arguments: &[&str]) -> Result<String> {
    let manifests = manifests.to_string_lossy();
    let arguments = [&["compile", "--node", node.name(), "-f", &manifests], arguments].concat();
    node.namespace().feed(&program("podfence")?.to_string_lossy(), &arguments, "")
}
