//! The objects that the compiler knows, with the look-ups it needs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{
    Cluster, DefaultDeny, Direction, Labels, Namespace, NamespaceScope, NetworkPolicy, Node, ObjectName, Pod,
};

/// The cluster as one node sees it.
pub(super) struct World {
    /// The node that is compiled for; `None`: one node runs every pod.
    node: Option<Arc<str>>,
    /// The object of that node.
    node_object: Option<Node>,
    namespaces: HashMap<Arc<str>, Namespace>,
    pods: BTreeMap<ObjectName, Arc<Pod>>,
    /// Those of [`DefaultDeny`] included.
    policies: BTreeMap<ObjectName, Arc<NetworkPolicy>>,
    /// The policies that are closed, as they were put: [`NetworkPolicy::closed`] of each stands in `policies`.
    closed: BTreeMap<ObjectName, Arc<NetworkPolicy>>,
    default_deny: Option<DefaultDeny>,
    /// Whether all policies are in audit mode.
    audit: bool,
    /// Whether policies judge what pods send to their node.
    own_node_judged: bool,
    /// How many pods live in each namespace.
    population: BTreeMap<Arc<str>, usize>,
    /// The pods that have an address: one, unless a pod that is on its way out still shows it.
    claims: HashMap<IpAddr, BTreeSet<ObjectName>>,
}

/// What has changed since the last update.
#[derive(Clone, Default)]
pub(super) struct Changed {
    /// Whether the node's own object has.
    pub(super) node: bool,
    pub(super) namespaces: BTreeSet<Arc<str>>,
    pub(super) pods: BTreeSet<ObjectName>,
    pub(super) policies: BTreeSet<ObjectName>,
    /// Addresses that a changed pod has or had.
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl Changed {
    /// What has changed in one of both.
    pub(super) fn extend(&mut self, other: Self) {
        self.node |= other.node;
        self.namespaces.extend(other.namespaces);
        self.pods.extend(other.pods);
        self.policies.extend(other.policies);
        self.addresses.extend(other.addresses);
    }
}

impl World {
    pub(super) fn new(node: Option<Arc<str>>) -> Self {
        Self {
            node,
            node_object: None,
            namespaces: HashMap::new(),
            pods: BTreeMap::new(),
            policies: BTreeMap::new(),
            closed: BTreeMap::new(),
            default_deny: None,
            audit: false,
            own_node_judged: false,
            population: BTreeMap::new(),
            claims: HashMap::new(),
        }
    }

    /// Puts namespaces under default deny. To be said before any object is known.
    pub(super) fn deny_by_default(&mut self, default_deny: DefaultDeny) {
        self.default_deny = Some(default_deny);
    }

    /// Puts all policies into audit mode. To be said before any object is known.
    pub(super) fn audit(&mut self) {
        self.audit = true;
    }

    /// Has policies judge what pods send to their node. To be said before any object is known.
    pub(super) fn judge_own_node(&mut self) {
        self.own_node_judged = true;
    }

    /// Whether policies judge what pods send to their node.
    pub(super) fn judges_own_node(&self) -> bool {
        self.own_node_judged
    }

    /// Takes in the object of the node that is compiled for, and no other's.
    pub(super) fn put_node(&mut self, node: Node, changed: &mut Changed) {
        if self.node.as_ref() == Some(&node.name) && self.node_object.as_ref() != Some(&node) {
            self.node_object = Some(node);
            changed.node = true;
        }
    }

    pub(super) fn put_namespace(
        &mut self,
        name: &Arc<str>,
        namespace: Option<Namespace>,
        changed: &mut Changed,
    ) {
        let old = match namespace {
            Some(namespace) if self.namespaces.get(name) == Some(&namespace) => return,
            Some(namespace) => self.namespaces.insert(name.clone(), namespace),
            None => self.namespaces.remove(name),
        };
        if old.as_ref() != self.namespaces.get(name) {
            changed.namespaces.insert(name.clone());
            let audited = |namespace: Option<&Namespace>| namespace.is_some_and(Namespace::is_audited);
            if audited(old.as_ref()) != audited(self.namespaces.get(name)) {
                changed.pods.extend(self.pods_in(name).map(|pod| pod.name.clone()));
            }
            self.update_default_deny(name, changed);
        }
    }

    /// Puts a namespace under default deny or takes it out, by what is known of it.
    fn update_default_deny(&mut self, namespace: &Arc<str>, changed: &mut Changed) {
        let Some(default_deny) = &self.default_deny else { return };
        let policy = match self.namespaces.get(namespace) {
            Some(namespace) => default_deny.policy(namespace),
            None if self.population.contains_key(namespace) => default_deny.policy_of_unknown(namespace),
            None => None,
        };
        self.put_policy(&DefaultDeny::policy_name(namespace), policy, changed);
    }

