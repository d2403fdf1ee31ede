//! With `--require-doors`, a pod whose door is unknown reaches nothing, and nothing but its node reaches it.
//!
//! That is decided in the table `inet podfence`: where the door is unknown, the addresses are all there is to go by.

use super::{DoorTable, Listed, stands_for};
use crate::compile::counted::comment;
use crate::compile::draft::Draft;
use crate::compile::shared_rules::subject_field;
use crate::compile::world::{Changed, World};
use crate::model::{Direction, Family, ObjectName};
use crate::ruleset::{ChainRole, KeyType, Rule, SetKind, SetRole, Statement, Verdict};

/// The addresses of pods without doors, as the table has them.
#[derive(Default)]
pub(in crate::compile) struct Required {
    listed: Listed,
}

impl Required {
    /// The sets, still empty, and the chain.
    pub(in crate::compile) fn build(draft: &mut Draft) -> Self {
        for family in Family::BOTH {
            let address = SetKind { key: KeyType::Address(family), interval: false, verdicts: false };
            draft.put_set(&SetRole::WithoutDoor(family).into(), address);
        }
        let drop = Rule::new([Statement::Counter, Statement::Verdict(Verdict::Drop)]);
        draft.put_chain(
            &ChainRole::WithoutDoor.into(),
            None,
            vec![drop.comment(comment("the pod's door is unknown"))],
        );
        Self::default()
    }

    /// The rules of a base chain that drop packets whose subject in one of the directions is such a pod.
    pub(in crate::compile) fn rules(directions: &[Direction]) -> impl Iterator<Item = Rule> {
        let ends = Family::BOTH.into_iter().flat_map(|family| {
            directions.iter().map(move |direction| {
                (subject_field(*direction, family), SetRole::WithoutDoor(family).into())
            })
        });
        ends.map(|(fields, set)| {
            Rule::new([
                Statement::InSet(fields, set),
                Statement::Verdict(Verdict::Goto(ChainRole::WithoutDoor.into())),
            ])
        })
    }

    /// Brings the sets in step with the world and the doors.
    pub(in crate::compile) fn update(
        &mut self,
        world: &World,
        changed: &Changed,
        doors: &DoorTable,
        draft: &mut Draft,
    ) {
        let pods = world.with_sharers(changed.pods.union(doors.moved()).cloned().collect());
        self.listed.update(draft, &pods, |name| {
            let pod = world.pod(name).filter(|pod| world.is_local(pod) && !doors.has_door(name));
            let addresses = pod.into_iter().flat_map(|pod| world.addresses(pod));
            let has_door = |name: &ObjectName| doors.has_door(name);
            let listed = addresses.filter(|address| stands_for(world, *address, has_door) == Some(name));
            listed.map(|address| (SetRole::WithoutDoor(Family::of(address)).into(), address, None)).collect()
        });
    }
}
