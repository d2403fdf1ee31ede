//! `--from` and `--to`: whom an END stands for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::bail;
use ipnet::IpNet;
use policy_compiler::manifest::{Manifests, Unread, WorkloadKind, ip_address};
use policy_compiler::model::{ObjectName, Pod, Service, ServicePort};

use crate::cli::guess::did_you_mean;
use crate::cli::query::kind::{is_kind, is_meant};
use crate::cli::query::{EndQuery, PortQuery, Written};

/// The label that a Deployment gives the pods of each of its `ReplicaSet`s, whose name ends with the same value.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Whom an END stands for.
#[derive(Debug, Clone)]
pub(super) enum End<'a> {
    /// A pod, or those of a workload.
    Pods(Vec<&'a Pod>),
    Service(&'a Service),
    /// A Service by the port that it has at each node.
    NodePort(&'a Service, &'a ServicePort),
    Address(IpAddr),
    Block(IpNet),
}

/// Finds ends among objects.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finder<'a> {
    pub(super) manifests: &'a Manifests,
    /// Where a name without a namespace is looked for first.
    pub(super) namespace: Option<&'a str>,
}

/// What is looked for: a name, with its kind and its namespace if they are said.
#[derive(Debug, Clone, Copy)]
struct Wanted<'q> {
    kind: Option<&'q str>,
    namespace: Option<&'q str>,
    name: &'q str,
}

