//! Fixed neighbours, for clusters that are too large to let pods ask for each other.
//!
//! The kernel's table of neighbours that were asked for has room for about 1,024 (`gc_thresh3`), which all
//! namespaces of the machine share. A fixed neighbour takes none of it.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send,
    socket_with,
};

use crate::link::LinkAddress;
use crate::namespace::Namespace;

// linux/netlink.h, linux/rtnetlink.h and linux/neighbour.h.
const NETLINK_ROUTE: Option<Protocol> = None;
const RTM_NEWNEIGH: u16 = 28;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NUD_PERMANENT: u16 = 0x80;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Fixes the neighbours of a pod: these addresses are at these link addresses from now on.
pub(crate) fn fix(pod: &Namespace, neighbours: &[(IpAddr, LinkAddress)]) -> Result<()> {
    pod.run(|| {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, NETLINK_ROUTE)?;
        let device = netdevice::name_to_index(&socket, "eth0")?;
        for (address, link) in neighbours {
            send(&socket, &new_neighbour(device, *address, *link), SendFlags::empty())?;
            let mut answer = [0; 1024];
            let length = recv(&socket, &mut answer, RecvFlags::empty())?.0;
            // struct nlmsgerr behind the header: 0, or an errno with its sign turned.
            let error =
                answer.get(16..20).filter(|_| length >= 20).context("netlink's answer is too short")?;
            ensure!(error == [0; 4], "cannot fix the neighbour {address}: error {error:?}");
        }
        Ok(())
    })
}

fn new_neighbour(device: u32, address: IpAddr, link: LinkAddress) -> Vec<u8> {
    let (family, octets) = match address {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    };
    // struct ndmsg: family, padding, device, state, flags, type.
    let mut body = vec![family, 0, 0, 0];
    body.extend(device.to_ne_bytes());
    body.extend(NUD_PERMANENT.to_ne_bytes());
    body.extend([0, 0]);
    for (kind, value) in [(NDA_DST, &*octets), (NDA_LLADDR, &link.0)] {
        body.extend(u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    // struct nlmsghdr: length, type, flags, sequence number, port.
    let mut message = u32::try_from(16 + body.len()).unwrap_or(u32::MAX).to_ne_bytes().to_vec();
    message.extend(RTM_NEWNEIGH.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | NLM_F_REPLACE | NLM_F_CREATE).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}
