//! What the CNI plugin is answered is true: from the first packet on a pod is enforced, before the API server shows its
//! addresses, and until its sandbox is gone.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::testbed::{BOUND, listen, namespace, policy, wait_until};
use lab::{
    Agent, ControlPlane, Endpoint, Lab, Node, Outcome, Pod, Probe, Protocol, Topology, Underlay, User,
};
use podfence_cni::protocol::{self, Answer, Attachment, PodReference, Request, SOCKET, Sandbox};
use serde_json::{Value, json};
use tempfile::TempDir;

const PORT: u16 = 8080;

/// How long the plugin waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

lab::on_each_topology! {
    a_pod_is_enforced_before_its_status_shows_its_addresses
    an_agent_that_is_killed_leaves_what_it_was_told_to_the_next
    an_address_is_free_as_soon_as_its_sandbox_is_gone
    a_pod_that_is_deleted_stays_isolated_while_its_sandbox_runs
}

/// A DaemonSet of the API server, as the chart's is called.
fn daemon_set() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"namespace": "kube-system", "name": "podfence"},
        "spec": {
            "selector": {"matchLabels": {"app": "podfence"}},
            "template": {
                "metadata": {"labels": {"app": "podfence"}},
                "spec": {"containers": [{"name": "podfence", "image": "example.invalid/none"}]},
            },
        },
    })
}

#[test]
fn the_plugin_goes_with_the_daemon_set_and_stays_in_an_upgrade() -> Result<()> {
    const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}"#;
    let Some(scene) = Scene::raise(Topology::Bridge)? else { return Ok(()) };
    let folder = scene.folder.path();
    let (list, kubeconfig) = (folder.join("10-net.conflist"), scene.plane.kubeconfig(User::Administrator)?);
    fs::write(&list, LIST)?;
    let installed = || Ok::<_, anyhow::Error>(fs::read_to_string(&list)?.contains("podfence-cni"));
    scene.plane.api().put(&namespace("kube-system", &json!({})))?;
    scene.plane.api().put(&daemon_set())?;
    for deleted in [false, true] {
        let mut arguments = vec!["--install-cni".into(), "--daemon-set=kube-system/podfence".into()];
        for (flag, path) in [
            ("--kubeconfig", &kubeconfig),
            ("--cni-socket", &scene.socket()),
            ("--cni-configurations", &folder.to_owned()),
            ("--cni-programs", &folder.to_owned()),
        ] {
            arguments.extend([PathBuf::from(flag), path.clone()]);
        }
        let mut agent = Agent::start_with(&scene.node, arguments)?;
        agent.wait_ready(BOUND)?;
        wait_until(BOUND, || {
            ensure!(installed()?, "the plugin is not installed");
            Ok(())
        })?;
        if deleted {
            scene.plane.api().delete(&daemon_set())?;
        }
        agent.stop(BOUND)?;
        ensure!(installed()? != deleted, "deleted: {deleted}");
    }
    ensure!(fs::read_to_string(&list)? == LIST);
    Ok(())
}

/// A node with a client that the policy of `app: web` lets in, and a stranger.
struct Scene {
    plane: ControlPlane,
    lab: Lab,
    node: Node,
    client: Pod,
    stranger: Pod,
    folder: TempDir,
}

