//! The part of the table that is there whatever the policies are.

use super::doors::Required;
use super::draft::Draft;
use super::names::family_set;
use super::strict;
use crate::model::{Direction, Family};
use crate::ruleset::{
    ChainName, Fields, Hook, KeyType, LogEvent, LogPrefix, Rule, SetKind, SetName, Statement, Verdict,
};

/// Every address that a policy of this node names as a peer and that belongs to a pod.
pub(super) fn peers(direction: Direction, family: Family) -> SetName {
    family_set(&format!("{direction}_peers"), family)
}

/// The address blocks that the policies name, for addresses that belong to no pod.
pub(super) fn blocks(direction: Direction, family: Family) -> SetName {
    family_set(&format!("{direction}_blocks"), family)
}

/// The pods that are isolated.
pub(super) fn isolated(direction: Direction, family: Family) -> SetName {
    family_set(&format!("{direction}_isolated"), family)
}

/// Every isolated pod with itself.
pub(super) fn itself(direction: Direction, family: Family) -> SetName {
    family_set(&format!("{direction}_itself"), family)
}

/// Every address that a pod has, if a rule lets all pods in or out.
pub(super) fn pods(family: Family) -> SetName {
    family_set("pods", family)
}

/// The isolated pods that a rule lets reach their own node, whatever address of it they ask.
pub(super) fn own_node(family: Family) -> SetName {
    family_set("egress_own_node", family)
}

/// The answers of connections that were cut.
pub(super) fn cut(family: Family) -> SetName {
    family_set("cut", family)
}

/// Where a packet goes that no rule has let through: denied if the pod is isolated, else back.
pub(super) fn unlisted(direction: Direction) -> ChainName {
    ChainName::new(format!("{direction}_unlisted"))
}

/// A direction's own chain: it returns for what is allowed.
fn entry(direction: Direction) -> ChainName {
    ChainName::new(direction.as_str())
}

/// The field that holds the subject's address in a direction.
pub(super) fn subject_field(direction: Direction, family: Family) -> Fields {
    match direction {
        Direction::Ingress => Fields::Destination(family),
        Direction::Egress => Fields::Source(family),
    }
}

pub(super) fn peer_field(direction: Direction, family: Family) -> Fields {
    match direction {
        Direction::Ingress => Fields::Source(family),
        Direction::Egress => Fields::Destination(family),
    }
}

/// Whether what pods send to their node is judged.
pub(super) fn judges_own_node(draft: &Draft) -> bool {
    draft.has_chain(&base(&Hook::Input))
}

/// Sets, base chains and the chains that all packets share; with `strict` those of strict start too.
pub(super) fn build(draft: &mut Draft, strict: bool) {
    for family in Family::BOTH {
        for direction in Direction::BOTH {
            let pair = SetKind { key: KeyType::AddressPair(family), interval: false, verdicts: false };
            draft.put_set(&itself(direction, family), pair);
            draft.pin_set(&itself(direction, family));
            let address = SetKind { key: KeyType::Address(family), interval: false, verdicts: true };
            draft.put_set(&peers(direction, family), address);
            draft.put_set(&isolated(direction, family), address);
            draft.put_set(&blocks(direction, family), SetKind { interval: true, ..address });
        }
        let address = SetKind { key: KeyType::Address(family), interval: false, verdicts: false };
        draft.put_set(&pods(family), address);
        draft.pin_set(&pods(family));
        let tuple = SetKind { key: KeyType::Tuple(family), interval: false, verdicts: false };
        draft.put_set(&cut(family), tuple);
    }
    build_cut(draft);
    for direction in Direction::BOTH {
        build_direction(draft, direction);
    }
    if strict {
        strict::build(draft);
    }
}

/// What `input` looks into.
pub(super) fn build_own_node(draft: &mut Draft) {
    for family in Family::BOTH {
        let address = SetKind { key: KeyType::Address(family), interval: false, verdicts: true };
        draft.put_set(&own_node(family), address);
    }
}

/// What keeps a link alive, and passes whatever the policies say.
pub(super) const LINK_UPKEEP: [Statement; 4] = [
    Statement::NEIGHBOUR_DISCOVERY,
    Statement::LISTENER_DISCOVERY,
    Statement::LISTENER_REPORT,
    Statement::GROUP_MANAGEMENT,
];

/// What the base chains do beside judging what the node forwards.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BaseChains {
    /// Strict start.
    pub(super) strict: bool,
    /// They are closed to pods without doors.
    pub(super) required: bool,
    /// What pods send to their node is judged too.
    pub(super) own_node: bool,
}

impl BaseChains {
    /// Puts them in the place of those before.
    pub(super) fn put(self, draft: &mut Draft) {
        put_base(draft, Hook::Forward, self.forward());
        put_base(draft, Hook::Output, self.output());
        if self.own_node {
            put_base(draft, Hook::Input, self.input());
        }
    }

    fn forward(self) -> Vec<Rule> {
        // Before connections that were open when the door got lost.
        let mut rules = self.closed(&Direction::BOTH);
        rules.push(accept(Statement::EstablishedOrRelated));
        rules.extend(drop_cut());
        rules.extend(self.judged());
        rules
    }

    fn output(self) -> Vec<Rule> {
        let mut rules = vec![accept(Statement::EstablishedOrRelated)];
        if self.own_node {
            // The node's end of a connection that was cut sends too, and conntrack would take that for a new
            // beginning.
            rules.extend(drop_cut());
        }
        // What the node itself sends passes. What else leaves here has been sent on a pod's behalf.
        rules.push(accept(Statement::SourceIsLocal));
        rules.extend(self.closed(&Direction::BOTH));
        if !self.own_node {
            rules.extend(drop_cut());
        }
        rules.extend(self.judged());
        rules
    }

