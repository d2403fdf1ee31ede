//! What a direction says of packets that are judged at doors.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::subjects::{Judged, SubjectName};
use super::{AnyOf, Isolation, Regranted, Side};
use crate::compile::peer_set::PeerSetId;
use crate::compile::ranges::{self, AddressMap};
use crate::model::{Direction, Family, ObjectName};
use crate::ruleset::Digest;

impl Side {
    pub(in crate::compile) fn direction(&self) -> Direction {
        self.direction
    }

    /// What is known of a pod that is judged in this direction.
    pub(in crate::compile) fn judged_pod(&self, pod: &ObjectName) -> Option<&Judged> {
        self.subjects.get(&SubjectName::Pod(pod.clone()))?.pods.first()
    }

    /// Takes the names of the subjects that came, went or changed in the last update.
    pub(in crate::compile) fn take_changed_subjects(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.changed_subjects)
    }

    /// Takes what the last update looked at anew.
    pub(in crate::compile) fn take_regranted(&mut self) -> Regranted {
        std::mem::take(&mut self.regranted)
    }

    /// What stands for all pods that are judged alike.
    pub(in crate::compile) fn group_key(&self, pod: &Judged) -> Digest {
        let policies = pod.policies.iter().map(|policy| policy.name.to_string());
        let rules = pod.rules.iter().map(|(chain, certain)| {
            let rule = self.rules.get(chain).filter(|_| self.direction == Direction::Ingress);
            format!("{chain} {certain} {:?}", rule.map(|rule| rule.resolve(&pod.pod)))
        });
        Digest::of(policies.chain([pod.audited.to_string()]).chain(rules))
    }

    /// What judges a pod where it is known which pod it is. `left_alone`: NetworkPolicies deny nothing.
    pub(in crate::compile) fn tiers_at_door<'a>(&'a self, pod: &'a Judged, left_alone: bool) -> AnyOf<'a> {
        let isolation = match (pod.is_isolated(), pod.audited) {
            (false, _) => Isolation::None,
            (true, _) if left_alone => Isolation::LeftAlone,
            (true, false) => Isolation::Denying,
            (true, true) => Isolation::Audited,
        };
        AnyOf(vec![self.tiers(pod, isolation)])
    }

    /// The blocks of a family that the pod's rules name, as far as they belong to no pod, and these ranges. Each piece comes
    /// with the sets that it is in, and whether it lies in one of the ranges.
    pub(in crate::compile) fn blocks(
        &self,
        pod: &Judged,
        family: Family,
        ranges: impl IntoIterator<Item = RangeInclusive<IpAddr>>,
    ) -> Vec<(RangeInclusive<IpAddr>, bool, BTreeSet<PeerSetId>)> {
        let mut pieces: AddressMap<(bool, BTreeSet<PeerSetId>)> = AddressMap::default();
        ranges.into_iter().for_each(|range| pieces.insert(range, (true, BTreeSet::new())));
        let rules = pod.rules.iter().filter_map(|(chain, _)| self.rules.get(chain));
        let sets: BTreeSet<_> = rules.filter_map(|rule| rule.peers).collect();
        for id in sets {
            let blocks = self.peer_sets.ranges(id);
            for block in blocks.iter().filter(|block| Family::of(*block.start()) == family) {
                ranges::change(&mut pieces, block, |piece| {
                    let (in_range, mut sets) = piece.cloned().unwrap_or_default();
                    sets.insert(id);
                    Some((in_range, sets))
                });
            }
        }
        pieces.iter().map(|(range, (in_range, sets))| (range.clone(), *in_range, sets.clone())).collect()
    }
}
