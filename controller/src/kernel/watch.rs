//! Notice of what others do to the table.

use std::os::fd::{AsFd, BorrowedFd};

use policy_compiler::ruleset::{TABLE, TableFamily};

use super::error::Error;
use super::sys::{Received, Socket};
use super::{Kernel, protocol_family, uapi};
use podfence_cni::netlink::{Message, messages};

/// Notifications are at most a page or two long (`NLMSG_GOODSIZE`).
const BUFFER: usize = 1 << 16;

/// Reports that somebody other than a [`Kernel`] changes a table of podfence, as by `nft flush ruleset`.
///
/// The descriptor becomes readable when there may be something; [`Watch::changed`] then says whether there
/// is. The kernel itself keeps the changes of the own [`Kernel`] away from it.
pub struct Watch {
    socket: Socket,
    buffer: Vec<u8>,
}

/// What has happened since the last look.
#[derive(Default)]
pub(super) struct Seen {
    /// Whether the table was changed, or may have been.
    pub(super) changed: bool,
    /// The generation that the last of the seen changes led to.
    pub(super) generation: Option<u32>,
}

impl Watch {
    /// Begins to listen, in the calling thread's network namespace, to all but `kernel`.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`].
    pub fn open(kernel: &Kernel) -> Result<Self, Error> {
        Self::ignoring(kernel.port())
    }

    pub(super) fn ignoring(port: u32) -> Result<Self, Error> {
        let socket = Socket::open(1 << (uapi::NFNLGRP_NFTABLES - 1)).map_err(Error::socket("open"))?;
        socket.ignore(port).map_err(Error::socket("filter"))?;
        Ok(Self { socket, buffer: vec![0; BUFFER] })
    }

    /// Whether the table was changed since the last call, or may have been. Does not wait.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`].
    pub fn changed(&mut self) -> Result<bool, Error> {
        Ok(self.look()?.changed)
    }

    pub(super) fn look(&mut self) -> Result<Seen, Error> {
        let mut seen = Seen::default();
        loop {
            match self.socket.receive(&mut self.buffer).map_err(Error::socket("read"))? {
                Received::Datagram(datagram) => messages(datagram).for_each(|message| seen.note(&message)),
                Received::Overrun => seen.changed = true,
                Received::Nothing => return Ok(seen),
            }
        }
    }
}

impl Seen {
    fn note(&mut self, message: &Message<'_>) {
        if message.kind == uapi::NFT_MSG_NEWGEN {
            self.generation = message.attributes().number(uapi::NFTA_GEN_ID);
        } else if message.attributes().text(uapi::NFTA_ANY_TABLE) == Some(TABLE)
            && TableFamily::BOTH.map(protocol_family).contains(&message.family())
        {
            self.changed = true;
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
