//! What pods do on their link and with their node, and doors must let pass. What policies let through a node, by
//! Services, to and from the node, is tried by the other tests: their agents watch doors as well.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::frame::{Frame, Operation};
use lab::segment::{icmp, neighbour_advertisement, neighbour_solicitation};
use lab::testbed::{BOUND, wait_until};
use lab::{
    Endpoint, LinkAddress, Outcome, Packet, Pod, Probe, Protocol, Stream, Token, Topology, Try, new_port,
    on_each_topology,
};

use crate::scene::{PORT, Scene, assert_arrive, ipv6_of, solicited_node};

on_each_topology! {
    friends_and_strangers_are_told_apart
    dhcp_reaches_the_node
    a_new_address_is_looked_for_and_used
    a_host_port_leads_to_its_pod
    errors_come_back
    open_connections_go_on
}

fn friends_and_strangers_are_told_apart(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let _agents = scene.testbed.start_agents()?;
    let pods = [&scene.friend, &scene.stranger, &scene.jailed, &scene.open, &scene.far_friend];
    let mut probes = Vec::new();
    for from in pods {
        for to in pods.into_iter().chain([&scene.server, &scene.far]) {
            for protocol in Protocol::ALL {
                probes.extend(to.addresses().into_iter().map(|to| Probe::new(from, to, PORT, protocol)));
            }
        }
    }
    assert_eq!(scene.testbed.disagreements(&probes)?, Vec::<String>::new());
    Ok(())
}

/// ARP and neighbour discovery that a pod does in its own name reach others, isolated ones included.
#[test]
fn neighbours_speak_for_themselves() -> Result<()> {
    let scene = Scene::raise(Topology::Bridge)?;
    let (from, wire) = (&scene.stranger, Scene::wire(&scene.stranger)?);
    let (own, ipv4) = (from.link_address(), from.ipv4());
    let (unspecified_link, everybody) = (LinkAddress([0; 6]), LinkAddress::BROADCAST);
    let local = from.namespace().link_local("eth0")?;
    let unspecified: IpAddr = Ipv4Addr::UNSPECIFIED.into();
    let mut tries = Vec::new();
    for victim in [&scene.open, &scene.server, &scene.jailed] {
        let (link, address) = (victim.link_address(), victim.ipv4());
        for (name, operation, sender, target, to) in [
            ("request", Operation::Request, (own, ipv4), (unspecified_link, address), everybody),
            ("request, confirming", Operation::Request, (own, ipv4), (unspecified_link, address), link),
            ("reply", Operation::Reply, (own, ipv4), (link, address), link),
            ("probe", Operation::Request, (own, unspecified), (unspecified_link, ipv4), everybody),
            ("announcement", Operation::Request, (own, ipv4), (unspecified_link, ipv4), everybody),
            ("announcement by reply", Operation::Reply, (own, ipv4), (own, ipv4), everybody),
        ] {
            let name = format!("ARP {name} at {}", victim.name());
            tries.push(Try::frames(name, victim, &wire, move |token| {
                [Frame::arp((own, to), operation, sender, target, &token.bytes())]
            }));
        }
        let (asked, all_nodes) = (ipv6_of(victim)?, "ff02::1".parse::<Ipv6Addr>()?);
        for own_address in [ipv6_of(from)?, local] {
            let to = solicited_node(asked);
            tries.push(discovery(&format!("{own_address} asks"), from, victim, to, move |payload| {
                (
                    own_address,
                    neighbour_solicitation(own_address.into(), to.into(), asked, Some(own), payload),
                )
            })?);
            tries.push(discovery(&format!("{own_address} answers"), from, victim, asked, move |payload| {
                let (source, to) = (own_address.into(), asked.into());
                (own_address, neighbour_advertisement(source, to, own_address, own, payload))
            })?);
            tries.push(discovery(
                &format!("{own_address} announces"),
                from,
                victim,
                all_nodes,
                move |payload| {
                    let (source, to) = (own_address.into(), all_nodes.into());
                    (own_address, neighbour_advertisement(source, to, own_address, own, payload))
                },
            )?);
            let to = solicited_node(own_address);
            tries.push(discovery(&format!("is there {own_address}"), from, victim, to, move |payload| {
                let source = Ipv6Addr::UNSPECIFIED;
                (source, neighbour_solicitation(source.into(), to.into(), own_address, None, payload))
            })?);
        }
    }
    let _agents = scene.testbed.start_agents()?;
    assert_arrive(&tries, "with agents")
}

/// A message of neighbour discovery, made for the payload that tells it from others: its source and the message.
fn discovery(
    name: &str,
    from: &Pod,
    witness: &Pod,
    to: Ipv6Addr,
    message: impl Fn(&[u8]) -> (Ipv6Addr, Vec<u8>) + 'static,
) -> Result<Try> {
    let own = from.link_address();
    let link = if to.is_multicast() { LinkAddress::of_group(to.into()) } else { witness.link_address() };
    let name = format!("{name}, at {}", witness.name());
    Ok(Try::frames(name, witness, &Scene::wire(from)?, move |token| {
        let (source, message) = message(&token.bytes());
        [Frame::of_packet(own, link, &Packet::icmp(source.into(), to.into(), message))]
    }))
}

