//! The peers of rules, shared by all rules that name the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::ranges::{self, AddressRanges};
use super::world::World;
use crate::model::{IpBlock, LabelSelector, NamespaceScope, Pod, PodPeer, PortNumber, Protocol};
use crate::ruleset::{ChainId, Digest};

/// Peers of a rule that are looked up by their addresses: the selectors and blocks of its `from` or `to`.
pub(super) struct PeerSet {
    id: PeerSetId,
    pods: BTreeSet<Pods>,
    /// The addresses of the blocks.
    ranges: AddressRanges,
    nodes: BTreeSet<LabelSelector>,
}

/// Pods by their labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pods {
    namespaces: Namespaces,
    labels: Arc<LabelSelector>,
}

/// Where those pods live.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Namespaces {
    One(Arc<str>),
    Matching(LabelSelector),
}

/// What a set is known by: a digest of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PeerSetId(Digest);

/// A port's name and its protocol.
pub(super) type PortName = (Protocol, String);

/// The numbers that names of ports have on a pod, sorted.
pub(super) type Resolved = Vec<(PortName, PortNumber)>;

/// That an address is in a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Member {
    pub(super) set: PeerSetId,
    /// The numbers that the names of ports which rules use with the set have on the pod that has the address: addresses
    /// with other numbers are treated otherwise.
    pub(super) named: Resolved,
    /// Whether that is known; otherwise the address is that of a pod of an unknown namespace, which may be among those of
    /// the set.
    pub(super) certain: bool,
}

impl PeerSet {
    /// The peers of a rule of a policy, which may have a namespace of its own; `None` if there are none.
    pub(super) fn new(
        own: Option<&Arc<str>>,
        pods: &[PodPeer],
        blocks: &[IpBlock],
        nodes: Vec<LabelSelector>,
    ) -> Option<Self> {
        if pods.is_empty() && blocks.is_empty() && nodes.is_empty() {
            return None;
        }
        let pods = pods.iter().filter_map(|peer| {
            let namespaces = match &peer.namespaces {
                NamespaceScope::Own => Namespaces::One(own?.clone()),
                NamespaceScope::Matching(selector) => Namespaces::Matching(selector.clone()),
            };
            Some(Pods { namespaces, labels: Arc::new(peer.pods.clone()) })
        });
        let (pods, nodes): (BTreeSet<_>, BTreeSet<_>) = (pods.collect(), nodes.into_iter().collect());
        let ranges = ranges::of_blocks(blocks);
        let content = pods.iter().map(|pods| format!("{pods:?}"));
        let content = content.chain(ranges.iter().map(|range| format!("{range:?}")));
        let content = content.chain(nodes.iter().map(|nodes| format!("{nodes:?}")));
        let id = PeerSetId(Digest::of(content));
        Some(Self { id, pods, ranges, nodes })
    }

    pub(super) fn id(&self) -> PeerSetId {
        self.id
    }

    /// The addresses of its blocks, and of the nodes that it selects.
    fn ranges(&self, world: &World) -> AddressRanges {
        let mut ranges = self.ranges.clone();
        for address in self.nodes.iter().flat_map(|selector| world.addresses_of_nodes(selector)) {
            ranges.insert(address..=address);
        }
        ranges
    }

    /// The selectors that pods of a namespace have to match, and whether it is known that the set looks into that.
    fn selectors_in<'a>(
        &'a self,
        world: &'a World,
        namespace: &'a Arc<str>,
    ) -> impl Iterator<Item = (&'a Arc<LabelSelector>, bool)> {
        self.pods.iter().filter_map(move |pods| {
            let certain = match &pods.namespaces {
                Namespaces::One(one) => (one == namespace).then_some(true),
                Namespaces::Matching(selector) => world.selects(selector, namespace),
            };
            Some((&pods.labels, certain?))
        })
    }
}

/// What rules ask of a member of their peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// Whether one has ports that need no name, or does without.
    pub(super) plain: bool,
    /// The names of ports that are resolved on the member.
    pub(super) names: BTreeSet<PortName>,
    /// Whether one asks for pods that are perhaps members.
    pub(super) perhaps: bool,
}

