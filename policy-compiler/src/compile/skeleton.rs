//! The part of the table that is there whatever the policies are.

use super::doors::Required;
use super::draft::Draft;
use super::shared_rules::{LINK_UPKEEP, go, peer_field, rule, subject_field};
use super::strict;
use crate::model::{Direction, Family};
use crate::ruleset::{ChainRole, Fields, Hook, KeyType, Rule, SetKind, SetRole, Statement, Verdict};

/// Sets, base chains and the chains that all packets share; with `strict` those of strict start too.
pub(super) fn build(draft: &mut Draft, strict: bool) {
    for family in Family::BOTH {
        for direction in Direction::BOTH {
            let pair = SetKind { key: KeyType::AddressPair(family), interval: false, verdicts: false };
            draft.put_set(&SetRole::Itself(direction, family).into(), pair);
            draft.pin_set(&SetRole::Itself(direction, family).into());
            let address = SetKind { key: KeyType::Address(family), interval: false, verdicts: true };
            draft.put_set(&SetRole::Peers(direction, family).into(), address);
            draft.put_set(&SetRole::Isolated(direction, family).into(), address);
            draft.put_set(&SetRole::Blocks(direction, family).into(), SetKind { interval: true, ..address });
        }
        let address = SetKind { key: KeyType::Address(family), interval: false, verdicts: false };
        draft.put_set(&SetRole::Pods(family).into(), address);
        draft.pin_set(&SetRole::Pods(family).into());
        let tuple = SetKind { key: KeyType::Tuple(family), interval: false, verdicts: false };
        draft.put_set(&SetRole::Cut(family).into(), tuple);
    }
    build_cut(draft);
    for direction in Direction::BOTH {
        build_direction(draft, direction);
    }
    if strict {
        strict::build(draft);
    }
}

/// Which of the packets that pods send to their node are judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ToNode {
    /// None.
    #[default]
    None,
    /// Those of pods that ClusterNetworkPolicies choose ([`super::side`]).
    OfChosen,
    /// All.
    All,
}

/// What the base chains do beside judging what the node forwards.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BaseChains {
    /// Strict start.
    pub(super) strict: bool,
    /// They are closed to pods without doors.
    pub(super) required: bool,
    /// What they do with what pods send to their node.
    pub(super) to_node: ToNode,
}

impl BaseChains {
    /// Puts them in the place of those before.
    pub(super) fn put(self, draft: &mut Draft) {
        put_base(draft, ChainRole::Forward, Hook::Forward, self.forward());
        put_base(draft, ChainRole::Output, Hook::Output, self.output());
        match self.to_node {
            ToNode::None if draft.has_chain(&ChainRole::Input.into()) => {
                draft.unpin(&ChainRole::Input.into());
            }
            ToNode::None => {}
            ToNode::OfChosen | ToNode::All => put_base(draft, ChainRole::Input, Hook::Input, self.input()),
        }
    }

    /// Has them judge what pods send to their node if there are pods of which that is judged.
    pub(super) fn judge_chosen(&mut self, draft: &mut Draft) {
        let chosen =
            Family::BOTH.into_iter().any(|family| draft.has_elements(&SetRole::OwnNode(family).into()));
        let to_node = if chosen { ToNode::OfChosen } else { ToNode::None };
        if self.to_node != ToNode::All && self.to_node != to_node {
            self.to_node = to_node;
            if chosen {
                for family in Family::BOTH {
                    put_own_node(draft, family);
                }
            }
            self.put(draft);
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
        if self.to_node != ToNode::None {
            // The node's end of a connection that was cut sends too, and conntrack would take that for a new
            // beginning.
            rules.extend(drop_cut());
        }
        // What the node itself sends passes. What else leaves here has been sent on a pod's behalf.
        rules.push(accept(Statement::SourceIsLocal));
        rules.extend(self.closed(&Direction::BOTH));
        if self.to_node == ToNode::None {
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
        if self.to_node == ToNode::OfChosen {
            rules.extend(Family::BOTH.map(|family| {
                let map = SetRole::OwnNode(family).into();
                let chosen = Statement::VerdictMap(subject_field(Direction::Egress, family), map);
                Rule::new([Statement::DestinationIsLocal, chosen])
            }));
            return rules;
        }
        // Behind what the node needs to reach the pod.
        rules.extend(self.closed(&[Direction::Egress]));
        if self.strict {
            rules.extend(strict::sources());
        }
        rules.push(jump(ChainRole::Direction(Direction::Egress)));
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
            rules.push(jump(ChainRole::StrictStart));
        }
        rules.extend(Direction::BOTH.map(|direction| jump(ChainRole::Direction(direction))));
        rules
    }
}

/// The map of the pods that are judged so.
pub(super) fn put_own_node(draft: &mut Draft, family: Family) {
    let address = SetKind { key: KeyType::Address(family), interval: false, verdicts: true };
    draft.put_set(&SetRole::OwnNode(family).into(), address);
}

fn put_base(draft: &mut Draft, role: ChainRole, hook: Hook, rules: Vec<Rule>) {
    let name = role.into();
    if !draft.has_chain(&name) {
        draft.pin(&name);
    }
    draft.put_chain(&name, Some(hook), rules);
}

fn drop_cut() -> [Rule; 2] {
    Family::BOTH.map(|family| {
        let is_cut = Statement::InSet(Fields::Tuple(family), SetRole::Cut(family).into());
        rule([is_cut], Verdict::Jump(ChainRole::Cut.into()))
    })
}

fn accept(packets: Statement) -> Rule {
    rule([packets], Verdict::Accept)
}

fn jump(chain: ChainRole) -> Rule {
    go(Verdict::Jump(chain.into()))
}

fn look_up(fields: Fields, map: SetRole) -> Rule {
    Rule::new([Statement::VerdictMap(fields, map.into())])
}

/// Drops answers of connections that were cut, and lets a new connection begin between the same ports.
fn build_cut(draft: &mut Draft) {
    let rules = vec![
        rule([Statement::TcpSyn], Verdict::Return),
        rule([Statement::SctpInit], Verdict::Return),
        rule([Statement::Counter], Verdict::Drop),
    ];
    draft.put_chain(&ChainRole::Cut.into(), None, rules);
}

fn build_direction(draft: &mut Draft, direction: Direction) {
    let to_unlisted = go(Verdict::Goto(ChainRole::Unlisted(direction).into()));

    let mut rules = Vec::new();
    for family in Family::BOTH {
        rules.push(look_up(peer_field(direction, family), SetRole::Peers(direction, family)));
        rules.push(look_up(peer_field(direction, family), SetRole::Blocks(direction, family)));
    }
    rules.push(to_unlisted);
    draft.put_chain(&ChainRole::Direction(direction).into(), None, rules);

    let isolation = Family::BOTH
        .map(|family| look_up(subject_field(direction, family), SetRole::Isolated(direction, family)));
    draft.put_chain(&ChainRole::Unlisted(direction).into(), None, isolation.into());
}
