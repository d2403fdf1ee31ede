//! From objects to the ruleset of one node.
//!
//! [`compile`] does it at once. A [`Compiler`] keeps a ruleset in step with objects that come, change and
//! go: an update costs what the change concerns, and yields the [`Transaction`] that leads there. Both are
//! the same code, and names in the ruleset depend on nothing but its content, so whatever the history, the
//! same objects give the same ruleset.
//!
//! How a packet finds its verdict, for each direction alike (names for ingress):
//!
//! 1. `ingress`: the source's address in `ingress_peers_*`, or else in `ingress_blocks_*`, gives its
//!    *identity*: the sets of peers that it is in. Whoever no rule names goes on at 4.
//! 2. `ingress_peer_…`, an identity's chain: the destination's address gives what becomes of packets between the
//!    two, if that is not the default of the destination.
//! 3. `ingress_ports_…` or `ingress_verdicts_…`: protocol and port give the rule, whose chain counts the packet and
//!    returns or drops it, or a path of rules (`ingress_path_…`).
//! 4. `ingress_unlisted`: if the destination is in `ingress_isolated_*`, the chain of its group has its default
//!    (`ingress_subject_…`): what its rules say of everybody, or of all pods if the source is in `pods_*`. What no rule
//!    decides comes to `ingress_isolate_…`, which lets a pod reach itself and drops the rest. A pod that no policy
//!    judges is not in the map: its packets return.
//!
//! The order of tiers is part of what stands in these maps (`compile/tiers.rs`). Where what pods send to their node is judged
//! ([`Compiler::with_pods_to_node`], or by a `ClusterNetworkPolicy`), such packets traverse the same chains for egress,
//! from the hook `input`.

mod choosing;
mod claims;
mod connections;
mod counted;
mod doors;
mod draft;
mod group;
mod identity;
mod outcome;
mod outliving;
mod peer_set;
mod pods;
mod policies;
mod ranges;
mod rule;
mod shared_rules;
mod side;
mod skeleton;
mod strict;
mod tiers;
mod verdicts;
mod world;

pub use connections::{Addresses, Concerned, Ends, bar, barred, cut};
pub use counted::Counted;

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{
    Cluster, ClusterNetworkPolicy, DefaultDeny, Direction, Doors, Namespace, NetworkPolicy, Node, ObjectName,
    Pod, PodsToNode, PolicyName,
};
use crate::ruleset::{Ruleset, TableFamily, Transaction};
use doors::{DoorTable, Required};
use draft::Draft;
use pods::AllPods;
use side::Side;
use skeleton::{BaseChains, ToNode};
use world::{Changed, World};

/// The ruleset for the pods whose `spec.nodeName` is `node`; with `None`, as if one node ran every pod that
/// has an address.
///
/// ```
/// use policy_compiler::{compile::compile, model::Cluster};
///
/// let ruleset = compile(&Cluster::new(), Some("node-1"));
/// assert!(ruleset.to_string().starts_with("table inet podfence {"));
/// ```
pub fn compile(cluster: &Cluster, node: Option<&str>) -> Ruleset {
    let mut compiler = Compiler::of(cluster, node);
    compiler.update();
    compiler.draft.into_ruleset()
}

/// Keeps one node's ruleset in step with the cluster's objects.
pub struct Compiler {
    world: World,
    changed: Changed,
    sides: [Side; 2],
    all_pods: AllPods,
    draft: Draft,
    base_chains: BaseChains,
    doors: Option<DoorTable>,
    required: Option<Required>,
}

impl Compiler {
    /// A compiler that knows no object yet; `node` as for [`compile`].
    pub fn new(node: Option<&str>) -> Self {
        Self::with(node, false)
    }

    /// The same for a node with strict start: nothing passes from or to an address of the pod ranges that its
    /// [`Node`] object names, as long as no pod that lives has that address, nor the node itself.
    pub fn strict(node: &str) -> Self {
        Self::with(Some(node), true)
    }

    fn with(node: Option<&str>, strict: bool) -> Self {
        let mut draft = Draft::new(TableFamily::Inet);
        skeleton::build(&mut draft, strict);
        let base_chains = BaseChains { strict, ..BaseChains::default() };
        base_chains.put(&mut draft);
        Self {
            world: World::new(node.map(Arc::from)),
            changed: Changed::default(),
            sides: Direction::BOTH.map(Side::new),
            all_pods: AllPods::default(),
            draft,
            base_chains,
            doors: None,
            required: None,
        }
    }

