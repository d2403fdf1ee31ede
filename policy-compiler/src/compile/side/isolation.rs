//! What happens to a packet of an isolated pod that no rule with peers has let through.

use std::net::IpAddr;

use super::subjects::{Isolated, Subject};
use super::{Pass, Side};
use crate::compile::access::Access;
use crate::compile::counted::{comment, isolation_comment};
use crate::compile::draft::Draft;
use crate::compile::identity::Membership;
use crate::compile::rule::Crowd;
use crate::compile::shared_rules::{self, rule};
use crate::model::{Direction, Family};
use crate::ruleset::{
    ChainId, ChainRole, Digest, Element, ElementKey, Fields, LogEvent, Rule, SetId, SetRole, Statement,
    Verdict,
};

impl Side {
    pub(super) fn update_isolation(&self, draft: &mut Draft, pass: &Pass) {
        // All removals come first: an address may have moved from one subject to another.
        for address in pass.subjects.values().flatten().flat_map(|old| &old.addresses) {
            draft.remove_element(&self.isolated(*address), ElementKey::Address(*address));
            draft.remove_element(&self.itself(*address), ElementKey::AddressPair(*address, *address));
        }
        for subject in pass.subjects.keys().filter_map(|name| self.subjects.get(name)) {
            self.isolate(draft, subject);
        }
    }

    fn isolate(&self, draft: &mut Draft, subject: &Subject) {
        let chain = self.put_isolation(draft, subject);
        let pods: Vec<_> = subject.pods.iter().map(|isolated| isolated.pod.name.to_string()).collect();
        let pod = comment(&pods.join(", "));
        for address in &subject.addresses {
            let element = Element { target: Some(chain.clone()), comment: Some(pod.clone().into()) };
            draft.put_element(&self.isolated(*address), ElementKey::Address(*address), element);
            let oneself = ElementKey::AddressPair(*address, *address);
            draft.put_element(&self.itself(*address), oneself, Element::BARE);
        }
    }

    /// Makes sure of the chain of a subject's group: the pods that the same policies isolate and that have
    /// the same ports open to everybody and to all pods.
    fn put_isolation(&self, draft: &mut Draft, subject: &Subject) -> ChainId {
        let mut body = Vec::new();
        if let Some(open) = self.opening(draft, subject, Crowd::Everybody) {
            body.push(Rule::new([open]));
        }
        for family in Family::BOTH {
            if let Some(open) = self.opening(draft, subject, Crowd::Family(family)) {
                body.push(Rule::new([Statement::OfFamily(family), open]));
            }
        }
        if let Some(open) = self.opening(draft, subject, Crowd::Pods) {
            body.extend(shared_rules::with_peers(self.direction, SetRole::Pods, &open));
        }
        body.extend(to_itself(self.direction));
        let audited = subject.is_audited();
        if !audited {
            body.push(to_untracked(draft, self.direction));
        }
        let (event, verdict) =
            if audited { (LogEvent::Audited, Verdict::Return) } else { (LogEvent::Denied, Verdict::Drop) };
        body.push(shared_rules::log(self.direction, event));
        let rest = rule([Statement::Counter], verdict);
        let policies = || subject.policies().map(|policy| &policy.name);
        body.push(rest.comment(isolation_comment(audited, policies())));

        let policies = policies().map(ToString::to_string);
        let group = Digest::of(body.iter().map(ToString::to_string).chain(policies));
        let name = ChainRole::Isolation { direction: self.direction, audited, group }.into();
        draft.put_chain(&name, None, body);
        name
    }

    /// Where packets from or to a crowd go on that the subject's rules let through.
    pub(super) fn opening(&self, draft: &mut Draft, subject: &Subject, crowd: Crowd) -> Option<Statement> {
        let access = match subject.pods.as_slice() {
            [pod] => self.crowd_access(pod, crowd)?,
            // It is one address, whose family everybody is of whose packets come here.
            _ if matches!(crowd, Crowd::Family(_)) => return None,
            // One pod's rules may name the crowd where another's name everybody.
            pods => {
                let family = subject.addresses.first().map(|address| Crowd::Family(Family::of(*address)));
                let crowds: Vec<_> = [crowd, Crowd::Everybody].into_iter().chain(family).collect();
                Access::common(pods.iter().map(|pod| self.access(pod, &Membership::none(), &crowds)))?
            }
        };
        Some(self.let_through(draft, &access))
    }

    /// What a pod's rules allow between it and a crowd.
    pub(in crate::compile) fn crowd_access(&self, pod: &Isolated, crowd: Crowd) -> Option<Access> {
        self.access(pod, &Membership::none(), &[crowd])
    }

    fn isolated(&self, address: IpAddr) -> SetId {
        SetRole::Isolated(self.direction, Family::of(address)).into()
    }

    fn itself(&self, address: IpAddr) -> SetId {
        SetRole::Itself(self.direction, Family::of(address)).into()
    }
}

/// Lets a pod reach itself, as it does through a Service.
fn to_itself(direction: Direction) -> [Rule; 2] {
    Family::BOTH.map(|family| {
        let fields = Fields::SourceAndDestination(family);
        let is_itself = Statement::InSet(fields, SetRole::Itself(direction, family).into());
        rule([is_itself], Verdict::Return)
    })
}

/// Leads there, and makes sure of the chain.
///
/// Such a packet may be an answer to one that is allowed, but nothing tells it from a new connection, so it is
/// dropped; by itself, because whoever looks for the reason must look at conntrack and not at the policies.
fn to_untracked(draft: &mut Draft, direction: Direction) -> Rule {
    let drop = rule([Statement::Counter], Verdict::Drop);
    let rules = vec![
        shared_rules::log(direction, LogEvent::Untracked),
        drop.comment("untracked: conntrack does not tell answers from new connections"),
    ];
    draft.put_chain(&ChainRole::Untracked(direction).into(), None, rules);
    rule([Statement::InvalidOrUntracked], Verdict::Goto(ChainRole::Untracked(direction).into()))
}
