//! Random clusters, as manifests: every field that decides about a packet, in every form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde_json::{Value, json};

/// A sequence of choices that a seed fully decides.
pub struct Random(fastrand::Rng);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Puts the items into any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// What the pods of a random cluster look like; the labels and ports are drawn.
pub struct PodPlace {
    /// `namespace/name`
    pub name: (String, String),
    /// `spec.nodeName`
    pub node: String,
    /// `status.podIPs`
    pub addresses: Vec<String>,
}

/// The namespaces that random pods and policies live in.
pub const NAMESPACES: [&str; 3] = ["blue", "green", "red"];

/// Port names, each with its protocol and the numbers it may have.
const NAMED: [(&str, &str, [u16; 2]); 3] =
    [("web", "TCP", [80, 8080]), ("dns", "UDP", [53, 5353]), ("sig", "SCTP", [3868, 80])];

/// Ports worth asking for: the ends of what rules name, and what lies beside.
pub const PORTS: [u16; 9] = [53, 79, 80, 81, 443, 5353, 8080, 8090, 65535];

const LABELS: [(&str, [&str; 3]); 3] =
    [("app", ["a", "b", "c"]), ("tier", ["front", "back", "db"]), ("canary", ["yes", "no", "x"])];

/// Namespaces with random labels, one of them left undeclared.
pub fn namespaces(random: &mut Random) -> Vec<Value> {
    NAMESPACES[1..].iter().map(|name| namespace(random, name)).collect()
}

/// A namespace with random labels.
pub fn namespace(random: &mut Random, name: &str) -> Value {
    let metadata = json!({"name": name, "labels": labels(random), "annotations": audit(random, 5)});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
}

/// The annotations of something that is in audit mode in so many cases of a hundred.
fn audit(random: &mut Random, percent: usize) -> Value {
    let value = if random.percent(percent) { "true" } else { *random.pick(&["false", "True", "1"]) };
    json!({"podfence.io/audit": value})
}

/// A pod with random labels and ports; sometimes on its host's network, sometimes finished.
pub fn pod(random: &mut Random, place: &PodPlace) -> Value {
    let ports: Vec<Value> = NAMED
        .iter()
        .filter_map(|(name, protocol, numbers)| {
            let number = *random.pick(numbers);
            let mut port = json!({"name": name, "containerPort": number});
            if *protocol != "TCP" || random.percent(50) {
                port["protocol"] = json!(protocol);
            }
            random.percent(70).then_some(port)
        })
        .collect();
    let phase = if random.percent(5) { "Succeeded" } else { "Running" };
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": place.name.0, "name": place.name.1, "labels": labels(random)},
        "spec": {"nodeName": place.node, "containers": [{"name": "main", "ports": ports}]},
        "status": {"phase": phase, "podIPs": place.addresses.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()},
    });
    if random.percent(5) {
        pod["spec"]["hostNetwork"] = json!(true);
    }
    pod
}

/// Blocks that begin and end near some addresses and at both ends of their families, with exceptions that lie inside one
/// another, side by side, twice, and in any order.
pub fn blocks(random: &mut Random, near: &[IpAddr]) -> Vec<Value> {
    (0..12).map(|_| block(random, near)).collect()
}

/// The lowest and the highest address of each family.
const ENDS: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    IpAddr::V4(Ipv4Addr::BROADCAST),
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
];

fn block(random: &mut Random, near: &[IpAddr]) -> Value {
    let address = if random.percent(20) { *random.pick(&ENDS) } else { *random.pick(near) };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    // Mostly so small that the addresses of a test fall on both sides.
    let least = if random.percent(75) { bits - 7 } else { 0 };
    let cidr = network(random, address, least..=bits);
    let mut except: Vec<IpNet> = Vec::new();
    let longer = cidr.prefix_len() + 1..=bits.min(cidr.prefix_len() + 6);
    for _ in 0..random.below(4) {
        if longer.is_empty() {
            break;
        }
        let inside = *random.pick(&[cidr.network(), cidr.broadcast(), address]);
        let hole = network(random, inside, longer.clone());
        except.push(hole);
        match random.below(4) {
            0 => except.push(hole),
            1 => except.push(hole.broadcast().into()),
            2 => except.extend(sibling(hole).filter(|sibling| *sibling != cidr && cidr.contains(sibling))),
            _ => {}
        }
    }
    random.shuffle(&mut except);
    let except: Vec<_> = except.iter().map(ToString::to_string).collect();
    json!({"cidr": cidr.to_string(), "except": except})
}