    fn input(self) -> Vec<Rule> {
        let mut rules = [Statement::EstablishedOrRelated, Statement::SourceIsLocal].map(accept).to_vec();
        rules.extend(drop_cut());
        rules.extend(LINK_UPKEEP.map(accept));
        rules.extend(Family::BOTH.map(Statement::Dhcp).map(accept));
        // Behind what the node needs to reach the pod.
        rules.extend(self.closed(&[Direction::Egress]));
        if self.strict {
            rules.extend(strict::sources());
        }
        let source = |family| subject_field(Direction::Egress, family);
        rules.extend(Family::BOTH.map(|family| look_up(source(family), own_node(family))));
        rules.push(jump(entry(Direction::Egress)));
        rules
    }

    /// Drops the packets of pods without doors, if that is asked for: those that are the subject in a direction.
    fn closed(self, directions: &[Direction]) -> Vec<Rule> {
        if self.required { Required::rules(directions).collect() } else { Vec::new() }
    }

    /// What packets from and to pods traverse.
    fn judged(self) -> Vec<Rule> {
        let mut rules = vec![accept(Statement::NEIGHBOUR_DISCOVERY)];
        if self.strict {
            rules.push(jump(strict::entry()));
        }
        rules.extend(Direction::BOTH.map(entry).map(jump));
        rules
    }
}

fn put_base(draft: &mut Draft, hook: Hook, rules: Vec<Rule>) {
    let name = base(&hook);
    if !draft.has_chain(&name) {
        draft.pin(&name);
    }
    draft.put_chain(&name, Some(hook), rules);
}

fn base(hook: &Hook) -> ChainName {
    ChainName::new(hook.as_str())
}

fn drop_cut() -> [Rule; 2] {
    Family::BOTH.map(|family| {
        let is_cut = Statement::InSet(Fields::Tuple(family), cut(family));
        Rule::new([is_cut, Statement::Verdict(Verdict::Jump(cut_chain()))])
    })
}

fn accept(packets: Statement) -> Rule {
    Rule::new([packets, Statement::Verdict(Verdict::Accept)])
}

fn jump(chain: ChainName) -> Rule {
    Rule::new([Statement::Verdict(Verdict::Jump(chain))])
}

fn look_up(fields: Fields, map: SetName) -> Rule {
    Rule::new([Statement::VerdictMap(fields, map)])
}

/// To what judges a packet from a pod, not to come back.
pub(super) fn to_egress() -> Rule {
    Rule::new([Statement::Verdict(Verdict::Goto(entry(Direction::Egress)))])
}

/// Drops answers of connections that were cut, and lets a new connection begin between the same ports.
fn build_cut(draft: &mut Draft) {
    let rules = vec![
        Rule::new([Statement::TcpSyn, Statement::Verdict(Verdict::Return)]),
        Rule::new([Statement::SctpInit, Statement::Verdict(Verdict::Return)]),
        Rule::new([Statement::Counter, Statement::Verdict(Verdict::Drop)]),
    ];
    draft.put_chain(&cut_chain(), None, rules);
}

fn cut_chain() -> ChainName {
    ChainName::new("cut")
}

fn build_direction(draft: &mut Draft, direction: Direction) {
    let to_unlisted = Rule::new([Statement::Verdict(Verdict::Goto(unlisted(direction)))]);

    let mut rules = Vec::new();
    for family in Family::BOTH {
        rules.push(look_up(peer_field(direction, family), peers(direction, family)));
        rules.push(look_up(peer_field(direction, family), blocks(direction, family)));
    }
    rules.push(to_unlisted);
    draft.put_chain(&entry(direction), None, rules);

    let isolation =
        Family::BOTH.map(|family| look_up(subject_field(direction, family), isolated(direction, family)));
    draft.put_chain(&unlisted(direction), None, isolation.into());
}

/// What happens to packets whose peer is in a set of its family.
pub(super) fn with_peers(direction: Direction, set: fn(Family) -> SetName, then: &Statement) -> [Rule; 2] {
    Family::BOTH.map(|family| {
        let is_peer = Statement::InSet(peer_field(direction, family), set(family));
        Rule::new([is_peer, then.clone()])
    })
}

/// Lets a pod reach itself, as it does through a Service.
pub(super) fn to_itself(direction: Direction) -> [Rule; 2] {
    Family::BOTH.map(|family| {
        let fields = Fields::SourceAndDestination(family);
        Rule::new([Statement::InSet(fields, itself(direction, family)), Statement::Verdict(Verdict::Return)])
    })
}

/// Where packets go on that are denied and that conntrack does not track.
pub(super) fn untracked(direction: Direction) -> ChainName {
    ChainName::new(format!("{direction}_untracked"))
}

/// Leads there, and makes sure of the chain.
///
/// Such a packet may be an answer to one that is allowed, but nothing tells it from a new connection, so it is
/// dropped; by itself, because whoever looks for the reason must look at conntrack and not at the policies.
pub(super) fn to_untracked(draft: &mut Draft, direction: Direction) -> Rule {
    let drop = Rule::new([Statement::Counter, Statement::Verdict(Verdict::Drop)]);
    let rules = vec![
        log(direction, LogEvent::Untracked),
        drop.comment("untracked: conntrack does not tell answers from new connections"),
    ];
    draft.put_chain(&untracked(direction), None, rules);
    Rule::new([Statement::InvalidOrUntracked, Statement::Verdict(Verdict::Goto(untracked(direction)))])
}

/// Logs some of the packets that come here.
pub(super) fn log(direction: Direction, event: LogEvent) -> Rule {
    Rule::new([Statement::WithinLogRate, Statement::Log(LogPrefix::Judged { direction, event })])
}
