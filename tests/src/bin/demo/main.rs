//! `make demo`: policies decide about real packets, before your eyes. `make demo-cluster` (`--cluster`) shows
//! the same with a real API server.

mod screen;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::testbed::{cluster_policy, cluster_policy_definition, policy, wait_until};
use lab::{Agent, ControlPlane, Lab, Manifests, Outcome, Pod, Probe, Protocol, Topology, Underlay, User};
use policy_compiler::judge::{Connection, Endpoint, Judge, Traffic};
use policy_compiler::manifest;
use policy_compiler::model::{Cluster, Family, ObjectName, PortNumber};
use screen::{Screen, line};
use serde::Deserialize;
use serde_json::{Value, json};

const SCENARIO: &str = "examples/frontend-to-backend/manifests.yaml";

/// The ports that are tried between all pods.
const PORTS: [u16; 2] = [8080, 5432];

/// How long anything may take before the demo gives up.
const BOUND: Duration = Duration::from_secs(10);

const NODES: [&str; 2] = ["node-1", "node-2"];

fn main() -> ExitCode {
    let screen = Screen::new();
    let with_cluster = std::env::args().nth(1).as_deref() == Some("--cluster");
    let outcome = match lab::available() {
        Ok(()) => show(&screen, with_cluster),
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

/// The scenario in a lab.
struct Stage {
    lab: Lab,
    pods: BTreeMap<String, Pod>,
    /// What the agents have been told, by kind and name.
    objects: BTreeMap<[String; 2], Value>,
    source: Source,
}

/// Where the agents learn of objects.
enum Source {
    Directory(Manifests),
    ApiServer(Box<ControlPlane>),
}

fn show(screen: &Screen, with_cluster: bool) -> Result<()> {
    screen.step("Two nodes, joined by VXLAN, and four pods, made of network namespaces");
    let mut stage = Stage::raise(with_cluster)?;
    for (name, pod) in &stage.pods {
        line(&format!("{name:<16} {:<12} {} {}", pod.node().name(), pod.ipv4(), pod.ipv6()));
    }

    screen.step(&format!("An agent on each node enforces the policies of {SCENARIO}"));
    let mut agents = stage.start_agents()?;
    agents.iter_mut().try_for_each(|agent| agent.wait_ready(BOUND))?;
    stage.compare(screen)?;

    screen.step("A policy changes while everything runs");
    let to_backend = ("other/stranger", "shop/backend");
    stage.watch_change(
        "a policy lets `other/stranger` in",
        &guests(&json!([{}])),
        to_backend,
        Outcome::Allowed,
    )?;
    stage.watch_change("the policy shuts it out again", &guests(&json!([])), to_backend, Outcome::Denied)?;

    screen.step("ClusterNetworkPolicies stand before the policies of a namespace, and behind them");
    show_tiers(&mut stage, &agents)?;

    screen.step("kill -9 for both agents");
    agents.into_iter().for_each(Agent::kill);
    stage.compare(screen)?;
    screen.success(
        "Nobody is left to enforce, and everything is still enforced: the rules live in the kernel.",
    );
    Ok(())
}

/// A guard rail that no namespace can undo but where it is left to it, and a default that a namespace opens.
fn show_tiers(stage: &mut Stage, agents: &[Agent]) -> Result<()> {
    let (to_backend, to_stranger) = (("other/stranger", "shop/backend"), ("shop/frontend", "other/stranger"));
    stage.watch_change(
        "`shop` lets `other/stranger` in",
        &guests(&json!([{}])),
        to_backend,
        Outcome::Allowed,
    )?;
    stage.watch_change(
        "an Admin policy denies it all the same",
        &guard_rail(&[]),
        to_backend,
        Outcome::Denied,
    )?;
    explain_denial("guard-rail", agents)?;
    let passes_on = guard_rail(&PORTS[..1]);
    stage.watch_change("it passes port 8080 on to `shop`", &passes_on, to_backend, Outcome::Allowed)?;
    stage.watch_change("a Baseline policy denies the rest", &default_deny(), to_stranger, Outcome::Denied)?;
    let rules = json!([{"ports": [{"port": PORTS[0]}]}]);
    let open = policy("other", "open", &json!({"podSelector": {}, "ingress": rules}));
    stage.watch_change("`other` opens port 8080", &open, to_stranger, Outcome::Allowed)
}

impl Stage {
    fn raise(with_cluster: bool) -> Result<Self> {
        let mut lab = Lab::new(Topology::Routed, Underlay::Vxlan)?;
        for node in NODES {
            lab.node(node)?;
        }
        let source = if with_cluster {
            line("… and a real kube-apiserver with etcd (built once, which takes some minutes)");
            let world = lab.world();
            let plane = ControlPlane::start(world.namespace(), world.ipv4())?;
            plane.api().put(&cluster_policy_definition(&["v1beta1"]))?;
            Source::ApiServer(Box::new(plane))
        } else {
            Source::Directory(Manifests::new()?)
        };
        let mut stage = Self { lab, pods: BTreeMap::new(), objects: BTreeMap::new(), source };
        for object in scenario_objects()? {
            stage.introduce(&object)?;
        }
        Ok(stage)
    }

    /// Tells the agents of an object of the scenario; a pod is raised first, so that it has real addresses.
    fn introduce(&mut self, object: &Value) -> Result<()> {
        let metadata = &object["metadata"];
        let namespace = metadata["namespace"].as_str().context("a namespace")?;
        self.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))?;
        if object["kind"] != "Pod" {
            return self.put(object);
        }
        let node = self.lab.nodes().iter().find(|node| object["spec"]["nodeName"] == node.name()).cloned();
        let name = format!("{namespace}/{}", metadata["name"].as_str().context("a name")?);
        let pod = self.lab.pod(&node.context("the scenario has pods on two nodes")?, &name)?;
        pod.serve(&PORTS.map(|port| (Protocol::Tcp, port)))?;
        let labels = metadata["labels"].as_object().into_iter().flatten();
        let labels: Vec<_> =
            labels.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
        let manifest = pod.manifest(&labels, &[]);
        self.pods.insert(name, pod);
        self.put(&manifest)
    }

    /// Tells the agents of an object as it is now.
    fn put(&mut self, object: &Value) -> Result<()> {
        let key = [&object["kind"], &object["metadata"]["name"]]
            .map(|part| part.as_str().unwrap_or_default().to_owned());
        match &self.source {
            Source::Directory(manifests) => {
                manifests.write(&format!("{}.json", key.join("-")), &object.to_string())?;
            }
            Source::ApiServer(plane) => plane.api().put(object)?,
        }
        self.objects.insert(key, object.clone());
        Ok(())
    }

    fn start_agents(&self) -> Result<Vec<Agent>> {
        let nodes = self.lab.nodes().iter();
        nodes
            .map(|node| match &self.source {
                Source::Directory(manifests) => Agent::start(node, manifests.path()),
                Source::ApiServer(plane) => {
                    let kubeconfig = plane.kubeconfig(User::Agent)?;
                    Agent::start_with(node, ["--kubeconfig".as_ref(), kubeconfig.as_os_str()])
                }
            })
            .collect()
    }

    /// Shows what the policies say beside what packets did, and fails if they differ.
    fn compare(&self, screen: &Screen) -> Result<()> {
        let cluster = self.cluster()?;
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
            let family = Some(Family::Ipv4);
            let connection = Connection { from, to, family, traffic, through_service: false };
            anyhow::Ok(judge.verdict(&connection).allowed())
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

    /// What the agents have been told.
    fn cluster(&self) -> Result<Cluster> {
        let list =
            json!({"apiVersion": "v1", "kind": "List", "items": self.objects.values().collect::<Vec<_>>()});
        let reading = manifest::parse(list.to_string().as_bytes(), SCENARIO)?;
        let (manifests, problems) = manifest::assemble([reading]);
        ensure!(problems.is_empty(), "{problems:?}");
        Ok(manifests.cluster)
    }

    /// Writes a policy and tells how long packets between two pods took to obey.
    fn watch_change(
        &mut self,
        what: &str,
        policy: &Value,
        (from, to): (&str, &str),
        expected: Outcome,
    ) -> Result<()> {
        let probe = Probe::new(&self.pods[from], self.pods[to].ipv4(), PORTS[0], Protocol::Tcp);
        self.put(policy)?;
        let after = self.lab.wait_for(&probe, expected, BOUND)?.as_secs_f64() * 1e3;
        line(&format!("{what}: packets obey {after:.1} ms after it was written"));
        Ok(())
    }
}

/// Shows how an agent explains what a policy denies.
fn explain_denial(policy: &str, agents: &[Agent]) -> Result<()> {
    let denial = wait_until(BOUND, || {
        let lines = agents.iter().map(Agent::denials).collect::<Result<Vec<_>>>()?.concat();
        lines.into_iter().find(|line| line.contains(policy)).context("no agent explains the denial")
    })?;
    let (_, explanation) = denial.split_once("explanation=\"").context("an explanation")?;
    let (explanation, _) = explanation.rsplit_once("\" ").context("the end of an explanation")?;
    line(&format!("the agent's log: {}", explanation.replace("\\\"", "\"")));
    Ok(())
}

/// A policy of `shop`: whom its backend lets in besides its frontend.
fn guests(rules: &Value) -> Value {
    let backend = json!({"matchLabels": {"tier": "backend"}});
    policy("shop", "guests", &json!({"podSelector": backend, "ingress": rules}))
}

/// An Admin policy: no pod of `other` reaches one of `shop`, but where `shop` may decide about it.
fn guard_rail(passed_on: &[u16]) -> Value {
    let in_namespace = |name: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    let from = json!([{"namespaces": in_namespace("other")}]);
    let pass = passed_on.iter().map(|port| {
        json!({
            "name": "left to shop", "action": "Pass", "from": from,
            "protocols": [{"tcp": {"destinationPort": {"number": port}}}],
        })
    });
    let deny = json!({"name": "others stay out", "action": "Deny", "from": from});
    let ingress: Vec<Value> = pass.chain([deny]).collect();
    let subject = json!({"namespaces": in_namespace("shop")});
    let spec = json!({"tier": "Admin", "priority": 10, "subject": subject, "ingress": ingress});
    cluster_policy("v1beta1", "guard-rail", &spec)
}

/// A Baseline policy: no pod reaches one that no policy of its namespace isolates.
fn default_deny() -> Value {
    let from = json!([{"namespaces": {}}]);
    let ingress = json!([{"action": "Deny", "from": from}]);
    let spec =
        json!({"tier": "Baseline", "priority": 100, "subject": {"namespaces": {}}, "ingress": ingress});
    cluster_policy("v1beta1", "default-deny", &spec)
}

/// What the demo would show, without packets.
fn dry_run(screen: &Screen, missing: &str) -> Result<()> {
    line(&format!(
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

fn scenario_objects() -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(scenario())?;
    serde_yaml::Deserializer::from_str(&text).map(|document| Ok(Value::deserialize(document)?)).collect()
}

fn scenario() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(SCENARIO)
}
