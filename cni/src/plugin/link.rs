//! What kind of device a network interface of the node is.

use std::io;

use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use std::time::Duration;

/// Kinds of devices whose other end can be in a pod.
const KINDS: [&[u8]; 3] = [b"veth", b"netkit", b"tun"];

/// The longest that the kernel may take.
const PATIENCE: Duration = Duration::from_secs(1);

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;

/// The headers of a message about a link: `nlmsghdr` and `ifinfomsg`.
const HEADERS: usize = 32;

/// Whether the other end of the device of this name can be in a pod.
pub(crate) fn leads_to_pod(name: &str) -> bool {
    kind(name).is_ok_and(|kind| kind.is_some_and(|kind| KINDS.contains(&kind.as_slice())))
}

/// The kind of a virtual device.
fn kind(name: &str) -> io::Result<Option<Vec<u8>>> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    let index = name_to_index(&socket, name)?;
    send(&socket, &request(index), SendFlags::empty())?;
    let mut answer = vec![0; 1 << 15];
    let (length, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    Ok(answer.get(..length).and_then(kind_in))
}

/// `RTM_GETLINK` for the device of this index.
fn request(index: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADERS);
    message.extend(u32::try_from(HEADERS).unwrap_or_default().to_ne_bytes());
    message.extend(RTM_GETLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port; family and type.
    message.extend([0; 12]);
    message.extend(index.to_ne_bytes());
    // Flags and their mask.
    message.extend([0; 8]);
    message
}

/// The kind that the kernel's answer names.
fn kind_in(answer: &[u8]) -> Option<Vec<u8>> {
    if number(answer.get(4..)?)? != RTM_NEWLINK {
        return None;
    }
    let kind = attribute(attribute(answer.get(HEADERS..)?, IFLA_LINKINFO)?, IFLA_INFO_KIND)?;
    Some(kind.strip_suffix(&[0]).unwrap_or(kind).to_vec())
}

/// The value of an attribute among others.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (length, kind) = (usize::from(number(attributes)?), number(attributes.get(2..)?)?);
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn number(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_leads_to_no_pod() {
        assert_eq!(kind("lo").unwrap(), None);
        assert!(!leads_to_pod("lo"));
        assert!(!leads_to_pod("no-such-device"));
    }

    #[test]
    fn an_answer_names_the_kind() {
        let mut answer = request(1);
        answer[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        let mut append = |length: u16, kind: u16, value: &[u8]| {
            answer.extend(length.to_ne_bytes());
            answer.extend(kind.to_ne_bytes());
            answer.extend(value);
        };
        append(7, 3, b"eth\0");
        append(16, IFLA_LINKINFO, &[]);
        append(9, IFLA_INFO_KIND, b"veth\0\0\0\0");
        assert_eq!(kind_in(&answer).as_deref(), Some(b"veth".as_slice()));
        assert_eq!(kind_in(&answer[..40]), None);
    }
}
