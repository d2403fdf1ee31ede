//! Pods that the policies do not tell apart.

use std::collections::{BTreeMap, HashMap};

use super::number_set::{Member, NumberSet};
use super::resolve::{ResolvedRule, is_inside, members};
use super::tiers::Tiers;
use super::{Judge, Party};
use crate::model::{ContainerPort, Family, ObjectName, Pod};

/// All that verdicts depend on. Where a pod runs is not among it: only ends in the network of a node make that count.
#[derive(PartialEq, Eq, Hash)]
struct Kind<'j, 'a> {
    /// The policies that isolate it, for egress and for ingress.
    isolated_by: [Vec<&'a ObjectName>; 2],
    /// What rules of ClusterNetworkPolicies do to it, likewise.
    tiers: [Option<&'j NumberSet>; 2],
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
        let rules = self.rules_of_somebody();
        let mut numbers = HashMap::new();
        members(self.cluster)
            .map(|(member, pod)| {
                let next = numbers.len();
                (&pod.name, *numbers.entry(self.kind(member, pod, &rules)).or_insert(next))
            })
            .collect()
    }

    fn kind(&self, member: Member, pod: &'a Pod, rules: &[&ResolvedRule<'a>]) -> Kind<'_, 'a> {
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
            tiers: self.tiers.each_ref().map(|tiers| tiers.numbers_on(member)),
            covered_by: rules.iter().map(covered).collect(),
            families: Family::BOTH.map(|family| party.addresses_of(family).next().is_some()),
            ports: pod.ports.iter().collect(),
            finished: pod.finished,
            exempt_from_itself: pod.workload.is_none(),
        }
    }

    /// The rules of every policy that has a say about somebody, once.
    fn rules_of_somebody(&self) -> Vec<&ResolvedRule<'a>> {
        let isolations = [&self.egress, &self.ingress].map(|isolations| {
            let all = isolations.iter().flatten().map(|isolation| (&isolation.policy.name, &**isolation));
            all.collect::<BTreeMap<_, _>>()
        });
        let of_isolations =
            isolations.into_iter().flat_map(BTreeMap::into_values).flat_map(|isolation| &isolation.rules);
        let of_tiers = self.tiers.iter().flat_map(Tiers::effects).map(|effect| &effect.covered);
        of_isolations.chain(of_tiers).collect()
    }
}
