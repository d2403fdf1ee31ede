//! Why was this dropped? The agent says it of every denied connection, in the words of `podfence explain`.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lab::programs::is_there;
use lab::testbed::{BOUND, Testbed, cluster_policy, listen, policy, status, wait_until};
use lab::{
    Agent, ControlPlane, Node, Outcome, Pod, Probe, Protocol, Stream, Topology, Underlay, User, program,
};
use serde_json::{Value, json};

/// The longest until a denial is explained.
const SOON: Duration = Duration::from_secs(1);

/// Two nodes with agents. Only friends reach the server, by TCP to 8080; quiet pods reach nobody but friends.
struct Scene {
    testbed: Testbed,
    client: Pod,
    quiet: Pod,
    server: Pod,
    far: Pod,
    agents: Vec<Agent>,
}

impl Scene {
    /// With agents that follow the manifests.
    fn raise(arguments: &[&str]) -> Result<Self> {
        let mut scene = Self::without_agents()?;
        for node in ["node-1", "node-2"] {
            scene.agents.push(scene.testbed.start_agent_with(node, arguments)?);
        }
        Ok(scene)
    }

    fn without_agents() -> Result<Self> {
        let mut testbed = Testbed::new(Topology::Routed, Underlay::HostGateway, &["node-1", "node-2"])?;
        let client = testbed.pod("node-1", "shop/client", &[])?;
        let quiet = testbed.pod("node-1", "shop/quiet", &[])?;
        let server = testbed.pod("node-1", "shop/server", &[])?;
        let far = testbed.pod("node-2", "other/far", &[])?;
        let friends = json!([{"podSelector": {"matchLabels": {"app": "friend"}}}]);
        testbed.put(&policy(
            "shop",
            "server",
            &json!({
                "podSelector": {"matchLabels": {"app": "server"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": friends, "ports": [{"port": 8080}]}],
            }),
        ))?;
        testbed.put(&policy(
            "shop",
            "quiet",
            &json!({
                "podSelector": {"matchLabels": {"app": "quiet"}},
                "policyTypes": ["Egress"],
                "egress": [{"to": friends}],
            }),
        ))?;
        Ok(Self { testbed, client, quiet, server, far, agents: Vec::new() })
    }

    /// The lines about denials that all agents have written.
    fn denials(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for agent in &self.agents {
            lines.extend(agent.denials()?);
        }
        Ok(lines)
    }

    /// Opens connections, and waits for a line of each that holds all of its words.
    fn expect(&self, cases: &[(Probe, Vec<String>)]) -> Result<()> {
        let probes: Vec<Probe> = cases.iter().map(|(probe, _)| probe.clone()).collect();
        std::thread::scope(|scope| {
            let probing = scope.spawn(|| self.testbed.lab.probe(&probes));
            for (probe, words) in cases {
                wait_until(SOON, || {
                    let lines = self.denials()?;
                    let holds = |line: &String| words.iter().all(|word| line.contains(word));
                    ensure!(lines.iter().any(holds), "{probe}: none has {words:#?}: {lines:#?}");
                    Ok(())
                })?;
            }
            probing.join().map_err(|_| anyhow!("the probes panicked"))??;
            Ok(())
        })
    }

    /// What `podfence explain` says of a connection that is denied.
    fn explained(&self, from: &str, to: &str, port: &str) -> Result<Vec<String>> {
        let directory = self.testbed.manifests.path().to_string_lossy();
        let arguments =
            ["explain", "-f", &directory, "--from", from, "--to", to, "--port", port, "-o", "json"];
        let output = std::process::Command::new(program("podfence")?).args(arguments).output()?;
        ensure!(output.status.code() == Some(1), "{output:?}");
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let connection = &report["connections"][0];
        let mut words = Vec::new();
        for side in [&connection["egress"], &connection["ingress"]] {
            if side["verdict"] == "deny" {
                collect_texts(side, &mut words);
            }
        }
        ensure!(!words.is_empty(), "{report:#}");
        Ok(words)
    }
}

/// Every text of an explanation but for the files and the verdict itself.
fn collect_texts(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| collect_texts(value, texts)),
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| *name != "origin" && *name != "verdict")
            .for_each(|(_, value)| collect_texts(value, texts)),
        _ => {}
    }
}

/// Which direction denies, and the policies that decide.
type Decided = (&'static str, &'static str);
const INGRESS: Decided = ("ingress", "shop/server");
const EGRESS: Decided = ("egress", "shop/quiet");
const BOTH: Decided = ("egress", "shop/quiet, shop/server");

