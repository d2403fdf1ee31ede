//! What chains and sets are for, printed as their names and read back from them.

use std::fmt;
use std::sync::Arc;

use super::digest::Digest;
use crate::model::{Direction, Family, ObjectName, Tier};

/// What a chain is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainRole {
    /// The base chain that judges what the node forwards.
    Forward,
    /// The base chain that judges what leaves a socket of the node on a pod's behalf.
    Output,
    /// The base chain that judges what pods send to their node.
    Input,
    /// A direction's own chain, which looks for the peer. It returns for what is allowed.
    Direction(Direction),
    /// An identity: what the addresses may that are in the same sets of peers.
    Peer(Direction, Digest),
    /// Ports that are open between an identity and a subject.
    Ports(Direction, Digest),
    /// Ports of which some are denied between an identity and a subject.
    Verdicts(Direction, Digest),
    /// The rules that pass a packet on, and then what decides.
    Path(Direction, Digest),
    /// That a rule lets a packet through.
    Rule {
        /// The direction in which the rule applies.
        direction: Direction,
        /// The policy.
        policy: ObjectName,
        /// The rule's index in `spec.ingress` or `spec.egress`.
        index: usize,
    },
    /// What a rule of a `ClusterNetworkPolicy` does to a packet.
    TierRule {
        /// The direction in which the rule applies.
        direction: Direction,
        /// The policy's tier.
        tier: Tier,
        /// The policy.
        policy: Arc<str>,
        /// The rule's index in `spec.ingress` or `spec.egress`.
        index: usize,
        /// What becomes of the packet.
        effect: TierEffect,
    },
    /// Where a packet goes about which no rule with peers decides.
    Unlisted(Direction),
    /// What a group of pods does with those: the rules for everybody, for a family and for all pods.
    Subject(Direction, Digest),
    /// What happens to packets of a group of pods that the same policies isolate, and that no rule lets through.
    Isolation {
        /// The direction in which they isolate.
        direction: Direction,
        /// Whether all of them are in audit mode.
        audited: bool,
        /// The group.
        group: Digest,
    },
    /// Where packets go on that are denied and that conntrack does not track.
    Untracked(Direction),
    /// Answers of connections that were cut.
    Cut,
    /// Strict start: looks at both ends of a packet.
    StrictStart,
    /// Strict start: looks at the end that is the subject in a direction.
    StrictStartOf(Direction),
    /// Packets of pods whose doors are unknown.
    WithoutDoor,
    /// A part of what happens at a device.
    Device(DevicePart, Arc<str>),
    /// At doors: what passes whatever the policies say.
    LinkAlways,
    /// At doors: what passes, and lets its answers pass.
    LinkPass,
    /// At doors: who is at the other end, for a group of pods.
    Link(Direction, Digest),
    /// None that podfence makes, or one whose name had to be cut.
    Other,
}

/// What a rule of a `ClusterNetworkPolicy` does to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TierEffect {
    /// It lets it through.
    Accept,
    /// It drops it.
    Deny,
    /// It leaves it to the next tier.
    Pass,
    /// It would drop it, but its policy is in audit mode.
    Audit,
}

impl TierEffect {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Accept, Self::Deny, Self::Pass, Self::Audit];

    /// The word for it in names, such as `deny`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Deny => "deny",
            Self::Pass => "pass",
            Self::Audit => "audit",
        }
    }
}

/// What a chain of a device is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DevicePart {
    /// The base chain of what leaves a pod's door.
    Door,
    /// IPv6 that is no discovery.
    DoorOwn6,
    /// Who speaks in neighbour discovery.
    DoorSpeaks,
    /// Neighbour discovery.
    DoorDiscovery,
    /// Encapsulated packets.
    DoorTunnel,
    /// The rare and the spoofed.
    DoorRest,
    /// What comes in at other devices with the pod's address.
    DoorElsewhere,
    /// The base chain of what enters a pod's door.
    Into,
    /// The base chain of a device that is no door.
    Elsewhere,
}

