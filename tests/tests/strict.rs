//! Strict start: nothing passes from or to an address of the node's pods until its pod is known, and everybody
//! else goes on.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use lab::listing::Listing;
use lab::testbed::{BOUND, Testbed, listen, policy, wait_until};
use lab::{Agent, Endpoint, Node, Outcome, Pod, Probe, Prober, Protocol, Topology, Underlay};
use policy_compiler::compile::Compiler;
use policy_compiler::manifest::{self, Input};
use serde_json::json;

const PORT: u16 = 8080;

const NODE: &str = "node-1";

/// Two pods that are known, on two nodes, and beside the first of them one that is wired and not known.
struct Scene {
    testbed: Testbed,
    near: Pod,
    far: Pod,
    newcomer: Pod,
}

impl Scene {
    fn raise(topology: Topology) -> Result<Self> {
        let mut testbed = Testbed::new(topology, Underlay::HostGateway, &[NODE, "node-2"])?;
        let near = testbed.pod(NODE, "shop/near", &[PORT])?;
        let far = testbed.pod("node-2", "shop/far", &[PORT])?;
        let node = testbed.node(NODE)?.clone();
        let newcomer = testbed.lab.pod(&node, "shop/newcomer")?;
        listen(&newcomer, &[PORT])?;
        listen(testbed.lab.world(), &[PORT])?;
        Ok(Self { testbed, near, far, newcomer })
    }

    fn node(&self) -> Result<&Node> {
        self.testbed.node(NODE)
    }

    fn start_agent(&self) -> Result<Agent> {
        let manifests = self.testbed.manifests.path().as_os_str();
        Agent::start_with(self.node()?, ["--strict-start".as_ref(), "--manifests".as_ref(), manifests])
    }

    /// What the newcomer sends and gets, in both families. Its node may send in its name, as proxies do.
    fn of_newcomer(&self) -> Result<Vec<Probe>> {
        let node = self.node()?;
        let mut probes = Vec::new();
        for other in [&*self.near, &*self.far, self.testbed.lab.world()] {
            probes.extend(between(&self.newcomer, other));
            probes.extend(between(other, &self.newcomer));
        }
        let of_proxy = between(&self.newcomer, &self.far).map(|probe| probe.sent_by(node));
        probes.extend(of_proxy);
        Ok(probes)
    }

    /// What has nothing to do with the newcomer, and what its node sends to it.
    fn of_others(&self) -> Result<Vec<Probe>> {
        let (near, far, world) = (&*self.near, &*self.far, self.testbed.lab.world());
        let mut probes = Vec::new();
        for (from, to) in [(near, far), (far, near), (world, near), (near, world)] {
            probes.extend(between(from, to));
        }
        probes.extend(between(self.node()?, &self.newcomer));
        Ok(probes)
    }

    fn wait_for_all(&self, probes: &[Probe], expected: Outcome) -> Result<()> {
        wait_until(BOUND, || {
            for (probe, reply) in probes.iter().zip(self.testbed.lab.probe(probes)?) {
                ensure!(reply.outcome == expected, "{probe}: {:?}, not {expected:?}", reply.outcome);
            }
            Ok(())
        })
    }

    /// Whether the node's table is what the compiler makes of the objects.
    fn wait_in_step(&self) -> Result<()> {
        let inputs = [Input::Path(self.testbed.manifests.path().to_owned())];
        let cluster = manifest::read(&inputs)?.cluster;
        let mut compiler = Compiler::strict(NODE);
        compiler.put_cluster(&cluster);
        compiler.update();
        let expected = Listing::of_text(&compiler.ruleset().to_string())?;
        wait_until(BOUND, || {
            let differences = expected.differences(&Listing::of(self.node()?.namespace())?);
            ensure!(differences.is_empty(), "not in step: {differences:#?}");
            Ok(())
        })
    }
}

/// A connection in each family.
fn between(from: &Endpoint, to: &Endpoint) -> impl Iterator<Item = Probe> {
    let to_address = |to: IpAddr| Probe::new(from, to, PORT, Protocol::Udp);
    to.addresses().into_iter().map(to_address).collect::<Vec<_>>().into_iter()
}

