//! The objects that the compiler knows, with the look-ups it needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;

use super::claims::Claims;
use super::policies::{Policies, Policy};
use crate::model::{
    Cluster, ClusterNetworkPolicy, DefaultDeny, Direction, LabelSelector, Namespace, NetworkPolicy, Node,
    ObjectName, Pod, PolicyName,
};

/// The cluster as one node sees it.
pub(super) struct World {
    /// The node that is compiled for; `None`: one node runs every pod.
    node: Option<Arc<str>>,
    nodes: BTreeMap<Arc<str>, Node>,
    pub(super) namespaces: HashMap<Arc<str>, Namespace>,
    pods: BTreeMap<ObjectName, Arc<Pod>>,
    /// Those of [`DefaultDeny`] included.
    policies: Policies<ObjectName, NetworkPolicy>,
    /// Those among them whose objects are gone, and which hold as long as pods of their namespaces are left
    /// ([`super::outliving`]).
    pub(super) outliving: BTreeSet<ObjectName>,
    pub(super) cluster_policies: Policies<Arc<str>, ClusterNetworkPolicy>,
    default_deny: Option<DefaultDeny>,
    /// Whether all policies are in audit mode.
    pub(super) audit: bool,
    /// Whether policies judge what pods send to their node.
    own_node_judged: bool,
    /// How many pods live in each namespace.
    pub(super) population: BTreeMap<Arc<str>, usize>,
    claims: Claims,
}

