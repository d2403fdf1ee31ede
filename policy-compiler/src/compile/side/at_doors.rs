//! What a direction says of packets that are judged at doors.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::subjects::{Isolated, SubjectName};
use super::{Regranted, Side};
use crate::compile::access::Access;
use crate::compile::blocks;
use crate::compile::names::of_content;
use crate::compile::rule::Grants;
use crate::model::{Direction, Family, ObjectName};

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

    /// A name for all subjects to which the rules allow the same.
    pub(in crate::compile) fn group_key(&self, subject: &Isolated) -> String {
        let policies = subject.policies.iter().map(|policy| policy.name.to_string());
        let rules = subject.rules.iter().filter_map(|chain| self.rules.get(chain));
        let numbers = rules.map(|rule| format!("{:?}", rule.resolve(&subject.pod)));
        let content: Vec<_> = policies.chain(numbers).collect();
        of_content(&format!("{}_link", self.direction), content.iter().map(String::as_str))
    }

    /// What the subject's rules allow between it and whoever has these grants.
    pub(in crate::compile) fn granted(&self, subject: &Isolated, grants: &Grants) -> Option<Access> {
        self.access(subject, grants, &[])
    }

    /// What the subject's rules allow between it and addresses in blocks that belong to no pod.
    pub(in crate::compile) fn granted_blocks(
        &self,
        subject: &Isolated,
        family: Family,
    ) -> Vec<(IpAddr, IpAddr, Access)> {
        let rules = subject.rules.iter().filter_map(|chain| Some((chain, self.rules.get(chain)?)));
        let blocks = rules.flat_map(|(chain, rule)| rule.blocks.iter().map(move |block| (block, chain)));
        let pieces = blocks::pieces(family, blocks);
        let granted = pieces.into_iter().filter_map(|piece| {
            let grants = self.grants_to_outsider(&piece.members);
            Some((piece.first, piece.last, self.granted(subject, &grants)?))
        });
        granted.collect()
    }
}
