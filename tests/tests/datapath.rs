//! Nodes whose packets bypass the rules: the agent mends what it can, and reports the rest.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::testbed::wait_until;
use lab::{Agent, Lab, Manifests, Node, Outcome, Pod, Probe, Protocol, Topology, Underlay};

const PORT: u16 = 8080;

/// The longest that anything may take.
const BOUND: Duration = Duration::from_secs(30);

const DENY_ALL: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { namespace: default, name: deny-all }
spec: { podSelector: {} }
---
apiVersion: v1
kind: Namespace
metadata: { name: default }
";

/// A node with two pods, under a policy that denies all.
fn isolated_pods(topology: Topology) -> Result<(Lab, Node, [Pod; 2], Manifests)> {
    let mut lab = Lab::new(topology, Underlay::HostGateway)?;
    let node = lab.node("node-1")?;
    let pods = [lab.pod(&node, "default/a")?, lab.pod(&node, "default/b")?];
    let manifests = Manifests::new()?;
    manifests.write("policy.yaml", DENY_ALL)?;
    for pod in &pods {
        pod.serve(&[(Protocol::Tcp, PORT)])?;
        write(&manifests, pod)?;
    }
    Ok((lab, node, pods, manifests))
}

fn write(manifests: &Manifests, pod: &Pod) -> Result<()> {
    let file = format!("{}.json", pod.name().replace('/', "-"));
    manifests.write(&file, &pod.manifest(&[], &[]).to_string())
}

fn problems(agent: &Agent, kind: &str) -> Result<u64> {
    agent.metric(&format!("podfence_datapath_problems{{problem=\"{kind}\"}}"))
}

#[test]
fn a_bridge_that_hides_its_packets_is_made_to_show_them() -> Result<()> {
    let (lab, node, [a, b], manifests) = isolated_pods(Topology::Bridge)?;
    let probes = b.addresses().into_iter().map(|to| Probe::new(&a, to, PORT, Protocol::Tcp));
    let probes: Vec<_> = probes.collect();
    node.namespace().nft(&format!(
        "table inet deny {{ chain c {{ type filter hook forward priority 0; tcp dport {PORT} drop; }}; }}"
    ))?;
    for reply in lab.probe(&probes)? {
        assert_eq!(reply.outcome, Outcome::Denied, "the bridge of a lab shows its packets");
    }
    node.namespace().sysctl("bridge/bridge-nf-call-iptables 0\nbridge/bridge-nf-call-ip6tables 0")?;
    for reply in lab.probe(&probes)? {
        assert_eq!(reply.outcome, Outcome::Allowed, "this one hides them");
    }
    node.namespace().nft("delete table inet deny")?;

    let mut agent = Agent::start(&node, manifests.path())?;
    agent.wait_ready(BOUND)?;
    for probe in &probes {
        lab.wait_for(probe, Outcome::Denied, BOUND)?;
    }
    for reply in lab.probe(&probes)? {
        assert_eq!(reply.outcome, Outcome::Denied);
    }
    assert_eq!(agent.get("/readyz")?.0, 200);
    for (kind, family) in [("blind_bridge", "IPv4"), ("no_bridge_netfilter", "IPv6")] {
        assert_eq!(problems(&agent, kind)?, 0);
        assert!(agent.log()?.contains(&format!("bridge=\"pods\" family=\"{family}\"")), "{}", agent.log()?);
    }
    Ok(())
}

#[track_caller]
fn a_node_that_does_not_forward_is_not_ready(parameter: &str, name: &str) -> Result<()> {
    let (mut lab, node, _, manifests) = isolated_pods(Topology::Routed)?;
    node.namespace().sysctl(&format!("{parameter} 0"))?;
    let mut agent = Agent::start(&node, manifests.path())?;
    agent.wait_unready(&format!("{name}=1"), BOUND)?;
    assert_eq!(problems(&agent, "no_forwarding")?, 1);

    node.namespace().sysctl(&format!("{parameter} 1"))?;
    // A pod that comes is reason enough to look again.
    write(&manifests, &lab.pod(&node, "default/c")?)?;
    agent.wait_ready(BOUND)?;
    assert_eq!(problems(&agent, "no_forwarding")?, 0);
    Ok(())
}

#[test]
fn a_node_that_does_not_forward_ipv4_is_not_ready() -> Result<()> {
    a_node_that_does_not_forward_is_not_ready("ipv4/ip_forward", "net.ipv4.ip_forward")
}

#[test]
fn a_node_that_does_not_forward_ipv6_is_not_ready() -> Result<()> {
    a_node_that_does_not_forward_is_not_ready("ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding")
}

#[test]
fn a_device_of_an_unknown_kind_is_reported_and_the_agent_stays_ready() -> Result<()> {
    let (_lab, node, [pod, _], manifests) = isolated_pods(Topology::Routed)?;
    node.namespace()
        .ip(&format!("link add odd type ifb\nlink set odd up\nroute replace {}/32 dev odd", pod.ipv4()))?;
    let mut agent = Agent::start(&node, manifests.path())?;
    agent.wait_ready(BOUND)?;
    wait_until(BOUND, || {
        ensure!(problems(&agent, "unknown_device")? == 1, "{}", agent.log()?);
        Ok(())
    })?;
    assert!(
        agent.log()?.contains("behind odd traverse the rules: ifb is a kind of device"),
        "{}",
        agent.log()?
    );
    assert_eq!(agent.get("/readyz")?.0, 200);
    Ok(())
}