#[test]
fn each_kind_of_denial_is_explained() -> Result<()> {
    let mut scene = Scene::raise(&[])?;
    let service = scene.testbed.lab.service(Protocol::Tcp, 80, 9090, &[&scene.server])?;
    let Scene { testbed, client, quiet, server, far, .. } = &scene;
    let world = testbed.lab.world();
    let (server4, server6) = (server.ipv4(), server.ipv6());
    let (tcp, udp, sctp, icmp) = (Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp);
    let cases = [
        (Probe::new(client, server4, 8080, tcp), INGRESS, "shop/client", "shop/server", "8080/TCP"),
        (Probe::new(client, server6, 8081, tcp), INGRESS, "shop/client", "shop/server", "8081/TCP"),
        (Probe::new(quiet, client.ipv4(), 82, tcp), EGRESS, "shop/quiet", "shop/client", "82/TCP"),
        (Probe::new(quiet, server4, 83, tcp), BOTH, "shop/quiet", "shop/server", "83/TCP"),
        (Probe::new(client, service.ipv4, 80, tcp), INGRESS, "shop/client", "shop/server", "9090/TCP"),
        (Probe::new(world, server4, 84, tcp), INGRESS, "", "shop/server", "84/TCP"),
        (Probe::new(far, server4, 85, tcp), INGRESS, "other/far", "shop/server", "85/TCP"),
        (Probe::new(client, server4, 86, udp), INGRESS, "shop/client", "shop/server", "86/UDP"),
        (Probe::new(client, server6, 87, sctp), INGRESS, "shop/client", "shop/server", "87/SCTP"),
        (Probe::new(client, server4, 0, icmp), INGRESS, "shop/client", "shop/server", "ICMP"),
        (Probe::new(client, server6, 0, icmp), INGRESS, "shop/client", "shop/server", "ICMPv6"),
    ];
    let outside = world.ipv4().to_string();
    let cases = cases.into_iter().map(|(probe, (direction, policies), from, to, port)| {
        // `podfence explain` knows no ICMP; it says the same of any port that no rule names.
        let asked = if port.contains('/') { port } else { "1" };
        let mut words = scene.explained(if from.is_empty() { &outside } else { from }, to, asked)?;
        words.push(format!(" direction=\"{direction}\" "));
        words.push(format!(" policies=\"{policies}\" "));
        words.push(format!(" destination_pod=\"{to}\" "));
        words.push(if from.is_empty() {
            format!(" source={outside} ")
        } else {
            format!(" source_pod=\"{from}\" ")
        });
        words.push(match port.split_once('/') {
            Some((number, protocol)) => format!(" protocol={protocol} port={number} "),
            None => format!(" protocol={port} "),
        });
        Ok((probe, words))
    });
    scene.expect(&cases.collect::<Result<Vec<_>>>()?)
}

