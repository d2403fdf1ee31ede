//! The dry run is the truth: nft loads what `podfence compile` prints, lists it so that it can be loaded again,
//! and finds the same table where the agent has been.

use std::net::IpAddr;

use anyhow::Result;
use lab::listing::{Listing, dry_run};
use lab::random::{self, NAMESPACES, PodPlace, Random};
use lab::testbed::Testbed;
use lab::{Namespace, Topology, Underlay};
use serde_json::{Value, json};

/// How many random clusters are tried.
const CLUSTERS: u64 = 15;

fn blocks() -> Vec<Value> {
    vec![
        json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}),
        json!({"cidr": "10.1.0.0/29", "except": ["10.1.0.2/31", "10.1.0.3/32"]}),
        json!({"cidr": "128.0.0.0/1"}),
        json!({"cidr": "::/0"}),
        json!({"cidr": "fd00::/8", "except": ["fd00:1::/64"]}),
        json!({"cidr": "fd00:1::4/126"}),
    ]
}

/// A cluster of pods on two nodes.
fn cluster(seed: u64) -> Value {
    let random = &mut Random::new(seed);
    let mut objects = random::namespaces(random);
    for index in 0..12 {
        let place = PodPlace {
            name: (NAMESPACES[index % 3].to_owned(), format!("pod-{index}")),
            node: format!("node-{}", index % 2),
            addresses: vec![format!("10.1.0.{}", index + 1), format!("fd00:1::{}", index + 1)],
        };
        objects.push(random::pod(random, &place));
    }
    let mut blocks = blocks();
    let near = [IpAddr::from([10, 1, 0, 3]), IpAddr::from([0xfd00, 1, 0, 0, 0, 0, 0, 4])];
    blocks.extend(random::blocks(random, &near));
    objects.extend((0..random.below(9)).map(|index| random::policy(random, index, &blocks)));
    json!({"apiVersion": "v1", "kind": "List", "items": objects})
}

#[test]
fn compiled_text_loads_and_survives_a_listing_and_is_what_the_agent_programs() -> Result<()> {
    let testbed = Testbed::new(Topology::Routed, Underlay::HostGateway, &["node-0", "node-1"])?;
    let _agents = testbed.start_agents()?;
    for seed in 0..CLUSTERS {
        testbed.manifests.write("cluster.json", &cluster(seed).to_string())?;
        // Loads the dry run's text, and waits for the same listing where the agent is.
        testbed.wait_in_step()?;
        for node in testbed.lab.nodes() {
            let loaded = Namespace::new()?;
            loaded.nft(&dry_run(node, testbed.manifests.path(), &[])?)?;
            let listed = loaded.feed("nft", &["list", "table", "inet", "podfence"], "")?;
            let again = Listing::of_text(&listed)?;
            assert_eq!(Listing::of(&loaded)?.differences(&again), Vec::<String>::new(), "seed {seed}");
        }
    }
    Ok(())
}
