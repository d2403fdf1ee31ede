//! Flows that conntrack does not track: what is dropped of them is told apart from what policies deny.

use anyhow::{Context, Result, ensure};
use lab::testbed::{BOUND, Testbed, listen, policy, status, wait_until};
use lab::{Agent, Node, Outcome, Pod, Probe, Protocol, Topology, Underlay};
use serde_json::{Value, json};

/// What is exempt from conntrack in both directions, as for a cache on the node.
const UNTRACKED: u16 = 53;
/// What is seen in one direction only, as on asymmetric paths.
const ONE_WAY: u16 = 8081;
/// What is tracked.
const TRACKED: u16 = 8080;

/// A client that nobody may open connections to, and a server.
struct Scene {
    testbed: Testbed,
    client: Pod,
    server: Pod,
    node: Node,
    agent: Agent,
}

impl Scene {
    fn raise(topology: Topology) -> Result<Self> {
        let mut testbed = Testbed::new(topology, Underlay::HostGateway, &["node-1"])?;
        let client = testbed.pod("node-1", "shop/client", &[TRACKED])?;
        let server = testbed.pod("node-1", "shop/server", &[UNTRACKED, ONE_WAY, TRACKED])?;
        testbed.put(&isolated(&json!([])))?;
        let node = server.node().clone();
        listen(&node, &[UNTRACKED])?;
        node.namespace().nft(&format!(
            "table inet lab_notrack {{
               chain prerouting {{
                 type filter hook prerouting priority raw
                 meta l4proto {{ tcp, udp }} th dport {UNTRACKED} notrack
                 meta l4proto {{ tcp, udp }} th sport {UNTRACKED} notrack
                 tcp dport {ONE_WAY} notrack
               }}
               chain output {{
                 type filter hook output priority raw
                 meta l4proto {{ tcp, udp }} th sport {UNTRACKED} notrack
               }}
             }}"
        ))?;
        let agent = testbed.start_agent("node-1")?;
        Ok(Self { testbed, client, server, node, agent })
    }

    fn outcome(&self, probe: Probe) -> Result<Outcome> {
        let replies = self.testbed.lab.probe(&[probe])?;
        Ok(replies.first().context("no reply")?.outcome)
    }

    /// How many packets a metric has counted for ingress, with what other labels there may be.
    fn counted(&self, metric: &str) -> Result<u64> {
        let (_, text) = self.agent.get("/metrics")?;
        let of_ingress = |line: &&str| line.contains("direction=\"ingress\"");
        let lines = text.lines().filter_map(|line| line.strip_prefix(metric)).filter(of_ingress);
        lines.map(|line| Ok(line.rsplit(' ').next().context("no number")?.parse::<u64>()?)).sum()
    }

    /// Waits for a line about a denial that has these words, and says `untracked` or does not.
    fn expect_told(&self, words: &[&str], untracked: bool) -> Result<()> {
        wait_until(BOUND, || {
            let lines = self.agent.denials()?;
            let is_it = |line: &&String| {
                words.iter().all(|word| line.contains(word))
                    && line.contains("untracked: conntrack does not track this flow") == untracked
            };
            let line = lines.iter().find(is_it);
            line.with_context(|| format!("untracked: {untracked}, none has {words:?}: {lines:#?}")).map(drop)
        })
    }
}

fn isolated(ingress: &Value) -> Value {
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "client"}},
        "policyTypes": ["Ingress"],
        "ingress": ingress,
    });
    policy("shop", "client", &spec)
}

/// The metric of untracked packets, and of all others that are denied.
const METRICS: [&str; 2] = ["podfence_untracked_packets_total{", "podfence_denied_packets_total{"];

fn what_is_untracked_is_told_apart(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let Scene { client, server, node, .. } = &scene;
    let (server4, server6, client4) = (server.ipv4(), server.ipv6(), client.ipv4());
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let (from_server4, from_server6) = (format!(" source={server4} "), format!(" source={server6} "));
    let cases = [
        (Probe::new(server, client4, TRACKED, udp), Outcome::Denied, Some((false, [" port=8080 ", "UDP"]))),
        (Probe::new(client, server4, TRACKED, tcp), Outcome::Allowed, None),
        (Probe::new(client, server6, TRACKED, udp), Outcome::Allowed, None),
        (Probe::new(client, node.ipv4(), UNTRACKED, udp), Outcome::Allowed, None),
        (Probe::new(client, node.ipv6(), UNTRACKED, tcp), Outcome::Allowed, None),
        (Probe::new(client, server4, UNTRACKED, udp), Outcome::Denied, Some((true, [&*from_server4, "UDP"]))),
        (Probe::new(client, server6, UNTRACKED, tcp), Outcome::Denied, Some((true, [&*from_server6, "TCP"]))),
        (Probe::new(client, server4, ONE_WAY, tcp), Outcome::Denied, Some((true, [&*from_server4, "TCP"]))),
    ];
    for (probe, outcome, told) in cases {
        let name = probe.to_string();
        let before = METRICS.map(|metric| scene.counted(metric));
        assert_eq!(scene.outcome(probe)?, outcome, "{name}");
        let Some((untracked, words)) = told else { continue };
        scene.expect_told(&words, untracked)?;
        for (counts, (metric, before)) in
            [untracked, !untracked].into_iter().zip(METRICS.into_iter().zip(before))
        {
            let before = before?;
            wait_until(BOUND, || {
                let now = scene.counted(metric)?;
                ensure!((now > before) == counts, "{name}: {metric} from {before} to {now}");
                Ok(())
            })?;
        }
    }
    let untracked = &status(node)?["untracked"];
    ensure!(untracked[0]["denied"]["packets"].as_u64() > Some(0), "{untracked}");

    // A rule that allows the answers as if they opened connections lets them through.
    let from_server = json!([{"from": [{"podSelector": {"matchLabels": {"app": "server"}}}]}]);
    scene.testbed.put(&isolated(&from_server))?;
    scene.testbed.wait_in_step()?;
    assert_eq!(scene.outcome(Probe::new(client, server4, UNTRACKED, udp))?, Outcome::Allowed);
    assert_eq!(scene.outcome(Probe::new(client, server4, ONE_WAY, tcp))?, Outcome::Allowed);
    Ok(())
}

#[test]
fn what_is_untracked_is_told_apart_routed() -> Result<()> {
    what_is_untracked_is_told_apart(Topology::Routed)
}

#[test]
fn what_is_untracked_is_told_apart_bridged() -> Result<()> {
    what_is_untracked_is_told_apart(Topology::Bridge)
}
