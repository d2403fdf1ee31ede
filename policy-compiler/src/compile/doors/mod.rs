//! The table `netdev podfence`: what passes the devices of a node.
//!
//! A policy guards pods, not addresses. So nothing leaves a pod's door that is not the pod's own ([`guard`]), and
//! nothing comes in elsewhere with the source of a pod that has a door here. What the addresses of a packet do not
//! decide, because no pod has them (broadcast, multicast, link-local), is judged where a door shows whose it is
//! ([`link`]): at the sender's door for egress, at each receiver's for ingress.
//!
//! All of that depends on the devices of the node, of which no manifest knows. The table `inet podfence` stays a
//! function of the objects alone.

mod guard;
mod judging;
mod link;
mod required;

pub(super) use required::Required;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::counted::comment;
use super::draft::Draft;
use super::side::{Regranted, Side};
use super::world::{Changed, World};
use crate::model::{Doors, Family, ObjectName, Pod};
use crate::ruleset::{
    ChainId, ChainRole, DevicePart, Element, ElementKey, Fields, Hook, KeyType, Rule, Ruleset, SetId,
    SetKind, SetRole, Statement, TableFamily, Transaction,
};
use guard::Base;
use link::{Link, Renewed};

/// The table, and what it was made of.
pub(super) struct DoorTable {
    doors: Doors,
    draft: Draft,
    /// The node's pods that have addresses.
    local: BTreeSet<ObjectName>,
    link: Link,
    /// What has changed since the last update.
    changed: Changed,
    /// The pods whose isolation has changed since.
    subjects: BTreeSet<ObjectName>,
    /// The addresses to which the rules for ingress may grant something else since.
    regranted: Regranted,
    /// The pods whose doors have changed since.
    moved: BTreeSet<ObjectName>,
    /// The base chains of each device.
    guarded: BTreeMap<Arc<str>, BTreeSet<ChainId>>,
    listed: Listed,
}

/// The sets that have each pod's addresses.
#[derive(Default)]
pub(super) struct Listed(BTreeMap<ObjectName, Vec<Listing>>);

/// A set, the address that it has, and where packets go on whose address it is.
type Listing = (SetId, IpAddr, Option<ChainId>);

impl Listed {
    /// Lists some pods anew: `now` says in which sets their addresses are.
    pub(super) fn update(
        &mut self,
        draft: &mut Draft,
        pods: &BTreeSet<ObjectName>,
        now: impl Fn(&ObjectName) -> Vec<Listing>,
    ) {
        // All removals come first: an address may have moved from one pod to another.
        for (set, address, _) in pods.iter().filter_map(|name| self.0.remove(name)).flatten() {
            draft.remove_element(&set, ElementKey::Address(address));
        }
        for name in pods {
            let listed = now(name);
            for (set, address, target) in &listed {
                let element =
                    Element { target: target.clone(), comment: Some(comment(&name.to_string()).into()) };
                draft.put_element(set, ElementKey::Address(*address), element);
            }
            if !listed.is_empty() {
                self.0.insert(name.clone(), listed);
            }
        }
    }
}

impl DoorTable {
    pub(super) fn new() -> Self {
        let mut draft = Draft::new(TableFamily::Netdev);
        for family in Family::BOTH {
            for (set, verdicts) in
                [(SetRole::BehindDoors(family), true), (SetRole::WithoutDoor(family), false)]
            {
                let set = set.into();
                draft.put_set(&set, SetKind { key: KeyType::Address(family), interval: false, verdicts });
                draft.pin_set(&set);
            }
        }
        Self {
            doors: Doors::default(),
            link: Link::new(&mut draft),
            draft,
            local: BTreeSet::new(),
            changed: Changed::default(),
            subjects: BTreeSet::new(),
            regranted: Regranted::default(),
            moved: BTreeSet::new(),
            guarded: BTreeMap::new(),
            listed: Listed::default(),
        }
    }

    /// The pods whose doors have changed since the last update.
    pub(super) fn moved(&self) -> &BTreeSet<ObjectName> {
        &self.moved
    }

