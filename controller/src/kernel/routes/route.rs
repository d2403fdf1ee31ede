//! Where packets to an address leave.

use std::io;
use std::net::IpAddr;

use nftnl::nftnl_sys::libc;

use super::Socket;
use podfence_cni::netlink::native_u32;

/// The length of `struct rtmsg`, and where its type stands.
const ROUTE: usize = 12;
const ROUTE_TYPE: usize = 7;

const RTA_VIA: u16 = 18;

/// The way of packets to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// The index of the device by which they leave.
    pub(crate) device: u32,
    /// Whether a gateway passes them on.
    pub(crate) indirect: bool,
}

impl Socket {
    /// The way of packets to an address; `None` if they do not leave.
    pub(crate) fn route_to(&mut self, address: IpAddr) -> io::Result<Option<Route>> {
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
            let attributes = answer.attributes_behind(ROUTE);
            let device = attributes.get(libc::RTA_OIF).and_then(|index| native_u32(index, 0))?;
            let gateway = attributes.get(libc::RTA_GATEWAY).or_else(|| attributes.get(RTA_VIA));
            unicast.then_some(Route { device, indirect: gateway.is_some() })
        });
        match found.map_err(|error| (error.raw_os_error(), error)) {
            Ok(route) => Ok(route.flatten()),
            // What the route says: nothing leaves, or nothing may.
            Err((Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL), _)) => Ok(None),
            Err((_, error)) => Err(error),
        }
    }
}