/// The sets that rules use.
#[derive(Default)]
pub(super) struct PeerSets {
    sets: HashMap<PeerSetId, Used>,
    /// The selectors that can match pods of a namespace; worked out when first asked for.
    reaching: HashMap<Arc<str>, Vec<Reaching>>,
}

/// A set, a selector that it has for pods of a namespace, and whether it is known to look into that.
type Reaching = (PeerSetId, Arc<LabelSelector>, bool);

/// A set in use.
struct Used {
    set: Arc<PeerSet>,
    /// The addresses of its blocks and nodes.
    ranges: AddressRanges,
    by: BTreeMap<ChainId, Use>,
    /// How many of these uses are plain.
    plain: usize,
    /// How many of them use each name.
    names: BTreeMap<PortName, usize>,
    /// How many ask for pods that are perhaps members.
    perhaps: usize,
    /// The identities that have members of the set.
    identities: BTreeSet<ChainId>,
}

impl PeerSets {
    /// Has a rule use a set.
    pub(super) fn add(&mut self, world: &World, set: &Arc<PeerSet>, rule: &ChainId, usage: Use) {
        let id = set.id();
        let used = self.sets.entry(id).or_insert_with(|| {
            for (namespace, reaching) in &mut self.reaching {
                let selectors = set.selectors_in(world, namespace);
                reaching.extend(selectors.map(|(selector, certain)| (id, selector.clone(), certain)));
            }
            Used::new(world, set.clone())
        });
        used.add(rule, usage);
    }

    /// Has a rule use a set no more. The set stays until [`Self::drop_unused`].
    pub(super) fn remove(&mut self, id: PeerSetId, rule: &ChainId) {
        if let Some(used) = self.sets.get_mut(&id) {
            used.remove(rule);
        }
    }

    /// Drops a set that no rule uses.
    pub(super) fn drop_unused(&mut self, id: PeerSetId) {
        if self.sets.get(&id).is_some_and(|used| used.by.is_empty()) {
            self.sets.remove(&id);
            self.reaching.values_mut().for_each(|reaching| reaching.retain(|(set, ..)| *set != id));
        }
    }

    /// What rules ask of the members of a set; `None` if none uses it.
    pub(super) fn asked(&self, id: PeerSetId) -> Option<Use> {
        let used = self.sets.get(&id).filter(|used| !used.by.is_empty())?;
        let names = used.names.keys().cloned().collect();
        Some(Use { plain: used.plain > 0, names, perhaps: used.perhaps > 0 })
    }

    /// The addresses of a set's blocks and nodes; none if no rule uses it.
    pub(super) fn ranges(&self, id: PeerSetId) -> AddressRanges {
        let used = self.sets.get(&id).filter(|used| !used.by.is_empty());
        used.map(|used| used.ranges.clone()).unwrap_or_default()
    }

    /// The sets whose nodes have other addresses now than they are known to have.
    pub(super) fn moved(&self, world: &World) -> Vec<PeerSetId> {
        let of_nodes = self.sets.iter().filter(|(_, used)| !used.set.nodes.is_empty());
        let moved = of_nodes.filter(|(_, used)| used.ranges != used.set.ranges(world));
        moved.map(|(id, _)| *id).collect()
    }

    /// Takes in which addresses the nodes of a set have now.
    pub(super) fn move_nodes(&mut self, world: &World, id: PeerSetId) {
        if let Some(used) = self.sets.get_mut(&id) {
            used.ranges = used.set.ranges(world);
        }
    }

    /// The rules that use a set.
    pub(super) fn rules(&self, id: PeerSetId) -> impl Iterator<Item = &ChainId> {
        self.sets.get(&id).into_iter().flat_map(|used| used.by.keys())
    }

    /// The identities that have members of a set.
    pub(super) fn identities(&self, id: PeerSetId) -> impl Iterator<Item = &ChainId> {
        self.sets.get(&id).into_iter().flat_map(|used| &used.identities)
    }

    /// Notes that an identity has members of some sets.
    pub(super) fn note_identity(&mut self, chain: &ChainId, sets: impl Iterator<Item = PeerSetId>) {
        for id in sets {
            if let Some(used) = self.sets.get_mut(&id) {
                used.identities.insert(chain.clone());
            }
        }
    }

