//! What the kernel enforces, read from the kernel alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use policy_compiler::compile::Counted;
use policy_compiler::ruleset::{ChainName, ElementKey};
use serde::Serialize;

use crate::kernel::{Counter, Table};

/// Everything that `podfence-controller status` says.
#[derive(Debug, Default, Serialize)]
pub struct Status {
    /// Whether there is a table at all.
    pub enforced: bool,
    /// Pods that the same policies isolate.
    pub groups: Vec<Group>,
    /// The rules of the policies that isolate a pod of this node.
    pub rules: Vec<Rule>,
    /// What strict start has dropped, if it is on.
    pub strict_start: Vec<StrictStart>,
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

/// What strict start has dropped in a direction.
#[derive(Debug, Serialize)]
pub struct StrictStart {
    /// `ingress` or `egress`
    pub direction: &'static str,
    /// The packets to, or from, an address of the pod ranges that no known pod has.
    pub denied: Traffic,
}

/// What a counter has counted.
#[derive(Debug, Clone, Copy, Serialize)]
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

impl Status {
    /// Reads the table; `None` stands for no table.
    pub fn of(table: Option<&Table>) -> Self {
        let Some(table) = table else { return Self::default() };
        let mut members = members(table);
        let mut status = Self { enforced: true, ..Self::default() };
        for (name, chain) in &table.chains {
            let comment = chain.rules.iter().find_map(|rule| rule.comment.as_deref());
            match Counted::by(name, comment) {
                Some(counted @ (Counted::Denied { direction, .. } | Counted::Audited { direction, .. })) => {
                    let audited = matches!(counted, Counted::Audited { .. });
                    status.groups.push(Group {
                        direction: direction.as_str(),
                        isolation: comment.unwrap_or(name.as_str()).to_owned(),
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
                Some(Counted::StrictStart(direction)) => status
                    .strict_start
                    .push(StrictStart { direction: direction.as_str(), denied: chain.counter().into() }),
                None => {}
            }
        }
        status.rules.sort_by(|one, other| {
            (&one.policy, one.direction, one.rule).cmp(&(&other.policy, other.direction, other.rule))
        });
        status
    }
}

/// The pods by the chain that isolates them.
fn members(table: &Table) -> BTreeMap<ChainName, BTreeSet<Pod>> {
    let mut members: BTreeMap<ChainName, BTreeSet<Pod>> = BTreeMap::new();
    let elements = table.sets.values().flatten().flat_map(|set| &set.elements);
    for (key, element) in elements {
        if let (ElementKey::Address(address), Some(chain), Some(name)) =
            (key, &element.target, &element.comment)
        {
            let pod = Pod { name: name.to_string(), address: address.to_string() };
            members.entry(chain.clone()).or_default().insert(pod);
        }
    }
    members
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.enforced {
            return writeln!(
                f,
                "Nothing is enforced: there is no table `inet podfence` in this network namespace."
            );
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
        for StrictStart { direction, denied } in &self.strict_start {
            let Traffic { packets, bytes } = denied;
            writeln!(f, "{direction}, strict start: denied {packets} packets, {bytes} bytes")?;
        }
        if !self.rules.is_empty() {
            writeln!(f, "\n{:>12} {:>14}  rule", "connections", "bytes")?;
        }
        for rule in &self.rules {
            let Traffic { packets, bytes } = rule.allowed;
            writeln!(f, "{packets:>12} {bytes:>14}  {} {}[{}]", rule.policy, rule.direction, rule.rule)?;
        }
        Ok(())
    }
}
