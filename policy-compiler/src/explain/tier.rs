//! Rules of ClusterNetworkPolicies, in words.

use std::fmt;

use super::lacks;
use crate::judge::{ClusterRule, Connection, Decision, Judge, Ruling, Step};
use crate::model::{Action, Direction, Origin};

/// So many rules are shown that do not cover a connection.
const MISSED_SHOWN: usize = 3;

/// A rule of a ClusterNetworkPolicy that has to do with the connection.
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
    /// Why no peer covers the other end, peer by peer.
    #[cfg_attr(feature = "cli", serde(skip_serializing_if = "Vec::is_empty"))]
    pub peers: Vec<String>,
    /// Why no port covers the connection's.
    #[cfg_attr(feature = "cli", serde(skip_serializing_if = "Option::is_none"))]
    pub ports: Option<String>,
}

/// What a rule does to a connection.
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
    /// None: it does not cover it.
    Miss,
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
            peers: Vec::new(),
            ports: None,
        }
    }

    /// The rules that cover a connection, and where one denies it those that come nearest to sparing it, in the order in
    /// which they are asked.
    pub(super) fn all<'a>(
        judge: &Judge<'a>,
        ruling: &Ruling<'a>,
        direction: Direction,
        connection: &Connection<'a>,
    ) -> Vec<Self> {
        let mut rules: Vec<_> = ruling
            .way
            .iter()
            .filter_map(|step| match step {
                Step::Passed(rule) => Some((*rule, Effect::Pass)),
                Step::Audited(rule) => Some((*rule, Effect::Audit)),
                Step::AuditedIsolation(_) => None,
            })
            .collect();
        match ruling.decision {
            Decision::Accepted(rule) => rules.push((rule, Effect::Allow)),
            Decision::Denied(rule) => rules.push((rule, Effect::Deny)),
            Decision::Exempt(_) | Decision::Isolated { .. } | Decision::Undecided => {}
        }
        let rules = rules.into_iter().map(|(rule, effect)| (rule, Self::new(&rule, direction, effect)));
        let mut missed = judge.missed(direction, connection);
        missed.sort_by_key(|(_, miss)| miss.distance());
        let missed = missed.into_iter().take(MISSED_SHOWN).map(|(rule, miss)| {
            let (peers, ports) = lacks(&miss, direction, connection);
            (rule, Self { peers, ports, ..Self::new(&rule, direction, Effect::Miss) })
        });
        let mut all: Vec<_> = rules.chain(missed).collect();
        all.sort_by_key(|(rule, _)| (rule.policy.precedence(), rule.index));
        all.into_iter().map(|(_, shown)| shown).collect()
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
            Effect::Miss if self.action == Action::Pass.as_str() => "would pass it on, but does not cover it",
            Effect::Miss => "would allow it, but does not cover it",
        }
    }
}

/// `Admin policy guard (priority 10) egress[0] "no metadata" denies it`
impl fmt::Display for TierRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.policy_in_words(), self.rule_in_words(), self.effect_in_words())?;
        let ports = self.ports.iter().map(|miss| format!("ports: {miss}"));
        let lacks: Vec<_> = self.peers.iter().cloned().chain(ports).collect();
        if lacks.is_empty() { Ok(()) } else { write!(f, " ({})", lacks.join("; ")) }
    }
}
