//! The directory of manifests: whatever becomes of a file, nothing is opened by accident.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::listing::Listing;
use lab::random::Random;
use lab::testbed::{BOUND, Testbed, policy, wait_until};
use lab::{Agent, Outcome, Pod, Probe, Prober, Protocol, Topology, Underlay};
use serde_json::json;

const PORT: u16 = 8080;

/// The file that tests do things to.
const FILE: &str = "policies.yaml";

/// One policy in each of two documents: of half the file, the second is missing, and all else is valid.
const POLICIES: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: []
";

/// The client may reach the web and not the database.
struct Scene {
    testbed: Testbed,
    client: Pod,
    web: Pod,
    db: Pod,
}

impl Scene {
    fn raise() -> Result<Self> {
        let mut testbed = Testbed::new(Topology::Routed, Underlay::HostGateway, &["node"])?;
        let mut pod = |name| testbed.pod("node", name, &[PORT]);
        let (client, web, db) = (pod("shop/client")?, pod("shop/web")?, pod("shop/db")?);
        testbed.manifests.write(FILE, POLICIES)?;
        Ok(Self { testbed, client, web, db })
    }

    fn allowed(&self) -> Probe {
        Probe::new(&self.client, self.web.ipv4(), PORT, Protocol::Udp)
    }

    fn denied(&self) -> Probe {
        Probe::new(&self.client, self.db.ipv4(), PORT, Protocol::Udp)
    }

    fn table(&self) -> Result<Listing> {
        Listing::of(self.web.node().namespace())
    }

    /// Waits until the agent has taken in all that happened to the directory before this call: a policy that is
    /// made now has come, and gone again.
    fn settle(&self, agent: &Agent) -> Result<()> {
        let before = agent.counter("transactions")?;
        let marker = policy("shop", "marker", &json!({"podSelector": {"matchLabels": {"app": "client"}}}));
        self.testbed.put(&marker)?;
        agent.wait_for_counter("transactions", before + 1, BOUND)?;
        self.testbed.delete(&marker)?;
        agent.wait_for_counter("transactions", before + 2, BOUND)
    }
}

/// Waits until the agent has written something to its log.
fn wait_for_log(agent: &Agent, text: &str) -> Result<()> {
    wait_until(BOUND, || {
        let log = agent.log()?;
        ensure!(log.contains(text), "`{text}` is not in the log:\n{log}");
        Ok(())
    })
}

fn wait_ready(agent: &Agent) -> Result<()> {
    wait_until(BOUND, || {
        let ready = agent.get("/readyz")?;
        ensure!(ready.0 == 200, "{ready:?}");
        Ok(())
    })
}

/// Waits until the agent says that it is not ready because of a file.
fn wait_for_reason(agent: &Agent, file: &str) -> Result<()> {
    wait_until(BOUND, || {
        let (code, reason) = agent.get("/readyz")?;
        ensure!(
            code == 503 && reason.contains("cannot be read") && reason.contains(file),
            "{code}: {reason}"
        );
        Ok(())
    })
}

#[test]
fn a_file_that_says_nothing_valid_keeps_what_it_said_before() -> Result<()> {
    let scene = Scene::raise()?;
    let agent = scene.testbed.start_agent("node")?;
    let path = scene.testbed.manifests.path().join(FILE);
    let enforced = scene.table()?;
    let invalid = POLICIES.replace("app: web", "app: [web]");
    for (index, (content, problem)) in [
        ("", "the file is empty"),
        ("spec: [", "policies.yaml:1: not valid YAML"),
        ("\0", "policies.yaml:1: a NUL byte"),
        (&*invalid, "policies.yaml:5: spec.podSelector.matchLabels.app: "),
    ]
    .into_iter()
    .enumerate()
    {
        // As `cat >FILE` does it, not in one step.
        fs::write(&path, content)?;
        wait_until(BOUND, || {
            let log = agent.log()?;
            let told = log.matches("last said stays enforced").count() > index && log.contains(problem);
            ensure!(told, "`{problem}` is not in the log:\n{log}");
            Ok(())
        })?;
        assert_eq!(scene.table()?, enforced, "{problem}");
        assert_eq!(agent.get("/readyz")?.0, 200, "{problem}");
    }
    // What is valid again counts again.
    fs::write(&path, POLICIES.replace("app: client", "app: nobody"))?;
    scene.testbed.lab.wait_for(&scene.allowed(), Outcome::Denied, BOUND)?;
    scene.testbed.wait_in_step()
}

