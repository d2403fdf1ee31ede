//! The doors of the node's pods, found through netlink alone: by the routes to their addresses, and by the
//! addresses that the other ends of a bridge's ports show.

mod assignment;
mod ends;
mod keeper;
mod network;
mod pods;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy_compiler::model::{Door, Doors, ObjectName, Pod};

pub use crate::kernel::routes::Watch;
pub use assignment::Missing;
use assignment::{Claim, Finding, Lead, assign};
use ends::Held;
pub(crate) use keeper::DoorKeeper;
use network::Network;
use pods::{Noted, Pods};
use schedule::Schedule;

/// How the doors of pods are guarded.
#[derive(Debug, Clone, Copy, Default)]
pub struct DoorOptions {
    /// Whether a pod whose door is unknown is closed.
    pub required: bool,
    /// Whether what pods send to tunnels of the nodes passes.
    pub allow_tunnels: bool,
}

/// Finds the doors of the pods of a node, in the network namespace of the thread that opens it.
///
/// Its owner reports pods, and changes of devices and routes; it looks when it is asked to [`find`](Self::find).
/// Doors that are found stay found: what a pod does to its own end later takes no door from another.
pub struct Finder {
    pods: Pods,
    network: Network,
    held: BTreeMap<ObjectName, Held>,
    missing: BTreeMap<ObjectName, Missing>,
    doors: Doors,
    recalled: BTreeMap<ObjectName, Arc<str>>,
    /// When the devices appeared that have become doors.
    opened: Vec<Instant>,
    pods_changed: bool,
    links_changed: bool,
    /// The pods to look at in the next round.
    concerned: BTreeSet<ObjectName>,
    /// The pods to look at again, because they have found or lost their door a short while ago.
    unsettled: BTreeSet<ObjectName>,
    schedule: Schedule,
}

impl Finder {
    /// One that knows of no pods yet.
    ///
    /// # Errors
    ///
    /// If there is no rtnetlink, or one without strict checks (Linux 4.20).
    pub fn open(node: &str) -> io::Result<Self> {
        Ok(Self {
            pods: Pods::new(node),
            network: Network::open()?,
            held: BTreeMap::new(),
            missing: BTreeMap::new(),
            doors: Doors::default(),
            recalled: BTreeMap::new(),
            opened: Vec::new(),
            pods_changed: false,
            links_changed: true,
            concerned: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            schedule: Schedule::default(),
        })
    }

    /// Names doors that were known before this finder was opened. In the next [`find`](Self::find) they count as
    /// found, as far as pods and devices are still there.
    pub fn recall(&mut self, doors: impl IntoIterator<Item = (ObjectName, Arc<str>)>) {
        self.recalled.extend(doors);
    }

    /// Whether this is the node's name.
    pub fn is_node(&self, name: &str) -> bool {
        self.pods.is_node(name)
    }

    /// Takes in a pod as it is now; `None` if it is gone. Pods of other nodes cost nothing.
    pub fn note(&mut self, name: &ObjectName, pod: Option<&Pod>) {
        let noted = self.pods.note(name, pod);
        if noted == Noted::End {
            self.held.remove(name);
        }
        if noted != Noted::Nothing {
            self.pods_changed = true;
            self.concerned.insert(name.clone());
        }
    }

    /// Devices or routes have changed, as a [`Watch`] reports.
    pub fn links_changed(&mut self) {
        self.links_changed = true;
    }

    /// Something hints at a change behind a door, as when spoofed packets leave it: the next
    /// [`find`](Self::find) reads again what its other end shows.
    pub fn refresh(&mut self, device: &str) {
        let pod = self.doors.of_pods.iter().find(|(_, door)| &*door.device == device);
        self.concerned.extend(pod.map(|(name, _)| name.clone()));
    }

    /// Brings the doors up to date, and says whether they have changed. Does next to nothing if there is no
    /// reason to look.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to answer. The doors stay as they were; the next call tries again.
    pub fn find(&mut self) -> io::Result<bool> {
        let due = self.schedule.is_due();
        if !(due || self.pods_changed || self.links_changed || !self.concerned.is_empty()) {
            return Ok(false);
        }
        if due {
            self.look_again();
        }
        let found = self.round(due);
        if found.is_err() {
            self.links_changed = true;
            self.schedule.go_on();
        }
        found
    }

