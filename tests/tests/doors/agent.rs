//! What the agent reports about doors, and what its flags and annotations change.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::frame::{Frame, Operation, VLAN, vxlan};
use lab::programs::is_there;
use lab::segment::neighbour_advertisement;
use lab::testbed::{BOUND, Testbed, namespace, policy, status, wait_until};
use lab::{
    Agent, ControlPlane, LinkAddress, Node, Packet, Pod, Probe, Protocol, Topology, Try, Underlay, User,
    Wire, arrivals, on_each_topology, program,
};
use serde_json::{Value, json};

use crate::scene::{Links, PORT, Scene, assert_arrive, assert_shut, open_by_frame, opening};

on_each_topology! {
    a_namespace_may_send_for_others
    status_metrics_and_log_show_what_was_dropped
    without_doors_there_are_none
    a_pod_without_a_door_is_reported
    both_tables_stay_until_they_are_cleaned_up
    an_agent_that_starts_beside_a_liar_believes_the_right_one
}

/// Packets from a pod under a source to one that nothing isolates.
fn under(scene: &Scene, from: &Pod, source: &str) -> Result<Try> {
    let (source, to): (IpAddr, _) = (source.parse()?, &scene.open);
    let links = Links { from: from.link_address(), to: scene.next_hop(from, to)? };
    let address = if source.is_ipv4() { to.ipv4() } else { to.ipv6() };
    let way = (&Scene::wire(from)?, links);
    Ok(open_by_frame(from.name(), way, (source, address, PORT), Protocol::Udp, to))
}

fn all_under(scene: &Scene, from: &Pod, sources: &[&str]) -> Result<Vec<Try>> {
    sources.iter().map(|source| under(scene, from, source)).collect()
}

fn wait_shut(tries: &[Try]) -> Result<()> {
    wait_until(BOUND, || {
        ensure!(!arrivals(tries)?.contains(&true), "something of it arrives: {tries:?}");
        Ok(())
    })
}

fn with_annotation(mut object: Value, value: &str) -> Value {
    object["metadata"]["annotations"] = json!({"podfence.io/allowed-sources": value});
    object
}

fn a_namespace_may_send_for_others(topology: Topology) -> Result<()> {
    let mut scene = Scene::raise(topology)?;
    let gateway = scene.testbed.pod("node-1", "vpn/gateway", &[PORT])?;
    let vpn = namespace("vpn", &json!({}));
    scene.testbed.put(&with_annotation(vpn.clone(), "10.99.0.0/24,fd99::/64"))?;
    // Who makes a pod does not choose its sources.
    let pod = scene.stranger.manifest(&[("app", "stranger")], &[]);
    scene.testbed.put(&with_annotation(pod, "10.99.0.0/24,fd99::/64"))?;
    let _agents = scene.testbed.start_agents()?;

    let friend = scene.friend.addresses().into_iter().map(|address| address.to_string());
    let friend: Vec<_> = friend.collect();
    let granted = ["10.99.0.0", "10.99.0.7", "10.99.0.255", "fd99::7", "fd99::ffff:ffff:ffff:ffff"];
    let others = ["10.98.255.255", "10.99.1.0", "fd98::7", "fd99:0:0:1::", &friend[0], &friend[1]];
    assert_arrive(&all_under(&scene, &gateway, &granted)?, "from a gateway")?;
    assert_shut(&all_under(&scene, &gateway, &others)?)?;
    assert_shut(&all_under(&scene, &scene.stranger, &granted)?)?;

    // What cannot be read grants nothing, an address is a range of one, and then there is nothing at all.
    scene.testbed.put(&with_annotation(vpn.clone(), "10.99.0.0/33"))?;
    wait_shut(&all_under(&scene, &gateway, &granted)?)?;
    scene.testbed.put(&with_annotation(vpn.clone(), "10.98.0.1"))?;
    let single = all_under(&scene, &gateway, &["10.98.0.1"])?;
    wait_until(BOUND, || assert_arrived(&single))?;
    assert_shut(&all_under(&scene, &gateway, &["10.98.0.2"])?)?;
    scene.testbed.put(&vpn)?;
    wait_shut(&single)?;
    let own = gateway.addresses().into_iter().map(|address| address.to_string()).collect::<Vec<_>>();
    let own: Vec<_> = own.iter().map(String::as_str).collect();
    assert_arrive(&all_under(&scene, &gateway, &own)?, "from a gateway")
}

