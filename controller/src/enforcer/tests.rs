//! Policies that the kernel refuses, with the real kernel behind a layer that spoils what mentions them.

use std::sync::mpsc;

use policy_compiler::manifest;
use policy_compiler::model::{Cluster, Door, Doors, Labels, Namespace, ObjectName};
use policy_compiler::ruleset::SetId;
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::kernel::Kernel;
use crate::refusals::{PolicyContent, PolicyNews};
use crate::source::{Changes, Knowledge};

/// The longest that anything may take.
const BOUND: Duration = Duration::from_secs(20);

/// What the kernel is to refuse: transactions on this table that add something which mentions the text.
#[derive(Clone, Copy)]
struct Fault {
    table: TableFamily,
    text: &'static str,
    /// Whether the error names the chain that mentions it.
    named: bool,
}

/// The kernel, behind a layer that makes invalid what mentions something.
struct Spoiling {
    kernel: Kernel,
    faults: Vec<Fault>,
}

impl Spoiling {
    fn spoil(&self, transactions: &[Transaction]) -> Vec<Transaction> {
        let mut spoiled = transactions.to_vec();
        for transaction in &mut spoiled {
            for fault in self.faults.iter().filter(|fault| fault.table == transaction.table) {
                let adds = |operation: &Operation| {
                    matches!(operation, Operation::AddRule(..) | Operation::AddElements(..))
                        && format!("{operation:?}").contains(fault.text)
                };
                let Some(found) = transaction.operations.iter().position(adds) else { continue };
                match transaction.operations[found].clone() {
                    Operation::AddRule(chain, _) if fault.named => {
                        transaction.operations.insert(found, Operation::AddChain(chain, None));
                    }
                    _ => transaction.operations.insert(0, Operation::DeleteSet(SetId::read("no_such"))),
                }
            }
        }
        spoiled
    }
}

impl Nftables for Spoiling {
    fn read_all(&mut self) -> Result<Tables, kernel::Error> {
        self.kernel.read_all()
    }

    fn apply_all(&mut self, transactions: &[Transaction]) -> Result<(), kernel::Error> {
        let spoiled = self.spoil(transactions);
        self.kernel.apply_all(&spoiled)
    }

    fn check_all(&mut self, transactions: &[Transaction]) -> Result<(), kernel::Error> {
        let spoiled = self.spoil(transactions);
        self.kernel.check_all(&spoiled)
    }
}

/// The enforcer of a network namespace, and what is heard of it.
struct Scene {
    enforcer: Enforcer<Spoiling>,
    health: Health,
    metrics: Arc<Metrics>,
    events: Receiver<PolicyNews>,
    with_doors: bool,
}

impl Scene {
    fn new(faults: &[Fault], doors: Option<&Doors>) -> Self {
        let kernel = Spoiling { kernel: Kernel::open().unwrap(), faults: faults.to_vec() };
        let (health, metrics) = (Health::default(), Arc::new(Metrics::default()));
        let (sender, events) = tokio::sync::mpsc::channel(64);
        let refusals = Refusals::new(health.clone(), metrics.clone(), sender);
        let mut compiler = compiler(doors.is_some());
        if let Some(doors) = doors {
            compiler.put_doors(doors);
        }
        let enforcer = Enforcer::new(compiler, kernel, None, None, health.clone(), metrics.clone(), refusals);
        Self { enforcer, health, metrics, events, with_doors: doors.is_some() }
    }

    fn put(&mut self, updates: Vec<Update>) -> Result<(), kernel::Error> {
        let changes = Changes { updates, received: Instant::now(), knowledge: Knowledge::Complete };
        self.enforcer.take(Message::Changes(changes));
        self.enforcer.enforce()
    }

    /// Whether the kernel holds what these manifests ask for, with some policies closed.
    fn holds(&mut self, yaml: &str, closed: &[&str]) -> bool {
        let mut expected = compiler(false);
        expected.put_cluster(&cluster(yaml));
        expected.close_policies(&names(closed));
        expected.update();
        let expected = expected.ruleset();
        let table = self.enforcer.kernel.read().unwrap();
        table.is_some_and(|table| table.as_ruleset(expected) == *expected)
    }

