//! A lab with its objects: agents follow them, packets meet them, and the judge says what they mean.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use policy_compiler::judge::{Connection, Endpoint as End, Judge, Traffic};
use policy_compiler::manifest::{self, Input};
use policy_compiler::model::{self, Cluster, Family, ObjectName, PortNumber};
use serde_json::{Value, json};

use crate::agent::{Agent, program};
use crate::endpoint::Endpoint;
use crate::lab::{Lab, Topology, Underlay};
use crate::listing::{Listing, dry_run};
use crate::manifests::Manifests;
use crate::node::Node;
use crate::pod::Pod;
use crate::probe::{Outcome, Probe, Protocol};

/// The longest that an agent may take over anything, on a machine that has other things to do.
pub const BOUND: Duration = Duration::from_secs(20);

/// A lab, and a directory with the manifests that describe it.
#[derive(Debug)]
pub struct Testbed {
    /// The network.
    pub lab: Lab,
    /// The objects. What is written here by [`Testbed::put`] has a file of its own.
    pub manifests: Manifests,
}

impl Testbed {
    /// Raises nodes and writes their objects.
    ///
    /// # Errors
    /// The machine lacks what a lab needs.
    pub fn new(topology: Topology, underlay: Underlay, nodes: &[&str]) -> Result<Self> {
        let mut testbed = Self { lab: Lab::new(topology, underlay)?, manifests: Manifests::new()? };
        for name in nodes {
            let node = testbed.lab.node(name)?;
            testbed.put(&node.manifest())?;
        }
        Ok(testbed)
    }

    /// A node by its name.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let node = self.lab.nodes().iter().find(|node| node.name() == name);
        node.with_context(|| format!("there is no node {name}"))
    }

    /// Adds a pod, `namespace/name`, that listens on some ports. In its object, its name is the value of its
    /// label `app`.
    ///
    /// # Errors
    /// As [`Lab::pod`].
    pub fn pod(&mut self, node: &str, name: &str, ports: &[u16]) -> Result<Pod> {
        let node = self.node(node)?.clone();
        let pod = self.lab.pod(&node, name)?;
        listen(&pod, ports)?;
        let (_, app) = name.split_once('/').unwrap_or_default();
        self.put(&pod.manifest(&[("app", app)], &[]))?;
        Ok(pod)
    }

    /// Writes an object, in place of what it was before.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put(&self, object: &Value) -> Result<()> {
        self.manifests.write(&file_of(object), &object.to_string())
    }

    /// All objects that were written.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn objects(&self) -> Result<Vec<Value>> {
        let files = std::fs::read_dir(self.manifests.path())?;
        files.map(|file| Ok(serde_json::from_str(&std::fs::read_to_string(file?.path())?)?)).collect()
    }

    /// Removes an object.
    ///
    /// # Errors
    /// It is not there.
    pub fn delete(&self, object: &Value) -> Result<()> {
        self.manifests.remove(&file_of(object))
    }

    /// Starts an agent on a node and waits until it enforces.
    ///
    /// # Errors
    /// It does not.
    pub fn start_agent(&self, node: &str) -> Result<Agent> {
        self.start_agent_with(node, &[])
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// It does not.
    pub fn start_agent_with(&self, node: &str, arguments: &[&str]) -> Result<Agent> {
        let manifests = ["--manifests".as_ref(), self.manifests.path().as_os_str()];
        let arguments = arguments.iter().map(|argument| OsStr::new(*argument));
        let mut agent = Agent::start_with(self.node(node)?, manifests.into_iter().chain(arguments))?;
        agent.wait_ready(BOUND)?;
        Ok(agent)
    }

    /// Starts an agent on every node and waits until they enforce.
    ///
    /// # Errors
    /// One of them does not.
    pub fn start_agents(&self) -> Result<Vec<Agent>> {
        self.lab.nodes().iter().map(|node| self.start_agent(node.name())).collect()
    }

    /// Waits until the table of every node is the one that the dry run prints for it.
    ///
    /// # Errors
    /// A table stays another one; the error says what differs.
    pub fn wait_in_step(&self) -> Result<()> {
        self.wait_in_step_with(&[])
    }

    /// The same where agent and dry run have more arguments.
    ///
    /// # Errors
    /// As [`Testbed::wait_in_step`].
    pub fn wait_in_step_with(&self, arguments: &[&str]) -> Result<()> {
        self.lab.nodes().iter().try_for_each(|node| {
            let expected = Listing::of_text(&dry_run(node, self.manifests.path(), arguments)?)?;
            wait_until(BOUND, || {
                let differences = expected.differences(&Listing::of(node.namespace())?);
                ensure!(differences.is_empty(), "{} is not in step: {differences:#?}", node.name());
                Ok(())
            })
        })
    }

    /// What the policies say of the probes, and the doors of the pods: whether each comes through.
    ///
    /// # Errors
    /// The manifests are invalid.
    pub fn judge(&self, probes: &[Probe]) -> Result<Vec<bool>> {
        let cluster: Cluster = manifest::read(&[Input::Path(self.manifests.path().to_owned())])?.cluster;
        let judge = Judge::new(&cluster);
        let judged = |probe: &Probe| {
            let owner = self.lab.pods().iter().find(|pod| pod.addresses().contains(&probe.to));
            let passes_doors = match owner {
                // What a pod sends to itself leaves no door.
                Some(pod) if pod.name() == probe.from.name() => true,
                // Answers leave a door too.
                Some(pod) if !may_leave(&cluster, pod, probe.to) => false,
                _ => may_leave(&cluster, &probe.from, source(probe)?),
            };
            Ok(passes_doors && judge.verdict(&connection(&judge, probe)?).allowed())
        };
        probes.iter().map(judged).collect()
    }

    /// The probes that do not go as the policies say.
    ///
    /// # Errors
    /// One of them could not be tried.
    pub fn disagreements(&self, probes: &[Probe]) -> Result<Vec<String>> {
        let replies = self.lab.probe(probes)?;
        let judged = probes.iter().zip(self.judge(probes)?).zip(replies);
        let wrong = judged.filter(|((_, allowed), reply)| *allowed == (reply.outcome == Outcome::Denied));
        Ok(wrong
            .map(|((probe, allowed), reply)| {
                let verdict = if allowed { "allow" } else { "deny" };
                format!("{probe}: the policies {verdict}, the packets were {:?}", reply.outcome)
            })
            .collect())
    }
}