/// What has changed since the last update.
#[derive(Clone, Default)]
pub(super) struct Changed {
    /// Whether the node's own object has.
    pub(super) node: bool,
    /// Whether any node's object has.
    pub(super) nodes: bool,
    pub(super) namespaces: BTreeSet<Arc<str>>,
    pub(super) pods: BTreeSet<ObjectName>,
    pub(super) policies: BTreeSet<ObjectName>,
    /// The ClusterNetworkPolicies that have, with what was enforced of them before.
    pub(super) cluster_policies: BTreeMap<Arc<str>, Option<Arc<ClusterNetworkPolicy>>>,
    /// Addresses that a changed pod has or had.
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl Changed {
    /// What has changed in one of both.
    pub(super) fn extend(&mut self, other: Self) {
        self.node |= other.node;
        self.nodes |= other.nodes;
        self.namespaces.extend(other.namespaces);
        self.pods.extend(other.pods);
        self.policies.extend(other.policies);
        for (name, before) in other.cluster_policies {
            self.cluster_policies.entry(name).or_insert(before);
        }
        self.addresses.extend(other.addresses);
    }
}

impl World {
    pub(super) fn new(node: Option<Arc<str>>) -> Self {
        Self {
            node,
            nodes: BTreeMap::new(),
            namespaces: HashMap::new(),
            pods: BTreeMap::new(),
            policies: Policies::new(),
            outliving: BTreeSet::new(),
            cluster_policies: Policies::new(),
            default_deny: None,
            audit: false,
            own_node_judged: false,
            population: BTreeMap::new(),
            claims: Claims::default(),
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

    /// Takes in a node. The own one that is made anew says nothing of itself for a moment, or is not there: what it
    /// said before still holds.
    pub(super) fn put_node(&mut self, name: &Arc<str>, node: Option<Node>, changed: &mut Changed) {
        let old = self.nodes.get(name);
        let is_own = self.node.as_ref() == Some(name);
        let new = match (node, old.filter(|_| is_own)) {
            (None, Some(_)) => return,
            (Some(mut node), Some(old)) => {
                if node.addresses.is_empty() {
                    node.addresses.clone_from(&old.addresses);
                }
                if node.pod_ranges.is_empty() {
                    node.pod_ranges.clone_from(&old.pod_ranges);
                }
                Some(node)
            }
            (node, None) => node,
        };
        if old == new.as_ref() {
            return;
        }
        for address in self.claims.put_node(old, new.as_ref()) {
            self.note_address(address, changed);
        }
        match new {
            Some(node) => drop(self.nodes.insert(name.clone(), node)),
            None => drop(self.nodes.remove(name)),
        }
        changed.node |= is_own;
        changed.nodes = true;
    }

    /// Notes that it may be somebody else's policies that judge an address, or that name it.
    fn note_address(&self, address: IpAddr, changed: &mut Changed) {
        changed.pods.extend(self.claims.showing(address).cloned());
        changed.addresses.insert(address);
    }

    fn own_node(&self) -> Option<&Node> {
        self.nodes.get(self.node.as_ref()?)
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
            self.end_outliving(name, changed);
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
        self.set_policy(&DefaultDeny::policy_name(namespace), policy, changed);
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
            self.end_outliving(&name.namespace, changed);
        }
        for address in self.claims.put_pod(old.as_deref(), new.as_deref()) {
            self.note_address(address, changed);
        }
        changed.pods.insert(name.clone());
    }

    pub(super) fn set_policy(
        &mut self,
        name: &ObjectName,
        policy: Option<NetworkPolicy>,
        changed: &mut Changed,
    ) {
        if self.policies.put(name, policy).is_some() {
            changed.policies.insert(name.clone());
        }
    }

    /// Closes a policy until it is opened or says something else.
    pub(super) fn close_policy(&mut self, name: &PolicyName, changed: &mut Changed) {
        self.change_policy(name, Policies::close, Policies::close, changed);
    }

    /// Opens a policy that is closed.
    pub(super) fn open_policy(&mut self, name: &PolicyName, changed: &mut Changed) {
        self.change_policy(name, Policies::open, Policies::open, changed);
    }

    fn change_policy(
        &mut self,
        name: &PolicyName,
        namespaced: fn(&mut Policies<ObjectName, NetworkPolicy>, &ObjectName) -> bool,
        cluster: fn(&mut Policies<Arc<str>, ClusterNetworkPolicy>, &Arc<str>) -> bool,
        changed: &mut Changed,
    ) {
        match name {
            PolicyName::Namespaced(name) => {
                if namespaced(&mut self.policies, name) {
                    changed.policies.insert(name.clone());
                }
            }
            PolicyName::Cluster(name) => {
                let before = self.cluster_policy(name).cloned();
                if cluster(&mut self.cluster_policies, name) {
                    changed.cluster_policies.entry(name.clone()).or_insert(before);
                }
            }
        }
    }

    /// The policies that are closed.
    pub(super) fn closed_policies(&self) -> impl Iterator<Item = PolicyName> {
        let namespaced = self.policies.closed().cloned().map(PolicyName::Namespaced);
        namespaced.chain(self.cluster_policies.closed().cloned().map(PolicyName::Cluster))
    }

    /// The policies that closing would narrow.
    pub(super) fn closable_policies(&self) -> impl Iterator<Item = PolicyName> {
        let namespaced = self.policies.closable().cloned().map(PolicyName::Namespaced);
        namespaced.chain(self.cluster_policies.closable().cloned().map(PolicyName::Cluster))
    }

    pub(super) fn pod(&self, name: &ObjectName) -> Option<&Arc<Pod>> {
        self.pods.get(name)
    }

    pub(super) fn policy(&self, name: &ObjectName) -> Option<&Arc<NetworkPolicy>> {
        self.policies.enforced().get(name)
    }

    /// A policy of either kind, as it is enforced.
    pub(super) fn any_policy(&self, name: &PolicyName) -> Option<Policy> {
        match name {
            PolicyName::Namespaced(name) => self.policy(name).cloned().map(Policy::Namespaced),
            PolicyName::Cluster(name) => self.cluster_policy(name).cloned().map(Policy::Cluster),
        }
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

    /// Every address that a pod which lives has.
    pub(super) fn claimed_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.claims.claimed()
    }

    /// Those of them in a range.
    pub(super) fn claimed_in(&self, range: &RangeInclusive<IpAddr>) -> impl Iterator<Item = IpAddr> {
        self.claims.claimed_in(range)
    }

    /// Whether a pod that lives has an address.
    pub(super) fn is_claimed(&self, address: IpAddr) -> bool {
        self.claims.is_claimed(address)
    }

    /// The ranges from which the node's pods have their addresses.
    pub(super) fn pod_ranges(&self) -> &[IpNet] {
        self.own_node().map_or(&[], |node| &node.pod_ranges)
    }

    /// The node's own addresses.
    pub(super) fn node_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.own_node().into_iter().flat_map(|node| node.addresses.iter().copied())
    }

    /// Whether an address lies in the node's pod ranges, and a pod or the node itself has it.
    pub(super) fn is_known_in_pod_ranges(&self, address: IpAddr) -> bool {
        self.pod_ranges().iter().any(|range| range.contains(&address))
            && (self.is_claimed(address) || self.node_addresses().any(|own| own == address))
    }

    /// Whether it is certain that a selector selects a namespace; `None` if it does not.
    pub(super) fn selects(&self, selector: &LabelSelector, name: &Arc<str>) -> Option<bool> {
        let namespace = self.namespaces.get(name);
        selector.may_match_namespace(name, namespace).then(|| selector.matches_namespace(name, namespace))
    }

    /// The addresses of the nodes that a selector selects.
    pub(super) fn addresses_of_nodes(&self, selector: &LabelSelector) -> impl Iterator<Item = IpAddr> {
        let nodes = self.nodes.values().filter(|node| selector.matches(&node.labels));
        nodes.flat_map(|node| node.addresses.iter().copied())
    }

