//! A node: the namespace that forwards the packets of its pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use crate::endpoint::Endpoint;
use crate::lab::{QUIET_NETWORK, Topology, Underlay};
use crate::link::LinkAddress;
use crate::namespace::Namespace;

/// The bridge of a node's pods.
const BRIDGE: &str = "pods";

/// The gateway of a routed pod: an address that nobody has, for which the node answers (proxy ARP).
const ROUTED_GATEWAY4: &str = "169.254.1.1";
/// The link-local address of the node's end of every routed pod's link.
const ROUTED_GATEWAY6: &str = "fe80::1";

/// The numbers that pods get: .0 is the range, .1 the node.
const POD_NUMBERS: std::ops::RangeInclusive<u8> = 2..=251;

/// Parameters (below `/proc/sys/net`) of a namespace that forwards.
pub(crate) const FORWARDING: &str = "\
ipv4/ip_forward 1
ipv4/conf/all/send_redirects 0
ipv4/conf/default/send_redirects 0
ipv6/conf/all/forwarding 1
ipv6/conf/default/forwarding 1
";

/// A node of the cluster. A handle: clones mean the same node.
#[derive(Debug, Clone)]
pub struct Node {
    endpoint: Endpoint,
    number: u8,
    topology: Topology,
    underlay: Underlay,
    next_pod: Arc<AtomicU8>,
}

impl Deref for Node {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Node {
    /// Makes node `number` and plugs it into the LAN, which is a bridge in the world's namespace.
    pub(crate) fn new(
        name: &str,
        number: u8,
        topology: Topology,
        underlay: Underlay,
        world: &Endpoint,
    ) -> Result<Self> {
        let endpoint = Endpoint::new(name, Namespace::new()?);
        let node =
            Self { endpoint, number, topology, underlay, next_pod: Arc::new((*POD_NUMBERS.start()).into()) };
        let (ipv4, ipv6) = (node.lan_ipv4(), node.lan_ipv6());
        let (pods4, pods6) = node.pod_ranges();

        node.namespace().sysctl(QUIET_NETWORK)?;
        node.namespace().sysctl(FORWARDING)?;
        world.namespace().ip(&format!(
            "link add node{number} type veth peer name lan netns {path}\n\
             link set node{number} master lan up\n\
             route add {pods4} via {ipv4}\n\
             route add {pods6} via {ipv6}\n",
            path = node.namespace().path()
        ))?;
        node.namespace().ip(&format!(
            "link set lo up\n\
             address add {ipv4}/24 dev lan\n\
             address add {ipv6}/64 dev lan nodad\n\
             link set lan up\n\
             route add default via {}\n\
             route add ::/0 via {}\n",
            world.ipv4(),
            world.ipv6()
        ))?;
        if topology == Topology::Bridge {
            node.raise_bridge()?;
        }
        if underlay == Underlay::Vxlan {
            node.raise_tunnel()?;
        }
        world.namespace().wait_for_link(&format!("node{number}"))?;
        node.namespace().wait_for_link("lan")?;
        node.namespace().wait_for_addresses()?;
        node.set_addresses(vec![ipv4.into(), ipv6.into()])?;
        Ok(node)
    }

    /// The bridge of the pods, which calls netfilter for every packet between two of them.
    fn raise_bridge(&self) -> Result<()> {
        self.namespace().sysctl("bridge/bridge-nf-call-iptables 1\nbridge/bridge-nf-call-ip6tables 1").context(
            "packets between ports of a bridge do not reach nf_tables: load the kernel module br_netfilter",
        )?;
        let (ipv4, ipv6) = self.pod_addresses(1);
        self.namespace().ip(&format!(
            "link add {BRIDGE} type bridge mcast_snooping 0\n\
             address add {ipv4}/24 dev {BRIDGE}\n\
             address add {ipv6}/64 dev {BRIDGE} nodad\n\
             link set {BRIDGE} up\n"
        ))
    }

