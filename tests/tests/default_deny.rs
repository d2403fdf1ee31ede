//! Namespaces under default deny as a whole: packets, `matrix` and `explain` say the same.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use lab::testbed::{BOUND, Testbed, listen, policy, status, wait_until};
use lab::{Agent, Outcome, Pod, Probe, Prober, Protocol, Topology, Underlay, program};
use serde_json::{Value, json};

const NODE: &str = "node-1";
const WEB: u16 = 8080;
const DNS: u16 = 53;

const FLAGS: [&str; 3] = ["--default-deny", "env=prod", "--default-deny-allow-dns"];

/// Pods of a namespace that is under default deny, of one that is not, and of the system's, which asks for it in
/// vain.
struct Scene {
    testbed: Testbed,
    pods: Vec<Pod>,
    _agent: Agent,
}

impl Scene {
    fn raise() -> Result<Self> {
        let mut testbed = Testbed::new(Topology::Routed, Underlay::HostGateway, &[NODE])?;
        for (name, env) in [("shop", "prod"), ("free", "test"), ("kube-system", "prod")] {
            testbed.put(&namespace(name, env))?;
        }
        let names = ["shop/web", "shop/database", "free/client", "kube-system/dns", "kube-system/other"];
        let pods = names.map(|name| testbed.pod(NODE, name, &[WEB, DNS]));
        let pods = pods.into_iter().collect::<Result<Vec<_>>>()?;
        let [_, _, _, dns, _] = pods.as_slice() else { unreachable!("five pods") };
        testbed.put(&dns.manifest(&[("k8s-app", "kube-dns")], &[]))?;
        let from = json!([{"namespaceSelector": {"matchLabels": {"env": "test"}}}]);
        let ports = json!([{"port": WEB}]);
        testbed.put(&policy(
            "shop",
            "web",
            &json!({
                "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"],
                "ingress": [{"from": from, "ports": ports}],
            }),
        ))?;
        let agent = testbed.start_agent_with(NODE, &FLAGS)?;
        Ok(Self { testbed, pods, _agent: agent })
    }

    fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.iter().find(|pod| pod.name() == name).with_context(|| format!("no pod {name}"))
    }

    /// The rows of `podfence matrix` with the agent's flags: both ends, port, protocol and verdict.
    fn matrix(&self) -> Result<Vec<Value>> {
        let program = program("podfence")?;
        let manifests = self.testbed.manifests.path().display().to_string();
        let ports = ["--port", "8080/TCP", "--port", "8080/UDP", "--port", "53/UDP", "--port", "53/TCP"];
        let arguments = ["matrix", "-f", &manifests, "-o", "json"].into_iter().chain(ports).chain(FLAGS);
        let arguments: Vec<&str> = arguments.collect();
        let text = self.testbed.node(NODE)?.namespace().feed(&program.to_string_lossy(), &arguments, "")?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until packets, of both families, go as the matrix says.
    fn wait_agreement(&self) -> Result<()> {
        wait_until(BOUND, || {
            let mut probes = Vec::new();
            for row in self.matrix()? {
                let end = |name: &str| self.pod(row[name].as_str().unwrap_or_default());
                let protocol = if row["protocol"] == "UDP" { Protocol::Udp } else { Protocol::Tcp };
                let port = u16::try_from(row["port"].as_u64().context("a port")?)?;
                let (from, to) = (end("from")?, end("to")?);
                let allowed = row["verdict"] == "allow";
                probes.extend(
                    to.addresses().into_iter().map(|to| (Probe::new(from, to, port, protocol), allowed)),
                );
            }
            let replies =
                self.testbed.lab.probe(&probes.iter().map(|(probe, _)| probe.clone()).collect::<Vec<_>>())?;
            for ((probe, allowed), reply) in probes.iter().zip(replies) {
                ensure!(*allowed == (reply.outcome != Outcome::Denied), "{probe}: {:?}", reply.outcome);
            }
            Ok(())
        })
    }

    fn outcome(&self, from: &str, to: &str, port: u16) -> Result<Outcome> {
        self.testbed.lab.connect(self.pod(from)?, self.pod(to)?.ipv4(), port, Protocol::Tcp)
    }
}

fn namespace(name: &str, env: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"env": env}}})
}

#[test]
fn packets_matrix_and_status_agree_as_namespaces_come_and_go() -> Result<()> {
    let scene = Scene::raise()?;
    scene.wait_agreement()?;
    assert_eq!(scene.outcome("free/client", "shop/web", WEB)?, Outcome::Allowed);
    assert_eq!(scene.outcome("free/client", "shop/database", WEB)?, Outcome::Denied);
    assert_eq!(scene.outcome("shop/web", "kube-system/dns", DNS)?, Outcome::Allowed);
    assert_eq!(scene.outcome("shop/web", "kube-system/other", DNS)?, Outcome::Denied);
    assert_eq!(scene.outcome("free/client", "kube-system/other", WEB)?, Outcome::Allowed);
    let status = status(scene.testbed.node(NODE)?)?.to_string();
    assert!(status.contains("--default-deny"), "{status}");

    scene.testbed.put(&namespace("free", "prod"))?;
    scene.testbed.put(&namespace("shop", "test"))?;
    scene.wait_agreement()?;
    assert_eq!(scene.outcome("free/client", "shop/web", WEB)?, Outcome::Denied);
    assert_eq!(scene.outcome("kube-system/other", "shop/database", WEB)?, Outcome::Allowed);
    Ok(())
}

#[test]
fn a_pod_is_isolated_before_its_object_is_known() -> Result<()> {
    let mut scene = Scene::raise()?;
    let node = scene.testbed.node(NODE)?.clone();
    let newcomer = scene.testbed.lab.pod(&node, "shop/newcomer")?;
    listen(&newcomer, &[WEB])?;
    let probes: Vec<Probe> = [("free/client", true), ("kube-system/other", false)]
        .into_iter()
        .map(|(other, to_newcomer)| {
            let other = scene.pod(other)?;
            let [from, to] = if to_newcomer { [&**other, &*newcomer] } else { [&*newcomer, &**other] };
            Ok(to.addresses().into_iter().map(move |to: IpAddr| Probe::new(from, to, WEB, Protocol::Udp)))
        })
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    let watch = Prober::start(&[], &probes)?;
    scene.testbed.put(&newcomer.manifest(&[("app", "newcomer")], &[]))?;
    scene.pods.push(newcomer);
    scene.wait_agreement()?;
    let totals = watch.stop()?;
    assert!(totals.denied > 0);
    assert_eq!((totals.leaks, totals.incidents), (0, vec![]));
    Ok(())
}