#[test]
fn a_file_counts_when_its_writer_has_closed_it() -> Result<()> {
    let scene = Scene::raise()?;
    let agent = scene.testbed.start_agent("node")?;
    let (half, rest) = POLICIES.split_once("---\n").expect("two documents");
    let mut file = File::create(scene.testbed.manifests.path().join(FILE))?;
    file.write_all(half.replace("app: client", "app: nobody").as_bytes())?;
    scene.settle(&agent)?;
    let outcomes = scene.testbed.lab.probe(&[scene.allowed(), scene.denied()])?;
    assert_eq!([&outcomes[0].outcome, &outcomes[1].outcome], [&Outcome::Allowed, &Outcome::Denied]);
    file.write_all(b"---\n")?;
    file.write_all(rest.as_bytes())?;
    drop(file);
    scene.testbed.lab.wait_for(&scene.allowed(), Outcome::Denied, BOUND)?;
    scene.testbed.wait_in_step()
}

/// The agent reads the directory at any moment of the writing, because other files change too.
#[test]
fn half_a_file_is_never_read() -> Result<()> {
    let scene = Scene::raise()?;
    let agent = scene.testbed.start_agent("node")?;
    scene.settle(&agent)?;
    let path = scene.testbed.manifests.path().join(FILE);
    let (half, rest) = POLICIES.split_at(POLICIES.find("---").expect("two documents"));
    let random = &mut Random::new(1);
    let mut disturb = || -> Result<()> {
        // A policy for nobody: it changes no rule.
        let app = random.below(1_000_000).to_string();
        scene.testbed.put(&policy(
            "shop",
            "noise",
            &json!({"podSelector": {"matchLabels": {"app": app}}}),
        ))?;
        std::thread::sleep(Duration::from_micros(random.below(1000) as u64));
        Ok(())
    };
    let prober = Prober::start(&[scene.allowed()], &[scene.denied()])?;
    for port in 1..=50 {
        let transactions = agent.counter("transactions")?;
        let mut file = File::create(&path)?;
        disturb()?;
        file.write_all(half.as_bytes())?;
        disturb()?;
        file.write_all(
            rest.replace("ingress: []", &format!("ingress: [{{ports: [{{port: {port}}}]}}]")).as_bytes(),
        )?;
        disturb()?;
        drop(file);
        agent.wait_for_counter("transactions", transactions + 1, BOUND)?;
        assert_eq!(agent.counter("transactions")?, transactions + 1);
    }
    let totals = prober.stop()?;
    assert_eq!((totals.leaks, totals.wrong_denials), (0, 0), "{totals:?}");
    scene.testbed.wait_in_step()
}

