//! Two ways to a verdict agree: what `compile` makes of random clusters, packet by packet, and `judge`.
//! And two ways to a ruleset agree: change by change, and at once.
#![expect(clippy::expect_used, reason = "a test's helpers may fail the test")]

#[path = "agreement/doors.rs"]
mod doors;
#[path = "agreement/history.rs"]
mod history;
#[path = "agreement/own_node.rs"]
mod own_node;

use std::collections::BTreeMap;
use std::net::IpAddr;

use history::History;
use lab::interpreter::apply;
use lab::random::{self, PORTS, PodPlace, Random};
use policy_compiler::compile::{Compiler, Concerned, compile};
use policy_compiler::explain::Side;
use policy_compiler::judge::{Connection, Decision, Endpoint, Exemption, Judge, Traffic};
use policy_compiler::manifest;
use policy_compiler::model::{
    Cluster, DefaultDeny, Direction, Family, Pod, PodsToNode, PortNumber, Protocol,
};
use policy_compiler::ruleset::{Packet, Ruleset, Transaction, in_steps};
use serde_json::{Value, json};

/// Addresses of no pod.
const OUTSIDE: [&str; 11] = [
    "0.0.0.0",
    "192.0.2.7",
    "203.0.113.200",
    "10.1.0.200",
    "10.9.9.9",
    "255.255.255.255",
    "::",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:db8::1",
    "fd00:1::",
    "fd99::1",
];

fn blocks(random: &mut Random) -> Vec<Value> {
    let near = ["10.1.0.3", "10.1.0.8", "10.1.0.200", "fd00:1::", "fd00:1::4", "192.0.2.7"];
    let mut blocks = random::blocks(random, &near.map(|near| near.parse().expect("an address")));
    blocks.extend([
        json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}),
        json!({"cidr": "10.1.0.0/16"}),
        json!({"cidr": "10.1.0.0/29", "except": ["10.1.0.2/31", "10.1.0.3/32"]}),
        json!({"cidr": "192.0.2.0/24", "except": ["192.0.2.7/32"]}),
        json!({"cidr": "::/0"}),
        json!({"cidr": "fd00::/8", "except": ["fd00:1::/64"]}),
    ]);
    blocks
}

/// The pods' places: single and dual stack, on two nodes.
fn places() -> Vec<PodPlace> {
    (1..=9)
        .map(|index| {
            let mut addresses = vec![format!("10.1.0.{index}"), format!("fd00:1::{index}")];
            match index % 4 {
                0 => drop(addresses.remove(0)),
                1 => drop(addresses.remove(1)),
                _ => {}
            }
            PodPlace {
                name: (random::NAMESPACES[index % 3].to_owned(), format!("pod-{index}")),
                node: format!("node-{}", index % 2),
                addresses,
            }
        })
        .collect()
}

fn cluster(objects: &[Value]) -> Cluster {
    let text = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let reading = manifest::parse(text.as_bytes(), "random.json").expect("readable");
    let (manifests, problems) = manifest::assemble([reading]);
    assert!(problems.is_empty(), "{problems:?}");
    manifests.cluster
}

/// The cluster, and some of its namespaces are not known.
fn with_unknown_namespaces(random: &mut Random, cluster: &Cluster) -> Cluster {
    let known: Vec<_> = random::NAMESPACES.into_iter().filter(|_| random.percent(70)).collect();
    with_namespaces(cluster, |name| known.contains(&name))
}

/// The cluster with these namespaces only; what lives in the others is there.
fn with_namespaces(cluster: &Cluster, is_known: impl Fn(&str) -> bool) -> Cluster {
    let mut rest = Cluster::new();
    let known = cluster.namespaces().values().filter(|namespace| is_known(namespace.name()));
    known.for_each(|namespace| rest.insert_namespace(namespace.clone()));
    cluster.nodes().values().for_each(|node| rest.insert_node(node.clone()));
    cluster.pods().values().for_each(|pod| rest.insert_pod(pod.clone()));
    cluster.policies().values().for_each(|policy| rest.insert_policy(policy.clone()));
    cluster.cluster_policies().values().for_each(|policy| rest.insert_cluster_policy(policy.clone()));
    rest
}

