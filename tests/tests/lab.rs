//! The lab itself: packets go where no rule stops them, and nowhere else.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{Lab, Namespace, Outcome, Pod, Probe, Prober, Protocol, Topology, Underlay};

const PORT: u16 = 8080;

/// The longest that anything may take.
const BOUND: Duration = Duration::from_secs(30);

/// Two nodes with two pods each, which listen on [`PORT`] of every protocol.
fn two_nodes(topology: Topology, underlay: Underlay) -> Result<(Lab, Vec<Pod>)> {
    let mut lab = Lab::new(topology, underlay)?;
    for node in ["node-1", "node-2"] {
        let node = lab.node(node)?;
        for name in ["a", "b"] {
            let pod = lab.pod(&node, &format!("{}/{name}", node.name()))?;
            pod.serve(&[(Protocol::Tcp, PORT), (Protocol::Udp, PORT), (Protocol::Sctp, PORT)])?;
        }
    }
    let pods = lab.pods().to_vec();
    Ok((lab, pods))
}

/// Every pod to every pod, over both families and all protocols.
fn all_pairs(pods: &[Pod]) -> Vec<Probe> {
    let mut probes = Vec::new();
    for from in pods {
        for to in pods {
            for address in to.addresses() {
                probes.extend(Protocol::ALL.map(|protocol| Probe::new(from, address, PORT, protocol)));
            }
        }
    }
    probes
}

/// The probes that did not come through, as text.
fn not_allowed(lab: &Lab, probes: &[Probe]) -> Result<Vec<String>> {
    let replies = lab.probe(probes)?;
    let lost = probes.iter().zip(&replies).filter(|(_, reply)| reply.outcome != Outcome::Allowed);
    Ok(lost.map(|(probe, reply)| format!("{probe}: {:?}", reply.outcome)).collect())
}

#[track_caller]
fn everything_reaches_everything(topology: Topology, underlay: Underlay) -> Result<()> {
    let (lab, pods) = two_nodes(topology, underlay)?;
    let probes = all_pairs(&pods);
    assert_eq!(probes.len(), 4 * 4 * 2 * 4);
    assert_eq!(not_allowed(&lab, &probes)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn everything_reaches_everything_routed_over_vxlan() -> Result<()> {
    everything_reaches_everything(Topology::Routed, Underlay::Vxlan)
}

#[test]
fn everything_reaches_everything_routed_over_host_gateways() -> Result<()> {
    everything_reaches_everything(Topology::Routed, Underlay::HostGateway)
}

#[test]
fn everything_reaches_everything_bridged_over_vxlan() -> Result<()> {
    everything_reaches_everything(Topology::Bridge, Underlay::Vxlan)
}

#[test]
fn everything_reaches_everything_bridged_over_host_gateways() -> Result<()> {
    everything_reaches_everything(Topology::Bridge, Underlay::HostGateway)
}

/// A rule in the forward hook denies exactly what it names, also between two pods of one node: on a bridge
/// this proves that netfilter sees the packets.
fn a_rule_denies_what_it_names(topology: Topology) -> Result<()> {
    let (lab, pods) = two_nodes(topology, Underlay::Vxlan)?;
    let [a, b, ..] = &*pods else { unreachable!("there are four pods") };
    a.node().namespace().nft(&format!(
        "table inet lab_test {{
           chain forward {{
             type filter hook forward priority filter
             ip saddr {} ip daddr {} tcp dport {PORT} drop
             ip6 saddr {} ip6 daddr {} jump from_a_to_b
           }}
           chain from_a_to_b {{
             sctp dport {PORT} drop
             udp dport {PORT} drop
             icmpv6 type echo-request drop
           }}
         }}",
        a.ipv4(),
        b.ipv4(),
        a.ipv6(),
        b.ipv6(),
    ))?;
    let mut denied = vec![format!("{}: Denied", Probe::new(a, b.ipv4(), PORT, Protocol::Tcp))];
    for protocol in [Protocol::Udp, Protocol::Sctp, Protocol::Icmp] {
        denied.push(format!("{}: Denied", Probe::new(a, b.ipv6(), PORT, protocol)));
    }
    assert_eq!(not_allowed(&lab, &all_pairs(&pods))?, denied);
    Ok(())
}

#[test]
fn a_rule_denies_what_it_names_routed() -> Result<()> {
    a_rule_denies_what_it_names(Topology::Routed)
}

#[test]
fn a_rule_denies_what_it_names_bridged() -> Result<()> {
    a_rule_denies_what_it_names(Topology::Bridge)
}

