//! Packets in packets: a node unwraps what any pod sends to its tunnel, or to that of another node.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use lab::frame::{Frame, geneve, gre, ip_in_ip, vxlan};
use lab::programs::is_there;
use lab::testbed::{BOUND, Testbed, listen, wait_until};
use lab::{LinkAddress, Node, Outcome, Packet, Pod, Protocol, Token, Topology, Try, Underlay};
use lab::{arrivals, on_each_topology};

use crate::scene::{PORT, Scene, assert_arrive, opening};

/// The lab's own tunnel, one over IPv6, and one that comes when the agents run.
const VXLAN: (u16, u32) = (8472, 42);
const VXLAN6: (u16, u32) = (4789, 43);
const LATER: (u16, u32) = (8999, 44);

on_each_topology! {
    nothing_gets_into_a_tunnel
    other_kinds_of_tunnels
    a_tunnel_that_comes_later
    pods_may_use_tunnels_where_that_is_wished
    a_port_is_as_good_as_another_where_there_is_no_tunnel
}

/// Who wraps what for whom: the friend on the other node is a friend, too, and has no door here.
fn conversations(scene: &Scene) -> Vec<(&Pod, IpAddr, &Pod)> {
    let mut all = Vec::new();
    for (from, to) in scene.far_friend.addresses().into_iter().zip(scene.server.addresses()) {
        debug_assert_eq!(from.is_ipv4(), to.is_ipv4());
        all.push((&scene.stranger, from, &scene.server));
        all.push((&scene.jailed, from, &scene.open));
    }
    all.extend(scene.friend.addresses().into_iter().map(|from| (&scene.stranger, from, &scene.far)));
    all
}

fn of_family(pod: &Pod, like: IpAddr) -> IpAddr {
    if like.is_ipv4() { pod.ipv4() } else { pod.ipv6() }
}

/// How an inner frame becomes the packets that a pod sends.
type Wrap = Box<dyn Fn(Token, &Frame) -> Vec<Packet>>;

/// A try to send something wrapped to a node whose end of the tunnel has a link address.
fn wrapped(
    scene: &Scene,
    name: &str,
    (attacker, source, victim): (&Pod, IpAddr, &Pod),
    inner_link: LinkAddress,
    wrap: Wrap,
) -> Result<Try> {
    let (wire, from) = (Scene::wire(attacker)?, attacker.link_address());
    let gateway = scene.gateway(attacker)?;
    let to = of_family(victim, source);
    let name = format!("{} in {name}: {source} -> {to} at {}", attacker.name(), victim.name());
    Ok(Try::frames(name, victim, &wire, move |token| {
        let inner = opening(Protocol::Udp, source, to, PORT, token);
        let inner = Frame::of_packet(LinkAddress([0x02, 0, 0, 0, 0, 0xaa]), inner_link, &inner);
        wrap(token, &inner)
            .iter()
            .map(|outer| {
                let to = match outer.to() {
                    IpAddr::V4(group) if group.is_broadcast() => LinkAddress::BROADCAST,
                    group if group.is_multicast() => LinkAddress::of_group(group),
                    _ => gateway,
                };
                Frame::of_packet(from, to, outer)
            })
            .collect::<Vec<_>>()
    }))
}

/// In UDP to a node's address, whole.
fn in_udp(from: IpAddr, to: IpAddr, (port, network): (u16, u32)) -> Wrap {
    Box::new(move |token, inner| vec![datagram(from, to, port, token, &vxlan(network, inner))])
}

fn datagram(from: IpAddr, to: IpAddr, port: u16, token: Token, payload: &[u8]) -> Packet {
    Packet::udp(SocketAddr::new(from, token.port()), SocketAddr::new(to, port), payload)
}

/// Adds a VXLAN device of a node; its link address ends in a number.
fn add_vxlan(node: &Node, name: &str, (port, network): (u16, u32), number: u8) -> Result<LinkAddress> {
    let link = LinkAddress([0x02, 0, 0, 0, 0x66, number]);
    node.namespace().ip(&format!(
        "link add {name} address {link} type vxlan id {network} local {} dstport {port} nolearning\n\
         link set {name} up\n",
        node.ipv6()
    ))?;
    Ok(link)
}

