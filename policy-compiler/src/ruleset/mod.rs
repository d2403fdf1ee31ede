//! The nftables table of one node, as data.
//!
//! A [`Ruleset`] is rendered as `nft -f` text ([`Ruleset`]'s `Display`) and encoded as netlink messages by
//! the agent: two renderings of one thing. A [`Transaction`] is what leads from one ruleset to another.
//!
//! The vocabulary is as small as the shape of the table asks for: a [`Statement`] is one of a dozen, each
//! of which nft prints and reads back unchanged.

mod text;
mod transaction;

pub(crate) use transaction::Difference;
pub use transaction::{Operation, Transaction};

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Family, Protocol};

/// The one table that podfence owns, of the family `inet`.
pub const TABLE: &str = "podfence";

/// The longest name that the kernel takes for a chain or a set (`NFT_NAME_MAXLEN`, less its zero byte).
pub const NAME_MAX: usize = 255;

/// The longest comment that nft takes for a rule or an element.
pub const COMMENT_MAX: usize = 128;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name, which must be an nft identifier of at most [`NAME_MAX`] bytes.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            /// The name as the kernel has it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type! {
    /// A chain's name.
    ChainName
}
name_type! {
    /// A set's or map's name.
    SetName
}

/// Everything in the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets and maps by name.
    pub sets: BTreeMap<SetName, Set>,
    /// Chains by name.
    pub chains: BTreeMap<ChainName, Chain>,
}

/// A set, or a verdict map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What does not change while the set lives.
    pub kind: SetKind,
    /// The members; no two overlap.
    pub elements: BTreeMap<ElementKey, Element>,
}

/// What a set is declared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetKind {
    /// The type of the keys.
    pub key: KeyType,
    /// Whether keys are intervals (`flags interval`).
    pub interval: bool,
    /// Whether it maps to verdicts (`map … : verdict`); otherwise it is a set.
    pub verdicts: bool,
}

/// The type of a set's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// `ipv4_addr` or `ipv6_addr`
    Address(Family),
    /// Two addresses of one family, concatenated.
    AddressPair(Family),
    /// `inet_proto . inet_service`
    ProtocolPort,
}

/// A key. Intervals name their first and last member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementKey {
    /// Of [`KeyType::Address`] without intervals.
    Address(IpAddr),
    /// Of [`KeyType::Address`] with intervals.
    AddressRange(IpAddr, IpAddr),
    /// Of [`KeyType::AddressPair`].
    AddressPair(IpAddr, IpAddr),
    /// Of [`KeyType::ProtocolPort`]; the ends are equal where the set has no intervals.
    ProtocolPort(Protocol, u16, u16),
}

/// What stands beside a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// `goto` this chain: in verdict maps, and only there.
    pub target: Option<ChainName>,
    /// A word to the reader, at most [`COMMENT_MAX`] bytes without `"`.
    pub comment: Option<Arc<str>>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel calls it; `None` for a chain that others call.
    pub hook: Option<Hook>,
    /// The rules in their order.
    pub rules: Vec<Rule>,
}

/// The hook of a base chain: `type filter`, `priority filter`, `policy accept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Packets that the node forwards: after DNAT, before SNAT.
    Forward,
    /// Packets that leave a socket of the node.
    Output,
}

/// A rule: its statements one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Matches first; a rule ends at the first that does not hold.
    pub statements: Vec<Statement>,
    /// A word to the reader, at most [`COMMENT_MAX`] bytes without `"`.
    pub comment: Option<Arc<str>>,
}

/// One statement of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `ct state established,related`
    EstablishedOrRelated,
    /// `icmpv6 type 133-137`: router and neighbour discovery.
    NeighbourDiscovery,
    /// `fib saddr type local`: the source is an address of the node.
    SourceIsLocal,
    /// The fields are a member of the set.
    InSet(Fields, SetName),
    /// The verdict that the map has for the fields; the rule goes on where it has none.
    VerdictMap(Fields, SetName),
    /// `counter`
    Counter,
    /// The end of the rule.
    Verdict(Verdict),
}

/// The fields of a packet that are looked up. Those of an address family hold only for its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fields {
    /// `ip saddr` or `ip6 saddr`
    Source(Family),
    /// `ip daddr` or `ip6 daddr`
    Destination(Family),
    /// `ip saddr . ip daddr`, or the same of `ip6`
    SourceAndDestination(Family),
    /// `meta l4proto . th dport`
    ProtocolAndPort,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Done with this base chain: the packet goes on.
    Accept,
    /// The packet is gone.
    Drop,
    /// Back to the rule behind the last `jump`.
    Return,
    /// Call a chain.
    Jump(ChainName),
    /// Go on in a chain, not to come back.
    Goto(ChainName),
}

impl Set {
    /// A set without elements.
    pub fn new(kind: SetKind) -> Self {
        Self { kind, elements: BTreeMap::new() }
    }
}

impl Rule {
    /// A rule without a comment.
    pub fn new(statements: impl Into<Vec<Statement>>) -> Self {
        Self { statements: statements.into(), comment: None }
    }

    /// The rule with a comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<Arc<str>>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// The chains that the rule jumps or goes to, other than through a map.
    pub fn chains(&self) -> impl Iterator<Item = &ChainName> {
        self.statements.iter().filter_map(|statement| match statement {
            Statement::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain),
            _ => None,
        })
    }

    /// The sets and maps that the rule looks into.
    pub fn sets(&self) -> impl Iterator<Item = &SetName> {
        self.statements.iter().filter_map(|statement| match statement {
            Statement::InSet(_, set) | Statement::VerdictMap(_, set) => Some(set),
            _ => None,
        })
    }
}
