//! What pods send to their own node: let through, or judged by the policies as what they send to any address. What the
//! node sends to its pods passes either way.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::streams::{check_going_on, open_all, watch_dying};
use lab::testbed::{BOUND, Testbed, cluster_policy, listen, namespace, policy, status, wait_until};
use lab::{Agent, Endpoint, Node, Outcome, Pod, Probe, Protocol, Topology, Underlay, on_each_topology};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket, sockopt};
use serde_json::{Value, json};

const NODE: &str = "node-1";
const PORT: u16 = 8080;
const DNS: u16 = 53;

/// Addresses of the node that its object does not show, as those of a DNS cache.
const CACHE: [&str; 2] = ["169.254.20.10", "fd96::a"];

const POLICY: [&str; 2] = ["--pods-to-node", "policy"];

/// Two nodes with listeners on all their addresses. On the first: a pod that may send nothing, one that blocks let
/// reach some of the node's addresses, and one that no policy isolates.
struct Scene {
    testbed: Testbed,
    closed: Pod,
    granted: Pod,
    open: Pod,
    arguments: Vec<&'static str>,
    agents: Vec<Agent>,
}

impl Scene {
    fn raise(topology: Topology, arguments: &[&'static str]) -> Result<Self> {
        let mut testbed = Testbed::new(topology, Underlay::HostGateway, &[NODE, "node-2"])?;
        testbed.put(&namespace("shop", &json!({"env": "prod"})))?;
        let mut pod = |name| testbed.pod(NODE, name, &[PORT]);
        let (closed, granted, open) = (pod("shop/closed")?, pod("shop/granted")?, pod("shop/open")?);
        let node = testbed.node(NODE)?.clone();
        node.add_addresses(&[node.bridge_addresses(), cache()?].concat())?;
        for node in testbed.lab.nodes() {
            listen(node, &[PORT, DNS])?;
        }
        let (ipv4, ipv6, cache) = (node.ipv4(), node.ipv6(), CACHE[0]);
        let blocks = [format!("{ipv4}/32"), format!("{ipv6}/128"), format!("{cache}/32")];
        let blocks = blocks.map(|block| json!({"ipBlock": {"cidr": block}}));
        testbed.put(&isolate("closed", &json!([])))?;
        testbed.put(&isolate("granted", &json!([{"to": blocks}])))?;
        let agents = testbed.lab.nodes().iter().map(|node| testbed.start_agent_with(node.name(), arguments));
        let agents = agents.collect::<Result<_>>()?;
        Ok(Self { testbed, closed, granted, open, arguments: arguments.to_vec(), agents })
    }

    fn node(&self) -> &Node {
        self.closed.node()
    }

    fn wait_in_step(&self) -> Result<()> {
        self.testbed.wait_in_step_with(&self.arguments)
    }

    fn assert_all(&self, probes: &[Probe], expected: Outcome) -> Result<()> {
        let replies = self.testbed.lab.probe(probes)?;
        for (probe, reply) in probes.iter().zip(replies) {
            ensure!(reply.outcome == expected, "{probe}: {:?}, not {expected:?}", reply.outcome);
        }
        Ok(())
    }

    /// Sees that the node reaches its pods from each of its addresses, and itself.
    fn assert_node_reaches(&self, to: &[&Endpoint]) -> Result<()> {
        let node = self.node();
        let mut probes = Vec::new();
        for to in to.iter().copied().chain([&**node]) {
            for source in node.addresses() {
                let of_family = to.addresses().into_iter().filter(|to| to.is_ipv4() == source.is_ipv4());
                let to_address =
                    |to| probes_to(node, &[to]).into_iter().map(move |probe| probe.from_address(source));
                probes.extend(of_family.flat_map(to_address));
            }
        }
        self.assert_all(&probes, Outcome::Allowed)
    }
}

fn cache() -> Result<Vec<IpAddr>> {
    CACHE.iter().map(|address| Ok(address.parse()?)).collect()
}

/// Isolates a pod, with these rules, for egress.
fn isolate(app: &str, egress: &Value) -> Value {
    let spec = json!({
        "podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Egress"], "egress": egress,
    });
    policy("shop", app, &spec)
}