/// Drops what `a` sends to `b` by UDP, and nothing else.
fn rules_from_a_to_b(a: &Pod, b: &Pod) -> String {
    format!(
        "table inet lab_test {{
           chain forward {{
             type filter hook forward priority filter
             ip saddr {} ip daddr {} udp dport {PORT} drop
           }}
         }}",
        a.ipv4(),
        b.ipv4()
    )
}

#[test]
fn the_prober_sees_a_rule_go() -> Result<()> {
    let (lab, pods) = two_nodes(Topology::Routed, Underlay::HostGateway)?;
    let [a, b, ..] = &*pods else { unreachable!("there are four pods") };
    let denied = Probe::new(a, b.ipv4(), PORT, Protocol::Udp);
    let allowed = Probe::new(a, b.ipv4(), PORT, Protocol::Tcp);
    let node = a.node().namespace();
    node.nft(&rules_from_a_to_b(a, b))?;

    let begin = Instant::now();
    let prober = Prober::start(std::slice::from_ref(&allowed), std::slice::from_ref(&denied))?;
    wait_until(|| prober.totals().denied >= 1000)?;
    let rate = prober.totals().allowed * 1000 / u64::try_from(begin.elapsed().as_millis())?;
    assert_eq!((prober.totals().leaks, prober.totals().wrong_denials), (0, 0), "{:?}", prober.totals());
    node.nft("flush chain inet lab_test forward")?;
    wait_until(|| prober.totals().leaks > 0)?;
    node.nft(&format!("add rule inet lab_test forward ip daddr {} tcp dport {PORT} drop", b.ipv4()))?;
    lab.wait_for(&allowed, Outcome::Denied, BOUND)?;
    let totals = prober.stop()?;
    assert!(totals.wrong_denials > 0 && !totals.incidents.is_empty(), "{totals:?}");
    assert!(rate > 300, "{rate} connections a second");
    Ok(())
}

#[test]
fn wait_for_tells_when_a_rule_came_and_went() -> Result<()> {
    let (lab, pods) = two_nodes(Topology::Routed, Underlay::HostGateway)?;
    let [a, b, ..] = &*pods else { unreachable!("there are four pods") };
    let probe = Probe::new(a, b.ipv4(), PORT, Protocol::Udp);
    let node = a.node().namespace();
    assert_eq!(lab.wait_for(&probe, Outcome::Allowed, BOUND)?.as_secs(), 0);
    node.nft(&rules_from_a_to_b(a, b))?;
    assert_eq!(lab.wait_for(&probe, Outcome::Denied, BOUND)?.as_secs(), 0);
    assert!(lab.wait_for(&probe, Outcome::Allowed, Duration::from_millis(100)).is_err());
    node.nft("delete table inet lab_test")?;
    assert_eq!(lab.wait_for(&probe, Outcome::Allowed, BOUND)?.as_secs(), 0);
    Ok(())
}

/// Waits for a condition that another thread makes true.
fn wait_until(mut condition: impl FnMut() -> bool) -> Result<()> {
    let begin = Instant::now();
    while !condition() {
        ensure!(begin.elapsed() < BOUND, "the condition does not hold after {BOUND:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn services_and_hairpins_work(topology: Topology) -> Result<()> {
    let (mut lab, pods) = two_nodes(topology, Underlay::HostGateway)?;
    let [a, b, c, _] = &*pods else { unreachable!("there are four pods") };
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let service = lab.service(protocol, 80, PORT, &[a, c])?;
        for (from, address) in [(b, service.ipv4), (b, service.ipv6), (a, service.ipv4), (a, service.ipv6)] {
            let probe = Probe::new(from, address, 80, protocol);
            let replies = lab.probe(&vec![probe.clone(); 4])?;
            let mut servers: Vec<_> = replies.into_iter().map(|reply| reply.server).collect();
            servers.sort_unstable();
            servers.dedup();
            let both = [a, c].map(|pod| Some(pod.name().to_owned()));
            assert_eq!(servers, both, "{probe}");
        }
    }
    Ok(())
}

#[test]
fn services_and_hairpins_work_routed() -> Result<()> {
    services_and_hairpins_work(Topology::Routed)
}

#[test]
fn services_and_hairpins_work_bridged() -> Result<()> {
    services_and_hairpins_work(Topology::Bridge)
}

/// Whether the packet takes `forward` or `output` decides which rule it meets.
fn a_packet_sent_by_the_node_takes_the_hook_output(topology: Topology) -> Result<()> {
    let (lab, pods) = two_nodes(topology, Underlay::HostGateway)?;
    let [a, b, c, _] = &*pods else { unreachable!("there are four pods") };
    let mut probes = Vec::new();
    for to in [b, c].into_iter().flat_map(|pod| pod.addresses()) {
        probes.extend(Protocol::ALL.map(|protocol| Probe::new(a, to, PORT, protocol).sent_by(a.node())));
    }
    assert_eq!(not_allowed(&lab, &probes)?, Vec::<String>::new());
    let drop_new_in = |hook: &str| {
        a.node().namespace().nft(&format!(
            "table inet lab_test {{
               chain {hook} {{
                 type filter hook {hook} priority filter
                 ct state established accept
                 ip saddr {} drop
                 ip6 saddr {} meta l4proto {{ tcp, udp, sctp }} drop
                 ip6 saddr {} icmpv6 type echo-request drop
               }}
             }}",
            a.ipv4(),
            a.ipv6(),
            a.ipv6()
        ))
    };
    drop_new_in("forward")?;
    assert_eq!(not_allowed(&lab, &probes)?, Vec::<String>::new());
    assert_eq!(lab.connect(a, b.ipv4(), PORT, Protocol::Tcp)?, Outcome::Denied);
    drop_new_in("output")?;
    assert_eq!(not_allowed(&lab, &probes)?.len(), probes.len());
    Ok(())
}