    pub(super) fn put_pod(&mut self, name: &ObjectName, pod: Option<Pod>, changed: &mut Changed) {
        let new = pod.map(Arc::new);
        if self.pods.get(name) == new.as_ref() {
            return;
        }
        let old = match &new {
            Some(pod) => self.pods.insert(name.clone(), pod.clone()),
            None => self.pods.remove(name),
        };
        match (&old, &new) {
            (None, Some(_)) => *self.population.entry(name.namespace.clone()).or_default() += 1,
            (Some(_), None) => {
                if let Some(count) = self.population.get_mut(&name.namespace) {
                    *count -= 1;
                    if *count == 0 {
                        self.population.remove(&name.namespace);
                    }
                }
            }
            _ => {}
        }
        if old.is_some() != new.is_some() {
            self.update_default_deny(&name.namespace, changed);
        }
        for address in claimed(old.as_deref()) {
            if let Some(claimants) = self.claims.get_mut(&address) {
                claimants.remove(name);
                if claimants.is_empty() {
                    self.claims.remove(&address);
                }
            }
        }
        for address in claimed(new.as_deref()) {
            self.claims.entry(address).or_default().insert(name.clone());
        }
        for address in claimed(old.as_deref()).chain(claimed(new.as_deref())) {
            // Whoever shares the address may gain or lose it by this.
            changed.pods.extend(self.claims.get(&address).into_iter().flatten().cloned());
            changed.addresses.insert(address);
        }
        changed.pods.insert(name.clone());
    }

    pub(super) fn put_policy(
        &mut self,
        name: &ObjectName,
        policy: Option<NetworkPolicy>,
        changed: &mut Changed,
    ) {
        if policy.is_some() && self.closed.get(name).map(AsRef::as_ref) == policy.as_ref() {
            return;
        }
        // What says something else now deserves to be tried.
        self.closed.remove(name);
        if self.policies.get(name).map(AsRef::as_ref) == policy.as_ref() {
            return;
        }
        match policy {
            Some(policy) => self.policies.insert(name.clone(), Arc::new(policy)),
            None => self.policies.remove(name),
        };
        changed.policies.insert(name.clone());
    }

    /// Closes a policy until it is opened or says something else.
    pub(super) fn close_policy(&mut self, name: &ObjectName, changed: &mut Changed) {
        if self.closed.contains_key(name) {
            return;
        }
        if let Some(policy) = self.policies.get_mut(name) {
            let closed = Arc::new(policy.closed());
            self.closed.insert(name.clone(), std::mem::replace(policy, closed));
            changed.policies.insert(name.clone());
        }
    }

    /// Opens a policy that is closed.
    pub(super) fn open_policy(&mut self, name: &ObjectName, changed: &mut Changed) {
        if let Some(policy) = self.closed.remove(name) {
            self.policies.insert(name.clone(), policy);
            changed.policies.insert(name.clone());
        }
    }

    /// The policies that are closed.
    pub(super) fn closed_policies(&self) -> impl Iterator<Item = &ObjectName> {
        self.closed.keys()
    }

    /// All policies, those that are closed as such.
    pub(super) fn policies(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.policies.values().map(AsRef::as_ref)
    }

    pub(super) fn pod(&self, name: &ObjectName) -> Option<&Arc<Pod>> {
        self.pods.get(name)
    }

    pub(super) fn policy(&self, name: &ObjectName) -> Option<&Arc<NetworkPolicy>> {
        self.policies.get(name)
    }

