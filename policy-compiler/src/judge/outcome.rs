//! Who decides: the tiers one after the other, and what stands before them.

use std::sync::Arc;

use super::isolation::Isolation;
use super::tiers::Effect;
use super::verdict::{ClusterRule, Exemption, Step};
use super::{Connection, Judge, Party};
use crate::model::{Action, Direction, NetworkPolicy, PodsToNode, Tier};

/// What decides about one direction of a connection: a [`Decision`] without its reasons.
pub(super) enum Outcome<'j, 'a> {
    Exempt(Exemption),
    Accepted(ClusterRule<'a>),
    Denied(ClusterRule<'a>),
    Isolated { by: &'j [Arc<Isolation<'a>>], allowed: bool },
    Undecided,
}

impl Outcome<'_, '_> {
    pub(super) fn allowed(&self) -> bool {
        match self {
            Self::Exempt(_) | Self::Accepted(_) | Self::Undecided => true,
            Self::Denied(_) => false,
            Self::Isolated { allowed, .. } => *allowed,
        }
    }
}

/// The policies that isolate.
pub(super) fn policies<'a>(isolations: &[Arc<Isolation<'a>>]) -> Vec<&'a NetworkPolicy> {
    isolations.iter().map(|isolation| isolation.policy).collect()
}

impl<'a> Judge<'a> {
    /// Whether something decides about a connection before any policy is asked.
    fn exemption(&self, direction: Direction, connection: &Connection<'a>) -> Option<Exemption> {
        let (subject, peer) = connection.subject_and_peer(direction);
        if subject.member.is_none() {
            Some(Exemption::NotSubject)
        } else if !connection.through_service && is_itself(subject, peer) {
            Some(Exemption::Itself)
        } else {
            let from_node = direction == Direction::Ingress && self.is_own_node(subject, peer);
            from_node.then_some(Exemption::OwnNode)
        }
    }

    /// Whether NetworkPolicies leave a connection alone that the tiers judge.
    fn left_alone(&self, direction: Direction, connection: &Connection<'a>) -> Option<Exemption> {
        let (subject, peer) = connection.subject_and_peer(direction);
        let to_node = direction == Direction::Egress && self.is_own_node(subject, peer);
        if is_itself(subject, peer) {
            Some(Exemption::Itself)
        } else {
            (to_node && self.pods_to_node == PodsToNode::Allow).then_some(Exemption::OwnNode)
        }
    }

    /// Asks one after the other who decides about one direction of a connection between single pods; `note` hears of
    /// what covers it on the way.
    pub(super) fn outcome(
        &self,
        direction: Direction,
        connection: &Connection<'a>,
        mut note: impl FnMut(Step<'a>),
    ) -> Outcome<'_, 'a> {
        if let Some(exemption) = self.exemption(direction, connection) {
            return Outcome::Exempt(exemption);
        }
        if let Some(outcome) = self.ask_tier(Tier::Admin, direction, connection, &mut note) {
            return outcome;
        }
        let (subject, peer) = connection.subject_and_peer(direction);
        let isolating = self.isolating(direction, subject);
        if !isolating.is_empty() {
            if let Some(exemption) = self.left_alone(direction, connection) {
                return Outcome::Exempt(exemption);
            }
            let allowed = self.allowing(direction, connection).next().is_some();
            if allowed || isolating.iter().any(|isolation| !isolation.audited) {
                return Outcome::Isolated { by: isolating, allowed };
            }
            note(Step::AuditedIsolation(policies(isolating)));
        }
        match self.ask_tier(Tier::Baseline, direction, connection, &mut note) {
            Some(outcome) => outcome,
            None if is_itself(subject, peer) => Outcome::Exempt(Exemption::Itself),
            None => Outcome::Undecided,
        }
    }

    /// What a tier decides about a connection; `None` if it leaves that to what comes behind it.
    fn ask_tier(
        &self,
        tier: Tier,
        direction: Direction,
        connection: &Connection<'a>,
        note: &mut impl FnMut(Step<'a>),
    ) -> Option<Outcome<'_, 'a>> {
        let ends = connection.subject_and_peer(direction);
        let member = ends.0.member?;
        let effects = self.tiers(direction).between(member, ends.1.member);
        let effects = effects.filter(|effect| effect.rule.policy.tier == tier);
        for Effect { rule, action, .. } in effects.filter(|it| it.covered.covers(self, ends, connection)) {
            match action {
                Action::Accept => return Some(Outcome::Accepted(*rule)),
                // A Pass of which it is not known whether it covers denies in audit mode too: what it skips is not known.
                Action::Deny if rule.policy.audited && rule.rule.action == Action::Deny => {
                    note(Step::Audited(*rule));
                }
                Action::Deny => return Some(Outcome::Denied(*rule)),
                Action::Pass => {
                    note(Step::Passed(*rule));
                    return None;
                }
            }
        }
        None
    }
}

/// Whether both ends are one pod, or one address. Two pods of a workload are not.
fn is_itself(subject: &Party<'_>, peer: &Party<'_>) -> bool {
    subject.member == peer.member && subject.pod.is_some_and(|pod| pod.workload.is_none())
        || subject.address.is_some() && subject.address == peer.address
}
