//! What chains are for, printed as their names and read back from them.

use std::fmt;
use std::sync::Arc;

use super::digest::Digest;
use crate::model::{Direction, ObjectName, Tier};

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

    /// That of the chain of this name.
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

/// The direction that a name begins with, and what is behind it.
pub(super) fn direction_and_rest(name: &str) -> Option<(Direction, &str)> {
    Direction::BOTH
        .into_iter()
        .find_map(|direction| Some((direction, name.strip_prefix(direction.as_str())?)))
}

#[cfg(test)]
mod tests {
    use super::super::id::ChainId;
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
        chains.extend(Tier::ALL.into_iter().flat_map(|tier| {
            TierEffect::ALL.map(|effect| {
                let policy = "guard.rails".into();
                ChainRole::TierRule { direction: ingress, tier, policy, index: 3, effect }
            })
        }));
        chains.extend(DevicePart::ALL.map(|part| ChainRole::Device(part, "veth1".into())));
        for role in chains {
            let id = ChainId::from(role.clone());
            assert_eq!(*ChainId::read(id.name()).role(), role, "{id}");
        }
    }

    #[test]
    fn other_names_say_nothing() {
        for name in [
            "",
            "mine",
            "ingress_peer_12",
            "door",
            "ingress/shop/db",
            "ingress/shop/db/x",
            "ingress/a/b/0/deny",
        ] {
            assert_eq!(*ChainId::read(name).role(), ChainRole::Other, "{name}");
        }
    }
}
