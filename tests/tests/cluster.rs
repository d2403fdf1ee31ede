//! The agent beside a real API server: the kernel holds what the compiler makes of the server's objects.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use controller::kernel::Kernel;
use lab::testbed::{listen, namespace};
use lab::{
    Agent, ControlPlane, Lab, Node, Pod, Probe, Prober, Protocol, Topology, Treatment, Underlay, User,
};
use policy_compiler::compile::Compiler;
use policy_compiler::manifest;
use policy_compiler::ruleset::{Ruleset, Transaction};
use serde_json::{Value, json};

/// The longest that anything may take.
const BOUND: Duration = Duration::from_secs(30);

/// A node of a cluster, and what the API server has been told of that cluster.
struct Cluster {
    plane: ControlPlane,
    lab: Lab,
    node: Node,
    /// Whether the agent is to start strictly.
    strict: bool,
    /// By kind, namespace and name.
    objects: BTreeMap<[String; 3], Value>,
}

impl Cluster {
    /// `None`, and a word about it, where no API server can be had.
    fn new() -> Result<Option<Self>> {
        let mut lab = Lab::new(Topology::Routed, Underlay::HostGateway)?;
        let node = lab.node("node-1")?;
        let Some(plane) = ControlPlane::beside(&lab)? else { return Ok(None) };
        Ok(Some(Self { plane, lab, node, strict: false, objects: BTreeMap::new() }))
    }

    fn start_agent(&self, user: User) -> Result<Agent> {
        let kubeconfig = self.plane.kubeconfig(user)?;
        let source = ["--kubeconfig".as_ref(), kubeconfig.as_os_str()];
        let strict = self.strict.then_some("--strict-start".as_ref());
        Agent::start_with(&self.node, source.into_iter().chain(strict))
    }

    fn ready_agent(&self) -> Result<Agent> {
        let mut agent = self.start_agent(User::Agent)?;
        agent.wait_ready(BOUND)?;
        Ok(agent)
    }

    /// Writes an object as it is to be now, its status too if it has one.
    fn put(&mut self, object: Value) -> Result<()> {
        self.plane.api().put(&object)?;
        self.objects.insert(key(&object), object);
        Ok(())
    }

    fn delete(&mut self, object: &Value) -> Result<()> {
        self.plane.api().delete(object)?;
        self.objects.remove(&key(object)).context("it was never put")?;
        Ok(())
    }

    fn expected(&self) -> Result<Ruleset> {
        let list = json!({"apiVersion": "v1", "kind": "List",
                          "items": self.objects.values().collect::<Vec<_>>()});
        let reading = manifest::parse(list.to_string().as_bytes(), "objects")?;
        let (manifests, problems) = manifest::assemble([reading]);
        ensure!(problems.is_empty(), "{problems:?}");
        let name = self.node.name();
        let mut compiler = if self.strict { Compiler::strict(name) } else { Compiler::new(Some(name)) };
        compiler.put_cluster(&manifests.cluster);
        compiler.update();
        Ok(compiler.ruleset().clone())
    }

    /// What is to be done to the kernel's table before it holds the expected one.
    fn difference(&self) -> Result<Transaction> {
        let expected = self.expected()?;
        let table = self.node.namespace().run(|| Ok(Kernel::open()?.read()?))?;
        Ok(match table {
            Some(table) => Transaction::between(&table.as_ruleset(&expected), &expected),
            None => Transaction::replace(&expected),
        })
    }

    /// Waits until the kernel holds what the objects say.
    fn wait_in_step(&self, agent: &Agent) -> Result<()> {
        let begin = Instant::now();
        loop {
            let difference = self.difference()?;
            if difference.is_empty() {
                return Ok(());
            }
            ensure!(begin.elapsed() < BOUND, "the kernel lacks:\n{difference:#?}\n{}", agent.log()?);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn key(object: &Value) -> [String; 3] {
    [&object["kind"], &object["metadata"]["namespace"], &object["metadata"]["name"]].map(ToString::to_string)
}

/// A running pod of the namespace `shop`, with the port `web`.
fn pod(name: &str, node: &str, labels: &Value, address: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "labels": labels},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "main", "image": "example.invalid/none",
                            "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}]}],
        },
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

/// Lets those reach the port `web` of `app: web` that a peer names.
fn policy(name: &str, from: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [from], "ports": [{"port": "web", "protocol": "TCP"}]}],
        },
    })
}

