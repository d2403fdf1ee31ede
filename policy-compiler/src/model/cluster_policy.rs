//! `policy.networking.k8s.io ClusterNetworkPolicy` (network-policy-api v0.3.0)
//!
//! For each direction the tiers are asked one after the other, until one decides: [`Tier::Admin`], then the
//! NetworkPolicies, which decide about every pod that they isolate, then [`Tier::Baseline`]. What none decides about is
//! allowed. Within a tier the policies stand in the order of their [precedence](ClusterNetworkPolicy::precedence), and
//! the rules of a policy in their own; the first rule that covers a connection counts.
//!
//! *What is not known narrows.* It may be unknown whether a rule covers a connection, because the namespace of a pod is
//! not known ([`LabelSelector::may_match_namespace`]) or because a part of the rule cannot be read. Then the rule does
//! what [`Action::in_doubt`] says.

use std::fmt;
use std::sync::Arc;

use super::{Direction, LabelSelector, NamespaceScope, Origin, PodPeer, Rule};

/// A policy of the whole cluster. It isolates nothing: what its rules do not cover is left to what comes behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterNetworkPolicy {
    /// `metadata.name`
    pub name: Arc<str>,
    /// `spec.tier`
    pub tier: Tier,
    /// `spec.priority`
    pub priority: Priority,
    /// `spec.subject`: the pods that it applies to, in the namespaces that a selector chooses.
    pub subject: PodPeer,
    /// `spec.ingress`
    pub ingress: Vec<TierRule>,
    /// `spec.egress`
    pub egress: Vec<TierRule>,
    /// Whether it is in audit mode: what its Deny rules cover is logged, and judged by what comes behind them.
    pub audited: bool,
    /// Where it was written.
    pub origin: Option<Origin>,
}

/// `spec.tier`, in the order in which the tiers are asked. The NetworkPolicies stand between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Before the NetworkPolicies, which cannot undo what it decides.
    Admin,
    /// Behind the NetworkPolicies: it decides about pods that none isolates.
    Baseline,
}

/// `spec.priority`, 0 to 1000. The lowest is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u16);

/// `ClusterNetworkPolicyIngressRule` or `ClusterNetworkPolicyEgressRule`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TierRule {
    /// `name`
    pub name: Option<Arc<str>>,
    /// `action`
    pub action: Action,
    /// `from` or `to`, and `protocols`. Its pod peers look into the namespaces that a selector chooses.
    pub rule: Rule,
}

/// What becomes of a connection that a rule covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It is allowed in this direction.
    Accept,
    /// It is denied.
    Deny,
    /// The next tier decides: what is left of this one does not count.
    Pass,
}

impl ClusterNetworkPolicy {
    /// The rules of one direction, in their order.
    pub fn rules(&self, direction: Direction) -> &[TierRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// The order in which policies are asked: by tier and priority, and where these are equal, which the API leaves
    /// open, by name.
    pub fn precedence(&self) -> (Tier, Priority, &str) {
        (self.tier, self.priority, &self.name)
    }

    /// What a policy becomes of which nothing can be read: it denies everything to every pod.
    pub fn unreadable(name: Arc<str>) -> Self {
        let namespaces = NamespaceScope::Matching(LabelSelector::everything());
        Self {
            name,
            tier: Tier::Admin,
            priority: Priority::FIRST,
            subject: PodPeer { namespaces, pods: LabelSelector::everything() },
            ingress: vec![TierRule::deny_all()],
            egress: vec![TierRule::deny_all()],
            audited: false,
            origin: None,
        }
    }

    /// What is left of a policy of which something besides its rules cannot be read, so that it is not known when they
    /// count: each does what it does in doubt, before every other policy.
    #[must_use]
    pub fn in_doubt(self) -> Self {
        let in_doubt = |rules: Vec<TierRule>| rules.into_iter().map(TierRule::in_doubt).collect();
        Self {
            tier: Tier::Admin,
            priority: Priority::FIRST,
            ingress: in_doubt(self.ingress),
            egress: in_doubt(self.egress),
            audited: false,
            ..self
        }
    }

    /// What is left of the policy where its rules cannot be enforced: each is [`TierRule::closed`].
    #[must_use]
    pub fn closed(&self) -> Self {
        let closed = |rules: &[TierRule]| rules.iter().cloned().map(TierRule::closed).collect();
        Self {
            name: self.name.clone(),
            subject: self.subject.clone(),
            ingress: closed(&self.ingress),
            egress: closed(&self.egress),
            audited: false,
            origin: self.origin.clone(),
            ..*self
        }
    }

    /// The policy without a word about where it and its rules were written.
    #[must_use]
    pub fn without_origins(mut self) -> Self {
        self.origin = None;
        for rule in self.ingress.iter_mut().chain(&mut self.egress) {
            rule.rule.origin = None;
        }
        self
    }
}

impl TierRule {
    /// The rule that denies everything.
    pub fn deny_all() -> Self {
        Self { name: None, action: Action::Deny, rule: Rule { peers: None, ports: None, origin: None } }
    }

    /// The rule where it is not known whether it covers what it seems to cover.
    #[must_use]
    pub fn in_doubt(mut self) -> Self {
        match self.action.in_doubt() {
            Some(action) => self.action = action,
            None => self.rule.peers = Some(Vec::new()),
        }
        self
    }

    /// What is left of a rule whose peers or protocols cannot be read: it may cover anything. An Accept matches nothing;
    /// Deny and Pass deny everything, as the API wants it for peers that are not known.
    #[must_use]
    pub fn closed(self) -> Self {
        let rule = Rule { peers: None, ports: None, ..self.rule };
        Self { rule, ..self }.in_doubt()
    }
}

impl Tier {
    /// The tiers in their order.
    pub const ALL: [Self; 2] = [Self::Admin, Self::Baseline];

    /// The name as the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::Baseline => "Baseline",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Priority {
    /// What is asked first.
    pub const FIRST: Self = Self(0);

    /// What is asked last.
    pub const LAST: Self = Self(1000);

    /// `None` for a number above 1000.
    pub fn new(number: u16) -> Option<Self> {
        (number <= Self::LAST.0).then_some(Self(number))
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Accept, Self::Deny, Self::Pass];

    /// What becomes of a connection of which it is not known whether the rule covers it; `None`: the rule does not count.
    pub fn in_doubt(self) -> Option<Self> {
        match self {
            Self::Accept => None,
            Self::Deny | Self::Pass => Some(Self::Deny),
        }
    }

    /// The name as the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "Accept",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
