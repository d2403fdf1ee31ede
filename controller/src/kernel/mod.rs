//! The data plane: the table `inet podfence` in the kernel's `nf_tables`.
//!
//! [`Kernel::apply`] carries a transaction out, whole or not at all; [`Kernel::read`] says what is there, and
//! [`list_counters`] how often it was met,
//! [`count_elements`] and [`list_tuples`] what is in a set that is no part of it;
//! [`Watch`] reports when somebody else changes it. Where the kernel can do that (6.9), nobody else can: the
//! socket of a [`Kernel`] that has applied [`Operation::OwnTable`] owns the table as long as it is open, and
//! leaves it behind, rules and counters included, for the next one to take over. Of the ruleset, nothing
//! outside the table is read or written. [`list_connections`] and [`forget_connections`] are about what the
//! kernel tracks beside it, and a [`PacketLog`] receives what rules log of packets.

mod access;
mod batch;
mod channel;
mod conntrack;
mod element;
mod error;
mod expression;

mod packet_log;
mod read;
pub(crate) mod routes;
mod set;
mod sys;
mod table;
mod uapi;
mod watch;

pub(crate) use access::Nftables;
pub use conntrack::{Connection, Which, forget_connections, list_connections};
pub use error::{Error, Unfit};
pub use packet_log::{LoggedPacket, PacketLog};
pub use read::{RuleCounter, count_elements, list_counters, list_tuples};
use sys::check_strictly;
pub(crate) use sys::give_back_memory;
pub use table::{Chain, Counter, Place, Rule, Table, Tables};
pub use watch::Watch;

use std::io;

use nftnl::nftnl_sys::libc;
use policy_compiler::ruleset::{Operation, TableFamily, Transaction};

use batch::{Batch, Kinds, Reply};
use channel::Channel;
use podfence_cni::netlink::messages;
use sys::Received;

/// The kernel hands out lists in parts of at most 32 KiB.
const BUFFER: usize = 1 << 16;

/// How often the table is read anew because it changes meanwhile.
const READS: usize = 10;

/// How often a transaction is tried anew because somebody changes something outside the table.
const COMMITS: usize = 10;

/// What a netlink socket's send buffer needs for itself (`netlink_sendmsg`).
const SEND_OVERHEAD: usize = 32;

/// The way to the table of a network namespace: the one of the thread that opens it.
pub struct Kernel {
    channel: Channel,
    /// Reports what others have done where a transaction comes too late.
    others: Watch,
    send_buffer: usize,
    /// The flags of a table that is to be owned; none where the kernel does not know them.
    table_flags: u32,
    /// Whether the kernel has tables of the family `netdev`.
    has_netdev: bool,
    known: Known,
}

/// What is known of the tables: of which state of the ruleset the transactions are planned.
struct Known {
    generation: u32,
    sets: Kinds,
    /// Whether the table is known to have changed since.
    stale: bool,
}

/// What became of a batch.
enum Outcome {
    Committed,
    /// The ruleset is of another generation than the batch was made for.
    Late,
}

