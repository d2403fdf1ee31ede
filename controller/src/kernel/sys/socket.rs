//! Sockets of netfilter's netlink family.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use mnl::mnl_sys;
use nftnl::nftnl_sys::libc;
use rustix::io::Errno;
use rustix::net::RecvFlags;

/// What there was to receive.
pub(in crate::kernel) enum Received<'a> {
    Datagram(&'a [u8]),
    /// Something that is lost, because there was no room for it.
    Overrun,
    Nothing,
}

/// A netlink socket of netfilter, in the network namespace of the thread that opens it.
pub(in crate::kernel) struct Socket(mnl::Socket);

// SAFETY: libmnl's socket is a descriptor and an address, tied to no thread.
unsafe impl Send for Socket {}

impl Socket {
    /// Opens a socket that hears what is said to `groups`, a mask.
    pub(in crate::kernel) fn open(groups: u32) -> io::Result<Self> {
        let socket = mnl::Socket::open(mnl::Bus::Netfilter)?;
        socket.bind(groups, mnl_sys::MNL_SOCKET_AUTOPID)?;
        let socket = Self(socket);
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        Ok(socket)
    }

    /// Asks for errors that say which attribute is at fault, and that do not repeat the whole message.
    pub(in crate::kernel) fn explain_errors(&self) -> io::Result<()> {
        let on: libc::c_int = 1;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            // SAFETY: the socket is open, and `on` outlives the call, which reads it.
            let result = unsafe {
                mnl_sys::mnl_socket_setsockopt(
                    self.0.as_raw_socket(),
                    option,
                    (&raw const on).cast_mut().cast(),
                    size_of_val(&on) as libc::socklen_t,
                )
            };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// Lets nothing through to this socket that another one, `port`, has caused.
    pub(in crate::kernel) fn ignore(&self, port: u32) -> io::Result<()> {
        const PORT_OFFSET: u32 = 12;
        let instruction =
            |code: u32, jump_false, k| libc::sock_filter { code: code as u16, jt: 0, jf: jump_false, k };
        let mut program = [
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, PORT_OFFSET),
            // Words are loaded in network byte order, the port is in the machine's.
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, port.to_be()),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0),
            instruction(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
        ];
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the descriptor is open, and the program outlives the call, which copies it.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of_val(&program) as libc::socklen_t,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The number by which the kernel knows this socket (`nlmsg_pid`).
    pub(in crate::kernel) fn port(&self) -> u32 {
        self.0.portid()
    }

    /// Sends the bytes in one `sendmsg`.
    pub(in crate::kernel) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.send(bytes).map(drop)
    }

    /// Takes the next datagram that is there, and does not wait for one.
    pub(in crate::kernel) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
        loop {
            let received = rustix::net::recv(self, &mut *buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC);
            return match received {
                Ok((_, length)) => Ok(buffer.get(..length).map_or(Received::Overrun, Received::Datagram)),
                Err(Errno::AGAIN) => Ok(Received::Nothing),
                Err(Errno::NOBUFS) => Ok(Received::Overrun),
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }
}

/// Has the kernel check what is asked on an rtnetlink socket. It heeds what a question about a list restricts
/// that list to only if it does (Linux 4.20).
pub(crate) fn check_strictly(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and `on` outlives the call, which reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_GET_STRICT_CHK,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the socket lives, and so longer than the borrow.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