/// Whether an address may leave an endpoint: one that is a pod with an object leaves its door only with those that the
/// object shows.
fn may_leave(cluster: &Cluster, endpoint: &Endpoint, address: IpAddr) -> bool {
    let name = endpoint.name().split_once('/').map(|(namespace, name)| ObjectName::new(namespace, name));
    let pod = name.and_then(|name| cluster.pods().get(&name)).filter(|pod| pod.selectable());
    pod.is_none_or(|pod| pod.addresses.is_empty() || pod.addresses.contains(&address))
}

/// The address that a probe comes from.
fn source(probe: &Probe) -> Result<IpAddr> {
    let of_family = |address: &IpAddr| address.is_ipv4() == probe.to.is_ipv4();
    let source = probe.source.or_else(|| probe.from.addresses().into_iter().find(of_family));
    source.with_context(|| format!("{probe} has no source"))
}

/// The connection that a probe opens.
fn connection<'a>(judge: &Judge<'a>, probe: &Probe) -> Result<Connection<'a>> {
    let protocol = match probe.protocol {
        Protocol::Tcp => Some(model::Protocol::Tcp),
        Protocol::Udp => Some(model::Protocol::Udp),
        Protocol::Sctp => Some(model::Protocol::Sctp),
        Protocol::Icmp => None,
    };
    Ok(Connection {
        from: judge.party(End::Address(source(probe)?)),
        to: judge.party(End::Address(probe.to)),
        family: Some(Family::of(probe.to)),
        traffic: match protocol.zip(PortNumber::new(probe.port)) {
            Some((protocol, port)) => Traffic::Port(protocol, port),
            None => Traffic::Other,
        },
        through_service: false,
    })
}

/// The file of an object: `KIND-NAMESPACE-NAME.json`.
fn file_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
    let metadata = &object["metadata"];
    format!("{}-{}-{}.json", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
}

/// Listens on ports, of all protocols that have ports.
///
/// # Errors
/// A port is taken.
pub fn listen(endpoint: &Endpoint, ports: &[u16]) -> Result<()> {
    let with_protocols =
        |port: &u16| [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| (protocol, *port));
    endpoint.serve(&ports.iter().flat_map(with_protocols).collect::<Vec<_>>())
}

/// A `Namespace`.
pub fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A `NetworkPolicy`.
pub fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "namespace": namespace, "name": name },
        "spec": spec,
    })
}

/// A `ClusterNetworkPolicy`.
pub fn cluster_policy(version: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": format!("policy.networking.k8s.io/{version}"),
        "kind": "ClusterNetworkPolicy",
        "metadata": { "name": name },
        "spec": spec,
    })
}

/// The definition of `ClusterNetworkPolicy`, with a schema that takes everything, of which these versions are served.
pub fn cluster_policy_definition(served: &[&str]) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let versions = ["v1alpha2", "v1beta1"].map(|name| {
        json!({
            "name": name,
            "served": served.contains(&name),
            "storage": name == "v1beta1",
            "schema": {"openAPIV3Schema": schema},
        })
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "clusternetworkpolicies.policy.networking.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": "policy.networking.k8s.io",
            "scope": "Cluster",
            "versions": versions,
            "names": {
                "kind": "ClusterNetworkPolicy",
                "plural": "clusternetworkpolicies",
                "singular": "clusternetworkpolicy",
            },
        },
    })
}

/// What `podfence-controller status` says of a node.
///
/// # Errors
/// It fails.
pub fn status(node: &Node) -> Result<Value> {
    let program = program("podfence-controller")?;
    let text = node.namespace().feed(&program.to_string_lossy(), &["status", "-o", "json"], "")?;
    Ok(serde_json::from_str(&text)?)
}

/// Tries until it succeeds, for at most `bound`; the error is that of the last try.
///
/// # Errors
/// It never succeeded.
pub fn wait_until<T>(bound: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match attempt() {
            Err(_) if begin.elapsed() < bound => std::thread::sleep(Duration::from_millis(2)),
            outcome => return outcome.with_context(|| format!("after {:?}", begin.elapsed())),
        }
    }
}

/// Makes a test of each function that takes a [`Topology`], on each of them.
#[macro_export]
macro_rules! on_each_topology {
    ($($test:ident)*) => {
        mod routed { $(#[test] fn $test() -> $crate::testbed::TestResult { super::$test($crate::Topology::Routed) })* }
        mod bridged { $(#[test] fn $test() -> $crate::testbed::TestResult { super::$test($crate::Topology::Bridge) })* }
    };
}

/// What a test returns.
pub type TestResult = Result<()>;
