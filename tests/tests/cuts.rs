//! The edges of cutting connections: ends that both have fixed ports, and very many connections at once.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::streams::{check_going_on, open_all, wait_flowing, watch_dying};
use lab::testbed::{BOUND, Testbed, policy, wait_until};
use lab::{Endpoint, Packet, Pod, Protocol, Stream, Topology, Underlay, send_packets};
use serde_json::{Value, json};

/// A node with two pods of which the one calls the other.
struct Scene {
    testbed: Testbed,
    client: Pod,
    server: Pod,
}

impl Scene {
    fn raise(topology: Topology) -> Result<Self> {
        let mut testbed = Testbed::new(topology, Underlay::HostGateway, &["node-1"])?;
        let client = testbed.pod("node-1", "shop/client", &[])?;
        let server = testbed.pod("node-1", "shop/server", &[])?;
        Ok(Self { testbed, client, server })
    }
}

/// Isolates one of the pods in some directions.
fn isolate(app: &str, directions: &[&str]) -> Value {
    let spec = json!({ "podSelector": { "matchLabels": { "app": app } }, "policyTypes": directions });
    policy("shop", "isolate", &spec)
}

/// The longest until what is allowed comes through.
const SOON: Duration = Duration::from_secs(1);

/// How long nothing is waited for.
const QUIET: Duration = Duration::from_millis(200);

/// Two sockets that talk UDP, each from a port of its own.
struct Call {
    client: UdpSocket,
    server: UdpSocket,
    /// The address by which the client knows the server.
    asked: SocketAddr,
}

impl Call {
    /// Opens a call, by an address that leads to the server; both have spoken then.
    fn open(client: SocketAddr, server: SocketAddr, asked: SocketAddr, scene: &Scene) -> Result<Self> {
        let bind = |pod: &Pod, at| pod.namespace().run(|| Ok(UdpSocket::bind(at)?));
        let call = Self { client: bind(&scene.client, client)?, server: bind(&scene.server, server)?, asked };
        call.call()?;
        let from = hear(&call.server, SOON).context("the server hears nothing")?;
        ensure!(from == client, "{from} calls, not {client}");
        call.server.send_to(b"yes?", from)?;
        let from = hear(&call.client, SOON).context("there is no answer")?;
        ensure!(from == asked, "{from} answers, not {asked}");
        Ok(call)
    }

    fn call(&self) -> Result<()> {
        self.client.send_to(b"hello", self.asked)?;
        Ok(())
    }

    /// Sees that what is denied does not come through, what is allowed does at once, and so do the answers to it.
    fn check_allowed_side_opens(&self) -> Result<()> {
        while hear(&self.server, QUIET).is_ok() {}
        self.call()?;
        ensure!(hear(&self.server, QUIET).is_err(), "what is denied comes through");
        self.server.send_to(b"hello", self.client.local_addr()?)?;
        let from = hear(&self.client, SOON).context("what is allowed does not come through")?;
        self.client.send_to(b"yes?", from)?;
        hear(&self.server, SOON).context("the answer does not come through")?;
        Ok(())
    }
}

/// The sender of the next datagram.
fn hear(socket: &UdpSocket, bound: Duration) -> Result<SocketAddr> {
    socket.set_read_timeout(Some(bound))?;
    Ok(socket.recv_from(&mut [0; 64])?.1)
}

/// Denies what goes from the client to the server and leaves the other way open.
fn the_allowed_side_opens_between_fixed_ports(
    topology: Topology,
    isolated: &str,
    direction: &str,
) -> Result<()> {
    /// SIP, gossip, and a tunnel whose port is one of those that clients have elsewhere.
    const PORTS: [(u16, u16); 3] = [(5060, 5060), (7946, 5061), (51820, 51820)];
    const SERVICE: (u16, u16) = (53, 5353);
    let mut scene = Scene::raise(topology)?;
    let service = scene.testbed.lab.service(Protocol::Udp, 53, SERVICE.1, &[&scene.server])?;
    let agent = scene.testbed.start_agent("node-1")?;
    let mut calls = Vec::new();
    let families = [
        (scene.client.ipv4(), scene.server.ipv4(), service.ipv4),
        (scene.client.ipv6(), scene.server.ipv6(), service.ipv6),
    ];
    for (client, server, service) in families {
        let at = |address: IpAddr, port| SocketAddr::new(address, port);
        for (from, to) in PORTS {
            calls.push(Call::open(at(client, from), at(server, to), at(server, to), &scene)?);
        }
        let (from, to) = SERVICE;
        calls.push(Call::open(at(client, from), at(server, to), at(service, 53), &scene)?);
    }
    scene.testbed.put(&isolate(isolated, &[direction]))?;
    agent.wait_for_counter("connections_cut", calls.len() as u64, BOUND)?;
    for call in &calls {
        call.check_allowed_side_opens().with_context(|| format!("{:?} {:?}", call.client, call.server))?;
    }
    assert_eq!(agent.counter("connections_cut")?, calls.len() as u64);
    Ok(())
}