    /// Why the agent is not ready, and how many policies are refused.
    fn refused(&self) -> (Option<String>, usize) {
        let text = self.metrics.text();
        let mut values = text.lines().filter_map(|line| line.strip_prefix("podfence_policies_refused "));
        (self.health.why_not_ready(), values.next().and_then(|value| value.parse().ok()).expect("a gauge"))
    }

    /// The events since the last call: a policy, and whether it is refused.
    fn events(&mut self) -> Vec<(String, bool)> {
        let mut events = Vec::new();
        while let Ok(PolicyNews { policy, content }) = self.events.try_recv() {
            events.push((policy.to_string(), content != PolicyContent::Enforced));
        }
        events.sort();
        events
    }

    #[track_caller]
    fn expect(&mut self, yaml: &str, closed: &[&str]) {
        let remarks = self.health.remarks();
        assert!(self.holds(yaml, closed), "{closed:?} are closed and the rest is enforced, not {remarks:?}");
        assert_eq!(self.refused(), (None, closed.len()));
        assert_eq!(remarks.is_some(), !closed.is_empty());
        let remarks = remarks.unwrap_or_default();
        assert!(closed.iter().all(|policy| remarks.contains(policy)), "{remarks}");
        assert_eq!(self.enforcer.compiler.door_ruleset().is_some(), self.with_doors);
    }
}

fn compiler(doors: bool) -> Compiler {
    let compiler = Compiler::new(Some("node-1"));
    if doors { compiler.with_doors() } else { compiler }
}

fn names(policies: &[&str]) -> Vec<PolicyName> {
    let name = |policy: &&str| match policy.split_once('/') {
        Some((namespace, name)) => ObjectName::new(namespace, name).into(),
        None => PolicyName::Cluster((*policy).into()),
    };
    policies.iter().map(name).collect()
}

fn cluster(yaml: &str) -> Cluster {
    let reading = manifest::parse(yaml.as_bytes(), "test").expect("YAML");
    assert!(reading.problems.is_empty(), "{:?}", reading.problems);
    let mut cluster = Cluster::new();
    cluster.insert_namespace(Namespace::new("shop", Labels::new()));
    for object in reading.objects {
        match object.resource {
            manifest::Resource::NetworkPolicy(policy) => cluster.insert_policy(policy.without_origins()),
            manifest::Resource::ClusterNetworkPolicy(policy) => {
                cluster.insert_cluster_policy(policy.without_origins());
            }
            manifest::Resource::Workload(workload) => cluster.insert_pod(workload.pod),
            other => panic!("{other:?}"),
        }
    }
    cluster
}

/// All objects of manifests, as a source hands them on.
fn updates(yaml: &str) -> Vec<Update> {
    let cluster = cluster(yaml);
    let namespaces = cluster.namespaces().iter();
    let namespaces = namespaces.map(|(name, it)| Update::Namespace(name.clone(), Some(it.clone())));
    let pods = cluster.pods().iter().map(|(name, it)| Update::Pod(name.clone(), Some(it.clone())));
    let policies = cluster.policies().iter();
    let policies = policies.map(|(name, it)| Update::Policy(name.clone(), Some(it.clone())));
    let of_cluster = cluster.cluster_policies().iter();
    let of_cluster = of_cluster.map(|(name, it)| Update::ClusterPolicy(name.clone(), Some(it.clone())));
    namespaces.chain(pods).chain(policies).chain(of_cluster).collect()
}

/// A policy of the namespace `shop` that lets pods with the label `app: PEER` reach port 80 of those with `app: SUBJECT`.
fn policy(name: &str, subject: &str, peer: &str) -> String {
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{namespace: shop, name: {name}}}
spec:
  podSelector: {{matchLabels: {{app: {subject}}}}}
  ingress:
    - from: [{{podSelector: {{matchLabels: {{app: {peer}}}}}}}]
      ports: [{{port: 80}}]
"
    )
}

/// A policy that leaves pods with the label `app: PEER` to the NetworkPolicies, and denies all others.
fn cluster_policy(name: &str, peer: &str) -> String {
    format!(
        "---
apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {{name: {name}}}
spec:
  tier: Admin
  priority: 10
  subject: {{namespaces: {{}}}}
  ingress:
    - action: Pass
      from: [{{pods: {{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: {peer}}}}}}}}}]
    - {{action: Deny, from: [{{namespaces: {{}}}}]}}
"
    )
}

/// Pods `a` to `f`, labelled so, on the node.
fn pods() -> String {
    let pod = |(index, name)| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{namespace: shop, name: {name}, labels: {{app: {name}}}}}