    /// The doors, as the last [`find`](Self::find) left them.
    pub fn doors(&self) -> &Doors {
        &self.doors
    }

    /// The name of a device, and the pod whose door it is.
    pub fn device(&self, index: u32) -> Option<(Arc<str>, Option<ObjectName>)> {
        let name = self.network.link(index)?.name.clone();
        let pod = self.doors.of_pods.iter().find(|(_, door)| door.device == name);
        let pod = pod.map(|(pod, _)| pod.clone());
        Some((name, pod))
    }

    /// When the devices appeared that have become doors since the last call, as far as that was seen.
    pub fn take_opened(&mut self) -> Vec<Instant> {
        std::mem::take(&mut self.opened)
    }

    /// The node's pods that have no door, and why.
    pub fn missing(&self) -> &BTreeMap<ObjectName, Missing> {
        &self.missing
    }

    /// The addresses that the other ends of devices show which could be doors and are none.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to answer.
    pub fn shown_by_others(&mut self) -> io::Result<BTreeSet<IpAddr>> {
        let held: BTreeSet<u32> = self.held.values().map(|held| held.device).collect();
        let others: Vec<u32> =
            self.network.candidates().into_keys().filter(|device| !held.contains(device)).collect();
        let mut shown = BTreeSet::new();
        for device in others {
            shown.extend(self.network.end(device)?.addresses);
        }
        Ok(shown)
    }

    /// How long it is until [`find`](Self::find) is to be called again if nothing happens. While a pod lacks its
    /// door, or has got it a short while ago, that is 20 ms, and twice as long each time up to 10 s. So it stays
    /// while there are doors at bridges, because the kernel reports no change of the addresses behind them.
    pub fn retry_after(&self) -> Option<Duration> {
        self.schedule.remaining()
    }

    /// Looks at what may have changed without notice.
    fn look_again(&mut self) {
        self.concerned.extend(self.unsettled.iter().chain(self.missing.keys()).cloned());
        if self.schedule.is_calm() {
            self.unsettled.clear();
            let bridged = self.doors.of_pods.iter().filter(|(_, door)| door.bridged);
            self.concerned.extend(bridged.map(|(name, _)| name.clone()));
        }
    }

    fn round(&mut self, due: bool) -> io::Result<bool> {
        self.network.begin();
        if self.pods_changed {
            self.concerned.extend(self.pods.settle());
            self.held.retain(|name, _| self.pods.addresses().contains_key(name));
        }
        if self.links_changed {
            self.network.forget_all_but(&self.pods.addresses().values().flatten().copied().collect());
            self.list()?;
            self.look_up_all()?;
        }
        self.look_inside()?;
        let mut listed = self.links_changed;
        let mut findings = self.assign();
        let lacking = |(name, finding): &(ObjectName, Finding)| {
            self.concerned.contains(name) && !matches!(finding, Finding::Door(_))
        };
        if !listed && findings.iter().any(lacking) {
            // Its device may be newer than the last list.
            listed = true;
            self.list()?;
            self.look_inside()?;
            findings = self.assign();
        }
        let moved = self.settle(findings);
        let learned = self.read_ends(&moved)?;
        let changed = listed || self.pods_changed || learned || !moved.is_empty();
        self.plan(!moved.is_empty(), due);
        self.unsettled.extend(moved);
        self.concerned.clear();
        (self.pods_changed, self.links_changed) = (false, false);
        Ok(changed && self.publish())
    }

    /// Lists the devices, and forgets doors that are gone.
    fn list(&mut self) -> io::Result<()> {
        self.network.list()?;
        let links = &self.network;
        self.held.retain(|name, held| {
            let is_there = links.link(held.device).is_some_and(|link| link.end == held.end);
            if !is_there {
                self.concerned.insert(name.clone());
            }
            is_there
        });
        for (name, device) in std::mem::take(&mut self.recalled) {
            let taken = |device| self.held.values().any(|held| held.device == device);
            if let Some(link) = self.network.named(&device).filter(|link| !taken(link.index))
                && self.pods.addresses().contains_key(&name)
            {
                self.held.entry(name).or_insert_with(|| Held::new(link));
            }
        }
        Ok(())
    }

