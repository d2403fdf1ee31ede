//! A change of a file changes what it must, in one transaction, and nothing else.

use anyhow::{Context, Result};
use lab::testbed::{BOUND, Testbed, policy, status};
use lab::{Outcome, Pod, Probe, Prober, Protocol, Topology, Underlay};
use serde_json::{Value, json};

const PORT: u16 = 8080;

/// The web is reached by the client, whatever happens, and the database by whom the test lets.
struct Scene {
    testbed: Testbed,
    client: Pod,
    other: Pod,
    web: Pod,
    db: Pod,
}

impl Scene {
    fn raise() -> Result<Self> {
        let mut testbed = Testbed::new(Topology::Routed, Underlay::HostGateway, &["node"])?;
        let mut pod = |name| testbed.pod("node", name, &[PORT]);
        let (client, other) = (pod("shop/client")?, pod("other/other")?);
        let (web, db) = (pod("shop/web")?, pod("shop/db")?);
        let scene = Self { testbed, client, other, web, db };
        scene.testbed.put(&ingress("web", &json!({"podSelector": {"matchLabels": {"app": "client"}}})))?;
        let trusted = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"trusted": "yes"}}});
        scene.testbed.put(&ingress("db", &trusted))?;
        Ok(scene)
    }

    /// What the policy `web` has counted: allowed, and denied.
    fn untouched(&self) -> Result<(Value, Value)> {
        let status = status(self.web.node())?;
        let find = |list: &str, key: &str, value: &str| {
            let entries = status[list].as_array().into_iter().flatten();
            let mut found = entries.filter(|entry| entry[key] == value);
            found.next().cloned().with_context(|| format!("no {value} in {status:#}"))
        };
        Ok((find("rules", "policy", "shop/web")?, find("groups", "isolation", "isolated by shop/web")?))
    }
}

/// Lets a peer reach the pods of an app.
fn ingress(app: &str, peer: &Value) -> Value {
    policy("shop", app, &json!({"podSelector": {"matchLabels": {"app": app}}, "ingress": [{"from": [peer]}]}))
}

/// What is done, and what becomes of the way from the other pod to the database.
type Step<'a> = (&'static str, &'a (dyn Fn() -> Result<()> + 'a), Outcome);

#[test]
fn one_transaction_and_the_counters_of_other_rules_stay() -> Result<()> {
    let scene = Scene::raise()?;
    let agent = scene.testbed.start_agent("node")?;
    let (to_web, to_db) = (scene.web.ipv4(), scene.db.ipv4());
    scene.testbed.lab.probe(&[
        Probe::new(&scene.client, to_web, PORT, Protocol::Tcp),
        Probe::new(&scene.client, to_web, PORT, Protocol::Udp),
        Probe::new(&scene.other, to_web, PORT, Protocol::Udp),
    ])?;
    let (allowed, denied) = scene.untouched()?;
    // A datagram without an answer is sent twice.
    assert_eq!((&allowed["allowed"]["packets"], &denied["denied"]["packets"]), (&json!(2), &json!(2)));

    let labels = |labels: &[(&str, &str)]| scene.testbed.put(&scene.other.manifest(labels, &[]));
    let namespace = |labels: Value| {
        let metadata = json!({"name": "other", "labels": labels});
        scene.testbed.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
    };
    let guests = |peer: Value| {
        let spec = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [peer]}]});
        policy("shop", "guests", &spec)
    };
    let friends = guests(json!({"namespaceSelector": {"matchLabels": {"friend": "yes"}}}));
    let [yes, no] = [Outcome::Allowed, Outcome::Denied];
    let put = |object: Value| scene.testbed.put(&object);
    let steps: [Step<'_>; 8] = [
        ("a pod gets a label", &|| labels(&[("trusted", "yes")]), yes),
        ("a pod loses a label", &|| labels(&[]), no),
        ("a policy comes", &|| put(guests(json!({"namespaceSelector": {}}))), yes),
        ("a policy changes", &|| put(friends.clone()), no),
        ("a namespace gets a label", &|| namespace(json!({"friend": "yes"})), yes),
        ("a namespace loses a label", &|| namespace(json!({})), no),
        ("a policy gets a block", &|| put(guests(json!({"ipBlock": {"cidr": "10.0.0.0/8"}}))), yes),
        ("a policy goes", &|| scene.testbed.delete(&friends), no),
    ];
    let probe = Probe::new(&scene.other, to_db, PORT, Protocol::Udp);
    let mut transactions = agent.counter("transactions")?;
    for (what, change, outcome) in steps {
        change()?;
        scene.testbed.lab.wait_for(&probe, outcome, BOUND).context(what)?;
        transactions += 1;
        agent.wait_for_counter("transactions", transactions, BOUND).context(what)?;
        scene.testbed.wait_in_step().context(what)?;
        assert_eq!(agent.counter("transactions")?, transactions, "{what}");
        assert_eq!(scene.untouched()?, (allowed.clone(), denied.clone()), "{what}");
    }
    assert_eq!(agent.counter("repairs")?, 0);
    assert_eq!(agent.counter("transaction_failures")?, 0);
    Ok(())
}

