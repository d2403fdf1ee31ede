//! What happens to a packet of a judged pod about which no rule with peers decides.

use std::net::IpAddr;

use super::subjects::Subject;
use super::{Pass, Side};
use crate::compile::counted::{comment, isolation_comment};
use crate::compile::draft::Draft;
use crate::compile::identity::Holder;
use crate::compile::shared_rules::{self, go, rule};
use crate::compile::verdicts::{self, Rest};
use crate::compile::world::World;
use crate::model::{Direction, Family, ObjectName};
use crate::ruleset::{
    ChainId, ChainRole, Digest, Element, ElementKey, Fields, LogEvent, LogPrefix, Rule, SetId, SetRole,
    Statement, Verdict,
};

impl Side {
    pub(super) fn update_isolation(&self, world: &World, draft: &mut Draft, pass: &Pass) {
        // All removals come first: an address may have moved from one subject to another.
        for address in pass.subjects.values().flatten().flat_map(|old| &old.addresses) {
            draft.remove_element(&self.isolated(*address), ElementKey::Address(*address));
            draft.remove_element(&self.itself(*address), ElementKey::AddressPair(*address, *address));
        }
        for subject in pass.subjects.keys().filter_map(|name| self.subjects.get(name)) {
            self.isolate(world, draft, subject);
        }
    }

    fn isolate(&self, world: &World, draft: &mut Draft, subject: &Subject) {
        let Some(chain) = self.put_subject(world, draft, subject) else { return };
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

    /// Makes sure of the chain of packets whose peer no rule names: what is decided for everybody, for a family and for all
    /// pods, and then the isolation. `None` if they are all allowed, and nothing counts them.
    fn put_subject(&self, world: &World, draft: &mut Draft, subject: &Subject) -> Option<ChainId> {
        let rest = self.put_rest(world, draft, subject);
        let tiers = self.tiers_of(subject);
        let holders = (Holder::Outsider, true);
        let mut body = verdicts::for_unnamed(draft, self.direction, &tiers, holders, &rest);
        if body.is_empty() {
            return rest.isolation;
        }
        body.extend(rest.isolation.map(|isolation| go(Verdict::Goto(isolation))));
        let group = Digest::of(body.iter().map(ToString::to_string));
        let name = ChainRole::Subject(self.direction, group).into();
        draft.put_chain(&name, None, body);
        Some(name)
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
        let isolation = put_isolation(draft, self.direction, audited, body, &policies);
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

/// Makes sure of a chain that begins with these rules, and then denies or audits what pods send or get that these policies
/// isolate.
pub(in crate::compile) fn put_isolation(
    draft: &mut Draft,
    direction: Direction,
    audited: bool,
    mut rules: Vec<Rule>,
    policies: &[&ObjectName],
) -> ChainId {
    let (event, verdict) =
        if audited { (LogEvent::Audited, verdicts::allow(draft)) } else { (LogEvent::Denied, Verdict::Drop) };
    rules.push(shared_rules::log(LogPrefix::Judged { direction, event }));
    let rest = rule([Statement::Counter], verdict);
    rules.push(rest.comment(isolation_comment(audited, policies.iter().copied())));
    let policies = policies.iter().map(ToString::to_string);
    let group = Digest::of(rules.iter().map(ToString::to_string).chain(policies));
    let name = ChainRole::Isolation { direction, audited, group }.into();
    draft.put_chain(&name, None, rules);
    name
}
