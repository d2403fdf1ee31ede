//! Enforcement outlives the agent: kill it, stop it, start it again, and nothing opens and nothing closes.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Result, ensure};
use controller::kernel::Kernel;
use lab::listing::Listing;
use lab::random::Random;
use lab::testbed::{BOUND, Testbed, policy, status, wait_until};
use lab::{Agent, Outcome, Pod, Probe, Prober, Protocol, Topology, Underlay, program};
use policy_compiler::compile::compile;
use policy_compiler::manifest::{self, Input};
use policy_compiler::ruleset::{
    Chain, ChainId, ChainRole, Rule, Ruleset, Statement, TableFamily, Transaction,
};
use serde_json::json;

const PORT: u16 = 8080;

/// How often the agents are killed.
const KILLS: usize = 20;

/// A client and a stranger on one node, and what they ask for on the other.
struct Scene {
    testbed: Testbed,
    client: Pod,
    stranger: Pod,
    web: Pod,
}

impl Scene {
    fn raise(topology: Topology) -> Result<Self> {
        let mut testbed = Testbed::new(topology, Underlay::Vxlan, &["node-1", "node-2"])?;
        let mut pod = |node, name| testbed.pod(node, name, &[PORT]);
        let (client, stranger) = (pod("node-1", "shop/client")?, pod("node-1", "shop/stranger")?);
        let web = pod("node-2", "shop/web")?;
        let scene = Self { testbed, client, stranger, web };
        let from_client = json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]);
        let to_web = json!([{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]);
        scene.testbed.put(&policy(
            "shop",
            "web",
            &json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": from_client}),
        ))?;
        scene.testbed.put(&policy(
            "shop",
            "client",
            &json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"], "egress": to_web}),
        ))?;
        Ok(scene)
    }

    fn allowed(&self) -> Vec<Probe> {
        vec![
            Probe::new(&self.client, self.web.ipv4(), PORT, Protocol::Tcp),
            Probe::new(&self.client, self.web.ipv6(), PORT, Protocol::Udp),
        ]
    }

    /// One for the ingress policy on the second node, and one for the egress policy on the first.
    fn denied(&self) -> Vec<Probe> {
        vec![
            Probe::new(&self.stranger, self.web.ipv4(), PORT, Protocol::Udp),
            Probe::new(&self.client, self.stranger.ipv6(), PORT, Protocol::Udp),
        ]
    }

    fn tables(&self) -> Result<Vec<Listing>> {
        self.testbed.lab.nodes().iter().map(|node| Listing::of(node.namespace())).collect()
    }

    /// Changes objects so that both nodes' rules are others, for the same pods, and what is probed stays as it is.
    fn change(&self, random: &mut Random) -> Result<()> {
        let team = ["red", "blue"][random.below(2)];
        match random.below(4) {
            0 => self.testbed.put(&self.client.manifest(&[("app", "client"), ("team", team)], &[])),
            1 => self.testbed.put(&self.web.manifest(&[("app", "web"), ("team", team)], &[])),
            2 => self.testbed.put(&self.stranger.manifest(&[("app", "stranger"), ("team", team)], &[])),
            _ => {
                let port = 1 + random.below(1000);
                let spec = json!({
                    "podSelector": {"matchLabels": {"team": team}},
                    "policyTypes": ["Ingress", "Egress"],
                    "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": port, "endPort": port + 9}]}],
                    "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
                });
                self.testbed.put(&policy("shop", &format!("extra-{}", random.below(3)), &spec))
            }
        }
    }
}

/// The ruleset as agents made it that told nobody of what they denied.
fn without_logs(ruleset: &Ruleset) -> Ruleset {
    // These are named by their content, which was another.
    let name = |chain: &ChainId| match chain.role() {
        ChainRole::Isolation { direction, .. } => ChainId::read(&format!("{direction}_isolate_older")),
        _ => chain.clone(),
    };
    let logs = |rule: &Rule| rule.statements.iter().any(|statement| matches!(statement, Statement::Log(_)));
    let chains = ruleset.chains.iter().map(|(chain, Chain { hook, rules })| {
        let rules = rules.iter().filter(|rule| !logs(rule)).cloned().collect();
        (name(chain), Chain { hook: hook.clone(), rules })
    });
    let mut sets = ruleset.sets.clone();
    for target in
        sets.values_mut().flat_map(|set| set.elements.values_mut()).filter_map(|it| it.target.as_mut())
    {
        *target = name(target);
    }
    Ruleset { table: TableFamily::Inet, chains: chains.collect(), sets }
}

#[test]
fn the_table_of_an_older_agent_is_brought_in_step_without_a_gap() -> Result<()> {
    let scene = Scene::raise(Topology::Routed)?;
    let path = scene.testbed.manifests.path().to_owned();
    let cluster = manifest::read(&[Input::Path(path)])?.cluster;
    let program_older = || {
        scene.testbed.lab.nodes().iter().try_for_each(|node| {
            let older = without_logs(&compile(&cluster, Some(node.name())));
            node.namespace().run(|| Ok(Kernel::open()?.apply(&Transaction::replace(&older))?))
        })
    };
    program_older()?;
    let prober = Prober::start(&scene.allowed(), &scene.denied())?;
    for _ in 0..5 {
        program_older()?;
        scene.testbed.start_agents()?;
        scene.testbed.wait_in_step()?;
    }
    let totals = prober.stop()?;
    assert_eq!((totals.leaks, totals.wrong_denials), (0, 0), "{totals:?}");
    assert!(totals.allowed.min(totals.denied) > 100, "{totals:?}");
    Ok(())
}