impl<'a> Finder<'a> {
    /// Finds whom `query` stands for, where it is asked about `port`.
    pub(super) fn find(self, query: &EndQuery, port: Option<&PortQuery>) -> anyhow::Result<End<'a>> {
        let found = match &query.end {
            Written::Address(address) => Some(self.address(*address, port)),
            Written::Block(block) => Some(End::Block(*block)),
            Written::Labels { .. } => {
                let described = query.described(self.namespace).map(|pod| pod.name);
                let pod = described.and_then(|name| self.manifests.cluster.pods().get(&name));
                pod.map(|pod| End::Pods(vec![pod]))
            }
            Written::Name(parts) => self.name(parts)?,
        };
        match found {
            Some(End::Pods(pods)) => living(pods).map(End::Pods),
            Some(end) => Ok(end),
            None => self.nothing(query),
        }
    }

    /// The Service of the name of a pod or workload that `query` names without a kind.
    pub(super) fn namesake(self, query: &EndQuery) -> Option<&'a Service> {
        let Written::Name(parts) = &query.end else { return None };
        let wanted = readings(parts).into_iter().find(|wanted| wanted.kind.is_none())?;
        self.service(wanted).ok().flatten()
    }

    fn address(self, address: IpAddr, port: Option<&PortQuery>) -> End<'a> {
        let cluster = &self.manifests.cluster;
        if let Some(service) = cluster.services().values().find(|it| it.addresses.contains(&address)) {
            return End::Service(service);
        }
        let is_node = cluster.nodes().values().any(|node| node.addresses.contains(&address));
        let at_node = cluster.services().values().filter(|_| is_node).find_map(|service| {
            let meant = |of: &&ServicePort| port.is_some_and(|port| port.is_node_port(of));
            Some(End::NodePort(service, service.ports.iter().find(meant)?))
        });
        at_node.unwrap_or(End::Address(address))
    }

    fn name(self, parts: &[String]) -> anyhow::Result<Option<End<'a>>> {
        for wanted in readings(parts) {
            if let Some(pods) = self.pods(wanted)? {
                return Ok(Some(End::Pods(pods)));
            }
            if let Some(service) = self.service(wanted)? {
                return Ok(Some(End::Service(service)));
            }
        }
        match parts {
            [name] => self.dns_name(name),
            _ => Ok(None),
        }
    }

    /// The pod of a name, or the pods of the workload of that name.
    fn pods(self, wanted: Wanted<'_>) -> anyhow::Result<Option<Vec<&'a Pod>>> {
        let pods = || self.manifests.cluster.pods().values();
        let named = pods().filter(|pod| wanted.is_pod(pod)).map(|pod| (&pod.name, pod));
        if let Some(pod) = only(self.namespace, wanted, named)? {
            return Ok(Some(vec![pod]));
        }
        let of_workloads: Vec<_> = pods().filter_map(|pod| Some((self.owner(wanted, pod)?, pod))).collect();
        let workloads: BTreeSet<_> = of_workloads.iter().map(|(owner, _)| owner).collect();
        let workload = only(self.namespace, wanted, workloads.into_iter().map(|name| (name, name)))?;
        let pods_of = |owner: &ObjectName| {
            of_workloads.iter().filter(|(of, _)| of == owner).map(|(_, pod)| *pod).collect()
        };
        Ok(workload.map(pods_of))
    }

    /// The name of the wanted workload, if it owns `pod`.
    fn owner(self, wanted: Wanted<'_>, pod: &Pod) -> Option<ObjectName> {
        let owners = self.manifests.owners.get(&pod.name).into_iter().flatten();
        let mut chain = owners.flat_map(|owner| {
            let above = match owner.kind {
                WorkloadKind::ReplicaSet => pod
                    .labels
                    .get(TEMPLATE_HASH)
                    .and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'))
                    .map(|name| (WorkloadKind::Deployment, name)),
                WorkloadKind::Job => owner
                    .name
                    .rsplit_once('-')
                    .filter(|(_, time)| time.bytes().all(|byte| byte.is_ascii_digit()))
                    .map(|(name, _)| (WorkloadKind::CronJob, name)),
                _ => None,
            };
            above.into_iter().chain([(owner.kind.clone(), &*owner.name)])
        });
        let (_, name) = chain.find(|(kind, name)| {
            *name == wanted.name && wanted.kind.is_none_or(|text| is_meant(kind.as_str(), text))
        })?;
        let name = ObjectName::new(pod.name.namespace.clone(), name);
        wanted.is_in(&name).then_some(name)
    }

    fn service(self, wanted: Wanted<'_>) -> anyhow::Result<Option<&'a Service>> {
        if wanted.kind.is_some_and(|kind| !is_meant("Service", kind)) {
            return Ok(None);
        }
        let services = self.manifests.cluster.services().iter();
        only(
            self.namespace,
            wanted,
            services.filter(|(name, _)| *name.name == *wanted.name && wanted.is_in(name)),
        )
    }

    /// Whom a DNS name of the cluster stands for: `SERVICE.NAMESPACE`, with or without `svc` and the cluster's domain
    /// behind it, `POD.SERVICE.NAMESPACE.svc`, or `1-2-3-4.NAMESPACE.pod`.
    fn dns_name(self, name: &str) -> anyhow::Result<Option<End<'a>>> {
        let labels: Vec<_> = name.split('.').collect();
        let (namespace, name) = match labels.as_slice() {
            [name, namespace] | [name, namespace, "svc", ..] => (namespace, name),
            [pod, _, namespace, "svc", ..] => {
                let wanted = Wanted { kind: Some("pod"), namespace: Some(namespace), name: pod };
                return Ok(self.pods(wanted)?.map(End::Pods));
            }
            [address, _, "pod", ..] => {
                let address =
                    ip_address(&address.replace('-', ".")).or_else(|| ip_address(&address.replace('-', ":")));
                return Ok(address.map(End::Address));
            }
            _ => return Ok(None),
        };
        Ok(self.service(Wanted { kind: None, namespace: Some(namespace), name })?.map(End::Service))
    }

    /// Why nothing was found.
    fn nothing<T>(self, query: &EndQuery) -> anyhow::Result<T> {
        let text = &query.text;
        let Written::Name(parts) = &query.end else { bail!("nothing is called `{text}`") };
        let readings = readings(parts);
        if let Some(unread) =
            self.manifests.unread.iter().find(|unread| readings.iter().any(|it| it.is_unread(unread)))
        {
            let Unread { kind, namespace, name, origin, .. } = unread;
            let namespace = namespace.as_deref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
            let name = name.as_deref().unwrap_or_default();
            bail!("there is a {kind} {namespace}{name} at {origin}, a kind that is not read")
        }
        let node = readings.iter().find_map(|wanted| self.manifests.cluster.nodes().get(wanted.name));
        if let Some(node) = node {
            let addresses: Vec<_> = node.addresses.iter().map(IpAddr::to_string).collect();
            bail!("{} is a Node: give its address ({})", node.name, addresses.join(", "))
        }
        let wanted = readings.first().map(|wanted| match wanted.namespace {
            Some(namespace) => format!("{namespace}/{}", wanted.name),
            None => wanted.name.to_owned(),
        });
        let cluster = &self.manifests.cluster;
        let names: BTreeSet<_> = cluster.pods().keys().chain(cluster.services().keys()).collect();
        let guess = did_you_mean(&wanted.unwrap_or_default(), names.into_iter().map(ObjectName::to_string));
        match parts.as_slice() {
            [name] if guess.is_empty() && name.contains('.') => {
                bail!(
                    "nothing is called `{text}`, and names outside the cluster are not looked up: give the address"
                )
            }
            _ => bail!("nothing is called `{text}`{guess}"),
        }
    }
}

