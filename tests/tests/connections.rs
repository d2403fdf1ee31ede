//! Connections that are open when the policies change: those that are denied then are cut and stay cut, whatever
//! their ends send, and all others go on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::testbed::{BOUND, Testbed, policy, wait_until};
use lab::{Agent, Endpoint, Pod, Protocol, Stream, Topology, Underlay, new_port};
use serde_json::{Value, json};

/// What may pass after a change until the last message of a connection that it denies, on a busy machine.
const CUT: Duration = Duration::from_secs(1);

/// How long a connection that is cut is watched: its ends send a thousand times.
const WATCH: Duration = Duration::from_secs(2);

/// The longest silence on a connection that stays, on a busy machine.
const STALL: Duration = Duration::from_secs(1);

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// Two nodes with agents, a client and a server on the first, another server on the second.
struct Scene {
    testbed: Testbed,
    client: Pod,
    server: Pod,
    far: Pod,
    agents: Vec<Agent>,
}

impl Scene {
    fn raise(topology: Topology, arguments: &[&str]) -> Result<Self> {
        let mut testbed = Testbed::new(topology, Underlay::HostGateway, &["node-1", "node-2"])?;
        let client = testbed.pod("node-1", "shop/client", &[])?;
        let server = testbed.pod("node-1", "shop/server", &[])?;
        let far = testbed.pod("node-2", "shop/far", &[])?;
        let agents = ["node-1", "node-2"].map(|node| testbed.start_agent_with(node, arguments));
        Ok(Self { client, server, far, agents: agents.into_iter().collect::<Result<_>>()?, testbed })
    }

    /// How many connections the agents have cut.
    fn cut(&self) -> Result<u64> {
        self.agents.iter().map(|agent| agent.counter("connections_cut")).sum()
    }
}

/// A stream of each protocol and family.
fn streams(client: &Endpoint, server: &Pod) -> Result<Vec<Stream>> {
    let families = [true, false].into_iter();
    let kinds = families.flat_map(|ipv4| PROTOCOLS.map(|protocol| (ipv4, protocol)));
    let streams: Vec<_> =
        kinds.map(|(ipv4, protocol)| Stream::open(client, server, ipv4, protocol)).collect::<Result<_>>()?;
    wait_flowing(&streams)?;
    Ok(streams)
}

/// Isolates the pods with a label `app`.
fn isolate(app: &str, direction: &str) -> Value {
    let spec = json!({ "podSelector": { "matchLabels": { "app": app } }, "policyTypes": [direction] });
    policy("shop", "isolate", &spec)
}

/// Waits until messages come through in both directions.
fn wait_flowing(streams: &[Stream]) -> Result<()> {
    for stream in streams {
        let before = stream.heard().messages;
        wait_until(BOUND, || {
            ensure!(stream.heard().messages > before + 5, "nothing comes through: {stream}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Writes a policy that denies the streams, and watches that they die and stay dead.
fn watch_cut(testbed: &Testbed, streams: &[Stream], policy: &Value) -> Result<()> {
    testbed.put(policy)?;
    assert_dying(streams)
}

/// Watches that the streams die now and stay dead. That nothing comes is seen by waiting only.
fn assert_dying(streams: &[Stream]) -> Result<()> {
    let now = Instant::now();
    std::thread::sleep(CUT + WATCH);
    for stream in streams {
        let after = stream.heard().last.saturating_duration_since(now);
        ensure!(after < CUT, "heard {after:?} after the change: {stream}");
    }
    Ok(())
}

fn assert_going_on(streams: &[Stream]) -> Result<()> {
    for stream in streams {
        let gap = stream.heard().longest_gap;
        ensure!(gap < STALL, "silent for {gap:?}: {stream}");
    }
    wait_flowing(streams)
}

/// Denies what goes from the client to the server, and nothing else, by isolating one of them.
fn a_denied_connection_is_cut(topology: Topology, isolated: &str, direction: &str) -> Result<()> {
    let scene = Scene::raise(topology, &[])?;
    let denied = streams(&scene.client, &scene.server)?;
    // These are opened the other way, which stays allowed.
    let others = streams(&scene.server, &scene.far)?;
    let of_node = streams(scene.server.node(), &scene.server)?;
    watch_cut(&scene.testbed, &denied, &isolate(isolated, direction))?;
    assert_going_on(&others)?;
    assert_going_on(&of_node)?;
    assert_eq!(scene.cut()?, 6);
    Ok(())
}

#[test]
fn ingress_of_the_server_cuts_connections_routed() -> Result<()> {
    a_denied_connection_is_cut(Topology::Routed, "server", "Ingress")
}

#[test]
fn egress_of_the_client_cuts_connections_bridged() -> Result<()> {
    a_denied_connection_is_cut(Topology::Bridge, "client", "Egress")
}

#[test]
fn each_node_cuts_what_its_own_pods_deny() -> Result<()> {
    let scene = Scene::raise(Topology::Routed, &[])?;
    let denied = streams(&scene.client, &scene.far)?;
    watch_cut(&scene.testbed, &denied, &isolate("far", "Ingress"))?;
    assert_eq!(scene.agents[0].counter("connections_cut")?, 0);
    assert_eq!(scene.agents[1].counter("connections_cut")?, 6);
    Ok(())
}

#[test]
fn a_connection_to_a_service_is_cut() -> Result<()> {
    let mut scene = Scene::raise(Topology::Routed, &[])?;
    let mut denied = Vec::new();
    for protocol in PROTOCOLS {
        let port = new_port();
        let lab = &mut scene.testbed.lab;
        let service = lab.service(protocol, 80, port, &[&scene.server])?;
        for (asked, at) in [(service.ipv4, scene.server.ipv4()), (service.ipv6, scene.server.ipv6())] {
            let [asked, at] = [SocketAddr::new(asked, 80), SocketAddr::new(at, port)];
            denied.push(Stream::open_through(&scene.client, &scene.server, asked, at, protocol)?);
        }
    }
    wait_flowing(&denied)?;
    watch_cut(&scene.testbed, &denied, &isolate("server", "Ingress"))?;
    assert_eq!(scene.cut()?, 6);
    Ok(())
}

/// What one agent could not cut any more, the next one does.
#[test]
fn the_next_agent_cuts_what_was_denied_meanwhile() -> Result<()> {
    let mut scene = Scene::raise(Topology::Routed, &[])?;
    let denied = streams(&scene.client, &scene.server)?;
    scene.agents.drain(..).for_each(Agent::kill);
    scene.testbed.put(&isolate("server", "Ingress"))?;
    wait_flowing(&denied)?;
    scene.agents = scene.testbed.start_agents()?;
    assert_dying(&denied)
}

#[test]
fn connections_are_kept_where_that_is_wished() -> Result<()> {
    let scene = Scene::raise(Topology::Routed, &["--keep-connections"])?;
    let kept = streams(&scene.client, &scene.server)?;
    scene.testbed.put(&isolate("server", "Ingress"))?;
    scene.testbed.wait_in_step()?;
    assert_going_on(&kept)?;
    assert!(Stream::open(&scene.client, &scene.server, true, Protocol::Udp).is_err());
    Ok(())
}
