//! What the objects say of a connection, as the API's documentation has it, read off the JSON.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use policy_compiler::judge::Traffic;
use policy_compiler::model::Direction;
use serde_json::{Value, json};

pub(crate) struct Oracle<'o> {
    by_kind: HashMap<&'o str, Vec<&'o Value>>,
    /// Of every namespace that pods live in.
    namespace_labels: HashMap<&'o str, Value>,
    /// Whether NetworkPolicies judge what pods send to their node.
    judges_node: bool,
}

/// A connection as its subject sees it.
#[derive(Clone, Copy)]
struct Seen<'o> {
    direction: Direction,
    subject: &'o Value,
    peer: IpAddr,
    peer_pod: Option<&'o Value>,
    destination: Option<&'o Value>,
    traffic: Traffic,
}

impl<'o> Oracle<'o> {
    pub(crate) fn new(objects: &'o [Value], judges_node: bool) -> Self {
        let mut by_kind: HashMap<_, Vec<_>> = HashMap::new();
        for object in objects {
            by_kind.entry(object["kind"].as_str().unwrap()).or_default().push(object);
        }
        by_kind.entry("ClusterNetworkPolicy").or_default().sort_by_key(|policy| {
            (policy["spec"]["priority"].as_u64(), policy["metadata"]["name"].as_str().unwrap())
        });
        let labels = |name: &Value| {
            let mut namespaces = objects.iter().filter(|object| object["kind"] == "Namespace");
            let namespace = namespaces.find(|namespace| namespace["metadata"]["name"] == *name);
            let mut labels = namespace.map_or(json!({}), |it| it["metadata"]["labels"].clone());
            labels["kubernetes.io/metadata.name"] = name.clone();
            labels
        };
        let of_pods = by_kind["Pod"].iter().map(|pod| &pod["metadata"]["namespace"]);
        let namespace_labels = of_pods.map(|name| (name.as_str().unwrap(), labels(name))).collect();
        Self { by_kind, namespace_labels, judges_node }
    }

    pub(crate) fn allows(
        &self,
        direction: Direction,
        (from, to): (IpAddr, IpAddr),
        traffic: Traffic,
        through_service: bool,
    ) -> bool {
        let (subject, peer) = if direction == Direction::Egress { (from, to) } else { (to, from) };
        let Some(subject) = self.pod_with(subject) else { return true };
        let peer_pod = self.pod_with(peer);
        let destination = self.pod_with(to);
        let seen = Seen { direction, subject, peer, peer_pod, destination, traffic };
        let itself = peer_pod.is_some_and(|pod| pod["metadata"] == subject["metadata"]);
        let own_node = peer_pod.is_none() && self.is_node_of(subject, peer);
        if itself && !through_service || own_node && direction == Direction::Ingress {
            return true;
        }
        if let Some(decision) = self.tier("Admin", seen) {
            return decision;
        }
        let isolating: Vec<_> = self.kind("NetworkPolicy").filter(|policy| isolates(policy, seen)).collect();
        if !isolating.is_empty() {
            let left_alone = itself || own_node && !self.judges_node;
            if left_alone || isolating.iter().any(|policy| self.network_policy_allows(policy, seen)) {
                return true;
            }
            if !isolating.iter().all(|policy| self.is_audited(policy)) {
                return false;
            }
        }
        self.tier("Baseline", seen).unwrap_or(true)
    }

