//! The addresses of devices.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nftnl::nftnl_sys::libc;

use super::{End, Socket};
use podfence_cni::netlink::Message;

/// The length of `struct ifaddrmsg`, and where the index of the device stands.
const ADDRESS: usize = 8;
const ADDRESS_INDEX: usize = 4;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_TARGET_NETNSID: u16 = 10;

impl Socket {
    /// The addresses of a device here, of all families and scopes; none if it is gone.
    pub(crate) fn addresses_of(&mut self, device: u32) -> io::Result<BTreeSet<IpAddr>> {
        self.addresses(device, &[])
    }

    /// The addresses of a device in another namespace, of all families and scopes; none if it is gone, or if
    /// the kernel does not let its namespace be seen.
    pub(crate) fn addresses_at(&mut self, end: End) -> io::Result<BTreeSet<IpAddr>> {
        self.addresses(end.device, &[(IFA_TARGET_NETNSID, &end.namespace.to_ne_bytes())])
    }

    fn addresses(&mut self, device: u32, attributes: &[(u16, &[u8])]) -> io::Result<BTreeSet<IpAddr>> {
        let mut header = [0; ADDRESS];
        header[ADDRESS_INDEX..].copy_from_slice(&device.to_ne_bytes());
        match self.list(libc::RTM_GETADDR, &header, attributes, address) {
            Ok(addresses) => Ok(addresses.into_iter().collect()),
            Err(error) if is_absence(&error) => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        }
    }
}

/// What is answered about a device, or a namespace, that is gone or not to be seen.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENODEV | libc::EINVAL | libc::ENOENT | libc::EACCES | libc::EPERM)
    )
}

/// The address in a message. What a peer-to-peer device calls its address is that of the other end.
fn address(message: &Message<'_>) -> Option<IpAddr> {
    let attributes = message.attributes_behind(ADDRESS);
    let octets = attributes.get(IFA_LOCAL).or_else(|| attributes.get(IFA_ADDRESS))?;
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}
