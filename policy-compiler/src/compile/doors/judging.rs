//! What judges packets at a door: chains for who is at the other end, and for the rest.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::compile::draft::Draft;
use crate::compile::group::Group;
use crate::compile::identity::{Holder, Membership};
use crate::compile::ranges;
use crate::compile::shared_rules::{self, go, rule};
use crate::compile::side::Side;
use crate::compile::side::subjects::Judged;
use crate::compile::verdicts::{self, Rest};
use crate::model::{Direction, Door, Family};
use crate::ruleset::{
    ChainId, ChainRole, Digest, Element, ElementKey, EtherType, Fields, FrameMatch, KeyType, Rule, SetId,
    SetKind, SetRole, Statement, Verdict,
};

/// What judges the packets of one direction at a door: a chain that looks who is at the other end and returns where that
/// decides nothing, and one where what is left goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judging {
    admit: ChainId,
    rest: ChainId,
}

/// How a pod is judged at its door.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DoorJudging {
    pub(super) ingress: Option<Judging>,
    pub(super) egress: Option<Judging>,
    /// What judges what it sends to its node, where NetworkPolicies leave that alone and ClusterNetworkPolicies do not.
    pub(super) to_node: Option<Judging>,
}

/// The rules that judge a group of pods in one direction at their doors.
pub(super) struct DoorTiers<'a> {
    side: &'a Side,
    pod: &'a Judged,
    key: Digest,
    group: Group<'a>,
    /// Who has an address at the other end of which the table knows nothing.
    unknown: Holder,
}

impl<'a> DoorTiers<'a> {
    /// Those that judge what is not for the own node. `key` stands for the group.
    pub(super) fn new(side: &'a Side, pod: &'a Judged, key: Digest, draft: &mut Draft) -> Self {
        let policies: Vec<_> = pod.policies.iter().map(|policy| &policy.name).collect();
        let isolation = pod
            .is_isolated()
            .then(|| verdicts::put_isolation(draft, side.direction(), pod.audited, Vec::new(), &policies));
        let rest = Rest { isolation, ..Rest::NONE };
        // Of destinations the table does not know which are pods.
        let unknown = match side.direction() {
            Direction::Ingress => Holder::Outsider,
            Direction::Egress => Holder::Unknown,
        };
        let group = Group::new(side.direction(), side.tiers_at_door(pod, false), rest, unknown);
        Self { side, pod, key, group, unknown }
    }

    /// Those that judge what the pods send to their own node, where NetworkPolicies leave that alone; `None` if no
    /// `ClusterNetworkPolicy` does not.
    pub(super) fn to_node(egress: &'a Side, pod: &'a Judged, key: Digest) -> Option<Self> {
        let key = Digest::of([format!("{key} to node")]);
        let (tiers, unknown) = (egress.tiers_at_door(pod, true), Holder::Outsider);
        let group = Group::new(egress.direction(), tiers, Rest::NONE, unknown);
        pod.has_tiers().then_some(Self { side: egress, pod, key, group, unknown })
    }

    fn direction(&self) -> Direction {
        self.side.direction()
    }

    /// Puts a sender into the map of those to whom something else applies than to all pods, or takes it out; whether it is
    /// in.
    pub(super) fn put_sender(
        &mut self,
        draft: &mut Draft,
        address: IpAddr,
        membership: Option<&Membership>,
    ) -> bool {
        let family = Family::of(address);
        let (map, key) = (self.senders(family), ElementKey::Address(address));
        draft.put_set(&map, SetKind { key: KeyType::Address(family), interval: false, verdicts: true });
        let target = membership.and_then(|sender| self.group.judging(draft, sender, family));
        let is_in = target.is_some();
        if is_in {
            draft.put_element(&map, key, Element { target, comment: None });
        } else {
            draft.remove_element(&map, key);
        }
        is_in
    }

    /// The senders to whom something else applies than to all pods.
    fn senders(&self, family: Family) -> SetId {
        SetRole::Link(Direction::Ingress, self.key, family).into()
    }

    /// Makes sure of the chains.
    pub(super) fn put(&mut self, draft: &mut Draft) -> Judging {
        let admit = self.put_admitting(draft);
        // The table knows from which pods packets come, and not to which they go.
        let rest = self.group.put_unnamed(draft, self.direction() == Direction::Ingress);
        Judging { admit, rest: rest.unwrap_or_else(|| ChainRole::LinkPass.into()) }
    }