#[test]
fn a_packet_sent_by_the_node_takes_the_hook_output_routed() -> Result<()> {
    a_packet_sent_by_the_node_takes_the_hook_output(Topology::Routed)
}

#[test]
fn a_packet_sent_by_the_node_takes_the_hook_output_bridged() -> Result<()> {
    a_packet_sent_by_the_node_takes_the_hook_output(Topology::Bridge)
}

#[test]
fn a_closed_port_refuses() -> Result<()> {
    let (lab, pods) = two_nodes(Topology::Routed, Underlay::Vxlan)?;
    let [a, _, c, _] = &*pods else { unreachable!("there are four pods") };
    let mut probes = Vec::new();
    for to in c.addresses() {
        probes.extend(
            [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| Probe::new(a, to, 9, protocol)),
        );
    }
    // Many at once: no rate limit may make a refusal look like a denial.
    let probes = vec![probes; 50].concat();
    let replies = lab.probe(&probes)?;
    assert!(replies.iter().all(|reply| reply.outcome == Outcome::Refused), "{replies:?}");
    Ok(())
}

#[test]
fn the_world_and_the_nodes_reach_pods_and_are_reached() -> Result<()> {
    let (lab, pods) = two_nodes(Topology::Bridge, Underlay::Vxlan)?;
    let [a, ..] = &*pods else { unreachable!("there are four pods") };
    let (world, node) = (lab.world(), lab.nodes().last().expect("there are two nodes"));
    lab.add_world_address("203.0.113.7".parse()?)?;
    lab.add_world_address("2001:db8::7".parse()?)?;
    world.serve(&[(Protocol::Tcp, PORT), (Protocol::Udp, PORT), (Protocol::Sctp, PORT)])?;
    node.serve(&[(Protocol::Tcp, PORT), (Protocol::Udp, PORT), (Protocol::Sctp, PORT)])?;
    let mut probes = Vec::new();
    for protocol in Protocol::ALL {
        for outside in world.addresses() {
            let of_family = if outside.is_ipv4() { a.ipv4() } else { a.ipv6() };
            probes.push(Probe::new(a, outside, PORT, protocol));
            probes.push(Probe::new(world, of_family, PORT, protocol).from_address(outside));
        }
        for address in node.addresses() {
            probes.push(Probe::new(a, address, PORT, protocol));
        }
        for address in a.addresses() {
            probes.push(Probe::new(node, address, PORT, protocol));
        }
    }
    assert_eq!(not_allowed(&lab, &probes)?, Vec::<String>::new());
    Ok(())
}

