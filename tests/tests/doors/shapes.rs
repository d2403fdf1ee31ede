//! Packets in other shapes: tags, other ethertypes, fragments, extension headers.

use std::net::IpAddr;

use anyhow::Result;
use lab::frame::{Frame, SERVICE_VLAN, VLAN};
use lab::{LinkAddress, Packet, Pod, Protocol, Token, Topology, Try, on_each_topology};

use crate::scene::{PORT, Scene, opening};

on_each_topology! {
    tagged_frames
    fragments_and_extension_headers
}

/// Who sends to whom, and whether a policy stands between them.
fn ways(scene: &Scene) -> [(&Pod, &Pod); 2] {
    [(&scene.stranger, &scene.server), (&scene.jailed, &scene.open)]
}

/// From each of a pod's addresses to that of another.
fn ends(from: &Pod, to: &Pod) -> Vec<(IpAddr, IpAddr)> {
    from.addresses().into_iter().zip(to.addresses()).collect()
}

/// Tags: the type, the priority and the number of each, the outermost first.
type Tags = &'static [(u16, u16, u16)];

/// Those which a receiver strips, so that what is in the frame counts for it.
const EMPTY_TAGS: [Tags; 6] = [
    &[(VLAN, 0, 0)],
    &[(VLAN, 7, 0)],
    &[(SERVICE_VLAN, 0, 0)],
    &[(SERVICE_VLAN, 5, 0), (VLAN, 0, 0)],
    &[(VLAN, 0, 0), (VLAN, 3, 0)],
    &[(SERVICE_VLAN, 0, 0), (SERVICE_VLAN, 0, 0)],
];

/// Those of which only a device for that virtual LAN takes anything.
const TAGS: [Tags; 6] = [
    &[(VLAN, 0, 1)],
    &[(VLAN, 0, 4094)],
    &[(VLAN, 0, 4095)],
    &[(SERVICE_VLAN, 0, 7)],
    &[(VLAN, 0, 0), (VLAN, 0, 1)],
    &[(SERVICE_VLAN, 0, 1), (VLAN, 0, 1)],
];

fn tagged_frames(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let mut tags = EMPTY_TAGS.to_vec();
    let mut ways = ways(&scene).to_vec();
    if scene.bridged() {
        tags.extend(TAGS);
        // At a bridge tags are dropped whether a policy isolates somebody or not.
        ways.push((&scene.stranger, &scene.open));
    }
    let mut tries = Vec::new();
    for (attacker, victim) in ways {
        let (wire, links) =
            (Scene::wire(attacker)?, (attacker.link_address(), scene.next_hop(attacker, victim)?));
        for tags in &tags {
            let tags = *tags;
            for (from, to) in ends(attacker, victim) {
                let name = format!("{} -> {to} with {tags:x?}", attacker.name());
                tries.push(Try::frames(name, victim, &wire, move |token| {
                    let packet = opening(Protocol::Udp, from, to, PORT, token);
                    let frame = Frame::of_packet(links.0, links.1, &packet);
                    let tag = |frame: Frame, (kind, priority, number): &(u16, u16, u16)| {
                        frame.tagged(*kind, *priority, *number)
                    };
                    [tags.iter().rev().fold(frame, tag)]
                }));
            }
        }
    }
    scene.assert_shut(&tries)
}

/// Frames of other types than IP and ARP, which a bridge passes on.
#[test]
fn frames_of_other_types() -> Result<()> {
    const TYPES: [u16; 9] = [0x88cc, 0x8864, 0x8847, 0x6558, 0x888e, 0x22f3, 0x8137, 0x88f7, 0x0001];
    let scene = Scene::raise(Topology::Bridge)?;
    let mut tries = Vec::new();
    for (attacker, victim) in ways(&scene).into_iter().chain([(&scene.stranger, &scene.open)]) {
        let wire = Scene::wire(attacker)?;
        let links = (attacker.link_address(), victim.link_address());
        for (from, to) in ends(attacker, victim) {
            let packet = move |token| opening(Protocol::Udp, from, to, PORT, token);
            let name = |kind: &str| format!("{} -> {to} in {kind}", attacker.name());
            tries.push(Try::frames(name("LLC and SNAP"), victim, &wire, move |token| {
                [Frame::of_packet_in_snap(links.0, links.1, &packet(token))]
            }));
            for kind in TYPES {
                tries.push(Try::frames(name(&format!("{kind:#06x}")), victim, &wire, move |token| {
                    let in_broadcast =
                        Frame::new(links.0, LinkAddress::BROADCAST, kind, &packet(token).bytes());
                    [Frame::new(links.0, links.1, kind, &packet(token).bytes()), in_broadcast]
                }));
            }
        }
    }
    scene.assert_shut(&tries)
}

/// A way to send a packet in another shape.
type Shape = fn(Packet, Token) -> Vec<Packet>;

const IPV6_SHAPES: [(&str, Shape); 6] = [
    ("destination options", |packet, _| vec![packet.extended(60, &[1, 4, 0, 0, 0, 0])]),
    ("hop-by-hop options", |packet, _| vec![packet.extended(0, &[1, 4, 0, 0, 0, 0])]),
    ("two headers", |packet, _| {
        vec![packet.extended(60, &[1, 4, 0, 0, 0, 0]).extended(60, &[1, 4, 0, 0, 0, 0])]
    }),
    ("fragments behind destination options", |packet, token| {
        packet.extended(60, &[1, 4, 0, 0, 0, 0]).fragments(16, token)
    }),
    ("fragments, the first without the ports", |packet, token| {
        packet.extended(60, &[1, 4, 0, 0, 0, 0]).fragments(8, token)
    }),
    ("one fragment", |packet, token| packet.fragments(1 << 10, token)),
];

const SHAPES: [(&str, Shape); 3] = [
    ("fragments", |packet, token| packet.fragments(8, token)),
    ("fragments, the last one first", |packet, token| packet.fragments(8, token).into_iter().rev().collect()),
    ("later fragments only", |packet, token| packet.fragments(8, token).into_iter().skip(1).collect()),
];

fn fragments_and_extension_headers(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let mut tries = Vec::new();
    for (attacker, victim) in ways(&scene) {
        let wire = Scene::wire(attacker)?;
        let links = (attacker.link_address(), scene.next_hop(attacker, victim)?);
        let borrowed = ends(&scene.friend, victim).into_iter().map(|ends| ("the friend's", ends));
        for (what, (from, to)) in
            ends(attacker, victim).into_iter().map(|ends| ("its own", ends)).chain(borrowed)
        {
            let shapes = SHAPES.iter().chain(IPV6_SHAPES.iter().filter(|_| to.is_ipv6()));
            for (shape, change) in shapes {
                let name = format!("{} under {what} address -> {to} in {shape}", attacker.name());
                tries.push(Try::frames(name, victim, &wire, move |token| {
                    let packets = change(opening(Protocol::Udp, from, to, PORT, token), token);
                    packets.iter().map(|piece| Frame::of_packet(links.0, links.1, piece)).collect::<Vec<_>>()
                }));
            }
        }
    }
    scene.assert_shut(&tries)
}
