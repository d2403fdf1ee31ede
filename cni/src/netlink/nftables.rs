//! A socket to the kernel's `nf_tables`: questions, and batches that are carried out whole or not at all.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_send_buffer_size, set_socket_send_buffer_size_force, socket_send_buffer_size,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink as protocols, recv, send,
    socket_with,
};

use super::message::{
    Header, Message, add_flags, messages, netfilter, write, write_message, zero_terminated,
};
use super::numbers::{
    NFNL_BATCH_GENID, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES, NFPROTO_INET,
    NFT_MSG_GETGEN, NFT_MSG_GETTABLE, NFTA_ANY_TABLE, NFTA_GEN_ID, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
};

/// More than the kernel hands out in one part, and more than a message that it repeats in an error.
const BUFFER: usize = 1 << 17;

/// What a netlink socket's send buffer needs for itself (`netlink_sendmsg`).
const SEND_OVERHEAD: usize = 32;

/// All messages of a batch have this number: which of them is refused, its type says.
const SEQUENCE: u32 = 1;

/// Why the kernel does not do or say what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be had or used.
    #[error("cannot {action} the netlink socket")]
    Socket {
        /// What was to be done with it.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The kernel refuses a message, and with it the batch.
    #[error("the kernel refuses to {action}")]
    Refused {
        /// What the message asks for.
        action: String,
        /// What the system says.
        source: io::Error,
    },
    /// The ruleset has changed: read it again.
    #[error("the ruleset changes all the time")]
    Changed,
    /// The kernel's answer is lost or not understood.
    #[error("the kernel's answer is lost or not understood")]
    Unknown,
}

impl Error {
    /// Whether the kernel refuses because of this.
    pub(crate) fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(errno.raw_os_error()))
    }

    fn socket(action: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Socket { action, source: errno.into() }
    }

    fn refused(action: String, errno: i32) -> Self {
        match Errno::from_raw_os_error(errno) {
            Errno::RESTART | Errno::AGAIN | Errno::INTR => Self::Changed,
            _ => Self::Refused { action, source: io::Error::from_raw_os_error(errno) },
        }
    }
}

/// What to ask for.
pub(crate) struct Question<'a> {
    /// `NFT_MSG_GET…`
    pub(crate) kind: u16,
    /// Whether for all that there are (`NLM_F_DUMP`).
    pub(crate) all: bool,
    /// Where to look: names by attribute type.
    pub(crate) names: &'a [(u16, &'a str)],
}

/// The way to the ruleset of a network namespace: the one of the thread that opens it.
pub(crate) struct Nftables {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Nftables {
    /// Opens the way.
    ///
    /// # Errors
    ///
    /// If there is no netlink of netfilter.
    pub(crate) fn open() -> Result<Self, Error> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(protocols::NETFILTER),
        );
        Ok(Self {
            socket: socket.map_err(Error::socket("open"))?,
            buffer: vec![0; BUFFER],
            sequence: SEQUENCE,
        })
    }

    /// The number of the ruleset's last change.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub(crate) fn generation(&mut self) -> Result<u32, Error> {
        let mut generation = None;
        let question = Question { kind: NFT_MSG_GETGEN, all: false, names: &[] };
        self.ask(&question, |message| generation = message.attributes().number(NFTA_GEN_ID))?;
        generation.ok_or(Error::Unknown)
    }

    /// Whether there is a table of this name, of the family `inet`.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub(crate) fn has_table(&mut self, name: &str) -> Result<bool, Error> {
        let question = Question { kind: NFT_MSG_GETTABLE, all: false, names: &[(NFTA_ANY_TABLE, name)] };
        self.ask(&question, |_| ())
    }

    /// Asks about the family `inet`, hands each message of the answer to `each`, and says whether there is what was
    /// asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] if it changes meanwhile; if the kernel does not say.
    pub(crate) fn ask(
        &mut self,
        question: &Question<'_>,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<bool, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let names: Vec<_> =
            question.names.iter().map(|(kind, name)| (*kind, zero_terminated(name))).collect();
        let names: Vec<_> = names.iter().map(|(kind, name)| (*kind, name.as_slice())).collect();
        let header = Header {
            kind: question.kind,
            flags: NLM_F_REQUEST | if question.all { NLM_F_DUMP } else { 0 },
            sequence,
            structure: &netfilter(NFPROTO_INET, 0),
        };
        let mut request = Vec::new();
        write(&mut request, &header, &names);
        self.send(&request)?;
        let (mut found, mut complete, mut interrupted, mut refusal) = (true, !question.all, false, None);
        // Whenever a call returns, the kernel has answered, or has the next part of the answer ready. What is left of
        // an answer would be in the way of the next question, so nothing ends this loop early.
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
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.errno() {
                    None => each(&message),
                    Some(0) => complete = true,
                    Some(errno) if errno == Errno::NOENT.raw_os_error() => (found, complete) = (false, true),
                    Some(errno) => refusal = Some(errno),
                }
            }
        }
        match refusal {
            Some(errno) => Err(Error::refused("list what it has".to_owned(), errno)),
            None if interrupted => Err(Error::Changed),
            None if complete => Ok(found),
            None => Err(Error::Unknown),
        }
    }

    /// Carries a batch out, all of it or nothing; with a generation, only if the ruleset is still of that one.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] if it is of another one; [`Error::Refused`].
    pub(crate) fn commit(&mut self, batch: &Batch, generation: Option<u32>) -> Result<(), Error> {
        self.make_room(batch.messages.len() + 2 * SEND_OVERHEAD)?;
        self.send(&batch.framed(generation))?;
        let (mut acknowledged, mut refusal) = (false, None);
        loop {
            let datagram = match self.receive()? {
                Received::Datagram(datagram) => datagram,
                Received::Overrun => continue,
                Received::Nothing => break,
            };
            // What is refused behind the first is often its consequence.
            for message in messages(datagram).filter(|message| message.sequence == SEQUENCE) {
                match message.errno() {
                    Some(0) => acknowledged = true,
                    Some(errno) if refusal.is_none() => {
                        refusal = Some(Error::refused(action(&message), errno));
                    }
                    _ => {}
                }
            }
        }
        match refusal {
            Some(refusal) => Err(refusal),
            None if acknowledged => Ok(()),
            None => Err(Error::Unknown),
        }
    }

    /// A batch that comes in several pieces is not carried out.
    fn make_room(&self, needed: usize) -> Result<(), Error> {
        let needed = needed + SEND_OVERHEAD;
        if socket_send_buffer_size(&self.socket).map_err(Error::socket("configure"))? >= needed {
            return Ok(());
        }
        set_socket_send_buffer_size_force(&self.socket, needed)
            .or_else(|_| set_socket_send_buffer_size(&self.socket, needed))
            .map_err(Error::socket("configure"))
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        send(&self.socket, bytes, SendFlags::empty()).map(drop).map_err(Error::socket("write to"))
    }

    /// Takes the next datagram that is there, and does not wait for one.
    fn receive(&mut self) -> Result<Received<'_>, Error> {
        loop {
            match recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((_, length)) => {
                    return Ok(self.buffer.get(..length).map_or(Received::Overrun, Received::Datagram));
                }
                Err(Errno::NOBUFS) => return Ok(Received::Overrun),
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::socket("read")(error)),
            }
        }
    }
}

