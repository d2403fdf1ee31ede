use std::sync::atomic::{AtomicU64, Ordering};

use kube::ResourceExt;
use kube::api::{ObjectList, WatchEvent};
use kube::runtime::watcher::Event;
use policy_compiler::manifest::{self, Resource};
use policy_compiler::model::{self, LabelSelector, ObjectName};
use serde_json::{Value, json};

use super::decode::Object;
use super::known::Known;
use super::objects::{Kind, Namespace, Node, Pod};
use super::policies::{ClusterNetworkPolicy, NetworkPolicy};
use crate::source::Update;

fn read<K: Kind>(object: &Value) -> K {
    serde_json::from_value(object.clone()).expect("an object of the kind")
}

fn update<K: Kind>(object: K) -> Update {
    K::update(K::name_of(object.meta()).expect("a name"), object, &mut Vec::new())
}

fn pod_of(object: &Value) -> model::Pod {
    let pod: Pod = read(object);
    match update(pod) {
        Update::Pod(_, Some(pod)) => pod,
        other => panic!("{other:?}"),
    }
}

fn policy_of(object: &Value) -> model::NetworkPolicy {
    let policy: NetworkPolicy = read(object);
    match update(policy) {
        Update::Policy(_, Some(policy)) => policy,
        other => panic!("{other:?}"),
    }
}

/// An object in a version that is newer than all before it.
fn named(name: &str) -> Value {
    static NEWEST: AtomicU64 = AtomicU64::new(1);
    let version = NEWEST.fetch_add(1, Ordering::Relaxed).to_string();
    json!({"metadata": {"namespace": "shop", "name": name, "resourceVersion": version}})
}

/// Pods are read by a second piece of code, for the sake of memory: it must read what the manifest reader does.
#[test]
fn a_pod_says_what_it_says_as_a_manifest() {
    let cases = [
        json!({}),
        json!({"spec": {"nodeName": "", "containers": [{"name": "app"}]}, "status": {"podIPs": null}}),
        json!({"spec": {"nodeName": "node-1", "containers": []}, "status": {"phase": "Pending", "podIP": ""}}),
        json!({"status": {"phase": "Running", "podIP": "10.0.0.1",
                          "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}),
        json!({"status": {"podIP": "10.0.0.1"}}),
        json!({"status": {"podIP": "::ffff:10.0.0.1", "podIPs": [{"ip": "010.000.000.001"}]}}),
        json!({"status": {"phase": "Succeeded", "podIPs": [{"ip": "10.0.0.1"}]}}),
        json!({"status": {"phase": "Failed"}}),
        json!({"spec": {"hostNetwork": true}, "status": {"hostIP": "192.0.2.1", "hostIPs": [{"ip": "fd00::2"}]}}),
        json!({"spec": {"hostNetwork": true}, "status": {"hostIP": "192.0.2.1", "podIP": "192.0.2.2"}}),
        json!({"spec": {"hostNetwork": false}, "status": {"hostIP": "192.0.2.1"}}),
        json!({"spec": {
            "initContainers": [
                {"name": "setup", "ports": [{"name": "setup", "containerPort": 1}]},
                {"name": "proxy", "restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 2}]},
            ],
            "containers": [
                {"name": "app", "ports": [
                    {"name": "web", "containerPort": 80},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                    {"containerPort": 9, "protocol": "SCTP", "hostPort": 9},
                ]},
                {"name": "quiet", "ports": null},
            ],
        }}),
    ];
    for case in cases {
        let mut object = case;
        object["apiVersion"] = json!("v1");
        object["kind"] = json!("Pod");
        object["metadata"] = json!({"namespace": "shop", "name": "web", "labels": {"app": "web", "a/b": ""},
                                    "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}]});
        let reading = manifest::parse(object.to_string().as_bytes(), "-").expect("JSON");
        let Resource::Workload(expected) = reading.objects[0].resource.clone() else { panic!("{object}") };
        let expected = model::Pod { origin: None, ..expected.pod };
        assert_eq!(pod_of(&object), expected, "{object}");
    }
}

#[test]
fn a_node_says_what_it_says_as_a_manifest() {
    let cases = [
        json!({}),
        json!({"spec": {}, "status": {"addresses": null}}),
        json!({"spec": {"podCIDR": "10.0.0.0/24"}}),
        json!({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24", "fd00::/64"], "taints": []},
               "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"},
                                        {"type": "Hostname", "address": "node-1"}],
                          "images": [{"names": ["example.invalid/none"]}]}}),
        json!({"spec": {"podCIDRs": ["10.0.0.0/33", "fd00::/64"]}}),
    ];
    for case in cases {
        let mut object = case;
        object["apiVersion"] = json!("v1");
        object["kind"] = json!("Node");
        object["metadata"] = json!({"name": "node-1", "labels": {"pool": "a"}});
        let reading = manifest::parse(object.to_string().as_bytes(), "-").expect("JSON");
        let Resource::Node(expected) = reading.objects[0].resource.clone() else { panic!("{object}") };
        let node: Node = read(&object);
        let Update::Node(name, Some(node)) = update(node) else { panic!("{object}") };
        assert_eq!((&*name, node), ("node-1", expected), "{object}");
    }
}

#[test]
fn a_port_that_no_connection_can_have_is_left_out() {
    let ports = json!([{"containerPort": 0}, {"containerPort": 65_536}, {"containerPort": 1, "protocol": "ICMP"},
                       {"containerPort": 65_535}]);
    let mut object = named("web");
    object["spec"] = json!({"containers": [{"ports": ports}]});
    let numbers: Vec<u16> = pod_of(&object).ports.iter().map(|port| port.number.get()).collect();
    assert_eq!(numbers, [65_535]);
}

#[test]
fn annotations_ask_for_audit() {
    for (annotations, audited) in [
        (
            json!({"podfence.io/audit": "true", "kubectl.kubernetes.io/last-applied-configuration": "{}"}),
            true,
        ),
        (json!({"podfence.io/audit": "false"}), false),
        (json!({"podfence.io/audit": "1"}), false),
        (json!({"other": "true"}), false),
        (json!({}), false),
        (Value::Null, false),
    ] {
        let mut object = named("shop");
        object["metadata"]["annotations"] = annotations.clone();
        assert_eq!(policy_of(&object).audited, audited, "{annotations}");
        let namespace: Namespace = read(&object);
        let Update::Namespace(_, Some(namespace)) = update(namespace) else { panic!("no namespace") };
        assert_eq!(namespace.is_audited(), audited, "{annotations}");
    }
}

/// The items of a list lack `apiVersion` and `kind`.
#[test]
fn a_policy_of_a_list_says_what_it_says_as_a_manifest() {
    let mut item = named("allow");
    item["spec"] = json!({
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80, "protocol": "TCP"}]}],
    });
    let list = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicyList",
                      "metadata": {"resourceVersion": "7"}, "items": [item]});
    let reading = manifest::parse(list.to_string().as_bytes(), "shop/allow").expect("JSON");
    let Resource::NetworkPolicy(expected) = reading.objects[0].resource.clone() else { panic!("{list}") };

    let list: ObjectList<NetworkPolicy> = serde_json::from_value(list).expect("a list");
    let policy = list.items.into_iter().next().expect("an item");
    let Update::Policy(name, Some(policy)) = update(policy) else { panic!("no policy") };
    assert_eq!(name, ObjectName::new("shop", "allow"));
    assert_eq!(policy, expected.without_origins());
}