/// What a set or map is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetRole {
    /// Every address that a policy of this node names as a peer and that belongs to a pod, with its identity.
    Peers(Direction, Family),
    /// The address blocks that the policies name, for addresses that belong to no pod, with their identities.
    Blocks(Direction, Family),
    /// The addresses that are judged, with what becomes of packets whose peer no rule names.
    Isolated(Direction, Family),
    /// Every isolated pod with itself.
    Itself(Direction, Family),
    /// The subjects that an identity reaches.
    Reached(Direction, Digest, Family),
    /// Ports, with the rules that open them.
    Ports(Direction, Digest),
    /// Ports, with what decides about them; some are denied.
    Verdicts(Direction, Digest),
    /// Every address that a pod has, if a rule lets all pods in or out.
    Pods(Family),
    /// The pods of which only ClusterNetworkPolicies judge what they send to their own node.
    OwnNode(Family),
    /// The answers of connections that were cut.
    Cut(Family),
    /// Strict start: the addresses that the node's pods get.
    PodRanges(Family),
    /// Strict start: the addresses in those ranges that somebody is known to have.
    Known(Family),
    /// The addresses of the node's pods whose doors are unknown.
    WithoutDoor(Family),
    /// At doors: the addresses of the pods that have a door on this node.
    BehindDoors(Family),
    /// At doors: sources that pods of a namespace may use besides their own.
    Sources(Digest),
    /// At doors: the senders that a group of pods lets in.
    Link(Direction, Digest, Family),
    /// At doors: the blocks that a group of pods may reach or be reached from.
    LinkBlocks(Direction, Digest, Family),
    /// At doors: the tuples of answers to packets that have passed.
    Answers,
    /// At doors: the node's own link-local addresses at bridges.
    NodeLinkLocal,
    /// All link-local addresses.
    LinkLocal,
    /// None that podfence makes.
    Other,
}

impl fmt::Display for ChainRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward => f.write_str("forward"),
            Self::Output => f.write_str("output"),
            Self::Input => f.write_str("input"),
            Self::Direction(direction) => write!(f, "{direction}"),
            Self::Peer(direction, digest) => write!(f, "{direction}_peer_{digest}"),
            Self::Ports(direction, digest) => write!(f, "{direction}_ports_{digest}"),
            Self::Verdicts(direction, digest) => write!(f, "{direction}_verdicts_{digest}"),
            Self::Path(direction, digest) => write!(f, "{direction}_path_{digest}"),
            Self::Rule { direction, policy, index } => {
                write!(f, "{direction}/{}/{}/{index}", policy.namespace, policy.name)
            }
            Self::TierRule { direction, tier, policy, index, effect } => {
                write!(f, "{direction}/{tier}/{policy}/{index}/{}", effect.as_str())
            }
            Self::Unlisted(direction) => write!(f, "{direction}_unlisted"),
            Self::Subject(direction, group) => write!(f, "{direction}_subject_{group}"),
            Self::Isolation { direction, audited: false, group } => write!(f, "{direction}_isolate_{group}"),
            Self::Isolation { direction, audited: true, group } => write!(f, "{direction}_audit_{group}"),
            Self::Untracked(direction) => write!(f, "{direction}_untracked"),
            Self::Cut => f.write_str("cut"),
            Self::StrictStart => f.write_str("strict_start"),
            Self::StrictStartOf(direction) => write!(f, "strict_start_{direction}"),
            Self::WithoutDoor => f.write_str("without_door"),
            Self::Device(part, device) => write!(f, "{}/{device}", part.as_str()),
            Self::LinkAlways => f.write_str("link_always"),
            Self::LinkPass => f.write_str("link_pass"),
            Self::Link(direction, digest) => write!(f, "{direction}_link_{digest}"),
            Self::Other => Ok(()),
        }
    }
}