    fn raise_tunnel(&self) -> Result<()> {
        self.namespace().ip(&format!(
            "link add vxlan address {link} type vxlan id 42 local {local} dev lan dstport 8472 nolearning\n\
             link set vxlan addrgenmode none\n\
             address add {inner}/64 dev vxlan nodad\n\
             link set vxlan up\n",
            link = self.tunnel_link_address(),
            local = self.lan_ipv4(),
            inner = self.tunnel_address(),
        ))
    }

    /// Routes the pods of `peer` to it.
    pub(crate) fn add_peer(&self, peer: &Self) -> Result<()> {
        let (pods4, pods6) = peer.pod_ranges();
        match self.underlay {
            Underlay::HostGateway => self.namespace().ip(&format!(
                "route add {pods4} via {}\nroute add {pods6} via {}\n",
                peer.lan_ipv4(),
                peer.lan_ipv6()
            )),
            Underlay::Vxlan => {
                let (link, inner) = (peer.tunnel_link_address(), peer.tunnel_address());
                let forwarding = format!("fdb append {link} dev vxlan dst {}\n", peer.lan_ipv4());
                self.namespace().feed("bridge", &["-batch", "-"], &forwarding)?;
                self.namespace().ip(&format!(
                    "neigh add {inner} lladdr {link} dev vxlan nud permanent\n\
                     route add {pods4} via inet6 {inner} dev vxlan\n\
                     route add {pods6} via {inner} dev vxlan\n"
                ))
            }
        }
    }

    /// Its addresses on the bridge of its pods, which lie in the pods' ranges; none where pods are routed.
    pub fn bridge_addresses(&self) -> Vec<IpAddr> {
        let (ipv4, ipv6) = self.pod_addresses(1);
        match self.topology {
            Topology::Bridge => vec![ipv4.into(), ipv6.into()],
            Topology::Routed => Vec::new(),
        }
    }

    /// Listens on more addresses. Those that it does not have it gets on its loopback device: from outside they are
    /// as those of a dummy device, where DNS caches listen.
    ///
    /// # Errors
    /// An address is taken.
    pub fn add_addresses(&self, addresses: &[IpAddr]) -> Result<()> {
        let bridge = self.bridge_addresses();
        for address in addresses.iter().filter(|address| !bridge.contains(address)) {
            let suffix = if address.is_ipv4() { "/32" } else { "/128 nodad" };
            self.namespace().ip(&format!("address add {address}{suffix} dev lo\n"))?;
        }
        self.namespace().wait_for_addresses()?;
        self.set_addresses([self.addresses(), addresses.to_vec()].concat())
    }

    /// Gives out the next pod's number.
    pub(crate) fn new_pod_number(&self) -> Result<u8> {
        let after = |number| POD_NUMBERS.contains(&number).then(|| number + 1);
        let number = self.next_pod.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        number.map_err(|_| anyhow!("node {} is full", self.name()))
    }

    /// Plugs the end `eth0` of a new veth pair into a pod's namespace.
    pub(crate) fn plug(&self, link: &str, pod: &Namespace, number: u8) -> Result<()> {
        let (address, inside) = (self.pod_link_address(number), pod.path());
        let pair = format!("link add {link} type veth peer name eth0 address {address} netns {inside}\n");
        match self.topology {
            Topology::Bridge => self.namespace().ip(&format!(
                "{pair}\
                 link set {link} addrgenmode none master {BRIDGE} up\n\
                 link set {link} type bridge_slave hairpin on\n"
            )),
            Topology::Routed => {
                self.namespace().ip(&format!(
                    "{pair}\
                     link set {link} addrgenmode none up\n\
                     address add {ROUTED_GATEWAY6}/64 dev {link} nodad\n"
                ))?;
                self.namespace()
                    .sysctl(&format!("ipv4/conf/{link}/proxy_arp 1\nipv4/neigh/{link}/proxy_delay 0"))
            }
        }
    }

    /// Takes a pod's link away.
    pub(crate) fn unplug(&self, link: &str) -> Result<()> {
        self.namespace().ip(&format!("link delete {link}\n"))
    }