/// The network of an address with a length from a range that is not empty.
fn network(random: &mut Random, address: IpAddr, lengths: RangeInclusive<u8>) -> IpNet {
    let lengths: Vec<u8> = lengths.collect();
    IpNet::new_assert(address, *random.pick(&lengths)).trunc()
}

/// The other half of the network around this one.
fn sibling(network: IpNet) -> Option<IpNet> {
    let mut halves = network.supernet()?.subnets(network.prefix_len()).ok()?;
    halves.find(|half| *half != network)
}

/// A policy with every kind of rule; `blocks` are the address blocks it may name.
pub fn policy(random: &mut Random, index: usize, blocks: &[Value]) -> Value {
    let mut spec = json!({"podSelector": if random.percent(30) { json!({}) } else { selector(random) }});
    let (ingress, egress) = (random.percent(70), random.percent(60));
    if ingress {
        spec["ingress"] = rules(random, "from", blocks);
    }
    if egress {
        spec["egress"] = rules(random, "to", blocks);
    }
    if random.percent(60) {
        spec["policyTypes"] =
            random.pick(&[json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]).clone();
    }
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {
            "namespace": random.pick(&NAMESPACES),
            "name": format!("policy-{index}"),
            "annotations": audit(random, 15),
        },
        "spec": spec,
    })
}

/// A ClusterNetworkPolicy with every kind of rule; its networks are among the canonical `cidr`s of `blocks`, since the
/// API takes no others.
pub fn cluster_policy(random: &mut Random, index: usize, blocks: &[Value]) -> Value {
    let is_canonical = |block: &&Value| {
        let network = block["cidr"].as_str().and_then(|cidr| cidr.parse::<IpNet>().ok());
        network.is_some_and(|network| block["cidr"] == network.trunc().to_string())
    };
    let blocks: Vec<Value> = blocks.iter().filter(is_canonical).cloned().collect();
    let subject = match random.below(3) {
        0 => json!({"namespaces": namespace_selector(random)}),
        1 => json!({"pods": {"podSelector": selector(random)}}),
        _ => {
            json!({"pods": {"namespaceSelector": namespace_selector(random), "podSelector": selector(random)}})
        }
    };
    let mut spec = json!({
        "tier": random.pick(&["Admin", "Baseline"]),
        "priority": random.pick(&[0, 1, 7, 7, 500, 1000]),
        "subject": subject,
    });
    for direction in ["ingress", "egress"] {
        if random.percent(60) {
            spec[direction] = (0..random.below(4)).map(|_| tier_rule(random, direction, &blocks)).collect();
        }
    }
    json!({
        "apiVersion": random.pick(&["policy.networking.k8s.io/v1beta1", "policy.networking.k8s.io/v1alpha2"]),
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": format!("cluster-policy-{index}"), "annotations": audit(random, 10)},
        "spec": spec,
    })
}

/// A node with random labels and these addresses.
pub fn node(random: &mut Random, name: &str, addresses: &[&str]) -> Value {
    let addresses: Vec<_> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels(random)},
        "status": {"addresses": addresses},
    })
}

fn labels(random: &mut Random) -> Value {
    let mut labels = json!({});
    for (key, values) in LABELS {
        if random.percent(65) {
            labels[key] = json!(random.pick(&values));
        }
    }
    labels
}

fn selector(random: &mut Random) -> Value {
    let (key, values) = *random.pick(&LABELS);
    let (one, other) = (*random.pick(&values), *random.pick(&values));
    match random.below(6) {
        0 => json!({}),
        1 => json!({"matchLabels": {key: one}}),
        2 => json!({"matchExpressions": [{"key": key, "operator": "In", "values": [one, other]}]}),
        3 => json!({"matchExpressions": [{"key": key, "operator": "NotIn", "values": [one, other]}]}),
        4 => json!({"matchExpressions": [{"key": key, "operator": "Exists"}], "matchLabels": {"app": "a"}}),
        _ => json!({"matchExpressions": [{"key": key, "operator": "DoesNotExist"}]}),
    }
}