/// Something dropped for each reason, by name. Where one pod says that it is another's link address on a routed
/// link, or sends ARP, nobody but the node hears it.
fn spoofed(scene: &Scene) -> Result<Vec<(&'static str, Try)>> {
    let (from, open) = (&scene.stranger, &scene.open);
    let (wire, own, next_hop) = (Scene::wire(from)?, from.link_address(), scene.next_hop(from, open)?);
    let (ipv4, to4, friend) = (from.ipv4(), open.ipv4(), scene.friend.ipv4());
    let node = scene.server.node();
    let (of_node, tunnel) = (node.ipv4(), node.namespace().link_address("vxlan")?);
    let other = LinkAddress([0x02, 0xbb, 0, 0, 0, 1]);
    let friend_link = scene.friend.link_address();
    let target = scene.friend.namespace().link_local("eth0")?;
    let (own_local, to6) = (from.namespace().link_local("eth0")?.into(), open.ipv6());
    let gateway = scene.gateway(from)?;
    let udp = move |source, token| opening(Protocol::Udp, source, to4, PORT, token);
    let one = |reason, frame: Box<dyn Fn(lab::Token) -> Frame>| {
        (reason, Try::frames(reason, open, &wire, move |token| [frame(token)]))
    };
    Ok(vec![
        one("source", Box::new(move |token| Frame::of_packet(own, next_hop, &udp(friend, token)))),
        one("link_address", Box::new(move |token| Frame::of_packet(other, next_hop, &udp(ipv4, token)))),
        one(
            "arp",
            Box::new(move |token| {
                let sender = (friend_link, friend);
                Frame::arp((own, LinkAddress::BROADCAST), Operation::Reply, sender, sender, &token.bytes())
            }),
        ),
        one(
            "neighbour_discovery",
            Box::new(move |token| {
                let message = neighbour_advertisement(own_local, to6, target, own, &token.bytes());
                Frame::of_packet(own, next_hop, &Packet::icmp(own_local, to6, message))
            }),
        ),
        one(
            "tag",
            Box::new(move |token| Frame::of_packet(own, next_hop, &udp(ipv4, token)).tagged(VLAN, 0, 0)),
        ),
        one("ethertype", Box::new(move |token| Frame::new(own, next_hop, 0x88b5, &udp(ipv4, token).bytes()))),
        one(
            "tunnel",
            Box::new(move |token| {
                let inner = Frame::of_packet(other, tunnel, &udp(friend, token));
                let to = SocketAddr::new(of_node, 8472);
                let from = SocketAddr::new(ipv4, token.port());
                Frame::of_packet(own, gateway, &Packet::udp(from, to, &vxlan(42, &inner)))
            }),
        ),
    ])
}

fn doors(node: &Node) -> Result<Vec<Value>> {
    let status = status(node)?;
    status["doors"].as_array().cloned().with_context(|| format!("no doors in {status:#}"))
}

