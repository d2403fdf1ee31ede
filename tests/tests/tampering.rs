//! Others and the table: what they do to it is refused or undone, and what they do elsewhere is their own business.

use anyhow::Result;
use lab::listing::Listing;
use lab::testbed::{BOUND, Testbed, policy};
use lab::{Agent, Namespace, Outcome, Pod, Probe, Protocol, Topology, Underlay};
use serde_json::json;

const PORT: u16 = 8080;

/// What another process might do to the table.
const TAMPERING: &[&str] = &[
    "insert rule inet podfence forward accept",
    "insert rule inet podfence ingress ip saddr 10.0.0.0/8 accept",
    "flush chain inet podfence forward",
    "flush chain inet podfence egress",
    "flush map inet podfence ingress_isolated_ipv4",
    "add chain inet podfence extra { type filter hook input priority 0; policy drop; }",
    "add set inet podfence extra { type ipv4_addr; }",
    "add table inet podfence { flags dormant; }",
    "flush table inet podfence",
    "delete table inet podfence",
];

/// Two pods that may not reach each other.
struct Scene {
    testbed: Testbed,
    agent: Agent,
    client: Pod,
    web: Pod,
}

impl Scene {
    fn raise() -> Result<Self> {
        let mut testbed = Testbed::new(Topology::Routed, Underlay::HostGateway, &["node"])?;
        let client = testbed.pod("node", "shop/client", &[PORT])?;
        let web = testbed.pod("node", "shop/web", &[PORT])?;
        testbed.put(&policy(
            "shop",
            "default-deny",
            &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        ))?;
        let agent = testbed.start_agent("node")?;
        Ok(Self { testbed, agent, client, web })
    }

    fn table(&self) -> Result<Listing> {
        Listing::of(self.web.node().namespace())
    }

    fn nft(&self, command: &str) -> Result<()> {
        self.web.node().namespace().nft(command)
    }

    /// Kills the agent, and starts another one after `action`.
    fn between_agents(self, action: impl FnOnce(&Namespace) -> Result<()>) -> Result<Self> {
        let Self { testbed, agent, client, web } = self;
        agent.kill();
        action(web.node().namespace())?;
        let agent = testbed.start_agent("node")?;
        Ok(Self { testbed, agent, client, web })
    }
}

#[test]
fn while_the_agent_lives_others_cannot_change_the_table() -> Result<()> {
    let scene = Scene::raise()?;
    let right = scene.table()?;
    for command in TAMPERING {
        let refusal = scene.nft(command).expect_err(command);
        assert!(refusal.to_string().contains("Operation not permitted"), "{command}: {refusal}");
        assert_eq!(scene.table()?.differences(&right), Vec::<String>::new(), "{command}");
    }
    // This one is not refused, and passes the table by.
    scene.nft("flush ruleset")?;
    assert_eq!(scene.table()?.differences(&right), Vec::<String>::new());
    assert_eq!(scene.agent.counter("repairs")?, 0);
    assert_eq!(scene.agent.counter("transaction_failures")?, 0);
    Ok(())
}

#[test]
fn what_others_do_between_two_agents_is_undone() -> Result<()> {
    let mut scene = Scene::raise()?;
    let right = scene.table()?;
    for command in TAMPERING.iter().chain(&["flush ruleset"]) {
        scene = scene.between_agents(|node| {
            // A table that was made to have owners cannot be put to sleep.
            if command.contains("dormant") {
                node.nft(command).expect_err(command);
            } else {
                node.nft(command)?;
                assert_ne!(Listing::of(node)?.differences(&right), Vec::<String>::new(), "{command}");
            }
            Ok(())
        })?;
        assert_eq!(scene.table()?.differences(&right), Vec::<String>::new(), "{command}");
        let probe = Probe::new(&scene.client, scene.web.ipv4(), PORT, Protocol::Udp);
        assert_eq!(scene.testbed.disagreements(&[probe])?, Vec::<String>::new(), "{command}");
    }
    Ok(())
}

#[test]
fn what_others_do_elsewhere_disturbs_nothing() -> Result<()> {
    let scene = Scene::raise()?;
    let to_web = Probe::new(&scene.client, scene.web.ipv4(), PORT, Protocol::Udp);
    let transactions = scene.agent.counter("transactions")?;
    let node = scene.web.node().namespace().clone();
    let others = std::thread::spawn(move || {
        (0..200).try_for_each(|number| {
            node.nft(&format!(
                "add table ip others; \
                 add chain ip others chain_{number}; \
                 add rule ip others chain_{number} ip saddr 10.0.0.{number} accept; \
                 add table ip podfence; \
                 delete table ip podfence"
            ))
        })
    });
    let mut changes = 0;
    let mut open = false;
    while !others.is_finished() || changes < 6 {
        open = !open;
        let rules = if open { json!([{}]) } else { json!([]) };
        let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": rules, "egress": rules});
        scene.testbed.put(&policy("shop", "default-deny", &spec))?;
        changes += 1;
        scene.agent.wait_for_counter("transactions", transactions + changes, BOUND)?;
    }
    others.join().expect("no panic")?;
    let outcome = if open { Outcome::Allowed } else { Outcome::Denied };
    scene.testbed.lab.wait_for(&to_web, outcome, BOUND)?;
    scene.testbed.wait_in_step()?;
    assert_eq!(scene.agent.counter("transactions")?, transactions + changes);
    assert_eq!(scene.agent.counter("repairs")?, 0, "{}", scene.agent.log()?);
    assert_eq!(scene.agent.counter("transaction_failures")?, 0, "{}", scene.agent.log()?);
    let listing = scene.web.node().namespace().feed("nft", &["list", "table", "ip", "others"], "")?;
    assert_eq!(listing.matches("chain chain_").count(), 200);
    Ok(())
}
