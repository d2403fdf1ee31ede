//! What is guarded at doors: change by change, and at once.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use lab::interpreter::apply;
use lab::random::Random;
use policy_compiler::compile::Compiler;
use policy_compiler::model::{Cluster, Door, Doors, LinkAddress, Pod, PortNumber, Tunnel};
use policy_compiler::ruleset::{Ruleset, TableFamily};

use super::history::History;
use super::put_changes;

const NODE: &str = "node-0";

/// Whether a pod can have a door on the node.
fn has_door(pod: &Pod) -> bool {
    pod.selectable() && pod.node.as_deref() == Some(NODE) && !pod.addresses.is_empty()
}

/// Doors of most pods of the node, at random devices, some of which are doors of nobody.
fn doors(random: &mut Random, cluster: &Cluster) -> Doors {
    let mut doors = Doors { elsewhere: ["lan".into()].into(), ..Doors::default() };
    let local = cluster.pods().values().filter(|pod| has_door(pod));
    for (index, pod) in (1_u8..).zip(local) {
        let device = format!("veth{index}").into();
        if random.percent(20) {
            doors.elsewhere.insert(device);
            continue;
        }
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, index.into());
        let door = Door {
            device,
            bridged: random.percent(70),
            link_address: (!random.percent(20)).then_some(LinkAddress([2, 0, 0, 0, 0, index])),
            link_local: if random.percent(80) { [link_local].into() } else { BTreeSet::new() },
        };
        doors.of_pods.insert(pod.name.clone(), door);
    }
    doors.tunnels.extend(PortNumber::new(8472).filter(|_| random.percent(30)).map(Tunnel::Udp));
    doors.node_link_local.extend(random.percent(50).then_some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xff)));
    doors
}

#[test]
fn a_history_at_doors_leads_to_the_table_of_a_single_run() {
    for seed in 0..60 {
        let random = &mut Random::new(seed);
        let mut compiler = Compiler::new(Some(NODE)).with_doors();
        let mut history = History::default();
        let (mut known, mut found) = (Cluster::new(), Doors::default());
        let mut kernel = Ruleset { table: TableFamily::Netdev, ..Ruleset::default() };
        for step in 0..25 {
            history.change(random);
            let now = history.cluster();
            put_changes(&mut compiler, &known, &now);
            known = now;
            if random.percent(40) {
                found = doors(random, &known);
            }
            found.of_pods.retain(|name, _| known.pods().get(name).is_some_and(has_door));
            compiler.put_doors(&found);
            compiler.update();
            let update = compiler.update_doors().expect("there is a table for doors");
            apply(&mut kernel, &update).unwrap_or_else(|why| panic!("seed {seed}, step {step}: {why}"));
        }
        let mut at_once = Compiler::new(Some(NODE)).with_doors();
        at_once.put_cluster(&known);
        at_once.put_doors(&found);
        at_once.update();
        at_once.update_doors();
        let expected = at_once.door_ruleset().expect("there is a table for doors");
        assert!(expected == &kernel, "seed {seed}: not\n{expected}\nbut\n{kernel}");
    }
}
