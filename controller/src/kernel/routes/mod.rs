//! Devices, addresses and routes, as the kernel has them (`linux/rtnetlink.h`, `linux/if_link.h`,
//! `linux/if_addr.h`).

mod addresses;
mod links;
mod route;
mod socket;
mod tunnels;
mod watch;

pub(crate) use links::{End, Link};
pub(crate) use socket::Socket;
pub use watch::Watch;
