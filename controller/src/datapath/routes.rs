//! Routes and devices, as the kernel has them (`linux/rtnetlink.h`, `linux/if_link.h`).

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use nftnl::nftnl_sys::libc;
use policy_compiler::model::Family;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::netlink::{self, Attributes, Header, Message, messages, native_u32};

/// The answers here describe one route or one device.
const BUFFER: usize = 1 << 16;

/// The length of `struct rtmsg`, and where its type stands.
const ROUTE: usize = 12;
const ROUTE_TYPE: usize = 7;

/// The length of `struct ifinfomsg`, and where the index of the device stands.
const LINK: usize = 16;
const LINK_INDEX: usize = 4;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;

const IFLA_BR_NF_CALL_IPTABLES: u16 = 36;
const IFLA_BR_NF_CALL_IP6TABLES: u16 = 37;

/// The routes and devices of a network namespace: the one of the thread that opens it.
pub(crate) struct Routes {
    socket: OwnedFd,
    sequence: u32,
}

/// A device.
pub(super) struct Link {
    pub(super) name: String,
    /// As `ip link` names it behind `type`; empty for a device of hardware.
    pub(super) kind: String,
    calls_netfilter: Vec<Family>,
}

impl Link {
    /// Whether this bridge shows packets of a family to netfilter, whatever others do.
    pub(super) fn calls_netfilter(&self, family: Family) -> bool {
        self.calls_netfilter.contains(&family)
    }
}

impl Routes {
    /// # Errors
    ///
    /// If there is no rtnetlink.
    pub(crate) fn open() -> io::Result<Self> {
        // Protocol 0 is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The index of the device by which packets to an address leave; `None` if they do not.
    pub(super) fn device_to(&mut self, address: IpAddr) -> io::Result<Option<u32>> {
        let octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let family = match address {
            IpAddr::V4(_) => libc::AF_INET,
            IpAddr::V6(_) => libc::AF_INET6,
        };
        let mut route = [0; ROUTE];
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "2 or 10; 4 or 16, times 8"
        )]
        let start = [family as u8, octets.len() as u8 * 8];
        route[..2].copy_from_slice(&start);
        let found = self.request(libc::RTM_GETROUTE, &route, &[(libc::RTA_DST, &octets)], |answer| {
            let unicast = answer.payload.get(ROUTE_TYPE) == Some(&libc::RTN_UNICAST);
            let device = answer.attributes_behind(ROUTE).get(libc::RTA_OIF);
            device.and_then(|index| native_u32(index, 0)).filter(|_| unicast)
        });
        match found.map_err(|error| (error.raw_os_error(), error)) {
            Ok(device) => Ok(device.flatten()),
            // What the route says: nothing leaves, or nothing may.
            Err((Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL), _)) => Ok(None),
            Err((_, error)) => Err(error),
        }
    }

    /// What the device of an index is; `None` if it is gone.
    pub(super) fn link(&mut self, index: u32) -> io::Result<Option<Link>> {
        match self.request(libc::RTM_GETLINK, &link_header(index), &[], |answer| {
            let attributes = answer.attributes_behind(LINK);
            let information = attributes.nested(libc::IFLA_LINKINFO).unwrap_or_default();
            let data = information.nested(libc::IFLA_INFO_DATA).unwrap_or_default();
            let text =
                |attributes: Attributes<'_>, kind| attributes.text(kind).unwrap_or_default().to_owned();
            let calls = |family: &Family| data.get(netfilter_attribute(*family)) == Some(&[1]);
            Link {
                name: text(attributes, libc::IFLA_IFNAME),
                kind: text(information, libc::IFLA_INFO_KIND),
                calls_netfilter: [Family::Ipv4, Family::Ipv6].into_iter().filter(calls).collect(),
            }
        }) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            link => link,
        }
    }

    /// Makes a bridge show packets of a family to netfilter. Needs `CAP_NET_ADMIN`, and `br_netfilter` to have
    /// an effect.
    pub(super) fn call_netfilter(&mut self, bridge: u32, family: Family) -> io::Result<()> {
        let (mut data, mut information) = (Vec::new(), Vec::new());
        netlink::write_attributes(&mut data, &[(netfilter_attribute(family), &[1])]);
        netlink::write_attributes(
            &mut information,
            &[(libc::IFLA_INFO_KIND, b"bridge\0"), (libc::IFLA_INFO_DATA, &data)],
        );
        let attributes: [(u16, &[u8]); 1] = [(libc::IFLA_LINKINFO, &information)];
        self.request(libc::RTM_NEWLINK, &link_header(bridge), &attributes, |_| ()).map(drop)
    }

    /// Sends a request and returns what `read` makes of the answer, if there is one besides the
    /// acknowledgement.
    fn request<T>(
        &mut self,
        kind: u16,
        structure: &[u8],
        attributes: &[(u16, &[u8])],
        read: impl Fn(&Message<'_>) -> T,
    ) -> io::Result<Option<T>> {
        self.sequence = self.sequence.wrapping_add(1);
        let header = Header { kind, flags: NLM_F_REQUEST | NLM_F_ACK, sequence: self.sequence, structure };
        let mut request = Vec::new();
        netlink::write(&mut request, &header, attributes);
        send(&self.socket, &request, SendFlags::empty())?;
        let mut answer = None;
        let mut buffer = vec![0; BUFFER];
        // The kernel has answered when `send` returns.
        loop {
            let length = match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, length)) => length,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for message in messages(buffer.get(..length).unwrap_or_default()) {
                match message.errno() {
                    _ if message.sequence != self.sequence => {}
                    None => answer = Some(read(&message)),
                    Some(0) => return Ok(answer),
                    Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                }
            }
        }
    }
}

fn link_header(index: u32) -> [u8; LINK] {
    let mut link = [0; LINK];
    link[LINK_INDEX..LINK_INDEX + 4].copy_from_slice(&index.to_ne_bytes());
    link
}

fn netfilter_attribute(family: Family) -> u16 {
    match family {
        Family::Ipv4 => IFLA_BR_NF_CALL_IPTABLES,
        Family::Ipv6 => IFLA_BR_NF_CALL_IP6TABLES,
    }
}
