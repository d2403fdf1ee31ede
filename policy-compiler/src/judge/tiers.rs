//! What the rules of ClusterNetworkPolicies do to each pod.

use super::number_set::{Member, NumberSet};
use super::resolve::{Certainty, ResolvedRule, World, members};
use super::verdict::ClusterRule;
use crate::model::{Action, ClusterNetworkPolicy, Direction, TierRule};

/// What a rule does to the connections that it covers.
#[derive(Debug)]
pub(super) struct Effect<'a> {
    pub(super) rule: ClusterRule<'a>,
    pub(super) action: Action,
    pub(super) covered: ResolvedRule<'a>,
}

/// The effects of all rules of one direction, in the order in which they are asked.
#[derive(Debug)]
pub(super) struct Tiers<'a> {
    effects: Vec<Effect<'a>>,
    /// Those on each member as the subject.
    of_subjects: Vec<NumberSet>,
    /// Those of rules whose pod peers match each member.
    of_peers: Vec<NumberSet>,
    /// Those of rules that have other peers too.
    of_others: NumberSet,
}

impl<'a> Tiers<'a> {
    pub(super) fn new(world: &World<'a>, direction: Direction) -> Self {
        let nothing: Vec<_> = members(world.cluster).map(|_| NumberSet::default()).collect();
        let mut tiers = Self {
            effects: Vec::new(),
            of_subjects: nothing.clone(),
            of_peers: nothing,
            of_others: NumberSet::default(),
        };
        let mut policies: Vec<_> = world.cluster.cluster_policies().values().collect();
        policies.sort_by_key(|policy| policy.precedence());
        for policy in policies {
            let subjects = |certainty| subjects(world, policy, certainty);
            let (certain, perhaps) = (subjects(Certainty::Certain), subjects(Certainty::Perhaps));
            for (index, rule) in policy.rules(direction).iter().enumerate() {
                for (certainty, action) in effects(rule) {
                    let subjects = if certainty == Certainty::Certain { &certain } else { &perhaps };
                    let covered = world.resolve(None, &rule.rule, certainty);
                    tiers
                        .add(Effect { rule: ClusterRule { policy, index, rule }, action, covered }, subjects);
                }
            }
        }
        tiers
    }

    fn add(&mut self, effect: Effect<'a>, subjects: &[Member]) {
        if subjects.is_empty() {
            return;
        }
        let number = self.effects.len();
        insert(number, &mut self.of_subjects, subjects.iter().copied());
        insert(number, &mut self.of_peers, effect.covered.pods.iter());
        if effect.covered.has_other_peers() {
            self.of_others.insert(number);
        }
        self.effects.push(effect);
    }

    /// All that have subjects.
    pub(super) fn effects(&self) -> &[Effect<'a>] {
        &self.effects
    }

    /// The numbers of those on a subject.
    pub(super) fn numbers_on(&self, subject: Member) -> Option<&NumberSet> {
        self.of_subjects.get(subject)
    }

    /// Those on a subject.
    pub(super) fn on(&self, subject: Member) -> impl Iterator<Item = &Effect<'a>> {
        let numbers = self.numbers_on(subject).into_iter().flat_map(NumberSet::iter);
        numbers.filter_map(|number| self.effects.get(number))
    }

    /// Those on a subject that can cover its connections with a peer.
    pub(super) fn between(&self, subject: Member, peer: Option<Member>) -> impl Iterator<Item = &Effect<'a>> {
        let of_peer = peer.and_then(|peer| self.of_peers.get(peer)).unwrap_or(&self.of_others);
        let numbers =
            self.numbers_on(subject).into_iter().flat_map(|set| set.in_either(of_peer, &self.of_others));
        numbers.filter_map(|number| self.effects.get(number))
    }
}

/// Puts a number into the sets of these members.
fn insert(number: usize, sets: &mut [NumberSet], members: impl Iterator<Item = Member>) {
    for member in members {
        if let Some(set) = sets.get_mut(member) {
            set.insert(number);
        }
    }
}

fn subjects(world: &World<'_>, policy: &ClusterNetworkPolicy, certainty: Certainty) -> Vec<Member> {
    let (namespaces, pods) = (&policy.subject.namespaces, &policy.subject.pods);
    world.select(None, namespaces, pods, certainty).map(|(member, _)| member).collect()
}

/// What a rule does to what it certainly covers, and then to what it may cover. A Deny does the same to both.
fn effects(rule: &TierRule) -> impl Iterator<Item = (Certainty, Action)> {
    let perhaps = rule.action.in_doubt();
    let certain = Some(rule.action).filter(|action| perhaps != Some(*action));
    let of = |certainty, action: Option<Action>| action.map(|action| (certainty, action));
    of(Certainty::Certain, certain).into_iter().chain(of(Certainty::Perhaps, perhaps))
}
