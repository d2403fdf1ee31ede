//! Pods that the policies do not tell apart.

use std::collections::{BTreeMap, HashMap};

use super::isolation::{Isolation, Isolations, ResolvedRule, members};
use super::pod_set::Member;
use super::{Judge, Party, is_inside};
use crate::model::{ContainerPort, Family, ObjectName, Pod};

/// All that verdicts depend on. Where a pod runs is not among it: only ends in the network of a node make that count.
#[derive(PartialEq, Eq, Hash)]
struct Kind<'a> {
    /// The policies that isolate it, for egress and for ingress.
    isolated_by: [Vec<&'a ObjectName>; 2],
    /// For each rule, whether its selectors match it, and whether its blocks have it in each family.
    covered_by: Vec<[bool; 3]>,
    families: [bool; 2],
    /// What the names of ports come to.
    ports: Vec<&'a ContainerPort>,
    finished: bool,
    /// Whether it reaches itself whatever the policies say.
    exempt_from_itself: bool,
}

impl<'a> Judge<'a> {
    /// A number for each pod that policies can isolate. A connection between two different pods, or within a workload,
    /// has the verdict of any other whose ends have the same two numbers.
    pub fn kinds(&self) -> HashMap<&'a ObjectName, usize> {
        let rules = [&self.egress, &self.ingress].map(policies);
        let rules: Vec<_> =
            rules.iter().flat_map(BTreeMap::values).flat_map(|policy| &policy.rules).collect();
        let mut numbers = HashMap::new();
        members(self.cluster)
            .map(|(member, pod)| {
                let next = numbers.len();
                (&pod.name, *numbers.entry(self.kind(member, pod, &rules)).or_insert(next))
            })
            .collect()
    }

    fn kind(&self, member: Member, pod: &'a Pod, rules: &[&ResolvedRule<'a>]) -> Kind<'a> {
        let isolated_by = [&self.egress, &self.ingress].map(|isolations| {
            let isolations = isolations.get(member).into_iter().flatten();
            isolations.map(|isolation| &isolation.policy.name).collect()
        });
        let party = Party { pod: Some(pod), member: Some(member), address: None, shared: false };
        let covered = |rule: &&ResolvedRule<'a>| {
            let [ipv4, ipv6] = Family::BOTH
                .map(|family| rule.blocks.iter().any(|block| is_inside(&party, block, Some(family))));
            [rule.pods.contains(member), ipv4, ipv6]
        };
        Kind {
            isolated_by,
            covered_by: rules.iter().map(covered).collect(),
            families: Family::BOTH.map(|family| party.addresses_of(family).next().is_some()),
            ports: pod.ports.iter().collect(),
            finished: pod.finished,
            exempt_from_itself: pod.workload.is_none(),
        }
    }
}

/// Every policy that isolates somebody, once.
fn policies<'j, 'a>(isolations: &'j Isolations<'a>) -> BTreeMap<&'a ObjectName, &'j Isolation<'a>> {
    isolations.iter().flatten().map(|isolation| (&isolation.policy.name, &**isolation)).collect()
}
