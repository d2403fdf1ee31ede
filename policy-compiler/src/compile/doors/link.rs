//! What the addresses of a packet do not decide: who may send broadcast, multicast and link-local packets into an
//! isolated pod, and what an isolated pod may send from its link-local addresses.
//!
//! The connections of such packets are not tracked where they are judged, so a packet that passes lets the answers
//! to it pass the other way for a while ([`Statement::ExpectAnswer`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::compile::access::Access;
use crate::compile::counted::isolation_comment;
use crate::compile::draft::Draft;
use crate::compile::identity::Membership;
use crate::compile::rule::Crowd;
use crate::compile::shared_rules::{self, go, rule};
use crate::compile::side::subjects::Isolated;
use crate::compile::side::{Regranted, Side};
use crate::compile::world::World;
use crate::model::{Direction, Door, Doors, Family, ObjectName, Pod};
use crate::ruleset::{
    ChainId, ChainRole, Digest, Element, ElementKey, EtherType, Fields, FrameMatch, KeyType, LogEvent, Rule,
    SetId, SetKind, SetRole, Statement, Verdict,
};

/// What judges the packets of one direction at a door: a chain that returns for what it does not let pass, and one
/// where what is left goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Judging {
    admit: ChainId,
    rest: ChainId,
}

/// How a pod is isolated at its door.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Isolation {
    ingress: Option<Judging>,
    egress: Option<Judging>,
}

