//! The same of what pods send to their own node.

use lab::random::Random;
use policy_compiler::compile::{Compiler, compile};
use policy_compiler::judge::{Decision, Judge, Ruling};
use policy_compiler::model::{Direction, PodsToNode};
use serde_json::{Value, json};

use super::{cluster, connection, default_deny, packets, random_objects};

/// The node of some pods, with addresses that blocks name and others do not.
fn node_with_addresses(name: &str) -> Value {
    let addresses = ["10.1.0.200", "203.0.113.200", "fd00:1::", "2001:db8::1"];
    let addresses = addresses.map(|address| json!({"type": "InternalIP", "address": address}));
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"addresses": addresses}})
}

/// What a node's pods send to addresses of the node, and what others send there.
#[test]
fn compiled_rulesets_and_judge_agree_on_what_pods_send_to_their_node() {
    let (mut denied, mut for_dns) = (0, 0);
    for seed in 0..60 {
        let random = &mut Random::new(seed);
        let mut objects = random_objects(random);
        objects.push(node_with_addresses("node-0"));
        let mut cluster = cluster(&objects);
        let default_deny = default_deny(random, PodsToNode::Policy);
        default_deny.apply(&mut cluster);
        let judge = Judge::new(&cluster).with_pods_to_node(PodsToNode::Policy);
        let mut compiler = Compiler::of(&cluster, Some("node-0")).with_pods_to_node(PodsToNode::Policy);
        compiler.update();
        let own = &cluster.nodes()["node-0"].addresses;
        for packet in packets(&cluster).filter(|packet| own.contains(&packet.destination)) {
            let connection = connection(&judge, &packet);
            let is_local = connection.from.pod().is_some_and(|pod| pod.node.as_deref() == Some("node-0"));
            let ruling = judge.ruling(Direction::Egress, &connection);
            let expected = !is_local || ruling.allowed();
            assert_eq!(
                compiler.ruleset().delivers(&packet),
                expected,
                "seed {seed}: {packet:?}: {ruling:#?}"
            );
            denied += usize::from(!expected);
            let by_default = |ruling: &Ruling<'_>| match &ruling.decision {
                Decision::Isolated { allowed_by, .. } => {
                    !allowed_by.is_empty()
                        && allowed_by.iter().all(|rule| &*rule.policy.name.name == "--default-deny")
                }
                _ => false,
            };
            for_dns += usize::from(is_local && by_default(&ruling));
        }
    }
    assert!(denied > 1000 && for_dns > 50, "{denied} packets denied, {for_dns} let through for DNS");
}

#[test]
fn what_pods_send_to_their_node_passes_unless_policies_judge_it() {
    for seed in 0..10 {
        let cluster = cluster(&random_objects(&mut Random::new(seed)));
        let allow = compile(&cluster, Some("node-0"));
        assert!(packets(&cluster).all(|packet| allow.delivers(&packet)), "seed {seed}");
        let mut compiler = Compiler::of(&cluster, Some("node-0")).with_pods_to_node(PodsToNode::Policy);
        compiler.update();
        for packet in packets(&cluster) {
            let forwards = compiler.ruleset().forwards(&packet);
            assert_eq!(forwards, allow.forwards(&packet), "seed {seed}: {packet:?}");
        }
    }
}
