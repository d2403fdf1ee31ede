//! The agent and ClusterNetworkPolicies of a real API server, which need not know the kind.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::testbed::{BOUND, cluster_policy, cluster_policy_definition, listen, policy, status, wait_until};
use lab::{Agent, ControlPlane, Lab, Node, Outcome, Pod, Probe, Protocol, Topology, Underlay, User};
use serde_json::{Value, json};

const PORT: u16 = 8080;

/// How soon a policy is enforced whose definition has just come.
const SOON: Duration = Duration::from_secs(5);

/// A node with two pods, and an API server.
struct Scene {
    plane: ControlPlane,
    lab: Lab,
    node: Node,
    web: Pod,
    client: Pod,
}

impl Scene {
    /// `None`, and a word about it, where no API server can be had.
    fn new() -> Result<Option<Self>> {
        let mut lab = Lab::new(Topology::Routed, Underlay::HostGateway)?;
        let node = lab.node("node-1")?;
        let Some(plane) = ControlPlane::beside(&lab)? else { return Ok(None) };
        let api = plane.api();
        api.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))?;
        let [web, client] = ["web", "client"].map(|name| {
            let pod = lab.pod(&node, &format!("shop/{name}"))?;
            listen(&pod, &[PORT])?;
            api.put(&pod.manifest(&[("app", name)], &[]))?;
            Ok::<_, anyhow::Error>(pod)
        });
        Ok(Some(Self { plane, node, web: web?, client: client?, lab }))
    }

    fn start_agent(&self) -> Result<Agent> {
        let kubeconfig = self.plane.kubeconfig(User::Agent)?;
        Agent::start_with(&self.node, ["--kubeconfig".as_ref(), kubeconfig.as_os_str()])
    }

    fn put(&self, object: &Value) -> Result<()> {
        // A definition that has just come takes a moment until it takes objects.
        wait_until(BOUND, || self.plane.api().put(object))
    }

    /// Waits until what the client sends to the web server becomes this.
    fn expect(&self, agent: &Agent, outcome: Outcome, bound: Duration) -> Result<()> {
        let probe = Probe::new(&self.client, self.web.ipv4(), PORT, Protocol::Tcp);
        let waited = self.lab.wait_for(&probe, outcome, bound);
        waited.map(drop).with_context(|| agent.log().unwrap_or_default())
    }

    /// The Events on ClusterNetworkPolicies: namespace, name of the policy, reason and message.
    fn events(&self) -> Result<Vec<[String; 4]>> {
        let path = "/api/v1/events?fieldSelector=involvedObject.kind=ClusterNetworkPolicy";
        let all = self.plane.api().get(path)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let fields = |event: &Value| {
            [
                &event["metadata"]["namespace"],
                &event["involvedObject"]["name"],
                &event["reason"],
                &event["message"],
            ]
            .map(text)
        };
        Ok(all["items"].as_array().context("no list")?.iter().map(fields).collect())
    }

    /// Takes the right to a resource from the agents, of all those that they have in a group of the API.
    fn withdraw_right(&self, group: &str) -> Result<()> {
        let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/lab:agents";
        let mut role = self.plane.api().get(path)?;
        let rules = role["rules"].as_array_mut().context("no rules")?;
        rules.retain(|rule| rule["apiGroups"] != json!([group]));
        let change = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "lab:agents"}, "rules": role["rules"],
        });
        self.plane.api().patch(&change)
    }
}

