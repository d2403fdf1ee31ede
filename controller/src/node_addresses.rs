//! Addresses of nodes that pods show which are not in their nodes' network.

use std::collections::BTreeSet;
use std::net::IpAddr;

use policy_compiler::model::ObjectName;
use tracing::{info, warn};

use crate::metrics::Metrics;

/// What has been reported.
#[derive(Default)]
pub(crate) struct RefusedAddresses(BTreeSet<(ObjectName, IpAddr)>);

impl RefusedAddresses {
    /// Logs what has come and what has gone.
    pub(crate) fn report<'a>(
        &mut self,
        refused: impl Iterator<Item = (&'a ObjectName, IpAddr)>,
        metrics: &Metrics,
    ) {
        let now: BTreeSet<_> = refused.map(|(pod, address)| (pod.clone(), address)).collect();
        for (pod, address) in now.difference(&self.0) {
            warn!(%pod, %address, "the pod shows an address of a node: it is refused, and no policy applies to it");
        }
        for (pod, address) in self.0.difference(&now) {
            info!(%pod, %address, "the pod does not show an address of a node any more");
        }
        metrics.refused_addresses(now.len());
        self.0 = now;
    }
}
