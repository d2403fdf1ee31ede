//! A node of network namespaces: the one of the test, with pods that are others.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use controller::doors::{Finder, Missing, Watch};
use policy_compiler::model::{Door, Doors, LinkAddress, ObjectName, Pod};

use crate::rulesets;
use crate::support::{in_namespace, ip, run};

/// The longest that anything may take.
const BOUND: Duration = Duration::from_secs(20);

/// The bridge of the node.
pub(super) const BRIDGE: &str = "pods";

/// A network namespace that is there as long as this.
pub(super) struct Space(File);

impl Space {
    pub(super) fn new() -> Self {
        Self(in_namespace(|| File::open("/proc/thread-self/ns/net").unwrap()))
    }

    /// Runs lines of `ip` inside.
    pub(super) fn ip(&self, script: &str) {
        run("nsenter", &[&format!("--net={}", self.path()), "ip", "-batch", "-"], script)
            .unwrap_or_else(|errors| panic!("{errors}{script}"));
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Makes these the global addresses inside.
    pub(super) fn set(&self, addresses: &[&str]) {
        self.ip(&format!("address flush dev eth0 scope global\n{}", add(addresses)));
    }

    /// Puts one end of a new veth pair inside, and the other on the bridge or, if there is none, on routes.
    pub(super) fn plug(&self, link: &str, number: u8, addresses: &[&str], bridged: bool) {
        ip(&format!(
            "link add {link} type veth peer name eth0 address {} netns {}",
            link_address(number),
            self.path()
        ));
        self.ip(&format!("link set eth0 up\n{}", add(addresses)));
        if bridged {
            ip(&format!("link set {link} master {BRIDGE} up"));
        } else {
            ip(&format!("link set {link} up\n{}", routes(link, addresses)));
        }
    }
}

fn add(addresses: &[&str]) -> String {
    let nodad = |address: &str| if address.contains(':') { " nodad" } else { "" };
    let lines = addresses.iter().map(|address| format!("address add {address} dev eth0{}", nodad(address)));
    lines.collect::<Vec<_>>().join("\n")
}

/// The routes of a pod behind a link, in place of others.
pub(super) fn routes(link: &str, addresses: &[&str]) -> String {
    let lines = addresses.iter().map(|address| format!("route replace {address} dev {link}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The link address of the pod of a number.
pub(super) fn link_address(number: u8) -> LinkAddress {
    LinkAddress([0x02, 0x44, 0, 0, 0, number])
}

/// The finder, and what tells it.
pub(super) struct Node {
    pub(super) finder: Finder,
    watch: Watch,
}

impl Node {
    pub(super) fn new() -> Self {
        Self { finder: Finder::open("node").unwrap(), watch: Watch::open().unwrap() }
    }

    /// With a bridge that has an address of each family.
    pub(super) fn with_bridge() -> Self {
        ip(&format!(
            "link set lo up\n\
             link add {BRIDGE} type bridge mcast_snooping 0\n\
             address add 10.0.0.254/24 dev {BRIDGE}\n\
             address add fd00::254/64 dev {BRIDGE} nodad\n\
             link set {BRIDGE} up"
        ));
        Self::new()
    }

    /// What the API says of a pod.
    pub(super) fn put(&mut self, pod: &str, addresses: &[&str]) {
        let name = name(pod);
        let mut object = Pod::new(name.clone());
        object.node = Some("node".into());
        object.addresses = addresses.iter().map(|address| rulesets::ip(address)).collect();
        self.finder.note(&name, Some(&object));
    }

    pub(super) fn find(&mut self) -> bool {
        if self.watch.changed().unwrap() {
            self.finder.links_changed();
        }
        self.finder.find().unwrap()
    }

    pub(super) fn doors(&self) -> &Doors {
        self.finder.doors()
    }

    pub(super) fn door(&self, pod: &str) -> Option<&Door> {
        self.doors().of_pods.get(&name(pod))
    }

    pub(super) fn device(&self, pod: &str) -> Option<&str> {
        self.door(pod).map(|door| &*door.device)
    }

    pub(super) fn missing(&self, pod: &str) -> Option<Missing> {
        self.finder.missing().get(&name(pod)).copied()
    }

    /// Calls the finder as an agent does, until something holds.
    #[track_caller]
    pub(super) fn wait_until(&mut self, holds: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        loop {
            self.find();
            if holds(self) {
                return;
            }
            assert!(begin.elapsed() < BOUND, "{:#?} {:?}", self.doors(), self.finder.missing());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until pods have these devices as doors.
    #[track_caller]
    pub(super) fn wait_for(&mut self, expected: &[(&str, Option<&str>)]) {
        self.wait_until(|node| expected.iter().all(|(pod, device)| node.device(pod) == *device));
    }
}

pub(super) fn name(pod: &str) -> ObjectName {
    ObjectName::new("default", pod)
}
