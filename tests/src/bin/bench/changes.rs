//! The cost of a change, from the moment it is heard of to its commit in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use controller::kernel::Kernel;
use lab::Namespace;
use lab::random::Random;
use policy_compiler::compile::Compiler;
use policy_compiler::model::{Cluster, Door, Doors, LinkAddress, ObjectName, Pod};
use policy_compiler::ruleset::in_steps;

use crate::objects::{
    NAMESPACES, NODES, PODS, POLICIES, cluster, cluster_policies, namespaces, pods, policies,
};
use crate::{Figure, doors, percentile};

/// Single events, one after the other.
const EVENTS: usize = 2_000;

/// The node whose tables change.
const NODE: &str = "node-0";

/// The pods of the node, each of which has a door, and the devices to which doors move.
const LOCAL_PODS: u16 = PODS / NODES;
const SPARE: u16 = 4;

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let cluster = cluster(namespaces().chain(pods()).chain(policies()).chain(cluster_policies()))?;
    let namespace = Namespace::new()?;
    let links = (0..LOCAL_PODS + SPARE).map(|number| {
        let device = device(number);
        format!("link add {device} type veth peer name {device}x\nlink set {device} master pods\n")
    });
    namespace.ip(&format!("link add pods type bridge\n{}", links.collect::<String>()))?;
    namespace.run(|| in_kernel(&cluster))
}

fn in_kernel(cluster: &Cluster) -> Result<Vec<Figure>> {
    let mut kernel = Kernel::open()?;
    let begin = Instant::now();
    let mut compiler = Compiler::of(cluster, Some(NODE)).with_doors();
    let doors = doors_of(cluster);
    doors::program(&mut kernel, &mut compiler, &doors)?;
    let start = begin.elapsed();
    let elements = compiler.elements();

    let mut node = Node { compiler, kernel, doors, random: Random::new(1) };
    let all: Vec<_> = cluster.pods().iter().collect();
    let local: Vec<_> = all.iter().filter(|(_, pod)| pod.node.as_deref() == Some(NODE)).copied().collect();
    let mut figures = Vec::new();
    let mut add = |what: &str, events: &mut [Duration]| {
        figures.push(Figure::time(
            format!("{what}, heard of → committed, p50"),
            "< 0.5 ms",
            percentile(events, 50),
        ));
        figures.push(Figure::time("the same, p99", "< 2 ms", percentile(events, 99)));
    };
    add("one pod event, 10,000 pods, 1,000 policies and 100 of the cluster", &mut node.relabel(&all, "app")?);
    add("one event of a pod with a door at a bridge, among 100", &mut node.relabel(&local, "version")?);
    add("the same, where other policies isolate it after that", &mut node.relabel(&local, "app")?);
    add("one door that moves, among 100", &mut node.move_doors()?);
    figures.extend([
        Figure::time("start at that size, all objects known → enforced", "< 1 s", start),
        Figure::new("elements on a node with 100 of the pods", "≤ 30,000", elements.to_string()),
    ]);
    Ok(figures)
}

fn device(number: u16) -> Arc<str> {
    format!("door{number}").into()
}

/// A door at the bridge for each pod of the node.
fn doors_of(cluster: &Cluster) -> Doors {
    let local = cluster.pods().values().filter(|pod| pod.node.as_deref() == Some(NODE));
    let of_pods =
        local.zip(0..LOCAL_PODS).map(|(pod, number)| (pod.name.clone(), door(number, device(number))));
    let elsewhere = (LOCAL_PODS..LOCAL_PODS + SPARE).map(device).collect();
    Doors {
        of_pods: of_pods.collect(),
        elsewhere,
        node_link_local: BTreeSet::new(),
        tunnels: BTreeSet::new(),
    }
}

fn door(number: u16, device: Arc<str>) -> Door {
    let [high, low] = number.to_be_bytes();
    Door {
        device,
        bridged: true,
        link_address: Some(LinkAddress([0x02, 0x44, 0, 0, high, low])),
        link_local: [Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0044, 0x00ff, 0xfe00, number)].into(),
    }
}

/// A node at which things happen.
struct Node {
    compiler: Compiler,
    kernel: Kernel,
    doors: Doors,
    random: Random,
}

impl Node {
    /// Changes a label of one pod after the other; how long each took. If it is `app`, another policy of the pod's
    /// namespace isolates it after that, and others name it.
    fn relabel(&mut self, among: &[(&ObjectName, &Pod)], label: &str) -> Result<Vec<Duration>> {
        let mut pods: BTreeMap<&ObjectName, Pod> =
            among.iter().map(|(name, pod)| (*name, (*pod).clone())).collect();
        let names: Vec<&ObjectName> = pods.keys().copied().collect();
        let event = |_| {
            let name = *self.random.pick(&names);
            let pod = pods.get_mut(name).context("a pod of the cluster")?;
            let namespace: usize = name.namespace.rsplit('-').next().context("a number")?.parse()?;
            let app = self.random.below((POLICIES / NAMESPACES).into()) * usize::from(NAMESPACES) + namespace;
            pod.labels.insert(label.to_owned(), format!("app-{app}"));
            let changed = pod.clone();
            let begin = Instant::now();
            self.compiler.put_pod(name, Some(changed));
            self.commit()?;
            Ok(begin.elapsed())
        };
        (0..EVENTS).map(event).collect()
    }

    /// Gives one pod after the other a new door; how long each took.
    fn move_doors(&mut self) -> Result<Vec<Duration>> {
        let names: Vec<ObjectName> = self.doors.of_pods.keys().cloned().collect();
        let event = |_| {
            let mut doors = self.doors.clone();
            let spare: Vec<_> = doors.elsewhere.iter().cloned().collect();
            let device = self.random.pick(&spare).clone();
            let door = doors.of_pods.get_mut(self.random.pick(&names)).context("a door")?;
            doors.elsewhere.remove(&device);
            doors.elsewhere.insert(std::mem::replace(&mut door.device, device));
            let begin = Instant::now();
            self.compiler.put_doors(&doors);
            self.commit()?;
            let took = begin.elapsed();
            self.doors = doors;
            Ok(took)
        };
        (0..EVENTS).map(event).collect()
    }

    fn commit(&mut self) -> Result<()> {
        commit(&mut self.compiler, &mut self.kernel)
    }
}

/// Brings the kernel in step with what was put into the compiler.
pub(crate) fn commit(compiler: &mut Compiler, kernel: &mut Kernel) -> Result<()> {
    let policies = compiler.update();
    let transactions = [Some(policies), compiler.update_doors()];
    for step in in_steps(transactions.into_iter().flatten()) {
        kernel.apply_all(&step)?;
    }
    Ok(())
}
