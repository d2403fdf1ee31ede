//! The pods between which everything is tried.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Result, bail};
use lab::frame::Frame;
use lab::testbed::{Testbed, policy};
use lab::{LinkAddress, Packet, Pod, Protocol, Token, Topology, Try, Underlay, Wire, arrivals};
use serde_json::json;

/// Where servers let friends in, by TCP and UDP.
pub(crate) const PORT: u16 = 8080;

/// Where nobody is let in.
pub(crate) const OTHER_PORT: u16 = 9090;

/// Two nodes. Servers are isolated for ingress and let friends in, the jailed pod is isolated for egress and may
/// reach nobody, and no policy selects the others.
pub(crate) struct Scene {
    pub(crate) testbed: Testbed,
    pub(crate) topology: Topology,
    pub(crate) server: Pod,
    pub(crate) friend: Pod,
    pub(crate) stranger: Pod,
    pub(crate) jailed: Pod,
    pub(crate) open: Pod,
    /// A server on the second node.
    pub(crate) far: Pod,
    /// A friend on the second node.
    pub(crate) far_friend: Pod,
}

impl Scene {
    pub(crate) fn raise(topology: Topology) -> Result<Self> {
        let mut testbed = Testbed::new(topology, Underlay::Vxlan, &["node-1", "node-2"])?;
        let mut pod = |node, name| testbed.pod(node, name, &[PORT, OTHER_PORT]);
        let (server, far) = (pod("node-1", "shop/server")?, pod("node-2", "shop/far")?);
        let (friend, far_friend) = (pod("node-1", "shop/friend")?, pod("node-2", "shop/far-friend")?);
        let (stranger, jailed) = (pod("node-1", "shop/stranger")?, pod("node-1", "shop/jailed")?);
        let open = pod("node-1", "shop/open")?;
        for pod in [&server, &far] {
            testbed.put(&pod.manifest(&[("tier", "server")], &[]))?;
        }
        for pod in [&friend, &far_friend] {
            testbed.put(&pod.manifest(&[("app", "friend")], &[]))?;
        }
        let servers = json!({"matchLabels": {"tier": "server"}});
        testbed.put(&policy("shop", "deny", &json!({"podSelector": servers, "policyTypes": ["Ingress"]})))?;
        let friends = json!({
            "podSelector": servers,
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "friend"}}}],
                "ports": [{"port": PORT}, {"port": PORT, "protocol": "UDP"}],
            }],
        });
        testbed.put(&policy("shop", "friends", &friends))?;
        let jail = json!({"podSelector": {"matchLabels": {"app": "jailed"}}, "policyTypes": ["Egress"]});
        testbed.put(&policy("shop", "jail", &jail))?;
        Ok(Self { testbed, topology, server, friend, stranger, jailed, open, far, far_friend })
    }

    pub(crate) fn bridged(&self) -> bool {
        self.topology == Topology::Bridge
    }

    /// A pod's own end of its link.
    pub(crate) fn wire(pod: &Pod) -> Result<Wire> {
        Wire::open(pod.namespace(), "eth0")
    }

    /// The link address of the node, as a pod sees it.
    pub(crate) fn gateway(&self, pod: &Pod) -> Result<LinkAddress> {
        let device = if self.bridged() { "pods".to_owned() } else { pod.link() };
        pod.node().namespace().link_address(&device)
    }

    /// Where a pod sends the frames of packets to another one of its node.
    pub(crate) fn next_hop(&self, from: &Pod, to: &Pod) -> Result<LinkAddress> {
        if self.bridged() { Ok(to.link_address()) } else { self.gateway(from) }
    }

    /// Checks that every try arrives where there is no agent and none where there are some.
    pub(crate) fn assert_shut(&self, tries: &[Try]) -> Result<()> {
        assert_arrive(tries, "without agents")?;
        let _agents = self.testbed.start_agents()?;
        assert_shut(tries)
    }
}

/// Checks that none of the tries arrives.
pub(crate) fn assert_shut(tries: &[Try]) -> Result<()> {
    assert_eq!(of_outcome(tries, true)?, Vec::<String>::new(), "arrived, of {}", tries.len());
    Ok(())
}

/// Checks that all of the tries arrive.
pub(crate) fn assert_arrive(tries: &[Try], when: &str) -> Result<()> {
    assert_eq!(of_outcome(tries, false)?, Vec::<String>::new(), "not arrived {when}, of {}", tries.len());
    Ok(())
}

/// The tries that arrived, or those that did not.
fn of_outcome(tries: &[Try], arrived: bool) -> Result<Vec<String>> {
    let outcomes = tries.iter().zip(arrivals(tries)?);
    Ok(outcomes.filter(|(_, outcome)| *outcome == arrived).map(|(one, _)| one.name().to_owned()).collect())
}

/// The two addresses of a frame.
#[derive(Clone, Copy)]
pub(crate) struct Links {
    pub(crate) from: LinkAddress,
    pub(crate) to: LinkAddress,
}

/// The first packet of a connection to a port, from a source port of its own.
pub(crate) fn opening(protocol: Protocol, from: IpAddr, to: IpAddr, port: u16, token: Token) -> Packet {
    let from = SocketAddr::new(from, token.port());
    Packet::opening(protocol, from, SocketAddr::new(to, port), token)
}

/// A try of one connection's first packet, in one frame.
pub(crate) fn open_by_frame(
    name: &str,
    (wire, links): (&Wire, Links),
    (from, to, port): (IpAddr, IpAddr, u16),
    protocol: Protocol,
    witness: &Pod,
) -> Try {
    let name = format!("{name}: {from} -> {to} {port}/{protocol} at {}", witness.name());
    Try::frames(name, witness, wire, move |token| {
        [Frame::of_packet(links.from, links.to, &opening(protocol, from, to, port, token))]
    })
}

/// The IPv6 address of a pod.
pub(crate) fn ipv6_of(pod: &Pod) -> Result<Ipv6Addr> {
    match pod.ipv6() {
        IpAddr::V6(address) => Ok(address),
        IpAddr::V4(_) => bail!("{} has no IPv6 address", pod.name()),
    }
}

/// The group in which the owner of an address is asked for its link address (RFC 4291, 2.7.1).
pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., b, c, d] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, u16::from_be_bytes([0xff, b]), u16::from_be_bytes([c, d]))
}
