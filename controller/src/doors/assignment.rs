//! Which device is whose door. Routes decide, and the addresses that the pods' ends of links show; what a pod
//! sends does not.
//!
//! A pod with `CAP_NET_ADMIN` can show any address, so that one shows an address proves little: an assignment
//! stays until something better is known, and a new one must be the only one that is possible.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use policy_compiler::model::ObjectName;

/// Where the route to an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    /// To no place where a door can be.
    Nowhere,
    /// To this device, which the pod is behind.
    Device(u32),
    /// To this bridge, one of whose ports the pod is behind.
    Bridge(u32),
}

/// What is known of a pod.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// Its addresses. No two pods have one in common.
    pub(super) addresses: Vec<(IpAddr, Lead)>,
    /// Its door so far. No two pods have the same.
    pub(super) held: Option<u32>,
}

/// A device that can be a door.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    /// The bridge of which it is a port.
    pub(super) bridge: Option<u32>,
    /// The addresses that its other end shows, as far as they are known.
    pub(super) shows: &'a BTreeSet<IpAddr>,
}

/// What comes out for a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// This device is its door, because route or addresses say so.
    Door(u32),
    /// This device was its door, and nothing better is known.
    Still(u32),
    /// It has no door.
    Missing(Missing),
}

/// Why a pod has no door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Missing {
    /// No route leads to a device that can be one, and no port of a bridge shows an address of the pod.
    NotFound,
    /// It may be one of several devices, or one that is, or may be, the door of another pod.
    Contested,
}

/// Devices for each pod that still needs one.
type Options<'a> = BTreeMap<&'a ObjectName, BTreeSet<u32>>;

/// Finds the door of every pod.
///
/// 1. A pod keeps its door while a route leads there or its end shows an address of the pod.
/// 2. The others are assigned by elimination among the devices that are left; see [`eliminate`]. They may swap
///    the doors that they had.
/// 3. A pod that finds no other keeps the door that it had, and no other pod gets that: one that hides its own
///    address and shows another pod's gains nothing.
pub(super) fn assign<'a>(
    claims: &BTreeMap<&'a ObjectName, Claim>,
    candidates: &BTreeMap<u32, Candidate<'_>>,
) -> BTreeMap<&'a ObjectName, Finding> {
    let evidence = Evidence { claims, candidates };
    let held = |claim: &Claim| claim.held.filter(|device| candidates.contains_key(device));
    let mut findings = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let mut open = Vec::new();
    for (name, claim) in claims {
        match held(claim) {
            Some(held) if evidence.proves(claim, held) => {
                findings.insert(*name, Finding::Door(held));
                taken.insert(held);
            }
            held => open.push((*name, evidence.options(claim), held)),
        }
    }
    if open.is_empty() {
        return findings;
    }
    let owners = evidence.owners();
    let is_clean = |device: u32, name: &ObjectName| {
        let mut shows = candidates.get(&device).into_iter().flat_map(|candidate| candidate.shows);
        shows.all(|address| owners.get(address).is_none_or(|owner| *owner == name))
    };
    let found = loop {
        let free = |devices: &BTreeSet<u32>| devices.difference(&taken).copied().collect();
        let left = open.iter().map(|(name, devices, _)| (*name, free(devices))).collect();
        let found = eliminate(left, is_clean);
        let before = taken.len();
        taken.extend(
            open.iter().filter(|(name, ..)| !found.contains_key(name)).filter_map(|(.., held)| *held),
        );
        if taken.len() == before {
            break found;
        }
    };
    findings.extend(open.into_iter().map(|(name, devices, held)| {
        let finding = match (found.get(name), held) {
            (Some(device), _) => Finding::Door(*device),
            (None, Some(held)) => Finding::Still(held),
            (None, None) if devices.is_empty() => Finding::Missing(Missing::NotFound),
            (None, None) => Finding::Missing(Missing::Contested),
        };
        (name, finding)
    }));
    findings
}

