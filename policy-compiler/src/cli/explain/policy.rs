//! A suggested policy as a manifest.

use policy_compiler::model::{
    Direction, LabelSelector, NamespaceScope, NetworkPolicy, Operator, Peer, PortMatch, Rule,
};
use serde_json::{Map, Value, json};

/// `networking.k8s.io/v1 NetworkPolicy`
pub(super) fn manifest(policy: &NetworkPolicy) -> Value {
    let mut spec = Map::from_iter([("podSelector".to_owned(), selector(&policy.subjects))]);
    let mut types = Vec::new();
    for (direction, name) in [(Direction::Egress, "Egress"), (Direction::Ingress, "Ingress")] {
        if let Some(rules) = policy.rules(direction) {
            types.push(name);
            let rules = rules.iter().map(|of| rule(of, direction)).collect();
            spec.insert(direction.as_str().to_owned(), rules);
        }
    }
    spec.insert("policyTypes".to_owned(), json!(types));
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": &*policy.name.name, "namespace": &*policy.name.namespace },
        "spec": spec,
    })
}

fn rule(rule: &Rule, direction: Direction) -> Value {
    let mut fields = Map::new();
    let peers_field = match direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    if let Some(peers) = &rule.peers {
        fields.insert(peers_field.to_owned(), peers.iter().filter_map(peer).collect());
    }
    if let Some(ports) = &rule.ports {
        fields.insert("ports".to_owned(), ports.iter().map(port).collect());
    }
    Value::Object(fields)
}

/// `None` for what no manifest can say.
fn peer(peer: &Peer) -> Option<Value> {
    Some(match peer {
        Peer::Pods(peer) => match &peer.namespaces {
            NamespaceScope::Own => json!({ "podSelector": selector(&peer.pods) }),
            NamespaceScope::Matching(namespaces) => {
                json!({ "namespaceSelector": selector(namespaces), "podSelector": selector(&peer.pods) })
            }
        },
        Peer::Block(block) => {
            let mut fields = json!({ "cidr": block.cidr.to_string() });
            if !block.except.is_empty() {
                fields["except"] = block.except.iter().map(|hole| Value::from(hole.to_string())).collect();
            }
            json!({ "ipBlock": fields })
        }
        Peer::Nodes(_) | Peer::Domains(_) | Peer::OwnNode => return None,
    })
}

fn port(port: &PortMatch) -> Value {
    match port {
        PortMatch::All(protocol) => json!({ "protocol": protocol.as_str() }),
        PortMatch::Named(protocol, name) => json!({ "port": name, "protocol": protocol.as_str() }),
        PortMatch::Range(protocol, ports) => {
            let mut fields = json!({ "port": ports.first(), "protocol": protocol.as_str() });
            if ports.first() != ports.last() {
                fields["endPort"] = ports.last().get().into();
            }
            fields
        }
    }
}

/// `LabelSelector`, with what can be said so in `matchLabels`.
fn selector(selector: &LabelSelector) -> Value {
    let mut labels = Map::new();
    let mut expressions = Vec::new();
    for requirement in &selector.requirements {
        let key = &requirement.key;
        let (operator, values) = match &requirement.operator {
            Operator::In(values) if values.len() == 1 && !labels.contains_key(key) => {
                labels.extend(values.iter().map(|value| (key.clone(), Value::from(value.as_str()))));
                continue;
            }
            Operator::In(values) => ("In", Some(values)),
            Operator::NotIn(values) => ("NotIn", Some(values)),
            Operator::Exists => ("Exists", None),
            Operator::DoesNotExist => ("DoesNotExist", None),
        };
        let mut expression = json!({ "key": key, "operator": operator });
        if let Some(values) = values {
            expression["values"] = json!(values);
        }
        expressions.push(expression);
    }
    let mut fields = Map::new();
    if !labels.is_empty() {
        fields.insert("matchLabels".to_owned(), Value::Object(labels));
    }
    if !expressions.is_empty() {
        fields.insert("matchExpressions".to_owned(), Value::Array(expressions));
    }
    Value::Object(fields)
}
