//! Policies hold on every way that a packet can take: through a Service, back to its own pod, by the node's own
//! stack. And what policies have no say in goes on.

use anyhow::Result;
use lab::testbed::{Testbed, listen, policy};
use lab::{Outcome, Pod, Probe, Protocol, Service, Topology, Underlay, on_each_topology};
use serde_json::{Value, json};

/// What backends listen on.
const PORT: u16 = 8080;

/// What Services are asked for.
const SERVICE_PORT: u16 = 80;

/// A backend on each of two nodes, a client that may reach them, and a stranger who may not, on the first.
struct Scene {
    testbed: Testbed,
    client: Pod,
    stranger: Pod,
    near: Pod,
    far: Pod,
}

impl Scene {
    fn raise(topology: Topology) -> Result<Self> {
        let mut testbed = Testbed::new(topology, Underlay::Vxlan, &["node-1", "node-2"])?;
        let mut pod = |node, name| testbed.pod(node, name, &[PORT, SERVICE_PORT]);
        let (client, stranger) = (pod("node-1", "shop/client")?, pod("node-1", "shop/stranger")?);
        let (near, far) = (pod("node-1", "shop/near")?, pod("node-2", "shop/far")?);
        for pod in [&near, &far] {
            testbed.put(&pod.manifest(&[("tier", "backend")], &[]))?;
        }
        testbed.put(&policy(
            "shop",
            "default-deny",
            &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        ))?;
        let ports = json!([{"port": PORT}, {"port": PORT, "protocol": "UDP"}]);
        testbed.put(&to_backends(&ports))?;
        testbed.put(&from_client(&ports))?;
        Ok(Self { testbed, client, stranger, near, far })
    }

    /// Both clients and both families.
    fn probes(&self, to: &Pod, port: u16, protocol: Protocol) -> Vec<Probe> {
        let clients = [&self.client, &self.stranger].into_iter();
        clients
            .flat_map(|from| to.addresses().into_iter().map(|to| Probe::new(from, to, port, protocol)))
            .collect()
    }

    fn outcomes(&self, probes: &[Probe]) -> Result<Vec<Outcome>> {
        Ok(self.testbed.lab.probe(probes)?.into_iter().map(|reply| reply.outcome).collect())
    }
}

/// Lets the client reach the backends on ports.
fn to_backends(ports: &Value) -> Value {
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "client"}},
        "egress": [{"to": [{"podSelector": {"matchLabels": {"tier": "backend"}}}], "ports": ports}],
    });
    policy("shop", "to-backends", &spec)
}

