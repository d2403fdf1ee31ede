//! What can go wrong between podfence and the kernel.

use std::io;

use nftnl::nftnl_sys::libc;
use policy_compiler::ruleset::{
    COMMENT_MAX, ChainId, ElementKey, NAME_MAX, Operation, SetId, TABLE, TableFamily,
};

/// Why the table could not be changed or read, or the connections that the kernel tracks. Unless it says otherwise,
/// the table is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no way to netfilter: no such kernel, or no right to use it (`CAP_NET_ADMIN`).
    #[error("cannot {action} the netlink socket of netfilter")]
    Socket {
        /// What was tried: a verb.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The kernel refused an operation, and with it the whole transaction that it was part of.
    #[error("the kernel refuses to {operation}{}", explanation(.message.as_deref()))]
    Refused {
        /// The operation and the object, as "add chain x".
        operation: String,
        /// The chain that it was about, or to which the element at fault leads.
        chain: Option<ChainId>,
        /// Whether the same transaction would be refused again: not so if a device is gone, or the kernel busy.
        lasting: bool,
        /// The kernel's own explanation, where it has one.
        message: Option<String>,
        /// The error number, in words.
        source: io::Error,
    },
    /// Another process owns the table, and nobody but it can change the table until it ends.
    #[error("another process owns table inet {TABLE} and alone can change it; it gives way when it ends")]
    Owned,
    /// Somebody else changed the table after it was read: read it again and plan anew.
    #[error("somebody else has changed table inet {TABLE} since it was read; read it again")]
    Changed,
    /// The kernel's answer is lost, and the table may have been changed: read it again.
    #[error(
        "the kernel's answer is lost, so the outcome of the transaction is unknown; read the table again"
    )]
    Unknown,
    /// The transaction needs a larger send buffer than this process may have.
    #[error(
        "the transaction has {bytes} bytes, more than the send buffer may hold; \
         CAP_NET_ADMIN in the initial user namespace or a larger net.core.wmem_max would help"
    )]
    TooLarge {
        /// The length of the transaction.
        bytes: usize,
        /// What the system says.
        source: io::Error,
    },
    /// An operation that cannot be expressed to the kernel at all.
    #[error("cannot {operation}")]
    Unfit {
        /// The operation and the object, as "add chain x".
        operation: String,
        /// The chain that it was about.
        chain: Option<ChainId>,
        /// Why not.
        source: Unfit,
    },
    /// Each time that the table was read, somebody changed it, or the kernel was still growing one of its hash
    /// tables: read it again.
    #[error("table inet {TABLE} does not hold still for as long as it takes to read it")]
    Unstable,
    /// The kernel said something that it never says.
    #[error("the kernel's answer about {0} cannot be understood")]
    Malformed(&'static str),
}

/// Why something does not fit into a message to the kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// Elements cannot be encoded without the kind of their set. The table may have changed: read it again.
    #[error("the set was not in the table when it was last read; read it again")]
    UnknownSet,
    /// A name is longer than [`NAME_MAX`].
    #[error("the name {0} is longer than {NAME_MAX} bytes")]
    LongName(String),
    /// A name has a zero byte.
    #[error("a name has a zero byte")]
    ZeroByte,
    /// A comment is longer than [`COMMENT_MAX`].
    #[error("a comment is longer than {COMMENT_MAX} bytes")]
    LongComment,
    /// A rule becomes more instructions than the kernel takes.
    #[error("the rule has too many statements")]
    LongRule,
}

impl Error {
    /// The error of a call on the socket; `action` is what was tried with it.
    pub(super) fn socket(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Socket { action, source }
    }

    /// Whether the same transaction, planned on the same tables, would fail again: its content is at fault.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Refused { lasting, .. } => *lasting,
            Self::Unfit { source, .. } => *source != Unfit::UnknownSet,
            Self::TooLarge { .. } => true,
            _ => false,
        }
    }

    /// The chain that a refused operation was about, if it was about one.
    pub fn chain(&self) -> Option<&ChainId> {
        match self {
            Self::Refused { chain, .. } | Self::Unfit { chain, .. } => chain.as_ref(),
            _ => None,
        }
    }
}

/// Whether an operation that is refused so would be refused again.
pub(super) fn is_lasting(errno: i32, operation: Option<&Operation>) -> bool {
    let at_device = matches!(operation, Some(Operation::AddChain(_, Some(hook))) if hook.device().is_some());
    match errno {
        libc::EINTR | libc::EAGAIN | libc::ENOBUFS | libc::EPERM | libc::ENODEV => false,
        // Devices come and go by themselves.
        _ => !at_device,
    }
}

/// The chain that an operation is about, if it is about one.
pub(super) fn chain_of(operation: &Operation) -> Option<ChainId> {
    match operation {
        Operation::AddChain(chain, _)
        | Operation::FlushChain(chain)
        | Operation::AddRule(chain, _)
        | Operation::DeleteChain(chain) => Some(chain.clone()),
        _ => None,
    }
}

fn explanation(message: Option<&str>) -> String {
    message.map(|message| format!(" ({message})")).unwrap_or_default()
}

/// An operation in words, with the name of what it is about.
pub(super) fn describe(table: TableFamily, operation: &Operation) -> String {
    match operation {
        Operation::AddTable => format!("add table {table} {TABLE}"),
        Operation::OwnTable => format!("own table {table} {TABLE}"),
        Operation::DeleteTable => format!("delete table {table} {TABLE}"),
        Operation::AddSet(set, _) => format!("add set {set}"),
        Operation::AddChain(chain, _) => format!("add chain {chain}"),
        Operation::FlushChain(chain) => format!("flush chain {chain}"),
        Operation::DeleteElements(set, _) => format!("delete elements of set {set}"),
        Operation::AddElements(set, _) => format!("add elements to set {set}"),
        Operation::AddRule(chain, rule) => format!("add rule `{rule}` to chain {chain}"),
        Operation::DeleteChain(chain) => format!("delete chain {chain}"),
        Operation::DeleteSet(set) => format!("delete set {set}"),
    }
}

/// What an operation was to do with one of its elements.
pub(super) fn describe_element(set: &SetId, key: ElementKey, adding: bool) -> String {
    if adding {
        format!("add element {key} to set {set}")
    } else {
        format!("delete element {key} of set {set}")
    }
}
