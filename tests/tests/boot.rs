//! A node that boots: its namespace and its processes are new, and all it has is the file. It is closed from the first
//! packet for what was isolated, and open for what was open, whether or not there is an API server.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::listing::Listing;
use lab::testbed::{BOUND, TestResult, Testbed, policy, status, wait_until};
use lab::{
    Agent, ControlPlane, Endpoint, Namespace, Node, Outcome, Pod, Probe, Prober, Protocol, Topology,
    Underlay, User, on_each_topology, program,
};
use podfence_cni::protocol::PodReference;
use podfence_cni::state::{Error, State, readdress};
use podfence_cni::{closed, state};
use serde_json::{Value, json};
use tempfile::TempDir;

const PORT: u16 = 8080;

const NODE: &str = "node-1";

/// How often an agent writes the state at most, and some more.
const WRITTEN: Duration = Duration::from_secs(15);

/// A node with a web server that only the client may reach, and that reaches nobody; and what is beside them.
struct Scene {
    testbed: Testbed,
    node: Node,
    web: Pod,
    client: Pod,
    stranger: Pod,
    far: Pod,
}

impl Scene {
    /// Raises the same network each time, but for so many pods that come first and shift the addresses of the others.
    fn raise(topology: Topology, shift: usize) -> Result<Self> {
        let mut testbed = Testbed::new(topology, Underlay::HostGateway, &[NODE, "node-2"])?;
        for index in 0..shift {
            let node = testbed.node(NODE)?.clone();
            testbed.lab.pod(&node, &format!("elsewhere/earlier-{index}"))?;
        }
        let mut pod = |node, name| testbed.pod(node, name, &[PORT]);
        let (web, client) = (pod(NODE, "shop/web")?, pod(NODE, "shop/client")?);
        let (stranger, far) = (pod(NODE, "shop/stranger")?, pod("node-2", "shop/far")?);
        let node = testbed.node(NODE)?.clone();
        for policy in policies() {
            testbed.put(&policy)?;
        }
        Ok(Self { testbed, node, web, client, stranger, far })
    }

    fn allowed(&self) -> Vec<Probe> {
        [self.allowed_to_pods(), between(&self.node, &self.web)].concat()
    }

    /// Without what the node sends.
    fn allowed_to_pods(&self) -> Vec<Probe> {
        let pairs = [(&self.client, &self.web), (&self.stranger, &self.client), (&self.far, &self.stranger)];
        pairs.into_iter().flat_map(|(from, to)| between(from, to)).collect()
    }

    fn denied(&self) -> Vec<Probe> {
        let pairs = [(&self.stranger, &self.web), (&self.far, &self.web), (&self.web, &self.client)];
        pairs.into_iter().flat_map(|(from, to)| between(from, to)).collect()
    }

    fn expect(&self, allowed: &[Probe], denied: &[Probe]) -> Result<()> {
        for (probes, expected) in [(allowed, Outcome::Allowed), (denied, Outcome::Denied)] {
            for (probe, reply) in probes.iter().zip(self.testbed.lab.probe(probes)?) {
                ensure!(reply.outcome == expected, "{probe}: {:?}, not {expected:?}", reply.outcome);
            }
        }
        Ok(())
    }

    /// Starts an agent that has no source of objects, as there is no API server.
    fn start_agent_alone(&self, disk: &Disk, arguments: &[&str]) -> Result<Agent> {
        let kubeconfig = disk.0.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "none",
            "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}],
            "users": [{"name": "none", "user": {}}],
            "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
        });
        fs::write(&kubeconfig, config.to_string())?;
        let (kubeconfig, state) = (kubeconfig.display().to_string(), disk.state().display().to_string());
        let arguments = [&["--kubeconfig", &kubeconfig, "--state", &state], arguments].concat();
        Agent::start_with(&self.node, arguments)
    }

    /// Has an agent enforce once and save that.
    fn save(&self, disk: &Disk, arguments: &[&str]) -> Result<State> {
        let path = disk.state().display().to_string();
        let agent = self.testbed.start_agent_with(NODE, &[&["--state", &path], arguments].concat())?;
        let saved = disk.wait_saved()?;
        agent.kill();
        Ok(saved)
    }
}

