//! Others and the table: what they do to it is undone at once, and what they do elsewhere is their own business.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::listing::Listing;
use lab::testbed::{BOUND, Testbed, policy, wait_until};
use lab::{Agent, Outcome, Pod, Probe, Protocol, Topology, Underlay};
use serde_json::json;

const PORT: u16 = 8080;

/// How soon a change by somebody else is to be undone.
const REPAIRED: Duration = Duration::from_millis(200);

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

    fn metric(&self, name: &str) -> Result<f64> {
        self.agent.metric(name)
    }

    /// Waits until the repairs are so many, and returns how long that took.
    fn wait_for_repairs(&self, count: f64) -> Result<Duration> {
        let begin = Instant::now();
        wait_until(BOUND, || {
            let repairs = self.metric("podfence_repairs_total")?;
            ensure!(repairs >= count, "{repairs} repairs, not {count}: {}", self.agent.log()?);
            Ok(())
        })?;
        Ok(begin.elapsed())
    }
}

#[test]
fn what_others_do_to_the_table_is_undone() -> Result<()> {
    let scene = Scene::raise()?;
    let right = scene.table()?;
    let mut repairs = 0.0;
    for command in [
        "insert rule inet podfence forward accept",
        "insert rule inet podfence ingress ip saddr 10.0.0.0/8 accept",
        "flush chain inet podfence forward",
        "flush chain inet podfence egress",
        "flush map inet podfence ingress_isolated_ipv4",
        "add chain inet podfence extra { type filter hook input priority 0; policy drop; }",
        "add set inet podfence extra { type ipv4_addr; }",
        "flush table inet podfence",
        "delete table inet podfence",
        "flush ruleset",
        "add table inet podfence { flags dormant; }",
    ] {
        // The machine may be busy elsewhere for a while, but not every time.
        let mut took = Vec::new();
        for _ in 0..3 {
            scene.nft(command)?;
            repairs += 1.0;
            took.push(scene.wait_for_repairs(repairs)?);
            assert_eq!(scene.table()?.differences(&right), Vec::<String>::new(), "{command}");
        }
        assert!(took.iter().min() < Some(&REPAIRED), "{command}: repaired after {took:?}");
    }
    // One repair for each: none was taken for two, and no repair for somebody else's change.
    scene.testbed.wait_in_step()?;
    assert_eq!(scene.metric("podfence_repairs_total")?, repairs);
    assert_eq!(scene.metric("podfence_transaction_failures_total")?, 0.0);
    Ok(())
}

#[test]
fn a_deleted_rule_comes_back() -> Result<()> {
    let scene = Scene::raise()?;
    let right = scene.table()?;
    let listing = scene.web.node().namespace().feed(
        "nft",
        &["-a", "list", "chain", "inet", "podfence", "forward"],
        "",
    )?;
    let handles = listing
        .lines()
        .filter(|line| line.contains("jump"))
        .filter_map(|line| line.split("# handle ").nth(1));
    let handles: Vec<_> = handles.collect();
    assert_eq!(handles.len(), 2, "{listing}");
    scene.nft(&format!("delete rule inet podfence forward handle {}", handles[0]))?;
    scene.wait_for_repairs(1.0)?;
    assert_eq!(scene.table()?.differences(&right), Vec::<String>::new());
    Ok(())
}

#[test]
fn packets_obey_again_at_once() -> Result<()> {
    let scene = Scene::raise()?;
    let probe = Probe::new(&scene.client, scene.web.ipv4(), PORT, Protocol::Udp);
    let mut took = Vec::new();
    for command in ["flush ruleset", "insert rule inet podfence forward accept", "delete table inet podfence"]
    {
        scene.nft(command)?;
        took.push(scene.testbed.lab.wait_for(&probe, Outcome::Denied, BOUND)?);
    }
    assert!(took.iter().min() < Some(&REPAIRED), "{took:?}");
    Ok(())
}

#[test]
fn what_others_do_elsewhere_disturbs_nothing() -> Result<()> {
    let scene = Scene::raise()?;
    let to_web = Probe::new(&scene.client, scene.web.ipv4(), PORT, Protocol::Udp);
    let transactions = scene.metric("podfence_transactions_total")?;
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
    let mut changes = 0.0;
    let mut open = false;
    while !others.is_finished() || changes < 6.0 {
        open = !open;
        let rules = if open { json!([{}]) } else { json!([]) };
        let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": rules, "egress": rules});
        scene.testbed.put(&policy("shop", "default-deny", &spec))?;
        changes += 1.0;
        wait_until(BOUND, || {
            let done = scene.metric("podfence_transactions_total")? - transactions;
            ensure!(done >= changes, "{done} transactions, not {changes}: {}", scene.agent.log()?);
            Ok(())
        })?;
    }
    others.join().expect("no panic")?;
    let outcome = if open { Outcome::Allowed } else { Outcome::Denied };
    scene.testbed.lab.wait_for(&to_web, outcome, BOUND)?;
    scene.testbed.wait_in_step()?;
    assert_eq!(scene.metric("podfence_transactions_total")?, transactions + changes);
    assert_eq!(scene.metric("podfence_repairs_total")?, 0.0, "{}", scene.agent.log()?);
    assert_eq!(scene.metric("podfence_transaction_failures_total")?, 0.0, "{}", scene.agent.log()?);
    let listing = scene.web.node().namespace().feed("nft", &["list", "table", "ip", "others"], "")?;
    assert_eq!(listing.matches("chain chain_").count(), 200);
    Ok(())
}
