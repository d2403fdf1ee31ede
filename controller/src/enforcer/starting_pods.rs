//! Pods that the CNI plugin reports, which wait until they are enforced.

use std::time::Instant;

use podfence_cni::protocol::Sandbox;
use policy_compiler::model::ObjectName;

use super::{Enforcer, Standing};
use crate::boot::Saved;
use crate::doors::DoorKeeper;
use crate::health::Health;
use crate::kernel::Nftables;
use crate::sandboxes::{Enforcement, Guard, Order};

impl<K: Nftables> Enforcer<K> {
    /// Carries out what the CNI plugin asks.
    pub(super) fn take_order(&mut self, order: Order) {
        let Some(mut sandboxes) = self.sandboxes.take() else { return };
        for (name, pod) in sandboxes.take(order, &self.in_kernel()) {
            self.waiting_since.get_or_insert_with(Instant::now);
            self.put_pod(&name, pod);
        }
        self.sandboxes = Some(sandboxes);
    }

    /// Answers the CNI plugin about pods that are enforced by now.
    pub(super) fn answer_plugin(&mut self) {
        if let Some(mut sandboxes) = self.sandboxes.take() {
            sandboxes.answer(&self.in_kernel());
            self.sandboxes = Some(sandboxes);
        }
    }

    fn in_kernel(&self) -> InKernel<'_> {
        InKernel {
            standing: self.standing,
            health: &self.health,
            doors: self.doors.as_ref(),
            restored: self.saved.as_ref().filter(|_| !self.programmed),
        }
    }
}

/// What the kernel enforces of what the compiler has.
struct InKernel<'a> {
    standing: Standing,
    health: &'a Health,
    doors: Option<&'a DoorKeeper>,
    /// The state that may be restored; `None` from when the objects are known.
    restored: Option<&'a Saved>,
}

impl Enforcement for InKernel<'_> {
    fn in_step(&self) -> Result<(), String> {
        if self.standing == Standing::InStep {
            return Ok(());
        }
        let reason = self.health.why_not_ready();
        Err(reason.unwrap_or_else(|| "the kernel is not in step yet".to_owned()))
    }

    fn door(&self, pod: &ObjectName) -> Guard {
        self.doors.map_or(Guard::Complete, |doors| doors.guard(pod))
    }

    fn is_restored(&self, sandbox: &Sandbox) -> bool {
        self.restored.is_some_and(|saved| saved.readdress(sandbox))
    }
}
