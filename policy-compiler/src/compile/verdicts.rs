//! From what becomes of packets to the chains and maps that do it, in either table.
//!
//! In the table `inet`, to return is to be allowed. At doors, what is allowed goes on to `link_pass`, because whoever
//! may answer has to be noted there.

use std::collections::BTreeMap;

use super::counted::isolation_comment;
use super::draft::Draft;
use super::identity::{Holder, Membership};
use super::outcome::{Decision, Divergence, Outcome, Passed, Piece};
use super::ranges;
use super::shared_rules::{self, go, rule};
use super::tiers::AnyOf;
use crate::model::{Direction, Family, ObjectName};
use crate::ruleset::{
    ChainId, ChainRole, Digest, Element, ElementKey, EtherType, Fields, FrameMatch, KeyType, LogEvent,
    LogPrefix, Rule, SetId, SetKind, SetRole, Statement, TableFamily, TierEffect, Verdict,
};

/// What stands behind the rules that judge a subject.
#[derive(Debug, Clone)]
pub(super) struct Rest {
    /// The chain that denies, or audits, what no rule lets through; `None` if no policy isolates the subject.
    pub(super) isolation: Option<ChainId>,
    /// The rules in it that leave packets alone.
    pub(super) left_alone: Vec<Rule>,
}

impl Rest {
    /// What there is where policies isolate nothing.
    pub(super) const NONE: Self = Self { isolation: None, left_alone: Vec::new() };
}

/// What happens to packets that are allowed.
fn allow(draft: &Draft) -> Verdict {
    match draft.table() {
        TableFamily::Inet => Verdict::Return,
        TableFamily::Netdev => Verdict::Goto(ChainRole::LinkPass.into()),
    }
}

/// Makes sure of what does what is not the default, and returns the statements that lead there: the ports first, and
/// then everything else, if that is not the default either.
pub(super) fn put_divergence(
    draft: &mut Draft,
    direction: Direction,
    divergence: &Divergence,
    rest: &Rest,
) -> Vec<Statement> {
    let mut statements = Vec::new();
    if !divergence.ports.is_empty() {
        let map = put_ports(draft, direction, &divergence.ports, rest);
        statements.push(Statement::VerdictMap(Fields::ProtocolAndPort, map));
    }
    if let Some(other) = &divergence.other {
        statements.push(Statement::Verdict(Verdict::Goto(put_outcome(draft, direction, other, rest))));
    }
    statements
}

/// Makes sure of a chain that does what is not the default, and returns its name. What is the default goes on to where
/// peers come whom no rule names; at doors it returns to there.
pub(super) fn put_judging(
    draft: &mut Draft,
    direction: Direction,
    divergence: &Divergence,
    rest: &Rest,
) -> ChainId {
    if let (Some(outcome), []) = (&divergence.other, &*divergence.ports) {
        return put_outcome(draft, direction, outcome, rest);
    }
    let statements = put_divergence(draft, direction, divergence, rest);
    let mut rules: Vec<_> = statements.into_iter().map(|statement| Rule::new([statement])).collect();
    if divergence.other.is_none() && draft.table() == TableFamily::Inet {
        rules.push(go(Verdict::Goto(ChainRole::Unlisted(direction).into())));
    }
    let content = Digest::of(rules.iter().map(ToString::to_string));
    let pieces = divergence.ports.iter().map(|piece| &piece.outcome);
    let denies = pieces.chain(&divergence.other).any(Outcome::denies);
    let role = if denies { ChainRole::Verdicts } else { ChainRole::Ports };
    let chain = role(direction, content).into();
    if !draft.has_chain(&chain) {
        draft.put_chain(&chain, None, rules);
    }
    chain
}

