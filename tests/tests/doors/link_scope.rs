//! Destinations that are no pod's: link-local, multicast, broadcast. Only a bridge passes them on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::Result;
use lab::frame::Frame;
use lab::testbed::cluster_policy;
use lab::{LinkAddress, Pod, Protocol, Topology, Try, new_port};

use serde_json::{Value, json};

use crate::scene::{
    Links, OTHER_PORT, PORT, Scene, assert_arrive, assert_shut, ipv6_of, open_by_frame, opening,
    solicited_node,
};

/// Groups and broadcast addresses; a port of any of them belongs to everybody who listens.
const GROUPS: [&str; 11] = [
    "10.244.1.255",
    "255.255.255.255",
    "224.0.0.1",
    "224.0.0.251",
    "239.1.2.3",
    "ff01::1",
    "ff02::1",
    "ff02::fb",
    "ff05::1:3",
    "ff0e::101",
    "ff12::7",
];

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[3] == 255)
}

/// What a destination is, the packet's, and that of its frame.
type Destination = (&'static str, IpAddr, LinkAddress);

/// As a pod's own stack writes them.
fn ordinary_destinations(to: &Pod) -> Result<Vec<Destination>> {
    let link_local = IpAddr::V6(to.namespace().link_local("eth0")?);
    let mut all = vec![("link-local", link_local, to.link_address())];
    for group in GROUPS {
        let group: IpAddr = group.parse()?;
        let link = if is_broadcast(group) { LinkAddress::BROADCAST } else { LinkAddress::of_group(group) };
        all.push(("group", group, link));
    }
    let solicited = solicited_node(ipv6_of(to)?).into();
    all.push(("solicited node", solicited, LinkAddress::of_group(solicited)));
    Ok(all)
}

/// As only those write them who make frames by hand.
fn odd_destinations(to: &Pod) -> Result<Vec<Destination>> {
    let mut all = Vec::new();
    for group in GROUPS {
        all.push(("group in a frame to the pod", group.parse()?, to.link_address()));
    }
    for (what, link) in [
        ("broadcast frame", LinkAddress::BROADCAST),
        ("frame to a group", LinkAddress::of_group("ff02::1".parse()?)),
        ("frame to a group", LinkAddress::of_group("224.0.0.1".parse()?)),
        ("frame to an unknown link address", LinkAddress([0x02, 0xbb, 0, 0, 0, 2])),
        // Which a bridge without a spanning tree floods.
        ("frame to bridges", LinkAddress([0x01, 0x80, 0xc2, 0, 0, 0])),
        // Which every bridge keeps unless it is told otherwise.
        ("frame to link layer discovery", LinkAddress([0x01, 0x80, 0xc2, 0, 0, 0x0e])),
    ] {
        all.extend(to.addresses().into_iter().map(|address| (what, address, link)));
    }
    Ok(all)
}

fn all_destinations(to: &Pod) -> Result<Vec<Destination>> {
    Ok([ordinary_destinations(to)?, odd_destinations(to)?].concat())
}

/// All ways from a pod to another, from each of its own addresses.
fn tries(
    from: &Pod,
    (to, destinations): (&Pod, &[Destination]),
    port: u16,
    protocols: &[Protocol],
) -> Result<Vec<Try>> {
    let wire = Scene::wire(from)?;
    let link_local = IpAddr::V6(from.namespace().link_local("eth0")?);
    let mut sources = from.addresses();
    sources.push(link_local);
    let mut tries = Vec::new();
    let links = |to| Links { from: from.link_address(), to };
    for (what, address, link) in destinations.iter().copied() {
        for source in sources.iter().filter(|source| source.is_ipv4() == address.is_ipv4()) {
            let name = format!("{} by {what} {link}", from.name());
            tries.extend(protocols.iter().map(|protocol| {
                open_by_frame(&name, (&wire, links(link)), (*source, address, port), *protocol, to)
            }));
        }
    }
    Ok(tries)
}

fn scene() -> Result<Scene> {
    let scene = Scene::raise(Topology::Bridge)?;
    let node = scene.server.node().namespace();
    node.ip("link set pods type bridge group_fwd_mask 0xfff8\n")?;
    Ok(scene)
}

/// All ways, odd ones included.
fn all(from: &Pod, to: &Pod, port: u16, protocols: &[Protocol]) -> Result<Vec<Try>> {
    let mut all = tries(from, (to, &all_destinations(to)?), port, protocols)?;
    let ends = (from.namespace().link_local("eth0")?.into(), to.ipv6(), port);
    let (wire, links) = (Scene::wire(from)?, Links { from: from.link_address(), to: to.link_address() });
    let of_protocol = |protocol| open_by_frame("from link-local", (&wire, links), ends, protocol, to);
    all.extend(protocols.iter().copied().map(of_protocol));
    Ok(all)
}

/// The ways that a pod's own stack goes.
fn ordinary(from: &Pod, to: &Pod, port: u16, protocols: &[Protocol]) -> Result<Vec<Try>> {
    tries(from, (to, &ordinary_destinations(to)?), port, protocols)
}

#[test]
fn nothing_reaches_an_isolated_pod() -> Result<()> {
    let scene = scene()?;
    scene.assert_shut(&all(&scene.stranger, &scene.server, PORT, &Protocol::ALL)?)
}

#[test]
fn nothing_leaves_an_isolated_pod() -> Result<()> {
    let scene = scene()?;
    scene.assert_shut(&all(&scene.jailed, &scene.open, PORT, &Protocol::ALL)?)
}

/// Of pods that no NetworkPolicy isolates.
#[test]
fn what_cluster_policies_deny_passes_no_door() -> Result<()> {
    let scene = scene()?;
    let of_app = |app: &str| json!({"pods": {"podSelector": {"matchLabels": {"app": app}}}});
    let rule = |direction: &str, peers: Value| json!([{"action": "Deny", direction: peers}]);
    let everywhere = json!([{"networks": ["0.0.0.0/0", "::/0"]}]);
    for (name, subject, direction, rules) in [
        ("into", "open", "ingress", rule("from", json!([of_app("stranger")]))),
        ("out", "friend", "egress", rule("to", everywhere)),
    ] {
        let spec = json!({"tier": "Admin", "priority": 1, "subject": of_app(subject), direction: rules});
        scene.testbed.put(&cluster_policy("v1beta1", name, &spec))?;
    }
    let mut tries = all(&scene.stranger, &scene.open, PORT, &Protocol::ALL)?;
    tries.extend(all(&scene.friend, &scene.stranger, PORT, &Protocol::ALL)?);
    scene.assert_shut(&tries)
}

/// Where one end lets it pass, the other decides still.
#[test]
fn nothing_goes_from_one_isolated_pod_to_another() -> Result<()> {
    let scene = scene()?;
    scene.assert_shut(&all(&scene.jailed, &scene.server, PORT, &[Protocol::Udp, Protocol::Tcp])?)
}

#[test]
fn pods_that_nothing_isolates_reach_each_other() -> Result<()> {
    let scene = scene()?;
    let _agents = scene.testbed.start_agents()?;
    let mut both = ordinary(&scene.stranger, &scene.open, PORT, &Protocol::ALL)?;
    both.extend(ordinary(&scene.open, &scene.stranger, OTHER_PORT, &Protocol::ALL)?);
    assert_arrive(&both, "with agents")
}

/// What is admitted on a port is so by whatever destination, and on no other port.
#[test]
fn a_friend_is_let_in_where_a_rule_says_so() -> Result<()> {
    let scene = scene()?;
    let _agents = scene.testbed.start_agents()?;
    let (friend, server) = (&scene.friend, &scene.server);
    assert_arrive(&ordinary(friend, server, PORT, &[Protocol::Udp, Protocol::Tcp])?, "with agents")?;
    assert_shut(&all(friend, server, OTHER_PORT, &[Protocol::Udp, Protocol::Tcp])?)?;
    assert_shut(&all(friend, server, PORT, &[Protocol::Sctp, Protocol::Icmp])?)
}

/// Under the friend's addresses; whoever lets the friend in by such a destination must know it by more than these.
#[test]
fn nobody_is_let_in_as_the_friend() -> Result<()> {
    let scene = scene()?;
    let (attacker, friend, server) = (&scene.stranger, &scene.friend, &scene.server);
    let wire = Scene::wire(attacker)?;
    let mut sources = friend.addresses();
    sources.push(friend.namespace().link_local("eth0")?.into());
    let mut tries = Vec::new();
    for (what, address, link) in all_destinations(server)? {
        for source in sources.iter().filter(|source| source.is_ipv4() == address.is_ipv4()) {
            for from in [attacker.link_address(), friend.link_address()] {
                let name = format!("by {what} {link} from {from}");
                let way = (&wire, Links { from, to: link });
                tries.push(open_by_frame(&name, way, (*source, address, PORT), Protocol::Udp, server));
            }
        }
    }
    scene.assert_shut(&tries)
}

/// A later fragment carries no ports, and nothing on a link puts it together before it is judged.
#[test]
fn fragments_reach_no_isolated_pod() -> Result<()> {
    let scene = scene()?;
    let mut tries = Vec::new();
    for (from, to) in [(&scene.stranger, &scene.server), (&scene.jailed, &scene.open)] {
        let wire = Scene::wire(from)?;
        let link_local = IpAddr::V6(from.namespace().link_local("eth0")?);
        for (what, address, link) in all_destinations(to)? {
            let source = if address.is_ipv4() { from.ipv4() } else { link_local };
            let links = (from.link_address(), link);
            let name = format!("{} by {what} {address} {link}", from.name());
            tries.push(Try::frames(name, to, &wire, move |token| {
                let fragments = opening(Protocol::Udp, source, address, PORT, token).fragments(8, token);
                let frames = fragments.iter().map(|piece| Frame::of_packet(links.0, links.1, piece));
                frames.collect::<Vec<_>>()
            }));
        }
    }
    scene.assert_shut(&tries)
}

/// The three ways that need no right at all, with sockets.
#[test]
fn sockets_reach_no_isolated_pod() -> Result<()> {
    let scene = scene()?;
    let ways = |from: &Pod, to: &Pod| -> Result<Vec<Try>> {
        let index = from.namespace().device_index("eth0")?;
        let link_local = to.namespace().link_local("eth0")?;
        let mut tries = Vec::new();
        for address in [
            SocketAddrV6::new(link_local, PORT, 0, index).into(),
            SocketAddrV6::new("ff02::1".parse()?, PORT, 0, index).into(),
            SocketAddr::from((Ipv4Addr::new(10, 244, 1, 255), PORT)),
        ] {
            let sender = from.clone();
            tries.push(Try::new(format!("{} -> {address}", from.name()), to, move |token| {
                let socket = sender.namespace().run(|| {
                    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    Ok(UdpSocket::bind(any)?)
                })?;
                socket.set_broadcast(true)?;
                socket.send_to(&token.bytes(), address)?;
                Ok(())
            }));
        }
        Ok(tries)
    };
    let mut tries = ways(&scene.stranger, &scene.server)?;
    tries.extend(ways(&scene.jailed, &scene.open)?);
    scene.assert_shut(&tries)?;

    let _agents = scene.testbed.start_agents()?;
    let connects = |from: &Pod, to: &Pod| -> Result<bool> {
        const BOUND: Duration = Duration::from_millis(600);
        let port = new_port();
        let listener = to.namespace().run(|| Ok(TcpListener::bind(("::", port))?))?;
        let scope = from.namespace().device_index("eth0")?;
        let address = SocketAddrV6::new(to.namespace().link_local("eth0")?, port, 0, scope);
        let connected =
            from.namespace().run(|| Ok(TcpStream::connect_timeout(&address.into(), BOUND).is_ok()));
        drop(listener);
        connected
    };
    assert!(!connects(&scene.stranger, &scene.server)?, "TCP into the isolated pod by link-local");
    assert!(!connects(&scene.jailed, &scene.open)?, "TCP out of the isolated pod by link-local");
    assert!(connects(&scene.stranger, &scene.open)?, "TCP between pods that nothing isolates");
    Ok(())
}
