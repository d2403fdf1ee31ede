//! Questions to the kernel, and its answers.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink as protocols, recv, send,
    socket_with,
};

use crate::kernel::check_strictly;
use podfence_cni::netlink::{self, Header, Message, messages};

/// The kernel hands out lists in parts of at most 32 KiB.
const BUFFER: usize = 1 << 16;

/// How often a list is read anew because it changes meanwhile.
const READS: usize = 10;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;

/// The way to a network namespace: the one of the thread that opens it.
pub(crate) struct Socket {
    descriptor: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// To devices, addresses and routes.
    ///
    /// # Errors
    ///
    /// If there is no rtnetlink, or one without strict checks (Linux 4.20).
    pub(crate) fn open() -> io::Result<Self> {
        // Protocol 0 is NETLINK_ROUTE.
        let socket = Self::of(None)?;
        check_strictly(&socket.descriptor)?;
        Ok(socket)
    }

    /// To what has a family of generic netlink.
    ///
    /// # Errors
    ///
    /// If there is no generic netlink.
    pub(crate) fn generic() -> io::Result<Self> {
        Self::of(Some(protocols::GENERIC))
    }

    fn of(protocol: Option<Protocol>) -> io::Result<Self> {
        let descriptor =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Self { descriptor, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Sends a request and returns what `read` makes of the answer, if there is one besides the
    /// acknowledgement.
    pub(crate) fn request<T>(
        &mut self,
        kind: u16,
        structure: &[u8],
        attributes: &[(u16, &[u8])],
        read: impl Fn(&Message<'_>) -> T,
    ) -> io::Result<Option<T>> {
        let mut answer = None;
        self.exchange(kind, NLM_F_ACK, structure, attributes, |message| answer = Some(read(message)))?;
        Ok(answer)
    }

    /// Asks for a list and returns what `read` makes of each of its messages.
    pub(crate) fn list<T>(
        &mut self,
        kind: u16,
        structure: &[u8],
        attributes: &[(u16, &[u8])],
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..READS {
            let mut entries = Vec::new();
            let whole = self.exchange(kind, NLM_F_DUMP, structure, attributes, |message| {
                entries.extend(read(message));
            })?;
            if whole {
                return Ok(entries);
            }
        }
        Err(io::Error::other("a list changed all the time while it was read"))
    }

    /// Sends a request, hands the messages of the answer to `each`, and says whether they are of one moment.
    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        structure: &[u8],
        attributes: &[(u16, &[u8])],
        mut each: impl FnMut(&Message<'_>),
    ) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let header = Header { kind, flags: NLM_F_REQUEST | flags, sequence: self.sequence, structure };
        let mut request = Vec::new();
        netlink::write(&mut request, &header, attributes);
        send(&self.descriptor, &request, SendFlags::empty())?;
        let mut whole = true;
        // Whenever a call returns, the kernel has answered, or has the next part of the answer ready.
        loop {
            let length = match recv(&self.descriptor, &mut *self.buffer, RecvFlags::DONTWAIT) {
                Ok((_, length)) => length,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let datagram = self.buffer.get(..length).unwrap_or_default();
            for message in messages(datagram).filter(|message| message.sequence == self.sequence) {
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.errno() {
                    None => each(&message),
                    Some(0) => return Ok(whole),
                    Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                }
            }
        }
    }
}
