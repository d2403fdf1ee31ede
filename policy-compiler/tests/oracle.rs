//! The judge against an oracle on random clusters: tiers of ClusterNetworkPolicies beside NetworkPolicies.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "oracle/evaluator.rs"]
mod evaluator;
#[path = "../../tests/src/random.rs"]
#[allow(dead_code, unreachable_pub, reason = "the lab uses the rest")]
mod random;

use std::net::IpAddr;

use evaluator::Oracle;
use policy_compiler::judge::{Connection, Decision, Endpoint, Judge, Step, Traffic};
use policy_compiler::manifest;
use policy_compiler::model::{Cluster, Direction, Family, Namespace, PodsToNode, PortNumber, Protocol, Tier};
use random::{NAMESPACES, PORTS, PodPlace, Random};
use serde_json::{Value, json};

/// Addresses of nodes, and of nobody.
const OTHERS: [&str; 7] =
    ["192.168.0.1", "fd00:a::1", "192.168.0.2", "192.0.2.7", "10.1.0.200", "2001:db8::1", "fd00:1::99"];

/// Blocks with pods, nodes and others in them. Only NetworkPolicies know exceptions.
fn blocks() -> Vec<Value> {
    vec![
        json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}),
        json!({"cidr": "10.1.0.0/29", "except": ["10.1.0.2/31"]}),
        json!({"cidr": "10.1.0.0/24"}),
        json!({"cidr": "192.0.0.0/8"}),
        json!({"cidr": "192.168.0.1/32"}),
        json!({"cidr": "::/0"}),
        json!({"cidr": "fd00:1::/125"}),
        json!({"cidr": "fd00::/16"}),
    ]
}

/// Pods of single and dual stack on two nodes, some in their node's network, and policies of every sort.
fn objects(random: &mut Random) -> Vec<Value> {
    let blocks = blocks();
    let mut objects = random::namespaces(random);
    objects.push(random::node(random, "node-0", &["192.168.0.1", "fd00:a::1"]));
    objects.push(random::node(random, "node-1", &["192.168.0.2"]));
    for index in 1..=8 {
        let mut addresses = vec![format!("10.1.0.{index}"), format!("fd00:1::{index}")];
        match index % 4 {
            0 => drop(addresses.remove(0)),
            1 => drop(addresses.remove(1)),
            _ => {}
        }
        let name = (NAMESPACES[index % 3].to_owned(), format!("pod-{index}"));
        objects.push(random::pod(random, &PodPlace { name, node: format!("node-{}", index % 2), addresses }));
    }
    let near = [
        IpAddr::from([10, 1, 0, 2]),
        IpAddr::from([10, 1, 0, 6]),
        IpAddr::from([192, 168, 0, 1]),
        IpAddr::from([0xfd00, 1, 0, 0, 0, 0, 0, 4]),
    ];
    let odd = random::blocks(random, &near);
    let all = [&blocks[..], &odd].concat();
    objects.extend((0..random.below(5)).map(|index| random::policy(random, index, &all)));
    objects.extend((0..random.below(12)).map(|index| random::cluster_policy(random, index, &blocks)));
    objects
}

fn cluster(objects: &[Value]) -> Cluster {
    let text = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let (manifests, problems) =
        manifest::assemble([manifest::parse(text.as_bytes(), "random.json").unwrap()]);
    assert!(problems.is_empty(), "{problems:?}");
    manifests.cluster
}

/// Every pair of ends of one family, one of which is a pod.
fn pairs(cluster: &Cluster) -> Vec<(IpAddr, IpAddr)> {
    let of_pods: Vec<_> = cluster.pods().values().flat_map(|pod| pod.addresses.iter().copied()).collect();
    let others = OTHERS.map(|address| address.parse().unwrap());
    let with_pod = |pod: &IpAddr| {
        let peers = of_pods.iter().map(|peer| (*pod, *peer));
        peers.chain(others.iter().flat_map(|other| [(*pod, *other), (*other, *pod)])).collect::<Vec<_>>()
    };
    let pairs = of_pods.iter().flat_map(with_pod);
    pairs.filter(|(from, to)| Family::of(*from) == Family::of(*to)).collect()
}

fn traffic(random: &mut Random) -> Vec<Traffic> {
    let ports = (0..5).map(|_| {
        let port = PortNumber::new(*random.pick(&PORTS)).unwrap();
        Traffic::Port(*random.pick(&Protocol::ALL), port)
    });
    ports.chain([Traffic::Other]).collect()
}

fn connection<'a>(
    judge: &Judge<'a>,
    (from, to): (IpAddr, IpAddr),
    traffic: Traffic,
    through_service: bool,
) -> Connection<'a> {
    let [from, to] = [from, to].map(|end| judge.party(Endpoint::Address(end)));
    let family = to.addresses().first().copied().map(Family::of);
    Connection { from, to, family, traffic, through_service }
}