    fn kind(&self, kind: &str) -> impl Iterator<Item = &'o Value> {
        self.by_kind.get(kind).into_iter().flatten().copied()
    }

    /// The pod that has an address. One in its node's network has none.
    fn pod_with(&self, address: IpAddr) -> Option<&'o Value> {
        let address = address.to_string();
        let has = |pod: &&Value| has_address(&pod["status"]["podIPs"], "ip", &address);
        self.kind("Pod").find(|pod| pod["spec"]["hostNetwork"] != true && has(pod))
    }

    /// Whether an address is that of the node that runs a pod, or of a pod in its network.
    fn is_node_of(&self, pod: &Value, address: IpAddr) -> bool {
        let node = &pod["spec"]["nodeName"];
        let address = address.to_string();
        let is_node = |object: &Value| {
            object["metadata"]["name"] == *node
                && has_address(&object["status"]["addresses"], "address", &address)
        };
        let is_host = |other: &Value| {
            other["spec"]["nodeName"] == *node
                && other["spec"]["hostNetwork"] == true
                && !has_finished(other)
                && has_address(&other["status"]["podIPs"], "ip", &address)
        };
        self.kind("Node").any(is_node) || self.kind("Pod").any(is_host)
    }

    fn labels_of_namespace(&self, pod: &Value) -> &Value {
        &self.namespace_labels[pod["metadata"]["namespace"].as_str().unwrap()]
    }

    fn is_audited(&self, policy: &Value) -> bool {
        let own = &policy["metadata"]["namespace"];
        let mut namespaces = self.kind("Namespace").filter(|namespace| namespace["metadata"]["name"] == *own);
        has_audit(policy) || namespaces.any(has_audit)
    }

    /// What a tier decides; `None` if it does not.
    fn tier(&self, tier: &str, seen: Seen<'_>) -> Option<bool> {
        let policies = self.kind("ClusterNetworkPolicy").filter(|policy| policy["spec"]["tier"] == *tier);
        for policy in policies {
            if !self.selects(&policy["spec"]["subject"], seen.subject) {
                continue;
            }
            for rule in list(&policy["spec"][seen.direction.as_str()]) {
                let peers = list(&rule[peers_key(seen.direction)]);
                let ports = &rule["protocols"];
                let has_peer = peers.iter().any(|peer| self.is_tier_peer(peer, seen));
                if !has_peer || !ports.is_null() && !list(ports).iter().any(|port| is_tier_port(port, seen)) {
                    continue;
                }
                match rule["action"].as_str().unwrap() {
                    "Accept" => return Some(true),
                    "Deny" if has_audit(policy) => {}
                    "Deny" => return Some(false),
                    _ => return None,
                }
            }
        }
        None
    }

    /// Whether `namespaces` or `pods` of a ClusterNetworkPolicy select a pod.
    fn selects(&self, selectors: &Value, pod: &Value) -> bool {
        let (namespaces, pods) = match selectors.get("namespaces") {
            Some(namespaces) => (namespaces, &Value::Null),
            None => (&selectors["pods"]["namespaceSelector"], &selectors["pods"]["podSelector"]),
        };
        let is_selected = selectors.get("namespaces").is_some() || selectors.get("pods").is_some();
        is_selected
            && matches(namespaces, self.labels_of_namespace(pod))
            && matches(pods, &pod["metadata"]["labels"])
    }

    fn is_tier_peer(&self, peer: &Value, seen: Seen<'_>) -> bool {
        if let Some(nodes) = peer.get("nodes") {
            let mut nodes = self.kind("Node").filter(|node| matches(nodes, &node["metadata"]["labels"]));
            let peer = seen.peer.to_string();
            return nodes.any(|node| has_address(&node["status"]["addresses"], "address", &peer));
        }
        if let Some(networks) = peer.get("networks") {
            return list(networks).iter().any(|network| block(network).contains(&seen.peer));
        }
        seen.peer_pod.is_some_and(|pod| !has_finished(pod) && self.selects(peer, pod))
    }

    fn network_policy_allows(&self, policy: &Value, seen: Seen<'_>) -> bool {
        list(&policy["spec"][seen.direction.as_str()]).iter().any(|rule| {
            let (peers, ports) = (list(&rule[peers_key(seen.direction)]), list(&rule["ports"]));
            let own = &policy["metadata"]["namespace"];
            (peers.is_empty() || peers.iter().any(|peer| self.is_peer(peer, own, seen)))
                && (ports.is_empty() || ports.iter().any(|port| is_port(port, seen)))
        })
    }

    fn is_peer(&self, peer: &Value, own: &Value, seen: Seen<'_>) -> bool {
        if let Some(of) = peer.get("ipBlock") {
            return block(&of["cidr"]).contains(&seen.peer)
                && !list(&of["except"]).iter().any(|hole| block(hole).contains(&seen.peer));
        }
        let Some(pod) = seen.peer_pod.filter(|pod| !has_finished(pod)) else { return false };
        let in_scope = match peer.get("namespaceSelector") {
            Some(selector) => matches(selector, self.labels_of_namespace(pod)),
            None => pod["metadata"]["namespace"] == *own,
        };
        in_scope && matches(&peer["podSelector"], &pod["metadata"]["labels"])
    }
}