impl Scene {
    /// `None`, and a word about it, where no API server can be had.
    fn raise(topology: Topology) -> Result<Option<Self>> {
        let mut lab = Lab::new(topology, Underlay::HostGateway)?;
        let node = lab.node("node-1")?;
        let Some(plane) = ControlPlane::beside(&lab)? else { return Ok(None) };
        let from = json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]);
        let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": from});
        for object in [namespace("shop", &json!({})), node.manifest(), policy("shop", "web", &spec)] {
            plane.api().put(&object)?;
        }
        let pods = ["client", "stranger"].map(|name| -> Result<Pod> {
            let pod = lab.pod(&node, &format!("shop/{name}"))?;
            plane.api().put(&pod.manifest(&[("app", name)], &[]))?;
            Ok(pod)
        });
        let [client, stranger] = pods;
        let (client, stranger) = (client?, stranger?);
        Ok(Some(Self { plane, lab, node, client, stranger, folder: TempDir::new()? }))
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    fn start_agent(&self) -> Result<Agent> {
        let kubeconfig = self.plane.kubeconfig(User::Agent)?;
        let arguments = ["--kubeconfig".into(), kubeconfig, "--cni-socket".into(), self.socket()];
        let mut agent = Agent::start_with(&self.node, arguments)?;
        agent.wait_ready(BOUND)?;
        Ok(agent)
    }

    /// A pod that listens, of which the API server shows everything but its addresses.
    fn start_pod(&mut self, name: &str) -> Result<Pod> {
        let pod = self.lab.pod(&self.node, &format!("shop/{name}"))?;
        listen(&pod, &[PORT])?;
        let mut object = pod.manifest(&[("app", "web")], &[]);
        object.as_object_mut().context("an object")?.remove("status");
        self.plane.api().put(&object)?;
        Ok(pod)
    }

    /// What the plugin reports of a pod.
    fn sandbox(&self, pod: &Pod) -> Result<Sandbox> {
        let (namespace, name) = pod.name().split_once('/').context("a namespace and a name")?;
        let object = self.plane.api().get(&format!("/api/v1/namespaces/{namespace}/pods/{name}"))?;
        Ok(Sandbox {
            attachment: attachment(pod),
            pod: PodReference {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                uid: object["metadata"]["uid"].as_str().map(str::to_owned),
            },
            addresses: pod.addresses(),
        })
    }

    fn ask(&self, request: &Request) -> Result<Answer> {
        Ok(protocol::ask(&self.socket(), request, PATIENCE)?)
    }

    fn add(&self, pod: &Pod) -> Result<()> {
        let answer = self.ask(&Request::Add(self.sandbox(pod)?))?;
        ensure!(answer == Answer::Done, "{answer:?}");
        Ok(())
    }

    /// Tries all that is about a pod that is isolated, once.
    fn check_isolated(&self, pod: &Pod) -> Result<()> {
        self.check([(&*self.client, pod, true), (&*self.stranger, pod, false)])
    }

    fn check<'a>(&self, expected: impl IntoIterator<Item = (&'a Endpoint, &'a Pod, bool)>) -> Result<()> {
        let mut probes = Vec::new();
        for (from, to, allowed) in expected {
            let expected = if allowed { Outcome::Allowed } else { Outcome::Denied };
            for address in to.addresses() {
                probes.push((Probe::new(from, address, PORT, Protocol::Tcp), expected));
            }
        }
        let tried: Vec<_> = probes.iter().map(|(probe, _)| probe.clone()).collect();
        for ((probe, expected), reply) in probes.iter().zip(self.lab.probe(&tried)?) {
            ensure!(reply.outcome == *expected, "{probe}: {:?}, not {expected:?}", reply.outcome);
        }
        Ok(())
    }
}

fn attachment(pod: &Pod) -> Attachment {
    Attachment { container: pod.name().replace('/', "-"), interface: "eth0".to_owned() }
}