    /// The pods that live and show an address, by name: which of them has it nobody knows, so whoever has it may do
    /// what all of them may.
    pub(super) fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Pod>> {
        self.claims.claimants(address).filter_map(|name| self.pods.get(name))
    }

    /// The pods that live and show an address of a node, which is not theirs.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&ObjectName, IpAddr)> {
        self.claims.refused()
    }

    /// Whether a pod that shows an address may have it: it lives, and the address is no node's.
    pub(super) fn may_have(&self, pod: &Pod, address: IpAddr) -> bool {
        pod.selectable() && !self.claims.is_of_node(address)
    }

    /// The addresses of a pod that lives. Others may show them too.
    pub(super) fn addresses<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = IpAddr> + 'a {
        pod.addresses.iter().copied().filter(|address| self.may_have(pod, *address))
    }

    /// The addresses of which a pod's policies judge what they send and get.
    pub(super) fn judged_addresses<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = IpAddr> + 'a {
        let addresses = pod.addresses.iter().copied();
        addresses.filter(|address| self.claims.judged(*address).any(|name| *name == pod.name))
    }

    /// The pods, and those beside them that show an address which one of them shows.
    pub(super) fn with_sharers(&self, mut pods: BTreeSet<ObjectName>) -> BTreeSet<ObjectName> {
        let addresses = pods.iter().filter_map(|name| self.pod(name)).flat_map(|pod| &pod.addresses);
        let shared: BTreeSet<_> = addresses.copied().filter(|address| self.is_shared(*address)).collect();
        pods.extend(shared.into_iter().flat_map(|address| self.claims.claimants(address)).cloned());
        pods
    }

    /// Whether the policies of several pods judge what an address sends and gets.
    pub(super) fn is_shared(&self, address: IpAddr) -> bool {
        self.claims.is_shared(address)
    }

    /// The pods whose policies judge what an address sends and gets, if the node runs one of them.
    pub(super) fn judged(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Pod>> {
        let pods = move || self.claims.judged(address).filter_map(|name| self.pods.get(name));
        pods().any(|pod| self.runs(pod)).then(pods).into_iter().flatten()
    }

    /// Whether the node runs, or ran, the pod, and policies can apply to it.
    pub(super) fn runs(&self, pod: &Pod) -> bool {
        !pod.host_network && self.node.as_ref().is_none_or(|node| pod.node.as_ref() == Some(node))
    }

    /// Whether the pod lives on the node and policies apply to it.
    pub(super) fn is_local(&self, pod: &Pod) -> bool {
        pod.selectable() && self.runs(pod)
    }

    /// The pods of the node that is compiled for.
    pub(super) fn local_pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().map(Arc::as_ref).filter(|pod| self.is_local(pod))
    }

    /// The policies that isolate a pod in a direction, by name.
    pub(super) fn isolating(
        &self,
        pod: &Pod,
        direction: Direction,
    ) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        in_namespace(self.policies.enforced(), &pod.name.namespace)
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
        self.own_node().into_iter().for_each(|node| excerpt.insert_node(node.clone()));
        let mut judged = Vec::new();
        for address in addresses {
            if self.claims.is_of_node(address) {
                let nodes = self.nodes.values().filter(|node| node.addresses.contains(&address));
                nodes.for_each(|node| excerpt.insert_node(node.clone()));
            }
            judged.extend(self.claims.judged(address).filter_map(|name| self.pod(name)));
        }
        for pod in judged.into_iter().chain(pods.into_iter().filter_map(|name| self.pod(name))) {
            if let Some(namespace) = self.namespaces.get(&pod.name.namespace) {
                excerpt.insert_namespace(namespace.clone());
            }
            excerpt.insert_pod(Pod::clone(pod));
            for policy in Direction::BOTH.into_iter().flat_map(|direction| self.isolating(pod, direction)) {
                let audited = self.is_audited(policy);
                excerpt.insert_policy(NetworkPolicy { audited, ..NetworkPolicy::clone(policy) });
            }
            let choosing = Direction::BOTH.into_iter().flat_map(|direction| self.choosing(pod, direction));
            choosing
                .for_each(|(policy, _)| excerpt.insert_cluster_policy(ClusterNetworkPolicy::clone(policy)));
        }
        excerpt
    }

    /// Whether a policy is in audit mode.
    pub(super) fn is_audited(&self, policy: &NetworkPolicy) -> bool {
        self.audit || policy.is_audited_in(self.namespaces.get(&policy.name.namespace))
    }
}

fn in_namespace<'a, T>(
    objects: &'a BTreeMap<ObjectName, T>,
    namespace: &Arc<str>,
) -> impl Iterator<Item = &'a T> + use<'a, T> {
    let namespace = namespace.clone();
    let first = ObjectName::new(namespace.clone(), "");
    objects.range(first..).take_while(move |(name, _)| name.namespace == namespace).map(|(_, object)| object)
}