    /// The same with namespaces under default deny. A namespace that is not known yet, but a pod of it, is one of
    /// them unless its name alone says that it is not.
    #[must_use]
    pub fn with_default_deny(mut self, default_deny: DefaultDeny) -> Self {
        self.world.deny_by_default(default_deny);
        self
    }

    /// The same with a table that guards the doors of the node's pods ([`Self::put_doors`]).
    #[must_use]
    pub fn with_doors(mut self) -> Self {
        self.doors = Some(DoorTable::new());
        self
    }

    /// The same, and what comes from or goes to a pod of the node without a door is dropped.
    #[must_use]
    pub fn with_required_doors(mut self) -> Self {
        self.doors = Some(DoorTable::new());
        self.required = Some(Required::build(&mut self.draft));
        self.base_chains.required = true;
        self.base_chains.put(&mut self.draft);
        self
    }

    /// The same with all policies in audit mode: what they deny is logged and passes.
    #[must_use]
    pub fn with_audit(mut self) -> Self {
        self.world.audit();
        self
    }

    /// The same with what pods may send to their own node.
    #[must_use]
    pub fn with_pods_to_node(mut self, pods_to_node: PodsToNode) -> Self {
        if pods_to_node == PodsToNode::Policy {
            self.world.judge_own_node();
            self.base_chains.to_node = ToNode::All;
            self.base_chains.put(&mut self.draft);
        }
        self
    }

    /// A compiler that knows the objects of a cluster; `node` as for [`compile`].
    pub fn of(cluster: &Cluster, node: Option<&str>) -> Self {
        let mut compiler = Self::new(node);
        compiler.put_cluster(cluster);
        compiler
    }

    /// All objects of a cluster as they are now.
    pub fn put_cluster(&mut self, cluster: &Cluster) {
        for (name, node) in cluster.nodes() {
            self.put_node(name, Some(node.clone()));
        }
        for (name, namespace) in cluster.namespaces() {
            self.put_namespace(name, Some(namespace.clone()));
        }
        for (name, pod) in cluster.pods() {
            self.put_pod(name, Some(pod.clone()));
        }
        for (name, policy) in cluster.policies() {
            self.put_policy(name, Some(policy.clone()));
        }
        for (name, policy) in cluster.cluster_policies() {
            self.put_cluster_policy(name, Some(policy.clone()));
        }
    }

    /// A node as it is now; `None` if it is gone. No pod has an address of one. What the own one said of its addresses
    /// and pod ranges holds until it says something else.
    pub fn put_node(&mut self, name: &Arc<str>, node: Option<Node>) {
        self.world.put_node(name, node, &mut self.changed);
    }

    /// A namespace as it is now; `None` if it is gone, or not known yet.
    pub fn put_namespace(&mut self, name: &Arc<str>, namespace: Option<Namespace>) {
        self.world.put_namespace(name, namespace, &mut self.changed);
    }

    /// A pod as it is now; `None` if it is gone.
    pub fn put_pod(&mut self, name: &ObjectName, pod: Option<Pod>) {
        self.world.put_pod(name, pod, &mut self.changed);
    }

    /// A policy as it is now; `None` if it is gone. One that goes while its namespace is being deleted, or while only
    /// pods are known of its namespace, holds until the last of those pods is gone or the namespace is made anew.
    pub fn put_policy(&mut self, name: &ObjectName, policy: Option<NetworkPolicy>) {
        self.world.put_policy(name, policy, &mut self.changed);
    }

    /// A `ClusterNetworkPolicy` as it is now; `None` if it is gone.
    pub fn put_cluster_policy(&mut self, name: &Arc<str>, policy: Option<ClusterNetworkPolicy>) {
        self.world.put_cluster_policy(name, policy, &mut self.changed);
    }

    /// A pod of the node that is isolated in a direction by a table which was programmed before the first object was
    /// put. It stays isolated, and no rule lets anything through, if its namespace is being deleted or is not known, and
    /// no policy isolates it: those that did may be gone and hold still.
    pub fn keep_isolated(&mut self, pod: &ObjectName, direction: Direction) {
        self.world.keep_isolated(pod, direction, &mut self.changed);
    }

