//! Objects that come, change and go.

use std::collections::{BTreeMap, BTreeSet};

use lab::random::{self, Random};
use policy_compiler::model::Cluster;
use serde_json::{Value, json};

use super::{NODES, blocks, cluster, cluster_policy, node_in_the_way, places, with_namespaces};

/// Objects by name, as they stand after some changes.
#[derive(Default)]
pub(crate) struct History {
    objects: BTreeMap<(String, String), Value>,
    /// The namespaces that are not known.
    unknown: BTreeSet<&'static str>,
}

impl History {
    pub(crate) fn cluster(&self) -> Cluster {
        let cluster = cluster(&self.objects.values().cloned().collect::<Vec<_>>());
        with_namespaces(&cluster, |name| !self.unknown.contains(name))
    }

    pub(crate) fn put(&mut self, object: Value) {
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        let name = format!("{} {}", object["metadata"]["namespace"], object["metadata"]["name"]);
        self.objects.insert((kind, name), object);
    }

    pub(crate) fn change(&mut self, random: &mut Random) {
        let places = places();
        match random.below(12) {
            0 => {
                let name = *random.pick(&random::NAMESPACES);
                if random.percent(30) {
                    self.unknown.insert(name);
                    return;
                }
                let namespace = random::namespace(random, name);
                self.unknown.remove(name);
                self.put(namespace);
            }
            1 | 2 => {
                let index = random.below(6);
                let blocks = blocks(random);
                let policy = random::policy(random, index, &blocks);
                self.put(policy);
            }
            3 => self.remove_any(random),
            4 => {
                // An address moves to another pod, which may be younger than the one that has it.
                let place = random.pick(&places);
                let mut pod = random::pod(random, place);
                pod["metadata"]["creationTimestamp"] =
                    json!(format!("2026-01-01T00:00:0{}Z", random.below(4)));
                if random.below(3) == 0 {
                    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:09Z");
                }
                pod["status"]["podIPs"] = json!([{"ip": format!("10.1.0.{}", 1 + random.below(9))}]);
                self.put(pod);
            }
            5 if random.percent(30) => self.put(node_in_the_way(random)),
            6 | 7 => {
                let index = random.below(8);
                let policy = cluster_policy(random, index);
                self.put(policy);
            }
            8 => {
                let (name, addresses) = *random.pick(&NODES);
                let addresses = &addresses[random.below(addresses.len())..];
                let node = random::node(random, name, addresses);
                self.put(node);
            }
            _ => {
                let place = random.pick(&places);
                let pod = random::pod(random, place);
                self.put(pod);
            }
        }
    }

    fn remove_any(&mut self, random: &mut Random) {
        // Policies of namespaces that are not known outlive their objects, and so does what the own node says.
        let outlives = |object: &&Value| {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            object["kind"] == "NetworkPolicy" && self.unknown.contains(namespace)
                || object["kind"] == "Node" && object["metadata"]["name"] == "node-0"
        };
        let objects = self.objects.iter().filter(|(_, object)| !outlives(object));
        let names: Vec<_> = objects.map(|(name, _)| name.clone()).collect();
        if !names.is_empty() {
            self.objects.remove(random.pick(&names));
        }
    }
}