fn metric(agent: &Agent, what: &str, pod: &str, reason: &str) -> Result<u64> {
    let labels = format!(r#"namespace="shop",pod="{pod}",reason="{reason}""#);
    agent.metric(&format!("podfence_spoofed_{what}_total{{{labels}}}"))
}

fn status_metrics_and_log_show_what_was_dropped(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let agent = scene.testbed.start_agent("node-1")?;
    let node = scene.server.node();
    let of_node = [&scene.server, &scene.friend, &scene.stranger, &scene.jailed, &scene.open];
    let doors = || doors(node);
    for pod in of_node {
        let found = doors()?.into_iter().find(|door| door["pod"] == pod.name());
        let door = found.with_context(|| format!("{} has no door", pod.name()))?;
        assert_eq!(door["device"], pod.link(), "{door:#}");
    }
    assert_eq!(doors()?.len(), of_node.len());
    assert_eq!(status(node)?["without_door"], json!([]));
    assert_eq!(agent.metric("podfence_doors")?, 5);
    assert_eq!(agent.metric("podfence_pods_without_door")?, 0);

    let mut tries = spoofed(&scene)?;
    let world = scene.testbed.lab.world().namespace();
    let links = Links { from: world.link_address("lan")?, to: node.namespace().link_address("lan")? };
    let ends = (scene.friend.ipv4(), scene.open.ipv4(), PORT);
    let outside = Wire::open(world, "node1")?;
    tries
        .push(("elsewhere", open_by_frame("elsewhere", (&outside, links), ends, Protocol::Udp, &scene.open)));
    // On a routed link, a link address means nothing to others, and the node strips a tag.
    tries.retain(|(reason, _)| scene.bridged() || !["link_address", "tag"].contains(reason));
    let (reasons, tries): (Vec<_>, Vec<_>) = tries.into_iter().unzip();
    assert_shut(&tries)?;

    for reason in reasons {
        let pod = if reason == "elsewhere" { "friend" } else { "stranger" };
        // What stays unseen is sent twice.
        // Counters are read from the kernel at most once a second.
        let packets = wait_until(BOUND, || {
            let packets = metric(&agent, "packets", pod, reason)?;
            ensure!(packets == 2, "{packets} packets: {reason}");
            Ok(packets)
        })?;
        let counted = json!({"packets": packets, "bytes": metric(&agent, "bytes", pod, reason)?});
        let door = doors()?.into_iter().find(|door| door["pod"] == format!("shop/{pod}"));
        let door = door.with_context(|| format!("{pod} has no door"))?;
        assert_eq!(door["spoofed"][reason], counted, "{reason}: {door:#}");
        wait_until(BOUND, || {
            let log = agent.denials()?;
            let words = ["spoofed", reason, &format!("shop/{pod}")];
            let logged = log.iter().any(|line| words.iter().all(|word| line.contains(word)));
            ensure!(logged, "nothing about {reason}: {log:#?}");
            Ok(())
        })?;
    }
    let text = node.namespace().feed(&program("podfence-controller")?.to_string_lossy(), &["status"], "")?;
    for word in ["shop/stranger", &*scene.stranger.link()] {
        assert!(text.contains(word), "{text}");
    }
    Ok(())
}

/// The tables of a node that the agent has made.
fn tables(node: &Node) -> Result<Vec<String>> {
    let tables = node.namespace().feed("nft", &["list", "tables"], "")?;
    let own = tables.lines().filter_map(|line| line.strip_prefix("table ")?.strip_suffix(" podfence"));
    let mut own: Vec<_> = own.map(str::to_owned).collect();
    own.sort();
    Ok(own)
}

fn without_doors_there_are_none(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let node = scene.server.node();
    let friend = scene.friend.ipv4().to_string();
    let tries = [under(&scene, &scene.stranger, &friend)?];
    // Those of the agent before it are taken away.
    scene.testbed.start_agent("node-1")?.kill();
    assert_eq!(tables(node)?, ["inet", "netdev"]);
    assert_shut(&tries)?;
    let agent = scene.testbed.start_agent_with("node-1", &["--no-doors"])?;
    assert_eq!(tables(node)?, ["inet"]);
    assert_arrive(&tries, "with --no-doors")?;
    assert_eq!(agent.metric("podfence_doors")?, 0);
    assert_eq!(agent.metric("podfence_pods_without_door")?, 0, "no door is looked for");
    Ok(())
}

/// A pod of the node by its object, whose address is routed to the LAN.
fn a_pod_without_a_door_is_reported(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let (node, lab) = (scene.server.node(), &scene.testbed.lab);
    let address: IpAddr = "10.244.1.200".parse()?;
    lab.add_world_address(address)?;
    node.namespace().ip(&format!("route add {address} via {}\n", lab.world().ipv4()))?;
    let ghost = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "ghost", "labels": {"app": "ghost"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "lab"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    });
    scene.testbed.put(&ghost)?;
    let (from, gateway) = (&scene.stranger, scene.gateway(&scene.stranger)?);
    let (wire, own, source) = (Scene::wire(from)?, from.link_address(), from.ipv4());
    let world = lab.world().clone();
    let to_ghost = [Try::frames("stranger -> ghost", &world, &wire, move |token| {
        [Frame::of_packet(own, gateway, &opening(Protocol::Udp, source, address, PORT, token))]
    })];
    let links =
        Links { from: world.namespace().link_address("lan")?, to: node.namespace().link_address("lan")? };
    let ends = (address, scene.open.ipv4(), PORT);
    let outside = Wire::open(world.namespace(), "node1")?;
    let from_ghost = [open_by_frame("ghost", (&outside, links), ends, Protocol::Udp, &scene.open)];

    assert_arrive(&to_ghost, "without agents")?;
    assert_arrive(&from_ghost, "without agents")?;
    let agent = scene.testbed.start_agent("node-1")?;
    let reported = json!([{"name": "shop/ghost", "address": address}]);
    assert_eq!(status(node)?["without_door"], reported);
    assert_eq!(agent.metric("podfence_pods_without_door")?, 1);
    assert_arrive(&to_ghost, "without --require-doors")?;
    assert_arrive(&from_ghost, "without --require-doors")?;
    let isolate = policy("shop", "ghost", &json!({"podSelector": {"matchLabels": {"app": "ghost"}}}));
    scene.testbed.put(&isolate)?;
    wait_shut(&to_ghost)?;
    scene.testbed.delete(&isolate)?;
    wait_until(BOUND, || assert_arrived(&to_ghost))?;
    agent.kill();

    let agent = scene.testbed.start_agent_with("node-1", &["--require-doors"])?;
    assert_eq!(status(node)?["without_door"], reported);
    assert_eq!(agent.metric("podfence_pods_without_door")?, 1);
    assert_shut(&to_ghost)?;
    assert_shut(&from_ghost)?;
    // Who has a door is as free as before.
    let probe = Probe::new(&scene.stranger, scene.open.ipv4(), PORT, Protocol::Tcp);
    assert_eq!(scene.testbed.disagreements(&[probe])?, Vec::<String>::new());
    scene.testbed.delete(&ghost)?;
    wait_until(BOUND, || assert_arrived(&to_ghost))?;
    assert_eq!(agent.metric("podfence_pods_without_door")?, 0);
    Ok(())
}

