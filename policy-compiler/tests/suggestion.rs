//! Suggested policies on random clusters: applied, they do what they are for, and nothing that they do not say.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::IpAddr;

use policy_compiler::judge::{Connection, Endpoint, Judge, Party, Traffic, TrafficRange};
use policy_compiler::model::{
    Action, Cluster, ClusterNetworkPolicy, IpBlock, LabelSelector, Labels, NamespaceScope, NetworkPolicy,
    ObjectName, Operator, Peer, Pod, PodPeer, PortMatch, PortNumber, PortRange, Protocol, Requirement, Rule,
    Tier, TierRule,
};
use policy_compiler::suggestion::{Denied, Obstacle, Opened, Suggestion};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

const OUTSIDE: [&str; 2] = ["203.0.113.7", "2001:db8::7"];
const NAMESPACES: [&str; 2] = ["shop", "other"];

fn port(number: u16) -> PortNumber {
    PortNumber::new(number).unwrap()
}

fn key() -> impl Strategy<Value = String> {
    select(vec!["app", "tier", "pod-template-hash"]).prop_map(str::to_owned)
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map(key(), select(vec!["a", "b"]).prop_map(str::to_owned), 0..3)
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    let value = || select(vec!["a", "b"]).prop_map(|value| BTreeSet::from([value.to_owned()]));
    let operator = prop_oneof![
        value().prop_map(Operator::In),
        value().prop_map(Operator::NotIn),
        Just(Operator::Exists),
        Just(Operator::DoesNotExist),
    ];
    let requirement = (key(), operator).prop_map(|(key, operator)| Requirement { key, operator });
    vec(requirement, 0..2).prop_map(|requirements| LabelSelector { requirements })
}

fn peer() -> impl Strategy<Value = Peer> {
    let scope =
        prop_oneof![Just(NamespaceScope::Own), Just(NamespaceScope::Matching(LabelSelector::everything()))];
    let pods = (scope, selector()).prop_map(|(namespaces, pods)| Peer::Pods(PodPeer { namespaces, pods }));
    let block = select(vec!["10.0.0.0/29", "fd00::/16", "203.0.113.0/24"]);
    let block = block.prop_map(|cidr| Peer::Block(IpBlock { cidr: cidr.parse().unwrap(), except: vec![] }));
    prop_oneof![3 => pods, 1 => block]
}

fn rule() -> impl Strategy<Value = Rule> {
    let ports = prop_oneof![
        Just(PortMatch::All(Protocol::Udp)),
        Just(PortMatch::Range(Protocol::Tcp, PortRange::single(port(80)))),
        Just(PortMatch::Range(Protocol::Tcp, PortRange::new(port(50), port(90)).unwrap())),
    ];
    (option::of(vec(peer(), 1..3)), option::of(vec(ports, 1..3))).prop_map(|(peers, ports)| Rule {
        peers,
        ports,
        origin: None,
    })
}

/// A ClusterNetworkPolicy with a rule for each direction. Its pod peers look into every namespace.
fn cluster_policy() -> impl Strategy<Value = ClusterNetworkPolicy> {
    let everywhere =
        |pods| PodPeer { namespaces: NamespaceScope::Matching(LabelSelector::everything()), pods };
    let tier_rule = move |(action, rule): (_, Rule)| {
        let peers = rule.peers.iter().flatten().map(|peer| match peer {
            Peer::Pods(peer) => Peer::Pods(everywhere(peer.pods.clone())),
            other => other.clone(),
        });
        TierRule { name: None, action, rule: Rule { peers: Some(peers.collect()), ..rule.clone() } }
    };
    let rules = || vec((select(Action::ALL.to_vec()), rule()).prop_map(tier_rule), 0..3);
    (select(Tier::ALL.to_vec()), selector(), rules(), rules()).prop_map(
        move |(tier, pods, ingress, egress)| ClusterNetworkPolicy {
            tier,
            subject: everywhere(pods),
            ingress,
            egress,
            ..ClusterNetworkPolicy::unreadable("".into())
        },
    )
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let pod =
        (select(NAMESPACES.to_vec()), labels(), prop::bool::weighted(0.1), any::<bool>(), any::<bool>());
    let policy = (
        select(NAMESPACES.to_vec()),
        selector(),
        option::of(vec(rule(), 0..3)),
        option::of(vec(rule(), 0..3)),
    );
    (vec(pod, 2..8), vec(policy, 0..5), vec(cluster_policy(), 0..3)).prop_map(|(pods, policies, tiers)| {
        let mut cluster = Cluster::new();
        for (index, (namespace, labels, host_network, workload, addressed)) in pods.into_iter().enumerate() {
            let addresses = [format!("10.0.0.{}", index + 1), format!("fd00::{}", index + 1)];
            cluster.insert_pod(Pod {
                labels,
                host_network,
                workload: workload.then(|| "Deployment".into()),
                addresses: addresses.iter().filter(|_| addressed).map(|it| it.parse().unwrap()).collect(),
                ..Pod::new(ObjectName::new(namespace, format!("pod-{index}")))
            });
        }
        for (index, (namespace, subjects, ingress, egress)) in policies.into_iter().enumerate() {
            let name = ObjectName::new(namespace, format!("policy-{index}"));
            cluster.insert_policy(NetworkPolicy {
                name,
                subjects,
                ingress,
                egress,
                audited: false,
                origin: None,
            });
        }
        for (index, policy) in tiers.into_iter().enumerate() {
            cluster.insert_cluster_policy(ClusterNetworkPolicy { name: index.to_string().into(), ..policy });
        }
        cluster
    })
}