/// A small shop: a web server on the node, its client on another one, and a policy between the two.
fn shop(cluster: &mut Cluster) -> Result<()> {
    cluster.put(namespace("shop", &json!({"team": "a"})))?;
    cluster.put(pod("web", "node-1", &json!({"app": "web"}), "10.244.1.2"))?;
    cluster.put(pod("client", "node-2", &json!({"app": "client"}), "10.244.2.2"))?;
    cluster.put(policy("clients", &json!({"podSelector": {"matchLabels": {"app": "client"}}})))
}

#[test]
fn every_change_reaches_the_kernel() -> Result<()> {
    let Some(mut cluster) = Cluster::new()? else { return Ok(()) };
    shop(&mut cluster)?;
    let agent = cluster.ready_agent()?;
    ensure!(cluster.difference()?.is_empty(), "the agent is ready before the kernel is:\n{}", agent.log()?);

    let another = pod("another", "node-1", &json!({"app": "web"}), "10.244.1.3");
    let teams = policy("teams", &json!({"namespaceSelector": {"matchLabels": {"team": "b"}}}));
    let puts = [
        another.clone(),
        teams.clone(),
        namespace("shop", &json!({"team": "b"})),
        pod("client", "node-2", &json!({"app": "other"}), "10.244.2.2"),
        policy("clients", &json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.244.2.0/24"]}})),
        pod("web", "node-1", &json!({"app": "web"}), "fd44:0:0:1::2"),
    ];
    for object in puts {
        let before = cluster.expected()?;
        cluster.put(object.clone())?;
        ensure!(cluster.expected()? != before, "decides about nothing: {object}");
        cluster.wait_in_step(&agent).with_context(|| object.to_string())?;
    }

    let mut finished = another.clone();
    finished["status"]["phase"] = json!("Succeeded");
    cluster.put(finished)?;
    cluster.put(pod("heir", "node-1", &json!({"app": "client"}), "10.244.1.3"))?;
    cluster.wait_in_step(&agent).context("a finished pod leaves its address to another")?;

    for object in [another, teams, policy("clients", &Value::Null)] {
        cluster.delete(&object)?;
        cluster.wait_in_step(&agent).with_context(|| format!("deleted: {object}"))?;
    }
    Ok(())
}

/// Nodes that are cut off from the API server while it serves others.
fn cut_off(lab: &Lab) -> Result<()> {
    lab.world().namespace().nft(
        "table inet cut { chain input { type filter hook input priority 0; \
         iifname lan tcp dport 6443 reject with tcp reset; }; }",
    )
}

#[test]
fn an_api_server_that_is_away_changes_nothing() -> Result<()> {
    let Some(mut cluster) = Cluster::new()? else { return Ok(()) };
    shop(&mut cluster)?;
    cluster.put(pod("doomed", "node-1", &json!({"app": "web"}), "10.244.1.4"))?;
    cluster.put(policy("doomed", &json!({"podSelector": {"matchLabels": {"app": "web"}}})))?;
    let mut agent = cluster.ready_agent()?;
    let transactions = agent.counter("transactions")?;

    // Away and back: nothing has changed, so nothing is done.
    cluster.plane.api_server.kill();
    wait_for("failures are counted", || Ok(agent.counter("source_failures")? >= 3))?;
    ensure!(cluster.difference()?.is_empty(), "what was enforced stays");
    assert_eq!(agent.get("/readyz")?.0, 200, "it still enforces");
    cluster.plane.api_server.restart()?;
    cluster.plane.wait_ready()?;
    let mut nobodys = policy("nobodys", &json!({"podSelector": {}}));
    nobodys["spec"]["podSelector"] = json!({"matchLabels": {"app": "nothing"}});
    for bystander in [nobodys, namespace("empty", &json!({})), pod("far", "node-2", &json!({}), "10.244.2.9")]
    {
        let before = cluster.expected()?;
        cluster.put(bystander)?;
        ensure!(cluster.expected()? == before, "it decides about something");
    }
    wait_for("all kinds are followed again", || {
        let log = agent.log()?;
        let followed = |kind| log.contains(&format!("{kind} are followed again"));
        Ok(["namespaces", "pods", "networkpolicies"].into_iter().all(followed))
    })?;
    ensure!(agent.counter("transactions")? <= transactions, "flapping:\n{}", agent.log()?);

    // What is deleted while the agent cannot hear of it is gone when it can.
    cut_off(&cluster.lab)?;
    cluster.plane.api_server.restart()?;
    cluster.plane.wait_ready()?;
    cluster.delete(&pod("doomed", "", &Value::Null, ""))?;
    cluster.delete(&policy("doomed", &Value::Null))?;
    cluster.put(pod("web", "node-1", &json!({"app": "web"}), "10.244.1.5"))?;
    cluster.lab.world().namespace().nft("delete table inet cut")?;
    cluster.wait_in_step(&agent)?;

    // An agent that starts while there is no API server leaves the kernel as it is, and says why.
    agent.kill();
    cluster.plane.api_server.kill();
    agent = cluster.start_agent(User::Agent)?;
    wait_for("the agent says why it is not ready", || {
        Ok(agent.get("/readyz").is_ok_and(|(code, reason)| {
            code == 503 && reason.contains("cannot list pods: Connection refused")
        }))
    })?;
    ensure!(cluster.difference()?.is_empty(), "what the agent before it has enforced stays");
    cluster.plane.api_server.restart()?;
    cluster.plane.wait_ready()?;
    agent.wait_ready(BOUND)?;
    ensure!(cluster.difference()?.is_empty());
    ensure!(agent.counter("transactions")? < 1, "the kernel was in step:\n{}", agent.log()?);
    Ok(())
}

/// Everything that the agent hears objects from dies and comes back, and the objects change meanwhile.
#[test]
fn packets_do_not_notice_that_the_control_plane_dies() -> Result<()> {
    let Some(mut cluster) = Cluster::new()? else { return Ok(()) };
    let node = cluster.node.clone();
    let [client, stranger, web] = ["client", "stranger", "web"].map(|name| {
        let pod = cluster.lab.pod(&node, &format!("shop/{name}"))?;
        listen(&pod, &[8080])?;
        Ok::<_, anyhow::Error>(pod)
    });
    let (client, stranger, web) = (client?, stranger?, web?);
    cluster.put(namespace("shop", &json!({})))?;
    let port = [("web", Protocol::Tcp, 8080)];
    for (pod, app) in [(&client, "client"), (&stranger, "stranger"), (&web, "web")] {
        cluster.put(pod.manifest(&[("app", app)], &port))?;
    }
    cluster.put(policy("web", &json!({"podSelector": {"matchLabels": {"app": "client"}}})))?;
    let mut agent = cluster.ready_agent()?;

    let to_web = |from: &Pod| [web.ipv4(), web.ipv6()].map(|to| Probe::new(from, to, 8080, Protocol::Tcp));
    let prober = Prober::start(&to_web(&client), &to_web(&stranger))?;
    for round in 0..3 {
        cluster.plane.etcd.kill();
        cluster.plane.api_server.kill();
        wait_for("failures are counted", || Ok(agent.counter("source_failures")? >= 3))?;
        if round == 1 {
            agent.kill();
            agent = cluster.start_agent(User::Agent)?;
            agent.wait_unready("cannot list pods", BOUND)?;
        }
        cluster.plane.etcd.restart()?;
        cluster.plane.api_server.restart()?;
        cluster.plane.wait_ready()?;
        let team = format!("team-{round}");
        cluster.put(stranger.manifest(&[("app", "stranger"), ("team", &team)], &port))?;
        cluster
            .put(policy(&team, &json!({"podSelector": {"matchLabels": {"app": "client", "team": team}}})))?;
        cluster.wait_in_step(&agent)?;
    }
    let totals = prober.stop()?;
    assert_eq!((totals.leaks, totals.wrong_denials), (0, 0), "{totals:?}");
    assert!(totals.allowed.min(totals.denied) > 1000, "{totals:?}");
    Ok(())
}

#[test]
fn an_agent_without_rights_says_which_it_lacks() -> Result<()> {
    let Some(mut cluster) = Cluster::new()? else { return Ok(()) };
    shop(&mut cluster)?;
    let agent = cluster.start_agent(User::Stranger)?;
    let policies = "cannot list networkpolicies: networkpolicies.networking.k8s.io is forbidden: User \
                    \"stranger\" cannot list resource \"networkpolicies\" in API group \
                    \"networking.k8s.io\" at the cluster scope";
    let nodes = "cannot list nodes: nodes";
    wait_for("the agent says why it is not ready", || {
        let answer = agent.get("/readyz");
        // Its node is not what it waits for, but what it says all the same.
        let waits = answer
            .is_ok_and(|(code, reason)| code == 503 && reason.contains(policies) && !reason.contains(nodes));
        Ok(waits && agent.log()?.contains(nodes))
    })
    .with_context(|| agent.log().unwrap_or_default())?;
    drop(agent);

    let mut agent = cluster.start_agent(User::AgentWithCertificate)?;
    agent.wait_ready(BOUND)?;
    ensure!(cluster.difference()?.is_empty());
    Ok(())
}

#[test]
fn the_api_server_says_what_strict_start_guards() -> Result<()> {
    let Some(mut cluster) = Cluster::new()? else { return Ok(()) };
    cluster.strict = true;
    shop(&mut cluster)?;
    let other = cluster.lab.node("node-2")?;
    cluster.put(other.manifest())?;
    let own = cluster.node.manifest();
    let mut without = own.clone();
    without["spec"] = json!({});
    cluster.put(without)?;
    let mut agent = cluster.start_agent(User::Agent)?;
    agent.wait_unready("strict start has nothing to guard", BOUND)?;
    cluster.wait_in_step(&agent).context("the policies are enforced all the same")?;

    cluster.put(own)?;
    agent.wait_ready(BOUND)?;
    cluster.wait_in_step(&agent)?;
    cluster.delete(&pod("web", "", &Value::Null, ""))?;
    cluster.wait_in_step(&agent)
}

#[test]
fn the_node_gets_an_event_of_each_problem_of_its_data_path() -> Result<()> {
    let Some(mut cluster) = Cluster::new()? else { return Ok(()) };
    shop(&mut cluster)?;
    let events = |plane: &ControlPlane| -> Result<Vec<String>> {
        let all = plane.api().get("/api/v1/events?fieldSelector=involvedObject.kind=Node")?;
        let items = all["items"].as_array().context("no list")?;
        let fields = |event: &Value| {
            let (node, reason) = (&event["involvedObject"]["name"], &event["reason"]);
            format!("{node} {reason} {}", event["message"])
        };
        Ok(items.iter().map(fields).collect())
    };
    let mut agent = cluster.ready_agent()?;
    let mut expected = Vec::new();
    let problems = [("a", "ipv4/ip_forward", "10.244.1.3"), ("b", "ipv6/conf/all/forwarding", "fd44::3")];
    for (name, parameter, address) in problems {
        cluster.node.namespace().sysctl(&format!("{parameter} 0"))?;
        // A pod that comes is reason enough to look again.
        cluster.put(pod(name, "node-1", &json!({}), address))?;
        let parameter = format!("net.{}=1", parameter.replace('/', "."));
        agent.wait_unready(&parameter, BOUND)?;
        expected.push(parameter);
        wait_for("the node has an event of each problem", || {
            Ok(events(&cluster.plane)?.len() >= expected.len())
        })
        .with_context(|| agent.log().unwrap_or_default())?;
    }
    // The first problem is found again with the second, and has been told already.
    let events = events(&cluster.plane)?;
    assert_eq!(events.len(), 2, "{events:#?}");
    for parameter in expected {
        let of_problem = |event: &&String| {
            event.starts_with("\"node-1\" \"ForwardingDisabled\"") && event.contains(&parameter)
        };
        assert_eq!(events.iter().filter(of_problem).count(), 1, "{parameter}: {events:#?}");
    }
    Ok(())
}

fn wait_for(what: &str, condition: impl Fn() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !condition()? {
        ensure!(begin.elapsed() < BOUND, "not within {BOUND:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A node name that is wrong must not look like a node without pods: nothing would be isolated.
#[test]
fn a_node_name_that_nothing_has_is_never_ready() -> Result<()> {
    let Some(mut cluster) = Cluster::new()? else { return Ok(()) };
    shop(&mut cluster)?;
    cluster.put(cluster.node.manifest())?;
    drop(cluster.ready_agent()?);

    let kubeconfig = cluster.plane.kubeconfig(User::Agent)?;
    let source = ["--kubeconfig".as_ref(), kubeconfig.as_os_str()];
    let named = |name: &str| Agent::start_as(&cluster.node, name, source);
    let mut agent = named("node-1.example.org")?;
    agent.wait_unready("no Node is named node-1.example.org", BOUND)?;
    ensure!(cluster.difference()?.is_empty(), "the agent with the wrong name has changed the table");
    drop(agent);

    // A name that is late: the Node comes, and the agent is ready.
    let mut agent = named("node-3")?;
    agent.wait_unready("no Node is named node-3", BOUND)?;
    cluster.plane.api().put(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-3"}}))?;
    agent.wait_ready(BOUND)
}

/// The name of another node: its pods are elsewhere, and those behind the devices of this node are another's.
#[test]
fn the_name_of_another_node_is_never_ready() -> Result<()> {
    let Some(mut cluster) = Cluster::new()? else { return Ok(()) };
    let node = cluster.node.clone();
    let web = cluster.lab.pod(&node, "shop/web")?;
    cluster.put(namespace("shop", &json!({})))?;
    cluster.put(web.manifest(&[("app", "web")], &[]))?;
    cluster.put(policy("closed", &json!({"podSelector": {"matchLabels": {"app": "client"}}})))?;
    cluster.plane.api().put(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-2"}}))?;
    drop(cluster.ready_agent()?);

    let kubeconfig = cluster.plane.kubeconfig(User::Agent)?;
    let source = ["--kubeconfig".as_ref(), kubeconfig.as_os_str()];
    let mut agent = Agent::start_as(&node, "node-2", source)?;
    agent.wait_unready("shop/web to node-1", BOUND)?;
    ensure!(cluster.difference()?.is_empty(), "the agent with the wrong name has changed the table");
    Ok(())
}

/// A watch that says nothing, no bookmark either, is noticed in the time that docs/operating.md promises; what it has
/// not said is learned from a list meanwhile.
#[test]
fn a_silent_watch_makes_the_agent_not_ready_until_it_says_something() -> Result<()> {
    const PROMISED: Duration = Duration::from_secs(150 + 10);
    let Some(mut cluster) = Cluster::new()? else { return Ok(()) };
    shop(&mut cluster)?;
    let proxy = cluster.plane.proxy(cluster.node.namespace(), |_| {})?;
    let kubeconfig = cluster.plane.kubeconfig_by(&proxy)?;
    let mut agent = Agent::start_with(&cluster.node, ["--kubeconfig".as_ref(), kubeconfig.as_os_str()])?;
    agent.wait_ready(BOUND)?;

    proxy.treat("networkpolicies", Treatment::Silence);
    cluster.put(policy("unheard", &json!({"podSelector": {"matchLabels": {"app": "other"}}})))?;
    agent.wait_unready("nothing has been heard of networkpolicies for 150 seconds", PROMISED)?;
    ensure!(agent.log()?.contains("nothing has been heard of networkpolicies"), "{}", agent.log()?);
    let age = "podfence_source_age_seconds{kind=\"networkpolicies\"}";
    let metrics = agent.get("/metrics")?.1;
    let shown = metrics.lines().find_map(|line| line.strip_prefix(age)).context("no age")?;
    ensure!(shown.trim().parse::<f64>()? >= 150.0, "{age} {shown}");
    cluster.wait_in_step(&agent).context("a new list says what the watch does not")?;

    proxy.treat("networkpolicies", Treatment::Pass);
    cluster.put(policy("heard", &json!({"podSelector": {"matchLabels": {"app": "other"}}})))?;
    agent.wait_ready(BOUND)?;
    ensure!(agent.log()?.contains("something is heard of networkpolicies again"), "{}", agent.log()?);
    Ok(())
}