/// How the addresses of pods begin.
const FAMILIES: [&str; 2] = ["10.1.0.", "fd00:1::"];

/// An address that a pod has.
fn address_of_pod(random: &mut Random, prefix: &str) -> String {
    format!("{prefix}{}", 1 + random.below(9))
}

/// A node that no pod runs on, with an address that a pod shows.
fn node_in_the_way(random: &mut Random) -> Value {
    let prefix = *random.pick(&FAMILIES);
    let addresses = json!([{"type": "InternalIP", "address": address_of_pod(random, prefix)}]);
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-2"}, "status": {"addresses": addresses}})
}

/// What no cluster should have: pods that show one address, an address of a node on a pod, namespaces that are not known.
fn disordered_cluster(random: &mut Random) -> Cluster {
    let mut objects = random_objects(random);
    for index in 0..random.below(4) {
        let families = *random.pick(&[&FAMILIES[..], &FAMILIES[..1], &FAMILIES[1..]]);
        let addresses = families.iter().map(|prefix| address_of_pod(random, prefix)).collect();
        let name = ((*random.pick(&random::NAMESPACES)).to_owned(), format!("claimant-{index}"));
        let place = PodPlace { name, node: format!("node-{}", random.below(2)), addresses };
        let mut pod = random::pod(random, &place);
        if random.percent(20) {
            pod["status"]["phase"] = json!("Failed");
        }
        objects.push(pod);
    }
    if random.percent(40) {
        objects.push(node_in_the_way(random));
    }
    with_unknown_namespaces(random, &cluster(&objects))
}

/// Objects without a `ClusterNetworkPolicy`.
fn namespaced_objects(random: &mut Random) -> Vec<Value> {
    let blocks = blocks(random);
    let mut objects = random::namespaces(random);
    objects.extend(places().iter().map(|place| random::pod(random, place)));
    objects.extend((0..random.below(7)).map(|index| random::policy(random, index, &blocks)));
    objects
}

/// The same, in most cases with policies of the whole cluster and with nodes that these may name.
fn random_objects(random: &mut Random) -> Vec<Value> {
    let mut objects = namespaced_objects(random);
    if random.percent(70) {
        objects.extend(NODES.map(|(name, addresses)| random::node(random, name, addresses)));
        objects.extend((0..random.below(9)).map(|index| cluster_policy(random, index)));
    }
    objects
}

/// The nodes that pods run on, with addresses that blocks name and others do not.
const NODES: [(&str, &[&str]); 2] =
    [("node-0", &["10.1.0.200", "203.0.113.200", "fd00:1::"]), ("node-1", &["192.0.2.7", "2001:db8::1"])];

fn cluster_policy(random: &mut Random, index: usize) -> Value {
    let blocks = blocks(random);
    random::cluster_policy(random, index, &blocks)
}

/// Every packet between two ends of one family.
fn packets(cluster: &Cluster) -> impl Iterator<Item = Packet> {
    let of_pods = cluster.pods().values().flat_map(|pod| pod.addresses.iter().copied());
    let ends: Vec<IpAddr> =
        of_pods.chain(OUTSIDE.map(|address| address.parse().expect("an address"))).collect();
    let pairs =
        ends.clone().into_iter().flat_map(move |from| ends.clone().into_iter().map(move |to| (from, to)));
    pairs.filter(|(from, to)| Family::of(*from) == Family::of(*to)).flat_map(|(source, destination)| {
        let ports = Protocol::ALL.into_iter().flat_map(|protocol| PORTS.map(|port| (protocol, port)));
        ports.map(Some).chain([None]).map(move |port| Packet { source, destination, port })
    })
}

/// Whether an end is the address of a pod in its node's network, and so the node's: the table does not know it, and
/// packets between a pod and its node take other hooks than `forward`.
fn is_on_node(cluster: &Cluster, packet: &Packet) -> bool {
    let of_nodes = cluster.pods().values().filter(|pod| pod.host_network && !pod.finished);
    of_nodes.flat_map(|pod| &pod.addresses).any(|own| [packet.source, packet.destination].contains(own))
}