fn assert_arrived(tries: &[Try]) -> Result<()> {
    ensure!(!arrivals(tries)?.contains(&false), "not all arrived: {tries:?}");
    Ok(())
}

fn both_tables_stay_until_they_are_cleaned_up(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let node = scene.server.node();
    let tries = [under(&scene, &scene.stranger, &scene.friend.ipv4().to_string())?];
    scene.testbed.start_agent("node-1")?.stop(Duration::from_secs(1))?;
    assert_eq!(tables(node)?, ["inet", "netdev"]);
    assert_shut(&tries)?;
    node.namespace().nft("add table netdev others; add table ip podfence\n")?;
    node.namespace().feed(&program("podfence-controller")?.to_string_lossy(), &["cleanup"], "")?;
    assert_eq!(tables(node)?, ["ip"], "only the agent's tables go");
    assert_arrive(&tries, "after cleanup")
}

/// It has the friend's addresses on its device, and has told everybody so when the agent comes.
fn an_agent_that_starts_beside_a_liar_believes_the_right_one(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let (liar, friend, node) = (&scene.stranger, &scene.friend, scene.server.node());
    for address in friend.addresses() {
        let nodad = if address.is_ipv6() { " nodad" } else { "" };
        liar.namespace().ip(&format!("address add {address} dev eth0{nodad}\n"))?;
    }
    let (own, ipv4, wire) = (liar.link_address(), friend.ipv4(), Scene::wire(liar)?);
    for from in [own, friend.link_address()] {
        let sender = (from, ipv4);
        let frame = Frame::arp((from, LinkAddress::BROADCAST), Operation::Reply, sender, (own, ipv4), &[]);
        wire.send(&frame)?;
    }
    let sources: Vec<_> = friend.addresses().into_iter().map(|address| address.to_string()).collect();
    let lies = all_under(&scene, liar, &sources.iter().map(String::as_str).collect::<Vec<_>>())?;
    assert_arrive(&lies, "without agents")?;
    let _agents = scene.testbed.start_agents()?;
    let door = |pod: &Pod| -> Result<Value> {
        let door = doors(node)?.into_iter().find(|door| door["pod"] == pod.name());
        Ok(door.with_context(|| format!("{} has no door", pod.name()))?["device"].clone())
    };
    assert_eq!(door(friend)?, friend.link());
    assert_eq!(door(liar)?, liar.link());
    assert_shut(&lies)?;
    for to in scene.server.addresses() {
        let probe = Probe::new(friend, to, PORT, Protocol::Tcp);
        scene.testbed.lab.wait_for(&probe, lab::Outcome::Allowed, BOUND)?;
    }
    Ok(())
}

