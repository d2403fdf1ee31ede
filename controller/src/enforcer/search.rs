//! Which policies the kernel refuses: closing them makes it take the rest.
//!
//! The kernel is only asked ([`Nftables::check_all`]), so no packet meets what is tried.

use std::collections::{BTreeMap, BTreeSet};

use policy_compiler::compile::{Compiler, Counted};
use policy_compiler::model::PolicyName;
use policy_compiler::ruleset::{TableFamily, Transaction};

use super::chain;
use crate::kernel::{Error, Nftables};

/// How often the kernel is asked in one search: two bad policies among 10,000 are found with as many.
const ATTEMPTS: usize = 64;

/// A search.
pub(super) struct Search<'a, K, P> {
    compiler: &'a mut Compiler,
    kernel: &'a mut K,
    /// The way from what the kernel holds to the compiler's rulesets.
    plan: P,
    scope: Scope,
    attempts: usize,
    outcome: Outcome,
}

/// What a search has found.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Why policies are closed that the search has closed or left closed.
    pub(super) reasons: BTreeMap<PolicyName, String>,
    /// Those among them that may be innocent: the kernel has been asked often enough.
    pub(super) untried: Vec<PolicyName>,
}

/// The tables that a search is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Both,
    /// `inet podfence` alone: what is wrong at the doors must not keep it behind.
    Policies,
}

/// The kernel's answer to an attempt.
enum Answer {
    Taken,
    Refused(Error),
}

impl<'a, K: Nftables, P: Fn(&Compiler) -> Vec<Transaction>> Search<'a, K, P> {
    pub(super) fn new(compiler: &'a mut Compiler, kernel: &'a mut K, plan: P) -> Self {
        let outcome = Outcome::default();
        Self { compiler, kernel, plan, scope: Scope::Both, attempts: ATTEMPTS, outcome }
    }

    /// Closes as few policies as the kernel lets be, first of all among those that `changed`. The compiler's rulesets
    /// are then such that the kernel takes them, or at least that of policies.
    ///
    /// # Errors
    ///
    /// Why the kernel refuses the table of policies, if no policy is at fault, and whatever keeps it from answering.
    /// Nothing is closed then that was not before.
    pub(super) fn close(mut self, changed: &BTreeSet<PolicyName>) -> Result<Outcome, Error> {
        let before: BTreeSet<PolicyName> = self.compiler.closed_policies().collect();
        let mut outcome = Ok(None);
        for scope in [Scope::Both, Scope::Policies] {
            (self.scope, self.attempts) = (scope, ATTEMPTS);
            outcome = self.narrow(changed);
            if let Ok(None) = outcome {
                return Ok(self.outcome);
            }
            let closed: Vec<_> = self.compiler.closed_policies().collect();
            self.compiler.open_policies(closed.iter().filter(|policy| !before.contains(*policy)));
            self.update();
            self.outcome = Outcome::default();
        }
        match outcome? {
            Some(error) => Err(error),
            None => Ok(self.outcome),
        }
    }

    /// Opens as many of these closed policies as the kernel lets be.
    ///
    /// # Errors
    ///
    /// What keeps the kernel from answering.
    pub(super) fn open(mut self, closed: Vec<PolicyName>) -> Result<Outcome, Error> {
        self.reopen(closed)?;
        Ok(self.outcome)
    }

    /// Returns why the kernel goes on refusing, if it does.
    fn narrow(&mut self, changed: &BTreeSet<PolicyName>) -> Result<Option<Error>, Error> {
        let mut closed = Vec::new();
        let mut error = match self.attempt()? {
            Answer::Taken => return Ok(None),
            Answer::Refused(error) => error,
        };
        while let Some(policy) = self.named(&error) {
            self.compiler.close_policies([&policy]);
            self.outcome.reasons.insert(policy.clone(), chain(&error));
            closed.push(policy);
            match self.attempt()? {
                Answer::Taken => return Ok(None),
                Answer::Refused(next) => error = next,
            }
        }
        let is_changed = |policy: &PolicyName| changed.contains(policy);
        let suspects: [Vec<PolicyName>; 2] = [
            self.compiler.closable_policies().filter(is_changed).collect(),
            self.compiler.closable_policies().collect(),
        ];
        for suspects in suspects.into_iter().filter(|suspects| !suspects.is_empty()) {
            self.compiler.close_policies(&suspects);
            closed.extend(suspects);
            if let Answer::Taken = self.attempt()? {
                let reason = chain(&error);
                self.outcome.reasons.clear();
                self.outcome.reasons.extend(closed.iter().map(|policy| (policy.clone(), reason.clone())));
                self.attempts = ATTEMPTS;
                self.reopen(closed)?;
                return Ok(None);
            }
        }
        Ok(Some(error))
    }

    /// Opens what the kernel takes, by halves.
    fn reopen(&mut self, policies: Vec<PolicyName>) -> Result<(), Error> {
        let mut groups = vec![policies];
        while let Some(mut group) = groups.pop() {
            if self.attempts == 0 {
                self.outcome.untried.extend(group);
                continue;
            }
            self.compiler.open_policies(&group);
            match self.attempt()? {
                Answer::Taken => group.iter().for_each(|policy| drop(self.outcome.reasons.remove(policy))),
                Answer::Refused(error) => {
                    self.compiler.close_policies(&group);
                    if let [policy] = &*group {
                        self.outcome.reasons.insert(policy.clone(), chain(&error));
                    } else {
                        let half = group.split_off(group.len() / 2);
                        groups.extend([half, group]);
                    }
                }
            }
        }
        self.update();
        Ok(())
    }

    /// The policy that an error names, if it can be closed.
    fn named(&self, error: &Error) -> Option<PolicyName> {
        let policy = match Counted::by(error.chain()?, None)? {
            Counted::Allowed { policy, .. } => PolicyName::Namespaced(policy),
            Counted::Tier { policy, .. } => PolicyName::Cluster(policy),
            _ => return None,
        };
        let is_open = self.compiler.closable_policies().any(|name| name == policy);
        (is_open && self.attempts > 0).then_some(policy)
    }

    /// Asks the kernel whether it would take the compiler's rulesets.
    fn attempt(&mut self) -> Result<Answer, Error> {
        self.update();
        self.attempts = self.attempts.saturating_sub(1);
        let mut transactions = (self.plan)(self.compiler);
        if self.scope == Scope::Policies {
            transactions.retain(|transaction| transaction.table == TableFamily::Inet);
        }
        match self.kernel.check_all(&transactions) {
            Err(error) if error.is_lasting() => Ok(Answer::Refused(error)),
            // A device that is gone is no policy's fault.
            Ok(()) | Err(Error::Refused { .. }) => Ok(Answer::Taken),
            Err(error) => Err(error),
        }
    }

    fn update(&mut self) {
        self.compiler.update();
        self.compiler.update_doors();
    }
}