fn killed_in_a_loop(topology: Topology, seed: u64) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let mut agents = scene.testbed.start_agents()?;
    let random = &mut Random::new(seed);
    let prober = Prober::start(&scene.allowed(), &scene.denied())?;
    for _ in 0..KILLS {
        for _ in 0..=random.below(3) {
            scene.change(random)?;
        }
        // The instant is random: reading, committing, at rest, or not even ready.
        std::thread::sleep(Duration::from_micros(random.below(60_000) as u64));
        let victim = random.below(agents.len());
        agents.remove(victim).kill();
        scene.change(random)?;
        let node = &scene.testbed.lab.nodes()[victim];
        agents.insert(victim, Agent::start(node, scene.testbed.manifests.path())?);
    }
    agents.iter_mut().try_for_each(|agent| agent.wait_ready(BOUND))?;
    scene.testbed.wait_in_step()?;
    let totals = prober.stop()?;
    assert_eq!((totals.leaks, totals.wrong_denials), (0, 0), "{totals:?}");
    assert!(totals.allowed.min(totals.denied) > 1000, "{totals:?}");
    Ok(())
}

#[test]
fn killed_in_a_loop_routed() -> Result<()> {
    killed_in_a_loop(Topology::Routed, 1)
}

#[test]
fn killed_in_a_loop_bridged() -> Result<()> {
    killed_in_a_loop(Topology::Bridge, 2)
}

#[test]
fn a_second_agent_waits_for_the_first_and_follows_it() -> Result<()> {
    const OWNED: &str = "another process owns table inet podfence";
    let scene = Scene::raise(Topology::Routed)?;
    let mut agents = scene.testbed.start_agents()?;
    let prober = Prober::start(&scene.allowed(), &scene.denied())?;
    let node = scene.web.node();
    let mut second = Agent::start(node, scene.testbed.manifests.path())?;
    second.wait_unready(OWNED, BOUND)?;
    let cleanup =
        || node.namespace().feed(&program("podfence-controller")?.to_string_lossy(), &["cleanup"], "");
    let refusal = cleanup().expect_err("the table has an owner");
    assert!(format!("{refusal:#}").contains(OWNED), "{refusal:#}");
    let first = agents.pop().expect("an agent for each node");
    assert_eq!(first.get("/readyz")?.0, 200);
    first.kill();
    second.wait_ready(BOUND)?;
    let totals = prober.stop()?;
    assert_eq!((totals.leaks, totals.wrong_denials), (0, 0), "{totals:?}");
    second.kill();
    cleanup()?;
    Ok(())
}

#[test]
fn it_enforces_while_its_address_is_still_another_agents() -> Result<()> {
    let scene = Scene::raise(Topology::Routed)?;
    let node = scene.web.node();
    let listen = SocketAddr::from(([127, 0, 0, 1], 9500));
    let taken = node.namespace().run(|| Ok(TcpListener::bind(listen)?))?;
    let mut command = node.namespace().command(program("podfence-controller")?);
    command.args(["run", "--node-name", node.name(), "--listen", &listen.to_string(), "--manifests"]);
    command.arg(scene.testbed.manifests.path());
    let mut agent = Agent::of_command(node, listen, command)?;
    wait_until(BOUND, || {
        let status = status(node)?.to_string();
        ensure!(status.contains("isolated by shop/web"), "{status}\n{}", agent.log()?);
        Ok(())
    })?;
    drop(taken);
    agent.wait_ready(BOUND)
}

#[test]
fn told_to_stop_it_stops_at_once_and_the_rules_stay() -> Result<()> {
    let scene = Scene::raise(Topology::Routed)?;
    let agents = scene.testbed.start_agents()?;
    let tables = scene.tables()?;
    for agent in agents {
        let status = agent.stop(Duration::from_secs(1))?;
        assert_eq!(status.code(), Some(0));
    }
    assert_eq!(scene.tables()?, tables);
    let probes = [scene.allowed(), scene.denied()].concat();
    assert_eq!(scene.testbed.disagreements(&probes)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn it_goes_on_where_the_last_one_ended() -> Result<()> {
    let scene = Scene::raise(Topology::Routed)?;
    scene.testbed.start_agents()?.into_iter().for_each(Agent::kill);
    scene.testbed.lab.probe(&[scene.allowed(), scene.denied()].concat())?;
    let statuses = || scene.testbed.lab.nodes().iter().map(status).collect::<Result<Vec<_>>>();
    let counted = statuses()?;
    assert_eq!(counted[1]["rules"][0]["allowed"]["packets"], 2, "{counted:#?}");

    // Nothing has changed: nothing is done.
    let agents = scene.testbed.start_agents()?;
    scene.testbed.wait_in_step()?;
    for agent in &agents {
        assert_eq!(agent.counter("transactions")?, 0, "{}", agent.log()?);
    }
    assert_eq!(statuses()?, counted);

    // Something has changed meanwhile: only the difference is applied.
    agents.into_iter().for_each(Agent::kill);
    scene.testbed.put(&scene.stranger.manifest(&[("app", "client")], &[]))?;
    let agents = scene.testbed.start_agents()?;
    let probe = Probe::new(&scene.stranger, scene.web.ipv4(), PORT, Protocol::Udp);
    assert_eq!(
        scene.testbed.lab.connect(&scene.stranger, scene.web.ipv4(), PORT, Protocol::Tcp)?,
        Outcome::Allowed,
        "{probe}"
    );
    scene.testbed.wait_in_step()?;
    for agent in &agents {
        assert_eq!(agent.counter("transactions")?, 1, "{}", agent.log()?);
    }
    assert_eq!(statuses()?[1]["rules"][0]["allowed"]["packets"], 3);
    Ok(())
}