/// Assigns devices that can belong to no other pod: a pod with one option takes it, and the others do without. A device
/// that is the only option of several pods goes to none of them. When no such pod is left, an option that
/// shows no address of another pod is taken for the only one.
fn eliminate<'a>(
    mut open: Options<'a>,
    is_clean: impl Fn(u32, &ObjectName) -> bool,
) -> BTreeMap<&'a ObjectName, u32> {
    let mut found = BTreeMap::new();
    loop {
        let mut only: BTreeMap<u32, Vec<&'a ObjectName>> = BTreeMap::new();
        for (name, devices) in &open {
            if let (1, Some(device)) = (devices.len(), devices.first()) {
                only.entry(*device).or_default().push(name);
            }
        }
        for (device, names) in &only {
            if let [name] = names.as_slice() {
                found.insert(*name, *device);
            }
            open.retain(|name, _| !names.contains(name));
        }
        for devices in open.values_mut() {
            devices.retain(|device| !only.contains_key(device));
        }
        if only.is_empty() && !prefer_clean(&mut open, &is_clean) {
            return found;
        }
    }
}

/// Narrows the options of pods that have one, and only one, that is clean; says whether there was such a pod.
fn prefer_clean(open: &mut Options<'_>, is_clean: impl Fn(u32, &ObjectName) -> bool) -> bool {
    let mut narrowed = false;
    for (name, devices) in open {
        let clean: BTreeSet<_> = devices.iter().copied().filter(|device| is_clean(*device, name)).collect();
        if clean.len() == 1 {
            *devices = clean;
            narrowed = true;
        }
    }
    narrowed
}

/// What speaks for a device.
struct Evidence<'a, 'c> {
    claims: &'c BTreeMap<&'a ObjectName, Claim>,
    candidates: &'c BTreeMap<u32, Candidate<'c>>,
}

impl<'a> Evidence<'a, '_> {
    /// The devices to which routes to a pod lead.
    fn routed(&self, claim: &Claim) -> impl Iterator<Item = u32> {
        let devices = claim.addresses.iter().filter_map(|(_, lead)| match lead {
            Lead::Device(device) => Some(*device),
            Lead::Nowhere | Lead::Bridge(_) => None,
        });
        devices.filter(|device| self.candidates.contains_key(device))
    }

    /// Whether a device is a port of a bridge to which routes to a pod lead, and shows one of these addresses.
    fn is_behind(claim: &Claim, candidate: &Candidate<'_>) -> bool {
        let shows = |(address, lead): &(IpAddr, Lead)| match lead {
            Lead::Bridge(bridge) => candidate.bridge == Some(*bridge) && candidate.shows.contains(address),
            Lead::Nowhere | Lead::Device(_) => false,
        };
        claim.addresses.iter().any(shows)
    }

    /// Whether a device is one of the options of a pod.
    fn proves(&self, claim: &Claim, device: u32) -> bool {
        let mut routed = self.routed(claim).peekable();
        match routed.peek() {
            Some(_) => routed.any(|routed| routed == device),
            None => self.candidates.get(&device).is_some_and(|candidate| Self::is_behind(claim, candidate)),
        }
    }

    /// The devices that can be a pod's door. What a route says goes before what the ports of a bridge show.
    fn options(&self, claim: &Claim) -> BTreeSet<u32> {
        let routed: BTreeSet<_> = self.routed(claim).collect();
        if !routed.is_empty() {
            return routed;
        }
        let behind = self.candidates.iter().filter(|(_, candidate)| Self::is_behind(claim, candidate));
        behind.map(|(device, _)| *device).collect()
    }

    /// Whose the addresses are.
    fn owners(&self) -> HashMap<IpAddr, &'a ObjectName> {
        let addresses = |(name, claim): (&&'a ObjectName, &'_ Claim)| {
            let name = *name;
            claim.addresses.iter().map(move |(address, _)| (*address, name)).collect::<Vec<_>>()
        };
        self.claims.iter().flat_map(addresses).collect()
    }
}

#[cfg(test)]
mod tests;
