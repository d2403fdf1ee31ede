//! Whether the enforcer may begin: enough is known, of the right node, and nothing that an agent before it guards would be
//! left unguarded.

use policy_compiler::model::Pod;
use policy_compiler::ruleset::SetRole;
use tracing::{info, warn};

use super::{Enforcer, Standing};
use crate::health::Condition;
use crate::kernel::Nftables;
use crate::source::Knowledge;

impl<K: Nftables> Enforcer<K> {
    /// Decides whether enough is known to enforce.
    pub(super) fn learn(&mut self, knowledge: &Knowledge) {
        match knowledge {
            Knowledge::Complete => self.health.good(Condition::Source),
            Knowledge::Stale(reason) => self.health.bad(Condition::Source, reason.clone()),
            Knowledge::Pending(missing) => return self.health.bad(Condition::Source, missing.clone()),
            Knowledge::Partial(missing) => {
                self.health.bad(Condition::Source, missing.clone());
                // An agent before this one may have enforced what cannot be read: its table stays whole.
                if self.standing == Standing::Waiting && !matches!(self.kernel.read(), Ok(None)) {
                    warn!(missing, "what the kernel holds stays as it is until everything can be read");
                    return;
                }
            }
        }
        self.examine_strictness();
        if self.standing == Standing::Waiting && self.is_right_node() && !self.would_stop_guarding() {
            self.standing = Standing::Unknown;
        }
    }

    /// Whether the pods behind the node's devices are those of the node that this agent is to enforce. With the
    /// name of another node it would isolate nobody, and undo what an agent before it has programmed.
    fn is_right_node(&mut self) -> bool {
        let Some(doors) = &mut self.doors else { return true };
        doors.find(&mut self.compiler);
        let pod = doors.pod_of_another_node(&self.compiler);
        let Some(Pod { name, node, .. }) = pod else {
            self.health.good(Condition::NodeName);
            return true;
        };
        let node = node.unwrap_or_default();
        let reason = format!(
            "the pods behind this node's devices are bound to other nodes ({name} to {node}): --node-name (NODE_NAME) \
             has to be the name that they have in spec.nodeName"
        );
        if self.health.is_good(Condition::NodeName) {
            warn!("{reason}; what the kernel holds stays");
        }
        self.health.bad(Condition::NodeName, reason);
        false
    }

    /// Whether an agent before this one guards pod ranges, and the node does not name any now: its table stays
    /// whole until the node does.
    fn would_stop_guarding(&mut self) -> bool {
        self.compiler.lacks_pod_ranges()
            && match self.kernel.read() {
                Ok(table) => table.into_iter().flat_map(|table| table.sets).any(|(name, set)| {
                    matches!(name.role(), SetRole::PodRanges(_))
                        && set.is_none_or(|set| !set.elements.is_empty())
                }),
                Err(_) => true,
            }
    }

    /// Says it if strict start is asked for and the node does not say which addresses are its pods'.
    fn examine_strictness(&mut self) {
        let idle = self.compiler.lacks_pod_ranges();
        match (self.idle_strictness, idle) {
            (false, true) => {
                let reason = "strict start has nothing to guard: the node's object is missing or names no \
                              pod range (spec.podCIDRs)";
                warn!("{reason}; what the kernel guards stays guarded");
                if self.must_guard {
                    self.health.bad(Condition::PodRanges, reason.to_owned());
                }
            }
            (true, false) => {
                info!("the node's pod ranges are known");
                self.health.good(Condition::PodRanges);
            }
            _ => {}
        }
        self.idle_strictness = idle;
    }
}
