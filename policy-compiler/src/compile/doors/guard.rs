//! What may leave a door: frames of the pod behind it, and of nobody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::device_chain;
use super::judging::DoorJudging;
use crate::compile::counted::{comment, spoofed_comment};
use crate::compile::draft::Draft;
use crate::compile::ranges;
use crate::compile::shared_rules::{go, rule};
use crate::compile::world::World;
use crate::model::{Door, Doors, Family, LinkAddress, Pod, Tunnel};
use crate::ruleset::{
    ChainId, DevicePart, Digest, Element, EtherType, Fields, FrameMatch, Hook, ICMP6, KeyType,
    LISTENER_QUERY, LogPrefix, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, REDIRECT,
    ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION, Rule, SetId, SetKind, SetRole, SpoofReason, Statement,
    Verdict,
};

/// A pod's door, and all that decides about what may pass it.
pub(super) struct AtDoor<'a> {
    pod: &'a Pod,
    door: &'a Door,
    doors: &'a Doors,
    judging: &'a DoorJudging,
    /// The pod's own addresses.
    addresses: Vec<IpAddr>,
    /// The sources that its namespace allows besides.
    sources: &'a [IpNet],
    /// Whether policies judge what the pod sends to its node.
    own_node_judged: bool,
}

/// A base chain: its name, its hook and its rules.
pub(super) type Base = (ChainId, Hook, Vec<Rule>);

impl<'a> AtDoor<'a> {
    pub(super) fn new(
        world: &'a World,
        pod: &'a Pod,
        door: &'a Door,
        doors: &'a Doors,
        judging: &'a DoorJudging,
    ) -> Self {
        let addresses = world.addresses(pod).collect();
        let sources = world.allowed_sources(&pod.name.namespace);
        let own_node_judged = world.judges_own_node();
        Self { pod, door, doors, judging, addresses, sources, own_node_judged }
    }

    /// Puts the chains of the door, and returns its base chains.
    pub(super) fn put(&self, draft: &mut Draft) -> Vec<Base> {
        let own = self.put_sources(draft);
        draft.put_chain(&self.chain(DevicePart::DoorRest), None, self.rest(&own));
        draft.put_chain(&elsewhere_chain(self.door), None, self.elsewhere());
        draft.put_chain(&self.chain(DevicePart::DoorOwn6), None, self.own6(&own));
        draft.put_chain(&self.chain(DevicePart::DoorSpeaks), None, self.speaks());
        draft.put_chain(&self.chain(DevicePart::DoorDiscovery), None, self.discovery());
        if !self.doors.tunnels.is_empty() {
            let rules = self.drop_spoofed(&[], SpoofReason::Tunnel);
            draft.put_chain(&self.chain(DevicePart::DoorTunnel), None, rules);
        }
        let device = &self.door.device;
        let out = (self.chain(DevicePart::Door), Hook::Ingress(device.clone()), self.out(&own));
        let into = self.judging.at_entry(self.door, &self.addresses);
        let into = into.map(|rules| (self.chain(DevicePart::Into), Hook::Egress(device.clone()), rules));
        std::iter::once(out).chain(into).collect()
    }

    fn chain(&self, part: DevicePart) -> ChainId {
        device_chain(part, &self.door.device)
    }

    /// What every frame that leaves the door meets first; most need no more.
    fn out(&self, sources: &[(Family, SetId)]) -> Vec<Rule> {
        let mut rules = self.frames_of_others();
        rules.extend(self.doors.tunnels.iter().map(|tunnel| {
            let encapsulated = match *tunnel {
                Tunnel::Udp(port) => FrameMatch::UdpTo(port).into(),
                Tunnel::Protocol(number) => Statement::Transport(number),
            };
            rule([encapsulated], Verdict::Goto(self.chain(DevicePart::DoorTunnel)))
        }));
        let header = |kind| self.header(kind);
        rules.extend(self.addresses4().map(|address| {
            rule([header(EtherType::Ipv4), FrameMatch::SourceOfIpv4(address)], Verdict::Accept)
        }));
        rules.extend(self.let_sources_pass(sources, Family::Ipv4));
        let icmp6 = [header(EtherType::Ipv6).into(), Statement::Transport(ICMP6)];
        rules.push(rule(icmp6, Verdict::Goto(self.chain(DevicePart::DoorDiscovery))));
        rules.push(rule([header(EtherType::Ipv6)], Verdict::Goto(self.chain(DevicePart::DoorOwn6))));
        let rest = go(Verdict::Goto(self.chain(DevicePart::DoorRest)));
        rules.push(rest.comment(comment(&self.pod.name.to_string())));
        rules
    }

    /// The pod's own IPv4 addresses.
    fn addresses4(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    }

    /// The link address that frames must come from. On a routed link it means nothing to others, and a virtual machine
    /// in the pod may have another one than the pod's device.
    fn bridged_link_address(&self) -> Option<LinkAddress> {
        self.door.link_address.filter(|_| self.door.bridged)
    }

