//! What rules tell the agent of packets (`log … group`).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::model::{Direction, Tier};

/// The NFLOG group to which packets are copied.
///
/// A group has one reader in each network namespace. What other programs take by default are small numbers: 0
/// (ulogd, tcpdump), 1 and 2 (Calico), 100 (kube-router).
pub const LOG_GROUP: u16 = 9555;

/// How many bytes of a packet are copied: the headers of IP, its usual extensions and the ports.
pub const LOG_SNAP_LENGTH: u32 = 128;

/// How many packets each rule logs in a second.
pub const LOG_RATE: u64 = 50;

/// How many it logs at once after a silence.
pub const LOG_BURST: u32 = 100;

/// What is said of a packet (`log prefix`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogPrefix {
    /// `podfence ingress denied`: it was judged.
    Judged {
        /// In which direction.
        direction: Direction,
        /// What became of it.
        event: LogEvent,
    },
    /// `podfence ingress denied by Admin guard-rails/0`: a rule of a `ClusterNetworkPolicy` covers it.
    Tier {
        /// In which direction.
        direction: Direction,
        /// Whether the policy is in audit mode: the packet was not dropped.
        audited: bool,
        /// The policy's tier.
        tier: Tier,
        /// The policy. A name of more than [`POLICY_NAME_MAX`] bytes is cut off.
        policy: Arc<str>,
        /// The rule's index in `spec.ingress` or `spec.egress`.
        rule: usize,
    },
    /// `podfence spoofed source`: it was dropped at a device, because it is not what the pod behind may send.
    Spoofed(SpoofReason),
}

/// How many bytes of a policy's name are in a prefix.
pub const POLICY_NAME_MAX: usize = 80;

/// What becomes of packets that are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogEvent {
    /// Dropped: policies isolate the pod, and no rule covers the packet.
    Denied,
    /// Dropped likewise, and conntrack does not track the packet: it may be an answer to something that is allowed.
    Untracked,
    /// It passes, but would be dropped if the policies that isolate the pod were not in audit mode.
    Audited,
    /// Dropped by strict start: no known pod has the address.
    StrictStart,
}

/// What is wrong with a packet at a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpoofReason {
    /// It leaves a door with a source that is not its pod's.
    Source,
    /// The frame comes from a link address that is not the pod's.
    LinkAddress,
    /// An ARP packet speaks for an address that is not the pod's.
    Arp,
    /// Neighbour discovery speaks for an address that is not the pod's, or for a router.
    NeighbourDiscovery,
    /// The frame has a VLAN tag.
    Tag,
    /// The frame carries neither IP nor ARP.
    EtherType,
    /// It is encapsulated for a tunnel of the nodes.
    Tunnel,
    /// It comes in elsewhere, with the source of a pod that has a door on this node.
    Elsewhere,
}

impl LogEvent {
    const ALL: [Self; 4] = [Self::Denied, Self::Untracked, Self::Audited, Self::StrictStart];

    fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Untracked => "untracked",
            Self::Audited => "audited",
            Self::StrictStart => "strict-start",
        }
    }
}

impl SpoofReason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Source,
        Self::LinkAddress,
        Self::Arp,
        Self::NeighbourDiscovery,
        Self::Tag,
        Self::EtherType,
        Self::Tunnel,
        Self::Elsewhere,
    ];

    /// The word for it in prefixes, metrics and reports, such as `link_address`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::LinkAddress => "link_address",
            Self::Arp => "arp",
            Self::NeighbourDiscovery => "neighbour_discovery",
            Self::Tag => "tag",
            Self::EtherType => "ethertype",
            Self::Tunnel => "tunnel",
            Self::Elsewhere => "elsewhere",
        }
    }

    /// The reason that a word stands for.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

impl LogPrefix {
    /// All that name no policy.
    fn fixed() -> impl Iterator<Item = Self> {
        let judged = Direction::BOTH
            .into_iter()
            .flat_map(|direction| LogEvent::ALL.map(|event| Self::Judged { direction, event }));
        judged.chain(SpoofReason::ALL.map(Self::Spoofed))
    }

    /// One that names a policy.
    fn of_tier(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split(' ').collect();
        let ["podfence", direction, event, "by", tier, rule] = *words else { return None };
        let (policy, rule) = rule.split_once('/')?;
        Some(Self::Tier {
            direction: Direction::BOTH.into_iter().find(|known| known.as_str() == direction)?,
            audited: [false, true].into_iter().find(|audited| tier_event(*audited).as_str() == event)?,
            tier: Tier::ALL.into_iter().find(|known| known.as_str() == tier)?,
            policy: policy.into(),
            rule: rule.parse().ok()?,
        })
    }
}

fn tier_event(audited: bool) -> LogEvent {
    if audited { LogEvent::Audited } else { LogEvent::Denied }
}

impl fmt::Display for LogPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Judged { direction, event } => write!(f, "podfence {direction} {}", event.as_str()),
            Self::Tier { direction, audited, tier, policy, rule } => {
                let event = tier_event(*audited).as_str();
                write!(f, "podfence {direction} {event} by {tier} {policy:.POLICY_NAME_MAX$}/{rule}")
            }
            Self::Spoofed(reason) => write!(f, "podfence spoofed {}", reason.as_str()),
        }
    }
}

/// The text is no prefix of podfence's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no prefix of podfence's rules")]
pub struct ForeignPrefix(String);

impl FromStr for LogPrefix {
    type Err = ForeignPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fixed = Self::fixed().find(|prefix| prefix.to_string() == text);
        fixed.or_else(|| Self::of_tier(text)).ok_or_else(|| ForeignPrefix(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest prefix that the kernel takes (`NF_LOG_PREFIXLEN`, less its zero byte).
    const PREFIX_MAX: usize = 127;

    #[test]
    fn a_prefix_is_read_as_it_was_written() {
        let of_tier = |tier, audited, policy: &str| LogPrefix::Tier {
            direction: Direction::Ingress,
            audited,
            tier,
            policy: policy.into(),
            rule: 24,
        };
        let longest = "x".repeat(POLICY_NAME_MAX);
        let of_tiers = [of_tier(Tier::Admin, false, "guard.rails"), of_tier(Tier::Baseline, true, &longest)];
        for prefix in LogPrefix::fixed().chain(of_tiers) {
            assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
        let cut = of_tier(Tier::Baseline, true, &"x".repeat(253)).to_string();
        assert_eq!(cut.parse(), Ok(of_tier(Tier::Baseline, true, &longest)));
        assert!(cut.len() <= PREFIX_MAX);
        for foreign in ["", "podfence", "podfence ingress", "podfence ingress denied ", "podfence spoofed"] {
            assert_eq!(foreign.parse::<LogPrefix>(), Err(ForeignPrefix(foreign.to_owned())));
        }
    }
}
