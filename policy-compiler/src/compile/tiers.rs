//! Where the tiers are folded: the rules that judge a pod, asked one after the other, for whoever is at the other end.
//!
//! The order is that of the API: the Admin policies by their priority, then the NetworkPolicies that isolate the pod,
//! then the Baseline policies. What comes out says for every protocol and port which rules count a packet and which
//! one decides, so a packet never traverses tiers: it makes the look-ups that it would make without any.

use std::collections::{BTreeMap, HashMap};

use super::identity::{Holder, Membership};
use super::outcome::{Decision, Divergence, Outcome, Outcomes, Passed};
use super::peer_set::{Member, PeerSetId};
use super::rule::{ActiveRule, Crowd, Stage};
use crate::model::{Direction, Family, Pod, PortMatch, PortNumber, Protocol};
use crate::ruleset::{ChainId, TierEffect};

/// The rules that judge a pod in one direction, in the order in which they are asked.
pub(super) struct Tiers<'a> {
    direction: Direction,
    steps: Vec<Step<'a>>,
    isolation: Isolation,
    /// The steps that name each set of peers.
    of_sets: HashMap<PeerSetId, Vec<usize>>,
    /// Those that name crowds.
    of_crowds: Vec<usize>,
}

/// The tiers of each pod that may be meant by an address.
pub(super) struct AnyOf<'a>(pub(super) Vec<Tiers<'a>>);

impl AnyOf<'_> {
    /// What an address is to these rules: the sets among those that it is in which one of them names. `None` if there is
    /// none.
    pub(super) fn relevant(&self, peer: &Membership) -> Option<Membership> {
        peer.among(|set| self.0.iter().any(|tiers| tiers.of_sets.contains_key(&set)))
    }

    /// What becomes of packets of a family between the subject and an address.
    pub(super) fn fold(&self, peer: &Membership, family: Family) -> Outcomes {
        let crowds = peer.crowds(family);
        let pairs = self.0.iter().flat_map(|tiers| peer.each().map(move |members| (tiers, members)));
        Outcomes::common(pairs.map(|(tiers, members)| tiers.fold(members, &crowds, peer.holder())))
    }

    /// What becomes of packets that no rule covers.
    pub(super) fn uncovered(&self) -> Outcomes {
        self.fold_crowds(&[])
    }

    /// What the NetworkPolicies let through to the own node, by any of its addresses.
    pub(super) fn to_own_node(&self) -> Divergence {
        self.fold_crowds(&[Crowd::OwnNode]).divergence(&self.uncovered())
    }

    fn fold_crowds(&self, crowds: &[Crowd]) -> Outcomes {
        Outcomes::common(self.0.iter().map(|tiers| tiers.fold(&[], crowds, Holder::Outsider)))
    }
}

/// A rule that judges a pod.
struct Step<'a> {
    chain: &'a ChainId,
    rule: &'a ActiveRule,
    /// Whether it is known that the rule's policy chooses the pod.
    certain: bool,
    /// The numbers that the rule's named ports have on the pod, if it is the destination.
    named: Vec<(Protocol, PortNumber)>,
}

/// What stands behind the rules of the NetworkPolicies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Nothing: no policy isolates the pod.
    None,
    /// What no rule lets through is denied.
    Denying,
    /// It is counted, and the next tier is asked.
    Audited,
    /// Everything is allowed.
    LeftAlone,
}

/// Why a rule covers packets, or may.
#[derive(Clone, Copy)]
enum Reason<'a> {
    /// The peer is one of a crowd.
    Crowd,
    /// It is in the rule's set of peers.
    Member(&'a Member),
    /// It may be a pod, and the rule names pods.
    PerhapsPod,
}

/// What has been said of a packet so far.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Judgement {
    passed: Vec<Passed>,
    decision: Option<Decision>,
    /// The stage of which a rule has passed it on to the next.
    left: Option<Stage>,
}

impl<'a> Tiers<'a> {
    /// The rules of a pod, sorted; each with its chain and whether its policy is known to choose the pod.
    pub(super) fn new(
        direction: Direction,
        pod: &Pod,
        rules: impl Iterator<Item = (&'a ChainId, &'a ActiveRule, bool)>,
        isolation: Isolation,
    ) -> Self {
        let mut tiers =
            Self { direction, steps: Vec::new(), isolation, of_sets: HashMap::new(), of_crowds: Vec::new() };
        for (index, (chain, rule, certain)) in rules.enumerate() {
            if let Some(set) = rule.peers {
                tiers.of_sets.entry(set).or_default().push(index);
            }
            if rule.has_crowds() {
                tiers.of_crowds.push(index);
            }
            let named = match direction {
                Direction::Ingress => rule.resolve(pod),
                Direction::Egress => Vec::new(),
            };
            tiers.steps.push(Step { chain, rule, certain, named });
        }
        tiers
    }

