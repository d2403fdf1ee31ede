//! What the rules allow an isolated pod to send to the node that runs it, whatever address of the node it asks.

use super::{Pass, Side, goto};
use crate::compile::draft::Draft;
use crate::compile::rule::Crowd;
use crate::compile::{shared_rules, skeleton};
use crate::model::{Direction, Family};
use crate::ruleset::{ChainRole, Digest, ElementKey, Rule, SetRole, Statement, Verdict};

impl Side {
    pub(super) fn update_own_node(&self, draft: &mut Draft, pass: &Pass) {
        if self.direction != Direction::Egress || !skeleton::judges_own_node(draft) {
            return;
        }
        // All removals come first: an address may have moved from one subject to another.
        for address in pass.subjects.values().flatten().flat_map(|old| &old.addresses) {
            draft.remove_element(
                &SetRole::OwnNode(Family::of(*address)).into(),
                ElementKey::Address(*address),
            );
        }
        for subject in pass.subjects.keys().filter_map(|name| self.subjects.get(name)) {
            let Some(open) = self.opening(draft, subject, Crowd::OwnNode) else { continue };
            let body = vec![
                Rule::new([Statement::DestinationIsLocal, open]),
                shared_rules::go(Verdict::Goto(ChainRole::Direction(Direction::Egress).into())),
            ];
            let chain = ChainRole::OwnNode(Digest::of(body.iter().map(ToString::to_string))).into();
            draft.put_chain(&chain, None, body);
            for address in &subject.addresses {
                let map = SetRole::OwnNode(Family::of(*address)).into();
                draft.put_element(&map, ElementKey::Address(*address), goto(&chain));
            }
        }
    }
}
