//! What sets and maps are for, printed as their names and read back from them.

use std::fmt;

use super::digest::Digest;
use super::role::direction_and_rest;
use crate::model::{Direction, Family};

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
    /// That of the set of this name.
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

fn suffix(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

#[cfg(test)]
mod tests {
    use super::super::id::SetId;
    use super::*;

    #[test]
    fn a_name_that_is_read_says_what_it_was_printed_for() {
        let (egress, ingress, digest) = (Direction::Egress, Direction::Ingress, Digest::of(["content"]));
        let mut sets = vec![SetRole::Answers, SetRole::NodeLinkLocal, SetRole::LinkLocal];
        sets.extend([SetRole::Ports, SetRole::Verdicts].map(|of| of(egress, digest)));
        sets.push(SetRole::Sources(digest));
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
        for name in ["", "mine", "ingress_peer_12", "door", "pods", "ingress_isolated"] {
            assert_eq!(*SetId::read(name).role(), SetRole::Other, "{name}");
        }
    }
}
