//! Strict start: an address of the node's pod ranges that no known pod has reaches nothing, and nothing
//! reaches it.
//!
//! A pod can send before its object is known, and an unknown pod is an unisolated one. With this it has to
//! wait: what looks like a pod of the node must be one.

use super::draft::Draft;
use super::names::family_set;
use super::ranges;
use super::skeleton::{self, subject_field};
use super::world::{Changed, World};
use crate::model::{Direction, Family};
use crate::ruleset::{
    ChainName, Element, ElementKey, KeyType, LogEvent, Rule, SetKind, SetName, Statement, Verdict,
};

/// The addresses that the node's pods get.
pub(super) fn pod_ranges(family: Family) -> SetName {
    family_set("pod_ranges", family)
}

/// The addresses in those ranges that somebody is known to have.
fn known(family: Family) -> SetName {
    family_set("known", family)
}

/// Looks at both ends of a packet; it returns for those that are known, or none of the node's pods.
pub(super) fn entry() -> ChainName {
    ChainName::new("strict_start")
}

/// Looks at the end that is the subject in a direction, if it lies in the pod ranges.
pub(super) fn one_end(direction: Direction) -> ChainName {
    ChainName::new(format!("strict_start_{direction}"))
}

/// Whether a set of the table holds pod ranges that strict start guards.
pub fn holds_pod_ranges(set: &SetName) -> bool {
    Family::BOTH.map(pod_ranges).contains(set)
}

/// The sets, still empty, and the chains.
pub(super) fn build(draft: &mut Draft) {
    for family in Family::BOTH {
        let address = SetKind { key: KeyType::Address(family), interval: false, verdicts: false };
        draft.put_set(&known(family), address);
        draft.put_set(&pod_ranges(family), SetKind { interval: true, ..address });
    }
    let mut ends = Vec::new();
    for direction in Direction::BOTH {
        let mut rules = Vec::new();
        for family in Family::BOTH {
            ends.push(in_pod_ranges(direction, family));
            let is_known = Statement::InSet(subject_field(direction, family), known(family));
            rules.push(Rule::new([is_known, Statement::Verdict(Verdict::Return)]));
        }
        rules.push(skeleton::log(direction, LogEvent::StrictStart));
        let deny = Rule::new([Statement::Counter, Statement::Verdict(Verdict::Drop)]);
        rules.push(deny.comment("strict start: no known pod has the address"));
        draft.put_chain(&one_end(direction), None, rules);
    }
    draft.put_chain(&entry(), None, ends);
}

/// Has the source looked at, if it lies in the pod ranges.
pub(super) fn sources() -> [Rule; 2] {
    Family::BOTH.map(|family| in_pod_ranges(Direction::Egress, family))
}

/// Has the end looked at that is the subject in a direction, if it lies in the pod ranges.
fn in_pod_ranges(direction: Direction, family: Family) -> Rule {
    let inside = Statement::InSet(subject_field(direction, family), pod_ranges(family));
    Rule::new([inside, Statement::Verdict(Verdict::Jump(one_end(direction)))])
}

/// Brings the sets in step with the world.
pub(super) fn update(world: &World, changed: &Changed, draft: &mut Draft) {
    if !changed.node {
        for address in &changed.addresses {
            let is_known = world.is_known_in_pod_ranges(*address);
            draft.list_address(&known(Family::of(*address)), *address, is_known);
        }
        return;
    }
    let ranges = ranges::of_networks(world.pod_ranges());
    for family in Family::BOTH {
        let ranges = ranges::elements(&ranges, family).map(|key| (key, Element::BARE));
        draft.replace_elements(&pod_ranges(family), ranges.collect());
        let addresses = world.claimed_addresses().chain(world.node_addresses());
        let of_ranges = addresses
            .filter(|address| Family::of(*address) == family && world.is_known_in_pod_ranges(*address));
        let elements = of_ranges.map(|address| (ElementKey::Address(address), Element::BARE));
        draft.replace_elements(&known(family), elements.collect());
    }
}
