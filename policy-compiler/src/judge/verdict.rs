//! What the judge says.

use crate::model::{ClusterNetworkPolicy, Direction, NetworkPolicy, Rule, TierRule};

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
pub struct Ruling<'a> {
    /// What covered the connection before something decided, in the order in which it was asked.
    pub way: Vec<Step<'a>>,
    /// What decided.
    pub decision: Decision<'a>,
}

/// What covers a connection and does not decide about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// A Pass rule: what is left of its tier is not asked.
    Passed(ClusterRule<'a>),
    /// A rule that denies, of a policy in audit mode.
    Audited(ClusterRule<'a>),
    /// The policies that isolate the subject. No rule covers the connection, and all of them are in audit mode.
    AuditedIsolation(Vec<&'a NetworkPolicy>),
}

impl Step<'_> {
    /// Whether it would deny the connection, but for audit mode.
    pub fn is_audited(&self) -> bool {
        !matches!(self, Self::Passed(_))
    }
}

/// What decides about a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Allowed, whatever the policies behind it say.
    Exempt(Exemption),
    /// Allowed by a rule of a tier.
    Accepted(ClusterRule<'a>),
    /// Denied by a rule of a tier: a Deny, or a Pass of which it is not known whether it covers the connection.
    Denied(ClusterRule<'a>),
    /// NetworkPolicies isolate the subject: allowed only if one of their rules covers the connection.
    Isolated {
        /// The policies that isolate, by name. At least one.
        by: Vec<&'a NetworkPolicy>,
        /// The rules that cover the connection. None is a denial.
        allowed_by: Vec<PolicyRule<'a>>,
    },
    /// Allowed: nothing decides about it.
    Undecided,
}

impl Ruling<'_> {
    /// Whether this direction allows the connection.
    pub fn allowed(&self) -> bool {
        match &self.decision {
            Decision::Exempt(_) | Decision::Accepted(_) | Decision::Undecided => true,
            Decision::Denied(_) => false,
            Decision::Isolated { allowed_by, .. } => !allowed_by.is_empty(),
        }
    }
}

/// Why policies have no say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exemption {
    /// A pod always reaches itself. Through a Service it does as far as NetworkPolicies go, which have no say then where
    /// they isolate it; the tiers do.
    Itself,
    /// The subject is no pod of the cluster that selectors match: an outside address, or a pod in its
    /// node's network.
    NotSubject,
    /// A node always reaches its own pods (kubelet probes). They reach it as far as NetworkPolicies go, unless these judge
    /// that ([`PodsToNode`](crate::model::PodsToNode)); the tiers do.
    OwnNode,
}

/// A rule of a NetworkPolicy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyRule<'a> {
    /// The policy.
    pub policy: &'a NetworkPolicy,
    /// The rule's place in its direction's list, from 0.
    pub index: usize,
    /// The rule.
    pub rule: &'a Rule,
}

/// A rule of a ClusterNetworkPolicy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterRule<'a> {
    /// The policy.
    pub policy: &'a ClusterNetworkPolicy,
    /// The rule's place in its direction's list, from 0.
    pub index: usize,
    /// The rule.
    pub rule: &'a TierRule,
}
