//! The nftables tables of one node, as data.
//!
//! A [`Ruleset`] is rendered as `nft -f` text ([`Ruleset`]'s `Display`) and encoded as netlink messages by
//! the agent: two renderings of one thing. A [`Transaction`] is what leads from one ruleset to another.
//!
//! The vocabulary is as small as the shape of the tables asks for: each [`Statement`] is one that nft prints and
//! reads back unchanged.

mod digest;
mod frame;
mod id;
mod log;
mod packet;
mod protocol;
mod role;
mod set_role;
mod text;
mod transaction;

pub use digest::Digest;
pub use frame::{EtherType, FrameMatch};
pub use id::{ChainId, SetId};
pub use log::{
    ForeignPrefix, LOG_BURST, LOG_GROUP, LOG_RATE, LOG_SNAP_LENGTH, LogEvent, LogPrefix, POLICY_NAME_MAX,
    SpoofReason,
};
pub use packet::Packet;
pub(crate) use protocol::{
    ICMP6, LISTENER_QUERY, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, REDIRECT, ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
};
pub use protocol::{dhcp_ports, icmp6_type_name, protocol_name};
pub use role::{ChainRole, DevicePart, TierEffect};
pub use set_role::SetRole;
pub(crate) use transaction::Difference;
pub use transaction::{Operation, Transaction, in_steps};

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Family, Protocol};

/// The name of the tables that podfence owns, one of each [`TableFamily`].
pub const TABLE: &str = "podfence";

/// The family of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableFamily {
    /// `inet`: where policies are enforced, by the addresses of packets.
    #[default]
    Inet,
    /// `netdev`: where the doors of pods are guarded, by the devices that packets pass.
    Netdev,
}

impl TableFamily {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Inet, Self::Netdev];
}

/// The longest name that the kernel takes for a chain or a set (`NFT_NAME_MAXLEN`, less its zero byte).
pub const NAME_MAX: usize = 255;

/// How long the answers to a packet are expected that no policy judges by its connection.
pub const ANSWER_LIFETIME: Duration = Duration::from_secs(180);

/// The longest comment that nft takes for a rule or an element.
pub const COMMENT_MAX: usize = 128;

/// Everything in a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The table.
    pub table: TableFamily,
    /// Sets and maps by name.
    pub sets: BTreeMap<SetId, Set>,
    /// Chains by name.
    pub chains: BTreeMap<ChainId, Chain>,
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
    /// Two addresses of one family, `inet_proto` and two times `inet_service`: where a packet comes from and
    /// where it goes. Such a set is [transient](SetKind::transient).
    Tuple(Family),
    /// The same of IPv6, where rules themselves put elements in ([`Statement::ExpectAnswer`]).
    Answer,
}

/// What a set is declared with whose elements come and, after a time of their own, go while the ruleset stays
/// the same: they are no part of a [`Ruleset`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transient {
    /// The most elements (`size`).
    pub size: u32,
    /// How often the kernel collects those whose time is over (`gc-interval`), in whole minutes.
    pub collected_every: Duration,
    /// Whether rules put elements in (`flags dynamic`).
    pub dynamic: bool,
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
    /// Of [`KeyType::Tuple`].
    Tuple(Tuple),
}

/// Where a packet comes from and where it goes. The addresses are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// `ip saddr` or `ip6 saddr`
    pub source: IpAddr,
    /// `ip daddr` or `ip6 daddr`
    pub destination: IpAddr,
    /// `meta l4proto`
    pub protocol: Protocol,
    /// `th sport`
    pub source_port: u16,
    /// `th dport`
    pub destination_port: u16,
}

/// What stands beside a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// `goto` this chain: in verdict maps, and only there.
    pub target: Option<ChainId>,
    /// A word to the reader, at most [`COMMENT_MAX`] bytes without `"`.
    pub comment: Option<Arc<str>>,
}

impl Element {
    /// Nothing: the key is all there is.
    pub const BARE: Self = Self { target: None, comment: None };
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel calls it; `None` for a chain that others call.
    pub hook: Option<Hook>,
    /// The rules in their order.
    pub rules: Vec<Rule>,
}

