//! What a node unpacks: by its devices (`linux/if_link.h`, `linux/if_tunnel.h`), and at the ports of FOU
//! (`linux/fou.h`, `linux/genetlink.h`).

use std::io;

use policy_compiler::model::{PortNumber, Tunnel};

use super::Socket;
use podfence_cni::netlink::{Attributes, Message};

const IFLA_BAREUDP_PORT: u16 = 1;
const IFLA_GENEVE_PORT: u16 = 5;
const IFLA_VXLAN_PORT: u16 = 15;

/// Where IP tunnels name a second encapsulation in UDP, and the port that it is sent to.
const IPTUN_ENCAPSULATION: [u16; 2] = [15, 18];
const GRE_ENCAPSULATION: [u16; 2] = [14, 17];

const IPIP: Tunnel = Tunnel::Protocol(4);
const IPV6: Tunnel = Tunnel::Protocol(41);
const GRE: Tunnel = Tunnel::Protocol(47);

/// The length of `struct genlmsghdr`.
const GENERIC: usize = 4;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const FOU_CMD_GET: u8 = 3;
const FOU_ATTR_PORT: u16 = 1;

/// What a device of a kind unpacks, by its `IFLA_INFO_DATA`. What authenticates its peers (`WireGuard`, `IPsec`)
/// is left out: a forged packet does not get through it.
pub(super) fn unpacked_by(kind: &str, data: Attributes<'_>) -> impl Iterator<Item = Tunnel> {
    let (protocols, encapsulation): (&[Tunnel], _) = match kind {
        "ipip" => (&[IPIP], Some(IPTUN_ENCAPSULATION)),
        "sit" | "ip6tnl" => (&[IPIP, IPV6], Some(IPTUN_ENCAPSULATION)),
        "gre" | "gretap" | "erspan" | "ip6gre" | "ip6gretap" | "ip6erspan" => {
            (&[GRE], Some(GRE_ENCAPSULATION))
        }
        _ => (&[], None),
    };
    let port = match (kind, encapsulation) {
        ("vxlan", _) => Some(IFLA_VXLAN_PORT),
        ("geneve", _) => Some(IFLA_GENEVE_PORT),
        ("bareudp", _) => Some(IFLA_BAREUDP_PORT),
        (_, Some([encapsulated, port])) => {
            data.get(encapsulated).filter(|value| value.iter().any(|byte| *byte != 0)).map(|_| port)
        }
        _ => None,
    };
    protocols.iter().copied().chain(port.and_then(|port| udp(data, port)))
}

fn udp(attributes: Attributes<'_>, port: u16) -> Option<Tunnel> {
    let port = attributes.get(port)?.try_into().ok().map(u16::from_be_bytes)?;
    PortNumber::new(port).map(Tunnel::Udp)
}

impl Socket {
    /// The ports at which FOU and GUE packets are unpacked.
    pub(crate) fn fou_ports(&mut self) -> io::Result<Vec<Tunnel>> {
        // To ask for the family by its name would make the kernel load the module.
        let families = self.list(GENL_ID_CTRL, &header(CTRL_CMD_GETFAMILY), &[], |family| {
            let attributes = family.attributes_behind(GENERIC);
            let is_fou = attributes.text(CTRL_ATTR_FAMILY_NAME) == Some("fou");
            let identifier = attributes.get(CTRL_ATTR_FAMILY_ID).filter(|_| is_fou)?;
            identifier.try_into().ok().map(u16::from_ne_bytes)
        })?;
        let Some(family) = families.first() else { return Ok(Vec::new()) };
        self.list(*family, &header(FOU_CMD_GET), &[], fou_port)
    }
}

fn fou_port(message: &Message<'_>) -> Option<Tunnel> {
    udp(message.attributes_behind(GENERIC), FOU_ATTR_PORT)
}

fn header(command: u8) -> [u8; GENERIC] {
    [command, 1, 0, 0]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use podfence_cni::netlink;

    fn port(number: u16) -> Tunnel {
        Tunnel::Udp(PortNumber::new(number).unwrap())
    }

    #[test]
    fn each_kind_of_device_unpacks_its_encapsulation() {
        type Case<'a> = (&'a str, &'a [(u16, &'a [u8])], &'a [Tunnel]);
        let number = 5555u16.to_be_bytes();
        let fou = 1u16.to_ne_bytes();
        let none = 0u16.to_ne_bytes();
        let cases: &[Case<'_>] = &[
            ("vxlan", &[(15, &number)], &[port(5555)]),
            ("vxlan", &[], &[]),
            ("vxlan", &[(15, &[0, 0])], &[]),
            ("geneve", &[(5, &number)], &[port(5555)]),
            ("bareudp", &[(1, &number)], &[port(5555)]),
            ("ipip", &[], &[IPIP]),
            ("ipip", &[(15, &fou), (18, &number)], &[IPIP, port(5555)]),
            ("ipip", &[(15, &none), (18, &number)], &[IPIP]),
            ("sit", &[], &[IPIP, IPV6]),
            ("ip6tnl", &[(15, &fou), (18, &number)], &[IPIP, IPV6, port(5555)]),
            ("gre", &[], &[GRE]),
            ("gretap", &[(14, &fou), (17, &number)], &[GRE, port(5555)]),
            ("erspan", &[(14, &none), (17, &number)], &[GRE]),
            ("ip6gre", &[], &[GRE]),
            ("ip6gretap", &[], &[GRE]),
            ("ip6erspan", &[], &[GRE]),
            ("wireguard", &[(15, &number)], &[]),
            ("veth", &[], &[]),
            ("", &[], &[]),
        ];
        for (kind, attributes, expected) in cases {
            let mut data = Vec::new();
            netlink::write_attributes(&mut data, attributes);
            let unpacked: BTreeSet<_> = unpacked_by(kind, Attributes(&data)).collect();
            assert_eq!(unpacked, expected.iter().copied().collect(), "{kind} {attributes:?}");
        }
    }

    #[test]
    fn a_port_of_fou_is_read() {
        let mut buffer = Vec::new();
        let header = netlink::Header { kind: 30, flags: 0, sequence: 1, structure: &header(1) };
        netlink::write(&mut buffer, &header, &[(FOU_ATTR_PORT, &5555u16.to_be_bytes())]);
        let message = netlink::messages(&buffer).next().unwrap();
        assert_eq!(fou_port(&message), Some(port(5555)));
    }
}