impl Kernel {
    /// Opens the way, without looking at the table yet.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`], and [`Error::Refused`] without `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, Error> {
        let channel = Channel::open()?;
        let socket = &channel.socket;
        socket.explain_errors().map_err(Error::socket("configure"))?;
        let send_buffer = rustix::net::sockopt::socket_send_buffer_size(socket)
            .map_err(io::Error::from)
            .map_err(Error::socket("configure"))?;
        let others = Watch::ignoring(socket.port())?;
        let known = Known { generation: 0, sets: Kinds::new(), stale: false };
        let mut kernel = Self { channel, others, send_buffer, table_flags: 0, has_netdev: false, known };
        kernel.known.generation = kernel.current_generation()?;
        kernel.table_flags = kernel.flags_of_owned_tables()?;
        kernel.has_netdev = kernel.takes_table(TableFamily::Netdev, kernel.table_flags)?;
        Ok(kernel)
    }

    /// Whether the kernel has tables of the family `netdev`.
    pub fn has_netdev(&self) -> bool {
        self.has_netdev
    }

    /// Carries a transaction out, all of it or nothing. It must have been planned on what [`Kernel::read`]
    /// returned last, with the transactions applied since, or replace the table.
    ///
    /// # Errors
    ///
    /// Unless it is [`Error::Unknown`], the table is as it was. [`Error::Changed`], [`Error::Unknown`] and
    /// [`Unfit::UnknownSet`] ask for the table to be read again; [`Error::Refused`] and [`Error::Unfit`] name
    /// the operation. [`Error::Owned`] stays until another process ends.
    pub fn apply(&mut self, transaction: &Transaction) -> Result<(), Error> {
        self.apply_all(std::slice::from_ref(transaction))
    }

    /// Carries transactions of several tables out as one.
    ///
    /// # Errors
    ///
    /// As [`Kernel::apply`].
    pub fn apply_all(&mut self, transactions: &[Transaction]) -> Result<(), Error> {
        if transactions.iter().all(Transaction::is_empty) {
            return Ok(());
        }
        self.submit(transactions, false)?;
        for transaction in transactions {
            self.known.note(transaction);
        }
        self.check_committed(transactions)
    }

    /// Asks the kernel whether it would carry the transactions out, and changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Kernel::apply`].
    pub fn check_all(&mut self, transactions: &[Transaction]) -> Result<(), Error> {
        if transactions.iter().all(Transaction::is_empty) {
            return Ok(());
        }
        self.submit(transactions, true)
    }

    /// Sends transactions as a batch, or as a `trial` without consequences.
    fn submit(&mut self, transactions: &[Transaction], trial: bool) -> Result<(), Error> {
        if self.known.stale {
            return Err(Error::Changed);
        }
        let sets = std::mem::take(&mut self.known.sets);
        let sequence = self.channel.take_sequence(0);
        let result = Batch::encode(transactions, &sets, self.table_flags, sequence).and_then(|batch| {
            let mut batch = if trial { batch.without_end() } else { batch };
            self.channel.take_sequence(batch.len());
            self.commit(&mut batch)
        });
        self.known.sets = sets;
        self.known.stale |= matches!(result, Err(Error::Changed | Error::Unknown));
        result
    }

    /// Reads the table `inet podfence`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`Kernel::read_all`].
    pub fn read(&mut self) -> Result<Option<Table>, Error> {
        Ok(self.read_all()?.policies)
    }

    /// Reads the tables.
    ///
    /// # Errors
    ///
    /// [`Error::Unstable`] if they do not hold still, and as [`Kernel::open`].
    pub fn read_all(&mut self) -> Result<Tables, Error> {
        let mut result = Err(Error::Unstable);
        for _ in 0..READS {
            result = self.read_once();
            if !matches!(result, Err(Error::Unstable)) {
                break;
            }
        }
        let (generation, tables) = result?;
        let sets = tables.iter().flat_map(|table| table.sets.iter().map(|set| (table.family, set)));
        let sets = sets.filter_map(|(table, (name, set))| Some(((table, name.clone()), set.as_ref()?.kind)));
        self.known = Known { generation, sets: sets.collect(), stale: false };
        Ok(tables)
    }

    /// Deletes the tables, whatever is in them, and says whether there was one.
    ///
    /// # Errors
    ///
    /// As [`Kernel::apply`].
    pub fn delete_tables(&mut self) -> Result<bool, Error> {
        let mut any = false;
        for table in TableFamily::BOTH {
            if table == TableFamily::Inet || self.has_netdev {
                any |= self.delete_table(table)?;
            }
        }
        Ok(any)
    }

    fn delete_table(&mut self, table: TableFamily) -> Result<bool, Error> {
        let deletion = Transaction { table, operations: vec![Operation::DeleteTable] };
        for _ in 0..COMMITS {
            let generation = self.current_generation()?;
            self.known = Known { generation, sets: Kinds::new(), stale: false };
            match self.apply(&deletion) {
                Ok(()) => return Ok(true),
                Err(Error::Changed) => {}
                Err(Error::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Changed)
    }

    /// The number by which the kernel knows the socket.
    fn port(&self) -> u32 {
        self.channel.socket.port()
    }

    /// Tries whether tables can have owners and outlive them. An owner that a table cannot outlive is none.
    fn flags_of_owned_tables(&mut self) -> Result<u32, Error> {
        const FLAGS: u32 = uapi::NFT_TABLE_F_OWNER | uapi::NFT_TABLE_F_PERSIST;
        Ok(if self.takes_table(TableFamily::Inet, FLAGS)? { FLAGS } else { 0 })
    }

    /// Tries whether the kernel takes a table.
    fn takes_table(&mut self, family: TableFamily, flags: u32) -> Result<bool, Error> {
        let sequence = self.channel.take_sequence(2).wrapping_add(1);
        let trial = batch::table_trial(sequence, family, flags);
        self.channel.socket.send(&trial).map_err(Error::socket("write to"))?;
        let mut taken = false;
        while let Received::Datagram(datagram) = self.channel.receive()? {
            taken |=
                messages(datagram).any(|message| message.sequence == sequence && message.errno() == Some(0));
        }
        Ok(taken)
    }

    fn commit(&mut self, batch: &mut Batch<'_>) -> Result<(), Error> {
        for _ in 0..COMMITS {
            batch.set_generation(self.known.generation);
            self.send(batch.as_bytes())?;
            match self.outcome(batch)? {
                Outcome::Committed => return Ok(()),
                Outcome::Late => {
                    // All that led to the present generation has been reported before the batch was refused.
                    let seen = self.others.look()?;
                    match seen.generation {
                        Some(generation) if !seen.changed => self.known.generation = generation,
                        _ => return Err(Error::Changed),
                    }
                }
            }
        }
        Err(Error::Changed)
    }

    /// Sends a batch in one piece: one that comes in several is not carried out.
    fn send(&mut self, batch: &[u8]) -> Result<(), Error> {
        let needed = batch.len() + SEND_OVERHEAD;
        if needed > self.send_buffer {
            use rustix::net::sockopt::{
                set_socket_send_buffer_size, set_socket_send_buffer_size_force, socket_send_buffer_size,
            };
            let size = set_socket_send_buffer_size_force(&self.channel.socket, needed)
                .or_else(|_| set_socket_send_buffer_size(&self.channel.socket, needed))
                .and_then(|()| socket_send_buffer_size(&self.channel.socket));
            self.send_buffer = size.map_err(io::Error::from).map_err(Error::socket("configure"))?;
        }
        self.channel.socket.send(batch).map_err(|source| match source.raw_os_error() {
            Some(libc::EMSGSIZE) => Error::TooLarge { bytes: batch.len(), source },
            _ => Error::Socket { action: "write to", source },
        })
    }

    /// Reads the answers to a batch. All of them are there when it has been sent.
    fn outcome(&mut self, batch: &Batch<'_>) -> Result<Outcome, Error> {
        let (mut acknowledged, mut lost) = (Vec::new(), false);
        let mut refused: Option<Reply> = None;
        loop {
            let datagram = match self.channel.receive()? {
                Received::Datagram(datagram) => datagram,
                Received::Overrun => {
                    lost = true;
                    continue;
                }
                Received::Nothing => break,
            };
            for reply in messages(datagram).filter_map(|message| batch.reply(&message)) {
                if reply.errno == 0 {
                    acknowledged.push(reply.message);
                } else if refused.as_ref().is_none_or(|first| reply.message < first.message) {
                    // What is refused behind the first is often its consequence.
                    refused = Some(reply);
                }
            }
        }
        match refused {
            Some(reply) if reply.errno == libc::ERESTART => Ok(Outcome::Late),
            Some(reply) => Err(batch.refusal(reply)),
            None if !lost && batch.acknowledged().iter().all(|message| acknowledged.contains(message)) => {
                Ok(Outcome::Committed)
            }
            None => Err(Error::Unknown),
        }
    }

    /// An acknowledgement says that a message is right. That the batch was carried out is said by the
    /// generation, which every change advances.
    fn check_committed(&mut self, transactions: &[Transaction]) -> Result<(), Error> {
        let current = self.current_generation()?;
        if current != self.known.generation {
            // 0 is left out by the kernel: in a batch it means any.
            self.known.generation = self.known.generation.checked_add(1).unwrap_or(1);
            return Ok(());
        }
        let idle = |operation: &Operation| {
            matches!(operation, Operation::AddTable | Operation::OwnTable | Operation::FlushChain(_))
        };
        if transactions.iter().flat_map(|transaction| &transaction.operations).all(idle) {
            Ok(())
        } else {
            self.known.stale = true;
            Err(Error::Unknown)
        }
    }
}

impl Known {
    /// Notes what a transaction has done.
    fn note(&mut self, transaction: &Transaction) {
        for operation in &transaction.operations {
            match operation {
                Operation::AddSet(set, kind) => {
                    self.sets.insert((transaction.table, set.clone()), *kind);
                }
                Operation::DeleteSet(set) => {
                    self.sets.remove(&(transaction.table, set.clone()));
                }
                Operation::DeleteTable => self.sets.retain(|(table, _), _| *table != transaction.table),
                _ => {}
            }
        }
    }
}

/// The number of a table's family (`NFPROTO_…`).
fn protocol_family(table: TableFamily) -> u8 {
    match table {
        TableFamily::Inet => uapi::NFPROTO_INET,
        TableFamily::Netdev => uapi::NFPROTO_NETDEV,
    }
}
