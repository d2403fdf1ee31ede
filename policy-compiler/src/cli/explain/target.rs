//! Where a connection leads: the ports of a destination, the backends of a Service.

use anyhow::bail;
use policy_compiler::judge::{Endpoint, Judge, Party};
use policy_compiler::model::{Cluster, Pod, PortNumber, Protocol, Service, ServicePort, TargetPort};

use crate::cli::port::PortQuery;

/// An end and a port there.
pub(super) type Target<'a> = (Party<'a>, PortNumber);

/// The ports of one destination that the query means.
pub(super) fn ports<'a>(to: Party<'a>, query: &PortQuery) -> anyhow::Result<Vec<Target<'a>>> {
    let numbers = query.numbers_on(to.pod());
    match (to.pod(), numbers.is_empty()) {
        (_, false) => Ok(numbers.into_iter().map(|number| (to, number)).collect()),
        (Some(pod), true) => {
            let declared =
                pod.ports.iter().map(|port| describe(port.name.as_deref(), port.number, port.protocol));
            bail!("--port: {} declares no port {query}{}", pod.name, listed("it declares", declared))
        }
        (None, true) => bail!("--port: an outside address has no port names: give the number of {query}"),
    }
}

/// The backends of a Service and the ports that its port leads to there. A backend that lacks a named
/// `targetPort` is none.
pub(super) fn backends<'a>(
    cluster: &'a Cluster,
    judge: &Judge<'a>,
    service: &Service,
    query: &PortQuery,
) -> anyhow::Result<Vec<Target<'a>>> {
    let name = &service.name;
    let Some(port) = service.ports.iter().find(|port| is_meant(port, query)) else {
        let ports =
            service.ports.iter().map(|port| describe(port.name.as_deref(), port.number, port.protocol));
        bail!("--port: Service {name} has no port {query}{}", listed("it has", ports))
    };
    let Some(selector) = &service.selector else {
        bail!("--to: Service {name} has no selector: name the backend itself")
    };
    let selects = |pod: &&Pod| {
        pod.name.namespace == name.namespace
            && !pod.finished
            && selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    };
    let mut selected = cluster.pods().values().filter(selects).peekable();
    if selected.peek().is_none() {
        let labels = selector.iter().map(|(key, value)| format!("{key}={value}"));
        bail!("--to: Service {name} has no backend{}", listed("no pod has", labels))
    }
    let target = PortQuery { protocol: port.protocol, port: port.target.clone() };
    let targets: Vec<_> = selected
        .flat_map(|pod| {
            let to = judge.party(Endpoint::Pod(pod));
            target.numbers_on(Some(pod)).into_iter().map(move |number| (to, number))
        })
        .collect();
    if targets.is_empty() {
        bail!("--to: no backend of Service {name} declares its targetPort {target}")
    }
    Ok(targets)
}

fn is_meant(port: &ServicePort, query: &PortQuery) -> bool {
    port.protocol == query.protocol
        && match &query.port {
            TargetPort::Number(number) => port.number == *number,
            TargetPort::Name(name) => port.name.as_ref() == Some(name),
        }
}

fn describe(name: Option<&str>, number: PortNumber, protocol: Protocol) -> String {
    match name {
        Some(name) => format!("{name} ({number}/{protocol})"),
        None => format!("{number}/{protocol}"),
    }
}

/// `: {words} a, b`, or nothing about nothing.
fn listed(words: &str, items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() { String::new() } else { format!(": {words} {}", items.join(", ")) }
}