/// A policy with which nobody reaches the server, and whether it is in audit mode.
fn isolate(name: &str, audit: &str) -> Value {
    let spec = json!({"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]});
    let mut policy = policy("shop", name, &spec);
    policy["metadata"]["annotations"] = json!({"podfence.io/audit": audit});
    policy
}

/// Reaches a server of which audited policies say that nobody does, and waits until that is told.
fn expect_audited(scene: &Scene, port: u16, policies: &str) -> Result<()> {
    let probe = Probe::new(&scene.client, scene.server.ipv4(), port, Protocol::Tcp);
    let words = [
        " INFO ".to_owned(),
        "denied: audited ".to_owned(),
        format!(" policies=\"{policies}\" "),
        format!("it would be denied, but for the audit of {policies}"),
        format!(" port={port} "),
    ];
    scene.expect(&[(probe.clone(), words.into())])?;
    assert_eq!(scene.testbed.lab.probe(&[probe])?[0].outcome, Outcome::Allowed);
    let metric = format!("podfence_audited_packets_total{{direction=\"ingress\",policies=\"{policies}\"}}");
    wait_until(BOUND, || {
        let status = status(scene.server.node())?;
        let is_it = |group: &&Value| group["isolation"] == format!("audited: isolated by {policies}");
        let group = status["groups"].as_array().into_iter().flatten().find(is_it);
        let packets = group.context("no such group")?["denied"]["packets"].as_u64();
        let counted = scene.agents[0].metric(&metric)?;
        // One for each connection, or more where an answer was late.
        ensure!(counted >= 2 && Some(counted) == packets, "{counted} are counted, and {packets:?} shown");
        Ok(())
    })?;
    Ok(())
}

/// Waits until the policies are in the kernel, and sees that the server is not reached.
fn expect_enforced(scene: &Scene) -> Result<()> {
    scene.testbed.wait_in_step()?;
    let probe = Probe::new(&scene.client, scene.server.ipv4(), 8080, Protocol::Tcp);
    assert_eq!(scene.testbed.lab.probe(&[probe])?[0].outcome, Outcome::Denied);
    Ok(())
}

#[test]
fn what_audited_policies_deny_passes_and_is_told_until_they_are_enforced() -> Result<()> {
    let mut scene = Scene::raise(&[])?;
    listen(&scene.server, &[8080, 8081, 8082])?;
    scene.testbed.put(&isolate("server", "true"))?;
    scene.testbed.wait_in_step()?;
    expect_audited(&scene, 8080, "shop/server")?;
    let open = Stream::open(&scene.client, &scene.server, true, Protocol::Tcp)?;
    scene.testbed.put(&isolate("server", "yes"))?;
    expect_enforced(&scene)?;
    scene.agents[0].wait_for_counter("connections_cut", 1, BOUND).with_context(|| open.to_string())?;

    // A namespace.
    let mut namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    namespace["metadata"]["annotations"] = json!({"podfence.io/audit": "true"});
    scene.testbed.put(&namespace)?;
    scene.testbed.wait_in_step()?;
    expect_audited(&scene, 8081, "shop/server")?;
    namespace["metadata"]["annotations"] = Value::Null;
    scene.testbed.put(&namespace)?;
    expect_enforced(&scene)?;

    // One of several policies is not enough.
    scene.testbed.put(&isolate("another", "true"))?;
    expect_enforced(&scene)?;

    // All policies.
    scene.agents.clear();
    scene.agents.push(scene.testbed.start_agent_with("node-1", &["--audit"])?);
    expect_audited(&scene, 8082, "shop/another, shop/server")?;
    scene.agents.clear();
    scene.agents.push(scene.testbed.start_agent("node-1")?);
    expect_enforced(&scene)
}

#[test]
fn a_denial_names_the_rule_of_the_cluster_network_policy() -> Result<()> {
    let scene = Scene::raise(&[])?;
    let everybody = json!([{"namespaces": {}}]);
    let spec = json!({
        "tier": "Admin",
        "priority": 10,
        "subject": {"namespaces": {}},
        "ingress": [{
            "action": "Deny", "name": "no such port", "from": everybody,
            "protocols": [{"udp": {"destinationPort": {"number": 9}}}],
        }],
        "egress": [{
            "action": "Deny", "to": everybody, "protocols": [{"tcp": {"destinationPort": {"number": 9}}}],
        }],
    });
    let mut guard = cluster_policy("v1beta1", "guard-rails", &spec);
    scene.testbed.put(&guard)?;
    scene.testbed.wait_in_step()?;
    let Scene { client, far, .. } = &scene;
    let to = |protocol| Probe::new(client, far.ipv4(), 9, protocol);
    let words = |message: &str, rule: &str, explained: &str| {
        [
            message.to_owned(),
            " source_pod=\"shop/client\" ".to_owned(),
            " destination_pod=\"other/far\" ".to_owned(),
            " policies=\"guard-rails\" ".to_owned(),
            format!("Admin policy guard-rails (priority 10) {rule} {explained}"),
        ]
        .to_vec()
    };
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let (egress, ingress) = ("egress[0]", "ingress[0] \\\"no such port\\\"");
    scene.expect(&[
        (to(tcp), words(" WARN podfence::denied: denied direction=\"egress\" ", egress, "denies it")),
        (to(udp), words(" WARN podfence::denied: denied direction=\"ingress\" ", ingress, "denies it")),
    ])?;
    ensure!(!scene.denials()?.concat().contains("changed since"), "{:#?}", scene.denials()?);

    guard["metadata"]["annotations"] = json!({"podfence.io/audit": "true"});
    scene.testbed.put(&guard)?;
    scene.testbed.wait_in_step()?;
    let audit = "would deny it, but for audit mode";
    scene.expect(&[
        (to(tcp), words(" INFO podfence::denied: audited direction=\"egress\" ", egress, audit)),
        (to(udp), words(" INFO podfence::denied: audited direction=\"ingress\" ", ingress, audit)),
    ])?;
    ensure!(!scene.denials()?.concat().contains("changed since"), "{:#?}", scene.denials()?);
    Ok(())
}

/// Sends datagrams to one port after the other, as fast as it can until told to stop. Returns how many.
fn flood(from: &Pod, to: IpAddr, stop: &AtomicBool) -> Result<u64> {
    from.namespace().run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        let mut sent = 0;
        for port in (1..=u16::MAX).cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            sent += u64::from(socket.send_to(b"let me in", (to, port)).is_ok());
        }
        Ok(sent)
    })
}

