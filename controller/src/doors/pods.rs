//! The pods of the node, and their addresses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use policy_compiler::model::{ObjectName, Pod};

/// The node's pods that have addresses of their own.
pub(super) struct Pods {
    node: String,
    local: BTreeMap<ObjectName, Pod>,
    /// The addresses that are theirs: one that several pods name is that of one of them.
    addresses: BTreeMap<ObjectName, Vec<IpAddr>>,
}

/// What a change of a pod means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// Nothing here.
    Nothing,
    /// Other addresses, or another claim to them.
    Change,
    /// The pod ends here, or another one of the same name begins.
    End,
}

impl Pods {
    pub(super) fn new(node: &str) -> Self {
        Self { node: node.to_owned(), local: BTreeMap::new(), addresses: BTreeMap::new() }
    }

    /// Whether this is the name of the node.
    pub(super) fn is_node(&self, name: &str) -> bool {
        self.node == name
    }

    /// Takes in a pod as it is now; `None` if it is gone.
    pub(super) fn note(&mut self, name: &ObjectName, pod: Option<&Pod>) -> Noted {
        let local = pod.filter(|pod| {
            pod.node.as_deref() == Some(&self.node) && pod.selectable() && !pod.addresses.is_empty()
        });
        let Some(now) = local else {
            return if self.local.remove(name).is_some() { Noted::End } else { Noted::Nothing };
        };
        match self.local.insert(name.clone(), now.clone()) {
            Some(before) if before.created != now.created => Noted::End,
            Some(before) if (&before.addresses, before.ending) == (&now.addresses, now.ending) => {
                Noted::Nothing
            }
            _ => Noted::Change,
        }
    }

    /// Decides anew which address is whose, and says whose addresses are other ones than before.
    pub(super) fn settle(&mut self) -> BTreeSet<ObjectName> {
        let mut owners: HashMap<IpAddr, &Pod> = HashMap::with_capacity(2 * self.local.len());
        for pod in self.local.values() {
            for address in &pod.addresses {
                let owner = owners.entry(*address).or_insert(pod);
                if pod.claim() > owner.claim() {
                    *owner = pod;
                }
            }
        }
        let mut addresses: BTreeMap<ObjectName, Vec<IpAddr>> = BTreeMap::new();
        for (name, pod) in &self.local {
            let own = |address: &IpAddr| owners.get(address).is_some_and(|owner| owner.name == pod.name);
            let own: Vec<_> = pod.addresses.iter().copied().filter(own).collect();
            if !own.is_empty() {
                addresses.insert(name.clone(), own);
            }
        }
        let changed = |(name, own): &(&ObjectName, &Vec<IpAddr>)| self.addresses.get(name) != Some(*own);
        let concerned = addresses.iter().filter(changed).map(|(name, _)| name.clone()).collect();
        self.addresses = addresses;
        concerned
    }

    /// The pods that have addresses, and which.
    pub(super) fn addresses(&self) -> &BTreeMap<ObjectName, Vec<IpAddr>> {
        &self.addresses
    }
}
