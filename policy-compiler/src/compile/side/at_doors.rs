//! What a direction says of packets that are judged at doors.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::subjects::{Isolated, SubjectName};
use super::{Regranted, Side};
use crate::compile::access::Access;
use crate::compile::identity::Membership;
use crate::compile::peer_set::PeerSetId;
use crate::compile::ranges::{self, AddressMap};
use crate::compile::rule::Crowd;
use crate::model::{Direction, Family, ObjectName};
use crate::ruleset::Digest;

impl Side {
    pub(in crate::compile) fn direction(&self) -> Direction {
        self.direction
    }

    /// What is known of a pod that is isolated in this direction.
    pub(in crate::compile) fn isolated_pod(&self, pod: &ObjectName) -> Option<&Isolated> {
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

    /// What stands for all subjects to which the rules allow the same.
    pub(in crate::compile) fn group_key(&self, subject: &Isolated) -> Digest {
        let policies = subject.policies.iter().map(|policy| policy.name.to_string());
        let rules = subject.rules.iter().filter_map(|chain| self.rules.get(chain));
        let numbers = rules.map(|rule| format!("{:?}", rule.resolve(&subject.pod)));
        Digest::of(policies.chain(numbers))
    }

    /// What the subject's rules allow between it and whoever is in these sets of peers.
    pub(in crate::compile) fn granted(&self, subject: &Isolated, membership: &Membership) -> Option<Access> {
        self.access(subject, membership, &[])
    }

    /// What the subject's rules allow between it and addresses in blocks that belong to no pod.
    pub(in crate::compile) fn granted_blocks(
        &self,
        subject: &Isolated,
        family: Family,
    ) -> Vec<(IpAddr, IpAddr, Access)> {
        let mut pieces: AddressMap<BTreeSet<PeerSetId>> = AddressMap::default();
        let rules: Vec<_> = subject.rules.iter().filter_map(|chain| self.rules.get(chain)).collect();
        let whole_family = Crowd::Family(family);
        if rules.iter().any(|rule| rule.has_crowd(whole_family)) {
            pieces.insert(ranges::of_family(family), BTreeSet::new());
        }
        for set in rules.iter().filter_map(|rule| self.peer_sets.get(rule.peers?)) {
            let of_family = set.ranges().iter().filter(|range| Family::of(*range.start()) == family);
            for range in of_family {
                ranges::change(&mut pieces, range, |sets| {
                    let mut sets = sets.cloned().unwrap_or_default();
                    sets.insert(set.id());
                    Some(sets)
                });
            }
        }
        let granted = pieces.iter().filter_map(|(range, sets)| {
            let membership = Membership::of_outsider(sets.iter().copied());
            let access = self.access(subject, &membership, &[whole_family])?;
            Some((*range.start(), *range.end(), access))
        });
        granted.collect()
    }
}
