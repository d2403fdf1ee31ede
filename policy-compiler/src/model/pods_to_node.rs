//! What pods may send to their own node.

use std::fmt;
use std::str::FromStr;

/// `--pods-to-node`: who decides what an isolated pod may send to addresses of the node that runs it.
///
/// What the node sends to its pods is never judged (kubelet's probes), nor are the answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodsToNode {
    /// Nobody: it passes.
    #[default]
    Allow,
    /// The policies, as for any address.
    Policy,
}

impl PodsToNode {
    /// What [`FromStr`] reads.
    pub const NAMES: [&str; 2] = [Self::Allow.as_str(), Self::Policy.as_str()];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Policy => "policy",
        }
    }
}

impl fmt::Display for PodsToNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is none of [`PodsToNode::NAMES`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither allow nor policy")]
pub struct UnknownChoice(String);

impl FromStr for PodsToNode {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Allow, Self::Policy]
            .into_iter()
            .find(|choice| choice.as_str() == text)
            .ok_or_else(|| UnknownChoice(text.to_owned()))
    }
}
