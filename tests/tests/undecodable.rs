//! Objects that cannot be decoded, from a real API server behind a proxy that spoils them in lists and watches.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::testbed::{listen, namespace};
use lab::{Agent, ControlPlane, Lab, Node, Outcome, Pod, Probe, Protocol, Topology, Underlay};
use serde_json::{Value, json};

/// The longest that anything may take.
const BOUND: Duration = Duration::from_secs(30);

const PORT: u16 = 8080;

/// The names of the objects that are spoiled.
type Spoiled = Arc<Mutex<BTreeSet<&'static str>>>;

/// Makes an object one that no client can decode, if it is to be spoiled.
fn spoil(spoiled: &Spoiled) -> impl Fn(&mut Value) + Send + Sync + use<> {
    let spoiled = spoiled.clone();
    move |object| {
        let is_spoiled = |name: &str| spoiled.lock().is_ok_and(|spoiled| spoiled.contains(name));
        if object["metadata"]["name"].as_str().is_some_and(is_spoiled) {
            object["metadata"]["labels"] = json!(["neither key", "nor value"]);
        }
    }
}

/// A node with pods, the API server, and what stands between that and the agent.
struct Scene {
    plane: ControlPlane,
    lab: Lab,
    node: Node,
    spoiled: Spoiled,
}

impl Scene {
    /// `None`, and a word about it, where no API server can be had.
    fn new() -> Result<Option<Self>> {
        let mut lab = Lab::new(Topology::Routed, Underlay::HostGateway)?;
        let node = lab.node("node-1")?;
        let Some(plane) = ControlPlane::beside(&lab)? else { return Ok(None) };
        Ok(Some(Self { plane, lab, node, spoiled: Spoiled::default() }))
    }

    /// A pod that is labelled with its name.
    fn pod(&mut self, namespace: &str, name: &str) -> Result<Pod> {
        let pod = self.lab.pod(&self.node, &format!("{namespace}/{name}"))?;
        listen(&pod, &[PORT])?;
        self.plane.api().put(&pod.manifest(&[("app", name)], &[]))?;
        Ok(pod)
    }

    fn spoil(&self, names: &[&'static str]) -> Result<()> {
        let mut spoiled = self.spoiled.lock().map_err(|_| anyhow::anyhow!("the proxy has panicked"))?;
        *spoiled = names.iter().copied().collect();
        Ok(())
    }

    fn start_agent(&self) -> Result<Agent> {
        let proxy = self.plane.proxy(self.node.namespace(), spoil(&self.spoiled))?;
        let kubeconfig = self.plane.kubeconfig_by(&proxy)?;
        let mut agent = Agent::start_with(&self.node, ["--kubeconfig".as_ref(), kubeconfig.as_os_str()])?;
        agent.wait_ready(BOUND)?;
        Ok(agent)
    }

    fn expect(&self, agent: &Agent, from: &Pod, to: &Pod, outcome: Outcome) -> Result<()> {
        let probe = Probe::new(from, to.ipv4(), PORT, Protocol::Tcp);
        let waited = self.lab.wait_for(&probe, outcome, BOUND);
        waited.map(drop).with_context(|| agent.log().unwrap_or_default())
    }
}

/// Lets the pods labelled `app: client` reach those labelled `app: APP`; `version` tells one writing from the next.
fn policy(namespace: &str, name: &str, app: &str, version: u32) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name, "annotations": {"version": version.to_string()}},
        "spec": {
            "podSelector": {"matchLabels": {"app": app}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}],
        },
    })
}

/// Waits until the agent says of how many objects of a kind, and of no other, that they cannot be decoded.
fn wait_undecodable(agent: &Agent, kind: &str, plural: &str, count: u64) -> Result<()> {
    let metric = format!("podfence_undecodable_objects{{kind=\"{kind}\"}}");
    let begin = Instant::now();
    while agent.metric(&metric)? != count {
        ensure!(begin.elapsed() < BOUND, "{metric} is not {count}:\n{}", agent.log()?);
        std::thread::sleep(Duration::from_millis(5));
    }
    let remark = format!("objects of the API server cannot be decoded ({count} {plural})");
    let expected = if count > 0 { format!("ok\n{remark}\n") } else { "ok\n".to_owned() };
    assert_eq!(agent.get("/readyz")?, (200, expected));
    Ok(())
}

#[test]
fn what_cannot_be_decoded_in_a_list_or_a_watch_narrows_and_stops_no_other() -> Result<()> {
    let Some(mut scene) = Scene::new()? else { return Ok(()) };
    let api = scene.plane.api().clone();
    for name in ["shop", "other"] {
        api.put(&namespace(name, &json!({})))?;
    }
    let [client, web] = [scene.pod("shop", "client")?, scene.pod("shop", "web")?];
    let [stranger, till] = [scene.pod("other", "stranger")?, scene.pod("other", "till")?];
    api.put(&policy("shop", "bad", "web", 1))?;
    scene.spoil(&["bad"])?;

    // In the list: its namespace is isolated, the rest is as ever.
    let agent = scene.start_agent()?;
    wait_undecodable(&agent, "NetworkPolicy", "networkpolicies", 1)?;
    for (from, to, outcome) in [
        (&client, &web, Outcome::Denied),
        (&stranger, &client, Outcome::Denied),
        (&stranger, &till, Outcome::Allowed),
    ] {
        scene.expect(&agent, from, to, outcome)?;
    }
    ensure!(agent.log()?.contains("shop/bad"), "the log names it:\n{}", agent.log()?);

    // The watch goes on, and brings it again.
    api.put(&policy("other", "till", "till", 1))?;
    scene.expect(&agent, &stranger, &till, Outcome::Denied)?;
    api.put(&policy("shop", "bad", "web", 2))?;
    api.delete(&policy("other", "till", "till", 1))?;
    scene.expect(&agent, &stranger, &till, Outcome::Allowed)?;
    scene.expect(&agent, &client, &web, Outcome::Denied)?;

    // It is mended.
    scene.spoil(&[])?;
    api.put(&policy("shop", "bad", "web", 3))?;
    scene.expect(&agent, &client, &web, Outcome::Allowed)?;
    scene.expect(&agent, &stranger, &web, Outcome::Denied)?;
    wait_undecodable(&agent, "NetworkPolicy", "networkpolicies", 0)?;

    // A pod stays what it was known to be.
    scene.spoil(&["client"])?;
    api.put(&client.manifest(&[("app", "nobody")], &[]))?;
    wait_undecodable(&agent, "Pod", "pods", 1)?;
    scene.expect(&agent, &client, &web, Outcome::Allowed)?;
    scene.expect(&agent, &stranger, &web, Outcome::Denied)?;
    api.delete(&client.manifest(&[], &[]))?;
    scene.expect(&agent, &client, &web, Outcome::Denied)?;
    wait_undecodable(&agent, "Pod", "pods", 0)
}
