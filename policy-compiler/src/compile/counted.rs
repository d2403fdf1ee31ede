//! What rules count, and the comments that say more of it than the role of the chain.

use std::sync::Arc;

use crate::model::{Direction, ObjectName, Tier};
use crate::ruleset::{COMMENT_MAX, ChainId, ChainRole, SpoofReason, TierEffect};

/// What the counter of a chain counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// Packets that a policy's rule let through. Names that are too long for the kernel appear cut.
    Allowed {
        /// The direction in which the rule applies.
        direction: Direction,
        /// The policy.
        policy: ObjectName,
        /// The rule's index in `spec.ingress` or `spec.egress`.
        rule: usize,
    },
    /// Packets that a rule of a `ClusterNetworkPolicy` covers. Names that are too long for the kernel appear cut.
    Tier {
        /// The direction in which the rule applies.
        direction: Direction,
        /// The policy's tier.
        tier: Tier,
        /// The policy.
        policy: Arc<str>,
        /// The rule's index in `spec.ingress` or `spec.egress`.
        rule: usize,
        /// What the rule does to them.
        effect: TierEffect,
    },
    /// Packets that were dropped because no rule let them through, of the pods that the same policies isolate.
    Denied {
        /// The direction in which the policies isolate.
        direction: Direction,
        /// The policies as `NAMESPACE/POLICY, …`. Where they are too many for the table, the last are cut off.
        policies: String,
    },
    /// Packets that passed although no rule let them through, because the policies are in audit mode.
    Audited {
        /// The direction in which the policies isolate.
        direction: Direction,
        /// The policies, as of [`Counted::Denied`].
        policies: String,
    },
    /// Packets that no rule let through either, of flows that conntrack does not track: they may be answers.
    Untracked(Direction),
    /// Packets that strict start dropped.
    StrictStart(Direction),
    /// Packets that were dropped at a device.
    Spoofed {
        /// Why.
        reason: SpoofReason,
        /// The pod behind the door that they left, or whose address they use where they came in elsewhere.
        pod: String,
    },
}

impl Counted {
    /// What the rule of a chain counts that has this comment; `None` for rules that do not count.
    pub fn by(chain: &ChainId, comment: Option<&str>) -> Option<Self> {
        if let Some(spoofed) = comment.and_then(|comment| comment.strip_prefix(SPOOFED)) {
            let (reason, pod) = spoofed.split_once(' ').unwrap_or((spoofed, ""));
            return Some(Self::Spoofed { reason: SpoofReason::of(reason)?, pod: pod.to_owned() });
        }
        match chain.role().clone() {
            ChainRole::Rule { direction, policy, index } => {
                Some(Self::Allowed { direction, policy, rule: index })
            }
            ChainRole::TierRule { direction, tier, policy, index, effect } => {
                Some(Self::Tier { direction, tier, policy, rule: index, effect })
            }
            ChainRole::Isolation { direction, audited, .. } => {
                let policies = comment.and_then(|comment| comment.strip_prefix(isolated_by(audited)));
                let policies = policies.unwrap_or_default().to_owned();
                Some(if audited {
                    Self::Audited { direction, policies }
                } else {
                    Self::Denied { direction, policies }
                })
            }
            ChainRole::Untracked(direction) => Some(Self::Untracked(direction)),
            ChainRole::StrictStartOf(direction) => Some(Self::StrictStart(direction)),
            _ => None,
        }
    }
}

/// What stands before the policies in the comment of the rule that denies what no rule has let through, or only would.
fn isolated_by(audited: bool) -> &'static str {
    if audited { "audited: isolated by " } else { "isolated by " }
}

/// The comment of that rule.
pub(super) fn isolation_comment<'a>(audited: bool, policies: impl Iterator<Item = &'a ObjectName>) -> String {
    let policies: Vec<_> = policies.map(ToString::to_string).collect();
    comment(&format!("{}{}", isolated_by(audited), policies.join(", ")))
}

/// What stands in the comment of a rule that drops what is spoofed, before the reason and the pod.
const SPOOFED: &str = "spoofed ";

/// The comment of a rule that drops what is spoofed.
pub(super) fn spoofed_comment(reason: SpoofReason, pod: &str) -> String {
    comment(format!("{SPOOFED}{} {pod}", reason.as_str()).trim_end())
}

/// `text` as nft can print and read it in a comment.
pub(super) fn comment(text: &str) -> String {
    let mut comment = String::new();
    for c in text.chars().map(|c| if c == '"' || c.is_control() { '_' } else { c }) {
        if comment.len() + c.len_utf8() > COMMENT_MAX - 1 {
            break;
        }
        comment.push(c);
    }
    comment
}
