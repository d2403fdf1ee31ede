//! The cost of a packet on its way through a node.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use controller::kernel::Kernel;
use lab::{Lab, Pod, Topology, Underlay};
use policy_compiler::compile::compile;
use policy_compiler::ruleset::{Chain, ChainName, Hook, Rule, Ruleset, Statement, Transaction, Verdict};
use rustix::net::{AddressFamily, SendFlags, SocketAddrV4, SocketType, ipproto, sendto, socket};
use serde_json::{Value, json};

use crate::objects::cluster;
use crate::{Figure, percentile};

/// Rounds of every ruleset; they take turns.
const ROUNDS: usize = 11;

/// New connections in a round, each from a source port of its own.
const CONNECTIONS: u16 = 4_000;

/// Packets of one established connection in a round.
const ESTABLISHED: u32 = 40_000;

const PORT: u16 = 8080;

/// The round that counts, in per cent of all, the fastest first: what else the machine does only adds.
const QUIET: usize = 20;

/// A node between two pods.
struct Router {
    /// Holds the network.
    _lab: Lab,
    client: Pod,
    server: Pod,
    /// Grows with every round, whose connections come from an address of its own, so that all are new.
    round: u8,
}

pub(crate) fn measure() -> Result<Vec<Figure>> {
    // Each ruleset has a network of its own: what a table costs the kernel that is made or removed is not asked here.
    let policies =
        |count: usize, types: &'static [&'static str]| move |router: &Router| router.ruleset(count, types);
    let bare = Router::raise(|_| Ok(Ruleset::default()))?;
    let mut routers = [
        Router::raise(|_| Ok(conntrack_alone()))?,
        Router::raise(policies(1, &["Ingress"]))?,
        Router::raise(policies(1, &["Ingress", "Egress"]))?,
        Router::raise(policies(1_000, &["Ingress"]))?,
    ];
    let mut new: Vec<Vec<f64>> = vec![Vec::new(); routers.len()];
    let mut established: Vec<Vec<f64>> = vec![Vec::new(); 3];
    for _ in 0..ROUNDS {
        for (router, times) in routers.iter_mut().zip(&mut new) {
            times.push(router.open_connections()?);
        }
        for (router, times) in [&bare, &routers[0], &routers[2]].into_iter().zip(&mut established) {
            times.push(router.send_established()?);
        }
    }
    let [alone, one, both, thousand] = [0, 1, 2, 3].map(|index| percentile(&mut new[index], QUIET));
    let [bare, tracked, with] = [0, 1, 2].map(|index| percentile(&mut established[index], QUIET));
    Ok(vec![
        Figure::ratio("new connection, 1 rule on the pod, against conntrack alone", "≤ 1.2×", one / alone),
        Figure::ratio(
            "new connection, both directions isolated, against conntrack alone",
            "≤ 1.3×",
            both / alone,
        ),
        Figure::ratio("new connection, 1,000 rules on the pod, against one rule", "≤ 1.05×", thousand / one),
        Figure::ratio(
            "established traffic, packets per second against conntrack alone",
            "≥ 0.98×",
            tracked / with,
        ),
        Figure::ratio("the same against a node that tracks no connections", "", bare / with),
    ])
}

/// What every stateful firewall costs at the least.
fn conntrack_alone() -> Ruleset {
    let rule = Rule::new([Statement::EstablishedOrRelated, Statement::Verdict(Verdict::Accept)]);
    let chain = Chain { hook: Some(Hook::Forward), rules: vec![rule] };
    Ruleset { chains: [(ChainName::new("forward"), chain)].into(), ..Ruleset::default() }
}

impl Router {
    /// Raises one whose node has a ruleset.
    fn raise(ruleset: impl FnOnce(&Self) -> Result<Ruleset>) -> Result<Self> {
        let mut lab = Lab::new(Topology::Routed, Underlay::HostGateway)?;
        let node = lab.node("node-1")?;
        let client = lab.pod(&node, "bench/client")?;
        let server = lab.pod(&node, "bench/server")?;
        let router = Self { _lab: lab, client, server, round: 0 };
        let ruleset = ruleset(&router)?;
        node.namespace().run(|| Ok(Kernel::open()?.apply(&Transaction::replace(&ruleset))?))?;
        Ok(router)
    }