/// Makes sure of the map from ports to what becomes of packets to them.
fn put_ports(draft: &mut Draft, direction: Direction, pieces: &[Piece], rest: &Rest) -> SetId {
    let mut elements = BTreeMap::new();
    for Piece { protocol, first, last, outcome } in pieces {
        let target = Some(put_outcome(draft, direction, outcome, rest));
        elements
            .insert(ElementKey::ProtocolPort(*protocol, *first, *last), Element { target, comment: None });
    }
    let content = elements.iter().map(|(key, element)| {
        let target = element.target.as_ref().map(ChainId::name).unwrap_or_default();
        format!("{key} {target}")
    });
    let role =
        if pieces.iter().any(|piece| piece.outcome.denies()) { SetRole::Verdicts } else { SetRole::Ports };
    let map = role(direction, Digest::of(content)).into();
    if !draft.has_elements(&map) {
        let interval = pieces.iter().any(|piece| piece.first != piece.last);
        draft.put_set(&map, SetKind { key: KeyType::ProtocolPort, interval, verdicts: true });
        draft.replace_elements(&map, elements);
    }
    map
}

/// Makes sure of the chain that packets go to of which this becomes.
fn put_outcome(draft: &mut Draft, direction: Direction, outcome: &Outcome, rest: &Rest) -> ChainId {
    let isolation = || rest.isolation.clone();
    let mut passed = Vec::new();
    for step in &outcome.passed {
        match step {
            Passed::Rule(rule) => passed.push(put_rule(draft, rule)),
            Passed::AuditedIsolation => passed.extend(isolation()),
        }
    }
    let decision = match &outcome.decision {
        Decision::Accepted(rule) | Decision::Denied(rule) => Some(put_rule(draft, rule)),
        Decision::Isolated => isolation(),
        Decision::Open => None,
    };
    let last = match (decision, allow(draft)) {
        (None, Verdict::Goto(pass)) => Some(pass),
        // To pass the last rule is to return.
        (None, _) => passed.pop(),
        (decision, _) => decision,
    };
    if let (Some(last), []) = (&last, &*passed) {
        return last.clone();
    }
    let audits = outcome.passed.contains(&Passed::AuditedIsolation);
    let mut rules = if audits { rest.left_alone.clone() } else { Vec::new() };
    rules.extend(passed.into_iter().map(|chain| go(Verdict::Jump(chain))));
    rules.extend(last.map(|chain| go(Verdict::Goto(chain))));
    let chain = ChainRole::Path(direction, Digest::of(rules.iter().map(ToString::to_string))).into();
    if !draft.has_chain(&chain) {
        draft.put_chain(&chain, None, rules);
    }
    chain
}

/// Makes sure of the chain of a rule, which counts what the rule covers and does what the rule does.
pub(super) fn put_rule(draft: &mut Draft, chain: &ChainId) -> ChainId {
    if !draft.has_chain(chain) {
        let rules = rules_of(chain.role(), draft);
        draft.put_chain(chain, None, rules);
    }
    chain.clone()
}

fn rules_of(role: &ChainRole, draft: &mut Draft) -> Vec<Rule> {
    let ChainRole::TierRule { direction, tier, ref policy, index, effect } = *role else {
        return vec![rule([Statement::Counter], allow(draft))];
    };
    let log = |audited| {
        let prefix = LogPrefix::Tier { direction, audited, tier, policy: policy.clone(), rule: index };
        shared_rules::log(prefix)
    };
    match effect {
        TierEffect::Accept => vec![rule([Statement::Counter], allow(draft))],
        TierEffect::Pass => vec![rule([Statement::Counter], Verdict::Return)],
        TierEffect::Audit => vec![log(true), rule([Statement::Counter], Verdict::Return)],
        TierEffect::Deny => {
            let untracked = to_untracked(draft, direction);
            let deny = [log(false), rule([Statement::Counter], Verdict::Drop)];
            untracked.into_iter().chain(deny).collect()
        }
    }
}

/// Leads packets there that are denied and that conntrack does not track, and makes sure of the chain. At doors nothing
/// is tracked.
///
/// Such a packet may be an answer to one that is allowed, but nothing tells it from a new connection, so it is
/// dropped; by itself, because whoever looks for the reason must look at conntrack and not at the policies.
pub(super) fn to_untracked(draft: &mut Draft, direction: Direction) -> Option<Rule> {
    if draft.table() != TableFamily::Inet {
        return None;
    }
    let drop = rule([Statement::Counter], Verdict::Drop);
    let rules = vec![
        shared_rules::log(LogPrefix::Judged { direction, event: LogEvent::Untracked }),
        drop.comment("untracked: conntrack does not tell answers from new connections"),
    ];
    draft.put_chain(&ChainRole::Untracked(direction).into(), None, rules);
    Some(rule([Statement::InvalidOrUntracked], Verdict::Goto(ChainRole::Untracked(direction).into())))
}

