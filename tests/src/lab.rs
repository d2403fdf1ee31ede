//! The cluster as a whole: what is in it, and connections between its parts.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::endpoint::Endpoint;
use crate::namespace::Namespace;
use crate::node::{FORWARDING, Node};
use crate::pod::Pod;
use crate::privilege::available;
use crate::probe::{self, Outcome, Probe, Protocol, Reply};
use crate::prober;
use crate::service::{Service, table};

/// How a node connects its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// Every pod is a route of its own, to a veth with proxy ARP, as Calico does it.
    Routed,
    /// The pods are ports of a Linux bridge that calls netfilter (`br_netfilter`), as flannel and docker do it.
    Bridge,
}

/// How packets get from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underlay {
    /// In VXLAN over the LAN.
    Vxlan,
    /// As they are, by routes over the LAN.
    HostGateway,
}

impl Topology {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Routed, Self::Bridge];
}

impl Underlay {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Vxlan, Self::HostGateway];
}

/// Parameters (below `/proc/sys/net`) of every namespace: addresses work at once, nothing is sent unasked, and
/// no ICMP error is held back, since probes read them.
pub(crate) const QUIET_NETWORK: &str = "\
ipv4/conf/all/rp_filter 0
ipv4/conf/default/rp_filter 0
ipv4/icmp_ratelimit 0
ipv4/icmp_ratemask 0
ipv6/icmp/ratelimit 0
ipv6/conf/default/accept_dad 0
ipv6/conf/default/accept_ra 0
ipv6/conf/default/dad_transmits 0
ipv6/conf/default/router_solicitations 0
";

/// The first pods on a bridge find each other as pods do, by ARP and neighbour discovery. Those that come later
/// are told, and the others are told about them.
const ASKING_PODS: usize = 8;

/// The world's own addresses on the LAN.
const WORLD_IPV4: &str = "192.168.77.254";
const WORLD_IPV6: &str = "fd77::fe";

/// A cluster's network.
#[derive(Debug)]
pub struct Lab {
    topology: Topology,
    underlay: Underlay,
    world: Endpoint,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    services: Vec<Service>,
}

impl Lab {
    /// Raises a LAN with the world on it, and no node yet.
    ///
    /// # Errors
    /// The machine lacks what a lab needs; see [`available`].
    pub fn new(topology: Topology, underlay: Underlay) -> Result<Self> {
        available().map_err(|missing| anyhow!(missing))?;
        let world = Endpoint::new("world", Namespace::new()?);
        world.namespace().sysctl(QUIET_NETWORK)?;
        world.namespace().sysctl(FORWARDING)?;
        world.namespace().ip(&format!(
            "link set lo up\n\
             link add lan type bridge mcast_snooping 0\n\
             address add {WORLD_IPV4}/24 dev lan\n\
             address add {WORLD_IPV6}/64 dev lan nodad\n\
             link set lan up\n"
        ))?;
        world.namespace().wait_for_addresses()?;
        world.set_addresses(vec![WORLD_IPV4.parse()?, WORLD_IPV6.parse()?])?;
        Ok(Self { topology, underlay, world, nodes: Vec::new(), pods: Vec::new(), services: Vec::new() })
    }

    /// Everything outside the cluster. It is also the nodes' default gateway.
    pub fn world(&self) -> &Endpoint {
        &self.world
    }

    /// Gives the world one more address.
    ///
    /// # Errors
    /// It has that address already.
    pub fn add_world_address(&self, address: IpAddr) -> Result<()> {
        let suffix = if address.is_ipv4() { "/32" } else { "/128 nodad" };
        self.world.namespace().ip(&format!("address add {address}{suffix} dev lan"))?;
        self.world.namespace().wait_for_addresses()?;
        let mut addresses = self.world.addresses();
        addresses.push(address);
        self.world.set_addresses(addresses)
    }

    /// Adds a node and connects it with the others.
    ///
    /// # Errors
    /// The kernel refuses, or there are 200 nodes already.
    pub fn node(&mut self, name: &str) -> Result<Node> {
        let number = u8::try_from(self.nodes.len() + 1)?;
        ensure!(number <= 200, "a lab has room for 200 nodes");
        let node = Node::new(name, number, self.topology, self.underlay, &self.world)
            .with_context(|| format!("cannot raise node {name}"))?;
        for other in &self.nodes {
            other.add_peer(&node)?;
            node.add_peer(other)?;
        }
        if !self.services.is_empty() {
            node.namespace().nft(&table(&self.services))?;
        }
        self.nodes.push(node.clone());
        Ok(node)
    }

