//! `--from` and `--to`: whom a name stands for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::bail;
use policy_compiler::model::{Cluster, ObjectName, Pod, Service};

use crate::cli::guess::did_you_mean;

/// Whom a name stands for.
#[derive(Debug, Clone, Copy)]
pub(super) enum End<'a> {
    Pod(&'a Pod),
    Service(&'a Service),
    Address(IpAddr),
}

/// Finds whom `text` stands for: an address, `namespace/name`, a bare name that only one namespace has, or
/// either of them behind `service/` or `svc/`. Pods come before Services.
pub(super) fn find<'a>(cluster: &'a Cluster, text: &str) -> anyhow::Result<End<'a>> {
    if let Ok(address) = text.parse() {
        let service = cluster.services().values().find(|service| service.addresses.contains(&address));
        return Ok(service.map_or(End::Address(address), End::Service));
    }
    let service = ["service/", "svc/"].iter().find_map(|prefix| text.strip_prefix(prefix));
    let wanted = service.unwrap_or(text);
    let pods = cluster.pods().iter().filter(|_| service.is_none());
    let found = match named(pods, wanted)? {
        Some(pod) => Some(End::Pod(pod)),
        None => named(cluster.services(), wanted)?.map(End::Service),
    };
    match found {
        Some(End::Pod(pod)) if pod.finished => {
            bail!("{} has finished: nothing reaches it any longer", pod.name)
        }
        Some(end) => Ok(end),
        None => {
            let names: BTreeSet<_> = cluster.pods().keys().chain(cluster.services().keys()).collect();
            let names = names.into_iter().map(ObjectName::to_string);
            bail!("nothing is called `{text}`{}", did_you_mean(wanted, names))
        }
    }
}

/// The object that `wanted` names; an error if several namespaces have one.
fn named<'a, T>(
    objects: impl IntoIterator<Item = (&'a ObjectName, &'a T)>,
    wanted: &str,
) -> anyhow::Result<Option<&'a T>> {
    let fits = |name: &ObjectName| match wanted.split_once('/') {
        Some((namespace, wanted)) => *name.namespace == *namespace && *name.name == *wanted,
        None => *name.name == *wanted,
    };
    let found: Vec<_> = objects.into_iter().filter(|(name, _)| fits(name)).collect();
    match found.as_slice() {
        [] => Ok(None),
        [(_, object)] => Ok(Some(object)),
        several => {
            let names: Vec<_> = several.iter().map(|(name, _)| name.to_string()).collect();
            bail!("`{wanted}` could be any of {}", names.join(", "))
        }
    }
}
