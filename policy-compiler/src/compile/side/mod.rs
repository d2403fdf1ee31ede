//! One direction of the node's policies.
//!
//! An update goes down the list of the modules: which pods are judged and by which policies ([`subjects`]), whom the
//! rules of those policies name ([`peers`]), what becomes of packets between the two ([`pairs`]), what happens to the
//! rest ([`isolation`]), and whether what goes to the own node is judged ([`own_node`]).

mod at_doors;
mod isolation;
mod own_node;
mod pairs;
mod peers;
pub(super) mod subjects;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::draft::Draft;
use super::identity::Identity;
use super::peer_set::{PeerSetId, PeerSets, Use};
use super::policies::Policy;
use super::ranges::{AddressMap, AddressRanges};
use super::rule::ActiveRule;
use super::tiers::{AnyOf, Isolation, Tiers};
use super::world::{Changed, World};
use crate::model::{Direction, ObjectName, PolicyName};
use crate::ruleset::{ChainId, Digest, Element};
use pairs::Groups;
use peers::Known;
use subjects::{Judged, Subject, SubjectName};

/// Everything that is known of one direction.
pub(super) struct Side {
    direction: Direction,
    /// What is judged on the node.
    subjects: BTreeMap<SubjectName, Subject>,
    /// The policies that judge any of it.
    active: BTreeMap<PolicyName, Active>,
    /// The rules of the active policies.
    rules: BTreeMap<ChainId, ActiveRule>,
    /// Whether one of them names every pod of the cluster.
    names_all_pods: bool,
    /// The peers that those rules name.
    peer_sets: PeerSets,
    /// The identity of every pod address that a rule names.
    peers: HashMap<IpAddr, Arc<Identity>>,
    /// The identity of every address in a block of a rule, if it belongs to no pod.
    pieces: AddressMap<Arc<Identity>>,
    /// Every identity in use, by its chain.
    identities: HashMap<ChainId, Known>,
    /// The judged pods that came, went or changed in the last update.
    changed_subjects: BTreeSet<ObjectName>,
    /// What the last update looked at anew.
    regranted: Regranted,
}

/// The addresses to which the rules may grant something else than before.
#[derive(Default)]
pub(super) struct Regranted {
    /// Those of pods.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Those in these ranges, if they belong to no pod.
    ranges: AddressRanges,
}

impl Regranted {
    pub(super) fn concerns(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.ranges.contains(&address)
    }

    fn insert_range(&mut self, range: &RangeInclusive<IpAddr>) {
        self.ranges.insert(range.clone());
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.addresses.extend(other.addresses);
        other.ranges.iter().for_each(|range| self.insert_range(range));
    }
}

#[derive(Default)]
struct Active {
    /// `None` from the arrival of the first subject until the rules are made.
    policy: Option<Policy>,
    subjects: BTreeSet<SubjectName>,
}

/// A set of peers that rules use otherwise than before.
struct InQuestion {
    /// What rules asked of its members before.
    before: Option<Use>,
    /// The addresses of its blocks and nodes before.
    ranges: AddressRanges,
    /// The identities that had members of it.
    identities: BTreeSet<ChainId>,
}

/// What one update has found out so far.
#[derive(Default)]
struct Pass {
    /// Subjects that came, went or changed, with what they were before.
    subjects: BTreeMap<SubjectName, Option<Subject>>,
    /// The rules of policies that became inactive or have other contents now, with the peers that they had.
    rules: HashMap<ChainId, Option<PeerSetId>>,
    /// The sets of peers that rules use otherwise now.
    peer_sets: BTreeMap<PeerSetId, InQuestion>,
    /// Identities that no address had before.
    identities: Vec<Arc<Identity>>,
    /// What the rules may grant otherwise than before.
    regranted: Regranted,
}

impl Side {
    pub(super) fn new(direction: Direction) -> Self {
        Self {
            direction,
            subjects: BTreeMap::new(),
            active: BTreeMap::new(),
            rules: BTreeMap::new(),
            names_all_pods: false,
            peer_sets: PeerSets::default(),
            peers: HashMap::new(),
            pieces: AddressMap::default(),
            identities: HashMap::new(),
            changed_subjects: BTreeSet::new(),
            regranted: Regranted::default(),
        }
    }

    /// Brings this direction's part of the draft in step with the world.
    pub(super) fn update(&mut self, world: &World, changed: &Changed, draft: &mut Draft) {
        let mut pass = Pass::default();
        self.update_subjects(world, changed, &mut pass);
        self.update_rules(world, changed, draft, &mut pass);
        self.update_peers(world, changed, draft, &mut pass);
        let mut groups = Groups::new(world);
        self.update_pairs(draft, &pass, &mut groups);
        self.update_isolation(draft, &pass, &mut groups);
        self.update_own_node(world, draft, &pass);
        let pods = pass.subjects.into_keys().filter_map(|name| match name {
            SubjectName::Pod(pod) => Some(pod),
            SubjectName::Shared(_) => None,
        });
        self.changed_subjects = pods.collect();
        self.regranted = pass.regranted;
    }

    pub(super) fn names_all_pods(&self) -> bool {
        self.names_all_pods
    }

    /// Forgets identities whose chains nothing leads to any more.
    pub(super) fn forget(&mut self, collected: &[ChainId]) {
        for chain in collected {
            if let Some(Known { identity, .. }) = self.identities.remove(chain) {
                self.peer_sets.forget_identity(chain, identity.membership.sets());
            }
        }
    }
}

impl Side {
    /// The rules that judge a pod, and what stands behind those of its NetworkPolicies.
    fn tiers<'a>(&'a self, pod: &'a Judged, isolation: Isolation) -> Tiers<'a> {
        let rules =
            pod.rules.iter().filter_map(|(chain, certain)| Some((chain, self.rules.get(chain)?, *certain)));
        Tiers::new(self.direction, &pod.pod, rules, isolation)
    }

    /// What stands for all subjects that are judged alike.
    fn key_of(&self, subject: &Subject) -> Digest {
        Digest::of(
            subject.pods.iter().map(|pod| format!("{} {:?}", self.group_key(pod), subject.isolation(pod))),
        )
    }

    /// The rules that judge each pod of a subject.
    fn tiers_of<'a>(&'a self, subject: &'a Subject) -> AnyOf<'a> {
        AnyOf(subject.pods.iter().map(|pod| self.tiers(pod, subject.isolation(pod))).collect())
    }
}

/// An element of a verdict map.
fn goto(chain: &ChainId) -> Element {
    Element { target: Some(chain.clone()), comment: None }
}
