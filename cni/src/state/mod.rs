//! What a node enforced last, on disk: a node that boots enforces it before its first pod can send, whether or not the
//! API server answers.
//!
//! The agent [saves](State::save) the table `inet podfence` whenever it has changed. [`restore_if_missing`] makes it
//! anew where the kernel has none, with a mark by which the agent knows it. A pod that comes back with another address
//! is [readdressed](readdress). The first agent that knows the objects brings the table in step, and the mark is gone.
//! What a pod's devices decide (`netdev podfence`) is not restored: devices are new when a node boots.

mod address;
mod file;
mod packed;
mod table;
#[cfg(test)]
mod tests;
mod timestamp;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use rustix::io::Errno;

pub use address::readdress;
pub use file::{Header, Ranges, SavedPod, State, host, remove};
pub use timestamp::Timestamp;

use crate::closed;
use crate::netlink::numbers::{NFT_MSG_GETRULE, NFTA_ANY_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_USERDATA};
use crate::netlink::ruleset::{Family, comment_of};
use crate::netlink::{self, Batch, Nftables, Question};

/// Where the state is kept, if nothing else is said.
pub const DEFAULT_PATH: &str = "/var/lib/podfence/state";

/// The table that is saved.
pub const TABLE: &str = "podfence";

/// The chain that marks a restored table. Nothing leads to it; the comment of its one rule names the [`Timestamp`] of
/// the state. [`restored_set`] belongs to the mark, too.
pub const RESTORED_CHAIN: &str = "restored";

/// The addresses that the node's pods have in a restored table, each with the pod's name.
fn restored_set(family: Family) -> String {
    format!("restored_{}", family.suffix())
}

/// Why a state cannot be saved, read or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was to be done with it.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// There was a state, and it is gone.
    #[error("the file {0} is missing, although a state was saved there")]
    Missing(String),
    /// The file is no saved state, or not one of a format that this version knows.
    #[error("the file {path} is no state that podfence {version} can read: it begins with {found:?}", version = env!("CARGO_PKG_VERSION"))]
    Format {
        /// The file.
        path: String,
        /// What it begins with.
        found: String,
    },
    /// The file is not what was written.
    #[error("the file {0} is damaged: its content does not match its checksum")]
    Damaged(String),
    /// The file was written on another node.
    #[error("the file {path} is the state of node {node} on host {host}, and this is {here}")]
    Foreign {
        /// The file.
        path: String,
        /// The node that it was written for.
        node: String,
        /// The name of its host.
        host: String,
        /// What this is instead.
        here: String,
    },
    /// The kernel does not do what it is asked for.
    #[error(transparent)]
    Kernel(#[from] netlink::Error),
    /// There is no table that can be saved.
    #[error("the kernel has no table inet podfence")]
    NoTable,
    /// The table is that of an agent, or there is none: what is saved does not say what a pod is in it.
    #[error("the table in the kernel is not a restored one")]
    NotRestored,
    /// The saved state does not know the pod.
    #[error("the saved state does not know pod {0}")]
    UnknownPod(String),
    /// Nothing is known of the pod in a family of addresses, or it has several in one.
    #[error("the saved state does not say what becomes of {address}: pod {pod} had {known}")]
    Addresses {
        /// The pod.
        pod: String,
        /// The address.
        address: IpAddr,
        /// Those that are known of the pod.
        known: String,
    },
    /// Policies name blocks that hold only one of two addresses.
    #[error("the policies' blocks tell {old} from {new}")]
    Blocks {
        /// The address that the pod had.
        old: IpAddr,
        /// The address that it has.
        new: IpAddr,
    },
}

/// What became of [`restore_if_missing`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel has the table already.
    TablePresent,
    /// There was none, and it is restored as it was at that time.
    Restored(Timestamp),
    /// No state was ever saved here. These ranges are closed, because the caller knows them.
    NothingSaved(Vec<IpNet>),
}

/// The state cannot be restored.
#[derive(Debug, thiserror::Error)]
pub struct Failure {
    /// Why.
    pub source: Box<Error>,
    /// The pods' ranges that are closed instead, until the agent enforces; none if none is known.
    pub closed: Vec<IpNet>,
    /// Why they are not, if they are not.
    pub open: Option<netlink::Error>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the saved state is not restored, and ")?;
        match (&self.open, self.closed.as_slice()) {
            (Some(error), _) => write!(f, "the pods of this node are open: {error}"),
            (None, []) => {
                f.write_str("the pods of this node are open, because no range of their addresses is known")
            }
            (None, closed) => write!(f, "{} stay closed until the agent enforces", Listed(closed)),
        }
    }
}