    /// Closes policies ([`NetworkPolicy::closed`], [`ClusterNetworkPolicy::closed`]), those of default deny among them,
    /// until they are opened or put with another content. Names of no policy are left alone.
    pub fn close_policies<'a>(&mut self, names: impl IntoIterator<Item = &'a PolicyName>) {
        names.into_iter().for_each(|name| self.world.close_policy(name, &mut self.changed));
    }

    /// Opens policies that are closed.
    pub fn open_policies<'a>(&mut self, names: impl IntoIterator<Item = &'a PolicyName>) {
        names.into_iter().for_each(|name| self.world.open_policy(name, &mut self.changed));
    }

    /// The policies that are closed, by name.
    pub fn closed_policies(&self) -> impl Iterator<Item = PolicyName> {
        self.world.closed_policies()
    }

    /// The policies that closing narrows, by name: those that are not closed, nor as narrow as that.
    pub fn closable_policies(&self) -> impl Iterator<Item = PolicyName> {
        self.world.closable_policies()
    }

    /// Whether there is a policy of this name, closed or not.
    pub fn has_policy(&self, name: &PolicyName) -> bool {
        match name {
            PolicyName::Namespaced(name) => self.world.policy(name).is_some(),
            PolicyName::Cluster(name) => self.world.cluster_policy(name).is_some(),
        }
    }

    /// What the node's devices say now. Nothing comes of it without [`Self::with_doors`].
    pub fn put_doors(&mut self, doors: &Doors) {
        if let Some(table) = &mut self.doors {
            table.put(doors);
        }
    }

    /// The pods that show an address of a node, and which: it is not theirs, and no policy judges it.
    pub fn refused_addresses(&self) -> impl Iterator<Item = (&ObjectName, IpAddr)> {
        self.world.refused()
    }

    /// The pods of the node that have networks of their own and live.
    pub fn local_pods(&self) -> impl Iterator<Item = &Pod> {
        self.world.local_pods()
    }

    /// The ranges that the node's pods get their addresses from, as far as the Node names them.
    pub fn pod_ranges(&self) -> &[ipnet::IpNet] {
        self.world.pod_ranges()
    }

    /// Whether strict start is asked for and has nothing to guard: no pod range of the node is known.
    pub fn lacks_pod_ranges(&self) -> bool {
        self.base_chains.strict && self.world.pod_ranges().is_empty()
    }

    /// Brings the ruleset up to date with all that was put since the last update, and returns the way from
    /// the ruleset before to the one now. The first update leads from an empty table.
    pub fn update(&mut self) -> Transaction {
        let changed = std::mem::take(&mut self.changed);
        for side in &mut self.sides {
            side.update(&self.world, &changed, &mut self.draft);
        }
        self.base_chains.judge_chosen(&mut self.draft);
        let named = self.sides.iter().any(Side::names_all_pods);
        self.all_pods.update(&self.world, &changed, named, &mut self.draft);
        if self.base_chains.strict {
            strict::update(&self.world, &changed, &mut self.draft);
        }
        if let Some((required, doors)) = self.required.as_mut().zip(self.doors.as_ref()) {
            required.update(&self.world, &changed, doors, &mut self.draft);
        }
        let (collected, transaction) = self.draft.finish();
        for side in &mut self.sides {
            side.forget(&collected);
        }
        if let Some(doors) = &mut self.doors {
            doors.note(changed, &mut self.sides);
        }
        transaction
    }

    /// Brings the table `netdev podfence` up to date with all that the last [`Self::update`] knew and with the doors,
    /// and returns the way there, as `update` does; `None` without [`Self::with_doors`].
    pub fn update_doors(&mut self) -> Option<Transaction> {
        let doors = self.doors.as_mut()?;
        Some(doors.update(&self.world, &mut self.sides))
    }

    /// The table `netdev podfence` as of the last [`Self::update_doors`], if there is to be one.
    pub fn door_ruleset(&self) -> Option<&Ruleset> {
        self.doors.as_ref().map(DoorTable::ruleset)
    }

    /// The part of the cluster, as it was put so far, that decides about connections between these addresses and pods.
    /// A judge says of them what it would say if it knew all that was put.
    pub fn excerpt<'a>(
        &self,
        addresses: impl IntoIterator<Item = IpAddr>,
        pods: impl IntoIterator<Item = &'a ObjectName>,
    ) -> Cluster {
        self.world.excerpt(addresses, pods)
    }

    /// How many elements the sets and maps of both tables have together.
    pub fn elements(&self) -> usize {
        self.draft.elements() + self.doors.as_ref().map_or(0, DoorTable::elements)
    }

    /// The ruleset as of the last update.
    pub fn ruleset(&self) -> &Ruleset {
        self.draft.ruleset()
    }
}
