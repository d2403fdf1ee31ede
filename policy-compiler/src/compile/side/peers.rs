//! Whom the rules name: addresses of pods one by one, all others by blocks.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Pass, Reaching, Regranted, Side, goto};
use crate::compile::blocks;
use crate::compile::draft::Draft;
use crate::compile::rule::{ActiveRule, Grant, Grants, Identity};
use crate::compile::skeleton;
use crate::compile::world::{Changed, World};
use crate::model::{Family, LabelSelector, Pod};
use crate::ruleset::{ChainName, ElementKey};

impl Side {
    pub(super) fn update_peers(
        &mut self,
        world: &World,
        changed: &Changed,
        draft: &mut Draft,
        pass: &mut Pass,
    ) {
        for namespace in &changed.namespaces {
            self.reaching.remove(namespace);
        }
        let regranted = self.addresses_in_question(world, changed, pass);
        for address in regranted.addresses.iter().copied() {
            let grants = self.grants(world, address);
            let new = (!grants.is_empty()).then(|| self.identity(grants, pass));
            if self.peers.get(&address).map(|old| &old.chain) == new.as_ref().map(|new| &new.chain) {
                continue;
            }
            let set = skeleton::peers(self.direction, Family::of(address));
            let key = ElementKey::Address(address);
            if let Some(identity) = new {
                draft.put_element(&set, key, goto(&identity.chain));
                self.peers.insert(address, identity);
            } else {
                draft.remove_element(&set, key);
                self.peers.remove(&address);
            }
        }
        self.regranted = regranted;
    }

    /// The addresses that the rules may name otherwise than before.
    fn addresses_in_question(&self, world: &World, changed: &Changed, pass: &Pass) -> Regranted {
        let of_pods = changed.pods.iter().filter_map(|name| world.pod(name));
        let of_namespaces = changed.namespaces.iter().flat_map(|namespace| world.pods_in(namespace));
        let pods = of_pods.chain(of_namespaces);
        let mut addresses: BTreeSet<IpAddr> = pods.flat_map(|pod| pod.addresses.iter().copied()).collect();
        addresses.extend(&changed.addresses);
        let mut blocks = Vec::new();
        for policy in &pass.policies {
            for rule in policy.rules(self.direction).unwrap_or_default() {
                let rule = ActiveRule::new(self.direction, &policy.name, rule);
                for namespace in world.namespaces_with_pods() {
                    let selectors: Vec<_> = self.selectors(&rule, world, namespace).collect();
                    let named =
                        |pod: &&Arc<Pod>| selectors.iter().any(|selector| selector.matches(&pod.labels));
                    let pods = (!selectors.is_empty()).then(|| world.pods_in(namespace).filter(named));
                    addresses
                        .extend(pods.into_iter().flatten().flat_map(|pod| pod.addresses.iter().copied()));
                }
                blocks.extend(rule.blocks.into_iter().map(|block| block.cidr));
            }
        }
        if !blocks.is_empty() {
            let inside = |address: &IpAddr| blocks.iter().any(|block: &IpNet| block.contains(address));
            addresses.extend(world.claimed_addresses().filter(inside));
        }
        Regranted { addresses, blocks }
    }

    /// The selectors by which the rule names pods of a namespace otherwise than by their addresses.
    fn selectors(
        &self,
        rule: &ActiveRule,
        world: &World,
        namespace: &Arc<str>,
    ) -> impl Iterator<Item = Arc<LabelSelector>> {
        let in_scope = rule.pods.iter().filter(|(scope, _)| world.in_scope(scope, &rule.policy, namespace));
        let by_port = rule.names_by_port(self.direction).then(|| Arc::new(LabelSelector::everything()));
        in_scope.map(|(_, selector)| selector.clone()).chain(by_port)
    }

    fn reaching(&mut self, world: &World, namespace: &Arc<str>) -> Arc<[Reaching]> {
        if let Some(reaching) = self.reaching.get(namespace) {
            return reaching.clone();
        }
        let mut reaching = Vec::new();
        for (chain, rule) in &self.rules {
            let selectors = self.selectors(rule, world, namespace);
            reaching.extend(selectors.map(|selector| Reaching { rule: chain.clone(), selector }));
        }
        let reaching: Arc<[Reaching]> = reaching.into();
        self.reaching.insert(namespace.clone(), reaching.clone());
        reaching
    }

    /// What the rules grant to the pods that show an address.
    pub(in crate::compile) fn grants(&mut self, world: &World, address: IpAddr) -> Grants {
        Grants::to_each(world.claimants(address).map(|pod| self.grants_to(world, address, pod)))
    }

    /// What the rules grant to an address if a pod has it, sorted by rule.
    pub(in crate::compile) fn grants_to(
        &mut self,
        world: &World,
        address: IpAddr,
        owner: &Pod,
    ) -> Vec<Grant> {
        let reaching = self.reaching(world, &owner.name.namespace);
        let by_labels = reaching.iter().filter(|reaching| reaching.selector.matches(&owner.labels));
        let by_block = self.blocks.iter().filter(|(block, _)| block.contains(address));
        let naming: BTreeSet<&ChainName> =
            by_labels.map(|reaching| &reaching.rule).chain(by_block.map(|(_, chain)| chain)).collect();
        let rules = naming.into_iter().filter_map(|chain| Some((chain, self.rules.get(chain)?)));
        rules.filter_map(|(chain, rule)| rule.grant(self.direction, chain, Some(owner))).collect()
    }

    /// The identity with these grants, made known to the rules if it is new.
    fn identity(&mut self, grants: Grants, pass: &mut Pass) -> Arc<Identity> {
        let identity = Identity::new(self.direction, grants);
        if let Some(known) = self.identities.get(&identity.chain) {
            return known.clone();
        }
        let identity = Arc::new(identity);
        for rule in identity.grants.rules() {
            if let Some(rule) = self.rules.get_mut(rule) {
                rule.identities.insert(identity.chain.clone());
            }
        }
        self.identities.insert(identity.chain.clone(), identity.clone());
        pass.identities.push(identity.clone());
        identity
    }

    /// Cuts the blocks of all rules anew, if a policy that changed has any.
    pub(super) fn update_blocks(&mut self, draft: &mut Draft, pass: &mut Pass) {
        let mut rules =
            pass.policies.iter().flat_map(|policy| policy.rules(self.direction).unwrap_or_default());
        if !rules.any(|rule| rule.blocks().next().is_some()) {
            return;
        }
        for family in Family::BOTH {
            let blocks = self.blocks.iter().filter(|(_, chain)| self.grant_to_outsider(chain).is_some());
            let mut elements = Vec::new();
            for piece in blocks::pieces(family, blocks.map(|(block, chain)| (block, chain))) {
                let grants = self.grants_to_outsider(&piece.members);
                let identity = self.identity(grants, pass);
                elements.push((ElementKey::AddressRange(piece.first, piece.last), goto(&identity.chain)));
            }
            draft.replace_elements(&skeleton::blocks(self.direction, family), elements.into_iter().collect());
        }
    }

    /// What rules grant to an address in their blocks that belongs to no pod; the rules are sorted.
    pub(super) fn grants_to_outsider(&self, chains: &BTreeSet<ChainName>) -> Grants {
        Grants::to_one(chains.iter().filter_map(|chain| self.grant_to_outsider(chain)).collect())
    }

    /// What a rule grants to an address in its blocks that belongs to no pod.
    fn grant_to_outsider(&self, chain: &ChainName) -> Option<Grant> {
        self.rules.get(chain)?.grant(self.direction, chain, None)
    }
}
