//! What the addresses of a packet do not decide: who may send broadcast, multicast and link-local packets into an
//! isolated pod, and what an isolated pod may send from its link-local addresses.
//!
//! The connections of such packets are not tracked where they are judged, so a packet that passes lets the answers
//! to it pass the other way for a while ([`Statement::ExpectAnswer`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::judging::{DoorJudging, DoorTiers, is_answer};
use crate::compile::draft::Draft;
use crate::compile::identity::Membership;
use crate::compile::shared_rules::{self, rule};
use crate::compile::side::{Regranted, Side};
use crate::compile::world::World;
use crate::model::{Door, Doors, Family, ObjectName, Pod};
use crate::ruleset::{ChainRole, Digest, Fields, KeyType, Rule, SetKind, SetRole, Statement, Verdict};

/// What is judged alike: pods that the same policies isolate, with the same numbers of named ports.
#[derive(Default)]
struct Group {
    pods: BTreeSet<ObjectName>,
    /// The addresses in its map of senders.
    senders: BTreeSet<IpAddr>,
}

/// The groups for ingress, and who may send to them.
pub(super) struct Link {
    groups: BTreeMap<Digest, Group>,
    of_pods: BTreeMap<ObjectName, Digest>,
    /// The sets of peers that each address of the node's pods is in, the link-local ones included. Nothing is known as long
    /// as there is no group.
    senders: BTreeMap<IpAddr, Membership>,
    /// The addresses among them of each pod.
    sending: BTreeMap<ObjectName, Vec<IpAddr>>,
}

/// What an update is about.
pub(super) struct Renewed<'a> {
    /// The pods that have changed, or their doors, or what isolates them.
    pub(super) pods: &'a BTreeSet<ObjectName>,
    /// The addresses to which the rules may grant something else.
    pub(super) granted: &'a Regranted,
}

impl Link {
    pub(super) fn new(draft: &mut Draft) -> Self {
        draft.put_set(
            &SetRole::Answers.into(),
            SetKind { key: KeyType::Answer, interval: false, verdicts: false },
        );
        for family in Family::BOTH {
            let address = SetKind { key: KeyType::Address(family), interval: false, verdicts: false };
            draft.put_set(&SetRole::Pods(family).into(), address);
            draft.pin_set(&SetRole::Pods(family).into());
        }
        let address = SetKind { key: KeyType::Address(Family::Ipv6), interval: false, verdicts: false };
        draft.put_set(&SetRole::NodeLinkLocal.into(), address);
        let accept = || Statement::Verdict(Verdict::Accept);
        draft.put_chain(
            &ChainRole::LinkPass.into(),
            None,
            vec![Rule::new([Statement::ExpectAnswer(SetRole::Answers.into())]), Rule::new([accept()])],
        );
        draft.pin(&ChainRole::LinkPass.into());
        let mut rules = shared_rules::LINK_UPKEEP.map(|upkeep| rule([upkeep], Verdict::Accept)).to_vec();
        rules.push(Rule::new([Statement::SourceIsLocal, accept()]));
        // The look-up before does not know to which device a link-local address belongs.
        let source = Fields::Source(Family::Ipv6);
        rules.push(Rule::new([Statement::InSet(source, SetRole::NodeLinkLocal.into()), accept()]));
        rules.push(Rule::new([is_answer(), accept()]));
        draft.put_chain(&ChainRole::LinkAlways.into(), None, rules);
        draft.pin(&ChainRole::LinkAlways.into());
        Self {
            groups: BTreeMap::new(),
            of_pods: BTreeMap::new(),
            senders: BTreeMap::new(),
            sending: BTreeMap::new(),
        }
    }

    /// Brings the maps of senders in step.
    pub(super) fn update(
        &mut self,
        world: &World,
        sides: &mut [Side; 2],
        doors: &Doors,
        renewed: &Renewed<'_>,
        draft: &mut Draft,
    ) {
        let [_, ingress] = sides;
        let mut groups = BTreeSet::new();
        for name in renewed.pods {
            let subject = ingress.judged_pod(name).filter(|subject| {
                doors.of_pods.get(name).is_some_and(|door| is_judged(world, &subject.pod, door))
            });
            let key = subject.map(|subject| ingress.group_key(subject));
            self.join(name, key);
            groups.extend(key);
        }
        let changed = self.update_senders(world, ingress, doors, renewed, draft);
        let keys: Vec<_> = if changed.is_empty() {
            groups.iter().copied().collect()
        } else {
            self.groups.keys().copied().collect()
        };
        for key in keys {
            let all = groups.contains(&key);
            self.update_group(key, ingress, if all { None } else { Some(&changed) }, draft);
        }
    }

    /// Puts a pod into a group, out of the one that it was in.
    fn join(&mut self, pod: &ObjectName, key: Option<Digest>) {
        if let Some(before) = self.of_pods.remove(pod)
            && let Some(group) = self.groups.get_mut(&before)
        {
            group.pods.remove(pod);
            if group.pods.is_empty() && key.as_ref() != Some(&before) {
                self.groups.remove(&before);
            }
        }
        if let Some(key) = key {
            self.groups.entry(key).or_default().pods.insert(pod.clone());
            self.of_pods.insert(pod.clone(), key);
        }
    }