    /// Where the link address of a pod at a bridge is unknown, its frames must at least not be another's.
    fn frames_of_others(&self) -> Vec<Rule> {
        if !is_loose(self.door) {
            return Vec::new();
        }
        let others = self.doors.of_pods.values().filter_map(|door| door.link_address);
        let drop = |address| self.drop_spoofed(&[FrameMatch::From(address).into()], SpoofReason::LinkAddress);
        others.flat_map(drop).collect()
    }

    /// The frame is the pod's and carries this. At a bridge it has no tag: others would strip it. On a routed link only
    /// the node does, whose policies then judge the packet as any other.
    fn header(&self, kind: EtherType) -> FrameMatch {
        match (self.door.bridged, self.door.link_address) {
            (true, Some(address)) => FrameMatch::Header(address, kind),
            (true, None) => FrameMatch::Type(kind),
            (false, _) => FrameMatch::Protocol(kind),
        }
    }

    /// What is IPv6 and no discovery: the pod's own sources pass. What comes from a link-local one is judged here if
    /// the pod is isolated, since the other table does not know whose it is.
    fn own6(&self, sources: &[(Family, SetId)]) -> Vec<Rule> {
        let own = self.addresses.iter().filter(|address| address.is_ipv6());
        let mut rules: Vec<_> =
            own.map(|address| rule([FrameMatch::Source(*address)], Verdict::Accept)).collect();
        for address in &self.door.link_local {
            let source = FrameMatch::Source((*address).into());
            rules.push(rule([source.into(), Statement::Dhcp(Family::Ipv6)], Verdict::Accept));
            if !self.own_node_judged {
                let to_node =
                    Statement::InSet(Fields::Destination(Family::Ipv6), SetRole::NodeLinkLocal.into());
                rules.extend(self.judging.to_node(&[source.into(), to_node]));
            }
            rules.extend(self.judging.out_of_door(&source.into()));
        }
        rules.extend(self.let_sources_pass(sources, Family::Ipv6));
        rules.push(go(Verdict::Goto(self.chain(DevicePart::DoorRest))));
        rules
    }

    /// Neighbour discovery speaks for the pod's own addresses, and for no router. Multicast listener discovery, and
    /// whatever else is `ICMPv6`.
    fn discovery(&self) -> Vec<Rule> {
        let unspecified = FrameMatch::Source(Ipv6Addr::UNSPECIFIED.into());
        let speaks = || Verdict::Goto(self.chain(DevicePart::DoorSpeaks));
        let one = |kind| Statement::Icmp6(kind, kind);
        let drop = |matches: &[Statement]| self.drop_spoofed(matches, SpoofReason::NeighbourDiscovery);
        let mut rules = [ROUTER_ADVERTISEMENT, REDIRECT].map(|kind| drop(&[one(kind)])).concat();
        for target in self.targets() {
            rules.push(rule([FrameMatch::Neighbour(NEIGHBOUR_ADVERTISEMENT, target)], speaks()));
            // Duplicate address detection.
            let solicitation = FrameMatch::Neighbour(NEIGHBOUR_SOLICITATION, target);
            rules.push(rule([unspecified, solicitation], Verdict::Accept));
        }
        rules.extend(drop(&[one(NEIGHBOUR_ADVERTISEMENT)]));
        rules.extend(drop(&[unspecified.into(), one(NEIGHBOUR_SOLICITATION)]));
        for asks in [Statement::Icmp6(LISTENER_QUERY, ROUTER_SOLICITATION), Statement::LISTENER_REPORT] {
            rules.push(rule([unspecified.into(), asks], Verdict::Accept));
        }
        for discovery in [Statement::Icmp6(LISTENER_QUERY, REDIRECT), Statement::LISTENER_REPORT] {
            rules.push(rule([discovery], speaks()));
        }
        rules.push(go(Verdict::Goto(self.chain(DevicePart::DoorOwn6))));
        rules
    }

    /// Discovery passes from every source that is the pod's.
    fn speaks(&self) -> Vec<Rule> {
        let own = self.targets().map(|own| rule([FrameMatch::Source(own.into())], Verdict::Accept));
        own.chain([go(Verdict::Goto(self.chain(DevicePart::DoorRest)))]).collect()
    }