impl ChainRole {
    /// Whether it is the base chain of what leaves a pod's door. The comment of its last rule names the pod.
    pub fn is_door(&self) -> bool {
        matches!(self, Self::Device(DevicePart::Door, _))
    }

    /// That of the chain or set of this name.
    pub(super) fn of(name: &str) -> Self {
        Self::of_directions(name).or_else(|| Self::of_device(name)).or_else(|| Self::of_rule(name)).unwrap_or(
            match name {
                "forward" => Self::Forward,
                "output" => Self::Output,
                "input" => Self::Input,
                "cut" => Self::Cut,
                "strict_start" => Self::StrictStart,
                "strict_start_egress" => Self::StrictStartOf(Direction::Egress),
                "strict_start_ingress" => Self::StrictStartOf(Direction::Ingress),
                "without_door" => Self::WithoutDoor,
                "link_always" => Self::LinkAlways,
                "link_pass" => Self::LinkPass,
                _ => Self::Other,
            },
        )
    }

    fn of_directions(name: &str) -> Option<Self> {
        let (direction, rest) = direction_and_rest(name)?;
        match rest {
            "" => return Some(Self::Direction(direction)),
            "_unlisted" => return Some(Self::Unlisted(direction)),
            "_untracked" => return Some(Self::Untracked(direction)),
            _ => {}
        }
        let (kind, digest) = rest.rsplit_once('_')?;
        let digest = Digest::read(digest)?;
        match kind {
            "_peer" => Some(Self::Peer(direction, digest)),
            "_ports" => Some(Self::Ports(direction, digest)),
            "_verdicts" => Some(Self::Verdicts(direction, digest)),
            "_path" => Some(Self::Path(direction, digest)),
            "_subject" => Some(Self::Subject(direction, digest)),
            "_isolate" => Some(Self::Isolation { direction, audited: false, group: digest }),
            "_audit" => Some(Self::Isolation { direction, audited: true, group: digest }),
            "_link" => Some(Self::Link(direction, digest)),
            _ => None,
        }
    }

    fn of_device(name: &str) -> Option<Self> {
        let (part, device) = name.split_once('/')?;
        let part = DevicePart::ALL.into_iter().find(|known| known.as_str() == part)?;
        Some(Self::Device(part, device.into()))
    }

    fn of_rule(name: &str) -> Option<Self> {
        let (direction, rest) = direction_and_rest(name)?;
        let parts: Vec<_> = rest.strip_prefix('/')?.split('/').collect();
        match *parts {
            [namespace, name, index] => Some(Self::Rule {
                direction,
                policy: ObjectName::new(namespace, name),
                index: index.parse().ok()?,
            }),
            [tier, policy, index, effect] => Some(Self::TierRule {
                direction,
                tier: Tier::ALL.into_iter().find(|known| known.as_str() == tier)?,
                policy: policy.into(),
                index: index.parse().ok()?,
                effect: TierEffect::ALL.into_iter().find(|known| known.as_str() == effect)?,
            }),
            _ => None,
        }
    }
}

impl DevicePart {
    const ALL: [Self; 9] = [
        Self::Door,
        Self::DoorOwn6,
        Self::DoorSpeaks,
        Self::DoorDiscovery,
        Self::DoorTunnel,
        Self::DoorRest,
        Self::DoorElsewhere,
        Self::Into,
        Self::Elsewhere,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Door => "door",
            Self::DoorOwn6 => "door_own6",
            Self::DoorSpeaks => "door_speaks",
            Self::DoorDiscovery => "door_discovery",
            Self::DoorTunnel => "door_tunnel",
            Self::DoorRest => "door_rest",
            Self::DoorElsewhere => "door_elsewhere",
            Self::Into => "into",
            Self::Elsewhere => "elsewhere",
        }
    }
}