#[test]
fn judge_and_oracle_agree_on_every_connection() {
    let (mut verdicts, mut by_tier, mut audited) = (0, [0; 2], 0);
    for seed in 0..70 {
        let random = &mut Random::new(seed);
        let objects = objects(random);
        let pods_to_node = *random.pick(&[PodsToNode::Allow, PodsToNode::Policy]);
        let cluster = cluster(&objects);
        let judge = Judge::new(&cluster).with_pods_to_node(pods_to_node);
        let oracle = Oracle::new(&objects, pods_to_node == PodsToNode::Policy);
        let traffic = traffic(random);
        for pair in pairs(&cluster) {
            let through_service = random.percent(30);
            for &traffic in &traffic {
                let connection = connection(&judge, pair, traffic, through_service);
                for direction in Direction::BOTH {
                    let ruling = judge.ruling(direction, &connection);
                    let expected = oracle.allows(direction, pair, traffic, through_service);
                    assert_eq!(ruling.allowed(), expected, "seed {seed}: {pair:?} {traffic:?}: {ruling:#?}");
                    assert_eq!(judge.allows(direction, &connection), expected);
                    verdicts += 1;
                    if let Decision::Accepted(rule) | Decision::Denied(rule) = ruling.decision {
                        by_tier[usize::from(rule.policy.tier == Tier::Baseline)] += 1;
                    }
                    audited += usize::from(ruling.way.iter().any(Step::is_audited));
                }
            }
        }
    }
    let enough = verdicts > 100_000 && by_tier.into_iter().all(|count| count > 2_000) && audited > 1_000;
    assert!(enough, "{verdicts} verdicts, {by_tier:?} by the tiers, {audited} on the way through an audit");
}

#[test]
fn pods_of_one_kind_and_parts_of_the_traffic_are_judged_alike() {
    for seed in 0..40 {
        let random = &mut Random::new(seed);
        let cluster = cluster(&objects(random));
        let judge = Judge::new(&cluster);
        let traffic = traffic(random);
        let kinds = judge.kinds();
        let mut known = std::collections::HashMap::new();
        let pods: Vec<_> = cluster.pods().values().collect();
        for (from, to) in pods.iter().flat_map(|from| pods.iter().map(move |to| (from, to))) {
            if from.name == to.name {
                continue;
            }
            let [source, destination] = [from, to].map(|pod| judge.party(Endpoint::Pod(pod)));
            for &family in source.families_with(&destination) {
                let ranges = judge.allowed_traffic(&source, &destination, family);
                for &traffic in &traffic {
                    let connection =
                        Connection { from: source, to: destination, family, traffic, through_service: false };
                    let allowed = judge.verdict(&connection).allowed();
                    assert_eq!(ranges.iter().any(|range| range.contains(traffic)), allowed, "seed {seed}");
                    let numbers = kinds.get(&from.name).zip(kinds.get(&to.name));
                    let Some(numbers) = numbers else { continue };
                    let first = *known.entry((numbers, family, traffic)).or_insert(allowed);
                    assert_eq!(first, allowed, "seed {seed}: {} -> {}", from.name, to.name);
                }
            }
        }
    }
}

/// The cluster without some of its namespaces: what lives there is there.
fn without_namespaces(cluster: &Cluster, is_known: impl Fn(&Namespace) -> bool) -> Cluster {
    let mut rest = Cluster::new();
    let known = cluster.namespaces().values().filter(|namespace| is_known(namespace));
    known.for_each(|namespace| rest.insert_namespace(namespace.clone()));
    cluster.nodes().values().for_each(|node| rest.insert_node(node.clone()));
    cluster.pods().values().for_each(|pod| rest.insert_pod(pod.clone()));
    cluster.policies().values().for_each(|policy| rest.insert_policy(policy.clone()));
    cluster.cluster_policies().values().for_each(|policy| rest.insert_cluster_policy(policy.clone()));
    rest
}

#[test]
fn a_namespace_that_is_not_known_never_opens_anything() {
    let mut narrowed = 0;
    for seed in 0..60 {
        let random = &mut Random::new(seed);
        let whole = cluster(&objects(random));
        let unknown = *random.pick(&NAMESPACES);
        let part = without_namespaces(&whole, |namespace| &**namespace.name() != unknown);
        let judges = [Judge::new(&whole), Judge::new(&part)];
        let traffic = traffic(random);
        for pair in pairs(&whole) {
            for &traffic in &traffic {
                let [known, unknown] = judges.each_ref().map(|judge| {
                    let connection = connection(judge, pair, traffic, false);
                    Direction::BOTH.map(|direction| judge.allows(direction, &connection))
                });
                for (known, unknown) in known.into_iter().zip(unknown) {
                    assert!(known || !unknown, "seed {seed}: {pair:?} {traffic:?}");
                    narrowed += usize::from(known && !unknown);
                }
            }
        }
    }
    assert!(narrowed > 1_000, "only {narrowed} verdicts are narrower");
}
