//! What the kernel enforces, read from the kernel alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::AddAssign;

use podfence_cni::state::RESTORED_CHAIN;
use policy_compiler::compile::Counted;
use policy_compiler::model::{Direction, ObjectName};
use policy_compiler::ruleset::{ChainId, ChainRole, Element, ElementKey, Hook, SetRole};
use serde::Serialize;

use crate::kernel::{self, Chain, Counter, Place, Table, Tables};

/// Everything that `podfence-controller status` says.
#[derive(Debug, Default, Serialize)]
pub struct Status {
    /// Whether there is a table at all.
    pub enforced: bool,
    /// When the saved state was current that the table was restored from when the node booted; `None` if the table is
    /// that of an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<String>,
    /// Pods that the same policies isolate.
    pub groups: Vec<Group>,
    /// The rules of the policies that isolate a pod of this node.
    pub rules: Vec<Rule>,
    /// The rules of ClusterNetworkPolicies that apply to a pod of this node.
    pub tiers: Vec<TierRule>,
    /// What was denied of flows that conntrack does not track, so that answers may be among it.
    pub untracked: Vec<Dropped>,
    /// What strict start has dropped, if it is on.
    pub strict_start: Vec<Dropped>,
    /// The pods of this node whose doors are guarded; `None` if no doors are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doors: Option<Vec<Door>>,
    /// The pods of this node whose doors are unknown; `None` if no doors are guarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_door: Option<Vec<Pod>>,
}

/// A pod's door: the node's end of its link.
#[derive(Debug, Serialize)]
pub struct Door {
    /// `namespace/name`
    pub pod: String,
    /// The device.
    pub device: String,
    /// What was dropped there because it is not the pod's own, by reason.
    pub spoofed: BTreeMap<&'static str, Traffic>,
}

/// Pods that the same policies isolate in a direction.
#[derive(Debug, Serialize)]
pub struct Group {
    /// `ingress` or `egress`
    pub direction: &'static str,
    /// The policies, as the table's comment names them: `isolated by NAMESPACE/POLICY, …`.
    pub isolation: String,
    /// The pods.
    pub pods: Vec<Pod>,
    /// What was denied, or if it is `audited`, would have been.
    pub denied: Traffic,
    /// Whether all of the policies are in audit mode, so that it passed.
    pub audited: bool,
}

/// A pod's address.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pod {
    /// `namespace/name`
    pub name: String,
    /// One of its addresses.
    pub address: String,
}

/// A rule of a policy.
#[derive(Debug, Serialize)]
pub struct Rule {
    /// `namespace/name` of the policy.
    pub policy: String,
    /// `ingress` or `egress`
    pub direction: &'static str,
    /// The rule's index in that direction.
    pub rule: usize,
    /// The connections that it let through: only their first packet meets the rule.
    pub allowed: Traffic,
}

/// A rule of a `ClusterNetworkPolicy`.
#[derive(Debug, Serialize)]
pub struct TierRule {
    /// `Admin` or `Baseline`
    pub tier: &'static str,
    /// The policy.
    pub policy: String,
    /// `ingress` or `egress`
    pub direction: &'static str,
    /// The rule's index in that direction.
    pub rule: usize,
    /// What became of the packets: `accept`, `deny`, `pass`, or `audit` if they would have been denied.
    pub action: &'static str,
    /// The packets that the rule covered. Of a connection that it let through that is the first one.
    pub covered: Traffic,
}

impl TierRule {
    /// What tells it from others.
    fn key(&self) -> (&str, &str, &str, usize, &str) {
        (self.tier, &self.policy, self.direction, self.rule, self.action)
    }
}

/// What was dropped in a direction, of all pods together.
#[derive(Debug, Serialize)]
pub struct Dropped {
    /// `ingress` or `egress`
    pub direction: &'static str,
    /// The packets.
    pub denied: Traffic,
}

impl Dropped {
    fn by(direction: Direction, chain: &Chain) -> Self {
        Self { direction: direction.as_str(), denied: chain.counter().into() }
    }
}

