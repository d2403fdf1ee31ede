//! Policies that are closed: what is left of them, and when they are opened.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use policy_compiler::compile::{Compiler, compile};
use policy_compiler::manifest::{self, Resource};
use policy_compiler::model::{
    Action, Cluster, ClusterNetworkPolicy, Labels, Namespace, NetworkPolicy, ObjectName, PolicyName,
};

const WEB: &str = "
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: web, labels: {app: web}}
spec: {containers: []}
status: {podIPs: [{ip: 10.0.0.1}]}
";

fn policy(name: &str, port: u16) -> NetworkPolicy {
    let yaml = format!(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{namespace: shop, name: {name}, annotations: {{podfence.io/audit: 'true'}}}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
  policyTypes: [Ingress, Egress]
  ingress: [{{from: [{{ipBlock: {{cidr: 192.0.2.0/24}}}}], ports: [{{port: {port}}}]}}]
"
    );
    let reading = manifest::parse(yaml.as_bytes(), name).expect("YAML");
    match reading.objects.into_iter().next().expect("an object").resource {
        Resource::NetworkPolicy(policy) => policy.without_origins(),
        other => panic!("{other:?}"),
    }
}

fn cluster(policies: impl IntoIterator<Item = NetworkPolicy>) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.insert_namespace(Namespace::new("shop", Labels::new()));
    let reading = manifest::parse(WEB.as_bytes(), "web").expect("YAML");
    for object in reading.objects {
        let Resource::Workload(workload) = object.resource else { panic!("no pod") };
        cluster.insert_pod(workload.pod);
    }
    policies.into_iter().for_each(|policy| cluster.insert_policy(policy));
    cluster
}

#[test]
fn a_closed_policy_isolates_as_before_and_lets_nothing_through() {
    let closed = policy("one", 80).closed();
    assert_eq!(closed.subjects, policy("one", 80).subjects);
    assert_eq!((&closed.ingress, &closed.egress), (&Some(vec![]), &Some(vec![])));
    assert!(!closed.audited);
    let ingress_only = NetworkPolicy { egress: None, ..policy("one", 80) };
    assert_eq!(ingress_only.closed().egress, None, "a direction that it leaves alone");
}

/// Something that happens to a compiler.
type Step<'a> = &'a dyn Fn(&mut Compiler);

#[test]
fn a_policy_stays_closed_until_it_is_opened_or_says_something_else() {
    let object_name = ObjectName::new("shop", "one");
    let name = PolicyName::from(object_name.clone());
    let [one, two] = [policy("one", 80), policy("two", 81)];
    let expected = |one: NetworkPolicy| compile(&cluster([one, two.clone()]), None);
    let mut compiler = Compiler::of(&cluster([one.clone(), two.clone()]), None);
    let steps: [(&str, Step<'_>, NetworkPolicy); 7] = [
        ("closed", &|compiler| compiler.close_policies([&name]), one.closed()),
        ("closed again", &|compiler| compiler.close_policies([&name]), one.closed()),
        ("told again", &|compiler| compiler.put_policy(&object_name, Some(one.clone())), one.closed()),
        ("opened", &|compiler| compiler.open_policies([&name]), one.clone()),
        ("closed once more", &|compiler| compiler.close_policies([&name]), one.closed()),
        (
            "changed",
            &|compiler| compiler.put_policy(&object_name, Some(policy("one", 82))),
            policy("one", 82),
        ),
        ("open already", &|compiler| compiler.open_policies([&name]), policy("one", 82)),
    ];
    for (step, action, policy) in steps {
        action(&mut compiler);
        compiler.update();
        assert_eq!(*compiler.ruleset(), expected(policy), "{step}");
    }
    compiler.close_policies([&name]);
    compiler.put_policy(&object_name, None);
    compiler.update();
    assert_eq!(*compiler.ruleset(), compile(&cluster([two]), None));
    assert!(!compiler.has_policy(&name));
    assert_eq!(compiler.closed_policies().count(), 0);
}

fn cluster_policy(port: u16) -> ClusterNetworkPolicy {
    let yaml = format!(
        "
apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {{name: guard, annotations: {{podfence.io/audit: 'true'}}}}
spec:
  tier: Admin
  priority: 10
  subject: {{namespaces: {{}}}}
  ingress:
  - action: Accept
    from: [{{pods: {{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: web}}}}}}}}]
    protocols: [{{tcp: {{destinationPort: {{number: {port}}}}}}}]
  - {{action: Deny, from: [{{namespaces: {{}}}}]}}
"
    );
    let reading = manifest::parse(yaml.as_bytes(), "guard").expect("YAML");
    match reading.objects.into_iter().next().expect("an object").resource {
        Resource::ClusterNetworkPolicy(policy) => policy.without_origins(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_closed_cluster_network_policy_accepts_nothing_and_denies_everything() {
    let open = cluster_policy(80);
    let closed = open.closed();
    assert_eq!((&closed.subject, closed.tier, closed.priority), (&open.subject, open.tier, open.priority));
    assert!(!closed.audited);
    let [accept, deny] = &*closed.ingress else { panic!("{closed:?}") };
    assert_eq!((accept.action, &accept.rule.peers), (Action::Accept, &Some(vec![])));
    assert_eq!((deny.action, &deny.rule.peers, &deny.rule.ports), (Action::Deny, &None, &None));
}

#[test]
fn a_cluster_network_policy_stays_closed_until_it_is_opened_or_says_something_else() {
    let guard: Arc<str> = "guard".into();
    let name = PolicyName::Cluster(guard.clone());
    let with = |guard: ClusterNetworkPolicy| {
        let mut cluster = cluster([policy("one", 80)]);
        cluster.insert_cluster_policy(guard);
        cluster
    };
    let open = cluster_policy(80);
    let mut compiler = Compiler::of(&with(open.clone()), None);
    let steps: [(&str, Step<'_>, ClusterNetworkPolicy); 6] = [
        ("closed", &|compiler| compiler.close_policies([&name]), open.closed()),
        ("told again", &|compiler| compiler.put_cluster_policy(&guard, Some(open.clone())), open.closed()),
        ("opened", &|compiler| compiler.open_policies([&name]), open.clone()),
        ("closed again", &|compiler| compiler.close_policies([&name]), open.closed()),
        (
            "changed",
            &|compiler| compiler.put_cluster_policy(&guard, Some(cluster_policy(81))),
            cluster_policy(81),
        ),
        ("open already", &|compiler| compiler.open_policies([&name]), cluster_policy(81)),
    ];
    for (step, action, policy) in steps {
        action(&mut compiler);
        compiler.update();
        assert_eq!(*compiler.ruleset(), compile(&with(policy), None), "{step}");
    }
    compiler.close_policies([&name]);
    assert!(compiler.has_policy(&name));
    let closed: Vec<_> = compiler.closed_policies().collect();
    assert_eq!(closed, std::slice::from_ref(&name));
    compiler.put_cluster_policy(&guard, None);
    assert!(!compiler.has_policy(&name));
    assert_eq!(compiler.closed_policies().count(), 0);
}
