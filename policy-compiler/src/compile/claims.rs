//! Which pods show an address, and whether it can be a pod's at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::model::{Node, ObjectName, Pod};

/// Who shows each address.
#[derive(Default)]
pub(super) struct Claims {
    /// The pods that live.
    live: Shown,
    /// The pods that have finished.
    finished: Shown,
    /// Addresses that several pods of either kind show: few, or none.
    shared: BTreeSet<IpAddr>,
    /// How many nodes have an address. It is no pod's.
    of_nodes: HashMap<IpAddr, usize>,
}

#[derive(Default)]
struct Shown(BTreeMap<IpAddr, BTreeSet<ObjectName>>);

impl Shown {
    fn at(&self, address: IpAddr) -> Option<&BTreeSet<ObjectName>> {
        self.0.get(&address)
    }

    fn remove(&mut self, address: IpAddr, pod: &ObjectName) {
        if let Some(pods) = self.0.get_mut(&address) {
            pods.remove(pod);
            if pods.is_empty() {
                self.0.remove(&address);
            }
        }
    }
}

impl Claims {
    /// Takes in that a pod was one thing and is another; returns the addresses that it showed or shows.
    pub(super) fn put_pod(&mut self, old: Option<&Pod>, new: Option<&Pod>) -> BTreeSet<IpAddr> {
        let [old, new] = [old, new].map(|pod| pod.filter(|pod| !pod.host_network));
        let mut touched = BTreeSet::new();
        if let Some(pod) = old {
            let shown = self.shown(pod.finished);
            for address in &pod.addresses {
                shown.remove(*address, &pod.name);
                touched.insert(*address);
            }
        }
        if let Some(pod) = new {
            let shown = self.shown(pod.finished);
            for address in &pod.addresses {
                shown.0.entry(*address).or_default().insert(pod.name.clone());
                touched.insert(*address);
            }
        }
        for address in &touched {
            let several = |shown: &Shown| shown.at(*address).is_some_and(|pods| pods.len() > 1);
            if several(&self.live) || several(&self.finished) {
                self.shared.insert(*address);
            } else {
                self.shared.remove(address);
            }
        }
        touched
    }

    fn shown(&mut self, finished: bool) -> &mut Shown {
        if finished { &mut self.finished } else { &mut self.live }
    }

    /// Takes in that a node was one thing and is another; returns the addresses that are a node's or not, other than
    /// before.
    pub(super) fn put_node(&mut self, old: Option<&Node>, new: Option<&Node>) -> BTreeSet<IpAddr> {
        let addresses = |node: Option<&Node>| -> BTreeSet<IpAddr> {
            node.into_iter().flat_map(|node| node.addresses.iter().copied()).collect()
        };
        let (old, new) = (addresses(old), addresses(new));
        let mut changed = BTreeSet::new();
        for address in new.difference(&old) {
            let nodes = self.of_nodes.entry(*address).or_default();
            *nodes += 1;
            if *nodes == 1 {
                changed.insert(*address);
            }
        }
        for address in old.difference(&new) {
            if let Some(nodes) = self.of_nodes.get_mut(address) {
                *nodes -= 1;
                if *nodes == 0 {
                    self.of_nodes.remove(address);
                    changed.insert(*address);
                }
            }
        }
        changed
    }

    /// Whether an address is a node's.
    pub(super) fn is_of_node(&self, address: IpAddr) -> bool {
        self.of_nodes.contains_key(&address)
    }

    /// Every pod that shows an address, whether it can be a pod's or not.
    pub(super) fn showing(&self, address: IpAddr) -> impl Iterator<Item = &ObjectName> {
        [&self.live, &self.finished].into_iter().filter_map(move |shown| shown.at(address)).flatten()
    }

    /// The pods that live and show an address, by name: any of them can be a peer's. None for a node's address.
    pub(super) fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &ObjectName> {
        self.live.at(address).filter(|_| !self.is_of_node(address)).into_iter().flatten()
    }

    /// Whether a pod that lives shows an address, and it can be a pod's.
    pub(super) fn is_claimed(&self, address: IpAddr) -> bool {
        self.claimants(address).next().is_some()
    }

    /// Every address that a pod which lives shows and that can be a pod's.
    pub(super) fn claimed(&self) -> impl Iterator<Item = IpAddr> {
        self.live.0.keys().copied().filter(|address| !self.is_of_node(*address))
    }

    /// Those of them in a range.
    pub(super) fn claimed_in(&self, range: &RangeInclusive<IpAddr>) -> impl Iterator<Item = IpAddr> {
        let live = self.live.0.range(range.clone()).map(|(address, _)| *address);
        live.filter(|address| !self.is_of_node(*address))
    }

    /// The pods, by name, whose policies judge what an address sends and gets: those that live, or where there is none
    /// those that have finished, since what one of them has left behind may still send.
    pub(super) fn judged(&self, address: IpAddr) -> impl Iterator<Item = &ObjectName> {
        let of = |shown: &'_ Shown| shown.0.contains_key(&address);
        let shown = if of(&self.live) { &self.live } else { &self.finished };
        shown.at(address).filter(|_| !self.is_of_node(address)).into_iter().flatten()
    }

    /// Whether the policies of several pods judge what an address sends and gets.
    pub(super) fn is_shared(&self, address: IpAddr) -> bool {
        self.shared.contains(&address) && self.judged(address).nth(1).is_some()
    }

    /// The pods that live and show an address of a node.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&ObjectName, IpAddr)> {
        let shown = self.of_nodes.keys().filter_map(|address| Some((*address, self.live.at(*address)?)));
        shown.flat_map(|(address, pods)| pods.iter().map(move |pod| (pod, address)))
    }
}
