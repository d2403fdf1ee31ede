//! Connections that are open when the policies change: those that are denied then are cut and stay cut, whatever
//! their ends send, and all others go on.

use std::net::SocketAddr;

use anyhow::Result;
use lab::streams::{PROTOCOLS, check_going_on, open_all, wait_flowing, watch_dying};
use lab::testbed::{Testbed, cluster_policy, policy};
use lab::{Agent, Pod, Protocol, Stream, Topology, Underlay, new_port};
use serde_json::{Value, json};

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

/// Isolates the pods with a label `app`.
fn isolate(app: &str, direction: &str) -> Value {
    let spec = json!({ "podSelector": { "matchLabels": { "app": app } }, "policyTypes": [direction] });
    policy("shop", "isolate", &spec)
}

/// A rule of a ClusterNetworkPolicy about the pods with a label `app`, which the peers come from or go to.
fn in_tier(tier: &str, action: &str, app: &str, peers: &Value) -> Value {
    let subject = json!({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app}}}});
    let (direction, end) = if app == "server" { ("ingress", "from") } else { ("egress", "to") };
    let rule = json!({"action": action, end: peers});
    let spec = json!({"tier": tier, "priority": 10, "subject": subject, direction: [rule]});
    cluster_policy("v1beta1", &format!("{tier}-{action}").to_lowercase(), &spec)
}

/// The pods with a label `app`, as peers in a ClusterNetworkPolicy.
fn pods(app: &str) -> Value {
    json!([{"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app}}}}])
}

/// Writes a policy that denies the streams, and watches that they die and stay dead.
fn watch_cut(testbed: &Testbed, streams: &[Stream], policy: &Value) -> Result<()> {
    testbed.put(policy)?;
    watch_dying(streams)
}

/// Denies what goes from the client to the server, and nothing else.
fn a_denied_connection_is_cut(topology: Topology, denying: &Value) -> Result<()> {
    let scene = Scene::raise(topology, &[])?;
    let denied = open_all(&scene.client, &scene.server)?;
    // These are opened the other way, which stays allowed.
    let others = open_all(&scene.server, &scene.far)?;
    let of_node = open_all(scene.server.node(), &scene.server)?;
    watch_cut(&scene.testbed, &denied, denying)?;
    check_going_on(&others)?;
    check_going_on(&of_node)?;
    assert_eq!(scene.cut()?, 6);
    Ok(())
}

#[test]
fn ingress_of_the_server_cuts_connections_routed() -> Result<()> {
    a_denied_connection_is_cut(Topology::Routed, &isolate("server", "Ingress"))
}

#[test]
fn egress_of_the_client_cuts_connections_bridged() -> Result<()> {
    a_denied_connection_is_cut(Topology::Bridge, &isolate("client", "Egress"))
}

#[test]
fn an_admin_rule_at_the_server_cuts_connections_bridged() -> Result<()> {
    a_denied_connection_is_cut(Topology::Bridge, &in_tier("Admin", "Deny", "server", &pods("client")))
}

#[test]
fn a_baseline_rule_at_the_client_cuts_connections_routed() -> Result<()> {
    let everything = json!([{"networks": ["0.0.0.0/0", "::/0"]}]);
    a_denied_connection_is_cut(Topology::Routed, &in_tier("Baseline", "Deny", "client", &everything))
}

/// What comes behind a decision cuts nothing, until that goes.
#[test]
fn a_connection_goes_on_as_long_as_a_tier_before_accepts_it() -> Result<()> {
    let scene = Scene::raise(Topology::Routed, &[])?;
    let streams = open_all(&scene.client, &scene.server)?;
    let accept = in_tier("Admin", "Accept", "server", &pods("client"));
    let behind = [isolate("server", "Ingress"), in_tier("Baseline", "Deny", "server", &pods("client"))];
    for policy in [&accept].into_iter().chain(&behind) {
        scene.testbed.put(policy)?;
        scene.testbed.wait_in_step()?;
        check_going_on(&streams)?;
    }
    scene.testbed.delete(&accept)?;
    watch_dying(&streams)?;
    assert_eq!(scene.cut()?, 6);
    Ok(())
}

#[test]
fn each_node_cuts_what_its_own_pods_deny() -> Result<()> {
    let scene = Scene::raise(Topology::Routed, &[])?;
    let denied = open_all(&scene.client, &scene.far)?;
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
    let denied = open_all(&scene.client, &scene.server)?;
    scene.agents.drain(..).for_each(Agent::kill);
    scene.testbed.put(&isolate("server", "Ingress"))?;
    wait_flowing(&denied)?;
    scene.agents = scene.testbed.start_agents()?;
    watch_dying(&denied)
}

#[test]
fn connections_are_kept_where_that_is_wished() -> Result<()> {
    let scene = Scene::raise(Topology::Routed, &["--keep-connections"])?;
    let kept = open_all(&scene.client, &scene.server)?;
    scene.testbed.put(&isolate("server", "Ingress"))?;
    scene.testbed.wait_in_step()?;
    check_going_on(&kept)?;
    assert!(Stream::open(&scene.client, &scene.server, true, Protocol::Udp).is_err());
    Ok(())
}