/// Makes sure of a chain that begins with these rules, and then denies or audits what pods send or get that these policies
/// isolate.
pub(super) fn put_isolation(
    draft: &mut Draft,
    direction: Direction,
    audited: bool,
    mut rules: Vec<Rule>,
    policies: &[&ObjectName],
) -> ChainId {
    let (event, verdict) =
        if audited { (LogEvent::Audited, allow(draft)) } else { (LogEvent::Denied, Verdict::Drop) };
    rules.push(shared_rules::log(LogPrefix::Judged { direction, event }));
    let rest = rule([Statement::Counter], verdict);
    rules.push(rest.comment(isolation_comment(audited, policies.iter().copied())));
    let policies = policies.iter().map(ToString::to_string);
    let group = Digest::of(rules.iter().map(ToString::to_string).chain(policies));
    let name = ChainRole::Isolation { direction, audited, group }.into();
    draft.put_chain(&name, None, rules);
    name
}

/// The rules for packets whose peer no rule names, and which a rule covers all the same: one for everybody, for a family or
/// for all pods. With `pods`, the table knows the addresses of pods.
pub(super) fn for_unnamed(
    draft: &mut Draft,
    direction: Direction,
    tiers: &AnyOf<'_>,
    (others, pods): (Holder, bool),
    rest: &Rest,
) -> Vec<Rule> {
    let of = |holder| Family::BOTH.map(|family| tiers.fold(&Membership::unnamed(holder), family));
    let mut rules = Vec::new();
    if draft.table() == TableFamily::Inet && direction == Direction::Ingress {
        let [_, unknown] = of(Holder::Unknown);
        let [_, others] = of(others);
        for then in put_divergence(draft, direction, &unknown.divergence(&others), rest) {
            rules.push(Rule::new([from_link_local(draft), then]));
        }
    }
    let others = of(others);
    if pods {
        for ((family, pods), others) in Family::BOTH.into_iter().zip(of(Holder::Pod)).zip(&others) {
            let peer = shared_rules::peer_field(direction, family);
            let is_pod = Statement::InSet(peer, SetRole::Pods(family).into());
            let then = put_divergence(draft, direction, &pods.divergence(others), rest);
            rules.extend(then.into_iter().map(|then| Rule::new([is_pod.clone(), then])));
        }
    }
    let default = tiers.uncovered();
    let [ipv4, ipv6] =
        others.map(|others| put_divergence(draft, direction, &others.divergence(&default), rest));
    if ipv4 == ipv6 {
        rules.extend(ipv4.into_iter().map(|then| Rule::new([then])));
    } else {
        for (family, then) in Family::BOTH.into_iter().zip([ipv4, ipv6]) {
            let of_family = of_family(draft, family);
            rules.extend(then.into_iter().map(|then| Rule::new([of_family.clone(), then])));
        }
    }
    rules
}

/// Matches packets from link-local addresses, which may be those of pods.
fn from_link_local(draft: &mut Draft) -> Statement {
    let (set, link_local) = (SetRole::LinkLocal.into(), ranges::link_local());
    draft.put_set(&set, SetKind { key: KeyType::Address(Family::Ipv6), interval: true, verdicts: false });
    let all = ElementKey::AddressRange(*link_local.start(), *link_local.end());
    draft.put_element(&set, all, Element::BARE);
    Statement::InSet(Fields::Source(Family::Ipv6), set)
}

/// Matches packets of a family.
fn of_family(draft: &Draft, family: Family) -> Statement {
    match (draft.table(), family) {
        (TableFamily::Inet, _) => Statement::OfFamily(family),
        (TableFamily::Netdev, Family::Ipv4) => FrameMatch::Protocol(EtherType::Ipv4).into(),
        (TableFamily::Netdev, Family::Ipv6) => FrameMatch::Protocol(EtherType::Ipv6).into(),
    }
}