    /// What becomes of packets between the pod and whoever is in these sets of peers and one of these crowds.
    fn fold(&self, members: &[Member], crowds: &[Crowd], holder: Holder) -> Outcomes {
        let mut judged = Outcomes::uniform(&Judgement::NOTHING);
        let mut isolation = Some(self.isolation);
        for (index, reason) in self.covering(members, crowds, holder) {
            let Some(step) = self.steps.get(index) else { continue };
            if step.rule.stage() == Stage::Baseline
                && let Some(isolation) = isolation.take()
            {
                judged.change(|before| before.isolated(isolation));
            }
            let (certain, member) = match reason {
                Reason::Crowd => (true, None),
                Reason::Member(member) => (member.certain || step.rule.has_one_of(crowds), Some(member)),
                Reason::PerhapsPod => (false, None),
            };
            if let Some((effect, chain)) = step.rule.effect(step.chain, certain && step.certain) {
                let stage = step.rule.stage();
                step.cover(self.direction, member, &mut judged, |before| before.then(stage, effect, &chain));
            }
        }
        judged.map(|judgement| match isolation {
            Some(isolation) => judgement.isolated(isolation).outcome(),
            None => judgement.outcome(),
        })
    }

    /// The steps that cover packets of such a peer, or may, in their order.
    fn covering<'m>(
        &self,
        members: &'m [Member],
        crowds: &[Crowd],
        holder: Holder,
    ) -> BTreeMap<usize, Reason<'m>> {
        let mut covering = BTreeMap::new();
        if holder == Holder::Unknown {
            let steps = self.steps.iter().enumerate().filter(|(_, step)| step.rule.names_pods());
            covering.extend(steps.map(|(index, _)| (index, Reason::PerhapsPod)));
        }
        let in_crowd =
            |index: &usize| self.steps.get(*index).is_some_and(|step| step.rule.has_one_of(crowds));
        covering.extend(self.of_crowds.iter().copied().filter(in_crowd).map(|index| (index, Reason::Crowd)));
        for member in members {
            let steps = self.of_sets.get(&member.set).into_iter().flatten();
            covering.extend(steps.map(|index| (*index, Reason::Member(member))));
        }
        covering
    }
}

impl Step<'_> {
    /// Changes what the rule covers.
    fn cover(
        &self,
        direction: Direction,
        member: Option<&Member>,
        judged: &mut Outcomes<Judgement>,
        mut change: impl FnMut(&Judgement) -> Judgement,
    ) {
        let Some(ports) = self.rule.ports() else { return judged.change(change) };
        for port in ports {
            match port {
                PortMatch::All(protocol) => judged.change_ports(*protocol, 0, u16::MAX, &mut change),
                PortMatch::Range(protocol, range) => {
                    judged.change_ports(*protocol, range.first().get(), range.last().get(), &mut change);
                }
                PortMatch::Named(..) => {}
            }
        }
        let of_member = match direction {
            Direction::Ingress => Vec::new(),
            Direction::Egress => member.map(|member| self.rule.resolve_on(member)).unwrap_or_default(),
        };
        for (protocol, port) in self.named.iter().chain(&of_member) {
            judged.change_ports(*protocol, port.get(), port.get(), &mut change);
        }
    }
}

impl Judgement {
    const NOTHING: Self = Self { passed: Vec::new(), decision: None, left: None };

    /// What is said once a rule of a stage is asked that covers the packet.
    fn then(&self, stage: Stage, effect: TierEffect, chain: &ChainId) -> Self {
        let mut after = self.clone();
        if after.decision.is_some() || after.left == Some(stage) {
            return after;
        }
        let passed = Passed::Rule(chain.clone());
        match effect {
            TierEffect::Accept => after.decision = Some(Decision::Accepted(chain.clone())),
            TierEffect::Deny => after.decision = Some(Decision::Denied(chain.clone())),
            // A rule may name one port twice.
            TierEffect::Audit if after.passed.last() == Some(&passed) => {}
            TierEffect::Audit => after.passed.push(passed),
            TierEffect::Pass => {
                after.passed.push(passed);
                after.left = Some(stage);
            }
        }
        after
    }

    /// What is said behind the rules of the NetworkPolicies.
    fn isolated(&self, isolation: Isolation) -> Self {
        let mut after = self.clone();
        match isolation {
            _ if after.decision.is_some() => {}
            Isolation::None => {}
            Isolation::Denying => after.decision = Some(Decision::Isolated),
            Isolation::LeftAlone => after.decision = Some(Decision::Open),
            Isolation::Audited => after.passed.push(Passed::AuditedIsolation),
        }
        after
    }

    fn outcome(self) -> Outcome {
        Outcome { passed: self.passed, decision: self.decision.unwrap_or(Decision::Open) }
    }
}