/// Connections to some addresses with every protocol.
fn probes_to(from: &Endpoint, to: &[IpAddr]) -> Vec<Probe> {
    let to_address = |to: &IpAddr| Protocol::ALL.map(|protocol| Probe::new(from, *to, PORT, protocol));
    to.iter().flat_map(to_address).collect()
}

on_each_topology! {
    pods_reach_all_addresses_of_their_node_unless_policies_judge_it
    a_node_is_as_any_address_where_policies_judge_it
    what_keeps_a_link_alive_passes
    a_cache_on_the_node_answers_pods_under_default_deny
    open_connections_to_the_node_are_cut
    a_pod_that_is_not_known_does_not_reach_its_node
}

fn pods_reach_all_addresses_of_their_node_unless_policies_judge_it(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology, &[])?;
    let of_node = scene.node().addresses();
    let pods = [&scene.closed, &scene.granted, &scene.open];
    let probes: Vec<_> = pods.iter().flat_map(|pod| probes_to(pod, &of_node)).collect();
    scene.assert_all(&probes, Outcome::Allowed)?;
    scene.wait_in_step()?;
    let open = open_all(&scene.open, scene.node())?;
    scene.testbed.put(&isolate("open", &json!([])))?;
    scene.wait_in_step()?;
    check_going_on(&open)
}

fn a_node_is_as_any_address_where_policies_judge_it(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology, &POLICY)?;
    scene.wait_in_step()?;
    let node = scene.node();
    let of_node = node.addresses();
    let granted = [node.ipv4(), node.ipv6(), CACHE[0].parse()?];
    let (covered, others): (Vec<IpAddr>, Vec<_>) =
        of_node.iter().partition(|address| granted.contains(address));
    assert_eq!(covered.len(), 3);

    let mut allowed = probes_to(&scene.open, &of_node);
    allowed.extend(probes_to(&scene.granted, &covered));
    scene.assert_all(&allowed, Outcome::Allowed)?;
    let mut denied = probes_to(&scene.closed, &of_node);
    denied.extend(probes_to(&scene.granted, &others));
    scene.assert_all(&denied, Outcome::Denied)?;
    scene.assert_node_reaches(&[&scene.closed, &scene.granted, &scene.open])?;

    let agent = &scene.agents[0];
    let (pod, address) = (format!("source_pod=\"{}\"", scene.closed.name()), node.ipv4());
    let line = wait_until(BOUND, || {
        let denials = agent.denials()?;
        let of_pod =
            |line: &&String| line.contains(&pod) && line.contains(&format!("destination={address} "));
        denials.iter().find(of_pod).cloned().with_context(|| format!("{pod}: {denials:#?}"))
    })?;
    assert!(
        line.contains("direction=\"egress\"") && line.contains("explanation=\"a policy isolates"),
        "{line}"
    );

    // An address of the node that a pod shows is the node's all the same.
    let mut pod = scene.closed.manifest(&[("app", "closed")], &[]);
    pod["metadata"]["name"] = json!("impostor");
    pod["status"]["podIPs"] = json!([{"ip": node.ipv4()}, {"ip": node.ipv6()}]);
    scene.testbed.put(&pod)?;
    scene.wait_in_step()?;
    scene.assert_node_reaches(&[&scene.closed])
}