fn a_pod_waits_until_it_is_known(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let mut agent = scene.start_agent()?;
    agent.wait_ready(BOUND)?;
    let (of_newcomer, of_others) = (scene.of_newcomer()?, scene.of_others()?);
    let others = Prober::start(&of_others, &[])?;

    let pod = scene.newcomer.manifest(&[], &[]);
    for _ in 0..2 {
        scene.wait_for_all(&of_newcomer, Outcome::Denied)?;
        scene.wait_in_step()?;
        scene.testbed.put(&pod)?;
        scene.wait_for_all(&of_newcomer, Outcome::Allowed)?;
        scene.wait_in_step()?;
        scene.testbed.delete(&pod)?;
    }
    scene.wait_for_all(&of_newcomer, Outcome::Denied)?;

    // The addresses of a finished pod may be somebody else's by now.
    scene.testbed.put(&pod)?;
    scene.wait_for_all(&of_newcomer, Outcome::Allowed)?;
    let mut finished = pod;
    finished["status"]["phase"] = json!("Succeeded");
    scene.testbed.put(&finished)?;
    scene.wait_for_all(&of_newcomer, Outcome::Denied)?;
    scene.wait_in_step()?;
    let totals = others.stop()?;
    assert_eq!(totals.wrong_denials, 0, "{totals:?}");
    // The newcomer's door was one of the other devices each time before its pod was known.
    let log = agent.log()?;
    ensure!(!log.contains("spoofed"), "{log}");
    Ok(())
}

#[test]
fn a_pod_waits_until_it_is_known_where_pods_are_routed() -> Result<()> {
    a_pod_waits_until_it_is_known(Topology::Routed)
}

#[test]
fn a_pod_waits_until_it_is_known_on_a_bridge() -> Result<()> {
    a_pod_waits_until_it_is_known(Topology::Bridge)
}

#[test]
fn an_agent_that_knows_no_pod_range_is_not_ready() -> Result<()> {
    let scene = Scene::raise(Topology::Routed)?;
    let node = scene.node()?.manifest();
    let mut without = node.clone();
    without["spec"] = json!({});
    scene.testbed.put(&without)?;
    scene.testbed.put(&policy(
        "shop",
        "closed",
        &json!({"podSelector": {"matchLabels": {"app": "near"}}}),
    ))?;

    let mut agent = scene.start_agent()?;
    agent.wait_unready("strict start has nothing to guard", BOUND)?;
    let to_near: Vec<Probe> = between(&scene.far, &scene.near).collect();
    scene.wait_for_all(&to_near, Outcome::Denied)?;

    scene.testbed.put(&node)?;
    agent.wait_ready(BOUND)?;
    let of_newcomer = scene.of_newcomer()?;
    scene.wait_for_all(&of_newcomer, Outcome::Denied)?;
    let prober = Prober::start(&[], &of_newcomer)?;

    // What is guarded stays guarded while the node is made anew.
    scene.testbed.delete(&node)?;
    wait_until(BOUND, || {
        let log = agent.log()?;
        ensure!(log.contains("the file is gone"), "{log}");
        Ok(())
    })?;
    scene.testbed.put(&without)?;
    scene.testbed.put(&scene.near.manifest(&[("app", "other")], &[]))?;
    scene.wait_for_all(&to_near, Outcome::Allowed)?;
    assert_eq!(agent.get("/readyz")?.0, 200);

    // Also by an agent that starts meanwhile.
    agent.kill();
    let mut agent = scene.start_agent()?;
    agent.wait_unready("strict start has nothing to guard", BOUND)?;
    scene.wait_for_all(&of_newcomer, Outcome::Denied)?;
    scene.testbed.put(&node)?;
    agent.wait_ready(BOUND)?;
    let totals = prober.stop()?;
    assert_eq!(totals.leaks, 0, "{totals:?}");
    scene.wait_in_step()
}
