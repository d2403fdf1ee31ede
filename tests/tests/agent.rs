//! The agent on a node of the lab: its policies decide about packets, and outlive it.

use std::time::Duration;

use anyhow::Result;
use lab::{Agent, Lab, Manifests, Node, Outcome, Pod, Probe, Prober, Protocol, Topology, Underlay, program};

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

/// A web server on a node, whose policy admits a friend and no stranger.
struct Cluster {
    lab: Lab,
    node: Node,
    web: Pod,
    friend: Pod,
    stranger: Pod,
    manifests: Manifests,
}

impl Cluster {
    fn new(topology: Topology) -> Result<Self> {
        let mut lab = Lab::new(topology, Underlay::Vxlan)?;
        let node = lab.node("node-1")?;
        let [web, friend, stranger] = [
            lab.pod(&node, "default/web")?,
            lab.pod(&node, "default/friend")?,
            lab.pod(&node, "default/stranger")?,
        ];
        web.serve(&[(Protocol::Tcp, PORT), (Protocol::Udp, PORT)])?;
        let manifests = Manifests::new()?;
        for (pod, label) in
            [(&web, ("app", "web")), (&friend, ("friend", "yes")), (&stranger, ("friend", "no"))]
        {
            let file = format!("{}.json", pod.name().replace('/', "-"));
            manifests.write(&file, &pod.manifest(&[label], &[("http", Protocol::Tcp, PORT)]).to_string())?;
        }
        manifests.write("policy.yaml", ONLY_FROM_FRIENDS)?;
        Ok(Self { lab, node, web, friend, stranger, manifests })
    }

    /// Tries connections of the friend and of the stranger until told to stop.
    fn prober(&self) -> Result<Prober> {
        let from = |pod| {
            [Protocol::Tcp, Protocol::Udp].map(|protocol| Probe::new(pod, self.web.ipv4(), PORT, protocol))
        };
        Prober::start(&from(&self.friend), &from(&self.stranger))
    }
}

fn a_killed_agent_leaves_its_rules(topology: Topology) -> Result<()> {
    let cluster = Cluster::new(topology)?;
    let Cluster { lab, node, web, friend, stranger, manifests } = &cluster;
    let mut agent = Agent::start(node, manifests.path())?;
    agent.wait_ready(BOUND)?;

    let prober = cluster.prober()?;
    let mut kills = 0;
    while prober.totals().denied < 2000 {
        assert!(kills < 1000, "{:?}", prober.totals());
        kills += 1;
        agent.kill();
        agent = Agent::start(node, manifests.path())?;
        agent.wait_ready(BOUND)?;
    }
    let totals = prober.stop()?;
    assert_eq!((totals.leaks, totals.wrong_denials), (0, 0), "{totals:?}");
    assert!(kills >= 5 && totals.allowed >= 1000, "{kills} kills, {totals:?}");
    assert!(agent.stop(Duration::from_secs(1))?.success());
    assert_eq!(lab.connect(stranger, web.ipv6(), PORT, Protocol::Tcp)?, Outcome::Denied);
    assert_eq!(lab.connect(friend, web.ipv6(), PORT, Protocol::Tcp)?, Outcome::Allowed);
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

#[test]
fn a_second_agent_waits_for_the_first_and_follows_it() -> Result<()> {
    let cluster = Cluster::new(Topology::Routed)?;
    let Cluster { node, manifests, .. } = &cluster;
    let mut first = Agent::start(node, manifests.path())?;
    first.wait_ready(BOUND)?;
    let prober = cluster.prober()?;
    let mut second = Agent::start(node, manifests.path())?;
    second.wait_unready("another process owns table inet podfence", BOUND)?;
    let program = program("podfence-controller")?;
    let refusal = node.namespace().feed(&program.to_string_lossy(), &["cleanup"], "").unwrap_err();
    assert!(format!("{refusal:#}").contains("another process owns table inet podfence"), "{refusal:#}");
    assert_eq!(first.get("/readyz")?.0, 200);
    first.kill();
    second.wait_ready(BOUND)?;
    let totals = prober.stop()?;
    assert_eq!((totals.leaks, totals.wrong_denials), (0, 0), "{totals:?}");
    assert!(second.stop(Duration::from_secs(1))?.success());
    node.namespace().feed(&program.to_string_lossy(), &["cleanup"], "")?;
    Ok(())
}
