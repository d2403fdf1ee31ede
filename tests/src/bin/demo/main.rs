//! `make demo`: policies decide about real packets, before your eyes.

mod screen;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Agent, Lab, Outcome, Pod, Probe, Protocol, Topology, Underlay};
use policy_compiler::judge::{Connection, Endpoint, Judge, Traffic};
use policy_compiler::manifest::{self, Input};
use policy_compiler::model::{Cluster, Family, ObjectName, PortNumber};
use screen::Screen;
use tempfile::TempDir;

const SCENARIO: &str = "examples/frontend-to-backend/manifests.yaml";

/// The ports that are tried between all pods.
const PORTS: [u16; 2] = [8080, 5432];

/// How long anything may take before the demo gives up.
const BOUND: Duration = Duration::from_secs(10);

/// Lets the stranger in, and shuts it out again.
const OPEN: &str =
    "ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}}]}]";
const SHUT: &str = "ingress: []";

fn main() -> ExitCode {
    let screen = Screen::new();
    let outcome = match lab::available() {
        Ok(()) => show(&screen),
        Err(missing) => dry_run(&screen, &missing),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen.failure(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The scenario in a lab, with an agent on each node.
struct Stage {
    lab: Lab,
    pods: BTreeMap<String, Pod>,
    manifests: TempDir,
}

fn show(screen: &Screen) -> Result<()> {
    screen.step("Two nodes, joined by VXLAN, and four pods, made of network namespaces");
    let stage = Stage::raise()?;
    for (name, pod) in &stage.pods {
        screen.line(&format!("{name:<16} {:<12} {} {}", pod.node().name(), pod.ipv4(), pod.ipv6()));
    }

    screen.step(&format!("An agent on each node enforces the policies of {SCENARIO}"));
    let mut agents = stage.start_agents()?;
    agents.iter_mut().try_for_each(|agent| agent.wait_ready(BOUND))?;
    stage.compare(screen)?;

    screen.step("A policy changes while everything runs");
    stage.watch_change(screen, "lets `other/stranger` in", OPEN, Outcome::Allowed)?;
    stage.watch_change(screen, "shuts it out again", SHUT, Outcome::Denied)?;

    screen.step("kill -9 for both agents");
    agents.into_iter().for_each(Agent::kill);
    stage.compare(screen)?;
    screen.success(
        "Nobody is left to enforce, and everything is still enforced: the rules live in the kernel.",
    );
    Ok(())
}

impl Stage {
    fn raise() -> Result<Self> {
        let cluster = read(&scenario())?;
        let mut lab = Lab::new(Topology::Routed, Underlay::Vxlan)?;
        let nodes =
            ["node-1", "node-2"].into_iter().map(|name| lab.node(name)).collect::<Result<Vec<_>>>()?;
        let manifests = tempfile::tempdir()?;
        let mut pods = BTreeMap::new();
        for pod in cluster.pods().values() {
            let node = nodes.iter().find(|node| pod.node.as_deref() == Some(node.name()));
            let raised =
                lab.pod(node.context("the scenario has pods on two nodes")?, &pod.name.to_string())?;
            raised.serve(&PORTS.map(|port| (Protocol::Tcp, port)))?;
            let labels: Vec<_> =
                pod.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let file = format!("pod-{}-{}.json", pod.name.namespace, pod.name.name);
            std::fs::write(manifests.path().join(file), raised.manifest(&labels, &[]).to_string())?;
            pods.insert(pod.name.to_string(), raised);
        }
        let text = std::fs::read_to_string(scenario())?;
        let policies: Vec<_> =
            text.split("\n---\n").filter(|document| !document.contains("kind: Pod\n")).collect();
        std::fs::write(manifests.path().join("policies.yaml"), policies.join("\n---\n"))?;
        Ok(Self { lab, pods, manifests })
    }

    fn start_agents(&self) -> Result<Vec<Agent>> {
        self.lab.nodes().iter().map(|node| Agent::start(node, self.manifests.path())).collect()
    }

    /// Shows what the policies say beside what packets did, and fails if they differ.
    fn compare(&self, screen: &Screen) -> Result<()> {
        let cluster = read(self.manifests.path())?;
        for port in PORTS {
            let said = self.judge(&cluster, port)?;
            let measured = self.measure(port)?;
            screen.grids(port, &self.pods.keys().map(String::as_str).collect::<Vec<_>>(), &said, &measured);
            ensure!(said == measured, "policies and packets disagree on port {port}");
        }
        screen.success("What the policies say is what the packets did.");
        Ok(())
    }

    /// What the policies say: for every source whether it reaches every destination.
    fn judge(&self, cluster: &Cluster, port: u16) -> Result<Vec<Vec<bool>>> {
        let judge = Judge::new(cluster);
        let traffic =
            Traffic::Port(policy_compiler::model::Protocol::Tcp, PortNumber::new(port).context("a port")?);
        let party = |name: &str| {
            let (namespace, name) = name.split_once('/').context("a pod's name")?;
            let pod =
                cluster.pods().get(&ObjectName::new(namespace, name)).context("a pod of the scenario")?;
            anyhow::Ok(judge.party(Endpoint::Pod(pod)))
        };
        let allowed = |from: &str, to: &str| {
            let (from, to) = (party(from)?, party(to)?);
            anyhow::Ok(judge.verdict(&Connection { from, to, family: Some(Family::Ipv4), traffic }).allowed())
        };
        self.pods.keys().map(|from| self.pods.keys().map(|to| allowed(from, to)).collect()).collect()
    }

    /// What packets did.
    fn measure(&self, port: u16) -> Result<Vec<Vec<bool>>> {
        let pairs = self.pods.values().flat_map(|from| self.pods.values().map(move |to| (from, to)));
        let probes: Vec<_> =
            pairs.map(|(from, to)| Probe::new(from, to.ipv4(), port, Protocol::Tcp)).collect();
        let replies = self.lab.probe(&probes)?;
        let reached: Vec<bool> = replies.iter().map(|reply| reply.outcome == Outcome::Allowed).collect();
        Ok(reached.chunks(self.pods.len()).map(<[bool]>::to_vec).collect())
    }

    /// Changes a policy and tells how long packets took to obey.
    fn watch_change(&self, screen: &Screen, what: &str, rules: &str, expected: Outcome) -> Result<()> {
        let policy = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: guests, namespace: shop}}\n\
             spec:\n  podSelector: {{matchLabels: {{tier: backend}}}}\n  {rules}\n"
        );
        let (from, to) = (&self.pods["other/stranger"], &self.pods["shop/backend"]);
        let probe = Probe::new(from, to.ipv4(), PORTS[0], Protocol::Tcp);
        let fresh = self.manifests.path().join(".guests.yaml.new");
        std::fs::write(&fresh, policy)?;
        std::fs::rename(&fresh, self.manifests.path().join("guests.yaml"))?;
        let after = self.lab.wait_for(&probe, expected, BOUND)?;
        screen.line(&format!(
            "a policy {what}: packets obey {:.1} ms after the file was written",
            after.as_secs_f64() * 1e3
        ));
        Ok(())
    }
}

/// What the demo would show, without packets.
fn dry_run(screen: &Screen, missing: &str) -> Result<()> {
    screen.line(&format!(
        "No packets can be shown on this machine: {missing}. This is the dry run of the same scenario."
    ));
    let podfence = lab::program("podfence")?;
    screen.step("Who reaches whom?  podfence matrix");
    let run = |arguments: &[&str]| Command::new(&podfence).args(arguments).arg("-f").arg(scenario()).status();
    run(&["matrix", "--port", "8080", "--port", "5432"])?;
    screen.step("Why not?  podfence explain");
    run(&["explain", "--from", "other/stranger", "--to", "shop/backend", "--port", "8080"])?;
    Ok(())
}

fn read(path: &Path) -> Result<Cluster> {
    Ok(manifest::read(&[Input::Path(path.to_owned())])?.cluster)
}

fn scenario() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(SCENARIO)
}