impl fmt::Display for SetRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peers(direction, family) => write!(f, "{direction}_peers_{}", suffix(*family)),
            Self::Blocks(direction, family) => write!(f, "{direction}_blocks_{}", suffix(*family)),
            Self::Isolated(direction, family) => write!(f, "{direction}_isolated_{}", suffix(*family)),
            Self::Itself(direction, family) => write!(f, "{direction}_itself_{}", suffix(*family)),
            Self::Reached(direction, digest, family) => {
                write!(f, "{direction}_peer_{digest}_{}", suffix(*family))
            }
            Self::Ports(direction, digest) => write!(f, "{direction}_ports_{digest}"),
            Self::Verdicts(direction, digest) => write!(f, "{direction}_verdicts_{digest}"),
            Self::Pods(family) => write!(f, "pods_{}", suffix(*family)),
            Self::OwnNode(family) => write!(f, "egress_own_node_{}", suffix(*family)),
            Self::Cut(family) => write!(f, "cut_{}", suffix(*family)),
            Self::PodRanges(family) => write!(f, "pod_ranges_{}", suffix(*family)),
            Self::Known(family) => write!(f, "known_{}", suffix(*family)),
            Self::WithoutDoor(family) => write!(f, "without_door_{}", suffix(*family)),
            Self::BehindDoors(family) => write!(f, "behind_doors_{}", suffix(*family)),
            Self::Sources(digest) => write!(f, "sources_{digest}"),
            Self::Link(direction, digest, family) => {
                write!(f, "{direction}_link_{digest}_{}", suffix(*family))
            }
            Self::LinkBlocks(direction, digest, family) => {
                write!(f, "{direction}_link_{digest}_blocks_{}", suffix(*family))
            }
            Self::Answers => f.write_str("answers"),
            Self::NodeLinkLocal => f.write_str("node_link_local"),
            Self::LinkLocal => f.write_str("link_local"),
            Self::Other => Ok(()),
        }
    }
}

impl SetRole {
    /// That of the chain or set of this name.
    pub(super) fn of(name: &str) -> Self {
        Self::of_family(name).or_else(|| Self::of_content(name)).unwrap_or(match name {
            "answers" => Self::Answers,
            "node_link_local" => Self::NodeLinkLocal,
            "link_local" => Self::LinkLocal,
            _ => Self::Other,
        })
    }

    fn of_family(name: &str) -> Option<Self> {
        let (name, suffixed) = name.rsplit_once('_')?;
        let family = Family::BOTH.into_iter().find(|family| suffix(*family) == suffixed)?;
        match name {
            "pods" => return Some(Self::Pods(family)),
            "egress_own_node" => return Some(Self::OwnNode(family)),
            "cut" => return Some(Self::Cut(family)),
            "pod_ranges" => return Some(Self::PodRanges(family)),
            "known" => return Some(Self::Known(family)),
            "without_door" => return Some(Self::WithoutDoor(family)),
            "behind_doors" => return Some(Self::BehindDoors(family)),
            _ => {}
        }
        let (direction, kind) = direction_and_rest(name)?;
        match kind {
            "_peers" => return Some(Self::Peers(direction, family)),
            "_blocks" => return Some(Self::Blocks(direction, family)),
            "_isolated" => return Some(Self::Isolated(direction, family)),
            "_itself" => return Some(Self::Itself(direction, family)),
            _ => {}
        }
        if let Some(digest) = kind.strip_prefix("_peer_") {
            return Some(Self::Reached(direction, Digest::read(digest)?, family));
        }
        let link = kind.strip_prefix("_link_")?;
        match link.strip_suffix("_blocks") {
            Some(digest) => Some(Self::LinkBlocks(direction, Digest::read(digest)?, family)),
            None => Some(Self::Link(direction, Digest::read(link)?, family)),
        }
    }

    fn of_content(name: &str) -> Option<Self> {
        if let Some(digest) = name.strip_prefix("sources_") {
            return Some(Self::Sources(Digest::read(digest)?));
        }
        let (direction, kind) = direction_and_rest(name)?;
        let (kind, digest) = kind.rsplit_once('_')?;
        match kind {
            "_ports" => Some(Self::Ports(direction, Digest::read(digest)?)),
            "_verdicts" => Some(Self::Verdicts(direction, Digest::read(digest)?)),
            _ => None,
        }
    }
}

