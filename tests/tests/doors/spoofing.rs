//! Sources that are not the sender's.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::Result;
use lab::frame::Frame;
use lab::{Packet, Pod, Protocol, Token, Topology, Try, new_port, on_each_topology};

use crate::scene::{Links, PORT, Scene, open_by_frame};

on_each_topology! {
    another_address_as_source
    another_link_address_as_source
    a_packet_slipped_into_an_open_flow
}

/// Addresses of others, by what they are.
fn sources(scene: &Scene) -> Result<Vec<(&'static str, IpAddr)>> {
    let node = scene.server.node();
    let mut sources =
        vec![("an unknown pod's", "10.244.1.240".parse()?), ("an unknown pod's", "fd44:0:0:1::f0".parse()?)];
    sources.extend([("outside", "198.51.100.7".parse()?), ("outside", "2001:db8::7".parse()?)]);
    for (what, addresses) in [
        ("the friend's", scene.friend.addresses()),
        ("the far friend's", scene.far_friend.addresses()),
        ("the server's", scene.server.addresses()),
        ("the world's", scene.testbed.lab.world().addresses()),
        ("the other node's", scene.far.node().addresses()),
    ] {
        sources.extend(addresses.into_iter().map(|address| (what, address)));
    }
    // What only a bridge passes on: the node's routes refuse to.
    sources.push(("the node's", node.ipv6()));
    if scene.bridged() {
        sources.push(("the node's", node.ipv4()));
        sources.push(("the bridge's", "10.244.1.1".parse()?));
        sources.push(("the bridge's", "fd44:0:0:1::1".parse()?));
        sources.push(("the friend's link-local", scene.friend.namespace().link_local("eth0")?.into()));
        for odd in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "240.0.0.1", "169.254.7.7"] {
            sources.push(("odd", odd.parse()?));
        }
        for odd in ["::", "::1", "ff02::1", "::ffff:10.244.1.3", "fe80::7"] {
            sources.push(("odd", odd.parse()?));
        }
    }
    Ok(sources)
}

/// Packets under a source from one pod to another, of each protocol.
fn borrow(
    scene: &Scene,
    (attacker, victim): (&Pod, &Pod),
    links: Links,
    sources: &[(&str, IpAddr)],
) -> Result<Vec<Try>> {
    let wire = Scene::wire(attacker)?;
    let mut tries = Vec::new();
    for (what, from) in sources {
        let to = if from.is_ipv4() { victim.ipv4() } else { victim.ipv6() };
        let name = format!("{} under {what} source", attacker.name());
        let open_pod = victim.name() != scene.server.name();
        // Policies deny the other protocols to the server whoever asks.
        for protocol in Protocol::ALL.into_iter().filter(|protocol| open_pod || is_admitted(*protocol)) {
            tries.push(open_by_frame(&name, (&wire, links), (*from, to, PORT), protocol, victim));
        }
    }
    Ok(tries)
}

fn is_admitted(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tcp | Protocol::Udp)
}

fn another_address_as_source(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let sources = sources(&scene)?;
    let mut tries = Vec::new();
    for attacker in [&scene.stranger, &scene.jailed] {
        for victim in [&scene.open, &scene.server] {
            let links = Links { from: attacker.link_address(), to: scene.next_hop(attacker, victim)? };
            let is_own = |from: &IpAddr| victim.addresses().contains(from);
            let others: Vec<_> = sources.iter().copied().filter(|(_, from)| !is_own(from)).collect();
            tries.extend(borrow(&scene, (attacker, victim), links, &others)?);
        }
    }
    scene.assert_shut(&tries)
}

/// The friend's, the gateway's, unknown ones, with the address that goes with it and with the sender's own.
fn another_link_address_as_source(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let attacker = &scene.stranger;
    let friend = scene.friend.addresses();
    let mut tries = Vec::new();
    for (what, from) in [
        ("the friend's", scene.friend.link_address()),
        ("the gateway's", scene.gateway(attacker)?),
        ("a new", lab::LinkAddress([0x02, 0xbb, 0, 0, 0, 1])),
    ] {
        // A bridge takes nothing that has its own link address from a port.
        if what == "the gateway's" && scene.bridged() {
            continue;
        }
        for victim in [&scene.server, &scene.open] {
            let links = Links { from, to: scene.next_hop(attacker, victim)? };
            let what = format!("{what} link address and the friend's");
            let sources: Vec<_> = friend.iter().map(|address| (&*what, *address)).collect();
            tries.extend(borrow(&scene, (attacker, victim), links, &sources)?);
        }
        // On a routed link, a link address is nobody's business.
        if !scene.bridged() {
            continue;
        }
        let links = Links { from, to: scene.next_hop(attacker, &scene.open)? };
        let what = format!("{what} link address and its own");
        let sources: Vec<_> = attacker.addresses().into_iter().map(|address| (&*what, address)).collect();
        tries.extend(borrow(&scene, (attacker, &scene.open), links, &sources)?);
    }
    scene.assert_shut(&tries)
}

/// The friend talks with the server; the attacker knows the ports of both.
fn a_packet_slipped_into_an_open_flow(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let _agents = scene.testbed.start_agents()?;
    let wire = Scene::wire(&scene.stranger)?;
    let mut tries = Vec::new();
    let mut sockets = Vec::new();
    let families = [IpAddr::is_ipv4, IpAddr::is_ipv6];
    for of_family in families {
        let address = |pod: &Pod| pod.addresses().into_iter().find(of_family);
        let (Some(friend), Some(server)) = (address(&scene.friend), address(&scene.server)) else { continue };
        let (from, to) = (SocketAddr::new(friend, new_port()), SocketAddr::new(server, PORT));
        let socket = scene.friend.namespace().run(|| Ok(UdpSocket::bind(from)?))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(lab::testbed::BOUND))?;
        for _ in 0..2 {
            socket.send(b"hello")?;
            socket.recv(&mut [0; 64])?;
        }
        sockets.push(socket);
        for (what, from, to, victim) in
            [("to the server", from, to, &scene.server), ("to the friend", to, from, &scene.friend)]
        {
            let links =
                Links { from: scene.stranger.link_address(), to: scene.next_hop(&scene.stranger, victim)? };
            let build = move |token: Token| {
                [Frame::of_packet(links.from, links.to, &Packet::opening(Protocol::Udp, from, to, token))]
            };
            tries.push(Try::frames(format!("{from} -> {to}, {what}"), victim, &wire, build));
        }
    }
    crate::scene::assert_shut(&tries)
}