#[test]
fn a_flood_of_denials_costs_little_and_hides_nothing_of_others() -> Result<()> {
    const FLOOD: Duration = Duration::from_secs(4);
    let scene = Scene::raise(&[])?;
    let agent = &scene.agents[0];
    let (memory, before) = (agent.resident_memory()?, agent.processor_time()?);
    let (begin, stop) = (Instant::now(), AtomicBool::new(false));
    let sent = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(&scene.client, scene.server.ipv4(), &stop));
        std::thread::sleep(FLOOD / 2);
        let other = Probe::new(&scene.quiet, scene.client.ipv4(), 7, Protocol::Udp);
        let explained = scene.expect(&[(other, scene.explained("shop/quiet", "shop/client", "7/UDP")?)]);
        std::thread::sleep(FLOOD.saturating_sub(begin.elapsed()));
        stop.store(true, Ordering::Relaxed);
        explained?;
        flooding.join().map_err(|_| anyhow!("the flood panicked"))?
    })?;
    let took = begin.elapsed();
    let busy = agent.processor_time()?.saturating_sub(before);
    let grown = agent.resident_memory()?.saturating_sub(memory) / 1024;
    println!("{sent} packets in {took:?} cost {busy:?} of a processor and {grown} KiB");
    ensure!(sent > 10_000 * took.as_secs(), "{sent} packets in {took:?} are no flood");
    ensure!(busy < took / 20, "{busy:?} of {took:?} on a processor for {sent} packets");
    ensure!(grown < 4096, "{grown} KiB more memory");
    // What is not explained is counted.
    ensure!(agent.denials()?.len() < 100, "{:#?}", agent.denials()?);
    ensure!(agent.counter("denials_unexplained")? > 10);
    Ok(())
}

/// The packets that the counters of a node have counted, as `nft list` shows them: by chain, or where that is named by
/// its content, by comment.
fn listed(node: &Node) -> Result<BTreeMap<String, u64>> {
    let text = node.namespace().feed("nft", &["list", "table", "inet", "podfence"], "")?;
    let mut counters = BTreeMap::new();
    let mut chain = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("chain ") {
            chain = name.trim_end_matches(" {");
        }
        let Some((_, counter)) = line.split_once("counter packets ") else { continue };
        let packets = counter.split(' ').next().context("no number")?.parse()?;
        let comment = line.split_once("comment \"").map(|(_, comment)| comment.trim_end_matches('"'));
        let name = comment.filter(|_| chain.contains("_isolate_")).unwrap_or(chain);
        counters.insert(name.to_owned(), packets);
    }
    Ok(counters)
}

#[test]
fn metrics_status_and_kernel_agree_on_what_was_counted() -> Result<()> {
    let mut testbed = Testbed::new(Topology::Routed, Underlay::HostGateway, &["node-1"])?;
    let client = testbed.pod("node-1", "shop/client", &[])?;
    let server = testbed.pod("node-1", "shop/server", &[80, 81])?;
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "server"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": 81}]}, {"ports": [{"port": 80}]}],
    });
    testbed.put(&policy("shop", "server", &spec))?;
    let spec = json!({
        "tier": "Admin", "priority": 10, "subject": {"namespaces": {}},
        "ingress": [{
            "action": "Deny", "from": [{"namespaces": {}}],
            "protocols": [{"udp": {"destinationPort": {"number": 9}}}],
        }],
    });
    testbed.put(&cluster_policy("v1beta1", "guard", &spec))?;
    let agent = testbed.start_agent_with("node-1", &["--strict-start"])?;
    let node = server.node().clone();
    let unknown = testbed.lab.pod(&node, "shop/unknown")?;
    let to = |from, port| Probe::new(from, server.ipv4(), port, Protocol::Udp);
    testbed.lab.probe(&[
        Probe::new(&client, server.ipv4(), 80, Protocol::Tcp),
        Probe::new(&client, server.ipv6(), 80, Protocol::Tcp),
        to(&client, 1),
        to(&client, 2),
        to(&client, 3),
        to(&client, 9),
        to(&unknown, 80),
    ])?;
    let rule = r#"direction="ingress",namespace="shop",policy="server",rule="1""#;
    let denied = r#"direction="ingress",policies="shop/server""#;
    let guard = r#"direction="ingress",tier="Admin",policy="guard",rule="0",action="deny""#;
    // What stays silent is sent twice.
    let cases = [
        ("rule", rule, "/rules/1/allowed", "ingress/shop/server/1", 2),
        ("denied", denied, "/groups/0/denied", "isolated by shop/server", 6),
        ("tier_rule", guard, "/tiers/0/covered", "ingress/Admin/guard/0/deny", 2),
        ("strict_start", r#"direction="egress""#, "/strict_start/0/denied", "strict_start_egress", 2),
    ];
    let (status, listed) = (status(&node)?, listed(&node)?);
    for (series, labels, in_status, in_kernel, packets) in cases {
        let metric = |number| agent.metric(&format!("podfence_{series}_{number}_total{{{labels}}}"));
        assert_eq!(metric("packets")?, packets, "{series}");
        let of_status = status.pointer(in_status).with_context(|| status.to_string())?;
        assert_eq!(*of_status, json!({"packets": packets, "bytes": metric("bytes")?}), "{series}");
        assert_eq!(listed.get(in_kernel), Some(&packets), "{series}: {listed:#?}");
    }
    assert_eq!(agent.denials()?.iter().filter(|line| line.contains("strict start: no known pod")).count(), 1);
    Ok(())
}