fn rules(random: &mut Random, peers: &str, blocks: &[Value]) -> Value {
    (0..random.below(3)).map(|_| rule(random, peers, blocks)).collect()
}

fn rule(random: &mut Random, peers: &str, blocks: &[Value]) -> Value {
    let mut rule = json!({});
    if random.percent(80) {
        rule[peers] = (0..random.below(3)).map(|_| peer(random, blocks)).collect();
    }
    if random.percent(75) {
        rule["ports"] = (0..random.below(4)).map(|_| port(random)).collect();
    }
    rule
}

fn peer(random: &mut Random, blocks: &[Value]) -> Value {
    match random.below(4) {
        0 => json!({"podSelector": selector(random)}),
        1 => json!({"namespaceSelector": namespace_selector(random)}),
        2 => json!({"namespaceSelector": namespace_selector(random), "podSelector": selector(random)}),
        _ => json!({"ipBlock": random.pick(blocks)}),
    }
}

/// A rule of a ClusterNetworkPolicy.
fn tier_rule(random: &mut Random, direction: &str, blocks: &[Value]) -> Value {
    let mut rule = json!({"action": random.pick(&["Accept", "Deny", "Pass"])});
    if random.percent(30) {
        rule["name"] = json!(random.pick(&["first", "a rule"]));
    }
    let peers_key = if direction == "ingress" { "from" } else { "to" };
    let peers: Vec<_> = (0..=random.below(2)).map(|_| tier_peer(random, direction, blocks)).collect();
    let have_names = peers.iter().all(|peer| peer.get("networks").or(peer.get("nodes")).is_none());
    rule[peers_key] = json!(peers);
    if random.percent(60) {
        rule["protocols"] = (0..=random.below(2)).map(|_| tier_protocol(random, have_names)).collect();
    }
    rule
}

fn tier_peer(random: &mut Random, direction: &str, blocks: &[Value]) -> Value {
    match random.below(if direction == "ingress" { 3 } else { 5 }) {
        0 => json!({"namespaces": namespace_selector(random)}),
        1 => json!({"pods": {"podSelector": selector(random)}}),
        2 => {
            json!({"pods": {"namespaceSelector": namespace_selector(random), "podSelector": selector(random)}})
        }
        3 => json!({"networks": [random.pick(blocks)["cidr"]]}),
        _ => json!({"nodes": selector(random)}),
    }
}

fn tier_protocol(random: &mut Random, have_names: bool) -> Value {
    let first = *random.pick(&PORTS);
    let port = match first.checked_add(*random.pick(&[1, 10, 60000])) {
        Some(last) if random.percent(40) => json!({"range": {"start": first, "end": last}}),
        _ => json!({"number": first}),
    };
    match random.below(4) {
        0 if have_names => json!({"destinationNamedPort": random.pick(&NAMED).0}),
        1 => json!({"udp": {"destinationPort": port}}),
        2 => json!({"sctp": {"destinationPort": port}}),
        _ => json!({"tcp": {"destinationPort": port}}),
    }
}

fn namespace_selector(random: &mut Random) -> Value {
    if random.percent(30) {
        json!({"matchLabels": {"kubernetes.io/metadata.name": random.pick(&NAMESPACES)}})
    } else {
        selector(random)
    }
}

fn port(random: &mut Random) -> Value {
    let protocol = random.pick(&[None, Some("TCP"), Some("UDP"), Some("SCTP")]);
    let first = *random.pick(&PORTS);
    let mut port = match random.below(5) {
        0 => json!({}),
        1 => {
            let last = first.saturating_add(*random.pick(&[0, 1, 10, 60000]));
            json!({"port": first, "endPort": last})
        }
        2 => {
            let (name, protocol, _) = random.pick(&NAMED);
            return if random.percent(85) {
                json!({"port": name, "protocol": protocol})
            } else {
                json!({"port": name})
            };
        }
        _ => json!({"port": first}),
    };
    if let Some(protocol) = protocol {
        port["protocol"] = json!(protocol);
    }
    port
}
