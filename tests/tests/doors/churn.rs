//! Pods come, go and swap addresses and doors all the time, and are probed all the while.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::testbed::{BOUND, listen, wait_until};
use lab::{Outcome, Pod, Probe, Prober, Protocol, Topology, arrivals, on_each_topology};

use crate::scene::{Links, PORT, Scene, open_by_frame};

/// How long it goes on.
const LENGTH: Duration = Duration::from_secs(20);

on_each_topology! {
    pods_come_and_go_and_swap_addresses
}

fn to_server(scene: &Scene, from: &Pod, protocol: Protocol) -> Vec<Probe> {
    scene.server.addresses().into_iter().map(|to| Probe::new(from, to, PORT, protocol)).collect()
}

/// A pod whose every address is let in, or is not.
fn wait_for(scene: &Scene, from: &Pod, outcome: Outcome) -> Result<()> {
    let probes = to_server(scene, from, Protocol::Udp);
    probes.iter().try_for_each(|probe| scene.testbed.lab.wait_for(probe, outcome, BOUND).map(drop))
}

/// That a pod is not let in under the friend's addresses.
fn assert_not_the_friend(scene: &Scene, from: &Pod) -> Result<()> {
    let wire = Scene::wire(from)?;
    let mut tries = Vec::new();
    for (source, to) in scene.friend.addresses().into_iter().zip(scene.server.addresses()) {
        let links = Links { from: from.link_address(), to: scene.next_hop(from, &scene.server)? };
        let way = (&wire, links);
        tries.push(open_by_frame(from.name(), way, (source, to, PORT), Protocol::Udp, &scene.server));
    }
    ensure!(!arrivals(&tries)?.contains(&true), "let in as the friend: {tries:?}");
    Ok(())
}

/// A new friend is let in, and nothing of it stays.
fn come_and_go(scene: &mut Scene, name: &str) -> Result<()> {
    let node = scene.server.node().clone();
    let guest = scene.testbed.lab.pod(&node, name)?;
    listen(&guest, &[PORT])?;
    let object = guest.manifest(&[("app", "friend")], &[]);
    scene.testbed.put(&object)?;
    wait_for(scene, &guest, Outcome::Allowed)?;
    assert_not_the_friend(scene, &guest)?;
    scene.testbed.delete(&object)?;
    wait_for(scene, &guest, Outcome::Denied)?;
    scene.testbed.lab.remove(&guest)
}

/// What one pod had as a friend becomes another's, who is none, and comes back.
fn swap(scene: &Scene, (first, second): (&Pod, &Pod)) -> Result<()> {
    let testbed = &scene.testbed;
    let object = first.manifest(&[("app", "friend")], &[]);
    testbed.put(&object)?;
    wait_for(scene, first, Outcome::Allowed)?;
    testbed.delete(&object)?;
    wait_for(scene, first, Outcome::Denied)?;
    testbed.lab.move_addresses(first, second)?;
    let object = second.manifest(&[("app", "other")], &[]);
    testbed.put(&object)?;
    // It is known, at its door, as somebody whom nothing isolates, and it is no friend.
    let to_open = scene.open.addresses().into_iter().map(|to| Probe::new(second, to, PORT, Protocol::Tcp));
    for probe in to_open {
        testbed.lab.wait_for(&probe, Outcome::Allowed, BOUND)?;
    }
    let probes = to_server(scene, second, Protocol::Udp);
    let replies = testbed.lab.probe(&probes)?;
    ensure!(replies.iter().all(|reply| reply.outcome == Outcome::Denied), "{probes:?}: {replies:?}");
    wait_until(BOUND, || assert_not_the_friend(scene, second))?;
    testbed.delete(&object)?;
    testbed.lab.move_addresses(second, first)
}

fn pods_come_and_go_and_swap_addresses(topology: Topology) -> Result<()> {
    let mut scene = Scene::raise(topology)?;
    let node = scene.server.node().clone();
    let first = scene.testbed.lab.pod(&node, "shop/first")?;
    let second = scene.testbed.lab.pod(&node, "shop/second")?;
    let _agents = scene.testbed.start_agents()?;
    let both = |pod: &Pod| {
        [Protocol::Tcp, Protocol::Udp].into_iter().flat_map(|kind| to_server(&scene, pod, kind)).collect()
    };
    let (allowed, denied): (Vec<_>, Vec<_>) = (both(&scene.friend), both(&scene.stranger));
    let prober = Prober::start(&allowed, &denied)?;
    let begin = Instant::now();
    let mut rounds = 0;
    while begin.elapsed() < LENGTH {
        come_and_go(&mut scene, &format!("shop/guest-{rounds}"))?;
        swap(&scene, (&first, &second))?;
        assert_not_the_friend(&scene, &scene.stranger)?;
        rounds += 1;
    }
    let totals = prober.stop()?;
    ensure!((totals.leaks, totals.wrong_denials) == (0, 0), "{totals:?} after {rounds} rounds");
    ensure!(totals.allowed.min(totals.denied) > 1000, "{totals:?}");
    ensure!(rounds > 2, "only {rounds} rounds");
    Ok(())
}
