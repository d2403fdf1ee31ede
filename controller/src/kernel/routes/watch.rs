//! Notice of changes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// `RTNLGRP_…`, from 1. Policy rules choose among routes.
const LINK: u32 = 1;
const IPV4_ROUTE: u32 = 7;
const IPV4_RULE: u32 = 8;
const IPV6_ROUTE: u32 = 11;
const IPV6_RULE: u32 = 19;

/// Reports when devices or routes of a network namespace change.
///
/// The descriptor becomes readable when there is something; [`Watch::changed`] then takes it.
pub struct Watch {
    socket: OwnedFd,
}

impl Watch {
    /// Begins to listen, in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// If there is no rtnetlink.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        let groups = [LINK, IPV4_ROUTE, IPV4_RULE, IPV6_ROUTE, IPV6_RULE];
        let groups = groups.into_iter().fold(0, |mask, group| mask | 1 << (group - 1));
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { socket })
    }

    /// Whether something has changed since the last call, or may have. Does not wait.
    ///
    /// # Errors
    ///
    /// If the socket fails.
    pub fn changed(&mut self) -> io::Result<bool> {
        let mut changed = false;
        loop {
            // That there is a message says enough.
            match recv(&self.socket, &mut [0; 16], RecvFlags::DONTWAIT) {
                Ok(_) | Err(Errno::NOBUFS) => changed = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(changed),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