    /// Looks all routes up. What leads elsewhere than before concerns a pod.
    fn look_up_all(&mut self) -> io::Result<()> {
        for (name, addresses) in self.pods.addresses() {
            for address in addresses {
                if self.network.look_up(*address)? {
                    self.concerned.insert(name.clone());
                }
            }
        }
        Ok(())
    }

    /// Looks up the routes to the pods that this round is about, and the addresses behind the ports to which
    /// they lead: behind the pod's door, the ports that are no doors yet, and those that showed one of its
    /// addresses.
    /// If none of these shows one, behind all.
    fn look_inside(&mut self) -> io::Result<()> {
        let taken: BTreeMap<u32, &ObjectName> =
            self.held.iter().map(|(name, held)| (held.device, name)).collect();
        for name in &self.concerned {
            let Some(addresses) = self.pods.addresses().get(name) else { continue };
            let mut ports = BTreeSet::new();
            for address in addresses {
                self.network.look_up(*address)?;
                if let Lead::Bridge(bridge) = self.network.lead(*address) {
                    ports.extend(self.network.ports(bridge));
                }
            }
            for port in &ports {
                let is_others = taken.get(port).is_some_and(|owner| *owner != name);
                if !is_others || self.network.shows(*port, addresses) {
                    self.network.show(*port)?;
                }
            }
            if !ports.iter().any(|port| self.network.shows(*port, addresses)) {
                ports.iter().try_for_each(|port| self.network.show(*port))?;
            }
        }
        Ok(())
    }

    fn assign(&self) -> Vec<(ObjectName, Finding)> {
        let claim = |(name, addresses): (&ObjectName, &Vec<_>)| Claim {
            addresses: addresses.iter().map(|address| (*address, self.network.lead(*address))).collect(),
            held: self.held.get(name).map(|held| held.device),
        };
        let claims = self.pods.addresses().iter().map(|entry| (entry.0, claim(entry))).collect();
        let findings = assign(&claims, &self.network.candidates());
        findings.into_iter().map(|(name, finding)| (name.clone(), finding)).collect()
    }

    /// Takes in what was found, and says which pods have found or lost a door.
    fn settle(&mut self, findings: Vec<(ObjectName, Finding)>) -> BTreeSet<ObjectName> {
        let mut moved = BTreeSet::new();
        let missing_before = std::mem::take(&mut self.missing);
        for (name, finding) in findings {
            let device = match finding {
                Finding::Door(device) | Finding::Still(device) => device,
                Finding::Missing(reason) => {
                    self.held.remove(&name);
                    if !missing_before.contains_key(&name) {
                        moved.insert(name.clone());
                    }
                    self.missing.insert(name, reason);
                    continue;
                }
            };
            if self.held.get(&name).is_none_or(|held| held.device != device)
                && let Some(link) = self.network.link(device)
            {
                self.held.insert(name.clone(), Held::new(link));
                self.opened.extend(self.network.take_appearance(device));
                moved.insert(name);
            }
        }
        moved
    }

    /// Decides when to look again.
    fn plan(&mut self, moved: bool, due: bool) {
        let bridged =
            |held: &Held| self.network.link(held.device).and_then(|link| self.network.bridge_of(link));
        if moved {
            self.schedule.begin();
        } else if self.unsettled.is_empty()
            && self.missing.is_empty()
            && !self.held.values().any(|held| bridged(held).is_some())
        {
            self.schedule.end();
        } else if due || self.schedule.remaining().is_none() {
            self.schedule.go_on();
        }
    }

    fn publish(&mut self) -> bool {
        let door = |held: &Held| {
            let link = self.network.link(held.device)?;
            Some(Door {
                device: link.name.clone(),
                bridged: self.network.bridge_of(link).is_some(),
                link_address: held.link_address,
                link_local: held.link_local.clone(),
            })
        };
        let of_pods = self.held.iter().filter_map(|(name, held)| Some((name.clone(), door(held)?))).collect();
        let devices = self.held.values().map(|held| held.device).collect();
        let tunnels = self.network.tunnels().clone();
        let node_link_local = self.held.values().flat_map(|held| held.beside.iter().copied()).collect();
        let doors = Doors { of_pods, elsewhere: self.network.elsewhere(&devices), node_link_local, tunnels };
        let changed = doors != self.doors;
        self.doors = doors;
        changed
    }
}
