//! The agent beside a real API server, of a small cluster and then of a large one.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::testbed::{cluster_policy_definition, listen, policy, wait_until};
use lab::{Agent, Api, ControlPlane, Lab, Outcome, Probe, Protocol, Topology, Underlay, User};
use serde_json::{Value, json};

use crate::objects::{cluster_policies, namespaces, pods, policies};
use crate::{Figure, percentile};

/// Policies written and deleted, one after the other.
const WRITES: usize = 50;

/// How many clients write the objects.
const WRITERS: usize = 4;

/// The longest that anything may take.
const BOUND: Duration = Duration::from_secs(60);

/// The namespace of the pods that send.
const NAMESPACE: &str = "bench";
const PORT: u16 = 8080;

/// The node whose agent is measured; it runs a hundredth of the pods.
const NODE: &str = "node-0";

pub(crate) fn measure() -> Result<Vec<Figure>> {
    ControlPlane::available().map_err(anyhow::Error::msg)?;
    let mut lab = Lab::new(Topology::Routed, Underlay::HostGateway)?;
    let node = lab.node(NODE)?;
    let [client, server] = ["client", "server"].map(|name| lab.pod(&node, &format!("{NAMESPACE}/{name}")));
    let (client, server) = (client?, server?);
    listen(&server, &[PORT])?;
    let plane = ControlPlane::start(lab.world().namespace(), lab.world().ipv4())?;
    let own = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    create(plane.api(), &namespaces().chain([own]).collect::<Vec<_>>())?;
    create(plane.api(), &[&client, &server].map(|pod| pod.manifest(&[], &[])))?;
    let kubeconfig = plane.kubeconfig(User::Agent)?;
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state");
    let start_agent = || {
        let arguments =
            ["--kubeconfig".as_ref(), kubeconfig.as_os_str(), "--state".as_ref(), state.as_os_str()];
        let mut agent = Agent::start_with(&node, arguments)?;
        agent.wait_ready(BOUND)?;
        Ok::<_, anyhow::Error>(agent)
    };
    let agent = start_agent()?;
    let probe = Probe::new(&client, server.ipv4(), PORT, Protocol::Udp);
    let mut writes = writes(&plane, &lab, &probe)?;
    agent.kill();

    create(plane.api(), &pods().chain(policies()).collect::<Vec<_>>())?;
    plane.api().create(&cluster_policy_definition(&["v1beta1"]))?;
    for policy in cluster_policies() {
        // The definition takes a moment until it takes objects.
        wait_until(BOUND, || plane.api().put(&policy))?;
    }
    let agent = start_agent()?;
    wait_until(BOUND, || {
        ensure!(agent.metric("podfence_state_saved_timestamp_seconds")? > 0, "the state is not saved");
        Ok(())
    })?;
    let memory = agent.resident_memory()?;
    Ok(vec![
        Figure::time(
            "write to the API server → packets judged by it, p50",
            "< 10 ms",
            percentile(&mut writes, 50),
        ),
        Figure::time("the same, p99", "< 50 ms", percentile(&mut writes, 99)),
        Figure::new(
            "resident memory of the agent at 10,000 pods, 1,000 policies and 100 of the cluster",
            "< 64 MiB",
            format!("{} MiB", memory >> 20),
        ),
    ])
}

/// Creates objects, and writes what they say of their status.
fn create(api: &Api, objects: &[Value]) -> Result<()> {
    let create_all = |objects: &[Value]| {
        objects.iter().try_for_each(|object| {
            api.create(object)?;
            if object["status"].is_null() { Ok(()) } else { api.patch_status(object) }
        })
    };
    thread::scope(|scope| {
        let portions = objects.chunks(objects.len().div_ceil(WRITERS));
        let writers: Vec<_> = portions.map(|portion| scope.spawn(move || create_all(portion))).collect();
        writers.into_iter().try_for_each(joined)
    })
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Isolates and frees the server; how long after the beginning of each request no packet was judged as before.
fn writes(plane: &ControlPlane, lab: &Lab, probe: &Probe) -> Result<Vec<Duration>> {
    let isolation = policy(NAMESPACE, "isolation", &json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    let write = |expected: Outcome| {
        thread::scope(|scope| {
            let api = plane.api();
            let written = scope.spawn(|| match expected {
                Outcome::Denied => api.create(&isolation),
                _ => api.delete(&isolation),
            });
            let judged = lab.wait_for(probe, expected, BOUND)?;
            joined(written)?;
            Ok(judged)
        })
    };
    let outcomes = [Outcome::Denied, Outcome::Allowed].into_iter().cycle().take(WRITES * 2);
    outcomes.map(write).collect()
}
