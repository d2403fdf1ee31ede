//! What rules log of packets (`nfnetlink_log`, `linux/netfilter/nfnetlink_log.h`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::error::Error;
use super::sys::{Received, Socket};
use super::{BUFFER, uapi};
use podfence_cni::netlink::{self, Header, Message, messages};

/// `NFNL_SUBSYS_ULOG` with `NFULNL_MSG_PACKET` and `NFULNL_MSG_CONFIG`.
const PACKET: u16 = 0x0400;
const CONFIGURE: u16 = 0x0401;

const NFULA_CFG_CMD: u16 = 1;
const NFULA_CFG_MODE: u16 = 2;
const NFULA_CFG_TIMEOUT: u16 = 4;
const NFULNL_CFG_CMD_BIND: u8 = 1;
const NFULNL_COPY_PACKET: u8 = 2;

const NFULA_PACKET_HDR: u16 = 1;
const NFULA_IFINDEX_INDEV: u16 = 4;
const NFULA_IFINDEX_OUTDEV: u16 = 5;
const NFULA_PAYLOAD: u16 = 9;
const NFULA_PREFIX: u16 = 10;

/// How long the kernel collects packets before it reports them in one message, in hundredths of a second.
const DELAY: u32 = 5;

/// Where the number of the hook stands in `struct nfulnl_msg_packet_hdr`.
const HOOK: usize = 2;

/// The length of the header of Ethernet, which a packet still has behind which a device's egress hook is.
const LINK_HEADER: usize = 14;

/// A packet that a rule logged.
#[derive(Debug, Clone, Copy)]
pub struct LoggedPacket<'a> {
    /// The prefix that the rule gave it.
    pub prefix: &'a str,
    /// Its beginning, from the header of IP (or whatever the frame carries) on.
    pub beginning: &'a [u8],
    /// The index of the device at whose hook the rule is; `None` if it is at a hook of IP.
    pub device: Option<u32>,
}

impl<'a> LoggedPacket<'a> {
    fn of(message: &Message<'a>) -> Self {
        let attributes = message.attributes();
        let payload = attributes.get(NFULA_PAYLOAD).unwrap_or_default();
        let hook = attributes.get(NFULA_PACKET_HDR).and_then(|header| header.get(HOOK)).copied();
        let at_device = message.family() == uapi::NFPROTO_NETDEV;
        let leaves = at_device && hook.map(u32::from) == Some(uapi::NF_NETDEV_EGRESS);
        let index = if leaves { NFULA_IFINDEX_OUTDEV } else { NFULA_IFINDEX_INDEV };
        Self {
            prefix: attributes.text(NFULA_PREFIX).unwrap_or_default(),
            beginning: payload.get(if leaves { LINK_HEADER } else { 0 }..).unwrap_or_default(),
            device: attributes.number(index).filter(|_| at_device),
        }
    }
}

/// The one reader of an NFLOG group in a network namespace.
///
/// The descriptor becomes readable when there may be something. What is not read in time is lost: the kernel keeps as
/// much as the socket's receive buffer holds (`net.core.rmem_default`).
pub struct PacketLog {
    socket: Socket,
    buffer: Vec<u8>,
}

impl PacketLog {
    /// Begins to listen to a group, in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`]; [`Error::Refused`] without `CAP_NET_ADMIN`, where the kernel has no `nfnetlink_log`, and with
    /// `EBUSY` while somebody else listens.
    pub fn open(group: u16) -> Result<Self, Error> {
        let socket = Socket::open(0).map_err(Error::socket("open"))?;
        let mut log = Self { socket, buffer: vec![0; BUFFER] };
        // Packets are reported as far as each rule says.
        let mode = [[0xff; 4].as_slice(), &[NFULNL_COPY_PACKET, 0]].concat();
        let structure = &netlink::netfilter(uapi::AF_UNSPEC, group);
        let flags = uapi::NLM_F_REQUEST | uapi::NLM_F_ACK;
        let header = Header { kind: CONFIGURE, flags, sequence: 0, structure };
        let mut request = Vec::new();
        let delay = DELAY.to_be_bytes();
        netlink::write(
            &mut request,
            &header,
            &[(NFULA_CFG_CMD, &[NFULNL_CFG_CMD_BIND]), (NFULA_CFG_MODE, &mode), (NFULA_CFG_TIMEOUT, &delay)],
        );
        log.socket.send(&request).map_err(Error::socket("write to"))?;
        let mut answer = None;
        // The answer is there when `send` returns. A packet that is as fast is none.
        log.receive(|message| answer = answer.or(message.errno()))?;
        match answer {
            Some(0) => Ok(log),
            Some(errno) => Err(Error::Refused {
                operation: format!("listen to NFLOG group {group}"),
                chain: None,
                lasting: false,
                message: None,
                source: io::Error::from_raw_os_error(errno),
            }),
            None => Err(Error::Malformed("an NFLOG group")),
        }
    }

    /// Hands over what there is. Does not wait. Returns whether something was lost.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`].
    pub fn read(&mut self, mut each: impl FnMut(&LoggedPacket<'_>)) -> Result<bool, Error> {
        self.receive(|message| {
            if message.kind == PACKET {
                each(&LoggedPacket::of(message));
            }
        })
    }

    fn receive(&mut self, mut each: impl FnMut(&Message<'_>)) -> Result<bool, Error> {
        let mut lost = false;
        loop {
            match self.socket.receive(&mut self.buffer).map_err(Error::socket("read"))? {
                Received::Datagram(datagram) => messages(datagram).for_each(|message| each(&message)),
                Received::Overrun => lost = true,
                Received::Nothing => return Ok(lost),
            }
        }
    }
}

impl AsFd for PacketLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