spec: {{nodeName: node-1, containers: []}}
status: {{phase: Running, podIPs: [{{ip: 10.0.0.{index}}}, {{ip: 'fd00::{index}'}}]}}
"
        )
    };
    (1..).zip(["a", "b", "c", "d", "e", "f"]).map(pod).collect()
}

fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let run = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
        test();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

const BAD: [Fault; 2] = [
    Fault { table: TableFamily::Inet, text: "ingress/shop/bad/0", named: true },
    Fault { table: TableFamily::Inet, text: "ingress/shop/bad/0", named: false },
];
const WORSE: Fault = Fault { table: TableFamily::Inet, text: "ingress/shop/worse/0", named: false };

/// Good policies on either side of bad ones.
fn good() -> String {
    let good = ["c", "d", "e", "f"].map(|subject| policy(&format!("good-{subject}"), subject, "a"));
    pods() + &good.concat() + &policy("also", "a", "b")
}

#[test]
fn a_policy_that_the_kernel_refuses_is_closed_and_the_rest_enforced() {
    for (one, other) in [(BAD[0], None), (BAD[1], None), (BAD[0], Some(WORSE)), (BAD[1], Some(WORSE))] {
        in_namespace(move || {
            let faults: Vec<_> = std::iter::once(one).chain(other).collect();
            let mut bad = policy("bad", "a", "c");
            let mut closed = vec!["shop/bad"];
            if other.is_some() {
                bad += &policy("worse", "d", "b");
                closed.push("shop/worse");
            }
            let expected: Vec<_> = closed.iter().map(|policy| ((*policy).to_owned(), true)).collect();

            let mut at_start = Scene::new(&faults, None);
            let all = good() + &bad;
            at_start.put(updates(&all)).unwrap();
            at_start.expect(&all, &closed);
            assert_eq!(at_start.events(), expected);
            drop(at_start);

            let mut later = Scene::new(&faults, None);
            later.put(updates(&good())).unwrap();
            later.expect(&good(), &[]);
            let change = bad + &policy("new", "b", "f");
            later.put(updates(&change)).unwrap();
            later.expect(&(good() + &change), &closed);
            assert_eq!(later.events(), expected);
        });
    }
}

#[test]
fn a_cluster_network_policy_that_the_kernel_refuses_is_closed_too() {
    for named in [true, false] {
        in_namespace(move || {
            let fault = Fault { table: TableFamily::Inet, text: "ingress/Admin/guard/0/pass", named };
            let mut scene = Scene::new(&[fault], None);
            scene.put(updates(&good())).unwrap();
            scene.put(updates(&cluster_policy("guard", "a"))).unwrap();
            let all = good() + &cluster_policy("guard", "a");
            scene.expect(&all, &["guard"]);
            assert_eq!(scene.events(), [("ClusterNetworkPolicy guard".to_owned(), true)]);

            scene.enforcer.kernel.faults.clear();
            scene.put(updates(&cluster_policy("guard", "b"))).unwrap();
            scene.expect(&(good() + &cluster_policy("guard", "b")), &[]);
            assert_eq!(scene.events(), [("ClusterNetworkPolicy guard".to_owned(), false)]);
        });
    }
}

#[test]
fn what_comes_after_a_refused_policy_is_enforced_as_ever() {
    in_namespace(|| {
        let mut scene = Scene::new(&BAD[..1], None);
        let mut all = good() + &policy("bad", "a", "c");
        scene.put(updates(&all)).unwrap();
        for (name, subject) in [("later", "b"), ("latest", "c")] {
            let change = policy(name, subject, "e");
            scene.put(updates(&change)).unwrap();
            all += &change;
            scene.expect(&all, &["shop/bad"]);
        }
        assert_eq!(scene.events(), [("shop/bad".to_owned(), true)], "it is published once");
    });
}

#[test]
fn a_refused_policy_is_enforced_when_it_has_become_good() {
    in_namespace(|| {
        // The rule for pods that are labelled `c` is what the kernel refuses.
        let mut scene = Scene::new(&[Fault { text: "10.0.0.3", ..BAD[1] }], None);
        let good = pods() + &policy("good", "b", "a");
        scene.put(updates(&(good.clone() + &policy("bad", "a", "c")))).unwrap();
        scene.expect(&(good.clone() + &policy("bad", "a", "c")), &["shop/bad"]);
        scene.put(updates(&policy("bad", "a", "d"))).unwrap();
        scene.expect(&(good.clone() + &policy("bad", "a", "d")), &[]);
        assert_eq!(scene.events(), [("shop/bad".to_owned(), false), ("shop/bad".to_owned(), true)]);
    });
}

