//! Strict start: an address of the node's pod ranges that no known pod has reaches nothing, and nothing
//! reaches it.
//!
//! A pod can send before its object is known, and an unknown pod is an unisolated one. With this it has to
//! wait: what looks like a pod of the node must be one.

use super::draft::Draft;
use super::ranges;
use super::shared_rules::{self, subject_field};
use super::world::{Changed, World};
use crate::model::{Direction, Family};
use crate::ruleset::{
    ChainRole, Element, ElementKey, KeyType, LogEvent, LogPrefix, Rule, SetKind, SetRole, Statement, Verdict,
};

/// The sets, still empty, and the chains.
pub(super) fn build(draft: &mut Draft) {
    for family in Family::BOTH {
        let address = SetKind { key: KeyType::Address(family), interval: false, verdicts: false };
        draft.put_set(&SetRole::Known(family).into(), address);
        draft.put_set(&SetRole::PodRanges(family).into(), SetKind { interval: true, ..address });
    }
    let mut ends = Vec::new();
    for direction in Direction::BOTH {
        let mut rules = Vec::new();
        for family in Family::BOTH {
            ends.push(in_pod_ranges(direction, family));
            let is_known = Statement::InSet(subject_field(direction, family), SetRole::Known(family).into());
            rules.push(Rule::new([is_known, Statement::Verdict(Verdict::Return)]));
        }
        rules.push(shared_rules::log(LogPrefix::Judged { direction, event: LogEvent::StrictStart }));
        let deny = Rule::new([Statement::Counter, Statement::Verdict(Verdict::Drop)]);
        rules.push(deny.comment("strict start: no known pod has the address"));
        draft.put_chain(&ChainRole::StrictStartOf(direction).into(), None, rules);
    }
    draft.put_chain(&ChainRole::StrictStart.into(), None, ends);
}

/// Has the source looked at, if it lies in the pod ranges.
pub(super) fn sources() -> [Rule; 2] {
    Family::BOTH.map(|family| in_pod_ranges(Direction::Egress, family))
}

/// Has the end looked at that is the subject in a direction, if it lies in the pod ranges.
fn in_pod_ranges(direction: Direction, family: Family) -> Rule {
    let inside = Statement::InSet(subject_field(direction, family), SetRole::PodRanges(family).into());
    Rule::new([inside, Statement::Verdict(Verdict::Jump(ChainRole::StrictStartOf(direction).into()))])
}

/// Brings the sets in step with the world.
pub(super) fn update(world: &World, changed: &Changed, draft: &mut Draft) {
    if !changed.node {
        for address in &changed.addresses {
            let is_known = world.is_known_in_pod_ranges(*address);
            draft.list_address(&SetRole::Known(Family::of(*address)).into(), *address, is_known);
        }
        return;
    }
    let ranges = ranges::of_networks(world.pod_ranges());
    for family in Family::BOTH {
        let ranges = ranges::elements(&ranges, family).map(|key| (key, Element::BARE));
        draft.replace_elements(&SetRole::PodRanges(family).into(), ranges.collect());
        let addresses = world.claimed_addresses().chain(world.node_addresses());
        let of_ranges = addresses
            .filter(|address| Family::of(*address) == family && world.is_known_in_pod_ranges(*address));
        let elements = of_ranges.map(|address| (ElementKey::Address(address), Element::BARE));
        draft.replace_elements(&SetRole::Known(family).into(), elements.collect());
    }
}
