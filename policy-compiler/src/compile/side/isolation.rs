//! What happens to a packet of a judged pod about which no rule with peers decides.

use std::net::IpAddr;

use super::pairs::Groups;
use super::subjects::Subject;
use super::{Pass, Side};
use crate::compile::counted::comment;
use crate::compile::draft::Draft;
use crate::compile::shared_rules::rule;
use crate::compile::verdicts::{self, Rest};
use crate::compile::world::World;
use crate::model::Family;
use crate::ruleset::{ChainId, Element, ElementKey, Fields, Rule, SetId, SetRole, Statement, Verdict};

impl Side {
    pub(super) fn update_isolation<'a>(&'a self, draft: &mut Draft, pass: &'a Pass, groups: &mut Groups<'a>) {
        // All removals come first: an address may have moved from one subject to another.
        for address in pass.subjects.values().flatten().flat_map(|old| &old.addresses) {
            draft.remove_element(&self.isolated(*address), ElementKey::Address(*address));
            draft.remove_element(&self.itself(*address), ElementKey::AddressPair(*address, *address));
        }
        for (name, subject) in pass.subjects.keys().filter_map(|name| self.subjects.get_key_value(name)) {
            if let Some(chain) = groups.of(self, draft, name, subject).put_unnamed(draft, true) {
                self.isolate(draft, subject, &chain);
            }
        }
    }

    fn isolate(&self, draft: &mut Draft, subject: &Subject, chain: &ChainId) {
        let pods: Vec<_> = subject.pods.iter().map(|judged| judged.pod.name.to_string()).collect();
        let pod = comment(&pods.join(", "));
        for address in &subject.addresses {
            let element = Element { target: Some(chain.clone()), comment: Some(pod.clone().into()) };
            draft.put_element(&self.isolated(*address), ElementKey::Address(*address), element);
            if subject.is_isolated() {
                let oneself = ElementKey::AddressPair(*address, *address);
                draft.put_element(&self.itself(*address), oneself, Element::BARE);
            }
        }
    }

    /// Makes sure of the chain of the isolation, which pods have in common that the same policies isolate.
    pub(super) fn put_rest(&self, world: &World, draft: &mut Draft, subject: &Subject) -> Rest {
        if !subject.is_isolated() {
            return Rest::NONE;
        }
        let left_alone = self.left_alone(world, draft, subject);
        let mut body = left_alone.clone();
        let audited = subject.is_audited();
        if !audited {
            body.extend(verdicts::to_untracked(draft, self.direction));
        }
        let policies: Vec<_> = subject.isolating().map(|policy| &policy.name).collect();
        let isolation = verdicts::put_isolation(draft, self.direction, audited, body, &policies);
        Rest { isolation: Some(isolation), left_alone }
    }

    /// The rules that let pass what no policy of a namespace judges: a pod that reaches itself, as it does through a Service,
    /// and what goes to the own node.
    fn left_alone(&self, world: &World, draft: &mut Draft, subject: &Subject) -> Vec<Rule> {
        let itself = Family::BOTH.map(|family| {
            let fields = Fields::SourceAndDestination(family);
            let is_itself = Statement::InSet(fields, SetRole::Itself(self.direction, family).into());
            rule([is_itself], Verdict::Return)
        });
        let to_node = self.let_through_to_node(world, draft, subject);
        itself.into_iter().chain(to_node).collect()
    }

    fn isolated(&self, address: IpAddr) -> SetId {
        SetRole::Isolated(self.direction, Family::of(address)).into()
    }

    fn itself(&self, address: IpAddr) -> SetId {
        SetRole::Itself(self.direction, Family::of(address)).into()
    }
}
