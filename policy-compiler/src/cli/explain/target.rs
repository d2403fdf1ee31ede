//! Where a connection leads: the ports of a destination, the backends of a Service.

use anyhow::{Context, bail};
use policy_compiler::judge::{Endpoint, Judge, Party, Traffic, TrafficRange};
use policy_compiler::model::{
    Cluster, EndpointSubset, Pod, PortNumber, Protocol, Service, ServicePort, TargetPort,
};

use super::end::{End, Finder};
use crate::cli::query::{EndQuery, PortQuery, TrafficQuery};

/// A destination, and what is asked about it.
#[derive(Debug, Clone)]
pub(super) struct Target<'a> {
    pub(super) to: Place<'a>,
    pub(super) asked: Asked,
    /// Whether a Service leads there.
    pub(super) through_service: bool,
}

/// An end, or many addresses at once.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    Party(Party<'a>),
    Block(ipnet::IpNet),
}

/// What a question is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Everything,
    Only(Vec<TrafficRange>),
}

/// The destinations of a question, and what is to be said about how it was understood.
#[derive(Debug)]
pub(super) struct Targets<'a> {
    pub(super) targets: Vec<Target<'a>>,
    pub(super) notes: Vec<String>,
}

/// Finds the destinations that `query` means.
pub(super) fn targets<'a>(
    finder: Finder<'a>,
    judge: &Judge<'a>,
    query: &EndQuery,
    traffic: Option<&TrafficQuery>,
) -> anyhow::Result<Targets<'a>> {
    let port = match traffic {
        Some(TrafficQuery::Port(port)) => Some(port),
        _ => None,
    };
    let cluster = judge.cluster();
    let mut notes = Vec::new();
    let pods = match finder.find(query, port).context("--to")? {
        End::Pods(pods) => pods,
        End::Address(address) => {
            let place = Place::Party(judge.party(Endpoint::Address(address)));
            return Ok(Targets { targets: vec![ports(place, traffic)?], notes });
        }
        End::Block(block) => {
            return Ok(Targets { targets: vec![ports(Place::Block(block), traffic)?], notes });
        }
        End::Service(service) => {
            return Ok(Targets { targets: backends(cluster, judge, service, traffic)?, notes });
        }
        End::NodePort(service, port) => {
            let number =
                port.node_port.map(|number| format!("{number}/{}", port.protocol)).unwrap_or_default();
            notes.push(format!("{number} is a port of the nodes that leads to Service {}", service.name));
            return Ok(Targets { targets: backends_of_port(cluster, judge, service, port)?, notes });
        }
    };
    if let Some(port) = port
        && let Some(pod) = pods.iter().find(|pod| !declares(pod, port))
    {
        if let Some(service) = finder.namesake(query)
            && service.ports.iter().any(|of| port.is_service_port(of))
        {
            notes.push(format!("{} declares no port {port}: taken for the Service of that name", pod.name));
            return Ok(Targets { targets: backends(cluster, judge, service, traffic)?, notes });
        }
        if !pod.ports.is_empty() && matches!(port.port, TargetPort::Number(_)) {
            notes.push(format!("{} declares {}, not {port}", pod.name, declared(pod)));
        }
    }
    let places = pods.iter().map(|pod| Place::Party(judge.party(Endpoint::Pod(pod))));
    let targets = places.map(|place| ports(place, traffic)).collect::<Result<_, _>>()?;
    Ok(Targets { targets, notes })
}

fn declares(pod: &Pod, port: &PortQuery) -> bool {
    let numbers = port.numbers_on(Some(pod));
    pod.ports.iter().any(|of| of.protocol == port.protocol && numbers.contains(&of.number))
}

/// A destination with the ports there that the query means; without a query those that it declares.
fn ports<'a>(to: Place<'a>, query: Option<&TrafficQuery>) -> anyhow::Result<Target<'a>> {
    let pod = match &to {
        Place::Party(party) => party.pod(),
        Place::Block(_) => None,
    };
    let asked = match query {
        Some(TrafficQuery::All) => Asked::Everything,
        Some(TrafficQuery::Other) => Asked::Only(vec![TrafficRange::Other]),
        Some(TrafficQuery::Port(query)) => {
            let numbers = query.numbers_on(pod);
            match pod {
                _ if !numbers.is_empty() => {}
                Some(pod) => bail!(
                    "--port: {} declares no port {query}{}",
                    pod.name,
                    listed("it declares", &declared(pod))
                ),
                None => bail!("--port: an outside address has no port names: give the number of {query}"),
            }
            Asked::Only(numbers.into_iter().map(|number| single(query.protocol, number)).collect())
        }
        None => {
            let mut ports: Vec<_> = pod
                .iter()
                .flat_map(|pod| &pod.ports)
                .map(|port| single(port.protocol, port.number))
                .collect();
            ports.sort_unstable();
            ports.dedup();
            if ports.is_empty() { Asked::Everything } else { Asked::Only(ports) }
        }
    };
    Ok(Target { to, asked, through_service: false })
}