fn isolates(policy: &Value, seen: Seen<'_>) -> bool {
    let spec = &policy["spec"];
    let (types, wanted) = match seen.direction {
        Direction::Ingress => (list(&spec["policyTypes"]), "Ingress"),
        Direction::Egress => (list(&spec["policyTypes"]), "Egress"),
    };
    let by_default = seen.direction == Direction::Ingress || !list(&spec["egress"]).is_empty();
    let in_direction = if types.is_empty() { by_default } else { types.iter().any(|of| of == wanted) };
    in_direction
        && policy["metadata"]["namespace"] == seen.subject["metadata"]["namespace"]
        && matches(&spec["podSelector"], &seen.subject["metadata"]["labels"])
}

fn is_tier_port(entry: &Value, seen: Seen<'_>) -> bool {
    let Traffic::Port(protocol, number) = seen.traffic else { return false };
    if let Some(name) = entry.get("destinationNamedPort") {
        return is_named(name, protocol.as_str(), number.get(), seen);
    }
    let port = &entry[protocol.as_str().to_lowercase()]["destinationPort"];
    let number = u64::from(number.get());
    let (start, end) = (port["range"]["start"].as_u64(), port["range"]["end"].as_u64());
    port["number"].as_u64() == Some(number)
        || start.is_some_and(|start| start <= number) && end.is_some_and(|end| number <= end)
}

fn is_port(entry: &Value, seen: Seen<'_>) -> bool {
    let Traffic::Port(protocol, number) = seen.traffic else { return false };
    if entry["protocol"].as_str().unwrap_or("TCP") != protocol.as_str() {
        return false;
    }
    match &entry["port"] {
        Value::Null => true,
        Value::String(_) => is_named(&entry["port"], protocol.as_str(), number.get(), seen),
        port => {
            let first = port.as_u64().unwrap();
            (first..=entry["endPort"].as_u64().unwrap_or(first)).contains(&number.get().into())
        }
    }
}

/// Whether a port of the destination pod has this name, protocol and number.
fn is_named(name: &Value, protocol: &str, number: u16, seen: Seen<'_>) -> bool {
    let Some(pod) = seen.destination.filter(|pod| !has_finished(pod)) else { return false };
    let mut ports = list(&pod["spec"]["containers"]).iter().flat_map(|container| list(&container["ports"]));
    ports.any(|port| {
        port["name"] == *name
            && port["containerPort"] == number
            && port["protocol"].as_str().unwrap_or("TCP") == protocol
    })
}

/// `LabelSelector`; one that is not there selects everything.
fn matches(selector: &Value, labels: &Value) -> bool {
    let mut equal = selector["matchLabels"].as_object().into_iter().flatten();
    equal.all(|(key, value)| labels.get(key) == Some(value))
        && list(&selector["matchExpressions"]).iter().all(|term| {
            let value = labels.get(term["key"].as_str().unwrap());
            let among = value.is_some_and(|value| list(&term["values"]).contains(value));
            match term["operator"].as_str().unwrap() {
                "In" => among,
                "NotIn" => !among,
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}

fn peers_key(direction: Direction) -> &'static str {
    if direction == Direction::Ingress { "from" } else { "to" }
}

fn has_finished(pod: &Value) -> bool {
    pod["status"]["phase"] == "Succeeded"
}

fn has_audit(object: &Value) -> bool {
    object["metadata"]["annotations"]["podfence.io/audit"] == "true"
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn block(text: &Value) -> IpNet {
    text.as_str().unwrap().parse().unwrap()
}

fn has_address(entries: &Value, key: &str, address: &str) -> bool {
    list(entries).iter().any(|entry| entry[key] == address)
}