/// What has to pass although a pod may send nothing to its node: neighbour discovery, requests of a DHCP client, and
/// who listens to which group.
fn what_keeps_a_link_alive_passes(topology: Topology) -> Result<()> {
    let scene = Scene::raise(topology, &POLICY)?;
    let (pod, node) = (&scene.closed, scene.node());
    for namespace in [pod.namespace(), node.namespace()] {
        namespace.ip("neigh flush all")?;
    }
    scene.assert_node_reaches(&[pod])?;

    for (to, client, server) in [(node.ipv4(), 68, 67), (node.ipv6(), 546, 547)] {
        assert!(arrives(pod, node, to, client, server)?, "{to} {server}");
        assert!(!arrives(pod, node, to, client + 1, server)?, "{to} {server}");
        assert!(!arrives(pod, node, to, client, server + 1)?, "{to} {server}");
    }
    for (to, protocol, kind, passes) in [
        (node.ipv4(), ipproto::IGMP, 0x16, true),
        (node.ipv4(), ipproto::PIM, 0x20, false),
        (node.ipv6(), ipproto::ICMPV6, 129, false),
        (node.ipv6(), ipproto::ICMPV6, 130, true),
        (node.ipv6(), ipproto::ICMPV6, 131, true),
        (node.ipv6(), ipproto::ICMPV6, 132, true),
        (node.ipv6(), ipproto::ICMPV6, 143, true),
        (node.ipv6(), ipproto::ICMPV6, 144, false),
    ] {
        assert_eq!(arrives_raw(pod, node, to, protocol, kind)?, passes, "{to} {protocol:?} {kind}");
    }
    Ok(())
}

/// How long something that should not arrive is waited for.
const SILENCE: Duration = Duration::from_millis(300);

/// Whether a datagram from one port to another arrives.
fn arrives(from: &Endpoint, to: &Endpoint, address: IpAddr, client: u16, server: u16) -> Result<bool> {
    let any: IpAddr = if address.is_ipv4() { "0.0.0.0".parse()? } else { "::".parse()? };
    // A program that another test is starting may have the socket before this one open for a moment longer.
    let bind = |end: &Endpoint, address: IpAddr, port: u16| {
        wait_until(BOUND, || end.namespace().run(|| Ok(UdpSocket::bind((address, port))?)))
    };
    let listener = bind(to, address, server)?;
    listener.set_read_timeout(Some(SILENCE))?;
    let sender = bind(from, any, client)?;
    sender.send_to(b"discover", (address, server))?;
    Ok(listener.recv(&mut [0; 64]).is_ok())
}

/// Whether a message of some type arrives.
fn arrives_raw(
    from: &Endpoint,
    to: &Endpoint,
    address: IpAddr,
    protocol: rustix::net::Protocol,
    kind: u8,
) -> Result<bool> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let raw = || Ok(socket(family, SocketType::RAW, Some(protocol))?);
    let listener = to.namespace().run(raw)?;
    sockopt::set_socket_timeout(&listener, sockopt::Timeout::Recv, Some(SILENCE))?;
    let mut message = [0; 24];
    message[0] = kind;
    message[8..].copy_from_slice(b"for this test...");
    let sender = from.namespace().run(raw)?;
    sendto(&sender, &message, SendFlags::empty(), &SocketAddr::new(address, 0))?;
    let mut buffer = [0; 256];
    while let Ok((length, _)) = recv(&listener, &mut buffer[..], RecvFlags::empty()) {
        if buffer[..length].ends_with(&message[8..]) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn a_cache_on_the_node_answers_pods_under_default_deny(topology: Topology) -> Result<()> {
    let flags = ["--default-deny", "env=prod", "--default-deny-allow-dns"];
    let scene = Scene::raise(topology, &[&POLICY[..], &flags].concat())?;
    scene.testbed.put(&namespace("free", &json!({"env": "test"})))?;
    let node = scene.node();
    let dns = |from: &Endpoint, to: &[IpAddr]| -> Vec<Probe> {
        let of_address =
            |to: &IpAddr| [Protocol::Udp, Protocol::Tcp].map(|protocol| Probe::new(from, *to, DNS, protocol));
        to.iter().flat_map(of_address).collect()
    };
    let other_node = scene.testbed.node("node-2")?.addresses();
    let counted = || -> Result<u64> {
        let status = status(node)?;
        let rules = status["rules"].as_array().context("rules")?;
        let of_policy = |rule: &&Value| {
            rule["policy"] == "shop/--default-deny" && rule["direction"] == "egress" && rule["rule"] == 0
        };
        let rule = rules.iter().find(of_policy).with_context(|| status.to_string())?;
        rule["allowed"]["packets"].as_u64().context("packets")
    };
    for notrack in [false, true] {
        if notrack {
            node.namespace().nft(&without_conntrack())?;
        }
        let before = counted()?;
        let allowed = dns(&scene.closed, &node.addresses());
        scene.assert_all(&allowed, Outcome::Allowed)?;
        assert!(counted()? >= before + allowed.len() as u64);
        scene.assert_all(&dns(&scene.closed, &other_node), Outcome::Denied)?;
        let rest = probes_to(&scene.closed, &node.addresses());
        scene.assert_all(&rest, Outcome::Denied)?;
        scene.assert_node_reaches(&[&scene.closed])?;
    }

    // Other pods are isolated by policies alone, which know nothing of DNS.
    scene.testbed.put(&namespace("shop", &json!({"env": "test"})))?;
    scene.wait_in_step()?;
    scene.assert_all(&dns(&scene.closed, &node.addresses()), Outcome::Denied)?;
    scene.assert_all(&dns(&scene.granted, &[node.ipv4(), CACHE[0].parse()?]), Outcome::Allowed)?;
    scene.assert_all(&dns(&scene.open, &node.addresses()), Outcome::Allowed)
}

/// What node-local DNS caches do: their packets have no entry in conntrack.
fn without_conntrack() -> String {
    let [ipv4, ipv6] = CACHE;
    format!(
        "table inet lab_cache {{
           chain prerouting {{
             type filter hook prerouting priority raw
             ip daddr {ipv4} th dport {DNS} notrack
             ip6 daddr {ipv6} th dport {DNS} notrack
           }}
           chain output {{
             type filter hook output priority raw
             ip saddr {ipv4} th sport {DNS} notrack
             ip6 saddr {ipv6} th sport {DNS} notrack
           }}
         }}"
    )
}