/// A connection in each family.
fn between(from: &Endpoint, to: &Endpoint) -> Vec<Probe> {
    to.addresses().into_iter().map(|to| Probe::new(from, to, PORT, Protocol::Udp)).collect()
}

/// Only the client may reach the web server, which reaches nobody.
fn policies() -> [Value; 2] {
    let web = json!({"matchLabels": {"app": "web"}});
    let from_client = json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]);
    [
        policy("shop", "from-client", &json!({"podSelector": web, "ingress": from_client})),
        policy("shop", "to-nobody", &json!({"podSelector": web, "policyTypes": ["Egress"]})),
    ]
}

/// What of a node outlives a reboot.
struct Disk(TempDir);

impl Disk {
    fn new() -> Result<Self> {
        Ok(Self(TempDir::with_prefix("podfence-disk-")?))
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("podfence/state")
    }

    fn wait_saved(&self) -> Result<State> {
        wait_until(BOUND, || {
            let saved = State::read(&self.state(), Some(NODE))?;
            ensure!(saved.is_some() && state::Ranges::exist(&self.state()), "nothing is saved");
            Ok(saved.expect("it is there"))
        })
    }
}

fn restore(namespace: &Namespace, state: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = namespace.command(program("podfence-controller")?);
    Ok(command.arg("restore").arg("--state").arg(state).args(arguments).output()?)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn boots_without_a_source(topology: Topology) -> TestResult {
    let disk = Disk::new()?;
    Scene::raise(topology, 0)?.save(&disk, &[])?;

    let scene = Scene::raise(topology, 0)?;
    let output = restore(scene.node.namespace(), &disk.state(), &["--node-name", NODE])?;
    ensure!(output.status.success() && stderr(&output).contains("enforcing the state of 20"), "{output:?}");
    scene.expect(&scene.allowed(), &scene.denied())?;
    let prober = Prober::start(&scene.allowed(), &scene.denied())?;

    // An agent that knows nothing leaves it so, and says it.
    let mut agent = scene.start_agent_alone(&disk, &[])?;
    agent.wait_unready("enforcing the state of 20", BOUND)?;
    assert_eq!(agent.metric("podfence_restored")?, 1);
    let said = status(&scene.node)?;
    assert!(said["restored"].as_str().is_some_and(|time| time.starts_with("20")), "{said:#}");
    agent.kill();

    // One that knows the objects takes over, without a packet noticing it.
    let agent = scene.testbed.start_agent(NODE)?;
    let _other = scene.testbed.start_agent("node-2")?;
    scene.testbed.wait_in_step()?;
    assert_eq!(status(&scene.node)?["restored"], Value::Null);
    assert_eq!(agent.metric("podfence_restored")?, 0);
    let totals = prober.stop()?;
    assert_eq!((totals.leaks, totals.wrong_denials), (0, 0), "{totals:?}");
    Ok(())
}

/// The pods that came before have left their addresses to others.
fn pods_come_back_with_addresses_of_others(topology: Topology) -> TestResult {
    let disk = Disk::new()?;
    Scene::raise(topology, 0)?.save(&disk, &["--strict-start"])?;
    let scene = Scene::raise(topology, 1)?;
    let mut agent = scene.start_agent_alone(&disk, &[])?;
    agent.wait_unready("enforcing the state of", BOUND)?;
    let readdress = |pod: &str, addresses: &[IpAddr]| {
        let (namespace, name) = pod.split_once('/').expect("namespace/name");
        let pod = PodReference { namespace: namespace.to_owned(), name: name.to_owned(), uid: None };
        scene.node.namespace().run(|| Ok(readdress(&disk.state(), Some(NODE), &pod, addresses)))
    };
    for pod in [&scene.client, &scene.web, &scene.stranger, &scene.client] {
        readdress(pod.name(), &pod.addresses())??;
    }
    scene.expect(&scene.allowed(), &scene.denied())?;

    // Nobody knows what another pod may, nor what this one may at a second address.
    let unknown = readdress("shop/unknown", &["10.244.1.77".parse()?])?;
    assert!(matches!(unknown, Err(Error::UnknownPod(_))), "{unknown:?}");
    let several = [scene.web.addresses(), vec!["10.244.1.78".parse()?]].concat();
    let several = readdress("shop/web", &several)?;
    assert!(matches!(several, Err(Error::Addresses { .. })), "{several:?}");
    scene.expect(&scene.allowed(), &scene.denied())?;

    // What comes of it is what an agent makes of the objects.
    agent.kill();
    let prober = Prober::start(&scene.allowed(), &scene.denied())?;
    let agent = scene.testbed.start_agent_with(NODE, &["--strict-start"])?;
    let totals = prober.stop()?;
    assert_eq!((totals.leaks, totals.wrong_denials), (0, 0), "{totals:?}");
    agent.kill();
    let now = readdress("shop/web", &scene.web.addresses())?;
    assert!(matches!(now, Err(Error::NotRestored)), "{now:?}");
    Ok(())
}

on_each_topology! { boots_without_a_source pods_come_back_with_addresses_of_others }

#[test]
fn what_is_restored_is_what_was_saved() -> TestResult {
    let disk = Disk::new()?;
    let scene = Scene::raise(Topology::Routed, 0)?;
    scene.testbed.put(&policy(
        "shop",
        "blocks",
        &json!({
            "podSelector": {"matchLabels": {"app": "client"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": 8000, "endPort": 8999}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.244.2.0/24"]}},
                               {"ipBlock": {"cidr": "fd00::/8"}}, {"ipBlock": {"cidr": "255.0.0.0/8"}}]}],
        }),
    ))?;
    let saved = scene.save(&disk, &["--strict-start", "--pods-to-node", "policy"])?;
    let pods: Vec<_> = saved.header.pods.iter().map(|saved| saved.pod.to_string()).collect();
    assert_eq!(pods, ["shop/client", "shop/stranger", "shop/web"]);
    let before = Listing::of(scene.node.namespace())?;
    let booted = Namespace::new()?;
    let output = restore(&booted, &disk.state(), &["--node-name", NODE])?;
    ensure!(output.status.success(), "{output:?}");
    // The mark is all that is more.
    let differences = before.differences(&Listing::of(&booted)?);
    assert!(differences.iter().all(|line| line.contains("restored")), "{differences:#?}");
    assert_eq!(differences.len(), 3, "{differences:#?}");
    let again = restore(&booted, &disk.state(), &["--node-name", NODE])?;
    ensure!(again.status.success() && stderr(&again).contains("has the table already"), "{again:?}");
    Ok(())
}