    /// Notes that an identity is gone.
    pub(super) fn forget_identity(&mut self, chain: &ChainId, sets: impl Iterator<Item = PeerSetId>) {
        for id in sets {
            if let Some(used) = self.sets.get_mut(&id) {
                used.identities.remove(chain);
            }
        }
    }

    /// Forgets what can match pods of a namespace: its labels have changed.
    pub(super) fn forget_namespace(&mut self, namespace: &Arc<str>) {
        self.reaching.remove(namespace);
    }

    /// Hands on the addresses of pods that a set names, if it is in use, and that such a pod is in it, if it lives and a
    /// rule that uses the set asks for it.
    pub(super) fn for_each_member(
        &self,
        world: &World,
        id: PeerSetId,
        mut each: impl FnMut(IpAddr, Option<Member>),
    ) {
        let Some(used) = self.sets.get(&id).filter(|used| !used.by.is_empty()) else { return };
        for namespace in world.namespaces_with_pods() {
            let selectors: Vec<_> = used.set.selectors_in(world, namespace).collect();
            if selectors.is_empty() {
                continue;
            }
            for pod in world.pods_in(namespace) {
                let matching = selectors.iter().filter(|(selector, _)| selector.matches(&pod.labels));
                let Some(certain) = matching.map(|(_, certain)| *certain).max() else { continue };
                let member = used.member(id, pod, certain);
                for address in &pod.addresses {
                    each(*address, member.clone().filter(|_| world.may_have(pod, *address)));
                }
            }
        }
        for address in used.ranges.iter().flat_map(|range| world.claimed_in(range)) {
            if let Some(pod) = world.claimants(address).next() {
                each(address, used.member(id, pod, true));
            }
        }
    }

    /// The sets that an address is in if a pod has it, sorted; `in_blocks` are those whose blocks have it.
    pub(super) fn members(
        &mut self,
        world: &World,
        pod: &Pod,
        in_blocks: impl Iterator<Item = PeerSetId>,
    ) -> Vec<Member> {
        let namespace = &pod.name.namespace;
        let sets = &self.sets;
        let reaching = self.reaching.entry(namespace.clone()).or_insert_with(|| {
            let selectors = sets.iter().flat_map(|(id, used)| {
                let selectors = used.set.selectors_in(world, namespace);
                selectors.map(|(selector, certain)| (*id, selector.clone(), certain))
            });
            selectors.collect()
        });
        let by_labels = reaching.iter().filter(|(_, selector, _)| selector.matches(&pod.labels));
        let mut certain: BTreeMap<PeerSetId, bool> = BTreeMap::new();
        for (id, is_certain) in
            by_labels.map(|(id, _, certain)| (*id, *certain)).chain(in_blocks.map(|id| (id, true)))
        {
            *certain.entry(id).or_default() |= is_certain;
        }
        let members = certain.into_iter().filter_map(|(id, certain)| sets.get(&id)?.member(id, pod, certain));
        members.collect()
    }
}

impl Used {
    fn new(world: &World, set: Arc<PeerSet>) -> Self {
        let (by, names, identities) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { ranges: set.ranges(world), set, by, plain: 0, names, perhaps: 0, identities }
    }

    fn add(&mut self, rule: &ChainId, usage: Use) {
        self.plain += usize::from(usage.plain);
        self.perhaps += usize::from(usage.perhaps);
        for name in &usage.names {
            *self.names.entry(name.clone()).or_default() += 1;
        }
        self.by.insert(rule.clone(), usage);
    }

    fn remove(&mut self, rule: &ChainId) {
        let Some(usage) = self.by.remove(rule) else { return };
        self.plain -= usize::from(usage.plain);
        self.perhaps -= usize::from(usage.perhaps);
        for name in &usage.names {
            if let Some(count) = self.names.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.names.remove(name);
                }
            }
        }
    }

    fn member(&self, id: PeerSetId, pod: &Pod, certain: bool) -> Option<Member> {
        if !certain && self.perhaps == 0 {
            return None;
        }
        let mut named = Resolved::new();
        for name in self.names.keys() {
            let (protocol, text) = name;
            named.extend(pod.resolve(text, *protocol).map(|number| (name.clone(), number)));
        }
        named.sort_unstable();
        named.dedup();
        (self.plain > 0 || !named.is_empty()).then_some(Member { set: id, named, certain })
    }
}
