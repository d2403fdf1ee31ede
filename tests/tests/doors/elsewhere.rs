//! What comes in by other ways than doors: the LAN, the tunnel, containers that no Pod object knows.

use std::net::IpAddr;

use anyhow::{Context, Result};
use lab::{LinkAddress, Pod, Protocol, Topology, Try, Wire, on_each_topology};

use crate::scene::{Links, PORT, Scene, assert_arrive, open_by_frame};

on_each_topology! {
    nobody_elsewhere_has_the_address_of_a_pod_with_a_door
    others_elsewhere_go_on
}

/// The first node's link addresses as a sender elsewhere sees them, and the sender's own device.
fn ways(scene: &Scene, unknown: &Pod) -> Result<Vec<(&'static str, Wire, Links)>> {
    let (near, far) = (scene.server.node().namespace(), scene.far.node().namespace());
    let world = scene.testbed.lab.world().namespace();
    let links = |namespace: &lab::Namespace, device: &str, to| -> Result<Links> {
        Ok(Links { from: namespace.link_address(device)?, to })
    };
    let lan = near.link_address("lan")?;
    Ok(vec![
        ("the world", Wire::open(world, "node1")?, links(world, "lan", lan)?),
        ("the other node, in the open", Wire::open(far, "lan")?, links(far, "lan", lan)?),
        (
            "the other node, by the tunnel",
            Wire::open(far, "vxlan")?,
            links(far, "vxlan", near.link_address("vxlan")?)?,
        ),
        (
            "an unknown container",
            Scene::wire(unknown)?,
            Links { from: unknown.link_address(), to: scene.gateway(unknown)? },
        ),
    ])
}

fn of_family(pod: &Pod, address: IpAddr) -> Result<IpAddr> {
    let mut addresses = pod.addresses().into_iter();
    addresses.find(|one| one.is_ipv4() == address.is_ipv4()).context("a pod has both families")
}

fn tries(scene: &Scene, unknown: &Pod, sources: &[IpAddr], victims: [&Pod; 2]) -> Result<Vec<Try>> {
    let mut tries = Vec::new();
    for (what, wire, links) in ways(scene, unknown)? {
        for source in sources {
            for victim in victims {
                let to = of_family(victim, *source)?;
                for protocol in [Protocol::Udp, Protocol::Tcp] {
                    let way = (&wire, links);
                    tries.push(open_by_frame(what, way, (*source, to, PORT), protocol, victim));
                }
            }
        }
    }
    Ok(tries)
}

fn nobody_elsewhere_has_the_address_of_a_pod_with_a_door(topology: Topology) -> Result<()> {
    let mut scene = Scene::raise(topology)?;
    let node = scene.server.node().clone();
    let unknown = scene.testbed.lab.pod(&node, "shop/unknown")?;
    let sources = scene.friend.addresses();
    let mut tries = tries(&scene, &unknown, &sources, [&scene.server, &scene.open])?;
    if scene.bridged() {
        // From port to port, past the node.
        let wire = Scene::wire(&unknown)?;
        for victim in [&scene.server, &scene.open] {
            for from in [unknown.link_address(), scene.friend.link_address()] {
                let links = Links { from, to: victim.link_address() };
                tries.extend(sources.iter().zip(victim.addresses()).map(|(source, to)| {
                    let ends = (*source, to, PORT);
                    open_by_frame("an unknown container", (&wire, links), ends, Protocol::Udp, victim)
                }));
            }
        }
    }
    scene.assert_shut(&tries)
}

/// Pods without a door here, and those that are none at all.
fn others_elsewhere_go_on(topology: Topology) -> Result<()> {
    let mut scene = Scene::raise(topology)?;
    let node = scene.server.node().clone();
    let unknown = scene.testbed.lab.pod(&node, "shop/unknown")?;
    let _agents = scene.testbed.start_agents()?;
    let far_friends = scene.far_friend.addresses();
    let mut tries = tries(&scene, &unknown, &far_friends, [&scene.server, &scene.open])?;
    // The unknown container is not the far friend, and nothing on this node shows that.
    tries.retain(|one| !one.name().starts_with("an unknown container"));
    let wire = Scene::wire(&unknown)?;
    let to: LinkAddress = scene.next_hop(&unknown, &scene.open)?;
    let links = Links { from: unknown.link_address(), to };
    for (from, to) in unknown.addresses().into_iter().zip(scene.open.addresses()) {
        let ends = (from, to, PORT);
        tries.push(open_by_frame("an unknown container", (&wire, links), ends, Protocol::Tcp, &scene.open));
    }
    assert_arrive(&tries, "with agents")
}