/// A file is refused, and what is known of the pods' addresses is closed until an agent enforces.
#[test]
fn a_state_that_cannot_be_used_closes_the_pods() -> TestResult {
    let disk = Disk::new()?;
    Scene::raise(Topology::Routed, 0)?.save(&disk, &[])?;
    let whole = fs::read(disk.state())?;
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    let newer = [b"podfence state 2", whole.get(b"podfence state 1".len()..).unwrap_or_default()].concat();
    let cases: [(&str, Option<&[u8]>, &str); 5] = [
        ("damaged", Some(&damaged), "is damaged"),
        ("truncated", Some(&whole[..whole.len() / 3]), "is damaged"),
        ("empty", Some(b""), "is damaged"),
        ("newer", Some(&newer), "is no state that podfence"),
        ("missing", None, "is missing, although a state was saved there"),
    ];
    let scene = Scene::raise(Topology::Routed, 0)?;
    let of_node = between(&scene.node, &scene.web);
    let of_pods = [scene.allowed_to_pods(), scene.denied()].concat();
    for (name, content, reason) in cases {
        match content {
            Some(content) => fs::write(disk.state(), content)?,
            None => fs::remove_file(disk.state())?,
        }
        let output = restore(scene.node.namespace(), &disk.state(), &["--node-name", NODE])?;
        let said = stderr(&output);
        ensure!(output.status.code() == Some(1) && said.contains(reason), "{name}: {output:?}");
        ensure!(said.contains("10.244.1.0/24, fd44:0:0:1::/64 stay closed"), "{name}: {said}");
        scene.expect(&of_node, &of_pods)?;
        // The agent does the same, says so, and opens when it is in step.
        scene.node.namespace().run(|| Ok(closed::open_all()?))?;
        let mut agent = scene.start_agent_alone(&disk, &[])?;
        agent.wait_unready("cannot list pods", BOUND)?;
        ensure!(agent.log()?.contains(reason), "{name}: {}", agent.log()?);
        assert_eq!(agent.counter("state_failures")?, 1);
        agent.kill();
    }
    scene.expect(&of_node, &of_pods)?;
    let _agent = scene.testbed.start_agent(NODE)?;
    wait_until(BOUND, || scene.expect(&scene.allowed(), &scene.denied()))?;
    let tables = scene.node.namespace().feed("nft", &["list", "tables"], "")?;
    assert!(!tables.contains("podfence_closed"), "{tables}");
    Ok(())
}

