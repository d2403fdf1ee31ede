use std::net::Ipv4Addr;

use Finding::{Door, Missing as Lacks, Still};
use Missing::{Contested, NotFound};

use super::*;

/// The bridge whose ports all devices are, except those from [`ROUTED`] on.
const BRIDGE: u32 = 100;
const OTHER_BRIDGE: u32 = 101;
const ROUTED: u32 = 50;

/// The route to 10.0.0.n leads to the bridge.
fn at(number: u8) -> (u8, Lead) {
    (number, Lead::Bridge(BRIDGE))
}

fn routed(number: u8, device: u32) -> (u8, Lead) {
    (number, Lead::Device(device))
}

fn lost(number: u8) -> (u8, Lead) {
    (number, Lead::Nowhere)
}

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

/// A pod's name, its addresses, and its door so far.
type Known<'a> = (&'a str, &'a [(u8, Lead)], Option<u32>);

/// Pods by name, each with addresses and the door so far; what devices show; and what comes out.
fn check(what: &str, pods: &[Known<'_>], devices: &[(u32, &[u8])], expected: &[(&str, Finding)]) {
    let name = |name: &str| ObjectName::new("default", name);
    let names: Vec<_> = pods.iter().map(|(pod, ..)| name(pod)).collect();
    let claim = |(_, addresses, held): &Known<'_>| Claim {
        addresses: addresses.iter().map(|(number, lead)| (address(*number), *lead)).collect(),
        held: *held,
    };
    let shown: Vec<BTreeSet<_>> =
        devices.iter().map(|(_, shows)| shows.iter().copied().map(address).collect()).collect();
    let bridge = |device| (device < ROUTED).then_some(BRIDGE);
    let candidates = devices.iter().zip(&shown);
    let candidates =
        candidates.map(|((device, _), shows)| (*device, Candidate { bridge: bridge(*device), shows }));
    let findings = assign(&names.iter().zip(pods.iter().map(claim)).collect(), &candidates.collect());
    let findings: BTreeMap<_, _> = findings.into_iter().map(|(name, found)| (name.clone(), found)).collect();
    let expected = expected.iter().map(|(pod, finding)| (name(pod), *finding)).collect();
    assert_eq!(findings, expected, "{what}");
}

#[test]
fn pods_at_a_bridge_are_told_apart_by_what_their_ends_show() {
    check(
        "each shows its own",
        &[("p", &[at(1)], None), ("q", &[at(2)], None)],
        &[(1, &[1]), (2, &[2]), (3, &[])],
        &[("p", Door(1)), ("q", Door(2))],
    );
    check(
        "one of two addresses is enough",
        &[("p", &[at(1), at(11)], None)],
        &[(1, &[11]), (2, &[2])],
        &[("p", Door(1))],
    );
    check("nobody shows it", &[("p", &[at(1)], None)], &[(1, &[]), (2, &[2])], &[("p", Lacks(NotFound))]);
    check(
        "a port of another bridge shows it",
        &[("p", &[(1, Lead::Bridge(OTHER_BRIDGE))], None)],
        &[(1, &[1])],
        &[("p", Lacks(NotFound))],
    );
    check(
        "no route leads there",
        &[("p", &[lost(1)], None)],
        &[(1, &[1]), (ROUTED, &[1])],
        &[("p", Lacks(NotFound))],
    );
}

#[test]
fn routes_go_before_what_is_shown() {
    check(
        "each has a route",
        &[("p", &[routed(1, ROUTED)], None), ("q", &[routed(2, ROUTED + 1)], None)],
        &[(ROUTED, &[]), (ROUTED + 1, &[1, 2])],
        &[("p", Door(ROUTED)), ("q", Door(ROUTED + 1))],
    );
    check(
        "a route and a liar at a bridge",
        &[("p", &[routed(1, ROUTED), at(11)], None)],
        &[(ROUTED, &[]), (1, &[1, 11])],
        &[("p", Door(ROUTED))],
    );
    check(
        "two routes to different devices",
        &[("p", &[routed(1, ROUTED), routed(11, ROUTED + 1)], None)],
        &[(ROUTED, &[]), (ROUTED + 1, &[])],
        &[("p", Lacks(Contested))],
    );
    check(
        "of two routes one has moved already",
        &[("p", &[routed(1, ROUTED), routed(11, ROUTED + 1)], Some(ROUTED))],
        &[(ROUTED, &[]), (ROUTED + 1, &[])],
        &[("p", Door(ROUTED))],
    );
    check(
        "the route has moved",
        &[("p", &[routed(1, ROUTED + 1)], Some(ROUTED))],
        &[(ROUTED, &[]), (ROUTED + 1, &[])],
        &[("p", Door(ROUTED + 1))],
    );
    check(
        "the route is gone for a moment",
        &[("p", &[lost(1)], Some(ROUTED))],
        &[(ROUTED, &[])],
        &[("p", Still(ROUTED))],
    );
    check(
        "routes to two pods lead to one device",
        &[("p", &[routed(1, ROUTED)], None), ("q", &[routed(2, ROUTED)], None)],
        &[(ROUTED, &[])],
        &[("p", Lacks(Contested)), ("q", Lacks(Contested))],
    );
    check(
        "the same, and it was the door of one",
        &[("p", &[routed(1, ROUTED)], None), ("q", &[routed(2, ROUTED)], Some(ROUTED))],
        &[(ROUTED, &[])],
        &[("p", Lacks(Contested)), ("q", Door(ROUTED))],
    );
}

