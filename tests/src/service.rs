//! Services: addresses that the nodes translate to a pod's (DNAT), as kube-proxy does it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::pod::Pod;
use crate::probe::Protocol;

/// A Service with a cluster IP of each family and one port.
#[derive(Debug, Clone)]
pub struct Service {
    /// `spec.clusterIPs`, the IPv4 one.
    pub ipv4: IpAddr,
    /// `spec.clusterIPs`, the IPv6 one.
    pub ipv6: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) target_port: u16,
    pub(crate) backends: Vec<Pod>,
}

impl Service {
    pub(crate) fn addresses(number: u8) -> (IpAddr, IpAddr) {
        (
            Ipv4Addr::new(10, 96, 0, number).into(),
            Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, number.into()).into(),
        )
    }
}

/// The nft commands that make these Services, and no others, work on a node: the destination becomes that of a
/// backend, each in turn; only a pod that reaches itself gets the node as its source, since it would answer
/// itself otherwise.
pub(crate) fn table(services: &[Service]) -> String {
    let translations: String = services.iter().map(translations).collect();
    let hairpins: String = services.iter().flat_map(|service| &service.backends).map(hairpins).collect();
    format!(
        "table inet lab_service
         delete table inet lab_service
         table inet lab_service {{
           chain services {{
             {translations}
           }}
           chain prerouting {{
             type nat hook prerouting priority dstnat
             jump services
           }}
           chain output {{
             type nat hook output priority -100
             jump services
           }}
           chain postrouting {{
             type nat hook postrouting priority srcnat
             {hairpins}
           }}
         }}"
    )
}

fn translations(service: &Service) -> String {
    let Service { ipv4, ipv6, protocol, port, target_port, .. } = service;
    let protocol = protocol.to_string().to_lowercase();
    let rule = |family: &str, address: &IpAddr| {
        let of_family = |pod: &Pod| pod.addresses().into_iter().find(|of| of.is_ipv4() == address.is_ipv4());
        let backends: Vec<_> = service.backends.iter().filter_map(of_family).collect();
        let elements: Vec<_> =
            backends.iter().enumerate().map(|(index, to)| format!("{index} : {to}")).collect();
        if backends.is_empty() {
            return String::new();
        }
        format!(
            "{family} daddr {address} {protocol} dport {port} \
             dnat {family} to numgen inc mod {} map {{ {} }} : {target_port}\n",
            backends.len(),
            elements.join(", ")
        )
    };
    rule("ip", ipv4) + &rule("ip6", ipv6)
}

fn hairpins(pod: &Pod) -> String {
    let rule = |address: &IpAddr| {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        format!("ct status dnat {family} saddr {address} {family} daddr {address} masquerade\n")
    };
    pod.addresses().iter().map(rule).collect()
}