    /// Works out anew what the senders are granted of whom that may have changed, and returns the addresses of which it
    /// has.
    fn update_senders(
        &mut self,
        world: &World,
        ingress: &mut Side,
        doors: &Doors,
        renewed: &Renewed<'_>,
        draft: &mut Draft,
    ) -> BTreeSet<IpAddr> {
        let names = self.with_the_same_addresses(doors, self.senders_in_question(doors, renewed));
        let mut before = BTreeMap::new();
        for address in names.iter().filter_map(|name| self.sending.remove(name)).flatten() {
            before.entry(address).or_insert_with(|| self.senders.remove(&address));
        }
        for name in names.into_iter().filter(|_| !self.groups.is_empty()) {
            let is_local = |pod: &&Arc<Pod>| world.is_local(pod) && world.addresses(pod).next().is_some();
            let pod = world.pod(&name).filter(is_local);
            let Some((pod, door)) = pod.zip(doors.of_pods.get(&name)) else { continue };
            let link_local = door.link_local.iter().map(|address| IpAddr::V6(*address));
            let own = world.addresses(pod).map(|address| (address, ingress.membership(world, address)));
            let mut sending: Vec<_> = own.collect();
            for address in link_local {
                sending.push((address, Membership::of_pod(ingress.members(world, address, pod))));
            }
            let addresses = sending.iter().map(|(address, _)| *address).collect();
            for (address, membership) in sending {
                before.entry(address).or_insert(None);
                self.senders.insert(address, membership);
            }
            self.sending.insert(name, addresses);
        }
        let differs =
            |(address, before): &(IpAddr, Option<Membership>)| before.as_ref() != self.senders.get(address);
        let changed: BTreeSet<_> = before.into_iter().filter(differs).map(|(address, _)| address).collect();
        for address in &changed {
            draft.list_address(
                &SetRole::Pods(Family::of(*address)).into(),
                *address,
                self.senders.contains_key(address),
            );
        }
        changed
    }

    /// The pods to whose addresses something else may be granted than is known.
    fn senders_in_question(&self, doors: &Doors, renewed: &Renewed<'_>) -> BTreeSet<ObjectName> {
        if self.groups.is_empty() || self.sending.is_empty() {
            return doors.of_pods.keys().chain(self.sending.keys()).cloned().collect();
        }
        let regranted =
            |addresses: &Vec<IpAddr>| addresses.iter().any(|address| renewed.granted.concerns(*address));
        let sending = self.sending.iter().filter(|(_, addresses)| regranted(addresses));
        sending.map(|(name, _)| name).chain(renewed.pods).cloned().collect()
    }

    /// The pods, and those that send from an address from which one of them sends or sent.
    fn with_the_same_addresses(&self, doors: &Doors, mut pods: BTreeSet<ObjectName>) -> BTreeSet<ObjectName> {
        let before = pods.iter().filter_map(|name| self.sending.get(name)).flatten().copied();
        let now = pods.iter().filter_map(|name| doors.of_pods.get(name)).flat_map(|door| &door.link_local);
        let addresses: BTreeSet<IpAddr> = before.chain(now.map(|address| IpAddr::V6(*address))).collect();
        let shares = |sending: &Vec<IpAddr>| sending.iter().any(|address| addresses.contains(address));
        let others = self.sending.iter().filter(|(_, sending)| shares(sending));
        pods.extend(others.map(|(name, _)| name.clone()));
        pods
    }

    /// Looks at the given senders of a group anew, or at all of them.
    fn update_group(
        &mut self,
        key: Digest,
        ingress: &Side,
        changed: Option<&BTreeSet<IpAddr>>,
        draft: &mut Draft,
    ) {
        let Some(group) = self.groups.get_mut(&key) else { return };
        let Some(subject) = group.pods.first().and_then(|pod| ingress.judged_pod(pod)) else { return };
        let mut judge = DoorTiers::new(ingress, subject, key, draft);
        let addresses: BTreeSet<_> = match changed {
            Some(changed) => changed.clone(),
            None => group.senders.iter().chain(self.senders.keys()).copied().collect(),
        };
        for address in addresses {
            let membership = self.senders.get(&address);
            if judge.put_sender(draft, address, membership) {
                group.senders.insert(address);
            } else {
                group.senders.remove(&address);
            }
        }
    }

    /// Puts the chains that judge at a pod's door.
    pub(super) fn judging(
        &self,
        world: &World,
        sides: &[Side; 2],
        pod: &Pod,
        door: &Door,
        draft: &mut Draft,
    ) -> DoorJudging {
        let [egress, ingress] = sides;
        let mut judging = DoorJudging::default();
        if !is_judged(world, pod, door) {
            return judging;
        }
        if let Some(subject) = egress.judged_pod(&pod.name) {
            let key = egress.group_key(subject);
            judging.egress = Some(DoorTiers::new(egress, subject, key, draft).put(draft));
            if !world.judges_own_node() {
                judging.to_node = DoorTiers::to_node(egress, subject, key).map(|mut judge| judge.put(draft));
            }
        }
        if let Some((subject, key)) = ingress.judged_pod(&pod.name).zip(self.of_pods.get(&pod.name)) {
            judging.ingress = Some(DoorTiers::new(ingress, subject, *key, draft).put(draft));
        }
        judging
    }
}

/// Whether packets come to a pod's door, or leave it, that the addresses in them do not decide.
fn is_judged(world: &World, pod: &Pod, door: &Door) -> bool {
    door.bridged || !world.allowed_sources(&pod.name.namespace).is_empty()
}