/// What there was to receive.
enum Received<'a> {
    Datagram(&'a [u8]),
    /// Something that is lost, because there was no room for it.
    Overrun,
    Nothing,
}

/// What a message asks for that an error repeats.
fn action(error: &Message<'_>) -> String {
    let refused = error.payload.get(size_of::<i32>()..).unwrap_or_default();
    let kind = super::message::kind(refused).unwrap_or_default();
    match kind.checked_sub(NFNL_SUBSYS_NFTABLES << 8) {
        Some(number) => {
            let what = ["table", "chain", "rule", "set", "element"].get(usize::from(number / 3));
            let verb = if number % 3 == 0 { "add" } else { "delete" };
            format!("{verb} a {}", what.unwrap_or(&"thing"))
        }
        None => "begin the batch".to_owned(),
    }
}

/// Messages that are carried out together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    messages: Vec<u8>,
    /// Where the last of them begins.
    last: usize,
}

impl Batch {
    /// Messages that were written before, as [`Batch::into_messages`] returns them.
    pub(crate) fn of(messages: Vec<u8>) -> Self {
        let mut last = 0;
        let mut start = 0;
        while let Some(length) = super::native_u32(&messages, start).filter(|length| *length > 0) {
            last = start;
            start += (length as usize).next_multiple_of(4);
        }
        Self { messages, last }
    }

    /// Appends a message about the family `inet`. `flags` are those besides `NLM_F_REQUEST`.
    pub(crate) fn push(&mut self, kind: u16, flags: u16, attributes: &[u8]) {
        self.last = self.messages.len();
        let header = Header {
            kind,
            flags: NLM_F_REQUEST | flags,
            sequence: SEQUENCE,
            structure: &netfilter(NFPROTO_INET, 0),
        };
        write_message(&mut self.messages, &header, attributes);
    }

    /// The messages.
    pub(crate) fn into_messages(self) -> Vec<u8> {
        self.messages
    }

    /// How long the messages are, bytes.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is no message.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The bytes to send: BEGIN, the messages, END.
    fn framed(&self, generation: Option<u32>) -> Vec<u8> {
        let frame = |buffer: &mut Vec<u8>, kind, attributes: &[(u16, &[u8])]| {
            let structure = &netfilter(0, NFNL_SUBSYS_NFTABLES);
            let header = Header { kind, flags: NLM_F_REQUEST, sequence: SEQUENCE, structure };
            write(buffer, &header, attributes);
        };
        let generation = generation.map(u32::to_be_bytes);
        let attributes: Vec<_> =
            generation.iter().map(|generation| (NFNL_BATCH_GENID, &generation[..])).collect();
        let mut framed = Vec::with_capacity(self.messages.len() + 2 * SEND_OVERHEAD);
        frame(&mut framed, NFNL_MSG_BATCH_BEGIN, &attributes);
        let last = framed.len() + self.last;
        framed.extend(&self.messages);
        // An acknowledgement of each message would overflow the receive buffer.
        add_flags(&mut framed, last, NLM_F_ACK);
        frame(&mut framed, NFNL_MSG_BATCH_END, &[]);
        framed
    }
}