fn addresses_move_and_pods_go(topology: Topology) -> Result<()> {
    let (mut lab, pods) = two_nodes(topology, Underlay::HostGateway)?;
    let [a, b, c, d] = &*pods else { unreachable!("there are four pods") };
    let asked = a.addresses().into_iter().chain(b.addresses());
    let probes: Vec<_> =
        asked.flat_map(|to| [c, d].map(|from| Probe::new(from, to, PORT, Protocol::Udp))).collect();
    let servers = |lab: &Lab| -> Result<Vec<Option<String>>> {
        Ok(lab.probe(&probes)?.into_iter().map(|reply| reply.server).collect())
    };
    let (name_a, name_b) = (Some(a.name().to_owned()), Some(b.name().to_owned()));
    assert_eq!(servers(&lab)?, [vec![name_a.clone(); 4], vec![name_b.clone(); 4]].concat());
    lab.move_addresses(a, b)?;
    assert_eq!(servers(&lab)?, [vec![name_b; 4], vec![None; 4]].concat());
    assert_eq!((a.addresses().len(), b.addresses().len()), (0, 2));
    lab.remove(b)?;
    assert_eq!(servers(&lab)?, vec![None; 8]);
    assert_eq!(lab.pods().len(), 3);
    Ok(())
}

#[test]
fn addresses_move_and_pods_go_routed() -> Result<()> {
    addresses_move_and_pods_go(Topology::Routed)
}

#[test]
fn addresses_move_and_pods_go_bridged() -> Result<()> {
    addresses_move_and_pods_go(Topology::Bridge)
}

/// On a bridge with many pods the neighbours are fixed, and have to follow an address that moves.
#[test]
fn many_pods_share_a_bridge() -> Result<()> {
    let mut lab = Lab::new(Topology::Bridge, Underlay::HostGateway)?;
    let node = lab.node("node-1")?;
    for number in 0..12 {
        lab.pod(&node, &format!("default/{number}"))?
            .serve(&[(Protocol::Tcp, PORT), (Protocol::Udp, PORT)])?;
    }
    let pods = lab.pods().to_vec();
    let probes = || -> Vec<_> {
        all_pairs(&pods).into_iter().filter(|probe| !probe.to_string().ends_with("SCTP")).collect()
    };
    assert_eq!(not_allowed(&lab, &probes())?, Vec::<String>::new());
    let [first, .., last] = &*pods else { unreachable!("there are twelve pods") };
    lab.move_addresses(first, last)?;
    let from_others: Vec<_> =
        probes().into_iter().filter(|probe| !probe.to_string().starts_with("default/0 ")).collect();
    assert_eq!(from_others.len(), 11 * 11 * 2 * 3);
    assert_eq!(not_allowed(&lab, &from_others)?, Vec::<String>::new());
    Ok(())
}

/// Whether all veth pairs of a node have lost their other end, and with it themselves.
fn is_unplugged(node: &Namespace) -> Result<bool> {
    Ok(!node.feed("ip", &["-brief", "link", "show", "type", "veth"], "")?.contains('@'))
}

#[test]
fn a_lab_goes_when_it_is_dropped() -> Result<()> {
    let (lab, pods) = two_nodes(Topology::Routed, Underlay::Vxlan)?;
    assert_eq!(not_allowed(&lab, &all_pairs(&pods))?, Vec::<String>::new());
    let [a, ..] = &*pods else { unreachable!("there are four pods") };
    // Connections that nobody answers must not keep a namespace either.
    let _ = lab.connect(a, "203.0.113.1".parse()?, PORT, Protocol::Tcp)?;
    let node = a.node().namespace().clone();
    assert!(!is_unplugged(&node)?);
    drop((lab, pods));
    wait_until(|| is_unplugged(&node).unwrap_or(false))
}

/// The first lines of its output are the namespace of a node and a process in it.
#[test]
#[ignore = "the process that is killed in a_lab_goes_when_its_process_is_killed"]
fn a_lab_until_the_end_of_input() -> Result<()> {
    let (_lab, pods) = two_nodes(Topology::Bridge, Underlay::Vxlan)?;
    let node = pods.first().expect("there are four pods").node().namespace();
    let sleep = node.command("sleep").arg("600").spawn()?;
    println!("\n{}\n{}", node.path(), sleep.id());
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

#[test]
fn a_lab_goes_when_its_process_is_killed() -> Result<()> {
    let mut process = Command::new(std::env::current_exe()?)
        .args(["--exact", "a_lab_until_the_end_of_input", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
    let path = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("/proc/")));
    let node = Namespace::open(&path.expect("it says the path")?)?;
    let sleep = lines.next().expect("it says the process")?;
    let sleeps =
        || std::fs::read_to_string(format!("/proc/{sleep}/cmdline")).is_ok_and(|line| !line.is_empty());
    assert!(!is_unplugged(&node)? && sleeps());
    process.kill()?;
    process.wait()?;
    wait_until(|| is_unplugged(&node).unwrap_or(false) && !sleeps())
}