/// The events of a reason on a pod.
fn events(plane: &ControlPlane, pod: &str, reason: &str) -> Result<Vec<Value>> {
    let selector = format!("involvedObject.name={pod},reason={reason}");
    let all = plane.api().get(&format!("/api/v1/namespaces/shop/events?fieldSelector={selector}"))?;
    Ok(all["items"].as_array().context("no list")?.clone())
}

#[test]
fn a_pod_gets_an_event_of_what_it_spoofs_and_of_its_missing_door() -> Result<()> {
    if !is_there(ControlPlane::available()) {
        return Ok(());
    }
    let scene = Scene::raise(Topology::Routed)?;
    let world = scene.testbed.lab.world();
    let plane = ControlPlane::start(world.namespace(), world.ipv4())?;
    plane.api().put(&namespace("shop", &json!({})))?;
    for object in scene.testbed.objects()? {
        plane.api().put(&object)?;
    }
    let address = "10.244.1.200";
    plane.api().put(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "ghost"},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "lab"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }))?;
    let kubeconfig = plane.kubeconfig(User::Agent)?;
    let arguments = ["--kubeconfig".as_ref(), kubeconfig.as_os_str()];
    let mut agent = Agent::start_with(scene.server.node(), arguments)?;
    agent.wait_ready(BOUND)?;
    assert_shut(&[under(&scene, &scene.stranger, &scene.friend.ipv4().to_string())?])?;
    for (pod, reason) in [("stranger", "Spoofed"), ("ghost", "DoorNotFound")] {
        let event = wait_until(BOUND, || {
            let events = events(&plane, pod, reason)?;
            ensure!(events.len() == 1, "{events:#?}\n{}", agent.log()?);
            Ok(events[0].clone())
        })?;
        assert_eq!(event["type"], "Warning", "{event:#}");
    }
    assert_eq!(events(&plane, "friend", "Spoofed")?, Vec::<Value>::new());
    Ok(())
}

/// Where no pod has anything to spoof with, nothing is dropped.
#[test]
fn no_door_counts_what_is_its_pods() -> Result<()> {
    for topology in Topology::ALL {
        let mut testbed = Testbed::new(topology, Underlay::Vxlan, &["node-1", "node-2"])?;
        let (client, server) =
            (testbed.pod("node-1", "shop/client", &[PORT])?, testbed.pod("node-1", "shop/a", &[PORT])?);
        let far = testbed.pod("node-2", "shop/far", &[PORT])?;
        let _agents = testbed.start_agents()?;
        let mut probes = Vec::new();
        for (from, to) in [(&client, &server), (&client, &far), (&far, &server)] {
            for protocol in Protocol::ALL {
                probes.extend(to.addresses().into_iter().map(|to| Probe::new(from, to, PORT, protocol)));
            }
        }
        assert_eq!(testbed.disagreements(&probes)?, Vec::<String>::new());
        for door in doors(client.node())? {
            let counts = door["spoofed"].as_object().into_iter().flatten();
            let dropped: Vec<_> = counts.filter(|(_, count)| count["packets"] != 0).collect();
            assert!(dropped.is_empty(), "{topology:?}: {door:#}");
        }
    }
    Ok(())
}
