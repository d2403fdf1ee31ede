//! Questions to the kernel's `nf_tables`, and its answers.

use nftnl::nftnl_sys::libc;
use policy_compiler::ruleset::TableFamily;

use super::error::Error;
use super::sys::{Received, Socket};
use super::{BUFFER, protocol_family, uapi};
use podfence_cni::netlink::{self, Header, Message, messages};

/// A socket with room for what it receives.
pub(super) struct Channel {
    pub(super) socket: Socket,
    pub(super) buffer: Vec<u8>,
    /// The number of the next message.
    sequence: u32,
}

/// What to ask the kernel for.
pub(super) struct Question<'a> {
    /// `NFT_MSG_GET…`
    pub(super) kind: u16,
    /// The family of the table.
    pub(super) table: TableFamily,
    /// Whether for all that there are (`NLM_F_DUMP`).
    pub(super) all: bool,
    /// Where to look: names by attribute type, each with its zero byte.
    pub(super) names: &'a [(u16, &'a [u8])],
    /// What it is, for errors.
    pub(super) about: &'static str,
}

impl Channel {
    /// In the network namespace of the thread that opens it.
    pub(super) fn open() -> Result<Self, Error> {
        let socket = Socket::open(0).map_err(Error::socket("open"))?;
        Ok(Self { socket, buffer: vec![0; BUFFER], sequence: 1 })
    }

    /// Takes the numbers of so many messages, and returns the first.
    pub(super) fn take_sequence(&mut self, count: usize) -> u32 {
        let first = self.sequence;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "messages that fit into memory are fewer than 2³²"
        )]
        let next = first.wrapping_add(count as u32);
        self.sequence = next;
        first
    }

    /// The next datagram that is there; does not wait.
    pub(super) fn receive(&mut self) -> Result<Received<'_>, Error> {
        self.socket.receive(&mut self.buffer).map_err(Error::socket("read"))
    }

    /// As [`Channel::ask`], about something that exists unless it has just been deleted.
    pub(super) fn ask_all(
        &mut self,
        question: &Question<'_>,
        each: impl FnMut(&Message<'_>) -> Option<()>,
    ) -> Result<(), Error> {
        if self.ask(question, each)? { Ok(()) } else { Err(Error::Unstable) }
    }

    /// Asks and hands each message of the answer to `each`, which is to return `None` for one that it does not
    /// understand. Says whether there is what was asked for.
    pub(super) fn ask(
        &mut self,
        question: &Question<'_>,
        mut each: impl FnMut(&Message<'_>) -> Option<()>,
    ) -> Result<bool, Error> {
        let sequence = self.take_sequence(1);
        let request = question.encode(sequence);
        self.socket.send(&request).map_err(Error::socket("write to"))?;
        let (mut found, mut complete, mut interrupted, mut understood) = (true, !question.all, false, true);
        // Whenever a call returns, the kernel has answered, or has the next part of the answer ready. What is
        // left of an answer would be in the way of the next question, so nothing ends this loop early.
        loop {
            let datagram = match self.receive()? {
                Received::Datagram(datagram) => datagram,
                Received::Overrun => {
                    interrupted = true;
                    continue;
                }
                Received::Nothing => break,
            };
            for message in messages(datagram).filter(|message| message.sequence == sequence) {
                interrupted |= question.walks_other_tables() && message.flags & uapi::NLM_F_DUMP_INTR != 0;
                match message.errno() {
                    None => understood &= each(&message).is_some(),
                    Some(0) => complete = true,
                    Some(libc::ENOENT) => (found, complete) = (false, true),
                    Some(libc::EINTR | libc::EAGAIN) => interrupted = true,
                    Some(errno) => return Err(question.refused(errno)),
                }
            }
        }
        if interrupted {
            Err(Error::Unstable)
        } else if complete && understood {
            Ok(found)
        } else {
            Err(Error::Malformed(question.about))
        }
    }
}

impl Question<'_> {
    /// Whether the kernel counts what others have while it lists, and so loses its place when that changes:
    /// it lists the chains of all tables of the family.
    fn walks_other_tables(&self) -> bool {
        self.kind == uapi::NFT_MSG_GETCHAIN
    }

    fn encode(&self, sequence: u32) -> Vec<u8> {
        let flags = uapi::NLM_F_REQUEST | if self.all { uapi::NLM_F_DUMP } else { 0 };
        let structure = &netlink::netfilter(protocol_family(self.table), 0);
        let header = Header { kind: self.kind, flags, sequence, structure };
        let mut request = Vec::new();
        netlink::write(&mut request, &header, self.names);
        request
    }

    fn refused(&self, errno: i32) -> Error {
        Error::Refused {
            operation: format!("list {}", self.about),
            chain: None,
            lasting: false,
            message: None,
            source: std::io::Error::from_raw_os_error(errno),
        }
    }
}