fn a_pod_is_enforced_before_its_status_shows_its_addresses(topology: Topology) -> Result<()> {
    let Some(mut scene) = Scene::raise(topology)? else { return Ok(()) };
    let agent = scene.start_agent()?;
    let pods = ["one", "two"].map(|name| scene.start_pod(name));
    for pod in pods {
        let pod = pod?;
        scene.add(&pod)?;
        scene.check_isolated(&pod)?;
        let sandbox = scene.sandbox(&pod)?;
        ensure!(scene.ask(&Request::Check(sandbox))? == Answer::Done);
    }
    // With its status in between, nothing changes.
    let pod = scene.lab.pods().last().context("a pod")?.clone();
    scene.plane.api().put(&pod.manifest(&[("app", "web")], &[]))?;
    scene.check_isolated(&pod)?;
    ensure!(scene.ask(&Request::Status)? == Answer::Done);
    ensure!(agent.metric("podfence_sandbox_enforced_seconds_count")? == 2);

    // Without the API server, what is enforced stays so, and what is unknown is refused.
    scene.plane.api_server.kill();
    let known = scene.lab.pods().last().context("a pod")?.clone();
    let unknown = Sandbox {
        pod: PodReference { namespace: "shop".to_owned(), name: "none".to_owned(), uid: None },
        addresses: vec!["10.244.1.250".parse()?],
        attachment: Attachment { container: "none".to_owned(), interface: "eth0".to_owned() },
    };
    let Answer::Refused(reason) = scene.ask(&Request::Add(unknown))? else {
        anyhow::bail!("it is added");
    };
    ensure!(reason.contains("pod shop/none with this UID is unknown on node node-1"), "{reason}");
    scene.check_isolated(&known)
}

fn an_agent_that_is_killed_leaves_what_it_was_told_to_the_next(topology: Topology) -> Result<()> {
    let Some(mut scene) = Scene::raise(topology)? else { return Ok(()) };
    let agent = scene.start_agent()?;
    let pod = scene.start_pod("web")?;
    scene.add(&pod)?;
    agent.kill();
    let gone = protocol::ask(&scene.socket(), &Request::Status, PATIENCE);
    ensure!(matches!(gone, Err(protocol::Error::Away { .. })), "{gone:?}");
    scene.check_isolated(&pod)?;
    let _agent = scene.start_agent()?;
    scene.check_isolated(&pod)
}

fn an_address_is_free_as_soon_as_its_sandbox_is_gone(topology: Topology) -> Result<()> {
    let Some(mut scene) = Scene::raise(topology)? else { return Ok(()) };
    let _agent = scene.start_agent()?;
    let (old, new) = (scene.start_pod("old")?, scene.start_pod("new")?);
    scene.add(&old)?;
    scene.plane.api().put(&old.manifest(&[("app", "web")], &[]))?;
    ensure!(scene.ask(&Request::Del(attachment(&old)))? == Answer::Done);
    ensure!(scene.ask(&Request::Del(attachment(&old)))? == Answer::Done, "DEL twice");
    // The next pod has the address while the first one's status still shows it. No policy selects it.
    let mut object = new.manifest(&[("app", "open")], &[]);
    object.as_object_mut().context("an object")?.remove("status");
    scene.plane.api().put(&object)?;
    scene.lab.move_addresses(&old, &new)?;
    listen(&new, &[PORT])?;
    wait_until(BOUND, || {
        scene.add(&new)?;
        scene.check([(&*scene.client, &new, true), (&*scene.stranger, &new, true)])
    })
}

fn a_pod_that_is_deleted_stays_isolated_while_its_sandbox_runs(topology: Topology) -> Result<()> {
    let Some(mut scene) = Scene::raise(topology)? else { return Ok(()) };
    let agent = scene.start_agent()?;
    let pod = scene.start_pod("web")?;
    scene.add(&pod)?;
    let object: Value = pod.manifest(&[("app", "web")], &[]);
    scene.plane.api().put(&object)?;
    let changes = agent.metric("podfence_transactions_total")?;
    scene.plane.api().delete(&object)?;
    // It is seen when the pod counts as one that has finished: nobody's peer, as its door says.
    wait_until(BOUND, || {
        ensure!(agent.metric("podfence_transactions_total")? > changes, "nothing has changed");
        Ok(())
    })?;
    scene.check_isolated(&pod)?;
    ensure!(scene.ask(&Request::Gc { valid: Vec::new() })? == Answer::Done);
    wait_until(BOUND, || scene.check([(&*scene.stranger, &pod, true)]))
}
