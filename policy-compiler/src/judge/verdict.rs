//! What the judge says.

use crate::model::{Direction, NetworkPolicy, Rule};

/// The answer for one connection: both directions must allow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// What the policies of the source say.
    pub egress: Ruling<'a>,
    /// What the policies of the destination say.
    pub ingress: Ruling<'a>,
}

impl<'a> Verdict<'a> {
    /// Whether the connection is allowed.
    pub fn allowed(&self) -> bool {
        self.egress.allowed() && self.ingress.allowed()
    }

    /// What one direction says.
    pub fn ruling(&self, direction: Direction) -> &Ruling<'a> {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }
}

/// The answer of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling<'a> {
    /// Allowed: no policy has a say.
    Exempt(Exemption),
    /// Policies isolate the subject: allowed only if one of their rules covers the connection.
    Isolated {
        /// The policies that isolate, by name. At least one.
        by: Vec<&'a NetworkPolicy>,
        /// The rules that cover the connection. None is a denial, unless all is `audited`.
        allowed_by: Vec<PolicyRule<'a>>,
        /// Whether all policies that isolate are in audit mode: then what no rule covers passes too.
        audited: bool,
    },
}

impl Ruling<'_> {
    /// Whether this direction allows the connection.
    pub fn allowed(&self) -> bool {
        match self {
            Self::Exempt(_) => true,
            Self::Isolated { allowed_by, audited, .. } => *audited || !allowed_by.is_empty(),
        }
    }
}

/// Why no policy has a say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exemption {
    /// A pod always reaches itself.
    Itself,
    /// The subject is no pod of the cluster that selectors match: an outside address, or a pod in its
    /// node's network.
    NotSubject,
    /// No policy isolates the subject in this direction.
    NotIsolated,
    /// A node always reaches its own pods (kubelet probes), and they reach their node unless policies judge that
    /// ([`PodsToNode`](crate::model::PodsToNode)).
    OwnNode,
}

/// A rule of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyRule<'a> {
    /// The policy.
    pub policy: &'a NetworkPolicy,
    /// The rule's place in its direction's list, from 0.
    pub index: usize,
    /// The rule.
    pub rule: &'a Rule,
}