#[test]
fn the_state_of_another_node_is_not_restored() -> TestResult {
    let disk = Disk::new()?;
    Scene::raise(Topology::Routed, 0)?.save(&disk, &[])?;
    let node = Namespace::new()?;
    let tables = || node.feed("nft", &["list", "tables"], "");
    let output = restore(&node, &disk.state(), &["--node-name", "node-2"])?;
    let said = stderr(&output);
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(said.contains("is the state of node node-1 on host"), "{said}");
    ensure!(said.contains("are open, because no range of their addresses is known"), "{said}");
    assert_eq!(tables()?, "");
    let ranges = ["--node-name", "node-2", "--pod-ranges", "10.9.0.0/24,fd99::/64"];
    let output = restore(&node, &disk.state(), &ranges)?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(stderr(&output).contains("10.9.0.0/24, fd99::/64 stay closed"), "{output:?}");
    assert_eq!(tables()?, "table inet podfence_closed\n");
    // A node that never had a state boots, too.
    let output = restore(&node, Path::new("/nonexistent/state"), &ranges)?;
    ensure!(output.status.success() && stderr(&output).contains("no state was saved"), "{output:?}");
    Ok(())
}

#[test]
fn a_full_disk_is_in_nobodys_way() -> TestResult {
    let scene = Scene::raise(Topology::Routed, 0)?;
    let disk = Disk::new()?;
    let folder = disk.0.path().display().to_string();
    // In a mount namespace of its own, so that it goes with the agent.
    let script = format!("mount -t tmpfs -o size=16k podfence-lab {folder} && exec \"$@\"");
    let listen = SocketAddr::from(([127, 0, 0, 1], 9400));
    let mut command = scene.node.namespace().command("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(program("podfence-controller")?);
    command.args(["run", "--node-name", NODE, "--listen", &listen.to_string(), "--manifests"]);
    command.arg(scene.testbed.manifests.path()).arg("--state").arg(disk.state());
    let mut agent = Agent::of_command(&scene.node, listen, command)?;
    agent.wait_ready(BOUND)?;
    agent.wait_for_counter("state_failures", 1, BOUND)?;
    scene.testbed.put(&policy("shop", "more", &json!({"podSelector": {}, "policyTypes": ["Egress"]})))?;
    agent.wait_for_counter("state_failures", 2, WRITTEN)?;
    let warnings = agent.log()?.matches("the state is not saved").count();
    assert_eq!(warnings, 1, "{}", agent.log()?);
    assert_eq!(agent.get("/readyz")?.0, 200);
    scene.expect(&[], &scene.denied())
}

#[test]
fn what_an_agent_enforced_last_is_saved_when_it_stops() -> TestResult {
    let disk = Disk::new()?;
    let scene = Scene::raise(Topology::Routed, 0)?;
    let path = disk.state().display().to_string();
    let agent = scene.testbed.start_agent_with(NODE, &["--state", &path])?;
    let first = disk.wait_saved()?;
    scene.testbed.put(&policy("shop", "more", &json!({"podSelector": {}, "policyTypes": ["Egress"]})))?;
    let to_far = Probe::new(&scene.stranger, scene.far.ipv4(), PORT, Protocol::Udp);
    scene.testbed.lab.wait_for(&to_far, Outcome::Denied, BOUND)?;
    let status = agent.stop(Duration::from_secs(1))?;
    assert_eq!(status.code(), Some(0));
    let last = disk.wait_saved()?;
    assert_ne!(first.header.policies, last.header.policies);

    // Where nothing is to be enforced any more, nothing is restored.
    let program = program("podfence-controller")?.display().to_string();
    scene.node.namespace().feed(&program, &["cleanup", "--state", &path], "")?;
    let output = restore(scene.node.namespace(), &disk.state(), &["--node-name", NODE])?;
    ensure!(output.status.success() && stderr(&output).contains("no state was saved"), "{output:?}");
    Ok(())
}

/// What several plugins close and open at once is what each has asked for.
#[test]
fn addresses_are_closed_and_opened_at_once() -> TestResult {
    let scene = Scene::raise(Topology::Bridge, 0)?;
    let namespace = scene.node.namespace();
    let opposite = |probes: &[Probe]| scene.expect(&[], probes);
    namespace.run(|| Ok(closed::close(&scene.client.addresses())?))?;
    let of_client = [between(&scene.client, &scene.web), between(&scene.stranger, &scene.client)].concat();
    // Its node reaches it all the same.
    scene.expect(&between(&scene.node, &scene.client), &of_client)?;

    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=4u8)
            .map(|number| {
                scope.spawn(move || {
                    namespace.run(|| {
                        let own: Vec<IpAddr> =
                            vec![[10, 9, 0, number].into(), [0xfd99, 0, 0, 0, 0, 0, 0, number.into()].into()];
                        for _ in 0..50 {
                            closed::close(&own)?;
                            let all = closed::addresses()?;
                            ensure!(own.iter().all(|address| all.contains(address)), "{own:?} in {all:?}");
                            closed::open(&own)?;
                        }
                        Ok(())
                    })
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    let closed_now = namespace.run(|| Ok(closed::addresses()?))?;
    assert_eq!(closed_now.len(), 2, "{closed_now:?}");

    // An agent opens what it knows.
    let _agent = scene.testbed.start_agent(NODE)?;
    wait_until(BOUND, || {
        let left = namespace.run(|| Ok(closed::addresses()?))?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    scene.expect(&scene.allowed(), &scene.denied())
}

#[test]
fn a_booted_node_is_current_within_a_second_of_the_api_server() -> TestResult {
    let disk = Disk::new()?;
    Scene::raise(Topology::Routed, 0)?.save(&disk, &[])?;
    let scene = Scene::raise(Topology::Routed, 0)?;
    let Some(mut plane) = ControlPlane::beside(&scene.testbed.lab)? else { return Ok(()) };
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    plane.api().put(&namespace)?;
    plane.api().put(&scene.node.manifest())?;
    for object in scene.testbed.objects()?.iter().filter(|object| object["kind"] == "Pod") {
        plane.api().put(object)?;
    }
    // One of the policies has been deleted while the node was down.
    let [from_client, _] = policies();
    plane.api().put(&from_client)?;
    plane.api_server.kill();

    let kubeconfig = plane.kubeconfig(User::Agent)?.display().to_string();
    let state = disk.state().display().to_string();
    let mut agent = Agent::start_with(&scene.node, ["--kubeconfig", &kubeconfig, "--state", &state])?;
    agent.wait_unready("enforcing the state of", BOUND)?;
    scene.expect(&scene.allowed(), &scene.denied())?;
    // By now it tries as seldom as it will.
    std::thread::sleep(Duration::from_secs(5));
    plane.api_server.restart()?;
    plane.wait_ready()?;
    agent.wait_ready(Duration::from_secs(1))?;
    let from_web = Probe::new(&scene.web, scene.client.ipv4(), PORT, Protocol::Udp);
    scene.expect(&[from_web], &[])?;
    Ok(())
}
