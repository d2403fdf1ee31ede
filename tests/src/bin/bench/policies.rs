//! The cost of policies that name many, from the moment they are heard of to the commit in the kernel.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use controller::kernel::Kernel;
use lab::Namespace;
use policy_compiler::compile::Compiler;
use policy_compiler::model::{Cluster, NetworkPolicy, ObjectName, Pod};
use policy_compiler::ruleset::Transaction;
use serde_json::{Value, json};

use crate::changes::commit;
use crate::objects::{cluster, cluster_policies, namespaces, pods, policies};
use crate::{Figure, percentile};

const NODE: &str = "node-0";

/// How often each change is made.
const ROUNDS: usize = 20;

/// The policies of blocks that are there while a pod changes.
const OF_BLOCKS: usize = 100;

/// The blocks of each.
const BLOCKS: usize = 2_000;

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let cluster = cluster(namespaces().chain(pods()).chain(policies()).chain(cluster_policies()))?;
    Namespace::new()?.run(|| in_kernel(&cluster))
}

fn in_kernel(cluster: &Cluster) -> Result<Vec<Figure>> {
    let mut node = Node { compiler: Compiler::of(cluster, Some(NODE)), kernel: Kernel::open()? };
    node.compiler.update();
    node.kernel.apply(&Transaction::replace(node.compiler.ruleset()))?;
    let local = cluster.pods().values().find(|pod| pod.node.as_deref() == Some(NODE)).context("a pod")?;
    let namespace = &*local.name.namespace;

    let half = |ports: Value, values: &[&str]| {
        let half = json!({"matchExpressions": [{"key": "half", "operator": "In", "values": values}]});
        let peers = json!([{"namespaceSelector": {}, "podSelector": half}]);
        policy(namespace, "names-half", &json!([{"from": peers, "ports": ports}]))
    };
    let port = |number: u16| json!([{"port": number}]);
    let (one, other) = (half(port(80), &["one"])?, half(port(81), &["one"])?);
    let more = half(port(80), &["one", "two"])?;
    let [mut comes, mut changes, mut widens, mut goes] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        comes.push(node.put(&one.name, Some(&one))?);
        changes.push(node.put(&one.name, Some(&other))?);
        node.put(&one.name, Some(&one))?;
        widens.push(node.put(&one.name, Some(&more))?);
        goes.push(node.put(&one.name, None)?);
    }
    let mut blocks = Vec::new();
    for number in 0..OF_BLOCKS {
        let policy = policy_of_blocks(namespace, number)?;
        blocks.push(node.put(&policy.name, Some(&policy))?);
    }
    let mut first = blocks.drain(..10).collect::<Vec<_>>();
    let mut pod = node.relabel(local)?;
    let figure = |what: &str, bar, times: &mut [Duration]| Figure::time(what, bar, percentile(times, 50));
    Ok(vec![
        figure(
            "beside 100 policies of the cluster, one that names half of 10,000 pods comes, heard of → committed, p50",
            "< 20 ms",
            &mut comes,
        ),
        figure("a port of it changes", "< 20 ms", &mut changes),
        figure("a label value more in its selector", "< 20 ms", &mut widens),
        figure("it goes", "< 20 ms", &mut goes),
        figure("a policy of 2,000 blocks comes, beside up to 9 more", "< 50 ms", &mut first),
        figure("the same, beside up to 99 more", "", &mut blocks),
        figure("one pod event beside 100 such policies", "< 0.5 ms", &mut pod),
    ])
}

/// A policy that isolates the pods of a namespace.
fn policy(namespace: &str, name: &str, ingress: &Value) -> Result<NetworkPolicy> {
    let manifest = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": ingress},
    });
    let cluster = cluster([manifest].into_iter())?;
    cluster.policies().values().next().cloned().context("a policy")
}

/// A policy of many blocks, which lie between those of the others of its kind, here and there inside them, and around
/// addresses of pods.
fn policy_of_blocks(namespace: &str, number: usize) -> Result<NetworkPolicy> {
    let block = |index: usize| {
        let place = index * OF_BLOCKS + number;
        let (high, low) = (place / 256, place % 256);
        let cidr = match index % 10 {
            0 => format!("10.128.{}.0/28", (index / 10) % 40),
            1 => format!("172.{}.{}.0/24", 16 + high % 16, low),
            _ => format!("203.{}.{}.{}/32", high / 256, high % 256, low),
        };
        json!({"ipBlock": {"cidr": cidr}})
    };
    let peers: Vec<Value> = (0..BLOCKS).map(block).collect();
    policy(namespace, &format!("blocks-{number}"), &json!([{"from": peers, "ports": [{"port": 443}]}]))
}

/// A node at which policies come and go.
struct Node {
    compiler: Compiler,
    kernel: Kernel,
}

impl Node {
    /// Puts a policy, or takes it away; how long that took.
    fn put(&mut self, name: &ObjectName, policy: Option<&NetworkPolicy>) -> Result<Duration> {
        let policy = policy.cloned();
        let begin = Instant::now();
        self.compiler.put_policy(name, policy);
        commit(&mut self.compiler, &mut self.kernel)?;
        Ok(begin.elapsed())
    }

    /// Gives a pod one label after the other; how long each took.
    fn relabel(&mut self, pod: &Pod) -> Result<Vec<Duration>> {
        let event = |round: usize| {
            let mut pod = pod.clone();
            pod.labels.insert("version".to_owned(), round.to_string());
            let begin = Instant::now();
            self.compiler.put_pod(&pod.name.clone(), Some(pod));
            commit(&mut self.compiler, &mut self.kernel)?;
            Ok(begin.elapsed())
        };
        (0..ROUNDS * 10).map(event).collect()
    }
}