    /// Whether a pod's door is known.
    pub(super) fn has_door(&self, pod: &ObjectName) -> bool {
        self.doors.of_pods.contains_key(pod)
    }

    pub(super) fn ruleset(&self) -> &Ruleset {
        self.draft.ruleset()
    }

    /// How many elements the sets and maps have together.
    pub(super) fn elements(&self) -> usize {
        self.draft.elements()
    }

    /// What the devices say now.
    pub(super) fn put(&mut self, doors: &Doors) {
        if *doors == self.doors {
            return;
        }
        let old = std::mem::replace(&mut self.doors, doors.clone());
        let names = old.of_pods.keys().chain(self.doors.of_pods.keys());
        let is_new = |name: &&ObjectName| old.of_pods.get(*name) != self.doors.of_pods.get(*name);
        let tunnels = old.tunnels != self.doors.tunnels;
        let own = self.doors.node_link_local.iter();
        let own = own.map(|address| (ElementKey::Address(IpAddr::V6(*address)), Element::BARE)).collect();
        self.draft.replace_elements(&SetRole::NodeLinkLocal.into(), own);
        self.moved.extend(names.filter(|name| tunnels || is_new(name)).cloned());
    }

    /// Notes what an update of the other table was about.
    pub(super) fn note(&mut self, changed: Changed, sides: &mut [Side; 2]) {
        self.subjects.extend(sides.iter_mut().flat_map(Side::take_changed_subjects));
        let [_, ingress] = sides;
        self.regranted.extend(ingress.take_regranted());
        self.changed.extend(changed);
    }

    /// Brings the table up to date, and returns the way to it.
    pub(super) fn update(&mut self, world: &World, sides: &mut [Side; 2]) -> Transaction {
        let changed = std::mem::take(&mut self.changed);
        let subjects = std::mem::take(&mut self.subjects);
        let moved = std::mem::take(&mut self.moved);
        let regranted = std::mem::take(&mut self.regranted);
        let mut left = BTreeSet::new();
        for name in &changed.pods {
            let local = world
                .pod(name)
                .is_some_and(|pod| world.is_local(pod) && world.addresses(pod).next().is_some());
            if local {
                self.local.insert(name.clone());
            } else if self.local.remove(name) {
                left.insert(name);
            }
        }
        let in_changed_namespace = |name: &&ObjectName| changed.namespaces.contains(&name.namespace);
        let mut concerned: BTreeSet<_> = self.local.iter().filter(in_changed_namespace).cloned().collect();
        concerned.extend(changed.pods.iter().chain(&moved).chain(&subjects).cloned());
        if !moved.is_empty() {
            let loose = self.doors.of_pods.iter().filter(|(_, door)| guard::is_loose(door));
            concerned.extend(loose.map(|(name, _)| name.clone()));
        }
        let mut concerned = world.with_sharers(concerned);
        concerned.retain(|name| self.local.contains(name) || left.contains(name));

        let (doors, local) = (&self.doors, &self.local);
        self.listed.update(&mut self.draft, &concerned, |name| {
            let pod = world.pod(name).filter(|_| local.contains(name));
            let door = doors.of_pods.get(name);
            let has_door = |name: &ObjectName| doors.of_pods.contains_key(name);
            let addresses = pod.into_iter().flat_map(|pod| world.addresses(pod));
            let listed = addresses.filter(|address| stands_for(world, *address, has_door) == Some(name));
            // Where a pod of another node shows the address too, its packets come in elsewhere.
            let listed = listed
                .filter(|address| door.is_none() || world.claimants(*address).all(|pod| world.is_local(pod)));
            let set = if door.is_some() { SetRole::BehindDoors } else { SetRole::WithoutDoor };
            let target = || door.map(guard::elsewhere_chain);
            listed.map(|address| (set(Family::of(address)).into(), address, target())).collect()
        });
        let relabelled =
            !(changed.policies.is_empty() && changed.namespaces.is_empty() && concerned.is_empty());
        if relabelled {
            let renewed = Renewed { pods: &concerned, granted: &regranted };
            self.link.update(world, sides, &self.doors, &renewed, &mut self.draft);
        }
        self.guard(world, sides, &concerned);
        self.draft.finish().1
    }

