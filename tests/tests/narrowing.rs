//! What is unknown, contested or out of order narrows what passes: packets between real pods whose objects say so.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::testbed::{BOUND, Testbed, listen, namespace, policy, wait_until};
use lab::{
    Agent, ControlPlane, Endpoint, Lab, Node, Outcome, Pod, Probe, Prober, Protocol, Proxy, Topology,
    Treatment, Underlay,
};
use serde_json::{Value, json};

const NODE: &str = "node-1";
const PORT: u16 = 8080;

/// Waits until packets of both families get what is expected.
fn wait_for(what: &str, lab: &Lab, from: &Endpoint, to: &Endpoint, expected: Outcome) -> Result<()> {
    let probes: Vec<_> =
        to.addresses().into_iter().map(|to| Probe::new(from, to, PORT, Protocol::Tcp)).collect();
    wait_until(BOUND, || {
        for (probe, reply) in probes.iter().zip(lab.probe(&probes)?) {
            ensure!(reply.outcome == expected, "{probe}: {:?}, not {expected:?}", reply.outcome);
        }
        Ok(())
    })
    .with_context(|| what.to_owned())
}

/// The object of a pod under another name, with other labels.
fn another(pod: &Pod, name: &str, app: &str, created: &str) -> Value {
    let mut object = pod.manifest(&[("app", app)], &[]);
    object["metadata"]["name"] = json!(name);
    object["metadata"]["creationTimestamp"] = json!(created);
    object
}

/// Lets only these apps reach an app.
fn only_from(app: &str, allowed: &[&str]) -> Value {
    let from =
        json!([{"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": allowed}]}}]);
    let spec = json!({
        "podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"], "ingress": [{"from": from}],
    });
    policy("shop", app, &spec)
}

#[test]
fn of_two_pods_that_show_one_address_each_must_be_allowed() -> Result<()> {
    let mut testbed = Testbed::new(Topology::Routed, Underlay::HostGateway, &[NODE])?;
    let server = testbed.pod(NODE, "shop/server", &[PORT])?;
    let open = testbed.pod(NODE, "shop/open", &[PORT])?;
    let client = testbed.pod(NODE, "shop/client", &[PORT])?;
    let born = "2026-01-02T00:00:00Z";
    for (pod, name) in [(&client, "client"), (&open, "open")] {
        testbed.put(&another(pod, name, name, born))?;
    }
    testbed.put(&only_from("server", &["client"]))?;
    testbed.put(&only_from("closed", &["nobody"]))?;
    let _agent = testbed.start_agent(NODE)?;
    for (age, created) in
        [("older", "2026-01-01T00:00:00Z"), ("as old", born), ("younger", "2026-01-03T00:00:00Z")]
    {
        let lab = &testbed.lab;
        wait_for("alone", lab, &client, &server, Outcome::Allowed)?;
        wait_for("alone", lab, &client, &open, Outcome::Allowed)?;

        let stranger = another(&client, "claimant", "stranger", created);
        testbed.put(&stranger)?;
        wait_for(&format!("a stranger that is {age}"), lab, &client, &server, Outcome::Denied)?;
        testbed.put(&another(&client, "claimant", "client", created))?;
        wait_for(&format!("both may; it is {age}"), lab, &client, &server, Outcome::Allowed)?;
        testbed.delete(&stranger)?;

        let closed = another(&open, "claimant", "closed", created);
        testbed.put(&closed)?;
        wait_for(&format!("an isolated one that is {age}"), lab, &client, &open, Outcome::Denied)?;
        testbed.wait_in_step()?;
        testbed.delete(&closed)?;
    }
    Ok(())
}

