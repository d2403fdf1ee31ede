//! The cost of a change, from the moment it is heard of to its commit in the kernel.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use controller::kernel::Kernel;
use lab::Namespace;
use lab::random::Random;
use policy_compiler::compile::Compiler;
use policy_compiler::model::{Cluster, ObjectName, Pod};
use policy_compiler::ruleset::Transaction;

use crate::objects::{POLICIES, cluster, pods, policies};
use crate::{Figure, percentile};

/// Single events of pods, one after the other.
const EVENTS: usize = 2_000;

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let cluster = cluster(pods().chain(policies()))?;
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
