//! A pod: a namespace on a veth.

use std::net::IpAddr;
use std::ops::Deref;

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use crate::endpoint::Endpoint;
use crate::lab::QUIET_NETWORK;
use crate::link::LinkAddress;
use crate::namespace::Namespace;
use crate::neighbour;
use crate::node::Node;
use crate::probe::Protocol;

/// A pod of the cluster. A handle: clones mean the same pod.
#[derive(Debug, Clone)]
pub struct Pod {
    endpoint: Endpoint,
    node: Node,
    number: u8,
}

impl Deref for Pod {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Pod {
    pub(crate) fn new(node: &Node, name: &str) -> Result<Self> {
        ensure!(name.split('/').count() == 2, "`{name}` is not of the form namespace/name");
        let number = node.new_pod_number()?;
        let endpoint = Endpoint::new(name, Namespace::new()?);
        let pod = Self { endpoint, node: node.clone(), number };
        pod.namespace().sysctl(QUIET_NETWORK)?;
        node.plug(&pod.link(), pod.namespace(), number)?;
        let (ipv4, ipv6) = node.pod_addresses(number);
        pod.assign(vec![ipv4.into(), ipv6.into()])?;
        Ok(pod)
    }

    /// The node it runs on.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The node's end of its veth pair.
    pub fn link(&self) -> String {
        format!("pod{}", self.number)
    }

    /// The link address of its end of that pair.
    pub fn link_address(&self) -> LinkAddress {
        self.node.pod_link_address(self.number)
    }

    /// Its addresses, as a neighbour sees them.
    fn neighbours(&self) -> Vec<(IpAddr, LinkAddress)> {
        self.addresses().into_iter().map(|address| (address, self.link_address())).collect()
    }

    /// Fixes the way between this pod and others on the same bridge, so that nobody has to ask for it.
    pub(crate) fn fix_neighbours<'a>(&self, others: impl Iterator<Item = &'a Self>) -> Result<()> {
        let mut all = Vec::new();
        for other in others {
            neighbour::fix(other.namespace(), &self.neighbours())?;
            all.extend(other.neighbours());
        }
        neighbour::fix(self.namespace(), &all)
    }

    pub(crate) fn assign(&self, addresses: Vec<IpAddr>) -> Result<()> {
        self.stop_server();
        self.node.assign(&self.link(), self.namespace(), &addresses)?;
        self.set_addresses(addresses)
    }

    pub(crate) fn unplug(&self) -> Result<()> {
        self.stop_server();
        self.node.unplug(&self.link())
    }

    /// The Pod object of the API, running, with these labels and with named container ports, in JSON (which is
    /// YAML too).
    pub fn manifest(&self, labels: &[(&str, &str)], ports: &[(&str, Protocol, u16)]) -> Value {
        let (namespace, name) = self.name().split_once('/').unwrap_or_default();
        let labels: Map<String, Value> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
        let ports: Vec<Value> = ports
            .iter()
            .map(|(name, protocol, port)| {
                json!({ "name": name, "protocol": protocol.to_string(), "containerPort": port })
            })
            .collect();
        let addresses = self.addresses();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "namespace": namespace, "name": name, "labels": labels },
            "spec": {
                "nodeName": self.node.name(),
                "containers": [{ "name": "main", "image": "lab", "ports": ports }],
            },
            "status": {
                "phase": "Running",
                "podIP": addresses.first(),
                "podIPs": addresses.iter().map(|address| json!({ "ip": address })).collect::<Vec<_>>(),
            },
        })
    }
}