/// What changes nothing on the node makes no transaction.
#[test]
fn what_does_not_concern_the_node_is_no_transaction() -> Result<()> {
    let scene = Scene::raise()?;
    let agent = scene.testbed.start_agent("node")?;
    let transactions = agent.counter("transactions")?;
    let elsewhere = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "elsewhere", "labels": {"app": "web"}},
        "spec": {"nodeName": "another", "containers": [{"name": "main"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.244.9.2"}]},
    });
    scene.testbed.put(&elsewhere)?;
    scene.testbed.put(&policy(
        "shop",
        "nobody",
        &json!({"podSelector": {"matchLabels": {"app": "nobody"}}}),
    ))?;
    scene.testbed.put(&ingress("web", &json!({"podSelector": {"matchLabels": {"app": "client"}}})))?;
    // This one does concern it, and comes last.
    scene.testbed.put(&ingress("db", &json!({"podSelector": {}})))?;
    let probe = Probe::new(&scene.client, scene.db.ipv4(), PORT, Protocol::Udp);
    scene.testbed.lab.wait_for(&probe, Outcome::Allowed, BOUND)?;
    scene.testbed.wait_in_step()?;
    assert_eq!(agent.counter("transactions")?, transactions + 1);
    Ok(())
}

/// How often the policies change under the packets' feet.
const CHANGES: usize = 300;

/// Every change makes other groups, identities and rules for the same pods, and none changes a verdict.
#[test]
fn a_packet_that_meets_a_change_is_judged_right() -> Result<()> {
    let scene = Scene::raise()?;
    let agent = scene.testbed.start_agent("node")?;
    let to_web = |from: &Pod, address| Probe::new(from, address, PORT, Protocol::Udp);
    let (ipv4, ipv6) = (scene.web.ipv4(), scene.web.ipv6());
    let allowed = [to_web(&scene.client, ipv4), to_web(&scene.client, ipv6)];
    let denied = [to_web(&scene.other, ipv4), to_web(&scene.other, ipv6), to_web(&scene.db, ipv4)];
    let prober = Prober::start(&allowed, &denied)?;
    for change in 0..CHANGES {
        let ports = json!([{"port": 1000 + change}, {"port": 2000 + change, "protocol": "UDP"}]);
        let from_client = json!({"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]});
        let from_all = json!({"from": [{"namespaceSelector": {}}], "ports": ports});
        let rules = if change % 2 == 0 {
            json!([from_client, from_all])
        } else {
            json!([from_client, {"ports": ports}])
        };
        let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": rules});
        let before = agent.counter("transactions")?;
        scene.testbed.put(&policy("shop", "web", &spec))?;
        agent.wait_for_counter("transactions", before + 1, BOUND)?;
    }
    let totals = prober.stop()?;
    assert_eq!((totals.leaks, totals.wrong_denials), (0, 0), "{totals:?}");
    Ok(())
}

/// How often an address goes from one pod to another and back.
const MOVES: usize = 5;

/// A pod is deleted, and its address is given to another that has fewer rights.
#[test]
fn an_address_that_moves_brings_no_rights_along() -> Result<()> {
    let scene = Scene::raise()?;
    let _agent = scene.testbed.start_agent("node")?;
    let Scene { testbed, client, other, web, .. } = &scene;
    let to_web = |from: &Pod| [web.ipv4(), web.ipv6()].map(|to| Probe::new(from, to, PORT, Protocol::Udp));
    let objects = || [client.manifest(&[("app", "client")], &[]), other.manifest(&[("app", "other")], &[])];
    let wait_for_all = |probes: [Probe; 2], outcome| {
        probes.iter().try_for_each(|probe| testbed.lab.wait_for(probe, outcome, BOUND).map(drop))
    };
    for _ in 0..MOVES {
        let [before, _] = objects();
        testbed.delete(&before)?;
        wait_for_all(to_web(client), Outcome::Denied)?;
        testbed.lab.move_addresses(client, other)?;
        let prober = Prober::start(&[], &to_web(other))?;
        let [_, after] = objects();
        testbed.put(&after)?;
        testbed.wait_in_step()?;
        let totals = prober.stop()?;
        assert_eq!(totals.leaks, 0, "{totals:?}");
        assert!(totals.denied > 0, "{totals:?}");

        testbed.delete(&after)?;
        testbed.lab.move_addresses(other, client)?;
        testbed.put(&objects()[0])?;
        wait_for_all(to_web(client), Outcome::Allowed)?;
    }
    Ok(())
}