/// Denies pods what goes to `node`, and accepts what goes to a domain.
fn cluster_policy(name: &str, node: &str) -> Value {
    let mut object = named(name);
    object["spec"] = json!({
        "tier": "Admin",
        "priority": 7,
        "subject": {"namespaces": {}},
        "egress": [
            {"action": "Deny", "to": [{"nodes": {"matchLabels": {"kubernetes.io/hostname": node}}}]},
            {"action": "Accept", "to": [{"domainNames": ["www.example.com"]}]},
        ],
    });
    object
}

#[test]
fn a_cluster_network_policy_says_what_it_says_as_a_manifest_in_each_version() {
    for version in ["policy.networking.k8s.io/v1beta1", "policy.networking.k8s.io/v1alpha2"] {
        let mut object = cluster_policy("guard", "node-1");
        object["metadata"]["annotations"] = json!({"podfence.io/audit": "true"});
        object["apiVersion"] = json!(version);
        object["kind"] = json!("ClusterNetworkPolicy");
        object["status"] = json!({"conditions": []});
        let reading = manifest::parse(object.to_string().as_bytes(), "guard").expect("JSON");
        let Resource::ClusterNetworkPolicy(expected) = reading.objects[0].resource.clone() else {
            panic!("{object}")
        };
        let policy: ClusterNetworkPolicy = read(&object);
        let Update::ClusterPolicy(name, Some(policy)) = update(policy) else { panic!("no policy") };
        assert!(policy.audited);
        assert_eq!((&*name, policy), ("guard", expected.without_origins()));
    }
}

