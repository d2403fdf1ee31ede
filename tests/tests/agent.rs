//! The agent on a node of the lab: its policies decide about packets, and outlive it.

use std::time::Duration;

use anyhow::Result;
use lab::{Agent, Lab, Manifests, Outcome, Probe, Prober, Protocol, Topology, Underlay};

const PORT: u16 = 8080;

/// The longest that anything may take.
const BOUND: Duration = Duration::from_secs(30);

const ONLY_FROM_FRIENDS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { namespace: default, name: only-from-friends }
spec:
  podSelector: { matchLabels: { app: web } }
  ingress:
    - from: [{ podSelector: { matchLabels: { friend: 'yes' } } }]
---
apiVersion: v1
kind: Namespace
metadata: { name: default }
";

fn a_killed_agent_leaves_its_rules(topology: Topology) -> Result<()> {
    let mut lab = Lab::new(topology, Underlay::Vxlan)?;
    let node = lab.node("node-1")?;
    let [web, friend, stranger] = [
        lab.pod(&node, "default/web")?,
        lab.pod(&node, "default/friend")?,
        lab.pod(&node, "default/stranger")?,
    ];
    web.serve(&[(Protocol::Tcp, PORT), (Protocol::Udp, PORT)])?;
    let manifests = Manifests::new()?;
    for (pod, label) in [(&web, ("app", "web")), (&friend, ("friend", "yes")), (&stranger, ("friend", "no"))]
    {
        let file = format!("{}.json", pod.name().replace('/', "-"));
        manifests.write(&file, &pod.manifest(&[label], &[("http", Protocol::Tcp, PORT)]).to_string())?;
    }
    manifests.write("policy.yaml", ONLY_FROM_FRIENDS)?;
    let mut agent = Agent::start(&node, manifests.path())?;
    agent.wait_ready(BOUND)?;

    let from =
        |pod| [Protocol::Tcp, Protocol::Udp].map(|protocol| Probe::new(pod, web.ipv4(), PORT, protocol));
    let prober = Prober::start(&from(&friend), &from(&stranger))?;
    let mut kills = 0;
    while prober.totals().denied < 2000 {
        assert!(kills < 1000, "{:?}", prober.totals());
        kills += 1;
        agent.kill();
        agent = Agent::start(&node, manifests.path())?;
        agent.wait_ready(BOUND)?;
    }
    let totals = prober.stop()?;
    assert_eq!((totals.leaks, totals.wrong_denials), (0, 0), "{totals:?}");
    assert!(kills >= 5 && totals.allowed >= 1000, "{kills} kills, {totals:?}");
    assert!(agent.stop(Duration::from_secs(1))?.success());
    assert_eq!(lab.connect(&stranger, web.ipv6(), PORT, Protocol::Tcp)?, Outcome::Denied);
    assert_eq!(lab.connect(&friend, web.ipv6(), PORT, Protocol::Tcp)?, Outcome::Allowed);
    Ok(())
}

#[test]
fn a_killed_agent_leaves_its_rules_routed() -> Result<()> {
    a_killed_agent_leaves_its_rules(Topology::Routed)
}

#[test]
fn a_killed_agent_leaves_its_rules_bridged() -> Result<()> {
    a_killed_agent_leaves_its_rules(Topology::Bridge)
}