#[test]
fn ingress_of_the_server_leaves_its_own_calls_open_routed() -> Result<()> {
    the_allowed_side_opens_between_fixed_ports(Topology::Routed, "server", "Ingress")
}

#[test]
fn egress_of_the_client_leaves_calls_to_it_open_bridged() -> Result<()> {
    the_allowed_side_opens_between_fixed_ports(Topology::Bridge, "client", "Egress")
}

/// What the rules say of the answers, when the connection is cut or later, does not matter.
#[test]
fn a_cut_connection_goes_on_when_what_opened_it_is_allowed_again_and_not_before() -> Result<()> {
    let scene = Scene::raise(Topology::Routed)?;
    let _agent = scene.testbed.start_agent("node-1")?;
    let open = |(ipv4, protocol)| Stream::open(&scene.client, &scene.server, ipv4, protocol);
    let kinds = [Protocol::Tcp, Protocol::Udp].map(|protocol| [(true, protocol), (false, protocol)]);
    let cut: Vec<_> = kinds.into_iter().flatten().map(open).collect::<Result<_>>()?;
    wait_flowing(&cut)?;
    for denied in [&["Ingress", "Egress"][..], &["Ingress"]] {
        scene.testbed.put(&isolate("server", denied))?;
        watch_dying(&cut)?;
    }
    scene.testbed.delete(&isolate("server", &[]))?;
    wait_flowing(&cut)
}

/// An agent whose sets for what it cut were smaller leaves a table that the next one cannot go on with.
#[test]
fn what_an_older_agent_has_cut_stays_cut_under_the_next() -> Result<()> {
    let scene = Scene::raise(Topology::Routed)?;
    let agent = scene.testbed.start_agent("node-1")?;
    let cut = open_all(&scene.client, &scene.server)?;
    scene.testbed.put(&isolate("server", &["Ingress"]))?;
    watch_dying(&cut)?;
    agent.kill();
    let node = scene.client.node().namespace();
    let table = node.feed("nft", &["list", "table", "inet", "podfence"], "")?;
    // Flags that nft does not know how to write.
    let lines = table.lines().filter(|line| !line.starts_with("\tflags"));
    let older = lines.collect::<Vec<_>>().join("\n").replace("size 262144", "size 131072");
    ensure!(older.contains("size 131072"), "{table}");
    node.nft(&format!("delete table inet podfence\n{older}"))?;
    let _agent = scene.testbed.start_agent("node-1")?;
    let table = node.feed("nft", &["list", "table", "inet", "podfence"], "")?;
    ensure!(!table.contains("size 131072"), "{table}");
    watch_dying(&cut)
}

/// TCP connections that exist in conntrack alone: the pods count their packets and answer none.
struct Crowd<'a> {
    client: &'a Pod,
    server: &'a Pod,
    size: u32,
}

/// The ports of the server in a crowd. Each is asked from all ports that a system has for clients.
const CROWD_PORTS: u32 = 4;
const FIRST_CROWD_PORT: u32 = 9001;
const CLIENT_PORTS: std::ops::Range<u32> = 32_768..61_000;

/// How much memory the agent may take for them, bytes.
const AGENT_GROWTH: u64 = 4 << 20;