/// Reports of IGMP and MLD.
#[test]
fn groups_are_joined() -> Result<()> {
    const IGMP: u8 = 2;
    const HOP_BY_HOP: u8 = 0;
    /// For routers (RFC 2711), and two bytes that mean nothing.
    const ROUTER_ALERT: [u8; 6] = [5, 2, 0, 0, 1, 0];
    let scene = Scene::raise(Topology::Bridge)?;
    let (from, wire) = (&scene.stranger, Scene::wire(&scene.stranger)?);
    let own = from.link_address();
    let local = from.namespace().link_local("eth0")?;
    let mut tries = Vec::new();
    for witness in [&scene.open, &scene.server] {
        let to: IpAddr = "224.0.0.22".parse()?;
        for source in [from.ipv4(), Ipv4Addr::UNSPECIFIED.into()] {
            let name = format!("IGMP of {source} at {}", witness.name());
            tries.push(Try::frames(name, witness, &wire, move |token| {
                // One record: from now on all sources of 239.1.2.3.
                let body = [&[0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3], &token.bytes()[..]].concat();
                let report = Packet::new(source, to, IGMP, icmp(source, to, 0x22, 0, &body)).hop_limit(1);
                [Frame::of_packet(own, LinkAddress::of_group(to), &report)]
            }));
        }
        let to: IpAddr = "ff02::16".parse()?;
        for source in [IpAddr::V6(local), Ipv6Addr::UNSPECIFIED.into()] {
            let name = format!("MLD of {source} at {}", witness.name());
            tries.push(Try::frames(name, witness, &wire, move |token| {
                let group = "ff0e::101".parse::<Ipv6Addr>().unwrap_or(Ipv6Addr::UNSPECIFIED).octets();
                let body = [&[0, 0, 0, 1, 4, 0, 0, 0], &group[..], &token.bytes()].concat();
                let report = Packet::icmp(source, to, icmp(source, to, 143, 0, &body)).hop_limit(1);
                [Frame::of_packet(
                    own,
                    LinkAddress::of_group(to),
                    &report.extended(HOP_BY_HOP, &ROUTER_ALERT),
                )]
            }));
        }
    }
    let _agents = scene.testbed.start_agents()?;
    assert_arrive(&tries, "with agents")
}

/// Whether a socket hears a token within the time that packets may be lost in.
fn hears(socket: &UdpSocket, send: impl Fn(Token) -> Result<()>) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    wait_until(BOUND, || {
        let token = Token::new();
        send(token)?;
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer)?;
        ensure!(buffer[..length].ends_with(&token.bytes()), "something else was heard");
        Ok(())
    })
}

fn dhcp_reaches_the_node(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let _agents = scene.testbed.start_agents()?;
    let node = scene.server.node().namespace();
    let (server, group) =
        (node.run(|| Ok(UdpSocket::bind("0.0.0.0:67")?))?, "ff02::1:2".parse::<Ipv6Addr>()?);
    let clients = [&scene.stranger, &scene.jailed];
    let devices: BTreeSet<_> =
        clients.iter().map(|pod| if scene.bridged() { "pods".to_owned() } else { pod.link() }).collect();
    let server6 = node.run(|| Ok(UdpSocket::bind("[::]:547")?))?;
    for device in &devices {
        server6.join_multicast_v6(&group, node.device_index(device)?)?;
    }
    for client in clients {
        let (wire, own) = (Scene::wire(client)?, client.link_address());
        hears(&server, |token| {
            let from = SocketAddr::from(([0, 0, 0, 0], 68));
            let discover = Packet::udp(from, SocketAddr::from(([255; 4], 67)), &token.bytes());
            wire.send(&Frame::of_packet(own, LinkAddress::BROADCAST, &discover))
        })?;

        let from = SocketAddr::new(client.namespace().link_local("eth0")?.into(), 546);
        hears(&server6, |token| {
            let solicit = Packet::udp(from, SocketAddr::new(group.into(), 547), &token.bytes());
            wire.send(&Frame::of_packet(own, LinkAddress::of_group(group.into()), &solicit))
        })?;
    }
    Ok(())
}

