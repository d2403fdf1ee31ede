//! Doors of pods that are network namespaces.

mod node;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use controller::doors::Missing;
use policy_compiler::model::{PortNumber, Tunnel};

use crate::support::{in_namespace, ip, try_ip};
use node::{BRIDGE, Node, Space, link_address, name, routes};

const P: [&str; 2] = ["10.0.0.1", "fd00::1"];
const Q: [&str; 2] = ["10.0.0.2", "fd00::2"];

/// What the kernel makes of the link address of a pod.
fn link_local(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0044, 0x00ff, 0xfe00, number)
}

/// Two pods, `p` behind `v1` and `q` behind `v2`, that both the API and the network know.
fn two_pods(mut node: Node, bridged: bool) -> (Node, [Space; 2]) {
    let spaces = [Space::new(), Space::new()];
    spaces[0].plug("v1", 1, &P, bridged);
    spaces[1].plug("v2", 2, &Q, bridged);
    node.put("p", &P);
    node.put("q", &Q);
    node.wait_for(&[("p", Some("v1")), ("q", Some("v2"))]);
    (node, spaces)
}

fn names(devices: &BTreeSet<std::sync::Arc<str>>) -> Vec<&str> {
    devices.iter().map(|device| &**device).collect()
}

#[test]
fn pods_have_the_doors_that_their_routes_lead_to() {
    in_namespace(|| {
        let (mut node, _spaces) = two_pods(Node::new(), false);
        node.wait_until(|node| {
            let door = node.door("p").unwrap();
            (door.link_address, &door.link_local) == (Some(link_address(1)), &[link_local(1)].into())
        });
        assert!(!node.door("p").unwrap().bridged);
        ip(&routes("v2", &P));
        ip(&routes("v1", &Q));
        node.wait_for(&[("p", Some("v2")), ("q", Some("v1"))]);
        assert_eq!(node.door("p").unwrap().link_address, Some(link_address(2)));
    });
}

#[test]
fn pods_at_a_bridge_have_the_ports_behind_which_their_addresses_are() {
    in_namespace(|| {
        let (mut node, _spaces) = two_pods(Node::with_bridge(), true);
        node.wait_until(|node| node.door("q").unwrap().link_local == [link_local(2)].into());
        let door = node.door("q").unwrap();
        assert_eq!((door.bridged, door.link_address), (true, Some(link_address(2))));
        assert!(node.finder.missing().is_empty());
        assert!(node.finder.retry_after().is_some_and(|pause| pause <= Duration::from_secs(10)));
    });
}

#[test]
fn updates_that_concern_no_pod_of_the_node_change_nothing() {
    in_namespace(|| {
        let (mut node, _spaces) = two_pods(Node::new(), false);
        node.wait_until(|node| node.finder.retry_after().is_none_or(|pause| pause > Duration::from_secs(1)));
        let remote = policy_compiler::model::Pod::new(name("remote"));
        node.finder.note(&name("remote"), Some(&remote));
        node.finder.note(&name("remote"), None);
        assert!(!node.finder.find().unwrap());
        node.finder.note(&name("p"), None);
        assert!(node.finder.find().unwrap());
        assert_eq!((node.device("p"), names(&node.doors().elsewhere)), (None, vec!["v1"]));
    });
}

#[test]
fn one_who_shows_his_friends_address_gets_his_own_door_only() {
    in_namespace(|| {
        let (mut node, spaces) = two_pods(Node::with_bridge(), true);
        spaces[0].set(&[P, Q].concat());
        // An agent that starts now, and one that has seen how it was before.
        for node in [&mut Node::new(), &mut node] {
            node.put("p", &P);
            node.put("q", &Q);
            node.finder.links_changed();
            node.wait_for(&[("p", Some("v1")), ("q", Some("v2"))]);
        }
        // The friend begins anew, while the liar does without his own address.
        spaces[0].set(&Q);
        ip("link delete v2");
        node.finder.note(&name("q"), None);
        node.find();
        node.put("q", &Q);
        node.find();
        assert_eq!((node.device("p"), node.missing("q")), (Some("v1"), Some(Missing::Contested)));
        spaces[1].plug("v3", 2, &Q, true);
        node.wait_for(&[("p", Some("v1")), ("q", Some("v3"))]);
    });
}

#[test]
fn what_an_agent_before_knew_decides_where_nothing_else_can() {
    in_namespace(|| {
        let (_node, spaces) = two_pods(Node::with_bridge(), true);
        spaces[0].set(&Q);
        let mut node = Node::new();
        node.put("p", &P);
        node.put("q", &Q);
        node.find();
        assert_eq!(
            (node.missing("p"), node.missing("q")),
            (Some(Missing::NotFound), Some(Missing::Contested))
        );
        let mut node = Node::new();
        node.put("p", &P);
        node.put("q", &Q);
        node.finder.recall([(name("p"), "v1".into()), (name("gone"), "v2".into()), (name("q"), "v9".into())]);
        node.find();
        assert_eq!((node.device("p"), node.device("q")), (Some("v1"), Some("v2")));
    });
}