/// Ranges with commas between them.
struct Listed<'a>(&'a [IpNet]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .enumerate()
            .try_for_each(|(index, range)| write!(f, "{}{range}", if index == 0 { "" } else { ", " }))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TablePresent => f.write_str("the kernel has the table already: nothing is restored"),
            Self::Restored(saved) => write!(f, "restored: enforcing the state of {saved}"),
            Self::NothingSaved(closed) if closed.is_empty() => {
                f.write_str("no state was saved: nothing is restored")
            }
            Self::NothingSaved(closed) => {
                write!(f, "no state was saved: {} stay closed until the agent enforces", Listed(closed))
            }
        }
    }
}

/// Makes the table anew from the file, if the kernel has none. The file has to be this node's; without the name of the
/// node, this host's.
///
/// Where the file cannot be used, the node's pods are closed: the ranges that are saved beside it, and `ranges`. They
/// are also closed if no state was ever saved.
///
/// # Errors
///
/// If the table is neither there nor restored.
pub fn restore_if_missing(path: &Path, node: Option<&str>, ranges: &[IpNet]) -> Result<Outcome, Failure> {
    match restore(path, node) {
        Ok(None) if !Ranges::exist(path) => {
            close_all(ranges).map_err(|error| fail(error.into(), path, node, ranges))?;
            Ok(Outcome::NothingSaved(ranges.to_vec()))
        }
        Ok(None) => Err(fail(Error::Missing(path.display().to_string()), path, node, ranges)),
        Ok(Some(outcome)) => Ok(outcome),
        Err(error) => Err(fail(error, path, node, ranges)),
    }
}

/// `None` if there is no file.
fn restore(path: &Path, node: Option<&str>) -> Result<Option<Outcome>, Error> {
    let nftables = &mut Nftables::open()?;
    if nftables.has_table(TABLE)? {
        return Ok(Some(Outcome::TablePresent));
    }
    let Some(state) = State::read(path, node)? else { return Ok(None) };
    // The flags of tables with owners were tried when the state was saved; the kernel may be another by now.
    for owned in [true, false] {
        match nftables.commit(&Batch::of(state.restoring(owned)), None) {
            Ok(()) => break,
            Err(error) if owned && error.is(Errno::OPNOTSUPP) => {}
            Err(error) if error.is(Errno::EXIST) && nftables.has_table(TABLE)? => {
                return Ok(Some(Outcome::TablePresent));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(Outcome::Restored(state.header.saved)))
}

/// Closes what is known of the addresses of the node's pods.
fn fail(source: Error, path: &Path, node: Option<&str>, ranges: &[IpNet]) -> Failure {
    let mut known = ranges.to_vec();
    // Those of another node are not this one's to close.
    known.extend(Ranges::read(path, node).into_iter().flat_map(|saved| saved.ranges));
    let closed = IpNet::aggregate(&known);
    let source = Box::new(source);
    match close_all(&closed) {
        Ok(()) => Failure { source, closed, open: None },
        Err(error) => Failure { source, closed: Vec::new(), open: Some(error) },
    }
}

/// When the state was saved that the kernel's table is restored from; `None` if it is not a restored one, or there is
/// none.
///
/// # Errors
///
/// If the kernel does not say.
pub fn restored() -> Result<Option<String>, Error> {
    let names = &[(NFTA_ANY_TABLE, TABLE), (NFTA_RULE_CHAIN, RESTORED_CHAIN)];
    let question = Question { kind: NFT_MSG_GETRULE, all: true, names };
    let mut saved = None;
    Nftables::open()?.ask(&question, |message| {
        let attributes = message.attributes();
        if attributes.text(NFTA_RULE_CHAIN) == Some(RESTORED_CHAIN) {
            saved = attributes.get(NFTA_RULE_USERDATA).and_then(comment_of).map(str::to_owned);
        }
    })?;
    Ok(saved)
}

fn close_all(ranges: &[IpNet]) -> Result<(), netlink::Error> {
    if ranges.is_empty() { Ok(()) } else { closed::close_ranges(ranges) }
}