/// Whether an end is a node's.
fn is_of_node(cluster: &Cluster, packet: &Packet) -> bool {
    let mut addresses = cluster.nodes().values().flat_map(|node| &node.addresses);
    addresses.any(|address| [packet.source, packet.destination].contains(address))
}

/// The connection that a packet opens.
fn connection<'a>(judge: &Judge<'a>, packet: &Packet) -> Connection<'a> {
    Connection {
        from: judge.party(Endpoint::Address(packet.source)),
        to: judge.party(Endpoint::Address(packet.destination)),
        family: Some(Family::of(packet.source)),
        traffic: packet.port.map_or(Traffic::Other, |(protocol, port)| {
            Traffic::Port(protocol, PortNumber::new(port).expect("not 0"))
        }),
        // Where a pod reaches itself without one, its packets do not leave it.
        through_service: true,
    }
}

#[test]
fn compiled_rulesets_and_judge_agree_on_every_packet() {
    for seed in 0..200 {
        let random = &mut Random::new(seed);
        let cluster = if seed < 100 { cluster(&random_objects(random)) } else { disordered_cluster(random) };
        let judge = Judge::new(&cluster);
        let ruleset = compile(&cluster, None);
        for packet in packets(&cluster) {
            let connection = connection(&judge, &packet);
            let is_shared = connection.from.is_shared() || connection.to.is_shared();
            if is_shared && (is_on_node(&cluster, &packet) || is_of_node(&cluster, &packet)) {
                continue; // Of some of the pods it is the node, of others not.
            }
            let verdict = judge.verdict(&connection);
            let own_node = Decision::Exempt(Exemption::OwnNode);
            if [&verdict.egress, &verdict.ingress].iter().any(|ruling| ruling.decision == own_node) {
                continue; // Between a pod and its node packets take other hooks than `forward`.
            }
            assert_eq!(ruleset.forwards(&packet), verdict.allowed(), "seed {seed}: {packet:?}: {verdict:#?}");
        }
    }
}

const NOTHING_DECIDED: &str = ", and no ClusterNetworkPolicy decides about this";

/// What the agent explains denials by.
#[test]
fn an_excerpt_says_of_two_addresses_what_the_whole_cluster_says() {
    for seed in 0..16 {
        let cluster = disordered_cluster(&mut Random::new(seed));
        let pods_to_node = *Random::new(seed).pick(&[PodsToNode::Allow, PodsToNode::Policy]);
        let judge = Judge::new(&cluster).with_pods_to_node(pods_to_node);
        let compiler = Compiler::of(&cluster, Some("node-0")).with_pods_to_node(pods_to_node);
        let mut pairs: BTreeMap<_, Vec<Packet>> = BTreeMap::new();
        for packet in packets(&cluster) {
            pairs.entry([packet.source, packet.destination]).or_default().push(packet);
        }
        for (ends, packets) in pairs {
            if packets.iter().any(|packet| is_on_node(&cluster, packet)) {
                continue;
            }
            let excerpt = compiler.excerpt(ends, []);
            let shows = |pod: &Pod| ends.iter().any(|end| pod.addresses.contains(end));
            assert!(excerpt.pods().values().all(shows));
            let of_excerpt = Judge::new(&excerpt).with_pods_to_node(pods_to_node);
            for packet in packets {
                let [whole, part] = [&judge, &of_excerpt].map(|judge| {
                    let connection = connection(judge, &packet);
                    let side = |direction| Side::new(judge, direction, &connection).to_string();
                    // Whether there is a policy that decides nothing here.
                    Direction::BOTH.map(side).map(|side| side.replace(NOTHING_DECIDED, ""))
                });
                if !whole.iter().any(|side| side.contains("own node")) {
                    assert_eq!(part, whole, "seed {seed}: {packet:?}");
                }
            }
        }
    }
}

#[test]
fn each_node_judges_its_own_pods() {
    for seed in 0..60 {
        let cluster = disordered_cluster(&mut Random::new(seed));
        let whole = compile(&cluster, None);
        let nodes = ["node-0", "node-1"].map(|node| compile(&cluster, Some(node)));
        for packet in packets(&cluster) {
            let everywhere = nodes.iter().all(|ruleset| ruleset.forwards(&packet));
            assert_eq!(everywhere, whole.forwards(&packet), "seed {seed}: {packet:?}");
        }
    }
}