#[test]
fn a_remark_on_a_policy_is_made_once_for_each_content() {
    let remarks = |policies: &mut Known<ClusterNetworkPolicy>, event| -> Vec<String> {
        policies.take(event);
        let remarks = policies.take_remarks().into_iter().flat_map(|(_, remarks)| remarks);
        remarks.map(|remark| remark.to_string()).collect()
    };
    let object = |node: &str| decode(&cluster_policy("guard", node));
    let expected =
        ["spec.egress[1].to[0].domainNames: domain names are not resolved: this peer matches nothing \
                     (it is read all the same)"];
    let mut policies = Known::default();
    assert_eq!(remarks(&mut policies, Event::Apply(object("node-1"))), expected);
    for event in
        [Event::Apply(object("node-1")), Event::Init, Event::InitApply(object("node-1")), Event::InitDone]
    {
        assert_eq!(remarks(&mut policies, event), [""; 0]);
    }
    assert_eq!(remarks(&mut policies, Event::Apply(object("node-2"))), expected);
    let ended = policies.take_end();
    assert!(matches!(&*ended, [Update::ClusterPolicy(name, None)] if &**name == "guard"), "{ended:?}");
    assert_eq!(remarks(&mut policies, Event::Apply(object("node-2"))), expected, "it has been made anew");
}

#[test]
fn what_cannot_be_read_of_a_policy_allows_nothing() {
    let mut half = named("half");
    half["spec"] = json!({"podSelector": {}, "ingress": [
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/99"}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    ]});
    let ingress = policy_of(&half).ingress.expect("ingress is isolated");
    assert_eq!(ingress[0].peers.as_ref().map(Vec::len), Some(1));

    let mut nameless = named("-");
    nameless["spec"] = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]});
    let closed = policy_of(&nameless);
    assert_eq!(closed.subjects, LabelSelector::everything());
    assert_eq!((closed.ingress, closed.egress), (Some(Vec::new()), Some(Vec::new())));
}

#[test]
fn a_namespace_carries_its_name_as_a_label() {
    let object = json!({"metadata": {"name": "shop", "labels": {"team": "a"}}});
    let namespace: Namespace = read(&object);
    let Update::Namespace(name, Some(namespace)) = update(namespace) else { panic!("no namespace") };
    assert_eq!(&*name, "shop");
    assert_eq!(namespace.labels()["team"], "a");
    assert_eq!(namespace.labels()[model::NAMESPACE_NAME_LABEL], "shop");
}

/// The pods that an event makes known, and with a minus those that it makes known as gone.
fn known(known: &mut Known<Pod>, event: Event<Object<Pod>>) -> Option<Vec<String>> {
    let name = |update: &Update| match update {
        Update::Pod(name, Some(_)) => name.name.to_string(),
        Update::Pod(name, None) => format!("-{}", name.name),
        other => panic!("{other:?}"),
    };
    known.take(event).map(|updates| updates.iter().map(name).collect())
}

fn pod(name: &str) -> Object<Pod> {
    decode(&named(name))
}

fn decode<K: Kind>(object: &Value) -> Object<K> {
    serde_json::from_value(object.clone()).expect("any JSON")
}

fn list(pods: &mut Known<Pod>, names: &[&str]) -> Vec<String> {
    assert_eq!(known(pods, Event::Init), None);
    for name in names {
        assert_eq!(known(pods, Event::InitApply(pod(name))), None, "a list is handed on when it is complete");
    }
    known(pods, Event::InitDone).expect("a list is complete")
}

#[test]
fn every_event_is_handed_on_at_once() {
    let mut pods = Known::default();
    assert_eq!(list(&mut pods, &["a"]), ["a"]);
    assert_eq!(known(&mut pods, Event::Apply(pod("b"))), Some(vec!["b".to_owned()]));
    assert_eq!(known(&mut pods, Event::Delete(pod("a"))), Some(vec!["-a".to_owned()]));
}

#[test]
fn what_has_not_changed_is_not_handed_on_again() {
    let mut pods = Known::default();
    list(&mut pods, &["a", "b"]);
    assert_eq!(known(&mut pods, Event::Apply(pod("a"))), Some(Vec::new()));

    let mut heartbeat = named("a");
    heartbeat["status"] = json!({"conditions": [{"type": "Ready", "lastProbeTime": null}]});
    assert_eq!(known(&mut pods, Event::Apply(decode(&heartbeat))), Some(Vec::new()));

    heartbeat["metadata"] = named("a")["metadata"].clone();
    heartbeat["metadata"]["labels"] = json!({"app": "web"});
    assert_eq!(known(&mut pods, Event::Apply(decode(&heartbeat))), Some(vec!["a".to_owned()]));
    assert_eq!(known(&mut pods, Event::Apply(pod("a"))), Some(vec!["a".to_owned()]), "as it was before");
}