#[test]
fn a_finished_pod_stays_isolated_until_another_has_its_address() -> Result<()> {
    let mut testbed = Testbed::new(Topology::Routed, Underlay::HostGateway, &[NODE])?;
    let server = testbed.pod(NODE, "shop/server", &[PORT])?;
    let open = testbed.pod(NODE, "shop/open", &[PORT])?;
    let [job, task] = ["job", "task"].map(|name| testbed.pod(NODE, &format!("shop/{name}"), &[PORT]));
    let (job, task) = (job?, task?);
    testbed.put(&only_from("server", &["task"]))?;
    let spec = json!({"podSelector": {"matchLabels": {"app": "job"}}, "policyTypes": ["Egress"]});
    testbed.put(&policy("shop", "job", &spec))?;
    let agent = testbed.start_agent(NODE)?;
    wait_for("a running peer", &testbed.lab, &task, &server, Outcome::Allowed)?;
    wait_for("a running subject", &testbed.lab, &job, &open, Outcome::Denied)?;

    let leaks = open.addresses().into_iter().map(|to| Probe::new(&job, to, PORT, Protocol::Udp));
    let prober = Prober::start(&[], &leaks.collect::<Vec<_>>())?;
    for (pod, name) in [(&job, "job"), (&task, "task")] {
        let mut object = pod.manifest(&[("app", name)], &[]);
        object["status"]["phase"] = json!("Succeeded");
        testbed.put(&object)?;
    }
    wait_for("a finished peer", &testbed.lab, &task, &server, Outcome::Denied)?;
    testbed.wait_in_step()?;
    wait_for("a finished subject", &testbed.lab, &job, &open, Outcome::Denied)?;
    let totals = prober.stop()?;
    ensure!(totals.leaks == 0 && totals.denied > 0, "{totals:?}");
    assert_eq!(agent.metric("podfence_pods_without_door")?, 0, "a finished pod lacks no door");

    testbed.put(&another(&job, "successor", "free", "2026-01-02T00:00:00Z"))?;
    wait_for("another has the address", &testbed.lab, &job, &open, Outcome::Allowed)
}

#[test]
fn a_node_is_not_isolated_by_a_pod_that_shows_its_address() -> Result<()> {
    let mut testbed = Testbed::new(Topology::Routed, Underlay::HostGateway, &[NODE, "node-2"])?;
    let client = testbed.pod(NODE, "shop/client", &[PORT])?;
    let near = testbed.node(NODE)?.clone();
    let far = testbed.node("node-2")?.clone();
    listen(&far, &[PORT])?;
    testbed.put(&only_from("closed", &["nobody"]))?;
    let agents = testbed.start_agents()?;
    let agent = agents.first().context("an agent")?;
    testbed.delete(&far.manifest())?;
    let mut impostor = another(&client, "impostor", "closed", "2026-01-01T00:00:00Z");
    let shown = |node: &Endpoint| -> Vec<Value> {
        node.addresses().iter().map(|address| json!({"ip": address})).collect()
    };
    impostor["status"] = json!({"phase": "Running", "podIPs": shown(&far)});
    testbed.put(&impostor)?;
    wait_for("nobody knows that it is a node", &testbed.lab, &client, &far, Outcome::Denied)?;
    testbed.put(&far.manifest())?;
    wait_for("the node is known", &testbed.lab, &client, &far, Outcome::Allowed)?;
    wait_until(BOUND, || {
        let refused = agent.metric("podfence_refused_addresses")?;
        ensure!(refused == u64::try_from(far.addresses().len())?, "{refused} are refused");
        Ok(())
    })?;
    ensure!(agent.log()?.contains("shows an address of a node"), "{}", agent.log()?);

    impostor["status"]["podIPs"] = json!(shown(&near));
    testbed.put(&impostor)?;
    testbed.wait_in_step()?;
    wait_for("from its node", &testbed.lab, &near, &client, Outcome::Allowed)
}

/// A cluster whose namespaces come and go at the API server.
struct Scene {
    plane: ControlPlane,
    /// Between the agent and the API server.
    proxy: Proxy,
    lab: Lab,
    node: Node,
    server: Pod,
    guest: Pod,
    marker: Pod,
    agent: Agent,
}

