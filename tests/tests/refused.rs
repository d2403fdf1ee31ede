//! A policy that the kernel refuses, for a reason that stays, written to a real API server.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::testbed::{listen, namespace, policy, wait_until};
use lab::{Agent, ControlPlane, Lab, Outcome, Pod, Probe, Prober, Protocol, Topology, Underlay, User};
use serde_json::{Value, json};

/// The longest that anything may take.
const BOUND: Duration = Duration::from_secs(30);

const PORT: u16 = 8080;

/// A policy that lets the client reach the pods labelled `app: APP` on a port.
fn from_client(app: &str, port: u16) -> Value {
    let client = json!({"podSelector": {"matchLabels": {"app": "client"}}});
    let spec = json!({
        "podSelector": {"matchLabels": {"app": app}},
        "ingress": [{"from": [client], "ports": [{"port": port}]}],
    });
    policy("shop", app, &spec)
}

/// A node with four pods, each labelled with its name, and what its agent says.
struct Scene {
    plane: ControlPlane,
    lab: Lab,
    agent: Agent,
    pods: [Pod; 4],
}

impl Scene {
    /// `None`, and a word about it, where no API server can be had.
    fn raise() -> Result<Option<Self>> {
        let mut lab = Lab::new(Topology::Routed, Underlay::HostGateway)?;
        let node = lab.node("node-1")?;
        let Some(plane) = ControlPlane::beside(&lab)? else { return Ok(None) };
        plane.api().put(&namespace("shop", &json!({})))?;
        let mut pod = |name: &str| -> Result<Pod> {
            let pod = lab.pod(&node, &format!("shop/{name}"))?;
            listen(&pod, &[PORT])?;
            plane.api().put(&pod.manifest(&[("app", name)], &[]))?;
            Ok(pod)
        };
        let pods = [pod("client")?, pod("stranger")?, pod("bad")?, pod("good")?];
        let kubeconfig = plane.kubeconfig(User::Agent)?;
        let mut agent = Agent::start_with(&node, ["--kubeconfig".as_ref(), kubeconfig.as_os_str()])?;
        agent.wait_ready(BOUND)?;
        Ok(Some(Self { plane, lab, agent, pods }))
    }

    fn wait_for(&self, from: &Pod, to: &Pod, outcome: Outcome) -> Result<()> {
        let probe = Probe::new(from, to.ipv4(), PORT, Protocol::Tcp);
        let waited = self.lab.wait_for(&probe, outcome, BOUND);
        waited.map(drop).with_context(|| self.agent.log().unwrap_or_default())
    }

    /// Waits until log, metric, `/readyz` and an Event say whether the kernel refuses the policy.
    fn wait_reported(&self, refused: bool) -> Result<()> {
        let (log, event) = if refused {
            ("the kernel refuses the policy", "PolicyRefused")
        } else {
            ("the kernel takes the policy", "PolicyEnforced")
        };
        wait_until(BOUND, || {
            let logged = self.agent.log()?;
            ensure!(logged.lines().any(|line| line.contains(log) && line.contains("shop/bad")), "{logged}");
            let now = self.agent.metric("podfence_policies_refused")?;
            ensure!(now == u64::from(refused), "{now} policies are refused");
            let (code, ready) = self.agent.get("/readyz")?;
            ensure!(code == 200 && ready.contains("refuses policies") == refused, "{code} {ready}");
            let events = self.plane.api().get("/api/v1/namespaces/shop/events")?;
            let of_policy = events["items"].as_array().into_iter().flatten().any(|item| {
                item["reason"] == event
                    && item["involvedObject"]["kind"] == "NetworkPolicy"
                    && item["involvedObject"]["name"] == "bad"
            });
            ensure!(of_policy, "{events:#}");
            Ok(())
        })
    }
}

#[test]
fn a_policy_that_the_kernel_refuses_closes_its_pods_and_holds_up_no_other() -> Result<()> {
    let Some(scene) = Scene::raise()? else { return Ok(()) };
    let Scene { plane, agent, pods: [client, stranger, bad, good], .. } = &scene;
    scene.wait_for(stranger, bad, Outcome::Allowed)?;

    let interference = agent.interfere("ingress/shop/bad/0")?;
    plane.api().put(&from_client("bad", PORT))?;
    scene.wait_for(stranger, bad, Outcome::Denied)?;
    scene.wait_for(client, bad, Outcome::Denied)?;
    scene.wait_reported(true)?;

    let prober = Prober::start(&[], &[Probe::new(stranger, bad.ipv4(), PORT, Protocol::Tcp)])?;
    plane.api().put(&from_client("good", PORT))?;
    scene.wait_for(stranger, good, Outcome::Denied)?;
    scene.wait_for(client, good, Outcome::Allowed)?;
    plane.api().patch(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "stranger", "labels": {"app": "client"}},
    }))?;
    scene.wait_for(stranger, good, Outcome::Allowed)?;
    plane.api().put(&from_client("bad", PORT + 1))?;
    let refusals = agent.counter("policy_refusals")?;
    plane.api().put(&from_client("bad", PORT))?;
    agent.wait_for_counter("policy_refusals", refusals + 1, BOUND)?;

    interference.end();
    let totals = prober.stop()?;
    ensure!(totals.leaks == 0 && totals.denied > 0, "{totals:?}");
    plane.api().put(&from_client("bad", PORT + 1))?;
    plane.api().put(&from_client("bad", PORT))?;
    scene.wait_for(client, bad, Outcome::Allowed)?;
    scene.wait_reported(false)
}