/// The hook of a base chain: `type filter`, `policy accept`, and a [priority](Hook::priority).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Packets that the node forwards: after DNAT, before SNAT.
    Forward,
    /// Packets to the node itself: after DNAT.
    Input,
    /// Packets that leave a socket of the node.
    Output,
    /// Frames that a device receives, before anything else looks at them. Of [`TableFamily::Netdev`].
    Ingress(Arc<str>),
    /// Frames that a device is about to send, behind everything else (Linux 5.16). Of [`TableFamily::Netdev`].
    Egress(Arc<str>),
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
    /// `ct state invalid,untracked`: conntrack does not know whether the packet opens a connection or answers one.
    InvalidOrUntracked,
    /// `meta nfproto ipv4`: an IP packet of the family. Of [`TableFamily::Inet`].
    OfFamily(Family),
    /// `icmpv6 type 133-137`: the first and the last of some types, or only one
    Icmp6(u8, u8),
    /// `meta l4proto igmp`: a protocol in IP (IANA "Protocol Numbers")
    Transport(u8),
    /// `udp sport 68 udp dport 67`, or the [ports of `DHCPv6`](dhcp_ports): from a client to servers.
    Dhcp(Family),
    /// `fib saddr type local`: the source is an address of the node.
    SourceIsLocal,
    /// `fib daddr type local`: the destination is an address of the node.
    DestinationIsLocal,
    /// `iifname "eth0"`: the packet comes in at this device.
    InputDevice(Arc<str>),
    /// `tcp flags syn / fin,syn,rst,ack`: the packet asks for a connection.
    TcpSyn,
    /// `meta l4proto sctp @th,96,8 0x1`: the packet asks for an association, its only chunk is INIT (RFC 9260,
    /// section 3.3.2).
    SctpInit,
    /// The fields are a member of the set.
    InSet(Fields, SetId),
    /// The verdict that the map has for the fields; the rule goes on where it has none.
    VerdictMap(Fields, SetId),
    /// `limit rate 50/second burst 100 packets`: [`LOG_RATE`] and [`LOG_BURST`] are not used up. Each rule counts
    /// for itself.
    WithinLogRate,
    /// `log prefix "podfence ingress denied" group 9555 snaplen 128`: the beginning of the packet goes to whoever
    /// reads [`LOG_GROUP`], if anybody does.
    Log(LogPrefix),
    /// What only a rule of [`TableFamily::Netdev`] asks, of a frame.
    Frame(FrameMatch),
    /// `update @set { ip6 daddr . ip6 saddr . meta l4proto . th dport . th sport timeout 3m }`: for
    /// [`ANSWER_LIFETIME`] the set, of [`KeyType::Answer`], has the tuple of the packets that answer this one.
    ExpectAnswer(SetId),
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
    /// `ip saddr . ip daddr . meta l4proto . th sport . th dport`, or the same of `ip6`
    Tuple(Family),
    /// `arp saddr ip`: the address that an ARP packet speaks for
    ArpSource,
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
    Jump(ChainId),
    /// Go on in a chain, not to come back.
    Goto(ChainId),
}

impl From<FrameMatch> for Statement {
    fn from(frame: FrameMatch) -> Self {
        Self::Frame(frame)
    }
}

impl Hook {
    /// `forward`, `input`, `output`, `ingress` or `egress`
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Input => "input",
            Self::Output => "output",
            Self::Ingress(_) => "ingress",
            Self::Egress(_) => "egress",
        }
    }

    /// The device whose frames it sees, if it sees those of one only.
    pub fn device(&self) -> Option<&Arc<str>> {
        match self {
            Self::Ingress(device) | Self::Egress(device) => Some(device),
            Self::Forward | Self::Input | Self::Output => None,
        }
    }

    /// When the chain's turn comes among all chains of the hook.
    ///
    /// In `input` it comes behind IPVS (`NF_IP_PRI_NAT_SRC - 1`): before that, what goes to a Service looks as if it
    /// went to the node, which has the Service's address. IPVS takes away what goes to a backend elsewhere, and it
    /// meets the hook [`Hook::Output`].
    pub fn priority(&self) -> i32 {
        match self {
            Self::Forward | Self::Output | Self::Ingress(_) | Self::Egress(_) => 0,
            Self::Input => 100,
        }
    }
}

impl SetKind {
    /// What a set is limited by whose elements are no part of a ruleset; `None` for one whose elements are.
    pub fn transient(self) -> Option<Transient> {
        match self.key {
            // 100,000 connections cut in every hour, for as long as each is barred. The kernel takes 4 MiB at once, and
            // about 100 bytes for each element that is there.
            KeyType::Tuple(_) => {
                Some(Transient { size: 1 << 18, collected_every: Duration::from_secs(60), dynamic: false })
            }
            KeyType::Answer => {
                Some(Transient { size: 1 << 16, collected_every: Duration::from_secs(60), dynamic: true })
            }
            _ => None,
        }
    }
}

impl ElementKey {
    /// How long an element stays in a [transient](SetKind::transient) set (its `timeout`); `None` for a key of
    /// other sets, where it stays.
    pub fn lifetime(self) -> Option<Duration> {
        match self {
            Self::Tuple(tuple) => Some(tuple.lifetime()),
            _ => None,
        }
    }
}

impl Tuple {
    /// How long the answers of a connection that was cut are dropped.
    ///
    /// With TCP, as long as either end may believe in the connection: a sender gives up after a quarter of an hour
    /// (`tcp_retries2`), keepalive asks after two hours of silence and gives up eleven minutes later
    /// (`tcp_keepalive_time`, `tcp_keepalive_probes`). The same with SCTP, of which a new association can be told
    /// apart from the old one as well. Not so with UDP: what is dropped there may be meant as a new beginning, so it
    /// is not dropped for longer than a busy sender needs to give up.
    fn lifetime(self) -> Duration {
        let minutes = match self.protocol {
            Protocol::Tcp | Protocol::Sctp => 150,
            Protocol::Udp => 10,
        };
        Duration::from_secs(minutes * 60)
    }

    /// The tuple of the packets that go the other way.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }
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
    pub fn chains(&self) -> impl Iterator<Item = &ChainId> {
        self.statements.iter().filter_map(|statement| match statement {
            Statement::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain),
            _ => None,
        })
    }

    /// The sets and maps that the rule looks into.
    pub fn sets(&self) -> impl Iterator<Item = &SetId> {
        self.statements.iter().filter_map(|statement| match statement {
            Statement::InSet(_, set) | Statement::VerdictMap(_, set) | Statement::ExpectAnswer(set) => {
                Some(set)
            }
            _ => None,
        })
    }
}