    /// Adds a pod, `namespace/name`, to a node.
    ///
    /// # Errors
    /// The kernel refuses, the name is taken, or the node is full (250 pods, removed ones included).
    pub fn pod(&mut self, node: &Node, name: &str) -> Result<Pod> {
        ensure!(self.pods.iter().all(|pod| pod.name() != name), "there is a pod {name} already");
        let pod = Pod::new(node, name).with_context(|| format!("cannot raise pod {name}"))?;
        self.fix_neighbours(&pod)?;
        self.pods.push(pod.clone());
        Ok(pod)
    }

    /// Takes a pod from the network: its link, its routes and its listeners. Its namespace goes with the last
    /// handle.
    ///
    /// # Errors
    /// It was removed before.
    pub fn remove(&mut self, pod: &Pod) -> Result<()> {
        let before = self.pods.len();
        self.pods.retain(|other| other.name() != pod.name());
        ensure!(self.pods.len() < before, "{} is not in the lab", pod.name());
        pod.unplug()
    }

    /// Gives `to` the addresses of `from` in place of its own; `from` is left without. This is what happens when
    /// a pod has finished and its address is given out again.
    ///
    /// # Errors
    /// The pods are on different nodes: addresses belong to the node's range.
    pub fn move_addresses(&self, from: &Pod, to: &Pod) -> Result<()> {
        ensure!(
            from.node().name() == to.node().name(),
            "{} and {} are on different nodes",
            from.name(),
            to.name()
        );
        let addresses = from.addresses();
        from.assign(Vec::new())?;
        // Who talked to the address before knows the old owner's link address. What others look up at this moment
        // must not be flushed with it: the packets that wait for the answer would be lost.
        let flush: Vec<_> = addresses.iter().map(|address| format!("neigh flush to {address}\n")).collect();
        let flush = flush.concat();
        to.assign(addresses)?;
        from.node().namespace().ip(&flush)?;
        for pod in self.pods.iter().filter(|pod| pod.node().name() == from.node().name()) {
            pod.namespace().ip(&flush)?;
        }
        self.fix_neighbours(to)
    }

    /// Fixes the neighbours of a pod on a bridge with many.
    fn fix_neighbours(&self, pod: &Pod) -> Result<()> {
        let siblings = || {
            let same_node = |other: &&Pod| other.node().name() == pod.node().name();
            self.pods.iter().filter(|other| other.name() != pod.name()).filter(same_node)
        };
        if self.topology == Topology::Bridge && siblings().count() >= ASKING_PODS {
            pod.fix_neighbours(siblings())?;
        }
        Ok(())
    }

    /// Adds a Service, with cluster IPs of its own, that every node translates to one of the backends in turn,
    /// at the addresses that they have now.
    ///
    /// # Errors
    /// nft refuses, or there are 255 Services already.
    pub fn service(
        &mut self,
        protocol: Protocol,
        port: u16,
        target_port: u16,
        backends: &[&Pod],
    ) -> Result<Service> {
        let (ipv4, ipv6) = Service::addresses(u8::try_from(self.services.len() + 1)?);
        let backends = backends.iter().map(|pod| (*pod).clone()).collect();
        let service = Service { ipv4, ipv6, protocol, port, target_port, backends };
        self.services.push(service.clone());
        let table = table(&self.services);
        for node in &self.nodes {
            node.namespace().nft(&table)?;
        }
        Ok(service)
    }

    /// The nodes, in the order of their making.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The pods that are there now, in the order of their making.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Tries one connection.
    ///
    /// # Errors
    /// It could not be tried.
    pub fn connect(&self, from: &Endpoint, to: IpAddr, port: u16, protocol: Protocol) -> Result<Outcome> {
        let replies = self.probe(&[Probe::new(from, to, port, protocol)])?;
        replies.first().map(|reply| reply.outcome).context("a probe has a reply")
    }

    /// Tries many connections at once; the replies are in the order of the probes. What stays silent is tried
    /// twice, 300 ms each time.
    ///
    /// # Errors
    /// One of them could not be tried.
    pub fn probe(&self, probes: &[Probe]) -> Result<Vec<Reply>> {
        probe::probe(probes)
    }
    /// Tries a connection all the time until its outcome becomes `expected`, for at most `bound`, and returns
    /// how long after the call the first such try was sent (for a denial: the last that came through).
    ///
    /// # Errors
    /// The outcome is another one for all that time.
    pub fn wait_for(&self, probe: &Probe, expected: Outcome, bound: Duration) -> Result<Duration> {
        prober::wait_for(probe, expected, bound)
    }
}