#[test]
fn a_liar_gains_nothing() {
    check(
        "at the start, its own address and its friend's",
        &[("liar", &[at(1)], None), ("friend", &[at(2)], None)],
        &[(1, &[1, 2]), (2, &[2])],
        &[("liar", Door(1)), ("friend", Door(2))],
    );
    check(
        "at the start, a chain of them",
        &[("p", &[at(1)], None), ("q", &[at(2)], None), ("r", &[at(3)], None)],
        &[(1, &[1, 2, 3]), (2, &[2, 3]), (3, &[3])],
        &[("p", Door(1)), ("q", Door(2)), ("r", Door(3))],
    );
    check(
        "at the start, the addresses of two friends instead of its own",
        &[("liar", &[at(1)], None), ("q", &[at(2)], None), ("r", &[at(3)], None)],
        &[(1, &[2, 3]), (2, &[2]), (3, &[3])],
        &[("liar", Lacks(NotFound)), ("q", Door(2)), ("r", Door(3))],
    );
    check(
        "at the start, its friend's address instead of its own",
        &[("liar", &[at(1)], None), ("friend", &[at(2)], None)],
        &[(1, &[2]), (2, &[2])],
        &[("liar", Lacks(NotFound)), ("friend", Lacks(Contested))],
    );
    check(
        "two that show the same two addresses",
        &[("p", &[at(1)], None), ("q", &[at(2)], None)],
        &[(1, &[1, 2]), (2, &[1, 2])],
        &[("p", Lacks(Contested)), ("q", Lacks(Contested))],
    );
    check(
        "one device shows the addresses of two pods",
        &[("p", &[at(1)], None), ("q", &[at(2)], None)],
        &[(1, &[1, 2]), (2, &[])],
        &[("p", Lacks(Contested)), ("q", Lacks(Contested))],
    );
    check(
        "later, its friend's address as well",
        &[("liar", &[at(1)], Some(1)), ("friend", &[at(2)], Some(2))],
        &[(1, &[1, 2]), (2, &[2])],
        &[("liar", Door(1)), ("friend", Door(2))],
    );
    check(
        "later, its friend's address instead of its own, and the friend is made anew",
        &[("liar", &[at(1)], Some(1)), ("friend", &[at(2)], None)],
        &[(1, &[2]), (3, &[2])],
        &[("liar", Still(1)), ("friend", Door(3))],
    );
    check(
        "the same, and the friend's new device is not there yet",
        &[("liar", &[at(1)], Some(1)), ("friend", &[at(2)], None)],
        &[(1, &[2])],
        &[("liar", Still(1)), ("friend", Lacks(Contested))],
    );
    check(
        "the same, and the friend shows nothing",
        &[("liar", &[at(1)], Some(1)), ("friend", &[at(2)], Some(2))],
        &[(1, &[2]), (2, &[])],
        &[("liar", Still(1)), ("friend", Still(2))],
    );
}

#[test]
fn pods_swap_addresses() {
    let pods: &[Known<'_>] = &[("p", &[at(1), at(11)], Some(1)), ("q", &[at(2), at(12)], Some(2))];
    for (what, devices, expected) in [
        ("nothing yet", [(1, &[1, 11][..]), (2, &[2, 12])], [Door(1), Door(2)]),
        ("one has lost its own", [(1, &[]), (2, &[2, 12])], [Still(1), Door(2)]),
        ("both have lost theirs", [(1, &[]), (2, &[])], [Still(1), Still(2)]),
        ("one shows both", [(1, &[1, 11, 2, 12]), (2, &[2, 12])], [Door(1), Door(2)]),
        ("both show one address", [(1, &[2, 12]), (2, &[2, 12])], [Still(1), Door(2)]),
        ("one family is swapped", [(1, &[2, 11]), (2, &[1, 12])], [Door(1), Door(2)]),
        ("one has taken over, the other has nothing", [(1, &[2, 12]), (2, &[])], [Still(1), Still(2)]),
        ("both families are swapped", [(1, &[2, 12]), (2, &[1, 11])], [Door(2), Door(1)]),
    ] {
        check(what, pods, &devices, &[("p", expected[0]), ("q", expected[1])]);
    }
    check(
        "three in a circle",
        &[("p", &[at(1)], Some(1)), ("q", &[at(2)], Some(2)), ("r", &[at(3)], Some(3))],
        &[(1, &[2]), (2, &[3]), (3, &[1])],
        &[("p", Door(3)), ("q", Door(1)), ("r", Door(2))],
    );
    check(
        "routes are swapped",
        &[("p", &[routed(1, ROUTED + 1)], Some(ROUTED)), ("q", &[routed(2, ROUTED)], Some(ROUTED + 1))],
        &[(ROUTED, &[]), (ROUTED + 1, &[])],
        &[("p", Door(ROUTED + 1)), ("q", Door(ROUTED))],
    );
}

#[test]
fn a_door_that_is_gone_is_replaced() {
    check("it is gone", &[("p", &[at(1)], Some(1))], &[(2, &[])], &[("p", Lacks(NotFound))]);
    check("there is another", &[("p", &[at(1)], Some(1))], &[(2, &[1])], &[("p", Door(2))]);
    check(
        "another shows the address beside it",
        &[("p", &[at(1)], Some(1))],
        &[(1, &[1]), (2, &[1])],
        &[("p", Door(1))],
    );
    check(
        "another shows the address, it does not any more",
        &[("p", &[at(1)], Some(1))],
        &[(1, &[]), (2, &[1])],
        &[("p", Door(2))],
    );
}
