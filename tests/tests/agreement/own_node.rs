//! The same of what pods send to their own node.

use lab::random::{self, Random};
use policy_compiler::compile::{Compiler, compile};
use policy_compiler::judge::{Decision, Judge, Ruling};
use policy_compiler::model::{Direction, PodsToNode};

use super::{NODES, cluster, cluster_policy, connection, default_deny, namespaced_objects, packets};

/// What a node's pods send to addresses of the node, and what others send there.
#[test]
fn compiled_rulesets_and_judge_agree_on_what_pods_send_to_their_node() {
    for (pods_to_node, at_least) in [(PodsToNode::Policy, [1000, 50]), (PodsToNode::Allow, [300, 0])] {
        let (mut denied, mut for_dns) = (0, 0);
        for seed in 0..60 {
            let random = &mut Random::new(seed);
            let mut objects = namespaced_objects(random);
            objects.extend(NODES.map(|(name, addresses)| random::node(random, name, addresses)));
            objects.extend((0..random.below(9)).map(|index| cluster_policy(random, index)));
            let mut cluster = cluster(&objects);
            default_deny(random, pods_to_node).apply(&mut cluster);
            let judge = Judge::new(&cluster).with_pods_to_node(pods_to_node);
            let mut compiler = Compiler::of(&cluster, Some("node-0")).with_pods_to_node(pods_to_node);
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
                    "seed {seed}, {pods_to_node:?}: {packet:?}: {ruling:#?}"
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
        let [least_denied, least_for_dns] = at_least;
        assert!(
            denied >= least_denied && for_dns >= least_for_dns,
            "{pods_to_node:?}: {denied} packets denied, {for_dns} let through for DNS"
        );
    }
}

#[test]
fn what_pods_send_to_their_node_passes_unless_policies_judge_it() {
    for seed in 0..10 {
        let cluster = cluster(&namespaced_objects(&mut Random::new(seed)));
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