    /// The node's ruleset where so many policies select the pods, of which the last lets the client through.
    fn ruleset(&self, policies: usize, types: &[&str]) -> Result<Ruleset> {
        let policy = |index: usize| {
            let other = json!([{"ipBlock": {"cidr": format!("172.16.{}.{}/32", index / 250, index % 250)}}]);
            let last = index + 1 == policies;
            let of = |app: &str| {
                if last { json!([{"podSelector": {"matchLabels": {"app": app}}}]) } else { other.clone() }
            };
            let ports = json!([{"protocol": "UDP", "port": PORT}]);
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": "bench", "name": format!("policy-{index}")},
                "spec": {
                    "podSelector": {}, "policyTypes": types,
                    "ingress": [{"from": of("client"), "ports": ports}],
                    "egress": [{"to": of("server"), "ports": ports}],
                },
            })
        };
        let mut objects: Vec<Value> = (0..policies).map(policy).collect();
        let mut client = self.client.manifest(&[("app", "client")], &[]);
        let addresses = (0..=u8::MAX).map(client_address).chain([ipv4(&self.client)?]);
        client["status"]["podIPs"] = addresses.map(|address| json!({"ip": address})).collect();
        objects.extend([client, self.server.manifest(&[("app", "server")], &[])]);
        Ok(compile(&cluster(objects.into_iter())?, Some("node-1")))
    }

    /// Sends the first packets of new connections; nanoseconds for each.
    fn open_connections(&mut self) -> Result<f64> {
        self.round += 1;
        let source = client_address(self.round);
        let took = send_new(&self.client, source, ipv4(&self.server)?, CONNECTIONS, PORT)?;
        Ok(took.as_secs_f64() * 1e9 / f64::from(CONNECTIONS))
    }

    /// Sends packets of one connection that is established; nanoseconds for each.
    fn send_established(&self) -> Result<f64> {
        let (client, server) = (ipv4(&self.client)?, ipv4(&self.server)?);
        let listening = self.server.namespace().run(|| Ok(UdpSocket::bind((server, PORT))?))?;
        let sending = self.client.namespace().run(|| Ok(UdpSocket::bind((client, 0))?))?;
        sending.connect((server, PORT))?;
        sending.send(b"hello")?;
        let (_, peer) = listening.recv_from(&mut [0; 16])?;
        listening.send_to(b"hello", peer)?;
        sending.recv(&mut [0; 16])?;
        let begin = Instant::now();
        for _ in 0..ESTABLISHED {
            // Nobody reads, so most are dropped where they arrive, behind everything that is measured.
            sending.send(b"0123456789")?;
        }
        Ok(begin.elapsed().as_secs_f64() * 1e9 / f64::from(ESTABLISHED))
    }
}

/// Sends the first UDP packets of so many connections, each from a port of its own; how long that took.
pub(crate) fn send_new(
    pod: &Pod,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    connections: u16,
    port: u16,
) -> Result<Duration> {
    pod.namespace().run(|| {
        let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
        let ports = 1024..1024 + connections;
        let packets: Vec<_> = ports.map(|from| udp_packet(source, destination, from, port)).collect();
        let begin = Instant::now();
        for packet in &packets {
            sendto(&raw, packet, SendFlags::empty(), &SocketAddrV4::new(destination, 0))?;
        }
        Ok(begin.elapsed())
    })
}

/// One of the addresses that the client's object has beside the one that the lab gave it.
fn client_address(round: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 250, 0, round)
}

pub(crate) fn ipv4(pod: &Pod) -> Result<Ipv4Addr> {
    match pod.ipv4() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => bail!("the lab takes an IPv6 address for IPv4"),
    }
}

/// An IPv4 packet with an empty datagram. The kernel fills in the header's checksum; the datagram has none.
fn udp_packet(source: Ipv4Addr, destination: Ipv4Addr, from: u16, to: u16) -> Vec<u8> {
    const LENGTH: u16 = 28;
    let mut packet = vec![0x45, 0];
    packet.extend(LENGTH.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend((LENGTH - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet
}