fn put_changes(compiler: &mut Compiler, old: &Cluster, new: &Cluster) {
    for name in old.nodes().keys().chain(new.nodes().keys()) {
        compiler.put_node(name, new.nodes().get(name).cloned());
    }
    // Before the namespaces: what goes with its namespace would outlive it.
    for name in old.policies().keys().chain(new.policies().keys()) {
        compiler.put_policy(name, new.policies().get(name).cloned());
    }
    for name in old.cluster_policies().keys().chain(new.cluster_policies().keys()) {
        compiler.put_cluster_policy(name, new.cluster_policies().get(name).cloned());
    }
    for name in old.namespaces().keys().chain(new.namespaces().keys()) {
        compiler.put_namespace(name, new.namespaces().get(name).cloned());
    }
    for name in old.pods().keys().chain(new.pods().keys()) {
        compiler.put_pod(name, new.pods().get(name).cloned());
    }
}

fn default_deny(random: &mut Random, pods_to_node: PodsToNode) -> DefaultDeny {
    let selector = *random.pick(&["app=a", "!app", "kubernetes.io/metadata.name in (blue,red)"]);
    let namespaces = manifest::label_selector(selector).expect("a selector");
    DefaultDeny { namespaces, allow_dns: random.percent(50), pods_to_node }
}

#[test]
fn a_history_of_changes_ends_in_the_ruleset_of_its_outcome() {
    for seed in 0..30 {
        let random = &mut Random::new(seed);
        let node = random.percent(50).then_some("node-0");
        let pods_to_node = *random.pick(&[PodsToNode::Allow, PodsToNode::Policy]);
        let default_deny = random.percent(50).then(|| default_deny(random, pods_to_node));
        let mut compiler = Compiler::new(node).with_pods_to_node(pods_to_node);
        if let Some(default_deny) = &default_deny {
            compiler = compiler.with_default_deny(default_deny.clone());
        }
        let mut history = History::default();
        let mut kernel = Ruleset::default();
        let mut known = Cluster::new();
        for step in 0..60 {
            for _ in 0..=random.below(3) {
                history.change(random);
            }
            let now = history.cluster();
            put_changes(&mut compiler, &known, &now);
            known = now;
            apply(&mut kernel, &compiler.update())
                .unwrap_or_else(|why| panic!("seed {seed}, step {step}: {why}"));
            let mut cluster = known.clone();
            if let Some(default_deny) = &default_deny {
                default_deny.apply(&mut cluster);
            }
            let mut at_once = Compiler::of(&cluster, node).with_pods_to_node(pods_to_node);
            at_once.update();
            let expected = at_once.ruleset();
            assert!(compiler.ruleset() == expected, "seed {seed}, step {step}: another ruleset than at once");
            assert!(&kernel == expected, "seed {seed}, step {step}: the transaction leads elsewhere");
        }
    }
}

/// The node of the pods with these ranges: some pods lie outside, some addresses inside are nobody's.
fn node(random: &mut Random) -> Value {
    let ipv4 = *random.pick(&["10.1.0.0/29", "10.1.0.4/30", "10.1.0.0/24"]);
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-0"},
           "spec": {"podCIDRs": [ipv4, "fd00:1::/125"]},
           "status": {"addresses": [{"type": "InternalIP", "address": "10.1.0.7"}]}})
}

