//! A change of a file changes what it must, in one transaction, and nothing else.

use anyhow::{Context, Result, ensure};
use lab::testbed::{BOUND, Testbed, policy, status, wait_until};
use lab::{Outcome, Pod, Probe, Protocol, Topology, Underlay};
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
    #[expect(clippy::type_complexity, reason = "a table that is read once")]
    let steps: [(&str, &dyn Fn() -> Result<()>, Outcome); 8] = [
        ("a pod gets a label", &|| labels(&[("trusted", "yes")]), yes),
        ("a pod loses a label", &|| labels(&[]), no),
        ("a policy comes", &|| scene.testbed.put(&guests(json!({"namespaceSelector": {}}))), yes),
        ("a policy changes", &|| scene.testbed.put(&friends), no),
        ("a namespace gets a label", &|| namespace(json!({"friend": "yes"})), yes),
        ("a namespace loses a label", &|| namespace(json!({})), no),
        (
            "a policy has another block",
            &|| scene.testbed.put(&guests(json!({"ipBlock": {"cidr": "10.0.0.0/8"}}))),
            yes,
        ),
        ("a policy goes", &|| scene.testbed.delete(&friends), no),
    ];
    let probe = Probe::new(&scene.other, to_db, PORT, Protocol::Udp);
    let mut transactions = agent.counter("podfence_transactions_total")?;
    for (what, change, outcome) in steps {
        change()?;
        scene.testbed.lab.wait_for(&probe, outcome, BOUND).context(what)?;
        transactions += 1;
        wait_until(BOUND, || {
            let now = agent.counter("podfence_transactions_total")?;
            ensure!(now >= transactions, "{now} transactions, not {transactions}: {what}");
            Ok(())
        })?;
        scene.testbed.wait_in_step().context(what)?;
        assert_eq!(agent.counter("podfence_transactions_total")?, transactions, "{what}");
        assert_eq!(scene.untouched()?, (allowed.clone(), denied.clone()), "{what}");
    }
    assert_eq!(agent.counter("podfence_repairs_total")?, 0);
    assert_eq!(agent.counter("podfence_transaction_failures_total")?, 0);
    Ok(())
}

/// What changes nothing on the node makes no transaction.
#[test]
fn what_does_not_concern_the_node_is_no_transaction() -> Result<()> {
    let scene = Scene::raise()?;
    let agent = scene.testbed.start_agent("node")?;
    let transactions = agent.counter("podfence_transactions_total")?;
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
    assert_eq!(agent.counter("podfence_transactions_total")?, transactions + 1);
    Ok(())
}