    /// The addresses for which the pod may speak.
    fn targets(&self) -> impl Iterator<Item = Ipv6Addr> {
        let own = self.addresses.iter().filter_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        });
        own.chain(self.door.link_local.iter().copied())
    }

    /// What few frames are: those of a pod without an address, ARP, and what must not leave the door, by reason.
    fn rest(&self, sources: &[(Family, SetId)]) -> Vec<Rule> {
        let mut rules = Vec::new();
        if let Some(address) = self.bridged_link_address() {
            rules.extend(self.drop_spoofed(&[FrameMatch::NotFrom(address).into()], SpoofReason::LinkAddress));
        }
        for tag in [EtherType::VlanTag, EtherType::ServiceTag] {
            rules.extend(self.drop_spoofed(&[FrameMatch::Type(tag).into()], SpoofReason::Tag));
        }
        let unspecified = FrameMatch::Source(Ipv4Addr::UNSPECIFIED.into());
        let broadcast = FrameMatch::Destination(Ipv4Addr::BROADCAST.into());
        if let Some(address) = self.bridged_link_address() {
            rules.extend(self.drop_spoofed(&[FrameMatch::NotArpFrom(address).into()], SpoofReason::Arp));
        }
        rules.push(rule([unspecified.into(), Statement::GROUP_MANAGEMENT], Verdict::Accept));
        let dhcp = [unspecified.into(), broadcast.into(), Statement::Dhcp(Family::Ipv4)];
        rules.push(rule(dhcp, Verdict::Accept));
        for address in self.addresses4().chain([Ipv4Addr::UNSPECIFIED]) {
            rules.push(rule([FrameMatch::ArpSource(address)], Verdict::Accept));
        }
        for (_, set) in sources.iter().filter(|(family, _)| *family == Family::Ipv4) {
            let in_set = Statement::InSet(Fields::ArpSource, set.clone());
            rules.push(Rule::new([in_set, Statement::Verdict(Verdict::Accept)]));
        }
        for (kind, reason) in [
            (EtherType::Ipv4, SpoofReason::Source),
            (EtherType::Ipv6, SpoofReason::Source),
            (EtherType::Arp, SpoofReason::Arp),
        ] {
            rules.extend(self.drop_spoofed(&[FrameMatch::Protocol(kind).into()], reason));
        }
        rules.extend(self.drop_spoofed(&[], SpoofReason::EtherType));
        rules
    }

    /// What comes in with a source of the pod at a device that is no pod's.
    ///
    /// The door itself is such a device until the pod is known. The chain that it had as one is deleted behind the
    /// change ([`in_steps`](crate::ruleset::in_steps)), so packets may still traverse that while the address is here.
    fn elsewhere(&self) -> Vec<Rule> {
        let at_door = Statement::InputDevice(self.door.device.clone());
        let mut rules = vec![rule([at_door], Verdict::Accept)];
        rules.extend(self.drop_spoofed(&[], SpoofReason::Elsewhere));
        rules
    }

    fn drop_spoofed(&self, matches: &[Statement], reason: SpoofReason) -> Vec<Rule> {
        drop_spoofed(matches, reason, &self.pod.name.to_string())
    }

    /// Makes sure of the sets of sources that the namespace allows.
    fn put_sources(&self, draft: &mut Draft) -> Vec<(Family, SetId)> {
        let ranges = ranges::of_networks(self.sources);
        let mut sets = Vec::new();
        for family in Family::BOTH {
            let keys: Vec<_> = ranges::elements(&ranges, family).collect();
            if keys.is_empty() {
                continue;
            }
            let name = SetRole::Sources(Digest::of(keys.iter().map(ToString::to_string))).into();
            draft.put_set(&name, SetKind { key: KeyType::Address(family), interval: true, verdicts: false });
            draft.replace_elements(&name, keys.into_iter().map(|key| (key, Element::BARE)).collect());
            sets.push((family, name));
        }
        sets
    }

    /// Lets the sources of the namespace pass, judged where the pod is isolated: the other table takes them for
    /// somebody else's.
    fn let_sources_pass(&self, sources: &[(Family, SetId)], of: Family) -> Vec<Rule> {
        let sets = sources.iter().filter(|(family, _)| *family == of);
        sets.flat_map(|(family, set)| {
            let source = Statement::InSet(Fields::Source(*family), set.clone());
            self.judging.out_of_door(&source)
        })
        .collect()
    }
}

/// Whether a door is at a bridge and its pod's link address is unknown.
pub(super) fn is_loose(door: &Door) -> bool {
    door.bridged && door.link_address.is_none()
}

/// Where packets go on that come in elsewhere with the source of the pod that has this door.
pub(super) fn elsewhere_chain(door: &Door) -> ChainId {
    device_chain(DevicePart::DoorElsewhere, &door.device)
}

/// Drops for a reason what matches, and logs some of it.
pub(super) fn drop_spoofed(matches: &[Statement], reason: SpoofReason, pod: &str) -> Vec<Rule> {
    let matches = || matches.iter().cloned();
    let log = matches().chain([Statement::WithinLogRate, Statement::Log(LogPrefix::Spoofed(reason))]);
    let drop = matches().chain([Statement::Counter, Statement::Verdict(Verdict::Drop)]);
    vec![
        Rule::new(log.collect::<Vec<_>>()),
        Rule::new(drop.collect::<Vec<_>>()).comment(spoofed_comment(reason, pod)),
    ]
}