    /// Keeps the base chains of the devices.
    fn guard(&mut self, world: &World, sides: &[Side; 2], concerned: &BTreeSet<ObjectName>) {
        let local = self.doors.of_pods.iter().filter(|(name, _)| self.local.contains(*name));
        let doors: BTreeSet<&Arc<str>> = local.map(|(_, door)| &door.device).collect();
        let mut bases: BTreeMap<Arc<str>, Vec<Base>> = BTreeMap::new();
        for device in &self.doors.elsewhere {
            if !self
                .guarded
                .get(device)
                .is_some_and(|chains| chains.contains(&device_chain(DevicePart::Elsewhere, device)))
            {
                bases.insert(device.clone(), vec![base_elsewhere(device)]);
            }
        }
        for name in concerned.intersection(&self.local) {
            let Some((pod, door)) = world.pod(name).zip(self.doors.of_pods.get(name)) else { continue };
            let judging = self.link.judging(world, sides, pod, door, &mut self.draft);
            let at_door = guard::AtDoor::new(world, pod, door, &self.doors, &judging);
            bases.insert(door.device.clone(), at_door.put(&mut self.draft));
        }
        let gone = |device: &Arc<str>| !doors.contains(device) && !self.doors.elsewhere.contains(device);
        let gone: Vec<_> = self.guarded.keys().filter(|device| gone(device)).cloned().collect();
        bases.extend(gone.into_iter().map(|device| (device, Vec::new())));
        for (device, chains) in bases {
            self.put_bases(device, chains);
        }
    }

    /// Makes these all base chains of a device.
    fn put_bases(&mut self, device: Arc<str>, chains: Vec<Base>) {
        let before = self.guarded.remove(&device).unwrap_or_default();
        let mut now = BTreeSet::new();
        for (name, hook, rules) in chains {
            if !before.contains(&name) {
                self.draft.pin(&name);
            }
            self.draft.put_chain(&name, Some(hook), rules);
            now.insert(name);
        }
        before.difference(&now).for_each(|name| self.draft.unpin(name));
        if !now.is_empty() {
            self.guarded.insert(device, now);
        }
    }
}

/// The pod of the node in whose name the sets list an address: one with a door, if any pod that shows it has one.
fn stands_for(world: &World, address: IpAddr, has_door: impl Fn(&ObjectName) -> bool) -> Option<&ObjectName> {
    let local = world.claimants(address).filter(|pod| world.is_local(pod));
    let by_rank = |one: &&Arc<Pod>, other: &&Arc<Pod>| {
        let doors = has_door(&one.name).cmp(&has_door(&other.name));
        doors.then_with(|| one.claim().cmp(&other.claim()))
    };
    local.max_by(by_rank).map(|pod| &pod.name)
}

/// What may come in at a device that is no pod's.
///
/// A packet of a pod that has a door comes in there. One that comes in elsewhere with its source is somebody else's:
/// the only honest one is a pod's own, to a load balancer that sends it back to this node and leaves the source as it
/// is, and nothing tells that one from a borrowed source.
fn base_elsewhere(device: &Arc<str>) -> Base {
    let fields = Family::BOTH.map(|family| (Fields::Source(family), SetRole::BehindDoors(family)));
    let arp = (Fields::ArpSource, SetRole::BehindDoors(Family::Ipv4));
    let rules = fields.into_iter().chain([arp]);
    let rules = rules.map(|(fields, map)| Rule::new([Statement::VerdictMap(fields, map.into())]));
    (device_chain(DevicePart::Elsewhere, device), Hook::Ingress(device.clone()), rules.collect())
}

/// The chain of a part of what happens at a device.
fn device_chain(part: DevicePart, device: &Arc<str>) -> ChainId {
    ChainRole::Device(part, device.clone()).into()
}