#[test]
fn pods_that_swap_addresses_end_right_in_whatever_order_it_becomes_known() {
    /// What happens, in any order: the API tells, and each pod's end gets the other's addresses.
    const STEPS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    in_namespace(|| {
        let (mut node, spaces) = two_pods(Node::with_bridge(), true);
        let mut now = [P, Q];
        for (round, steps) in STEPS.into_iter().cycle().take(24).enumerate() {
            let next = [now[1], now[0]];
            for step in steps {
                match step {
                    0 => {
                        node.put("p", &next[0]);
                        node.find();
                        node.put("q", &next[1]);
                    }
                    _ if round % 2 == 0 => spaces[step - 1].set(&next[step - 1]),
                    // For a moment it shows all, and at the end none.
                    _ => {
                        spaces[step - 1].set(&[P, Q].concat());
                        node.wait_until(|_| true);
                        spaces[step - 1].set(&[]);
                        node.find();
                        spaces[step - 1].set(&next[step - 1]);
                    }
                }
                // Sometimes the finder looks in between, sometimes it has settled, sometimes it sees the end only.
                match round % 3 {
                    0 => drop(node.find()),
                    1 => node.wait_until(|node| {
                        node.finder.retry_after().is_some_and(|pause| pause > Duration::from_millis(100))
                    }),
                    _ => {}
                }
            }
            node.wait_for(&[("p", Some("v1")), ("q", Some("v2"))]);
            now = next;
        }
    });
}

#[test]
fn a_door_that_is_replaced_is_followed() {
    for bridged in [false, true] {
        in_namespace(|| {
            let (mut node, spaces) =
                two_pods(if bridged { Node::with_bridge() } else { Node::new() }, bridged);
            ip("link delete v1");
            node.wait_until(|node| node.missing("p") == Some(Missing::NotFound));
            assert!(node.finder.retry_after().is_some_and(|pause| pause <= Duration::from_millis(20)));
            spaces[0].plug("v1", 3, &P, bridged);
            node.wait_for(&[("p", Some("v1")), ("q", Some("v2"))]);
            assert_eq!(node.door("p").unwrap().link_address, Some(link_address(3)));
            ip("link set v1 name v4");
            node.wait_for(&[("p", Some("v4")), ("q", Some("v2"))]);
        });
    }
}

#[test]
fn no_door_is_known_by_what_is_anothers() {
    in_namespace(|| {
        let (mut node, spaces) = two_pods(Node::with_bridge(), true);
        node.wait_until(|node| ["p", "q"].iter().all(|pod| !node.door(pod).unwrap().link_local.is_empty()));
        ip(&format!("address add fe80::1/64 dev {BRIDGE} nodad"));
        spaces[0].ip(&format!(
            "link set eth0 address {}\n\
             address add {}/64 dev eth0 nodad\n\
             address add fe80::1/64 dev eth0 nodad\n\
             address add fe80::99/64 dev eth0 nodad",
            link_address(2),
            link_local(2)
        ));
        node.finder.refresh("v1");
        node.find();
        let door = node.door("p").unwrap();
        assert_eq!(door.link_address, Some(link_address(1)));
        assert!(door.link_local.contains(&Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99)), "{door:?}");
        assert!(!door.link_local.contains(&link_local(2)));
        assert!(!door.link_local.contains(&Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)));
        // When the other is gone, what it was known by is free.
        node.finder.note(&name("q"), None);
        node.find();
        let door = node.door("p").unwrap();
        assert_eq!(door.link_address, Some(link_address(2)));
        assert!(door.link_local.contains(&link_local(2)));
    });
}

#[test]
fn devices_that_are_no_doors_are_elsewhere() {
    in_namespace(|| {
        let (mut node, _spaces) = two_pods(Node::with_bridge(), true);
        let other = Space::new();
        other.plug("unknown", 9, &["10.0.0.9"], true);
        ip("link add uplink type veth peer name far\n\
            link add other type bridge\n\
            link add quiet type ifb\n\
            link add tap type veth peer name far2\n\
            link set uplink up");
        let _ = try_ip("link add dull type dummy");
        node.wait_until(|node| node.doors().elsewhere.contains("tap"));
        let expected = ["far", "far2", "other", "tap", "unknown", "uplink"];
        assert_eq!(names(&node.doors().elsewhere), expected);
        node.finder.note(&name("p"), None);
        node.finder.note(&name("q"), None);
        node.find();
        let mut expected = [&expected[..], &[BRIDGE, "v1", "v2"]].concat();
        expected.sort_unstable();
        assert_eq!(names(&node.doors().elsewhere), expected);
    });
}

#[test]
fn tunnels_count_while_they_are_up() {
    let udp = |port| Tunnel::Udp(PortNumber::new(port).unwrap());
    let (ipip, ipv6, gre) = (Tunnel::Protocol(4), Tunnel::Protocol(41), Tunnel::Protocol(47));
    for (device, expected) in [
        ("vxlan id 1 dstport 4789", vec![udp(4789)]),
        ("vxlan external dstport 8472", vec![udp(8472)]),
        ("geneve external", vec![udp(6081)]),
        ("ipip external", vec![ipip]),
        ("ipip remote 192.0.2.1 local 192.0.2.2 encap fou encap-dport 5555", vec![ipip, udp(5555)]),
        ("sit remote 192.0.2.1 local 192.0.2.2", vec![ipip, ipv6]),
        ("gre external", vec![gre]),
        ("gretap external", vec![gre]),
        ("ip6tnl external", vec![ipip, ipv6]),
        ("ip6gre external", vec![gre]),
    ] {
        in_namespace(|| {
            if try_ip(&format!("link add name tunnel type {device}")).is_err() {
                return eprintln!("left out: this kernel has no {device}");
            }
            let mut node = Node::new();
            node.find();
            assert!(node.doors().tunnels.is_empty(), "{:?}", node.doors());
            ip("link set tunnel up");
            node.wait_until(|node| node.doors().tunnels == expected.iter().copied().collect());
            assert!(node.doors().elsewhere.contains("tunnel"));
            ip("link set tunnel down");
            node.wait_until(|node| node.doors().tunnels.is_empty());
        });
    }
}
