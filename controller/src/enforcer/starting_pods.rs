//! Pods that the CNI plugin reports, which wait until they are enforced.

use std::time::Instant;

use podfence_cni::protocol::{Answer, Request};
use policy_compiler::model::ObjectName;

use super::{Enforcer, Standing};
use crate::doors::DoorKeeper;
use crate::health::Health;
use crate::kernel::Nftables;
use crate::sandboxes::{Order, Progress};

impl<K: Nftables> Enforcer<K> {
    /// Carries out what the CNI plugin asks.
    pub(super) fn take_order(&mut self, order: Order) {
        let Some(sandboxes) = &mut self.sandboxes else { return };
        // Until the objects are known, the restored table may do for a pod that it had.
        if !self.programmed
            && let Request::Add(sandbox) = &order.request
            && self.saved.as_ref().is_some_and(|saved| saved.readdress(sandbox))
        {
            // If nobody waits any more, the plugin has given up.
            let _ = order.answer.send(Answer::Done);
        }
        let progress = progress(self.standing, &self.health, self.doors.as_ref());
        for (name, pod) in sandboxes.take(order, progress) {
            self.waiting_since.get_or_insert_with(Instant::now);
            self.put_pod(&name, pod);
        }
    }

    /// Answers the CNI plugin about pods that are enforced by now.
    pub(super) fn answer_plugin(&mut self) {
        if let Some(sandboxes) = &mut self.sandboxes {
            sandboxes.answer(progress(self.standing, &self.health, self.doors.as_ref()));
        }
    }
}

/// How far pods are enforced that the compiler has.
fn progress(
    standing: Standing,
    health: &Health,
    doors: Option<&DoorKeeper>,
) -> impl Fn(&ObjectName) -> Progress {
    move |pod| match (standing, doors) {
        (Standing::InStep, Some(doors)) => doors.progress(pod),
        (Standing::InStep, None) => Progress::Enforced,
        (Standing::Waiting | Standing::Unknown, _) => {
            let reason = health.why_not_ready();
            Progress::Pending(reason.unwrap_or_else(|| "the kernel is not in step yet".to_owned()))
        }
    }
}
