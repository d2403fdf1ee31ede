//! Names in the table. Each is a function of what it names and of nothing else, so the agent and the dry
//! run agree, and a restarted agent finds its own work again.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::{skeleton, strict};
use crate::model::{Direction, Family, ObjectName};
use crate::ruleset::{COMMENT_MAX, ChainName, NAME_MAX, SetName, SpoofReason};

/// The chain that says that a rule let a packet through: `ingress/NAMESPACE/POLICY/INDEX`.
pub(super) fn rule_chain(direction: Direction, policy: &ObjectName, index: usize) -> ChainName {
    ChainName::new(identifier(&format!("{direction}/{}/{}/{index}", policy.namespace, policy.name)))
}

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
    pub fn by(chain: &ChainName, comment: Option<&str>) -> Option<Self> {
        if let Some(spoofed) = comment.and_then(|comment| comment.strip_prefix(SPOOFED)) {
            let (reason, pod) = spoofed.split_once(' ').unwrap_or((spoofed, ""));
            return Some(Self::Spoofed { reason: SpoofReason::of(reason)?, pod: pod.to_owned() });
        }
        let direction_of = |text| Direction::BOTH.into_iter().find(|direction| direction.as_str() == text);
        for (infix, words) in [ISOLATE, AUDIT] {
            let direction =
                chain.as_str().split_once(infix).and_then(|(direction, _)| direction_of(direction));
            let Some(direction) = direction else { continue };
            let policies =
                comment.and_then(|comment| comment.strip_prefix(words)).unwrap_or_default().to_owned();
            return Some(if (infix, words) == AUDIT {
                Self::Audited { direction, policies }
            } else {
                Self::Denied { direction, policies }
            });
        }
        let direction_with = |chain_of: fn(Direction) -> ChainName| {
            Direction::BOTH.into_iter().find(|it| chain_of(*it) == *chain)
        };
        if let Some(direction) = direction_with(strict::one_end) {
            return Some(Self::StrictStart(direction));
        }
        if let Some(direction) = direction_with(skeleton::untracked) {
            return Some(Self::Untracked(direction));
        }
        let mut parts = chain.as_str().split('/');
        let direction = direction_of(parts.next()?)?;
        let policy = ObjectName::new(parts.next()?, parts.next()?);
        let rule = parts.next()?.parse().ok()?;
        Some(Self::Allowed { direction, policy, rule })
    }
}

/// What stands in the name of a chain that isolates, and in the comment of its rule before the policies: of one that
/// denies, and of one that only would.
const ISOLATE: (&str, &str) = ("_isolate_", "isolated by ");
const AUDIT: (&str, &str) = ("_audit_", "audited: isolated by ");

/// What stands in the comment of a rule that drops what is spoofed, before the reason and the pod.
const SPOOFED: &str = "spoofed ";

/// The comment of a rule that drops what is spoofed.
pub(super) fn spoofed_comment(reason: SpoofReason, pod: &str) -> String {
    comment(format!("{SPOOFED}{} {pod}", reason.as_str()).trim_end())
}

/// A chain of one sort at a device.
pub(super) fn device_chain(sort: &str, device: &str) -> ChainName {
    ChainName::new(identifier(&format!("{sort}/{device}")))
}

/// Whether a base chain guards a pod's door. The comment of its last rule names the pod.
pub fn guards_door(chain: &ChainName) -> bool {
    chain.as_str().starts_with("door/")
}

/// The chain of a group of pods that the same policies isolate, all of them in audit mode if it is `audited`.
pub(super) fn isolation_chain<'a>(
    direction: Direction,
    audited: bool,
    content: impl Iterator<Item = &'a str>,
) -> ChainName {
    let (infix, _) = if audited { AUDIT } else { ISOLATE };
    ChainName::new(format!("{direction}{infix}{}", digest(content)))
}

/// The comment of the last rule there.
pub(super) fn isolation_comment<'a>(audited: bool, policies: impl Iterator<Item = &'a ObjectName>) -> String {
    let (_, words) = if audited { AUDIT } else { ISOLATE };
    let policies: Vec<_> = policies.map(ToString::to_string).collect();
    comment(&format!("{words}{}", policies.join(", ")))
}

/// The sets that exist in every table, one for each family.
pub(super) fn family_set(name: &str, family: Family) -> SetName {
    let suffix = match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    };
    SetName::new(format!("{name}_{suffix}"))
}

/// A name for something that is known by its content alone.
pub(super) fn of_content<'a>(prefix: &str, content: impl Iterator<Item = &'a str>) -> String {
    of_digest(prefix, digest(content))
}

/// The same of a digest of its content.
pub(super) fn of_digest(prefix: &str, digest: Digest) -> String {
    format!("{prefix}_{digest}")
}

/// What stands for a content.
///
/// 128 bits: whoever writes policies can choose their content, and two contents under one name would
/// grant one's rights to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Digest(u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

pub(super) fn digest<'a>(content: impl Iterator<Item = &'a str>) -> Digest {
    let mut hash = Sha256::new();
    for part in content {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let bytes: [u8; 32] = hash.finalize().into();
    Digest(bytes.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte)))
}

/// The text itself where nft can read it as a name; otherwise as much of it as can be kept, and a digest.
fn identifier(text: &str) -> String {
    let readable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if text.len() <= NAME_MAX && text.chars().all(readable) {
        return text.to_owned();
    }
    let digest = digest(std::iter::once(text)).to_string();
    let kept = text.chars().map(|c| if readable(c) { c } else { '_' }).take(NAME_MAX - digest.len() - 1);
    kept.chain(['_']).chain(digest.chars()).collect()
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