    /// Makes sure of the chain that looks who is at the other end, a pod of the node or an address in a block.
    fn put_admitting(&mut self, draft: &mut Draft) -> ChainId {
        let mut rules = Vec::new();
        for family in Family::BOTH {
            let peer = shared_rules::peer_field(self.direction(), family);
            let address = SetKind { key: KeyType::Address(family), interval: false, verdicts: true };
            if self.direction() == Direction::Ingress {
                draft.put_set(&self.senders(family), address);
                rules.push(Rule::new([Statement::VerdictMap(peer, self.senders(family))]));
            }
            let blocks = self.blocks(draft, family);
            if blocks.is_empty() {
                continue;
            }
            let map = SetRole::LinkBlocks(self.direction(), self.key, family).into();
            draft.put_set(&map, SetKind { interval: true, ..address });
            draft.replace_elements(&map, blocks);
            rules.push(Rule::new([Statement::VerdictMap(peer, map)]));
        }
        let chain = ChainRole::Link(self.direction(), self.key).into();
        draft.put_chain(&chain, None, rules);
        chain
    }

    /// The blocks to which something else applies than to an address of which nothing is known.
    fn blocks(&mut self, draft: &mut Draft, family: Family) -> BTreeMap<ElementKey, Element> {
        let unknown = self.unknown;
        let apart = if unknown == Holder::Unknown { never_of_pods(family) } else { Vec::new() };
        let mut elements = BTreeMap::new();
        for (range, is_apart, sets) in self.side.blocks(self.pod, family, apart) {
            let holder = if is_apart { Holder::Outsider } else { unknown };
            let target = self.group.judging_block(draft, &Membership::in_blocks(sets, holder), family);
            if target.is_some() {
                let key = ElementKey::AddressRange(*range.start(), *range.end());
                elements.insert(key, Element { target, comment: None });
            }
        }
        elements
    }
}

/// Whether the packet answers one that has passed a door.
pub(super) fn is_answer() -> Statement {
    Statement::InSet(Fields::Tuple(Family::Ipv6), SetRole::Answers.into())
}

/// Destinations that no pod has: multicast and broadcast.
fn never_of_pods(family: Family) -> Vec<RangeInclusive<IpAddr>> {
    let networks: &[&str] = match family {
        Family::Ipv4 => &["224.0.0.0/4", "255.255.255.255/32"],
        Family::Ipv6 => &["ff00::/8"],
    };
    networks.iter().filter_map(|network| network.parse().ok()).map(ranges::of_network).collect()
}

impl Judging {
    /// Has packets judged that these statements match.
    fn judge(&self, matches: &[Statement]) -> [Rule; 2] {
        [Verdict::Jump(self.admit.clone()), Verdict::Goto(self.rest.clone())].map(|verdict| {
            Rule::new(matches.iter().cloned().chain([Statement::Verdict(verdict)]).collect::<Vec<_>>())
        })
    }
}

impl DoorJudging {
    /// What becomes of packets that leave the door with a source that the other table does not know as the pod's.
    pub(super) fn out_of_door(&self, source: &Statement) -> Vec<Rule> {
        let go = |verdict| Rule::new([source.clone(), Statement::Verdict(verdict)]);
        match (&self.egress, &self.ingress) {
            (None, None) => vec![go(Verdict::Accept)],
            (None, Some(_)) => vec![go(Verdict::Goto(ChainRole::LinkPass.into()))],
            (Some(judging), _) => {
                let answer = Rule::new([source.clone(), is_answer(), Statement::Verdict(Verdict::Accept)]);
                std::iter::once(answer).chain(judging.judge(std::slice::from_ref(source))).collect()
            }
        }
    }

    /// What becomes of packets to the own node that these statements match, where NetworkPolicies leave them alone.
    pub(super) fn to_node(&self, matches: &[Statement]) -> Vec<Rule> {
        let with = |last: &[Statement]| Rule::new([matches, last].concat());
        match &self.to_node {
            None => vec![with(&[Statement::Verdict(Verdict::Accept)])],
            Some(judging) => {
                let answer = with(&[is_answer(), Statement::Verdict(Verdict::Accept)]);
                std::iter::once(answer).chain(judging.judge(matches)).collect()
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
            Some(judging) => rules.extend(judging.judge(&[])),
            None => rules.push(go(Verdict::Goto(ChainRole::LinkPass.into()))),
        }
        Some(rules)
    }
}