fn nothing_gets_into_a_tunnel(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    for node in scene.testbed.lab.nodes() {
        add_vxlan(node, "vxlan6", VXLAN6, 6)?;
    }
    let mut tries = Vec::new();
    for conversation @ (attacker, _, victim) in conversations(&scene) {
        let node = victim.node();
        let link = |device| node.namespace().link_address(device);
        let (from4, from6) = (attacker.ipv4(), attacker.ipv6());
        let mut to4 = vec![node.ipv4()];
        if scene.bridged() && node.name() == attacker.node().name() {
            for of_bridge in ["10.244.1.1", "10.244.1.255", "255.255.255.255", "224.0.0.1"] {
                to4.push(of_bridge.parse()?);
            }
        }
        for to in to4 {
            let name = format!("VXLAN to {to}");
            tries.push(wrapped(&scene, &name, conversation, link("vxlan")?, in_udp(from4, to, VXLAN))?);
        }
        let to4 = node.ipv4();
        let in_fragments: Wrap = Box::new(move |token, inner| {
            datagram(from4, to4, VXLAN.0, token, &vxlan(VXLAN.1, inner)).fragments(8, token)
        });
        tries.push(wrapped(&scene, "VXLAN in fragments", conversation, link("vxlan")?, in_fragments)?);
        let to6 = node.ipv6();
        let whole = in_udp(from6, to6, VXLAN6);
        tries.push(wrapped(&scene, "VXLAN over IPv6", conversation, link("vxlan6")?, whole)?);
        let behind_options: Wrap = Box::new(move |token, inner| {
            let packet = datagram(from6, to6, VXLAN6.0, token, &vxlan(VXLAN6.1, inner));
            vec![packet.extended(60, &[1, 4, 0, 0, 0, 0])]
        });
        tries.push(wrapped(&scene, "VXLAN behind options", conversation, link("vxlan6")?, behind_options)?);
    }
    scene.assert_shut(&tries)
}

/// What `ip link add` says to make a tunnel of a kind between any two addresses, and what goes into it.
type Kind = (&'static str, fn(IpAddr, IpAddr, Token, &Frame, &Packet) -> Packet);

const KINDS: [Kind; 3] = [
    ("geneve external dstport 6081", |from, to, token, inner, _| {
        datagram(from, to, 6081, token, &geneve(9, inner))
    }),
    ("gre external", |from, to, _, _, inner| gre(from, to, inner)),
    ("ipip external", |from, to, _, _, inner| ip_in_ip(from, to, inner)),
];

/// Adds a tunnel to every node; the error says that the kernel has no such device.
fn add_tunnels(scene: &Scene, kind: &str) -> Result<(), String> {
    scene.testbed.lab.nodes().iter().try_for_each(|node| {
        let added = node.namespace().ip(&format!("link add odd0 type {kind}\nlink set odd0 up\n"));
        added.map_err(|error| format!("a tunnel of the kind {kind}: {error:#}"))
    })
}

/// Those which this machine's kernel knows.
fn other_kinds_of_tunnels(topology: Topology) -> Result<()> {
    for (kind, wrap) in KINDS {
        let scene = Scene::raise(topology)?;
        if !is_there(add_tunnels(&scene, kind)) {
            continue;
        }
        let mut tries = Vec::new();
        for conversation @ (attacker, source, victim) in conversations(&scene) {
            // IPIP carries IPv4 only.
            if source.is_ipv6() && kind.starts_with("ipip") {
                continue;
            }
            let link = victim.node().namespace().link_address("odd0").unwrap_or(LinkAddress([0; 6]));
            let ends = (attacker.ipv4(), victim.node().ipv4());
            let to = of_family(victim, source);
            let wrap: Wrap = Box::new(move |token, inner| {
                let packet = opening(Protocol::Udp, source, to, PORT, token);
                vec![wrap(ends.0, ends.1, token, inner, &packet)]
            });
            tries.push(wrapped(&scene, kind, conversation, link, wrap)?);
        }
        scene.assert_shut(&tries)?;
    }
    Ok(())
}

fn a_tunnel_that_comes_later(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let _agents = scene.testbed.start_agents()?;
    let node = scene.server.node();
    let link = add_vxlan(node, "later", LATER, 7)?;
    let mut tries = Vec::new();
    for conversation @ (attacker, _, victim) in conversations(&scene) {
        if victim.node().name() == node.name() {
            let wrap = in_udp(attacker.ipv6(), node.ipv6(), LATER);
            tries.push(wrapped(&scene, "a later VXLAN", conversation, link, wrap)?);
        }
    }
    wait_until(BOUND, || {
        anyhow::ensure!(!arrivals(&tries)?.contains(&true), "it is open: {tries:?}");
        Ok(())
    })
}

fn pods_may_use_tunnels_where_that_is_wished(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let _agent = scene.testbed.start_agent_with("node-1", &["--allow-pod-tunnels"])?;
    let link = scene.server.node().namespace().link_address("vxlan")?;
    let mut tries = Vec::new();
    for conversation @ (attacker, _, victim) in conversations(&scene) {
        if victim.node().name() == "node-1" {
            let wrap = in_udp(attacker.ipv4(), victim.node().ipv4(), VXLAN);
            tries.push(wrapped(&scene, "VXLAN", conversation, link, wrap)?);
        }
    }
    assert_arrive(&tries, "with --allow-pod-tunnels")
}

fn a_port_is_as_good_as_another_where_there_is_no_tunnel(topology: Topology) -> Result<()> {
    let mut testbed = Testbed::new(topology, Underlay::HostGateway, &["node-1"])?;
    let pod = testbed.pod("node-1", "shop/pod", &[])?;
    let node = testbed.node("node-1")?.clone();
    listen(&node, &[VXLAN.0])?;
    let _agents = testbed.start_agents()?;
    for to in node.addresses() {
        assert_eq!(testbed.lab.connect(&pod, to, VXLAN.0, Protocol::Udp)?, Outcome::Allowed, "{to}");
    }
    Ok(())
}