impl Wanted<'_> {
    fn is_in(&self, name: &ObjectName) -> bool {
        self.namespace.is_none_or(|namespace| *name.namespace == *namespace)
    }

    /// Whether a pod, or the workload that it stands for, is wanted. A workload may have its kind behind its name,
    /// because another has the same.
    fn is_pod(&self, pod: &Pod) -> bool {
        let kind = pod.workload.as_deref().unwrap_or("Pod");
        let name = &*pod.name.name;
        let is_named = || match self.kind {
            None => name == self.name,
            Some(text) => {
                let with_kind = || format!("{}.{}", self.name, kind.to_ascii_lowercase());
                is_meant(kind, text) && (name == self.name || name == with_kind())
            }
        };
        self.is_in(&pod.name) && is_named()
    }

    fn is_unread(&self, unread: &Unread) -> bool {
        unread.name.as_deref() == Some(self.name)
            && self.kind.is_none_or(|kind| is_meant(&unread.kind, kind))
            && self.namespace.is_none_or(|wanted| unread.namespace.as_deref().unwrap_or("default") == wanted)
    }
}

/// What the parts of a name may mean, the likeliest first.
fn readings(parts: &[String]) -> Vec<Wanted<'_>> {
    let wanted = |kind, namespace, name| Wanted { kind, namespace, name };
    match parts {
        [name] => vec![wanted(None, None, name)],
        [first, name] => {
            let in_namespace = wanted(None, Some(first), name);
            let of_kind = wanted(Some(first), None, name);
            if is_kind(first) { vec![of_kind, in_namespace] } else { vec![in_namespace, of_kind] }
        }
        [kind, namespace, name] => vec![wanted(Some(kind), Some(namespace), name)],
        _ => Vec::new(),
    }
}

/// The one that was found; an error if there are several, none of them in the preferred namespace.
fn only<'n, T>(
    preferred: Option<&str>,
    wanted: Wanted<'_>,
    found: impl Iterator<Item = (&'n ObjectName, T)>,
) -> anyhow::Result<Option<T>> {
    let mut found: Vec<_> = found.collect();
    if wanted.namespace.is_none()
        && let Some(index) = found.iter().position(|(name, _)| Some(&*name.namespace) == preferred)
    {
        return Ok(Some(found.swap_remove(index).1));
    }
    match found.len() {
        0 | 1 => Ok(found.pop().map(|(_, object)| object)),
        _ => {
            let names: Vec<_> = found.iter().map(|(name, _)| name.to_string()).collect();
            bail!("`{}` could be any of {}", wanted.name, names.join(", "))
        }
    }
}

/// Those that have not finished; an error if all have.
fn living(pods: Vec<&Pod>) -> anyhow::Result<Vec<&Pod>> {
    let finished = pods.first().map(|pod| pod.name.to_string()).unwrap_or_default();
    let living: Vec<_> = pods.into_iter().filter(|pod| !pod.finished).collect();
    if living.is_empty() {
        bail!("{finished} has finished: nothing reaches it any longer")
    }
    Ok(living)
}