#[test]
fn a_new_list_shows_what_it_changes_and_what_it_lacks() {
    let mut pods = Known::default();
    list(&mut pods, &["listed", "deleted", "lost"]);
    known(&mut pods, Event::Apply(pod("watched")));
    known(&mut pods, Event::Delete(pod("deleted")));
    assert_eq!(list(&mut pods, &["listed", "watched", "deleted", "new"]), ["deleted", "new", "-lost"]);
    assert_eq!(list(&mut pods, &["listed", "watched", "deleted", "new"]), Vec::<String>::new());
}

#[test]
fn a_list_that_has_lost_all_objects_is_told_from_one_that_never_had_any() {
    let mut pods = Known::default();
    for (names, lost_all) in [
        (&[][..], false),
        (&["a", "b"], false),
        (&["b"], false),
        (&["c"], false),
        (&[], true),
        (&[], false),
        (&["a"], false),
    ] {
        list(&mut pods, names);
        assert_eq!(pods.has_lost_all(), lost_all, "{names:?}");
    }
    known(&mut pods, Event::Delete(pod("a")));
    assert!(!pods.has_lost_all(), "somebody has deleted it");
}

#[test]
fn a_list_that_breaks_off_is_handed_on_with_the_next_one() {
    let mut pods = Known::default();
    list(&mut pods, &["a", "b"]);
    known(&mut pods, Event::Init);
    known(&mut pods, Event::InitApply(pod("new")));
    known(&mut pods, Event::InitApply(pod("brief")));
    assert_eq!(list(&mut pods, &["a", "b", "new"]), ["new", "brief", "-brief"]);
}

/// What was asked for beside the watch, and the versions that the watch says afterwards.
#[test]
fn what_is_older_than_an_answer_is_no_news() {
    let name = ObjectName::new("shop", "a");
    for exists in [true, false] {
        let mut pods = Known::default();
        list(&mut pods, &["a", "b"]);
        let (old, older) = (relabelled("a", "old"), named("a"));
        let new = relabelled("a", "new");
        let version = number(&named("-"));
        assert!(pods.take_asked(&name, exists.then(|| decode(&new)), Some(version)).is_some());
        for event in [Event::Apply(decode(&old)), Event::Delete(decode(&older))] {
            assert_eq!(known(&mut pods, event), Some(vec![]), "{exists}");
        }
        if exists {
            assert_eq!(known(&mut pods, Event::Delete(pod("a"))), Some(vec!["-a".to_owned()]));
        }
        assert_eq!(known(&mut pods, Event::Apply(pod("a"))), Some(vec!["a".to_owned()]));
    }
}

#[test]
fn a_list_that_began_before_an_answer_is_older() {
    let mut pods = Known::default();
    list(&mut pods, &["a", "b"]);
    let listed = [named("a"), named("b")];
    known(&mut pods, Event::Init);
    pods.take_asked(&ObjectName::new("shop", "a"), None, Some(number(&named("-"))));
    for object in &listed {
        known(&mut pods, Event::InitApply(decode(object)));
    }
    assert_eq!(known(&mut pods, Event::InitDone), Some(vec![]));
    assert_eq!(list(&mut pods, &["a", "b"]), ["a"], "the next list is newer");
}

#[test]
fn what_a_watch_repeats_is_no_news() {
    let mut pods = Known::default();
    list(&mut pods, &["a"]);
    let (come, changed, gone) = (named("b"), relabelled("b", "new"), named("b"));
    assert_eq!(known(&mut pods, Event::Apply(decode(&come))), Some(vec!["b".to_owned()]));
    assert_eq!(known(&mut pods, Event::Apply(decode(&changed))), Some(vec!["b".to_owned()]));
    assert_eq!(known(&mut pods, Event::Apply(decode(&come))), Some(vec![]));
    assert_eq!(known(&mut pods, Event::Delete(decode(&gone))), Some(vec!["-b".to_owned()]));
    for repeated in [&come, &changed] {
        assert_eq!(known(&mut pods, Event::Apply(decode(repeated))), Some(vec![]));
    }
    assert_eq!(known(&mut pods, Event::Apply(pod("b"))), Some(vec!["b".to_owned()]));
}

fn relabelled(name: &str, app: &str) -> Value {
    let mut object = named(name);
    object["metadata"]["labels"] = json!({"app": app});
    object
}

/// The version of an object as a number.
fn number(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok()).expect("a number")
}

/// An object of a kind that none of its readers can make sense of.
fn spoiled(name: &str) -> Value {
    let mut object = named(name);
    object["metadata"]["labels"] = json!(["no", "map"]);
    object["spec"] = json!({"podSelector": {}});
    object["status"] = json!({"phase": "Running"});
    object
}