fn open_connections_to_the_node_are_cut(topology: Topology) -> Result<()> {
    // An Admin policy concerns them wherever pods may send to their node.
    for (arguments, denying) in [(&POLICY[..], isolate("open", &json!([]))), (&[], keep_from_nodes("open"))] {
        let scene = Scene::raise(topology, arguments)?;
        let denied = open_all(&scene.open, scene.node())?;
        let of_node = open_all(scene.node(), &scene.open)?;
        let of_others = open_all(&scene.granted, scene.node())?;
        scene.testbed.put(&denying)?;
        watch_dying(&denied)?;
        check_going_on(&of_node)?;
        check_going_on(&of_others)?;
        assert_eq!(scene.agents[0].counter("connections_cut")?, 6);
        // What is allowed again can be opened again, between the same ends.
        scene.testbed.delete(&denying)?;
        scene.wait_in_step()?;
        open_all(&scene.open, scene.node())?;
    }
    Ok(())
}

/// An Admin policy that denies a pod every node.
fn keep_from_nodes(app: &str) -> Value {
    let subject = json!({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app}}}});
    let egress = json!([{"action": "Deny", "to": [{"nodes": {}}]}]);
    let spec = json!({"tier": "Admin", "priority": 10, "subject": subject, "egress": egress});
    cluster_policy("v1beta1", "keep-from-nodes", &spec)
}

fn a_pod_that_is_not_known_does_not_reach_its_node(topology: Topology) -> Result<()> {
    let mut scene = Scene::raise(topology, &["--pods-to-node", "policy", "--strict-start"])?;
    let node = scene.node().clone();
    let newcomer = scene.testbed.lab.pod(&node, "shop/newcomer")?;
    listen(&newcomer, &[PORT])?;
    let probes = probes_to(&newcomer, &node.addresses());
    scene.assert_all(&probes, Outcome::Denied)?;
    // The node's addresses on a bridge lie in the pods' ranges too.
    scene.assert_node_reaches(&[&newcomer])?;
    scene.testbed.put(&newcomer.manifest(&[], &[]))?;
    scene.wait_in_step()?;
    scene.assert_all(&probes, Outcome::Allowed)
}
