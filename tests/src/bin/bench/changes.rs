//! The cost of a change, from the moment it is heard of to its commit in the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use controller::kernel::Kernel;
use lab::Namespace;
use lab::random::Random;
use policy_compiler::compile::Compiler;
use policy_compiler::model::{
    Cluster, LabelSelector, Labels, NamespaceScope, NetworkPolicy, ObjectName, Operator, Peer, Pod, PodPeer,
    PortMatch, PortNumber, PortRange, Protocol, Requirement, Rule,
};
use policy_compiler::ruleset::Transaction;

use crate::{Figure, percentile};

const PODS: u16 = 10_000;
const POLICIES: u16 = 1_000;
const NODES: u16 = 100;
const NAMESPACES: u16 = 100;

/// Single events of pods, one after the other.
const EVENTS: usize = 2_000;

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let cluster = cluster()?;
    Namespace::new()?.run(|| in_kernel(&cluster))
}

fn in_kernel(cluster: &Cluster) -> Result<Vec<Figure>> {
    let mut kernel = Kernel::open()?;
    let begin = Instant::now();
    let mut compiler = Compiler::of(cluster, Some("node-0"));
    compiler.update();
    kernel.apply(&Transaction::replace(compiler.ruleset()))?;
    let start = begin.elapsed();
    let elements: usize = compiler.ruleset().sets.values().map(|set| set.elements.len()).sum();

    let mut events = pod_events(cluster, &mut compiler, &mut kernel)?;
    Ok(vec![
        Figure::time(
            "one pod event, 10,000 pods and 1,000 policies, heard of → committed, p50",
            "< 0.5 ms",
            percentile(&mut events, 50),
        ),
        Figure::time("the same, p99", "< 2 ms", percentile(&mut events, 99)),
        Figure::time("start at that size, all objects known → enforced", "< 1 s", start),
        Figure {
            what: "elements on a node with 100 of the pods",
            bar: "≤ 30,000",
            measured: elements.to_string(),
        },
    ])
}

/// Changes labels of one pod after the other; how long each took.
fn pod_events(cluster: &Cluster, compiler: &mut Compiler, kernel: &mut Kernel) -> Result<Vec<Duration>> {
    let mut random = Random::new(1);
    let mut pods: BTreeMap<&ObjectName, Pod> =
        cluster.pods().iter().map(|(name, pod)| (name, pod.clone())).collect();
    let names: Vec<&ObjectName> = pods.keys().copied().collect();
    let mut events = Vec::with_capacity(EVENTS);
    for _ in 0..EVENTS {
        let name = *random.pick(&names);
        let pod = pods.get_mut(name).context("a pod of the cluster")?;
        pod.labels.insert("app".to_owned(), format!("app-{}", random.below(POLICIES.into())));
        let changed = pod.clone();
        let begin = Instant::now();
        compiler.put_pod(name, Some(changed));
        for step in compiler.update().in_steps() {
            kernel.apply(&step)?;
        }
        events.push(begin.elapsed());
    }
    Ok(events)
}

/// Pods of 1,000 applications, ten of each, spread over nodes and namespaces. Each policy isolates the pods of
/// one application, lets those of another in, and admits one port from everywhere in the cluster.
fn cluster() -> Result<Cluster> {
    let mut cluster = Cluster::new();
    for index in 0..PODS {
        let [high, low] = index.to_be_bytes();
        let app = index % POLICIES;
        cluster.insert_pod(Pod {
            labels: Labels::from([("app".to_owned(), format!("app-{app}"))]),
            node: Some(Arc::from(format!("node-{}", index / (PODS / NODES)))),
            addresses: vec![[10, 128, high, low].into()],
            ..Pod::new(ObjectName::new(namespace_of(app), format!("pod-{index}")))
        });
    }
    let port = PortNumber::new(9100).context("a port")?;
    for app in 0..POLICIES {
        let rule = |namespaces, pods, ports| Rule {
            peers: Some(vec![Peer::Pods(PodPeer { namespaces, pods })]),
            ports,
            origin: None,
        };
        let everywhere = || NamespaceScope::Matching(LabelSelector::everything());
        let metrics = vec![PortMatch::Range(Protocol::Tcp, PortRange::single(port))];
        cluster.insert_policy(NetworkPolicy {
            name: ObjectName::new(namespace_of(app), format!("policy-{app}")),
            subjects: application(app),
            ingress: Some(vec![
                rule(everywhere(), application((app + 1) % POLICIES), None),
                rule(everywhere(), LabelSelector::everything(), Some(metrics)),
            ]),
            egress: None,
            origin: None,
        });
    }
    Ok(cluster)
}

fn namespace_of(app: u16) -> Arc<str> {
    Arc::from(format!("namespace-{}", app % NAMESPACES))
}

fn application(app: u16) -> LabelSelector {
    let operator = Operator::In([format!("app-{app}")].into());
    LabelSelector { requirements: vec![Requirement { key: "app".to_owned(), operator }] }
}