#[test]
fn a_refused_policy_that_is_deleted_leaves_nothing_behind() {
    in_namespace(|| {
        let mut scene = Scene::new(&BAD, None);
        scene.put(updates(&(good() + &policy("bad", "a", "c")))).unwrap();
        scene.put(vec![Update::Policy(ObjectName::new("shop", "bad"), None)]).unwrap();
        scene.expect(&good(), &[]);
        assert_eq!(scene.enforcer.refusals.retry_at(), None);
    });
}

#[test]
fn a_refused_policy_is_tried_again_when_the_kernel_has_changed() {
    in_namespace(|| {
        let mut scene = Scene::new(&BAD, None);
        let all = good() + &policy("bad", "a", "c");
        scene.put(updates(&all)).unwrap();
        scene.expect(&all, &["shop/bad"]);
        scene.enforcer.kernel.faults.clear();
        let Scene { enforcer, health, metrics, .. } = scene;
        let (sender, messages) = mpsc::channel();
        let enforcing = std::thread::spawn(move || enforcer.run(&messages));
        sender.send(Message::TableChanged).unwrap();
        let begin = Instant::now();
        while health.remarks().is_some() {
            assert!(begin.elapsed() < BOUND, "{:?}", health.remarks());
            std::thread::yield_now();
        }
        assert!(metrics.text().contains("podfence_policies_refused 0"));
        sender.send(Message::Stop).unwrap();
        enforcing.join().unwrap();
        let mut expected = compiler(false);
        expected.put_cluster(&cluster(&all));
        expected.update();
        let table = Kernel::open().unwrap().read().unwrap().unwrap();
        assert_eq!(table.as_ruleset(expected.ruleset()), *expected.ruleset());
    });
}

#[test]
fn a_refusal_that_is_no_policys_fault_makes_the_agent_not_ready() {
    in_namespace(|| {
        let everywhere = Fault { table: TableFamily::Inet, text: "ingress_isolate", named: false };
        let mut scene = Scene::new(&[everywhere], None);
        let all = good() + &policy("bad", "a", "c");
        scene.put(updates(&all)).unwrap_err();
        let (why_not_ready, refused) = scene.refused();
        assert!(why_not_ready.is_some_and(|reason| reason.contains("no_such")));
        assert_eq!((refused, scene.events()), (0, vec![]));
        scene.enforcer.kernel.faults.clear();
        scene.enforcer.enforce().unwrap();
        scene.expect(&all, &[]);
    });
}

/// The pod `a` behind a device.
fn door(device: &str) -> Doors {
    let device = device.into();
    let door = Door { device, bridged: true, link_address: None, link_local: BTreeSet::new() };
    Doors { of_pods: [(ObjectName::new("shop", "a"), door)].into(), ..Doors::default() }
}

#[test]
fn what_is_wrong_at_the_doors_is_found_there_and_keeps_no_policy_behind() {
    let block = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: block}
spec:
  podSelector: {matchLabels: {app: a}}
  ingress: [{from: [{ipBlock: {cidr: 192.0.2.9/32}}], ports: [{port: 7, protocol: UDP}]}]
";
    // Both tables have the block, and that of the doors alone is refused.
    let of_block = Fault { table: TableFamily::Netdev, text: "192.0.2.9", named: false };
    in_namespace(move || {
        let mut scene = Scene::new(&[of_block], Some(&door("lo")));
        let all = good() + block;
        scene.put(updates(&all)).unwrap();
        scene.expect(&all, &["shop/block"]);
    });
    in_namespace(move || {
        let at_doors = Fault { table: TableFamily::Netdev, text: "door_rest/lo", named: false };
        let mut scene = Scene::new(&[BAD[1], at_doors], Some(&door("lo")));
        let all = good() + &policy("bad", "a", "c");
        scene.put(updates(&all)).unwrap_err();
        assert!(scene.holds(&all, &["shop/bad"]), "the policies do not wait for the doors");
        assert_eq!(scene.refused().1, 1);
    });
}