#[test]
fn strict_start_closes_what_is_nobodys_in_the_pod_ranges_and_nothing_else() {
    for seed in 0..30 {
        let random = &mut Random::new(seed);
        let mut own = node(random);
        let strict = || Compiler::strict("node-0").with_pods_to_node(PodsToNode::Policy);
        let mut compiler = strict();
        let mut history = History::default();
        let mut kernel = Ruleset::default();
        let mut known = Cluster::new();
        for step in 0..20 {
            history.change(random);
            if random.percent(10) {
                own = node(random);
            }
            history.put(own.clone());
            let now = history.cluster();
            put_changes(&mut compiler, &known, &now);
            known = now;
            let update = compiler.update();
            apply(&mut kernel, &update).unwrap_or_else(|why| panic!("seed {seed}, step {step}: {why}"));
        }
        let mut at_once = strict();
        at_once.put_cluster(&known);
        at_once.update();
        assert!(at_once.ruleset() == &kernel, "seed {seed}: another ruleset than at once");

        let mut plain = Compiler::of(&known, Some("node-0")).with_pods_to_node(PodsToNode::Policy);
        plain.update();
        let plain = plain.ruleset();
        let node = &known.nodes()["node-0"];
        let of_nodes: Vec<_> = known.nodes().values().flat_map(|node| &node.addresses).collect();
        let alive = known.pods().values().filter(|pod| pod.selectable()).flat_map(|pod| &pod.addresses);
        let alive = alive.filter(|address| !of_nodes.contains(address));
        let claimed: Vec<&IpAddr> = alive.chain(&node.addresses).collect();
        let closed = |address: &IpAddr| {
            !claimed.contains(&address) && node.pod_ranges.iter().any(|range| range.contains(address))
        };
        for packet in packets(&known) {
            let open = !closed(&packet.source) && !closed(&packet.destination);
            let expected = open && plain.forwards(&packet);
            assert_eq!(kernel.forwards(&packet), expected, "seed {seed}: {packet:?}");
            let expected = !closed(&packet.source) && plain.delivers(&packet);
            assert_eq!(kernel.delivers(&packet), expected, "seed {seed}: {packet:?} to the node");
        }
    }
}

#[test]
fn an_update_knows_every_connection_that_it_denies() {
    let mut denied = 0;
    for seed in 0..20 {
        let random = &mut Random::new(seed);
        let mut compiler = Compiler::new(random.percent(50).then_some("node-0"));
        if random.percent(50) {
            let default_deny = default_deny(random, PodsToNode::Policy);
            compiler = compiler.with_pods_to_node(PodsToNode::Policy).with_default_deny(default_deny);
        }
        let mut history = History::default();
        let mut known = Cluster::new();
        for step in 0..40 {
            let before = compiler.ruleset().clone();
            history.change(random);
            let now = history.cluster();
            put_changes(&mut compiler, &known, &now);
            known = now;
            let transaction = compiler.update();
            let concerned = Concerned::by(&transaction, compiler.ruleset());
            for packet in packets(&known).skip(random.below(5)).step_by(5) {
                let passes = [Ruleset::forwards, Ruleset::delivers];
                if passes
                    .into_iter()
                    .any(|passes| passes(&before, &packet) && !passes(compiler.ruleset(), &packet))
                {
                    denied += 1;
                    let Packet { source, destination, .. } = packet;
                    assert!(
                        concerned.contains(source, destination),
                        "seed {seed}, step {step}: {packet:?} is not among {concerned:?}"
                    );
                }
            }
        }
    }
    assert!(denied > 1000, "only {denied} packets were denied");
}

#[test]
fn an_update_without_a_change_does_nothing() {
    let cluster = cluster(&random_objects(&mut Random::new(7)));
    let mut compiler = Compiler::new(None);
    put_changes(&mut compiler, &Cluster::new(), &cluster);
    assert!(!compiler.update().is_empty());
    put_changes(&mut compiler, &cluster, &cluster);
    assert_eq!(compiler.update(), Transaction::default());
}

#[test]
fn any_ruleset_can_follow_any_other() {
    let rulesets: Vec<_> = (0..20)
        .map(|seed| compile(&cluster(&random_objects(&mut Random::new(seed))), Some("node-1")))
        .collect();
    for old in &rulesets {
        for new in &rulesets {
            let mut kernel = old.clone();
            let transaction = Transaction::between(old, new);
            apply(&mut kernel, &transaction).expect("every operation is valid");
            assert!(kernel == *new);
            let mut kernel = old.clone();
            for step in in_steps([transaction]).flatten() {
                apply(&mut kernel, &step).expect("every step is valid");
            }
            assert!(kernel == *new);
        }
    }
}