/// As some editors save: the old file goes first, and the new one comes a little later.
#[test]
fn a_file_that_comes_back_soon_was_never_gone() -> Result<()> {
    let scene = Scene::raise()?;
    let agent = scene.testbed.start_agent("node")?;
    let transactions = agent.counter("transactions")?;
    let prober = Prober::start(&[scene.allowed()], &[scene.denied()])?;
    for gone in 0..10 {
        scene.testbed.manifests.remove(FILE)?;
        std::thread::sleep(Duration::from_millis(gone * 5));
        scene.testbed.manifests.write(FILE, POLICIES)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    let totals = prober.stop()?;
    assert_eq!((totals.leaks, totals.wrong_denials), (0, 0), "{totals:?}");
    assert_eq!(agent.counter("transactions")?, transactions);

    scene.testbed.manifests.remove(FILE)?;
    scene.testbed.lab.wait_for(&scene.denied(), Outcome::Allowed, BOUND)?;
    scene.testbed.wait_in_step()
}

#[test]
fn only_manifests_are_read() -> Result<()> {
    let scene = Scene::raise()?;
    let agent = scene.testbed.start_agent("node")?;
    let enforced = scene.table()?;
    let directory = scene.testbed.manifests.path();
    for name in
        [".policies.yaml.swp", ".hidden.yaml", "policies.yaml~", "#policies.yaml#", "notes.txt", "4913"]
    {
        fs::write(directory.join(name), "no manifest: [")?;
    }
    fs::create_dir(directory.join(".git"))?;
    fs::write(directory.join(".git/policies.yaml"), "no manifest: [")?;
    symlink("nowhere", directory.join("dangling.yaml"))?;
    scene.settle(&agent)?;
    assert_eq!(scene.table()?.differences(&enforced).len(), 0);
    assert!(!agent.log()?.contains("WARN"), "{}", agent.log()?);
    assert_eq!(agent.get("/readyz")?.0, 200);
    Ok(())
}

#[test]
fn a_subdirectory_is_followed_too() -> Result<()> {
    let scene = Scene::raise()?;
    let _agent = scene.testbed.start_agent("node")?;
    let directory = scene.testbed.manifests.path().join("more/and/more");
    fs::create_dir_all(&directory)?;
    let egress = json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"]});
    fs::write(directory.join("egress.yaml"), policy("shop", "egress", &egress).to_string())?;
    scene.testbed.lab.wait_for(&scene.allowed(), Outcome::Denied, BOUND)?;
    fs::remove_dir_all(directory)?;
    scene.testbed.lab.wait_for(&scene.allowed(), Outcome::Allowed, BOUND)?;
    scene.testbed.wait_in_step()
}

/// As the kubelet swaps a mounted `ConfigMap`: the link `..data` is replaced, and the old directory removed.
#[test]
fn a_config_map_is_swapped_in_one_step() -> Result<()> {
    let scene = Scene::raise()?;
    let directory = scene.testbed.manifests.path();
    let swap = |version: &str, policies: &str| -> Result<()> {
        fs::create_dir(directory.join(version))?;
        fs::write(directory.join(version).join(FILE), policies)?;
        symlink(version, directory.join("..data_tmp"))?;
        Ok(fs::rename(directory.join("..data_tmp"), directory.join("..data"))?)
    };
    scene.testbed.manifests.remove(FILE)?;
    swap("..1", POLICIES)?;
    symlink(format!("..data/{FILE}"), directory.join(FILE))?;
    let _agent = scene.testbed.start_agent("node")?;

    let prober = Prober::start(&[], &[scene.denied()])?;
    let closed = POLICIES.replace("app: client", "app: nobody");
    let mut last = "..1".to_owned();
    for (version, outcome) in (2..6).zip([Outcome::Denied, Outcome::Allowed].into_iter().cycle()) {
        let next = format!("..{version}");
        swap(&next, if outcome == Outcome::Denied { &closed } else { POLICIES })?;
        fs::remove_dir_all(directory.join(std::mem::replace(&mut last, next)))?;
        let after = scene.testbed.lab.wait_for(&scene.allowed(), outcome, BOUND)?;
        assert!(after < Duration::from_secs(5), "version {version} was enforced after {after:?}");
    }
    let totals = prober.stop()?;
    assert_eq!(totals.leaks, 0, "{totals:?}");
    scene.testbed.wait_in_step()
}

#[test]
fn an_agent_that_starts_on_a_broken_file_keeps_what_the_kernel_has() -> Result<()> {
    let scene = Scene::raise()?;
    scene.testbed.start_agent("node")?.kill();
    let enforced = scene.table()?;
    scene.testbed.manifests.write(FILE, "spec: [")?;
    let egress = policy("shop", "egress", &json!({"podSelector": {}, "policyTypes": ["Egress"]}));
    scene.testbed.put(&egress)?;

    let agent = Agent::start(scene.testbed.node("node")?, scene.testbed.manifests.path())?;
    wait_for_log(&agent, "what the kernel holds stays as it is until everything can be read")?;
    wait_for_reason(&agent, FILE)?;
    assert_eq!(scene.table()?, enforced);

    scene.testbed.manifests.write(FILE, POLICIES)?;
    wait_ready(&agent)?;
    scene.testbed.wait_in_step()?;
    assert_ne!(scene.table()?, enforced);
    Ok(())
}

#[test]
fn the_first_agent_enforces_beside_a_broken_file() -> Result<()> {
    let scene = Scene::raise()?;
    scene.testbed.manifests.write("broken.yaml", "spec: [")?;
    let agent = Agent::start(scene.testbed.node("node")?, scene.testbed.manifests.path())?;
    scene.testbed.lab.wait_for(&scene.denied(), Outcome::Denied, BOUND)?;
    wait_for_log(&agent, "broken.yaml:1: ")?;
    wait_for_reason(&agent, "broken.yaml")?;

    scene.testbed.manifests.remove("broken.yaml")?;
    wait_ready(&agent)?;
    scene.testbed.wait_in_step()
}

/// What of an invalid policy can be read is enforced, and what cannot allows nothing.
#[test]
fn an_invalid_policy_allows_less() -> Result<()> {
    let scene = Scene::raise()?;
    scene.testbed.manifests.write(
        FILE,
        &POLICIES
            .replace("ingress: [{", "ingress: [{ports: [{port: web!}]}, {")
            .replace("ingress: []", "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]"),
    )?;
    let agent = scene.testbed.start_agent("node")?;
    let log = agent.log()?;
    assert!(log.contains("policies.yaml:6: spec.ingress[0].ports[0].port: "), "{log}");
    assert!(log.contains("policies.yaml:13: spec.ingress[0].from[0].ipBlock.cidr: "), "{log}");
    let world = Probe::new(scene.testbed.lab.world(), scene.web.ipv4(), PORT, Protocol::Tcp);
    let replies = scene.testbed.lab.probe(&[scene.allowed(), scene.denied(), world])?;
    let outcomes: Vec<_> = replies.into_iter().map(|reply| reply.outcome).collect();
    assert_eq!(outcomes, [Outcome::Allowed, Outcome::Denied, Outcome::Denied]);
    Ok(())
}

#[test]
fn an_agent_with_nothing_to_do_rests() -> Result<()> {
    let scene = Scene::raise()?;
    let agent = scene.testbed.start_agent("node")?;
    scene.settle(&agent)?;
    let before = agent.processor_time()?;
    std::thread::sleep(Duration::from_millis(500));
    let worked = agent.processor_time()?.saturating_sub(before);
    assert!(worked < Duration::from_millis(50), "{worked:?}");
    Ok(())
}
