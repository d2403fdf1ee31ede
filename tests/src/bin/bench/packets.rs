//! The cost of a packet on its way through a node whose doors are guarded.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use controller::kernel::Kernel;
use lab::{Lab, Node, Pod, Topology, Underlay};
use policy_compiler::compile::Compiler;
use policy_compiler::ruleset::{Chain, ChainId, Hook, Rule, Ruleset, Statement, Transaction, Verdict};
use rustix::net::{AddressFamily, SendFlags, SocketAddrV4, SocketType, ipproto, sendto, socket};
use serde_json::{Value, json};

use crate::objects::cluster;
use crate::{Figure, doors, percentile};

/// Rounds of every ruleset; they take turns. Many short ones, since what else the machine does comes and goes.
const ROUNDS: u16 = 100;

/// New connections in a round, each from a source port of its own.
const CONNECTIONS: u16 = 400;

/// Packets of one established connection in a round.
const ESTABLISHED: u32 = 4_000;

const PORT: u16 = 8080;

/// The round that counts, in per cent of all, the fastest first: what else the machine does only adds.
const QUIET: usize = 10;

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let comparisons: Result<Vec<_>> = Topology::ALL.into_iter().map(Comparison::raise).collect();
    let mut comparisons = comparisons?;
    for round in 0..ROUNDS {
        comparisons.iter_mut().try_for_each(|comparison| comparison.round(round))?;
    }
    Ok(comparisons.iter_mut().flat_map(Comparison::figures).collect())
}

/// What is compared on nodes of one topology. Each has a network of its own: what a table costs the kernel that is made
/// or removed is not asked here.
struct Comparison {
    topology: Topology,
    /// Tracks no connections.
    bare: Router,
    /// Tracks connections and does no more.
    alone: Router,
    one_rule: Router,
    both_directions: Router,
    thousand_rules: Router,
    guarded: Router,
}

impl Comparison {
    fn raise(topology: Topology) -> Result<Self> {
        Ok(Self {
            topology,
            bare: Router::raise(topology)?,
            alone: Router::tracking(topology)?,
            one_rule: Router::enforcing(topology, policies(1, &["Ingress"]))?,
            both_directions: Router::enforcing(topology, policies(1, &["Ingress", "Egress"]))?,
            thousand_rules: Router::enforcing(topology, policies(1_000, &["Ingress"]))?,
            guarded: Router::enforcing(topology, policies(1, &["Ingress"]).chain(guard_rails()))?,
        })
    }

    fn round(&mut self, round: u16) -> Result<()> {
        for router in [
            &mut self.alone,
            &mut self.one_rule,
            &mut self.both_directions,
            &mut self.thousand_rules,
            &mut self.guarded,
        ] {
            router.open_connections(round)?;
        }
        for router in [&mut self.bare, &mut self.alone, &mut self.both_directions] {
            router.send_established()?;
        }
        Ok(())
    }

    fn figures(&mut self) -> [Figure; 6] {
        let (name, least) = match self.topology {
            Topology::Routed => ("routed", "≥ 0.97×"),
            Topology::Bridge => ("bridged", "≥ 0.95×"),
        };
        let new = |router: &mut Router| percentile(&mut router.new, QUIET);
        let [alone, one, both, thousand, guarded] = [
            &mut self.alone,
            &mut self.one_rule,
            &mut self.both_directions,
            &mut self.thousand_rules,
            &mut self.guarded,
        ]
        .map(new);
        let established = |router: &mut Router| percentile(&mut router.established, QUIET);
        let [bare, tracked, with] =
            [&mut self.bare, &mut self.alone, &mut self.both_directions].map(established);
        let of = |what: &str| format!("{name}: {what}");
        [
            Figure::ratio(
                of("new connection, 1 rule on the pod, against conntrack alone"),
                "≤ 1.2×",
                one / alone,
            ),
            Figure::ratio(of("new connection, both directions isolated, the same"), "≤ 1.3×", both / alone),
            Figure::ratio(
                of("new connection, 1,000 rules on the pod, against one rule"),
                "≤ 1.05×",
                thousand / one,
            ),
            Figure::ratio(
                of("new connection, 300 Admin policies more on the pod, against one rule"),
                "≤ 1.05×",
                guarded / one,
            ),
            Figure::ratio(
                of("established, packets per second against conntrack alone"),
                least,
                tracked / with,
            ),
            Figure::ratio(of("the same against a node that tracks no connections"), "", bare / with),
        ]
    }
}

/// A node between two pods, and what packets took on their way through it, in nanoseconds for each.
struct Router {
    /// Holds the network.
    _lab: Lab,
    node: Node,
    client: Pod,
    server: Pod,
    new: Vec<f64>,
    established: Vec<f64>,
}

/// What every stateful firewall costs at the least.
fn conntrack_alone() -> Ruleset {
    let rule = Rule::new([Statement::EstablishedOrRelated, Statement::Verdict(Verdict::Accept)]);
    let chain = Chain { hook: Some(Hook::Forward), rules: vec![rule] };
    Ruleset { chains: [(ChainId::read("forward"), chain)].into(), ..Ruleset::default() }
}

impl Router {
    fn raise(topology: Topology) -> Result<Self> {
        let mut lab = Lab::new(topology, Underlay::HostGateway)?;
        let node = lab.node("node-1")?;
        let client = lab.pod(&node, "bench/client")?;
        let server = lab.pod(&node, "bench/server")?;
        Ok(Self { _lab: lab, node, client, server, new: Vec::new(), established: Vec::new() })
    }