/// Lets the backends be reached by the client on ports.
fn from_client(ports: &Value) -> Value {
    let spec = json!({
        "podSelector": {"matchLabels": {"tier": "backend"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": ports}],
    });
    policy("shop", "from-client", &spec)
}

on_each_topology! {
    a_service_is_judged_by_its_backend
    a_pod_reaches_itself_through_its_service
    what_the_node_sends_for_a_pod_is_judged
    a_node_and_its_pods_always_reach_each_other
    a_node_port_lets_nobody_slip_through
    neighbours_are_discovered_under_default_deny
}

fn a_service_is_judged_by_its_backend(topology: Topology) -> Result<()> {
    let mut scene = Scene::raise(topology)?;
    let (near, far) = (scene.near.clone(), scene.far.clone());
    let mut services = Vec::new();
    for backend in [&near, &far] {
        services.push(scene.testbed.lab.service(Protocol::Tcp, SERVICE_PORT, PORT, &[backend])?);
    }
    let ask = |from: &Pod, service: &Service| {
        [service.ipv4, service.ipv6].map(|to| Probe::new(from, to, SERVICE_PORT, Protocol::Tcp))
    };
    let from = |pod| services.iter().flat_map(|service| ask(pod, service)).collect::<Vec<_>>();
    let (client, stranger) = (from(&scene.client), from(&scene.stranger));
    let _agents = scene.testbed.start_agents()?;

    assert_eq!(scene.outcomes(&client)?, [Outcome::Allowed; 4]);
    assert_eq!(scene.outcomes(&stranger)?, [Outcome::Denied; 4]);

    let (right, wrong) = (json!([{"port": PORT}]), json!([{"port": SERVICE_PORT}]));
    let to_service = policy(
        "shop",
        "to-backends",
        &json!({
            "podSelector": {"matchLabels": {"app": "client"}},
            "egress": [{"to": [{"ipBlock": {"cidr": "10.96.0.0/16"}}, {"ipBlock": {"cidr": "fd96::/64"}}]}],
        }),
    );
    for (what, egress, ingress) in [
        ("the Service's port for egress", to_backends(&wrong), from_client(&right)),
        ("the Service's port for ingress", to_backends(&right), from_client(&wrong)),
        ("the Service's addresses for egress", to_service, from_client(&right)),
    ] {
        scene.testbed.put(&egress)?;
        scene.testbed.put(&ingress)?;
        scene.testbed.wait_in_step()?;
        assert_eq!(scene.outcomes(&client)?, [Outcome::Denied; 4], "{what}");
    }
    Ok(())
}

fn a_pod_reaches_itself_through_its_service(topology: Topology) -> Result<()> {
    let mut scene = Scene::raise(topology)?;
    let near = scene.near.clone();
    let mut probes = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        // Not even the client may use this port.
        let service = scene.testbed.lab.service(protocol, 9090, SERVICE_PORT, &[&near])?;
        for to in [service.ipv4, service.ipv6] {
            probes.extend([&near, &scene.client].map(|from| Probe::new(from, to, 9090, protocol)));
        }
    }
    let _agents = scene.testbed.start_agents()?;
    assert_eq!(scene.outcomes(&probes)?, [[Outcome::Allowed, Outcome::Denied]; 4].concat());
    Ok(())
}

/// As kube-proxy's IPVS mode and transparent proxies do it: from the pod's address, through the hook `output`.
fn what_the_node_sends_for_a_pod_is_judged(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let _agents = scene.testbed.start_agents()?;
    let mut probes = Vec::new();
    for to in [&scene.near, &scene.far] {
        for protocol in Protocol::ALL {
            for port in [PORT, SERVICE_PORT] {
                probes.extend(scene.probes(to, port, protocol));
            }
        }
    }
    let probes: Vec<_> = probes.into_iter().map(|probe| probe.sent_by(scene.client.node())).collect();
    assert_eq!(scene.testbed.disagreements(&probes)?, Vec::<String>::new());
    let allowed = scene.testbed.judge(&probes)?.into_iter().filter(|allowed| *allowed).count();
    assert_eq!((allowed, probes.len()), (8, 64));
    Ok(())
}

fn a_node_and_its_pods_always_reach_each_other(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let (node, other) = (scene.near.node(), scene.far.node());
    for node in [node, other] {
        listen(node, &[PORT])?;
    }
    let _agents = scene.testbed.start_agents()?;
    let between = |pod: &Pod, node: &lab::Node| {
        let mut probes = Vec::new();
        for protocol in Protocol::ALL {
            probes.extend(pod.addresses().into_iter().map(|to| Probe::new(node, to, PORT, protocol)));
            probes.extend(node.addresses().into_iter().map(|to| Probe::new(pod, to, PORT, protocol)));
        }
        probes
    };
    let own = [between(&scene.near, node), between(&scene.far, other)].concat();
    assert_eq!(scene.outcomes(&own)?, vec![Outcome::Allowed; own.len()]);
    let others = [between(&scene.near, other), between(&scene.far, node)].concat();
    assert_eq!(scene.outcomes(&others)?, vec![Outcome::Denied; others.len()]);
    let nodes: Vec<_> = Protocol::ALL
        .into_iter()
        .flat_map(|protocol| other.addresses().into_iter().map(move |to| (to, protocol)))
        .map(|(to, protocol)| Probe::new(node, to, PORT, protocol))
        .collect();
    assert_eq!(scene.outcomes(&nodes)?, vec![Outcome::Allowed; nodes.len()]);
    Ok(())
}

/// From outside, by a port of the first node, which hides who asked behind its own address.
fn a_node_port_lets_nobody_slip_through(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let node = scene.near.node();
    node.namespace().nft(&format!(
        "table inet lab_node_port {{
           chain prerouting {{
             type nat hook prerouting priority dstnat
             tcp dport {{ 30001, 30002 }} dnat ip to tcp dport map {{ 30001 : {}, 30002 : {} }} : {PORT}
           }}
           chain postrouting {{
             type nat hook postrouting priority srcnat
             ct status dnat masquerade
           }}
         }}",
        scene.near.ipv4(),
        scene.far.ipv4()
    ))?;
    let probes =
        [30001, 30002].map(|port| Probe::new(scene.testbed.lab.world(), node.ipv4(), port, Protocol::Tcp));
    assert_eq!(scene.outcomes(&probes)?, [Outcome::Allowed; 2], "before anything is enforced");
    let _agents = scene.testbed.start_agents()?;
    assert_eq!(scene.outcomes(&probes)?, [Outcome::Denied; 2]);
    Ok(())
}

fn neighbours_are_discovered_under_default_deny(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology)?;
    let _agents = scene.testbed.start_agents()?;
    for namespace in [&scene.client, &scene.near].map(|pod| pod.namespace()) {
        namespace.ip("neigh flush all")?;
    }
    scene.near.node().namespace().ip("neigh flush all")?;
    let probes = scene.probes(&scene.near, PORT, Protocol::Tcp);
    assert_eq!(scene.outcomes(&probes)?, [[Outcome::Allowed; 2], [Outcome::Denied; 2]].concat());
    Ok(())
}
