//! `--pod-cidr`: addresses for pods that have none yet.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::bail;
use ipnet::IpNet;
use policy_compiler::model::{Cluster, Pod};

/// Gives the pods that have no address the first free ones of each range, in the order of their names.
pub(crate) fn assign(cluster: &mut Cluster, ranges: &[IpNet]) -> anyhow::Result<()> {
    let lacking: Vec<Pod> = cluster.pods().values().filter(|pod| lacks_address(pod)).cloned().collect();
    let of_pods = cluster.pods().values().flat_map(|pod| &pod.addresses);
    let of_nodes = cluster.nodes().values().flat_map(|node| &node.addresses);
    let taken: BTreeSet<IpAddr> = of_pods.chain(of_nodes).copied().collect();
    // The first address of a range is no host's, in IPv6 too.
    let is_free = |range: &IpNet, address: &IpAddr| {
        (*address != range.network() || range.hosts().nth(1).is_none()) && !taken.contains(address)
    };
    let mut free: Vec<_> =
        ranges.iter().map(|range| (range, range.hosts().filter(|address| is_free(range, address)))).collect();
    for mut pod in lacking {
        for (range, free) in &mut free {
            let Some(address) = free.next() else {
                bail!("--pod-cidr: {range} has no address left for pod {}", pod.name)
            };
            pod.addresses.push(address);
        }
        cluster.insert_pod(pod);
    }
    Ok(())
}

/// Whether policies can concern a pod and no packet can be known to be its own.
pub(crate) fn lacks_address(pod: &Pod) -> bool {
    pod.selectable() && pod.addresses.is_empty()
}