    /// The pods of a namespace.
    pub(super) fn pods_in<'a>(&'a self, namespace: &Arc<str>) -> impl Iterator<Item = &'a Arc<Pod>> {
        in_namespace(&self.pods, namespace)
    }

    /// The namespaces that pods live in.
    pub(super) fn namespaces_with_pods(&self) -> impl Iterator<Item = &Arc<str>> {
        self.population.keys()
    }

    /// The sources besides their own that pods of a namespace may use.
    pub(super) fn allowed_sources(&self, namespace: &Arc<str>) -> &[IpNet] {
        self.namespaces.get(namespace).map_or(&[], Namespace::allowed_sources)
    }

    /// Every address that a pod has.
    pub(super) fn owned_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.claims.keys().copied()
    }

    /// The ranges from which the node's pods have their addresses.
    pub(super) fn pod_ranges(&self) -> &[IpNet] {
        self.node_object.as_ref().map_or(&[], |node| &node.pod_ranges)
    }

    /// The node's own addresses.
    pub(super) fn node_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.node_object.iter().flat_map(|node| node.addresses.iter().copied())
    }

    /// Whether an address lies in the node's pod ranges, and a pod or the node itself has it.
    pub(super) fn is_known_in_pod_ranges(&self, address: IpAddr) -> bool {
        self.pod_ranges().iter().any(|range| range.contains(&address))
            && (self.claims.contains_key(&address) || self.node_addresses().any(|own| own == address))
    }

    /// Whether a peer of `policy` looks into a namespace.
    pub(super) fn in_scope(&self, scope: &NamespaceScope, policy: &ObjectName, namespace: &Arc<str>) -> bool {
        match scope {
            NamespaceScope::Own => policy.namespace == *namespace,
            NamespaceScope::Matching(selector) => selector.matches(&self.namespace_labels(namespace)),
        }
    }

    /// The pod that packets from or to an address belong to. Where several pods show it, only one can have
    /// it; the choice does not depend on the order of events.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        let claimants = self.claims.get(&address)?.iter().filter_map(|name| self.pods.get(name));
        claimants.max_by(|one, other| one.claim().cmp(&other.claim()))
    }

    /// The addresses that are the pod's own.
    pub(super) fn addresses<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = IpAddr> + 'a {
        claimed(Some(pod)).filter(|address| self.owner(*address).is_some_and(|owner| owner.name == pod.name))
    }

    /// Whether the node runs the pod and policies apply to it.
    pub(super) fn is_local(&self, pod: &Pod) -> bool {
        pod.selectable() && self.node.as_ref().is_none_or(|node| pod.node.as_ref() == Some(node))
    }

    /// The policies that isolate a pod in a direction, by name.
    pub(super) fn isolating(
        &self,
        pod: &Pod,
        direction: Direction,
    ) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        in_namespace(&self.policies, &pod.name.namespace)
            .filter(move |policy| policy.rules(direction).is_some() && policy.subjects.matches(&pod.labels))
    }

    /// The part of the cluster that decides about connections between these addresses and pods: a judge says of them
    /// what it would say if it knew the whole.
    pub(super) fn excerpt<'a>(
        &self,
        addresses: impl IntoIterator<Item = IpAddr>,
        pods: impl IntoIterator<Item = &'a ObjectName>,
    ) -> Cluster {
        let mut excerpt = Cluster::new();
        self.node_object.iter().for_each(|node| excerpt.insert_node(node.clone()));
        let owners = addresses.into_iter().filter_map(|address| self.owner(address));
        for pod in owners.chain(pods.into_iter().filter_map(|name| self.pod(name))) {
            if let Some(namespace) = self.namespaces.get(&pod.name.namespace) {
                excerpt.insert_namespace(namespace.clone());
            }
            excerpt.insert_pod(Pod::clone(pod));
            for policy in Direction::BOTH.into_iter().flat_map(|direction| self.isolating(pod, direction)) {
                let audited = self.is_audited(policy);
                excerpt.insert_policy(NetworkPolicy { audited, ..NetworkPolicy::clone(policy) });
            }
        }
        excerpt
    }

    /// Whether a policy is in audit mode.
    pub(super) fn is_audited(&self, policy: &NetworkPolicy) -> bool {
        self.audit || policy.is_audited_in(self.namespaces.get(&policy.name.namespace))
    }

    /// A namespace's labels; of one that has not been seen, its name is known all the same.
    fn namespace_labels(&self, name: &Arc<str>) -> Cow<'_, Labels> {
        match self.namespaces.get(name) {
            Some(namespace) => Cow::Borrowed(namespace.labels()),
            None => Cow::Owned(Namespace::new(name.clone(), Labels::new()).labels().clone()),
        }
    }
}

/// The addresses that a pod shows and that can be its own: not those of its node, and none when it is over.
fn claimed(pod: Option<&Pod>) -> impl Iterator<Item = IpAddr> {
    pod.filter(|pod| pod.selectable()).into_iter().flat_map(|pod| pod.addresses.iter().copied())
}

fn in_namespace<'a, T>(
    objects: &'a BTreeMap<ObjectName, T>,
    namespace: &Arc<str>,
) -> impl Iterator<Item = &'a T> + use<'a, T> {
    let namespace = namespace.clone();
    let first = ObjectName::new(namespace.clone(), "");
    objects.range(first..).take_while(move |(name, _)| name.namespace == namespace).map(|(_, object)| object)
}