    /// One whose node tracks connections.
    fn tracking(topology: Topology) -> Result<Self> {
        let router = Self::raise(topology)?;
        let transaction = Transaction::replace(&conntrack_alone());
        router.node.namespace().run(|| Ok(Kernel::open()?.apply(&transaction)?))?;
        Ok(router)
    }

    /// One whose node enforces policies, beside which there may be more objects.
    fn enforcing(topology: Topology, policies: impl Iterator<Item = Value>) -> Result<Self> {
        let router = Self::raise(topology)?;
        let client = router.client.manifest(&[("app", "client")], &[]);
        let server = router.server.manifest(&[("app", "server")], &[]);
        let cluster = cluster(policies.chain([client, server]))?;
        let doors = doors::find(&router.node, &cluster)?;
        router.node.namespace().run(|| {
            let mut compiler = Compiler::of(&cluster, Some(router.node.name())).with_doors();
            doors::program(&mut Kernel::open()?, &mut compiler, &doors)
        })?;
        Ok(router)
    }

    /// Sends the first packets of new connections.
    fn open_connections(&mut self, round: u16) -> Result<()> {
        let (client, server) = (ipv4(&self.client)?, ipv4(&self.server)?);
        let first = 1024 + round * CONNECTIONS;
        let took = send_new(&self.client, (client, first), (server, PORT), CONNECTIONS)?;
        self.new.push(took.as_secs_f64() * 1e9 / f64::from(CONNECTIONS));
        Ok(())
    }

    /// Sends packets of one connection that is established.
    fn send_established(&mut self) -> Result<()> {
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
        self.established.push(begin.elapsed().as_secs_f64() * 1e9 / f64::from(ESTABLISHED));
        Ok(())
    }
}

/// So many policies that select all pods, of which the last lets the client through.
fn policies(count: usize, types: &[&str]) -> impl Iterator<Item = Value> {
    (1..=count).map(move |number| policy(number, number == count, types))
}

/// Admin policies about all pods, of which none covers the client, and what they name: the namespaces of ten teams with
/// pods on another node.
fn guard_rails() -> impl Iterator<Item = Value> {
    const POLICIES: usize = 300;
    const TEAMS: usize = 10;
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let teams = (0..TEAMS).map(move |team| namespace(&format!("team-{team}")));
    let pods = (0..POLICIES).map(|number| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": format!("team-{}", number % TEAMS), "name": format!("pod-{number}"),
                "labels": {"app": format!("app-{number}")},
            },
            "spec": {"nodeName": "node-2", "containers": [{"name": "main"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": format!("10.245.{}.{}", number / 250, number % 250)}]},
        })
    });
    let policies = (0..POLICIES).map(|number| {
        let team =
            json!({"matchLabels": {"kubernetes.io/metadata.name": format!("team-{}", number % TEAMS)}});
        let app = json!({"matchLabels": {"app": format!("app-{number}")}});
        let app = json!([{"pods": {"namespaceSelector": {}, "podSelector": app}}]);
        let ports = json!([{"udp": {"destinationPort": {"number": PORT}}}]);
        let network = json!([{"networks": [format!("172.17.{}.{}/32", number / 250, number % 250)]}]);
        json!({
            "apiVersion": "policy.networking.k8s.io/v1beta1", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": format!("guard-rail-{number}")},
            "spec": {
                "tier": "Admin", "priority": number, "subject": {"namespaces": {}},
                "ingress": [
                    {"action": "Accept", "from": app, "protocols": ports},
                    {"action": "Pass", "from": app},
                    {"action": "Deny", "from": [{"namespaces": team}]},
                ],
                "egress": [{"action": "Deny", "to": network}],
            },
        })
    });
    teams.chain([namespace("bench")]).chain(pods).chain(policies)
}

/// One of many policies that select all pods: one lets the client through to the server, the others let through what is
/// not there.
fn policy(number: usize, lets_through: bool, types: &[&str]) -> Value {
    let of = |app: &str| {
        if lets_through {
            json!([{"podSelector": {"matchLabels": {"app": app}}}])
        } else {
            json!([{"ipBlock": {"cidr": format!("172.16.{}.{}/32", number / 250, number % 250)}}])
        }
    };
    let ports = json!([{"protocol": "UDP", "port": PORT}]);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "bench", "name": format!("policy-{number}")},
        "spec": {
            "podSelector": {}, "policyTypes": types,
            "ingress": [{"from": of("client"), "ports": ports}],
            "egress": [{"to": of("server"), "ports": ports}],
        },
    })
}

/// Sends the first UDP packets of so many connections, from this port and those behind it; how long that took.
pub(crate) fn send_new(
    pod: &Pod,
    (source, first): (Ipv4Addr, u16),
    (destination, port): (Ipv4Addr, u16),
    connections: u16,
) -> Result<Duration> {
    pod.namespace().run(|| {
        let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
        let ports = first..first + connections;
        let packets: Vec<_> = ports.map(|from| udp_packet(source, destination, from, port)).collect();
        let begin = Instant::now();
        for packet in &packets {
            sendto(&raw, packet, SendFlags::empty(), &SocketAddrV4::new(destination, 0))?;
        }
        Ok(begin.elapsed())
    })
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
