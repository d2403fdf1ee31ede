//! Packets obey the policies: in random clusters each one goes as the judge says, whatever connects the pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use anyhow::Result;
use lab::programs::is_there;
use lab::random::{self, NAMESPACES, PORTS, PodPlace, Random};
use lab::testbed::{BOUND, Testbed, cluster_policy_definition, listen, namespace, wait_until};
use lab::{Agent, ControlPlane, Endpoint, Probe, Protocol, Topology, Underlay, User};
use serde_json::{Value, json};

const NODES: [&str; 2] = ["node-1", "node-2"];

/// Addresses outside the cluster, besides those of the world on the LAN.
const OUTSIDE: [&str; 4] = ["192.0.2.7", "203.0.113.200", "2001:db8::1", "fd99::1"];

/// Addresses near which more blocks begin and end.
const NEAR: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(10, 244, 1, 3)),
    IpAddr::V4(Ipv4Addr::new(10, 244, 2, 2)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
    IpAddr::V6(Ipv6Addr::new(0xfd44, 0, 0, 1, 0, 0, 0, 4)),
];

/// Blocks that begin and end within the pods' ranges, the nodes' and the world's.
fn blocks() -> Vec<Value> {
    vec![
        json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}),
        json!({"cidr": "10.244.0.0/16"}),
        json!({"cidr": "10.244.1.0/29", "except": ["10.244.1.2/31", "10.244.1.4/32"]}),
        json!({"cidr": "192.0.2.0/24", "except": ["192.0.2.7/32"]}),
        json!({"cidr": "192.168.77.1/32"}),
        json!({"cidr": "128.0.0.0/1"}),
        json!({"cidr": "::/0"}),
        json!({"cidr": "fd44::/16", "except": ["fd44:0:0:1::/64"]}),
        json!({"cidr": "fd44:0:0:1::4/126"}),
        json!({"cidr": "fd77::/64", "except": ["fd77::fe/128"]}),
    ]
}

/// Two nodes with pods and the world, and what a random cluster says of them.
struct Scene {
    testbed: Testbed,
    pods: Vec<PodPlace>,
    host_network: Vec<PodPlace>,
}

impl Scene {
    fn raise(topology: Topology, underlay: Underlay) -> Result<Self> {
        let mut testbed = Testbed::new(topology, underlay, &NODES)?;
        for address in OUTSIDE {
            testbed.lab.add_world_address(address.parse()?)?;
        }
        listen(testbed.lab.world(), &PORTS)?;
        let (mut pods, mut host_network) = (Vec::new(), Vec::new());
        for node in testbed.lab.nodes().to_vec() {
            // Each random cluster has nodes with labels of its own.
            testbed.delete(&node.manifest())?;
            listen(&node, &PORTS)?;
            host_network.push(place(&node, node.name(), "red", node.name()));
            for (index, namespace) in NAMESPACES.iter().chain(&NAMESPACES[..1]).enumerate() {
                let name = format!("{}-{index}", node.name());
                let pod = testbed.lab.pod(&node, &format!("{namespace}/{name}"))?;
                listen(&pod, &PORTS)?;
                pods.push(place(&pod, node.name(), namespace, &name));
            }
        }
        Ok(Self { testbed, pods, host_network })
    }

    /// The namespaces, the nodes, the pods with labels and ports, and the policies that the seed decides.
    fn objects(&self, seed: u64) -> Vec<Value> {
        let random = &mut Random::new(seed);
        let mut objects = random::namespaces(random);
        for place in &self.pods {
            let mut pod = random::pod(random, place);
            pod["spec"]["hostNetwork"] = json!(false);
            if random.percent(20) {
                // An address that the cluster does not know is one like any other outside.
                pod["status"]["podIPs"] = json!([{"ip": random.pick(&place.addresses)}]);
            }
            objects.push(pod);
        }
        for place in &self.host_network {
            let mut pod = random::pod(random, place);
            pod["spec"]["hostNetwork"] = json!(true);
            objects.push(pod);
            let addresses: Vec<_> = place.addresses.iter().map(String::as_str).collect();
            objects.push(random::node(random, &place.node, &addresses));
        }
        let mut blocks = blocks();
        blocks.extend(random::blocks(random, &NEAR));
        objects.extend((0..2 + random.below(6)).map(|index| random::policy(random, index, &blocks)));
        objects.extend((0..random.below(7)).map(|index| random::cluster_policy(random, index, &blocks)));
        objects
    }

    /// Writes objects as manifests, in one file.
    fn describe(&self, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.testbed.manifests.write("cluster.json", &list.to_string())
    }

    /// Tries whether every packet goes as the judge says of the manifests.
    fn check(&self, seed: u64) -> Result<()> {
        self.testbed.wait_in_step()?;
        let probes = self.probes(seed);
        let verdicts = self.testbed.judge(&probes)?;
        assert!(verdicts.contains(&true) && verdicts.contains(&false), "seed {seed} decides nothing");
        assert_eq!(self.testbed.disagreements(&probes)?, Vec::<String>::new(), "seed {seed}");
        Ok(())
    }