impl Scene {
    /// `None`, and a word about it, where no API server can be had.
    fn raise() -> Result<Option<Self>> {
        let mut lab = Lab::new(Topology::Routed, Underlay::HostGateway)?;
        let node = lab.node(NODE)?;
        let Some(plane) = ControlPlane::beside(&lab)? else { return Ok(None) };
        let mut pod = |name: &str| -> Result<Pod> {
            let pod = lab.pod(&node, name)?;
            listen(&pod, &[PORT])?;
            Ok(pod)
        };
        let (server, guest, marker) = (pod("shop/server")?, pod("guests/guest")?, pod("marks/marker")?);
        for name in ["shop", "guests", "marks"] {
            plane.api().put(&namespace(name, &json!({})))?;
        }
        for (pod, app) in [(&server, "server"), (&guest, "guest"), (&marker, "marker")] {
            plane.api().put(&pod.manifest(&[("app", app)], &[]))?;
        }
        let outside = json!({"matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["prod"]}]});
        let spec = json!({
            "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"namespaceSelector": outside}]}],
        });
        plane.api().put(&policy("shop", "server", &spec))?;
        plane.api().put(&closed())?;
        let proxy = plane.proxy(node.namespace(), |_| {})?;
        let mut agent = agent(&plane, &proxy, &node)?;
        agent.wait_ready(BOUND)?;
        Ok(Some(Self { plane, proxy, lab, node, server, guest, marker, agent }))
    }

    /// Kills the agent, and another takes over.
    fn restart(&mut self) -> Result<()> {
        let next = agent(&self.plane, &self.proxy, &self.node)?;
        std::mem::replace(&mut self.agent, next).kill();
        self.agent.wait_ready(BOUND)
    }

    fn wait_for(&self, what: &str, from: &Pod, to: &Pod, expected: Outcome) -> Result<()> {
        wait_for(what, &self.lab, from, to, expected)
            .with_context(|| self.agent.log().unwrap_or_else(|error| error.to_string()))
    }

    /// Deletes a policy and waits until the agent has heard of that. Puts another one into the marker's namespace to see
    /// it: policies are heard of in their order.
    fn delete_policy(&self, deleted: &Value) -> Result<()> {
        self.plane.api().delete(deleted)?;
        self.plane.api().put(&marked())?;
        self.wait_for("the deletion is known", &self.server, &self.marker, Outcome::Denied)
    }

    /// Waits until the agent has heard of all that was written to namespaces before.
    fn wait_heard(&self, env: &str, expected: Outcome) -> Result<()> {
        self.plane.api().put(&namespace("marks", &json!({"env": env})))?;
        self.wait_for("the marker's namespace is relabelled", &self.marker, &self.server, expected)
    }
}

/// Starts an agent that asks the API server by the proxy.
fn agent(plane: &ControlPlane, proxy: &Proxy, node: &Node) -> Result<Agent> {
    let kubeconfig = plane.kubeconfig_by(proxy)?;
    Agent::start_with(node, ["--kubeconfig".as_ref(), kubeconfig.as_os_str()])
}

/// Closes the marker.
fn marked() -> Value {
    policy("marks", "marked", &json!({"podSelector": {}, "policyTypes": ["Ingress"]}))
}

/// Closes the guest.
fn closed() -> Value {
    policy("guests", "closed", &json!({"podSelector": {}, "policyTypes": ["Ingress"]}))
}

#[test]
fn a_namespace_that_goes_keeps_its_policies_and_loses_its_labels() -> Result<()> {
    let Some(mut scene) = Scene::raise()? else { return Ok(()) };
    let (server, guest) = (&scene.server.clone(), &scene.guest.clone());
    scene.wait_for("a label that is missing", guest, server, Outcome::Allowed)?;
    scene.wait_for("closed", server, guest, Outcome::Denied)?;

    let into_guest = guest.addresses().into_iter().map(|to| Probe::new(server, to, PORT, Protocol::Udp));
    let prober = Prober::start(&[], &into_guest.collect::<Vec<_>>())?;
    let mut guests = namespace("guests", &json!({}));
    guests["metadata"]["finalizers"] = json!(["example.org/hold"]);
    scene.plane.api().put(&guests)?;
    scene.plane.api().delete(&guests)?;
    scene.wait_heard("prod", Outcome::Denied)?;
    scene.delete_policy(&closed())?;
    scene.wait_for("a policy of a namespace that is being deleted", server, guest, Outcome::Denied)?;
    scene.wait_for("its labels are known still", guest, server, Outcome::Allowed)?;

    scene.restart()?;
    scene.wait_for("an agent that never knew the policy", server, guest, Outcome::Denied)?;

    let mut released = namespace("guests", &json!({}));
    released["metadata"]["finalizers"] = Value::Null;
    scene.plane.api().patch(&released)?;
    scene.wait_for("a namespace that is not known", guest, server, Outcome::Denied)?;
    scene.wait_for("a policy of a namespace that is gone", server, guest, Outcome::Denied)?;
    let totals = prober.stop()?;
    ensure!(totals.leaks == 0 && totals.denied > 0, "{totals:?}");

    scene.plane.api().put(&namespace("guests", &json!({"env": "prod"})))?;
    scene.wait_for("made anew, the policy is over", server, guest, Outcome::Allowed)?;
    scene.wait_for("other labels", guest, server, Outcome::Denied)?;
    scene.plane.api().put(&namespace("guests", &json!({"env": "test"})))?;
    scene.wait_for("labels that match", guest, server, Outcome::Allowed)
}

/// Each kind is watched by itself, so a pod may be known before its namespace is.
#[test]
fn a_pod_is_no_peer_by_what_its_namespace_lacks_before_that_is_known() -> Result<()> {
    const HELD: Duration = Duration::from_millis(2_500);
    let Some(mut scene) = Scene::raise()? else { return Ok(()) };
    let node = scene.node.clone();
    scene.proxy.treat("namespaces", Treatment::Hold);
    let mut late = Vec::new();
    for (name, env) in [("tests", "test"), ("products", "prod")] {
        scene.plane.api().put(&namespace(name, &json!({"env": env})))?;
        let pod = scene.lab.pod(&node, &format!("{name}/client"))?;
        listen(&pod, &[PORT])?;
        scene.plane.api().put(&pod.manifest(&[("app", "client")], &[]))?;
        late.push(pod);
    }
    let [test, product] = late.as_slice() else { unreachable!("two were made") };
    let to_server = |from: &Pod| -> Vec<Probe> {
        scene.server.addresses().into_iter().map(|to| Probe::new(from, to, PORT, Protocol::Udp)).collect()
    };
    let (of_test, of_product) =
        (Prober::start(&[], &to_server(test))?, Prober::start(&[], &to_server(product))?);
    // Pods are heard of in their order.
    let to_server_alone = json!({
        "podSelector": {}, "policyTypes": ["Egress"],
        "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}]}],
    });
    scene.plane.api().put(&policy("products", "egress", &to_server_alone))?;
    scene.wait_for("its pod and its policy are known", product, &scene.marker, Outcome::Denied)?;
    let begin = Instant::now();
    wait_until(BOUND, || {
        ensure!(begin.elapsed() > HELD && of_test.totals().denied > 0, "{:?}", of_test.totals());
        Ok(())
    })?;
    let totals = of_test.stop()?;
    ensure!(totals.leaks == 0 && totals.denied > 0, "{totals:?}");

    scene.proxy.treat("namespaces", Treatment::Pass);
    scene.wait_for("its namespace is known", test, &scene.server, Outcome::Allowed)?;
    scene.wait_for("its namespace is known", product, &scene.server, Outcome::Denied)?;
    let totals = of_product.stop()?;
    ensure!(totals.leaks == 0 && totals.denied > 0, "{totals:?}");
    Ok(())
}

/// A policy's end may be heard of before that of its namespace.
#[test]
fn a_deleted_policy_holds_until_it_is_known_whether_its_namespace_goes_too() -> Result<()> {
    let Some(scene) = Scene::raise()? else { return Ok(()) };
    let Scene { plane, proxy, server, guest, .. } = &scene;
    scene.wait_for("closed", server, guest, Outcome::Denied)?;
    let into_guest = guest.addresses().into_iter().map(|to| Probe::new(server, to, PORT, Protocol::Udp));
    let prober = Prober::start(&[], &into_guest.collect::<Vec<_>>())?;

    proxy.treat("namespaces", Treatment::Late);
    // The watch still has to say this of the namespace when it is known to end.
    plane.api().put(&namespace("guests", &json!({"env": "test"})))?;
    let mut guests = namespace("guests", &json!({}));
    guests["metadata"]["finalizers"] = json!(["example.org/hold"]);
    plane.api().put(&guests)?;
    plane.api().delete(&guests)?;
    scene.delete_policy(&closed())?;
    scene.wait_for("the namespace's end is asked for", server, guest, Outcome::Denied)?;

    proxy.treat("namespaces", Treatment::Pass);
    scene.wait_heard("prod", Outcome::Denied)?;
    scene.wait_for("the namespace's end is heard of", server, guest, Outcome::Denied)?;
    let totals = prober.stop()?;
    ensure!(totals.leaks == 0 && totals.denied > 0, "{totals:?}");

    // A namespace that stays lets go of its policies as soon as it can be asked for.
    plane.api().delete(&marked())?;
    scene.wait_for("the marker's namespace stays", server, &scene.marker, Outcome::Allowed)?;
    proxy.treat("namespaces", Treatment::Hold);
    let of_server = policy("shop", "server", &json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    scene.delete_policy(&of_server)?;
    scene.wait_for("its namespace cannot be asked for", &scene.marker, server, Outcome::Denied)?;
    proxy.treat("namespaces", Treatment::Pass);
    scene.wait_for("its namespace stays", &scene.marker, server, Outcome::Allowed)
}

/// What a watch says twice, or out of its order, is old.
#[test]
fn what_watches_repeat_changes_nothing() -> Result<()> {
    let Some(scene) = Scene::raise()? else { return Ok(()) };
    let Scene { plane, proxy, server, guest, .. } = &scene;
    for kind in ["namespaces", "networkpolicies", "nodes", "pods"] {
        proxy.treat(kind, Treatment::Repeat);
    }
    scene.wait_for("closed", server, guest, Outcome::Denied)?;
    plane.api().put(&policy("guests", "closed", &json!({"podSelector": {}, "ingress": [{}]})))?;
    scene.wait_for("opened", server, guest, Outcome::Allowed)?;
    plane.api().put(&policy("guests", "closed", &json!({"podSelector": {}, "ingress": []})))?;
    scene.wait_for("closed again", server, guest, Outcome::Denied)?;
    let prober = Prober::start(&[], &[Probe::new(server, guest.ipv4(), PORT, Protocol::Udp)])?;
    plane.api().put(&marked())?;
    scene.wait_for("the next policy is known", server, &scene.marker, Outcome::Denied)?;
    let totals = prober.stop()?;
    ensure!(totals.leaks == 0 && totals.denied > 0, "{totals:?}");

    plane.api().delete(&closed())?;
    scene.wait_for("the policy is gone", server, guest, Outcome::Allowed)?;
    plane.api().delete(&marked())?;
    scene.wait_for("the next deletion is known", server, &scene.marker, Outcome::Allowed)?;
    scene.wait_for("it has not come back", server, guest, Outcome::Allowed)
}