/// What a counter has counted.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl From<Counter> for Traffic {
    fn from(counter: Counter) -> Self {
        Self { packets: counter.packets, bytes: counter.bytes }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

impl Status {
    /// Reads the tables.
    pub fn of(tables: &Tables) -> Self {
        let mut status = tables.policies.as_ref().map_or_else(Self::default, Self::of_policies);
        if let Some(doors) = &tables.doors {
            status.add_doors(doors);
        }
        status
    }

    fn of_policies(table: &Table) -> Self {
        let mut members = members(table);
        let mut status = Self { enforced: true, ..Self::default() };
        for (name, chain) in &table.chains {
            let comment = chain.rules.iter().find_map(|rule| rule.comment.as_deref());
            if name.name() == RESTORED_CHAIN {
                status.restored = Some(comment.unwrap_or("an unknown time").to_owned());
            }
            match Counted::by(name, comment) {
                Some(counted @ (Counted::Denied { direction, .. } | Counted::Audited { direction, .. })) => {
                    let audited = matches!(counted, Counted::Audited { .. });
                    status.groups.push(Group {
                        direction: direction.as_str(),
                        isolation: comment.unwrap_or(name.name()).to_owned(),
                        pods: members.remove(name).unwrap_or_default().into_iter().collect(),
                        denied: chain.counter().into(),
                        audited,
                    });
                }
                Some(Counted::Allowed { direction, policy, rule }) => status.rules.push(Rule {
                    policy: policy.to_string(),
                    direction: direction.as_str(),
                    rule,
                    allowed: chain.counter().into(),
                }),
                Some(Counted::Tier { .. }) => status.count_tier_rule(name, chain),
                Some(Counted::Untracked(direction)) => status.untracked.push(Dropped::by(direction, chain)),
                Some(Counted::StrictStart(direction)) => {
                    status.strict_start.push(Dropped::by(direction, chain));
                }
                Some(Counted::Spoofed { .. }) | None => {}
            }
        }
        status.tiers.sort_by(|one, other| one.key().cmp(&other.key()));
        status.rules.sort_by(|one, other| {
            (&one.policy, one.direction, one.rule).cmp(&(&other.policy, other.direction, other.rule))
        });
        status
    }

    /// Adds what a chain has counted of a rule of a tier.
    fn count_tier_rule(&mut self, name: &ChainId, chain: &Chain) {
        let Some(Counted::Tier { direction, tier, policy, rule, effect }) = Counted::by(name, None) else {
            return;
        };
        let counted = TierRule {
            tier: tier.as_str(),
            policy: policy.to_string(),
            direction: direction.as_str(),
            rule,
            action: effect.as_str(),
            covered: chain.counter().into(),
        };
        match self.tiers.iter_mut().find(|known| known.key() == counted.key()) {
            Some(known) => known.covered += counted.covered,
            None => self.tiers.push(counted),
        }
    }

    /// Adds what the table of devices has.
    fn add_doors(&mut self, table: &Table) {
        let mut spoofed: BTreeMap<String, BTreeMap<&'static str, Traffic>> = BTreeMap::new();
        for (name, chain) in &table.chains {
            let comment = chain.rules.iter().find_map(|rule| rule.comment.as_deref());
            match Counted::by(name, comment) {
                Some(Counted::Denied { direction, .. } | Counted::Audited { direction, .. }) => {
                    let isolation = comment.unwrap_or(name.name());
                    let alike = |group: &&mut Group| {
                        group.direction == direction.as_str() && group.isolation == isolation
                    };
                    if let Some(group) = self.groups.iter_mut().find(alike) {
                        group.denied += chain.counter().into();
                    }
                }
                Some(Counted::Allowed { direction, policy, rule }) => {
                    let policy = policy.to_string();
                    let alike = |known: &&mut Rule| {
                        (&known.policy, known.direction, known.rule) == (&policy, direction.as_str(), rule)
                    };
                    if let Some(known) = self.rules.iter_mut().find(alike) {
                        known.allowed += chain.counter().into();
                    }
                }
                Some(Counted::Tier { .. }) => self.count_tier_rule(name, chain),
                Some(Counted::Spoofed { .. } | Counted::Untracked(_) | Counted::StrictStart(_)) | None => {}
            }
            for rule in &chain.rules {
                let Some(counter) = rule.counter else { continue };
                let what = Counted::by(name, rule.comment.as_deref());
                if let Some(Counted::Spoofed { reason, pod }) = what {
                    let of_pod = spoofed.entry(pod).or_default();
                    *of_pod.entry(reason.as_str()).or_default() += counter.into();
                }
            }
        }
        let mut doors = Vec::new();
        for (_, chain) in table.chains.iter().filter(|(chain, _)| chain.role().is_door()) {
            let (Place::Hook(Hook::Ingress(device)), Some(pod)) =
                (&chain.place, chain.rules.last().and_then(|rule| rule.comment.as_deref()))
            else {
                continue;
            };
            let of_pod = spoofed.remove(pod).unwrap_or_default();
            let counted = of_pod.into_iter().filter(|(_, traffic)| traffic.packets > 0).collect();
            doors.push(Door { pod: pod.to_owned(), device: device.to_string(), spoofed: counted });
        }
        doors.sort_by(|one: &Door, other| one.pod.cmp(&other.pod));
        self.doors = Some(doors);
        self.without_door = Some(pods_without_door(table).into_iter().collect());
    }
}

/// The pods in the sets of those without doors. The comments of the elements name them.
fn pods_without_door(table: &Table) -> BTreeSet<Pod> {
    let sets = table.sets.iter().filter(|(set, _)| matches!(set.role(), SetRole::WithoutDoor(_)));
    let elements = sets.flat_map(|(_, set)| set).flat_map(|set| &set.elements);
    elements.filter_map(|(key, element)| pod(*key, element)).collect()
}

/// The pod that an element names.
fn pod(key: ElementKey, element: &Element) -> Option<Pod> {
    let ElementKey::Address(address) = key else { return None };
    Some(Pod { name: element.comment.as_ref()?.to_string(), address: address.to_string() })
}

/// The names of the pods that a table isolates, each with the direction. Those that are only audited are not among them.
pub(crate) fn isolated_pods(table: &Table) -> impl Iterator<Item = (ObjectName, Direction)> {
    members(table).into_iter().flat_map(|(chain, pods)| {
        let direction = match Counted::by(&chain, None) {
            Some(Counted::Denied { direction, .. }) => Some(direction),
            _ => None,
        };
        let named = |pod: Pod| {
            // An address that several pods show names them all.
            let names = pod.name.split(", ").filter_map(|name| name.split_once('/'));
            names.map(|(namespace, name)| ObjectName::new(namespace, name)).collect::<Vec<_>>()
        };
        let pods = pods.into_iter().flat_map(named);
        pods.filter_map(move |pod| Some((pod, direction?))).collect::<Vec<_>>()
    })
}

/// The pods by the chain that isolates them.
fn members(table: &Table) -> BTreeMap<ChainId, BTreeSet<Pod>> {
    let mut members: BTreeMap<ChainId, BTreeSet<Pod>> = BTreeMap::new();
    let elements = table.sets.values().flatten().flat_map(|set| &set.elements);
    for (key, element) in elements {
        if let (Some(chain), Some(pod)) = (&element.target, pod(*key, element)) {
            members.entry(isolating(table, chain).clone()).or_default().insert(pod);
        }
    }
    members
}

/// The chain that isolates pods which go into `chain`: look-ups for a group of subjects may stand before it.
fn isolating<'a>(table: &'a Table, chain: &'a ChainId) -> &'a ChainId {
    match chain.role() {
        ChainRole::Subject(..) => {
            let last = table.chains.get(chain).and_then(|chain| chain.rules.last());
            last.and_then(kernel::Rule::leads_to).unwrap_or(chain)
        }
        _ => chain,
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.enforced {
            return writeln!(
                f,
                "Nothing is enforced: there is no table `inet podfence` in this network namespace."
            );
        }
        if let Some(saved) = &self.restored {
            writeln!(
                f,
                "Enforcing the state of {saved}: no agent has known the objects since the node booted."
            )?;
        }
        if self.groups.is_empty() {
            writeln!(f, "No pod of this node is isolated.")?;
        }
        for group in &self.groups {
            let Traffic { packets, bytes } = group.denied;
            let denied = if group.audited { "would have denied" } else { "denied" };
            let Group { direction, isolation, .. } = group;
            writeln!(f, "{direction}, {isolation}: {denied} {packets} packets, {bytes} bytes")?;
            for pod in &group.pods {
                writeln!(f, "    {} ({})", pod.name, pod.address)?;
            }
        }
        for (dropped, why) in [(&self.untracked, "untracked"), (&self.strict_start, "strict start")] {
            for Dropped { direction, denied: Traffic { packets, bytes } } in dropped {
                writeln!(f, "{direction}, {why}: denied {packets} packets, {bytes} bytes")?;
            }
        }
        self.write_doors(f)?;
        if !self.rules.is_empty() {
            writeln!(f, "\n{:>12} {:>14}  rule", "connections", "bytes")?;
        }
        for rule in &self.rules {
            let Traffic { packets, bytes } = rule.allowed;
            writeln!(f, "{packets:>12} {bytes:>14}  {} {}[{}]", rule.policy, rule.direction, rule.rule)?;
        }
        if !self.tiers.is_empty() {
            writeln!(f, "\n{:>12} {:>14}  rule of a ClusterNetworkPolicy", "packets", "bytes")?;
        }
        for TierRule { tier, policy, direction, rule, action, covered } in &self.tiers {
            let Traffic { packets, bytes } = covered;
            writeln!(f, "{packets:>12} {bytes:>14}  {tier} {policy} {direction}[{rule}] {action}")?;
        }
        Ok(())
    }
}

impl Status {
    fn write_doors(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.doors.as_ref().is_some_and(|doors| !doors.is_empty()) {
            writeln!(f, "doors:")?;
        }
        for Door { pod, device, spoofed } in self.doors.iter().flatten() {
            write!(f, "    {pod} at {device}")?;
            for (index, (reason, traffic)) in spoofed.iter().enumerate() {
                let before = if index == 0 { ": spoofed " } else { ", " };
                write!(f, "{before}{} packets ({reason})", traffic.packets)?;
            }
            writeln!(f)?;
        }
        for Pod { name, address } in self.without_door.iter().flatten() {
            writeln!(f, "{name} ({address}) has no door that is known")?;
        }
        Ok(())
    }
}