/// Each kind, and what its undecodable object `a` becomes after the object could be decoded.
#[test]
fn an_object_that_cannot_be_decoded_narrows_and_stops_no_other() {
    fn watched<K: Kind>() -> Vec<Update> {
        let mut known = Known::<K>::default();
        let items = [named("a"), named("b")];
        known.take(Event::Init);
        for item in &items {
            known.take(Event::InitApply(decode::<K>(item)));
        }
        assert_eq!(known.take(Event::InitDone).map(|updates| updates.len()), Some(2));
        let updates = known.take(Event::Apply(decode(&spoiled("a")))).expect("no list");
        assert_eq!(known.undecodable(), 1);
        assert!(known.take(Event::Apply(decode(&spoiled("a")))).expect("no list").is_empty());

        // A list has it too, and changes no more of it, nor of the others.
        known.take(Event::Init);
        known.take(Event::InitApply(decode(&spoiled("a"))));
        known.take(Event::InitApply(decode(&named("b"))));
        known.take(Event::InitApply(decode(&named("c"))));
        assert_eq!(known.take(Event::InitDone).map(|updates| updates.len()), Some(1), "c is new");
        assert_eq!(known.undecodable(), 1);

        let mended = known.take(Event::Apply(decode(&named("a")))).expect("no list");
        assert_eq!((mended.len(), known.undecodable()), (updates.len(), 0), "as it was");
        known.take(Event::Apply(decode(&spoiled("a"))));
        assert_eq!(known.take(Event::Delete(decode(&spoiled("a")))).map(|updates| updates.len()), Some(1));
        assert_eq!(known.undecodable(), 0);
        updates
    }
    assert!(matches!(&*watched::<Namespace>(), [Update::Namespace(name, None)] if &**name == "a"));
    let [Update::Policy(name, Some(closed))] = &*watched::<NetworkPolicy>() else { panic!("no policy") };
    assert_eq!(*closed, model::NetworkPolicy::unreadable(name.clone()));
    let [Update::ClusterPolicy(name, Some(closed))] = &*watched::<ClusterNetworkPolicy>() else {
        panic!("no policy")
    };
    assert_eq!(*closed, model::ClusterNetworkPolicy::unreadable(name.clone()));
    assert!(watched::<Pod>().is_empty(), "what was known of it is kept");
    assert!(watched::<Node>().is_empty(), "what was known of it is kept");
}

#[test]
fn a_pod_that_could_never_be_decoded_is_unknown_until_it_can_be() {
    let mut pods = Known::default();
    known(&mut pods, Event::Init);
    known(&mut pods, Event::InitApply(decode(&spoiled("a"))));
    known(&mut pods, Event::InitApply(pod("b")));
    assert_eq!(known(&mut pods, Event::InitDone), Some(vec!["b".to_owned()]));
    assert_eq!(known(&mut pods, Event::Apply(pod("a"))), Some(vec!["a".to_owned()]));
}

#[test]
fn what_a_list_lacks_beside_an_object_without_a_name_may_still_be_there() {
    for nameless in
        [Value::Null, json!(7), json!({"metadata": {"name": 7}}), json!({"metadata": {"uid": "u"}})]
    {
        let mut pods = Known::default();
        list(&mut pods, &["a", "b"]);
        known(&mut pods, Event::Init);
        known(&mut pods, Event::InitApply(pod("a")));
        known(&mut pods, Event::InitApply(decode(&nameless)));
        assert_eq!((known(&mut pods, Event::InitDone), pods.undecodable()), (Some(vec![]), 1), "{nameless}");
        assert_eq!(list(&mut pods, &["a"]), ["-b"], "{nameless}");
        assert_eq!(pods.undecodable(), 0);
    }
}

#[test]
fn one_item_that_cannot_be_decoded_leaves_the_list_and_the_event_readable() {
    let items = json!([named("a"), spoiled("b"), null, named("c")]);
    let list =
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": items});
    let list: ObjectList<Object<Pod>> = serde_json::from_str(&list.to_string()).expect("a list");
    assert_eq!(list.items.len(), 4);
    let spoiled = spoiled("b");
    let event = json!({"type": "MODIFIED", "object": spoiled}).to_string();
    let WatchEvent::Modified(object) =
        serde_json::from_str::<WatchEvent<Object<Pod>>>(&event).expect("an event")
    else {
        panic!("{event}")
    };
    // The watch goes on behind it.
    assert_eq!(object.resource_version().as_deref(), spoiled["metadata"]["resourceVersion"].as_str());
}
