//! Rules of ClusterNetworkPolicies, in words.

use std::fmt;

use crate::judge::{ClusterRule, Decision, Ruling, Step};
use crate::model::{Action, Direction, Origin};

/// A rule of a ClusterNetworkPolicy that covers the connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
pub struct TierRule {
    /// `Admin` or `Baseline`
    pub tier: &'static str,
    /// The policy's name.
    pub policy: String,
    /// The policy's priority.
    pub priority: u16,
    /// The rule's path below `spec`, such as `ingress[0]`.
    pub path: String,
    /// The rule's name.
    #[cfg_attr(feature = "cli", serde(skip_serializing_if = "Option::is_none"))]
    pub name: Option<String>,
    /// The rule's action.
    pub action: &'static str,
    /// `file:line` of the rule.
    #[cfg_attr(feature = "cli", serde(skip_serializing_if = "Option::is_none"))]
    pub origin: Option<String>,
    /// What it does to the connection.
    pub effect: Effect,
}

/// What a rule does to a connection that it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "cli", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum Effect {
    /// It allows it.
    Allow,
    /// It denies it.
    Deny,
    /// It leaves it to the next tier.
    Pass,
    /// It would deny it, but for audit mode.
    Audit,
}

impl TierRule {
    /// A rule, and what it does.
    pub fn new(of: &ClusterRule<'_>, direction: Direction, effect: Effect) -> Self {
        let ClusterRule { policy, index, rule } = of;
        Self {
            tier: policy.tier.as_str(),
            policy: policy.name.to_string(),
            priority: policy.priority.get(),
            path: format!("{direction}[{index}]"),
            name: rule.name.as_deref().map(str::to_owned),
            action: rule.action.as_str(),
            origin: rule.rule.origin.as_ref().map(Origin::to_string),
            effect,
        }
    }

    /// The rules that cover a connection, in the order in which they are asked.
    pub(super) fn all(ruling: &Ruling<'_>, direction: Direction) -> Vec<Self> {
        let on_the_way = ruling.way.iter().filter_map(|step| match step {
            Step::Passed(rule) => Some(Self::new(rule, direction, Effect::Pass)),
            Step::Audited(rule) => Some(Self::new(rule, direction, Effect::Audit)),
            Step::AuditedIsolation(_) => None,
        });
        let deciding = match &ruling.decision {
            Decision::Accepted(rule) => Some(Self::new(rule, direction, Effect::Allow)),
            Decision::Denied(rule) => Some(Self::new(rule, direction, Effect::Deny)),
            Decision::Exempt(_) | Decision::Isolated { .. } | Decision::Undecided => None,
        };
        on_the_way.chain(deciding).collect()
    }

    /// `Admin policy guard (priority 10)`
    pub fn policy_in_words(&self) -> String {
        format!("{} policy {} (priority {})", self.tier, self.policy, self.priority)
    }

    /// `egress[0] "no metadata"`
    pub fn rule_in_words(&self) -> String {
        let name = self.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
        format!("{}{name}", self.path)
    }

    /// What it does, behind its name.
    pub fn effect_in_words(&self) -> &'static str {
        match self.effect {
            Effect::Allow => "allows it",
            Effect::Deny if self.action == Action::Pass.as_str() => {
                "may pass it on, which is not known: it denies it"
            }
            Effect::Deny => "denies it",
            Effect::Pass => "passes it on to the next tier",
            Effect::Audit => "would deny it, but for audit mode",
        }
    }
}

/// `Admin policy guard (priority 10) egress[0] "no metadata" denies it`
impl fmt::Display for TierRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.policy_in_words(), self.rule_in_words(), self.effect_in_words())
    }
}