fn single(protocol: Protocol, port: PortNumber) -> TrafficRange {
    Traffic::Port(protocol, port).into()
}

/// The backends of a Service at the ports that the query means, or at all of its ports.
fn backends<'a>(
    cluster: &'a Cluster,
    judge: &Judge<'a>,
    service: &'a Service,
    query: Option<&TrafficQuery>,
) -> anyhow::Result<Vec<Target<'a>>> {
    let name = &service.name;
    if let Some(external) = &service.external_name {
        bail!("--to: Service {name} is {external}: give its address")
    }
    let ports: Vec<_> = match query {
        Some(TrafficQuery::Other) => {
            bail!("--port: Service {name} forwards its ports alone: name a pod, or a port of the Service")
        }
        Some(TrafficQuery::Port(query)) => {
            service.ports.iter().filter(|of| query.is_service_port(of)).collect()
        }
        Some(TrafficQuery::All) | None => service.ports.iter().collect(),
    };
    match query {
        Some(TrafficQuery::Port(query)) if ports.is_empty() => {
            let has =
                service.ports.iter().map(|port| describe(port.name.as_deref(), port.number, port.protocol));
            bail!(
                "--port: Service {name} has no port {query}{}",
                listed("it has", &has.collect::<Vec<_>>().join(", "))
            )
        }
        _ if ports.is_empty() => bail!("--to: Service {name} has no ports: name a pod"),
        _ => {}
    }
    let targets: Result<Vec<_>, _> =
        ports.into_iter().map(|port| backends_of_port(cluster, judge, service, port)).collect();
    Ok(targets?.concat())
}

/// The backends of a Service and the port that its port leads to there. A backend that lacks a named `targetPort` is
/// none.
fn backends_of_port<'a>(
    cluster: &'a Cluster,
    judge: &Judge<'a>,
    service: &'a Service,
    port: &ServicePort,
) -> anyhow::Result<Vec<Target<'a>>> {
    let name = &service.name;
    let Some(selector) = &service.selector else {
        let targets = listed_backends(cluster, judge, service, port);
        if targets.is_empty() {
            bail!(
                "--to: Service {name} has no selector, and no EndpointSlice lists its backends: name the backend itself"
            )
        }
        return Ok(targets);
    };
    let selects = |pod: &&Pod| {
        pod.name.namespace == name.namespace
            && !pod.finished
            && selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    };
    let mut selected = cluster.pods().values().filter(selects).peekable();
    if selected.peek().is_none() {
        let labels: Vec<_> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        bail!("--to: Service {name} has no backend: no pod has {}", labels.join(", "))
    }
    let target = PortQuery { protocol: port.protocol, port: port.target.clone() };
    let targets: Vec<_> = selected
        .flat_map(|pod| {
            let to = Place::Party(judge.party(Endpoint::Pod(pod)));
            let numbers = target.numbers_on(Some(pod)).into_iter();
            numbers.map(move |number| backend(to, port.protocol, number))
        })
        .collect();
    if targets.is_empty() {
        bail!("--to: no backend of Service {name} declares its targetPort {target}")
    }
    Ok(targets)
}

/// The backends that Endpoints and EndpointSlices list, each once.
fn listed_backends<'a>(
    cluster: &'a Cluster,
    judge: &Judge<'a>,
    service: &Service,
    port: &ServicePort,
) -> Vec<Target<'a>> {
    let of_subset = |subset: &EndpointSubset| {
        let leads = subset.ports.iter().filter(|it| it.protocol == port.protocol && it.name == port.name);
        let numbers: Vec<_> = leads.map(|port| port.number).collect();
        let addresses = subset.addresses.clone().into_iter();
        addresses.flat_map(move |address| numbers.clone().into_iter().map(move |number| (address, number)))
    };
    let backends: std::collections::BTreeSet<_> =
        cluster.endpoints_of(&service.name).flat_map(of_subset).collect();
    let target = |(address, number)| {
        backend(Place::Party(judge.party(Endpoint::Address(address))), port.protocol, number)
    };
    backends.into_iter().map(target).collect()
}

/// A port of a backend, to which a Service leads.
fn backend(to: Place<'_>, protocol: Protocol, number: PortNumber) -> Target<'_> {
    Target { to, asked: Asked::Only(vec![single(protocol, number)]), through_service: true }
}

fn declared(pod: &Pod) -> String {
    let ports = pod.ports.iter().map(|port| describe(port.name.as_deref(), port.number, port.protocol));
    ports.collect::<Vec<_>>().join(", ")
}

fn describe(name: Option<&str>, number: PortNumber, protocol: Protocol) -> String {
    match name {
        Some(name) => format!("{name} ({number}/{protocol})"),
        None => format!("{number}/{protocol}"),
    }
}

/// `: {words} {items}`, or nothing about nothing.
fn listed(words: &str, items: &str) -> String {
    if items.is_empty() { String::new() } else { format!(": {words} {items}") }
}