fn ends<'a>(cluster: &'a Cluster, judge: &Judge<'a>) -> Vec<Party<'a>> {
    let outside = OUTSIDE.map(|address| Endpoint::Address(address.parse::<IpAddr>().unwrap()));
    let pods = cluster.pods().values().map(Endpoint::Pod);
    pods.chain(outside).map(|end| judge.party(end)).collect()
}

/// Every connection that a policy could decide about, cut as finely as the rules before and after are.
fn connections<'a>(judge: &Judge<'a>) -> Vec<Connection<'a>> {
    let tcp = |number| Traffic::Port(Protocol::Tcp, port(number));
    let traffic = [1, 50, 80, 81, 443, 65535].map(tcp);
    let traffic = traffic.into_iter().chain([Traffic::Port(Protocol::Udp, port(80)), Traffic::Other]);
    let traffic: Vec<_> = traffic.collect();
    let ends = ends(judge.cluster(), judge);
    let pairs = ends.iter().flat_map(|from| ends.iter().map(move |to| (*from, *to)));
    let families = pairs.flat_map(|(from, to)| from.families_with(&to).iter().map(move |it| (from, to, *it)));
    let all = families.flat_map(|(from, to, family)| {
        traffic.iter().map(move |&traffic| Connection { from, to, family, traffic, through_service: false })
    });
    all.collect()
}

fn contains(range: TrafficRange, traffic: Traffic) -> bool {
    match (range, traffic) {
        (TrafficRange::Ports(of, ports), Traffic::Port(protocol, port)) => {
            of == protocol && ports.contains(port)
        }
        (TrafficRange::Other, Traffic::Other) => true,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_suggestion_does_what_it_is_for_and_what_it_says(
        cluster in cluster(),
        chosen in vec(any::<prop::sample::Index>(), 1..3),
    ) {
        let judge = Judge::new(&cluster);
        let ends = ends(&cluster, &judge);
        let denied: Vec<_> = connections(&judge).into_iter().filter(|it| !judge.verdict(it).allowed()).collect();
        prop_assume!(!denied.is_empty());
        let asked: Vec<_> = chosen
            .iter()
            .map(|index| Denied { connection: *index.get(&denied), family: None, block: None })
            .collect();
        let suggestion = Suggestion::new(&judge, &asked);
        let mut amended = cluster.clone();
        for policy in &suggestion.policies {
            prop_assert!(!cluster.policies().contains_key(&policy.name), "{} is taken", policy.name);
            prop_assert!(!policy.subjects.requirements.is_empty(), "{policy:?} selects a whole namespace");
            amended.insert_policy(policy.clone());
        }
        let after = Judge::new(&amended);
        for (asked, needed) in asked.iter().zip(&suggestion.needed) {
            let allowed = after.verdict(&after.translate(&asked.connection)).allowed();
            prop_assert!(needed.is_empty() || allowed, "{suggestion:?} does not allow it");
            prop_assert!(!needed.is_empty() || !suggestion.obstacles.is_empty(), "no word about {asked:?}");
        }
        let is_asked = |connection: &Connection<'_>| asked.iter().any(|asked| {
            let key = |it: &Connection<'_>| (it.from.to_string(), it.to.to_string(), it.traffic);
            key(connection) == key(&asked.connection)
        });
        for connection in connections(&judge) {
            let before = judge.verdict(&connection).allowed();
            let verdict = after.verdict(&after.translate(&connection));
            if before && !verdict.allowed() {
                let said = suggestion.isolates.iter().any(|(direction, pod)| {
                    let (subject, _) = connection.subject_and_peer(*direction);
                    !verdict.ruling(*direction).allowed() && subject.pod().is_some_and(|it| it.name == pod.name)
                });
                prop_assert!(said, "{} → {} closes: {suggestion:?}", connection.from, connection.to);
            }
            let said = |said: &Opened| {
                (&said.from, &said.to) == (&connection.from.to_string(), &connection.to.to_string())
                    && contains(said.traffic, connection.traffic)
            };
            if !before && verdict.allowed() && !is_asked(&connection) {
                let said = suggestion.opens.iter().any(said);
                prop_assert!(said, "{} → {} opens: {suggestion:?}", connection.from, connection.to);
            }
        }
        for said in &suggestion.opens {
            let end = |name: &str| *ends.iter().find(|end| end.to_string() == name).unwrap();
            let (from, to) = (end(&said.from), end(&said.to));
            let opens = from.families_with(&to).iter().any(|&family| {
                let connection = Connection { from, to, family, traffic: said.traffic.example(), through_service: false };
                !judge.verdict(&connection).allowed() && after.verdict(&after.translate(&connection)).allowed()
            });
            prop_assert!(opens, "{said:?} is no news: {suggestion:?}");
        }
    }
}

#[test]
fn what_has_no_label_gets_no_policy_that_selects_everything() {
    let mut cluster = Cluster::new();
    let bare = ObjectName::new("shop", "bare");
    cluster.insert_pod(Pod::new(bare.clone()));
    cluster.insert_pod(Pod::new(ObjectName::new("shop", "other")));
    let isolating = |subjects| NetworkPolicy {
        name: ObjectName::new("shop", "all"),
        subjects,
        ingress: Some(vec![]),
        egress: None,
        audited: false,
        origin: None,
    };
    cluster.insert_policy(isolating(LabelSelector::everything()));
    let judge = Judge::new(&cluster);
    let [from, to] = ["other", "bare"]
        .map(|name| judge.party(Endpoint::Pod(&cluster.pods()[&ObjectName::new("shop", name)])));
    let connection = Connection {
        from,
        to,
        family: None,
        traffic: Traffic::Port(Protocol::Tcp, port(80)),
        through_service: false,
    };
    let suggestion = Suggestion::new(&judge, &[Denied { connection, family: None, block: None }]);
    assert_eq!((suggestion.policies, suggestion.obstacles), (vec![], vec![Obstacle::NoLabels(bare)]));
}
