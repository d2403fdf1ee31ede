//! One direction of the node's policies.
//!
//! An update goes down the list of the modules: which pods are isolated and by which policies
//! ([`subjects`]), whom the rules of those policies name ([`peers`]), what each of the named may reach
//! ([`pairs`]), what happens to the rest ([`isolation`]), and what is open towards the own node ([`own_node`]).

mod at_doors;
mod isolation;
mod own_node;
mod pairs;
mod peers;
pub(super) mod subjects;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::access::Access;
use super::draft::Draft;
use super::rule::{ActiveRule, Crowd, Grants, Identity, access};
use super::world::{Changed, World};
use crate::model::{Direction, IpBlock, LabelSelector, NetworkPolicy, ObjectName};
use crate::ruleset::{ChainName, Element};
use subjects::{Isolated, Subject, SubjectName};

/// Everything that is known of one direction.
pub(super) struct Side {
    direction: Direction,
    /// What is isolated on the node.
    subjects: BTreeMap<SubjectName, Subject>,
    /// The policies that isolate any of it.
    active: BTreeMap<ObjectName, Active>,
    /// The rules of the active policies.
    rules: BTreeMap<ChainName, ActiveRule>,
    /// Whether one of them names every pod of the cluster.
    names_all_pods: bool,
    /// The blocks that those rules name.
    blocks: Vec<(IpBlock, ChainName)>,
    /// The rules that can name a pod of a namespace; worked out when first asked for.
    reaching: HashMap<Arc<str>, Arc<[Reaching]>>,
    /// The identity of every pod address that a rule names.
    peers: HashMap<IpAddr, Arc<Identity>>,
    /// Every identity in use, by its chain.
    identities: HashMap<ChainName, Arc<Identity>>,
    /// The isolated pods that came, went or changed in the last update.
    changed_subjects: BTreeSet<ObjectName>,
    /// What the last update looked at anew.
    regranted: Regranted,
}

/// The addresses to which the rules may grant something else than before.
#[derive(Default)]
pub(super) struct Regranted {
    /// Those of pods.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Those that belong to no pod are in one of these blocks.
    blocks: Vec<IpNet>,
}

impl Regranted {
    pub(super) fn concerns(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.blocks.iter().any(|block| block.contains(&address))
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.addresses.extend(other.addresses);
        self.blocks.extend(other.blocks);
    }
}

#[derive(Default)]
struct Active {
    /// `None` from the arrival of the first subject until the rules are made.
    policy: Option<Arc<NetworkPolicy>>,
    subjects: BTreeSet<SubjectName>,
}

/// A rule that names those pods of a namespace whose labels match.
struct Reaching {
    rule: ChainName,
    selector: Arc<LabelSelector>,
}

/// What one update has found out so far.
#[derive(Default)]
struct Pass {
    /// Subjects that came, went or changed, with what they were before.
    subjects: BTreeMap<SubjectName, Option<Subject>>,
    /// Policies that became active or inactive or have other contents: as they were and as they are.
    policies: Vec<Arc<NetworkPolicy>>,
    /// Identities that no address had before.
    identities: Vec<Arc<Identity>>,
}

impl Side {
    pub(super) fn new(direction: Direction) -> Self {
        Self {
            direction,
            subjects: BTreeMap::new(),
            active: BTreeMap::new(),
            rules: BTreeMap::new(),
            names_all_pods: false,
            blocks: Vec::new(),
            reaching: HashMap::new(),
            peers: HashMap::new(),
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
        self.update_blocks(draft, &mut pass);
        self.update_pairs(draft, &pass);
        self.update_isolation(draft, &pass);
        self.update_own_node(draft, &pass);
        let pods = pass.subjects.into_keys().filter_map(|name| match name {
            SubjectName::Pod(pod) => Some(pod),
            SubjectName::Shared(_) => None,
        });
        self.changed_subjects = pods.collect();
    }

    pub(super) fn names_all_pods(&self) -> bool {
        self.names_all_pods
    }

    /// Forgets identities whose chains nothing leads to any more.
    pub(super) fn forget(&mut self, collected: &[ChainName]) {
        for chain in collected {
            let Some(identity) = self.identities.remove(chain) else { continue };
            for rule in identity.grants.rules() {
                if let Some(rule) = self.rules.get_mut(rule) {
                    rule.identities.remove(chain);
                }
            }
        }
    }
}

impl Side {
    /// What the rules that isolate a pod allow between it and whoever has these grants and is one of these crowds: what
    /// is granted to all who may have the other end's address.
    fn access(&self, pod: &Isolated, grants: &Grants, crowds: &[Crowd]) -> Option<Access> {
        let rules = || pod.rules.iter().filter_map(|chain| Some((chain, self.rules.get(chain)?)));
        Access::common(grants.each().map(|grants| access(self.direction, &pod.pod, rules(), grants, crowds)))
    }
}

/// An element of a verdict map.
fn goto(chain: &ChainName) -> Element {
    Element { target: Some(chain.clone()), comment: None }
}
