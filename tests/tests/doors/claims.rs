//! ARP and neighbour discovery that speak for somebody else, and addresses taken by them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Result, ensure};
use lab::frame::{Frame, Operation};
use lab::segment::{icmp, neighbour_advertisement, neighbour_solicitation, redirect, router_advertisement};
use lab::testbed::{BOUND, wait_until};
use lab::{Endpoint, LinkAddress, Packet, Pod, Protocol, Topology, Try, Wire, arrivals, on_each_topology};

use crate::scene::{PORT, Scene, assert_arrive, assert_shut, ipv6_of};

on_each_topology! {
    an_address_of_another_taken_and_announced
}

/// ARP packets with addresses that are not the attacker's.
fn of_arp(scene: &Scene, attacker: &Pod, victim: &Pod, wire: &Wire) -> Result<Vec<Try>> {
    let (own, gateway) = (attacker.link_address(), scene.gateway(attacker)?);
    let mut tries = Vec::new();
    for (whose, sender) in [
        ("the friend's", (own, scene.friend.ipv4())),
        ("the friend's, at the friend's", (scene.friend.link_address(), scene.friend.ipv4())),
        ("the gateway's", (own, "10.244.1.1".parse()?)),
        ("the gateway's, at the gateway's", (gateway, "10.244.1.1".parse()?)),
        ("an unknown pod's", (own, "10.244.1.240".parse()?)),
        ("its own, at the friend's", (scene.friend.link_address(), attacker.ipv4())),
    ] {
        for operation in [Operation::Request, Operation::Reply] {
            for to in [victim.link_address(), LinkAddress::BROADCAST] {
                for target in [(victim.link_address(), victim.ipv4()), sender] {
                    let name = format!("ARP {operation:?} of {whose} to {to} about {}", target.1);
                    tries.push(Try::frames(name, victim, wire, move |token| {
                        [Frame::arp((own, to), operation, sender, target, &token.bytes())]
                    }));
                }
            }
        }
    }
    Ok(tries)
}

/// A packet that carries a payload.
type Message = Box<dyn Fn(&[u8]) -> Packet>;

/// Messages of neighbour discovery with addresses that are not the attacker's, or that only routers send.
fn of_neighbour_discovery(scene: &Scene, attacker: &Pod, victim: &Pod, wire: &Wire) -> Result<Vec<Try>> {
    let own = attacker.link_address();
    let all_nodes: IpAddr = "ff02::1".parse()?;
    let own_addresses = [attacker.ipv6(), attacker.namespace().link_local("eth0")?.into()];
    let gateway_local = attacker.node().namespace().link_local("pods")?;
    let friend_local = scene.friend.namespace().link_local("eth0")?;
    let friend = ipv6_of(&scene.friend)?;
    let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let mut tries = Vec::new();
    let mut add = |name: String, to: IpAddr, message: Message| {
        let link = if to == all_nodes { LinkAddress::of_group(to) } else { victim.link_address() };
        tries.push(Try::frames(format!("{name} to {to}"), victim, wire, move |token| {
            [Frame::of_packet(own, link, &message(&token.bytes()))]
        }));
    };
    for to in [victim.ipv6(), all_nodes] {
        for target in [friend, friend_local, "fd44:0:0:1::1".parse()?, gateway_local] {
            for from in own_addresses.into_iter().chain([IpAddr::V6(target)]) {
                let message = move |payload: &[u8]| neighbour_advertisement(from, to, target, own, payload);
                let packet = move |payload: &[u8]| Packet::icmp(from, to, message(payload));
                add(format!("advertisement of {target} from {from}"), to, Box::new(packet));
            }
        }
        for (from, target) in [(IpAddr::V6(friend), ipv6_of(victim)?), (unspecified, friend)] {
            let link = (from != unspecified).then_some(own);
            let packet = move |payload: &[u8]| {
                Packet::icmp(from, to, neighbour_solicitation(from, to, target, link, payload))
            };
            add(format!("solicitation of {target} from {from}"), to, Box::new(packet));
        }
        for from in [own_addresses[1], gateway_local.into()] {
            let packet =
                move |payload: &[u8]| Packet::icmp(from, to, router_advertisement(from, to, own, payload));
            add(format!("router advertisement from {from}"), to, Box::new(packet));
            let packet = move |payload: &[u8]| {
                Packet::icmp(from, to, redirect(from, to, friend_local, friend, payload))
            };
            add(format!("redirect from {from}"), to, Box::new(packet));
        }
    }
    // A redirect of IPv4: what it is about follows the new gateway.
    let (from, to, gateway) = ("10.244.1.1".parse::<IpAddr>()?, victim.ipv4(), attacker.ipv4());
    let packet = move |payload: &[u8]| {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(_) => Vec::new(),
        };
        let about =
            Packet::udp(SocketAddr::new(to, 7), SocketAddr::new([10, 244, 1, 240].into(), 7), payload);
        Packet::icmp(from, to, icmp(from, to, 5, 1, &[octets(gateway), about.bytes()].concat()))
    };
    add("redirect from the gateway".into(), to, Box::new(packet));
    Ok(tries)
}

#[test]
fn nobody_speaks_for_another() -> Result<()> {
    let scene = Scene::raise(Topology::Bridge)?;
    let (attacker, victim) = (&scene.stranger, &scene.open);
    let wire = Scene::wire(attacker)?;
    let mut tries = of_arp(&scene, attacker, victim, &wire)?;
    tries.extend(of_neighbour_discovery(&scene, attacker, victim, &wire)?);
    scene.assert_shut(&tries)
}