impl<'a> Crowd<'a> {
    fn new(scene: &'a Scene, size: u32) -> Result<Self> {
        for pod in [&scene.client, &scene.server] {
            let ports = format!("{FIRST_CROWD_PORT}-{}", FIRST_CROWD_PORT + CROWD_PORTS - 1);
            pod.namespace().nft(&format!(
                "table inet crowd {{
                   counter heard {{ }}
                   chain prerouting {{
                     type filter hook prerouting priority raw
                     tcp dport {ports} counter name heard drop
                     tcp sport {ports} counter name heard drop
                   }}
                 }}"
            ))?;
        }
        Ok(Self { client: &scene.client, server: &scene.server, size })
    }

    /// The ends of each connection: the client's and the server's.
    fn ends(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> + Send + use<> {
        let (client, server) = (self.client.ipv4(), self.server.ipv4());
        let count = CLIENT_PORTS.end - CLIENT_PORTS.start;
        (0..self.size).map(move |number| {
            let port = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
            let client = SocketAddr::new(client, port(CLIENT_PORTS.start + number % count));
            (client, SocketAddr::new(server, port(FIRST_CROWD_PORT + number / count)))
        })
    }

    /// The client sends on every connection.
    fn call(&self) -> Result<()> {
        send_packets(self.client, self.ends().map(|(from, to)| Packet::tcp_acknowledgement(from, to)))
    }

    /// The server sends on every connection.
    fn answer(&self) -> Result<()> {
        send_packets(self.server, self.ends().map(|(to, from)| Packet::tcp_acknowledgement(from, to)))
    }

    /// The server opens so many connections between the same ports.
    fn open(&self, count: usize) -> Result<()> {
        let openings = self.ends().take(count).map(|(to, from)| Packet::tcp_syn(from, to));
        send_packets(self.server, openings)
    }
}

/// How many packets of a crowd a pod has heard.
fn heard(pod: &Pod) -> Result<u64> {
    let text = pod.namespace().feed("nft", &["list", "counter", "inet", "crowd", "heard"], "")?;
    let number = text.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next());
    Ok(number.context("no counter")?.parse()?)
}

/// How many connections a node tracks.
fn tracked(node: &Endpoint) -> Result<u32> {
    node.namespace().run(|| {
        let count = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")?;
        Ok(count.trim().parse()?)
    })
}

#[test]
fn a_hundred_thousand_connections_are_cut_and_stay_cut() -> Result<()> {
    const SIZE: u32 = 100_000;
    const OPENED: usize = 1000;
    const LONG: Duration = Duration::from_secs(60);
    let scene = Scene::raise(Topology::Routed)?;
    let crowd = Crowd::new(&scene, SIZE)?;
    let agent = scene.testbed.start_agent("node-1")?;
    let node = scene.client.node();
    let others = open_all(&scene.server, &scene.client)?;
    wait_until(LONG, || {
        crowd.call()?;
        ensure!(tracked(node)? >= SIZE, "{} connections are tracked", tracked(node)?);
        Ok(())
    })?;
    let memory = agent.resident_memory()?;
    scene.testbed.put(&isolate("server", &["Ingress"]))?;
    agent.wait_for_counter("connections_cut", SIZE.into(), LONG)?;
    assert_eq!(agent.counter("connections_cut")?, u64::from(SIZE));
    assert_eq!(agent.counter("connections_unbarred")?, 0);
    wait_until(BOUND, || {
        let barred = agent.metric("podfence_connections_barred{family=\"IPv4\"}")?;
        ensure!(barred == u64::from(SIZE), "{barred} are barred");
        Ok(())
    })?;
    let limit = agent.metric("podfence_connections_barred_limit{family=\"IPv4\"}")?;
    assert!(u64::from(SIZE) * 10 < limit * 8, "{limit} can be barred, so there is an alarm");

    let before = [heard(&scene.client)?, heard(&scene.server)?];
    crowd.answer()?;
    crowd.call()?;
    assert_eq!([heard(&scene.client)?, heard(&scene.server)?], before, "some come back");
    ensure!(tracked(node)? < SIZE / 100, "{} connections are tracked", tracked(node)?);

    crowd.open(OPENED)?;
    assert_eq!(heard(&scene.client)?, before[0] + OPENED as u64, "some new ones are refused");
    check_going_on(&others)?;
    let grown = agent.resident_memory()?.saturating_sub(memory);
    ensure!(grown < AGENT_GROWTH, "{grown} bytes more memory");
    Ok(())
}