/// The events on a pod, the oldest first.
fn events(plane: &ControlPlane, pod: &str) -> Result<Vec<Value>> {
    let (namespace, name) = pod.split_once('/').context("namespace/name")?;
    let uid = plane.api().get(&format!("/api/v1/namespaces/{namespace}/pods/{name}"))?;
    let uid = uid["metadata"]["uid"].as_str().context("no uid")?.to_owned();
    let selector = format!("involvedObject.name={name},involvedObject.uid={uid}");
    let all = plane.api().get(&format!("/api/v1/namespaces/{namespace}/events?fieldSelector={selector}"))?;
    let mut events = all["items"].as_array().context("no list")?.clone();
    events.sort_by_key(|event| event["firstTimestamp"].to_string());
    Ok(events)
}

#[test]
fn the_isolated_pod_gets_events_of_what_is_denied() -> Result<()> {
    if !is_there(ControlPlane::available()) {
        return Ok(());
    }
    let mut scene = Scene::without_agents()?;
    let world = scene.testbed.lab.world();
    let plane = ControlPlane::start(world.namespace(), world.ipv4())?;
    for name in ["shop", "other"] {
        plane.api().put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))?;
    }
    for object in scene.testbed.objects()? {
        plane.api().put(&object)?;
    }
    let kubeconfig = plane.kubeconfig(User::Agent)?;
    let mut agent =
        Agent::start_with(scene.client.node(), ["--kubeconfig".as_ref(), kubeconfig.as_os_str()])?;
    agent.wait_ready(BOUND)?;
    scene.agents.push(agent);
    let Scene { testbed, client, quiet, server, .. } = &scene;

    let probe = Probe::new(client, server.ipv4(), 8080, Protocol::Tcp);
    testbed.lab.probe(std::slice::from_ref(&probe))?;
    let event = wait_until(SOON, || {
        let events = events(&plane, "shop/server")?;
        ensure!(events.len() == 1, "{events:#?}\n{}", scene.agents[0].log()?);
        Ok(events[0].clone())
    })?;
    assert_eq!((&event["reason"], &event["type"]), (&json!("PolicyDenied"), &json!("Warning")));
    let message = event["message"].as_str().context("no message")?;
    let connection = format!("shop/client ({}) → shop/server ({}) 8080/TCP", client.ipv4(), server.ipv4());
    for word in scene.explained("shop/client", "shop/server", "8080")?.into_iter().chain([connection]) {
        assert!(message.contains(&word), "{word}: {message}");
    }

    // The same again is counted, and something else is another event.
    testbed.lab.probe(&[probe, Probe::new(quiet, client.ipv4(), 1, Protocol::Udp)])?;
    wait_until(BOUND, || {
        let events = events(&plane, "shop/server")?;
        ensure!(events.len() == 1 && events[0]["count"].as_u64() > event["count"].as_u64(), "{events:#?}");
        Ok(())
    })?;
    let of_quiet = events(&plane, "shop/quiet")?;
    assert_eq!(of_quiet.len(), 1, "{of_quiet:#?}");
    assert_eq!(events(&plane, "shop/client")?, Vec::<Value>::new(), "no policy isolates it");
    Ok(())
}