/// What is judged alike: pods that the same policies isolate, with the same numbers of named ports.
#[derive(Default)]
struct Group {
    pods: BTreeSet<ObjectName>,
    /// Where packets of each sender that is let in go on.
    senders: BTreeMap<IpAddr, ChainId>,
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
            let subject = ingress.isolated_pod(name).filter(|subject| {
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
                sending.push((address, Membership::of_one(ingress.members(world, address, pod))));
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
        let Some(subject) = group.pods.first().and_then(|pod| ingress.isolated_pod(pod)) else { return };
        for family in Family::BOTH {
            let kind = SetKind { key: KeyType::Address(family), interval: false, verdicts: true };
            draft.put_set(&senders(key, family), kind);
        }
        let addresses: BTreeSet<_> = match changed {
            Some(changed) => changed.clone(),
            None => group.senders.keys().chain(self.senders.keys()).copied().collect(),
        };
        for address in addresses {
            let membership = self.senders.get(&address);
            let access = membership.and_then(|membership| ingress.granted(subject, membership));
            let chain = access.map(|access| put_access(ingress, draft, &access));
            let (set, element) = (senders(key, Family::of(address)), ElementKey::Address(address));
            if let Some(chain) = chain {
                draft.put_element(&set, element, Element { target: Some(chain.clone()), comment: None });
                group.senders.insert(address, chain);
            } else if group.senders.remove(&address).is_some() {
                draft.remove_element(&set, element);
            }
        }
    }

    /// Puts the chains that judge at a pod's door.
    pub(super) fn isolation(
        &self,
        world: &World,
        sides: &[Side; 2],
        pod: &Pod,
        door: &Door,
        draft: &mut Draft,
    ) -> Isolation {
        let [egress, ingress] = sides;
        let mut isolation = Isolation::default();
        if !is_judged(world, pod, door) {
            return isolation;
        }
        if let Some(subject) = egress.isolated_pod(&pod.name) {
            let key = egress.group_key(subject);
            let admit = put_admitting(egress, draft, key, subject, false);
            isolation.egress = Some(Judging { admit, rest: put_rest(egress, draft, subject) });
        }
        if let Some((subject, key)) = ingress.isolated_pod(&pod.name).zip(self.of_pods.get(&pod.name)) {
            let admit = put_admitting(ingress, draft, *key, subject, true);
            isolation.ingress = Some(Judging { admit, rest: put_rest(ingress, draft, subject) });
        }
        isolation
    }
}

/// Whether packets come to a pod's door, or leave it, that the addresses in them do not decide.
fn is_judged(world: &World, pod: &Pod, door: &Door) -> bool {
    door.bridged || !world.allowed_sources(&pod.name.namespace).is_empty()
}

/// The senders that a group lets in.
fn senders(group: Digest, family: Family) -> SetId {
    SetRole::Link(Direction::Ingress, group, family).into()
}

fn is_answer() -> Statement {
    Statement::InSet(Fields::Tuple(Family::Ipv6), SetRole::Answers.into())
}

/// Makes sure of a chain that passes what `access` allows and returns for the rest.
fn put_access(side: &Side, draft: &mut Draft, access: &Access) -> ChainId {
    match access {
        Access::Everything(rule) => {
            put_rule(draft, rule);
            rule.clone()
        }
        Access::Ports(ports) => {
            for port in ports {
                put_rule(draft, port.rule());
            }
            let (content, map) = side.put_ports(draft, ports);
            let chain = ChainRole::Ports(side.direction(), content).into();
            draft.put_chain(
                &chain,
                None,
                vec![Rule::new([Statement::VerdictMap(Fields::ProtocolAndPort, map)])],
            );
            chain
        }
    }
}

/// Makes sure of a rule's chain, which counts what the rule lets pass.
fn put_rule(draft: &mut Draft, rule: &ChainId) {
    let count =
        Rule::new([Statement::Counter, Statement::Verdict(Verdict::Goto(ChainRole::LinkPass.into()))]);
    draft.put_chain(rule, None, vec![count]);
}

/// Makes sure of the chain that looks who is at the other end, a pod of the node or an address in a block.
fn put_admitting(side: &Side, draft: &mut Draft, key: Digest, subject: &Isolated, pods: bool) -> ChainId {
    let mut rules = Vec::new();
    for family in Family::BOTH {
        let peer = shared_rules::peer_field(side.direction(), family);
        if pods {
            rules.push(Rule::new([Statement::VerdictMap(peer, senders(key, family))]));
        }
        let blocks = side.granted_blocks(subject, family);
        if blocks.is_empty() {
            continue;
        }
        let elements: BTreeMap<_, _> = blocks
            .into_iter()
            .map(|(first, last, access)| {
                let target = Some(put_access(side, draft, &access));
                (ElementKey::AddressRange(first, last), Element { target, comment: None })
            })
            .collect();
        let map = SetRole::LinkBlocks(side.direction(), key, family).into();
        draft.put_set(&map, SetKind { key: KeyType::Address(family), interval: true, verdicts: true });
        draft.replace_elements(&map, elements);
        rules.push(Rule::new([Statement::VerdictMap(peer, map)]));
    }
    let chain = ChainRole::Link(side.direction(), key).into();
    draft.put_chain(&chain, None, rules);
    chain
}

/// Makes sure of the chain where packets go on whose other end no rule names: what is open to all, and the denial.
fn put_rest(side: &Side, draft: &mut Draft, subject: &Isolated) -> ChainId {
    let mut open = |crowd| {
        side.crowd_access(subject, crowd).map(|access| match access {
            Access::Everything(rule) => {
                put_rule(draft, &rule);
                Statement::Verdict(Verdict::Goto(rule))
            }
            Access::Ports(ports) => {
                for port in &ports {
                    put_rule(draft, port.rule());
                }
                Statement::VerdictMap(Fields::ProtocolAndPort, side.put_ports(draft, &ports).1)
            }
        })
    };
    let mut rules = Vec::new();
    rules.extend(open(Crowd::Everybody).map(|open| Rule::new([open])));
    if side.direction() == Direction::Ingress
        && let Some(open) = open(Crowd::Pods)
    {
        rules.extend(shared_rules::with_peers(side.direction(), SetRole::Pods, &open));
    }
    let audited = subject.audited;
    let (event, verdict) = if audited {
        (LogEvent::Audited, Verdict::Goto(ChainRole::LinkPass.into()))
    } else {
        (LogEvent::Denied, Verdict::Drop)
    };
    rules.push(shared_rules::log(side.direction(), event));
    let rest = Rule::new([Statement::Counter, Statement::Verdict(verdict)]);
    let policies = || subject.policies.iter().map(|policy| &policy.name);
    rules.push(rest.comment(isolation_comment(audited, policies())));
    let policies = policies().map(ToString::to_string);
    let group = Digest::of(rules.iter().map(ToString::to_string).chain(policies));
    let name = ChainRole::Isolation { direction: side.direction(), audited, group }.into();
    draft.put_chain(&name, None, rules);
    name
}

impl Isolation {
    /// What becomes of packets that leave the door with a source that the other table does not know as the pod's.
    pub(super) fn out_of_door(&self, source: &Statement) -> Vec<Rule> {
        let go = |verdict| Rule::new([source.clone(), Statement::Verdict(verdict)]);
        match (&self.egress, &self.ingress) {
            (None, None) => vec![go(Verdict::Accept)],
            (None, Some(_)) => vec![go(Verdict::Goto(ChainRole::LinkPass.into()))],
            (Some(Judging { admit, rest }), _) => {
                let answer = Rule::new([source.clone(), is_answer(), Statement::Verdict(Verdict::Accept)]);
                vec![answer, go(Verdict::Jump(admit.clone())), go(Verdict::Goto(rest.clone()))]
            }
        }
    }

    /// What every frame meets that goes into the door; `None` where none has to.
    ///
    /// Packets to the pod's own addresses are judged in the other table, which knows their connections.
    pub(super) fn at_entry(&self, door: &Door, addresses: &[IpAddr]) -> Option<Vec<Rule>> {
        if self.ingress.is_none() && self.egress.is_none() {
            return None;
        }
        let to_pod =
            addresses.iter().map(|address| rule([FrameMatch::Destination(*address)], Verdict::Accept));
        let mut rules: Vec<_> = to_pod.collect();
        rules.push(rule([FrameMatch::Protocol(EtherType::Arp)], Verdict::Accept));
        if let Some(own) = door.link_address {
            rules.push(rule([FrameMatch::From(own)], Verdict::Accept));
            // A bridge that has forgotten where somebody is asks at all of its ports.
            rules.push(rule([FrameMatch::NotTo(own), FrameMatch::Unicast], Verdict::Drop));
        }
        rules.push(go(Verdict::Jump(ChainRole::LinkAlways.into())));
        match &self.ingress {
            Some(Judging { admit, rest }) => {
                rules.push(go(Verdict::Jump(admit.clone())));
                rules.push(go(Verdict::Goto(rest.clone())));
            }
            None => rules.push(go(Verdict::Goto(ChainRole::LinkPass.into()))),
        }
        Some(rules)
    }
}