/// The friend's addresses on the attacker's device, and frames that say so to everybody.
struct Theft<'a> {
    scene: &'a Scene,
    wire: Wire,
    announcements: Vec<Frame>,
}

impl<'a> Theft<'a> {
    fn prepare(scene: &'a Scene) -> Result<Self> {
        let (attacker, friend) = (&scene.stranger, &scene.friend);
        let (own, nobody) = (attacker.link_address(), LinkAddress([0; 6]));
        let all_nodes: IpAddr = "ff02::1".parse()?;
        let (ipv4, target) = (friend.ipv4(), ipv6_of(friend)?);
        let arp = |operation, to, about| Frame::arp((own, to), operation, (own, ipv4), about, &[]);
        let mut announcements = vec![
            arp(Operation::Request, LinkAddress::BROADCAST, (nobody, ipv4)),
            arp(Operation::Reply, LinkAddress::BROADCAST, (own, ipv4)),
        ];
        for (address, link) in [
            (scene.open.ipv4(), scene.open.link_address()),
            ("10.244.1.1".parse()?, scene.gateway(attacker)?),
        ] {
            announcements.push(arp(Operation::Reply, link, (link, address)));
        }
        let message = neighbour_advertisement(target.into(), all_nodes, target, own, &[]);
        let advertisement = Packet::icmp(target.into(), all_nodes, message);
        announcements.push(Frame::of_packet(own, LinkAddress::of_group(all_nodes), &advertisement));
        // And the friend's link address is here as well.
        let empty = Frame::arp(
            (friend.link_address(), LinkAddress::BROADCAST),
            Operation::Request,
            (friend.link_address(), ipv4),
            (nobody, ipv4),
            &[],
        );
        announcements.push(empty);
        Ok(Self { scene, wire: Scene::wire(attacker)?, announcements })
    }

    fn take(&self) -> Result<()> {
        for address in self.scene.friend.addresses() {
            let nodad = if address.is_ipv6() { " nodad" } else { "" };
            self.scene.stranger.namespace().ip(&format!("address add {address} dev eth0{nodad}\n"))?;
        }
        Ok(())
    }

    /// Gives the addresses back, and makes everybody forget.
    fn give_back(&self) -> Result<()> {
        let scene = self.scene;
        for address in scene.friend.addresses() {
            scene.stranger.namespace().ip(&format!("address delete {address} dev eth0\n"))?;
        }
        let all = scene.testbed.lab.pods().iter().map(|pod| pod.namespace());
        for namespace in all.chain([scene.server.node().namespace()]) {
            namespace.ip("neigh flush all\n")?;
        }
        Ok(())
    }

    /// Datagrams from the stolen addresses to the server, by sockets.
    fn uses(&self) -> Vec<Try> {
        let ends = self.scene.friend.addresses().into_iter().zip(self.scene.server.addresses());
        let attacker = &self.scene.stranger;
        ends.map(|(from, to)| datagrams(attacker, Some(from), to, &self.scene.server, "as the friend"))
            .collect()
    }

    /// Datagrams to the friend from a pod, and from the node, each after it has heard the announcements; who gets
    /// them?
    fn intercepts(&self, witness: &Pod) -> Vec<Try> {
        let mut tries = Vec::new();
        let senders: [&Endpoint; 2] = [&self.scene.open, self.scene.server.node()];
        for sender in senders {
            for to in self.scene.friend.addresses() {
                let (wire, announcements) = (self.wire.clone(), self.announcements.clone());
                let send = datagrams(sender, None, to, witness, sender.name());
                tries.push(send.after(move || announcements.iter().try_for_each(|frame| wire.send(frame))));
            }
        }
        tries
    }
}

/// A datagram by a socket of an endpoint.
fn datagrams(from: &Endpoint, source: Option<IpAddr>, to: IpAddr, witness: &Pod, name: &str) -> Try {
    let sender = from.clone();
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    Try::new(format!("{name}: {to} at {}", witness.name()), witness, move |token| {
        let source = source.map_or_else(|| any.parse(), Ok)?;
        let socket = sender.namespace().run(|| Ok(UdpSocket::bind(SocketAddr::new(source, 0))?))?;
        socket.send_to(&token.bytes(), SocketAddr::new(to, PORT))?;
        Ok(())
    })
}

fn an_address_of_another_taken_and_announced(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let theft = Theft::prepare(&scene)?;
    let talk = || -> Result<()> {
        for (from, to) in [(&scene.friend, &scene.open), (&scene.open, &scene.friend)] {
            for to in to.addresses() {
                scene.testbed.lab.connect(from, to, PORT, Protocol::Udp)?;
            }
        }
        Ok(())
    };
    talk()?;
    theft.take()?;
    assert_arrive(&theft.uses(), "without agents")?;
    if scene.bridged() {
        wait_until(BOUND, || {
            let arrived = arrivals(&theft.intercepts(&scene.stranger))?;
            ensure!(arrived.contains(&true), "nothing for the friend comes to the stranger");
            Ok(())
        })?;
    }
    theft.give_back()?;
    talk()?;

    let _agents = scene.testbed.start_agents()?;
    theft.take()?;
    assert_shut(&theft.uses())?;
    assert_shut(&theft.intercepts(&scene.stranger))?;
    assert_arrive(&theft.intercepts(&scene.friend), "with agents")?;
    let probes: Vec<_> = scene
        .server
        .addresses()
        .into_iter()
        .map(|to| lab::Probe::new(&scene.friend, to, PORT, Protocol::Tcp))
        .collect();
    assert_eq!(scene.testbed.disagreements(&probes)?, Vec::<String>::new());
    Ok(())
}
