//! The addresses of all pods, for rules that let every pod of the cluster in or out.
//!
//! Such rules are common (a port for metrics, the cluster's DNS). As part of the identities they would put each
//! pod of the cluster into a verdict map, and whenever an element that leads to a chain is added, the kernel
//! walks all verdict maps of the table (`nft_chain_validate`). In a plain set a pod costs next to nothing.

use super::draft::Draft;
use super::world::{Changed, World};
use crate::model::Family;
use crate::ruleset::{Element, ElementKey, SetRole};

/// Whether the sets of all pods are in use.
#[derive(Default)]
pub(super) struct AllPods {
    listed: bool,
}

impl AllPods {
    /// Brings the sets in step with the world; they are empty unless `named`: some rule names all pods.
    pub(super) fn update(&mut self, world: &World, changed: &Changed, named: bool, draft: &mut Draft) {
        if std::mem::replace(&mut self.listed, named) == named {
            if named {
                for address in &changed.addresses {
                    draft.list_address(
                        &SetRole::Pods(Family::of(*address)).into(),
                        *address,
                        world.is_claimed(*address),
                    );
                }
            }
            return;
        }
        for family in Family::BOTH {
            let addresses =
                world.claimed_addresses().filter(|address| named && Family::of(*address) == family);
            let elements = addresses.map(|address| (ElementKey::Address(address), Element::BARE));
            draft.replace_elements(&SetRole::Pods(family).into(), elements.collect());
        }
    }
}