    /// Between pods, nodes and the world, from every address to every other: ICMP, and every other protocol to
    /// some ports, which the seed decides.
    fn probes(&self, seed: u64) -> Vec<Probe> {
        let random = &mut Random::new(seed);
        let lab = &self.testbed.lab;
        let pods = lab.pods().iter().map(|pod| (&**pod, true));
        let others = lab.nodes().iter().map(|node| (&**node, false)).chain([(lab.world(), false)]);
        let ends: Vec<(&Endpoint, bool)> = pods.chain(others).collect();
        let mut probes = Vec::new();
        for (from, from_pod) in &ends {
            for (to, _) in ends.iter().filter(|(_, to_pod)| *from_pod || *to_pod) {
                for (source, destination) in pairs(from, to) {
                    let probe =
                        |port, protocol| Probe::new(from, destination, port, protocol).from_address(source);
                    probes.push(probe(PORTS[0], Protocol::Icmp));
                    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                        probes.extend((0..3).map(|_| probe(*random.pick(&PORTS), protocol)));
                    }
                }
            }
        }
        probes
    }
}

/// The addresses by which two ends reach one another.
fn pairs(from: &Endpoint, to: &Endpoint) -> Vec<(IpAddr, IpAddr)> {
    let sources = from.addresses().into_iter();
    let pairs = sources.flat_map(|source| to.addresses().into_iter().map(move |to| (source, to)));
    pairs.filter(|(source, to)| source.is_ipv4() == to.is_ipv4()).collect()
}

fn place(endpoint: &Endpoint, node: &str, namespace: &str, name: &str) -> PodPlace {
    PodPlace {
        name: (namespace.to_owned(), name.to_owned()),
        node: node.to_owned(),
        addresses: endpoint.addresses().iter().map(ToString::to_string).collect(),
    }
}

/// Every packet goes as the judge says, one cluster after the other.
fn random_clusters(topology: Topology, underlay: Underlay, seeds: Range<u64>) -> Result<()> {
    let scene = Scene::raise(topology, underlay)?;
    let _agents = scene.testbed.start_agents()?;
    for seed in seeds {
        scene.describe(&scene.objects(seed))?;
        scene.check(seed)?;
    }
    Ok(())
}

#[test]
fn random_clusters_routed_over_vxlan() -> Result<()> {
    random_clusters(Topology::Routed, Underlay::Vxlan, 0..4)
}

#[test]
fn random_clusters_routed_over_host_gateways() -> Result<()> {
    random_clusters(Topology::Routed, Underlay::HostGateway, 100..104)
}

#[test]
fn random_clusters_bridged_over_vxlan() -> Result<()> {
    random_clusters(Topology::Bridge, Underlay::Vxlan, 200..204)
}

#[test]
fn random_clusters_bridged_over_host_gateways() -> Result<()> {
    random_clusters(Topology::Bridge, Underlay::HostGateway, 300..304)
}

/// An object as the API server takes it: manifests need no image, and one field for the addresses.
fn complete(mut object: Value) -> Value {
    if object["kind"] == "Pod" {
        object["spec"]["containers"][0]["image"] = json!("example.invalid/none");
        object["status"]["podIP"] = object["status"]["podIPs"][0]["ip"].clone();
    }
    object
}

#[test]
fn random_clusters_written_to_an_api_server() -> Result<()> {
    if !is_there(ControlPlane::available()) {
        return Ok(());
    }
    let scene = Scene::raise(Topology::Routed, Underlay::HostGateway)?;
    let world = scene.testbed.lab.world();
    let plane = ControlPlane::start(world.namespace(), world.ipv4())?;
    plane.api().put(&cluster_policy_definition(&["v1alpha2", "v1beta1"]))?;
    for name in NAMESPACES {
        plane.api().put(&namespace(name, &json!({})))?;
    }
    let kubeconfig = plane.kubeconfig(User::Agent)?;
    let mut agents = Vec::new();
    for node in scene.testbed.lab.nodes() {
        let mut agent = Agent::start_with(node, ["--kubeconfig".as_ref(), kubeconfig.as_os_str()])?;
        agent.wait_ready(BOUND)?;
        agents.push(agent);
    }
    for seed in 400..404 {
        let objects: Vec<Value> = scene.objects(seed).into_iter().map(complete).collect();
        // A definition that has just come takes a moment until it takes objects.
        objects.iter().try_for_each(|object| wait_until(BOUND, || plane.api().put(object)))?;
        scene.describe(&objects)?;
        scene.check(seed)?;
        let mut mortal = objects
            .iter()
            .filter(|object| !["Namespace", "Node"].contains(&object["kind"].as_str().unwrap_or_default()));
        mortal.try_for_each(|object| plane.api().delete(object))?;
    }
    Ok(())
}