/// Denies all pods what comes from those that are labelled `app: APP`.
fn deny_from(app: &str) -> Value {
    json!({
        "tier": "Admin",
        "priority": 10,
        "subject": {"namespaces": {}},
        "ingress": [{"action": "Deny", "from": [{"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app}}}}]}],
    })
}

#[test]
fn policies_are_enforced_as_long_as_they_are_defined() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let mut agent = scene.start_agent()?;
    agent.wait_ready(BOUND)?;
    scene.expect(&agent, Outcome::Allowed, SOON)?;

    for _ in 0..2 {
        scene.put(&cluster_policy_definition(&["v1alpha2", "v1beta1"]))?;
        scene.put(&cluster_policy("v1beta1", "guard", &deny_from("client")))?;
        scene.expect(&agent, Outcome::Denied, SOON)?;
        let tiers = status(&scene.node)?["tiers"].clone();
        let rule =
            json!({"tier": "Admin", "policy": "guard", "direction": "ingress", "rule": 0, "action": "deny"});
        let mut shown = tiers[0].clone();
        shown.as_object_mut().context("no rule")?.remove("covered");
        assert_eq!(shown, rule, "{tiers}");

        // Another version is served from now on, of the same objects.
        scene.put(&cluster_policy_definition(&["v1alpha2"]))?;
        scene.put(&cluster_policy("v1alpha2", "guard", &deny_from("nobody")))?;
        scene.expect(&agent, Outcome::Allowed, SOON)?;
        scene.put(&cluster_policy("v1alpha2", "guard", &deny_from("client")))?;
        scene.expect(&agent, Outcome::Denied, SOON)?;

        // None that is read: what is known stays enforced.
        scene.put(&cluster_policy_definition(&[]))?;
        agent.wait_unready("served neither in v1beta1 nor v1alpha2", BOUND)?;
        scene.expect(&agent, Outcome::Denied, SOON)?;

        scene.put(&cluster_policy_definition(&["v1beta1"]))?;
        agent.wait_ready(BOUND)?;
        scene.plane.api().delete(&cluster_policy_definition(&[]))?;
        scene.expect(&agent, Outcome::Allowed, BOUND)?;
        agent.wait_ready(BOUND)?;
        wait_until(BOUND, || {
            let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
            let all = scene.plane.api().get(path)?;
            ensure!(all["items"] == json!([]), "{all:#}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn without_the_right_to_the_definition_the_api_itself_is_asked() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    scene.withdraw_right("apiextensions.k8s.io")?;
    let mut agent = scene.start_agent()?;
    agent.wait_ready(BOUND)?;
    ensure!(agent.log()?.contains("cannot list customresourcedefinitions"), "{}", agent.log()?);
    scene.put(&cluster_policy_definition(&["v1beta1"]))?;
    scene.put(&cluster_policy("v1beta1", "guard", &deny_from("client")))?;
    scene.expect(&agent, Outcome::Denied, BOUND)?;

    // An agent that may not read them, and knows that they are defined, does not go on without them.
    agent.kill();
    scene.withdraw_right("policy.networking.k8s.io")?;
    agent = scene.start_agent()?;
    agent.wait_unready("cannot list clusternetworkpolicies", BOUND)?;
    scene.expect(&agent, Outcome::Denied, SOON).context("what the agent before it has enforced stays")
}

#[test]
fn what_is_known_stays_enforced_while_the_right_is_missing() -> Result<()> {
    let Some(mut scene) = Scene::new()? else { return Ok(()) };
    scene.put(&cluster_policy_definition(&["v1beta1"]))?;
    scene.put(&cluster_policy("v1beta1", "guard", &deny_from("client")))?;
    let mut agent = scene.start_agent()?;
    agent.wait_ready(BOUND)?;
    scene.expect(&agent, Outcome::Denied, SOON)?;
    scene.withdraw_right("policy.networking.k8s.io")?;
    scene.withdraw_right("apiextensions.k8s.io")?;
    // Watches that have begun go on as long as their connections.
    scene.plane.api_server.kill();
    scene.plane.api_server.restart()?;
    scene.plane.wait_ready()?;
    wait_until(BOUND, || {
        let log = agent.log()?;
        for kind in ["clusternetworkpolicies.policy.networking.k8s.io", "customresourcedefinitions"] {
            let is_forbidden = |line: &str| line.contains(kind) && line.contains("is forbidden");
            ensure!(log.lines().any(is_forbidden), "{kind} may be watched:\n{log}");
        }
        Ok(())
    })?;
    scene.expect(&agent, Outcome::Denied, SOON)?;
    let other = policy("shop", "other", &json!({"podSelector": {"matchLabels": {"app": "client"}}}));
    scene.put(&other)?;
    agent.wait_for_counter("transactions", 2, BOUND)
}

#[test]
fn what_is_not_meant_is_remarked_once() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    scene.put(&cluster_policy_definition(&["v1beta1"]))?;
    let mut agent = scene.start_agent()?;
    agent.wait_ready(BOUND)?;
    let mut spec = deny_from("nobody");
    spec["egress"] = json!([{"action": "Accept", "to": [{"domainNames": ["www.example.com"]}]}]);
    scene.put(&cluster_policy("v1beta1", "domains", &spec))?;
    let mut spec = deny_from("nobody");
    spec["ingress"][0]["from"] = json!([{"planets": {}}]);
    spec["subject"] = json!({"namespaces": {"matchLabels": {"none": "such"}}});
    scene.put(&cluster_policy("v1beta1", "unread", &spec))?;
    let expected = [
        ("domains", "domain names are not resolved: this peer matches nothing"),
        ("unread", "an Accept rule that cannot be read allows nothing, another one denies everything"),
    ];
    wait_until(BOUND, || {
        let events = scene.events()?;
        let found = |(policy, message): (&str, &str)| {
            events.iter().any(|[namespace, name, reason, text]| {
                (&**namespace, &**name, &**reason) == ("default", policy, "PolicyWarning")
                    && text.contains(message)
            })
        };
        ensure!(expected.into_iter().all(found) && events.len() == 2, "{events:#?}\n{}", agent.log()?);
        Ok(())
    })?;

    // Another agent has the same to say.
    agent.kill();
    agent = scene.start_agent()?;
    agent.wait_ready(BOUND)?;
    wait_until(BOUND, || {
        ensure!(agent.log()?.contains("domain names are not resolved"), "{}", agent.log()?);
        Ok(())
    })?;
    ensure!(scene.events()?.len() == 2, "{:#?}", scene.events()?);
    Ok(())
}

#[test]
fn a_policy_that_the_kernel_refuses_denies() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    scene.put(&cluster_policy_definition(&["v1beta1"]))?;
    let mut agent = scene.start_agent()?;
    agent.wait_ready(BOUND)?;
    let mut spec = deny_from("client");
    spec["ingress"][0]["action"] = json!("Pass");
    let interference = agent.interfere("ingress/Admin/refused/0/pass")?;
    scene.put(&cluster_policy("v1beta1", "refused", &spec))?;
    scene.expect(&agent, Outcome::Denied, BOUND)?;
    let reported = |reason: &str| {
        wait_until(BOUND, || {
            let events = scene.events()?;
            let is_it = |event: &[String; 4]| {
                let [namespace, name, event, _] = event;
                (&**namespace, &**name, &**event) == ("default", "refused", reason)
            };
            ensure!(events.iter().any(is_it), "{events:#?}\n{}", agent.log()?);
            Ok(())
        })
    };
    reported("PolicyRefused")?;
    let (code, ready) = agent.get("/readyz")?;
    ensure!(code == 200 && ready.contains("ClusterNetworkPolicy refused"), "{code} {ready}");

    interference.end();
    spec["priority"] = json!(11);
    scene.put(&cluster_policy("v1beta1", "refused", &spec))?;
    scene.expect(&agent, Outcome::Allowed, BOUND)?;
    reported("PolicyEnforced")
}

#[test]
fn other_nodes_are_known_while_a_policy_names_nodes() -> Result<()> {
    let Some(mut scene) = Scene::new()? else { return Ok(()) };
    let other = scene.lab.node("node-2")?;
    let mut manifest = other.manifest();
    manifest["metadata"]["labels"] = json!({"pool": "storage"});
    scene.put(&manifest)?;
    scene.put(&scene.node.manifest())?;
    listen(&other, &[PORT])?;
    scene.put(&cluster_policy_definition(&["v1beta1"]))?;
    let mut agent = scene.start_agent()?;
    agent.wait_ready(BOUND)?;
    let probe = Probe::new(&scene.client, other.ipv4(), PORT, Protocol::Tcp);
    scene.lab.wait_for(&probe, Outcome::Allowed, BOUND)?;

    let spec = json!({
        "tier": "Admin",
        "priority": 10,
        "subject": {"namespaces": {}},
        "egress": [{"action": "Deny", "to": [{"nodes": {"matchLabels": {"pool": "storage"}}}]}],
    });
    let guard = cluster_policy("v1beta1", "nodes", &spec);
    let expect = |outcome| {
        scene.lab.wait_for(&probe, outcome, BOUND).map(drop).with_context(|| agent.log().unwrap_or_default())
    };
    scene.put(&guard)?;
    expect(Outcome::Denied)?;
    manifest["metadata"]["labels"] = json!({"pool": "other"});
    scene.put(&manifest)?;
    expect(Outcome::Allowed)?;
    manifest["metadata"]["labels"] = json!({"pool": "storage"});
    scene.put(&manifest)?;
    expect(Outcome::Denied)?;
    scene.plane.api().delete(&guard)?;
    expect(Outcome::Allowed)
}