/// The direction that a name begins with, and what is behind it.
fn direction_and_rest(name: &str) -> Option<(Direction, &str)> {
    Direction::BOTH
        .into_iter()
        .find_map(|direction| Some((direction, name.strip_prefix(direction.as_str())?)))
}

fn suffix(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

#[cfg(test)]
mod tests {
    use super::super::id::{ChainId, SetId};
    use super::*;

    #[test]
    fn a_name_that_is_read_says_what_it_was_printed_for() {
        let (egress, ingress, digest) = (Direction::Egress, Direction::Ingress, Digest::of(["content"]));
        let policy = ObjectName::new("shop", "db.example-1");
        let mut chains = vec![
            ChainRole::Forward,
            ChainRole::Output,
            ChainRole::Input,
            ChainRole::Direction(egress),
            ChainRole::Peer(ingress, digest),
            ChainRole::Ports(egress, digest),
            ChainRole::Verdicts(ingress, digest),
            ChainRole::Path(ingress, digest),
            ChainRole::Subject(egress, digest),
            ChainRole::Rule { direction: egress, policy, index: 12 },
            ChainRole::Unlisted(ingress),
            ChainRole::Isolation { direction: egress, audited: false, group: digest },
            ChainRole::Isolation { direction: ingress, audited: true, group: digest },
            ChainRole::Untracked(egress),
            ChainRole::Cut,
            ChainRole::StrictStart,
            ChainRole::StrictStartOf(ingress),
            ChainRole::WithoutDoor,
            ChainRole::LinkAlways,
            ChainRole::LinkPass,
            ChainRole::Link(ingress, digest),
        ];
        chains.extend(Tier::ALL.into_iter().zip(TierEffect::ALL).map(|(tier, effect)| ChainRole::TierRule {
            direction: ingress,
            tier,
            policy: "guard.rails".into(),
            index: 3,
            effect,
        }));
        chains.extend(DevicePart::ALL.map(|part| ChainRole::Device(part, "veth1".into())));
        for role in chains {
            let id = ChainId::from(role.clone());
            assert_eq!(*ChainId::read(id.name()).role(), role, "{id}");
        }
        let mut sets = vec![
            SetRole::Answers,
            SetRole::NodeLinkLocal,
            SetRole::LinkLocal,
            SetRole::Ports(ingress, digest),
        ];
        sets.extend([
            SetRole::Ports(ingress, digest),
            SetRole::Verdicts(egress, digest),
            SetRole::Sources(digest),
        ]);
        for family in Family::BOTH {
            sets.extend([SetRole::Peers, SetRole::Blocks, SetRole::Isolated].map(|of| of(egress, family)));
            sets.extend([
                SetRole::Itself(ingress, family),
                SetRole::Reached(ingress, digest, family),
                SetRole::Link(ingress, digest, family),
                SetRole::LinkBlocks(egress, digest, family),
            ]);
            let of_family: [fn(Family) -> SetRole; 7] = [
                SetRole::Pods,
                SetRole::OwnNode,
                SetRole::Cut,
                SetRole::PodRanges,
                SetRole::Known,
                SetRole::WithoutDoor,
                SetRole::BehindDoors,
            ];
            sets.extend(of_family.map(|of| of(family)));
        }
        for role in sets {
            let id = SetId::from(role.clone());
            assert_eq!(*SetId::read(id.name()).role(), role, "{id}");
        }
    }

    #[test]
    fn other_names_say_nothing() {
        for name in ["", "mine", "ingress_peer_12", "door", "ingress/shop/db", "ingress/shop/db/x", "pods"] {
            assert_eq!(*ChainId::read(name).role(), ChainRole::Other, "{name}");
            assert_eq!(*SetId::read(name).role(), SetRole::Other, "{name}");
        }
    }
}