/// Duplicate address detection by the pod's own stack, and then its connections.
fn a_new_address_is_looked_for_and_used(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let _agents = scene.testbed.start_agents()?;
    let pod = &scene.friend;
    let namespace = pod.namespace();
    namespace.sysctl("ipv6/conf/eth0/accept_dad 1\nipv6/conf/eth0/dad_transmits 1")?;
    let prefix = if scene.bridged() { 64 } else { 128 };
    let address = format!("{}/{prefix} dev eth0", pod.ipv6());
    namespace.ip(&format!("address delete {address}\naddress add {address}\n"))?;
    wait_until(BOUND, || {
        let shown = namespace.feed("ip", &["address", "show", "dev", "eth0"], "")?;
        ensure!(!shown.contains("tentative") && !shown.contains("dadfailed"), "{shown}");
        Ok(())
    })?;
    let probe = Probe::new(pod, scene.server.ipv6(), PORT, Protocol::Tcp).from_address(pod.ipv6());
    scene.testbed.lab.wait_for(&probe, Outcome::Allowed, BOUND)?;
    Ok(())
}

fn a_host_port_leads_to_its_pod(topology: Topology) -> Result<()> {
    const HOST_PORT: u16 = 31_000;
    let scene = Scene::raise(topology)?;
    let node = scene.server.node();
    node.namespace().nft(&format!(
        "table inet lab_host_port {{
           chain prerouting {{
             type nat hook prerouting priority dstnat
             fib daddr type local tcp dport {HOST_PORT} dnat ip to {}:{PORT}
             fib daddr type local tcp dport {HOST_PORT} dnat ip6 to [{}]:{PORT}
           }}
           chain postrouting {{
             type nat hook postrouting priority srcnat
             ct status dnat masquerade
           }}
         }}",
        scene.open.ipv4(),
        scene.open.ipv6()
    ))?;
    let _agents = scene.testbed.start_agents()?;
    let senders: [&Endpoint; 4] =
        [scene.testbed.lab.world(), &scene.stranger, &scene.open, &scene.far_friend];
    let mut probes = Vec::new();
    for from in senders {
        let to = node.addresses().into_iter();
        probes.extend(to.map(|to| Probe::new(from, to, HOST_PORT, Protocol::Tcp)));
    }
    for (probe, reply) in probes.iter().zip(scene.testbed.lab.probe(&probes)?) {
        assert_eq!(reply.server.as_deref(), Some(scene.open.name()), "{probe}");
    }
    Ok(())
}

/// Port unreachable from a pod's stack, and "too big" about a packet of an open flow.
fn errors_come_back(topology: Topology) -> Result<()> {
    const CLOSED: u16 = 7;
    let scene = Scene::raise(topology)?;
    let _agents = scene.testbed.start_agents()?;
    for to in scene.open.addresses() {
        for from in [&scene.stranger, &scene.far_friend] {
            let outcome = scene.testbed.lab.connect(from, to, CLOSED, Protocol::Udp)?;
            assert_eq!(outcome, Outcome::Refused, "{} -> {to}", from.name());
        }
    }
    let (friend, server) = (&scene.friend, &scene.server);
    let (wire, own) = (Scene::wire(server)?, server.link_address());
    let next_hop = scene.next_hop(server, friend)?;
    let mut tries = Vec::new();
    for (from, to) in friend.addresses().into_iter().zip(server.addresses()) {
        let (from, to) = (SocketAddr::new(from, new_port()), SocketAddr::new(to, PORT));
        let socket = friend.namespace().run(|| Ok(UdpSocket::bind(from)?))?;
        socket.set_read_timeout(Some(BOUND))?;
        socket.connect(to)?;
        socket.send(b"hello")?;
        socket.recv(&mut [0; 64])?;
        tries.push(Try::frames(format!("about {from} -> {to}"), friend, &wire, move |token| {
            let about = Packet::udp(from, to, &token.bytes()).bytes();
            // The largest that fits: 1400 bytes.
            let (kind, code, size) =
                if to.is_ipv4() { (3, 4, [0, 0, 5, 120]) } else { (2, 0, [0, 0, 5, 120]) };
            let message = icmp(to.ip(), from.ip(), kind, code, &[&size, &about[..]].concat());
            [Frame::of_packet(own, next_hop, &Packet::icmp(to.ip(), from.ip(), message))]
        }));
    }
    assert_arrive(&tries, "with agents")
}

/// Agents come, go and come back.
fn open_connections_go_on(topology: Topology) -> Result<()> {
    /// The longest silence, on a busy machine.
    const STALL: Duration = Duration::from_secs(1);
    let scene = Scene::raise(topology)?;
    let clients: [&Endpoint; 4] =
        [&scene.stranger, &scene.far_friend, scene.testbed.lab.world(), scene.server.node()];
    let mut streams = Vec::new();
    for client in clients {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            for ipv4 in [true, false] {
                streams.push(Stream::open(client, &scene.open, ipv4, protocol)?);
            }
        }
    }
    for _ in 0..2 {
        let _agents = scene.testbed.start_agents()?;
        for stream in &streams {
            let before = stream.heard().messages;
            wait_until(BOUND, || {
                ensure!(stream.heard().messages > before + 20, "nothing comes through: {stream}");
                Ok(())
            })?;
        }
    }
    for stream in &streams {
        let gap = stream.heard().longest_gap;
        ensure!(gap < STALL, "silent for {gap:?}: {stream}");
    }
    Ok(())
}