    /// Makes `addresses` those of the pod behind `link`, in place of the ones that it had.
    pub(crate) fn assign(&self, link: &str, pod: &Namespace, addresses: &[IpAddr]) -> Result<()> {
        let mtu = self.pod_mtu();
        let inside: String = addresses.iter().map(|address| self.inside_pod(*address)).collect();
        pod.ip(&format!(
            "link set lo up\nlink set eth0 mtu {mtu} up\naddress flush dev eth0 scope global\n{inside}"
        ))?;
        if self.topology == Topology::Routed {
            // What a pod has lost may be routed to another one by now.
            self.namespace().ip(&format!("route flush dev {link} scope link\n"))?;
            let routes: Vec<_> =
                addresses.iter().map(|to| format!("route replace {to} dev {link}\n")).collect();
            self.namespace().ip(&routes.concat())?;
        }
        for (namespace, link) in [(self.namespace(), link), (pod, "eth0")] {
            namespace.wait_for_link(link)?;
            namespace.wait_for_addresses()?;
        }
        Ok(())
    }

    /// What a pod must configure to use an address.
    fn inside_pod(&self, address: IpAddr) -> String {
        let (gateway4, gateway6) = self.pod_addresses(1);
        match (self.topology, address) {
            (Topology::Bridge, IpAddr::V4(_)) => {
                format!("address add {address}/24 dev eth0\nroute replace default via {gateway4}\n")
            }
            (Topology::Bridge, IpAddr::V6(_)) => {
                format!("address add {address}/64 dev eth0 nodad\nroute replace ::/0 via {gateway6}\n")
            }
            (Topology::Routed, IpAddr::V4(_)) => format!(
                "address add {address}/32 dev eth0\n\
                 route replace {ROUTED_GATEWAY4} dev eth0 scope link\n\
                 route replace default via {ROUTED_GATEWAY4} dev eth0\n"
            ),
            (Topology::Routed, IpAddr::V6(_)) => format!(
                "address add {address}/128 dev eth0 nodad\nroute replace ::/0 via {ROUTED_GATEWAY6} dev eth0\n"
            ),
        }
    }

    /// The addresses of pod `number` of this node.
    pub(crate) fn pod_addresses(&self, number: u8) -> (Ipv4Addr, Ipv6Addr) {
        (
            Ipv4Addr::new(10, 244, self.number, number),
            Ipv6Addr::new(0xfd44, 0, 0, self.number.into(), 0, 0, 0, number.into()),
        )
    }

    /// The link address of pod `number` of this node.
    pub(crate) fn pod_link_address(&self, number: u8) -> LinkAddress {
        LinkAddress([0x02, 0x44, 0, 0, self.number, number])
    }

    /// The Node object of the API, in JSON (which is YAML too).
    pub fn manifest(&self) -> Value {
        let addresses = self.addresses();
        let addresses = addresses.iter().map(|address| json!({ "type": "InternalIP", "address": address }));
        let (ipv4, ipv6) = self.pod_ranges();
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": self.name() },
            "spec": { "podCIDR": ipv4, "podCIDRs": [ipv4, ipv6] },
            "status": { "addresses": addresses.collect::<Vec<_>>() },
        })
    }

    /// The ranges of the pods' addresses (`spec.podCIDRs`), of IPv4 and of IPv6.
    fn pod_ranges(&self) -> (String, String) {
        let (ipv4, ipv6) = self.pod_addresses(0);
        (format!("{ipv4}/24"), format!("{ipv6}/64"))
    }

    /// What fits through the tunnel in one piece, bytes.
    fn pod_mtu(&self) -> u16 {
        match self.underlay {
            Underlay::Vxlan => 1450,
            Underlay::HostGateway => 1500,
        }
    }

    fn lan_ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 77, self.number)
    }

    fn lan_ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.number.into())
    }

    fn tunnel_address(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, self.number.into())
    }

    fn tunnel_link_address(&self) -> LinkAddress {
        LinkAddress([0x02, 0, 0, 0, 0, self.number])
    }
}
