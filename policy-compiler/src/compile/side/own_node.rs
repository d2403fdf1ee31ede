//! What judged pods send to the node that runs them, whatever address of the node they ask.
//!
//! Where policies judge that, it traverses the chains of egress as any other packet does. Otherwise only
//! ClusterNetworkPolicies do: the packets of the pods that such policies choose traverse these chains too, and where a
//! NetworkPolicy would deny one it is left alone.

use super::subjects::Subject;
use super::{Pass, Side, goto};
use crate::compile::draft::Draft;
use crate::compile::shared_rules::rule;
use crate::compile::skeleton;
use crate::compile::verdicts::{self, Rest};
use crate::compile::world::World;
use crate::model::{Direction, Family};
use crate::ruleset::{ChainRole, ElementKey, Rule, SetRole, Statement, Verdict};

impl Side {
    /// Keeps the map of the pods of which only ClusterNetworkPolicies judge what they send to their node.
    pub(super) fn update_own_node(&self, world: &World, draft: &mut Draft, pass: &Pass) {
        if self.direction != Direction::Egress || world.judges_own_node() {
            return;
        }
        let set = |family| SetRole::OwnNode(family).into();
        // All removals come first: an address may have moved from one subject to another.
        for address in pass.subjects.values().flatten().flat_map(|old| &old.addresses) {
            draft.remove_element(&set(Family::of(*address)), ElementKey::Address(*address));
        }
        let subjects = pass.subjects.keys().filter_map(|name| self.subjects.get(name));
        let egress = ChainRole::Direction(Direction::Egress).into();
        for address in subjects.filter(|subject| subject.has_tiers()).flat_map(|subject| &subject.addresses) {
            skeleton::put_own_node(draft, Family::of(*address));
            draft.put_element(&set(Family::of(*address)), ElementKey::Address(*address), goto(&egress));
        }
    }

    /// The rules that let pass what goes to the own node, before it is denied.
    pub(super) fn let_through_to_node(
        &self,
        world: &World,
        draft: &mut Draft,
        subject: &Subject,
    ) -> Vec<Rule> {
        if self.direction != Direction::Egress {
            return Vec::new();
        }
        if !world.judges_own_node() {
            let left_alone = rule([Statement::DestinationIsLocal], Verdict::Return);
            return if subject.has_tiers() { vec![left_alone] } else { Vec::new() };
        }
        let open = self.tiers_of(subject).to_own_node();
        let open = verdicts::put_divergence(draft, self.direction, &open, &Rest::NONE);
        open.into_iter().map(|open| Rule::new([Statement::DestinationIsLocal, open])).collect()
    }
}
