//! `podfence explain`

mod end;
mod report;
mod suggestion;
mod text;

use std::io::Write;

use anyhow::{Context, bail};
use policy_compiler::judge::{Endpoint, Judge, Party};
use policy_compiler::model::{Cluster, Pod, PortNumber, Service, ServicePort, TargetPort};

use super::args::{Explain, ExplanationFormat};
use super::port::PortQuery;
use super::{Outcome, Output, input};
use end::End;
use report::{Question, Report, Word};

pub(crate) fn run(args: &Explain, output: &mut Output) -> anyhow::Result<Outcome> {
    let cluster = input::read(&args.manifests)?;
    let judge = Judge::new(&cluster);
    let from = match end::find(&cluster, &args.from).context("--from")? {
        End::Pod(pod) => judge.party(Endpoint::Pod(pod)),
        End::Address(address) => judge.party(Endpoint::Address(address)),
        End::Service(service) => {
            bail!("--from: {} is a Service, which opens no connections: name a pod", service.name)
        }
    };
    let targets = match end::find(&cluster, &args.to).context("--to")? {
        End::Pod(pod) => targets(judge.party(Endpoint::Pod(pod)), &args.port)?,
        End::Address(address) => targets(judge.party(Endpoint::Address(address)), &args.port)?,
        End::Service(service) => backends(&cluster, &judge, service, &args.port)?,
    };
    let protocol = args.port.protocol;
    let connections: Vec<_> = targets
        .into_iter()
        .flat_map(|(to, port)| Question { from, to, protocol, port }.explain(&judge))
        .collect();
    let allowed = connections.iter().all(|connection| connection.verdict.allows());
    let report = Report {
        from: args.from.clone(),
        to: args.to.clone(),
        port: args.port.to_string(),
        verdict: Word::of(allowed),
        connections,
    };
    match args.output {
        ExplanationFormat::Text => text::write(&report, output)?,
        ExplanationFormat::Json => {
            serde_json::to_writer_pretty(&mut *output, &report).map_err(std::io::Error::from)?;
            writeln!(output)?;
        }
    }
    Ok(if allowed { Outcome::Fine } else { Outcome::Denied })
}

/// Where a connection leads: an end and a port there.
type Target<'a> = (Party<'a>, PortNumber);

/// The ports of one destination that the query means.
fn targets<'a>(to: Party<'a>, query: &PortQuery) -> anyhow::Result<Vec<Target<'a>>> {
    let numbers = query.numbers_on(to.pod());
    match (to.pod(), numbers.is_empty()) {
        (_, false) => Ok(numbers.into_iter().map(|number| (to, number)).collect()),
        (Some(pod), true) => bail!("--port: {} declares no port {query}{}", pod.name, declared(pod)),
        (None, true) => bail!("--port: an outside address has no port names: give the number of {query}"),
    }
}

fn declared(pod: &Pod) -> String {
    let ports = pod.ports.iter().map(|port| match &port.name {
        Some(name) => format!("{name} ({}/{})", port.number, port.protocol),
        None => format!("{}/{}", port.number, port.protocol),
    });
    listed("it declares", ports.collect())
}

/// The backends of a Service and the ports that its port leads to there. A backend that lacks a named
/// `targetPort` is none.
fn backends<'a>(
    cluster: &'a Cluster,
    judge: &Judge<'a>,
    service: &Service,
    query: &PortQuery,
) -> anyhow::Result<Vec<Target<'a>>> {
    let asked = |port: &&ServicePort| {
        port.protocol == query.protocol
            && match &query.port {
                TargetPort::Number(number) => port.number == *number,
                TargetPort::Name(name) => port.name.as_ref() == Some(name),
            }
    };
    let Some(port) = service.ports.iter().find(asked) else {
        let ports = service.ports.iter().map(|port| format!("{}/{}", port.number, port.protocol));
        bail!("--port: Service {} has no port {query}{}", service.name, listed("it has", ports.collect()))
    };
    let Some(selector) = &service.selector else {
        bail!("--to: Service {} has no selector: name the backend itself", service.name)
    };
    let selected: Vec<_> = cluster
        .pods()
        .values()
        .filter(|pod| pod.name.namespace == service.name.namespace && !pod.finished)
        .filter(|pod| selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value)))
        .collect();
    if selected.is_empty() {
        let labels = selector.iter().map(|(key, value)| format!("{key}={value}"));
        bail!("--to: Service {} has no backend{}", service.name, listed("no pod has", labels.collect()))
    }
    let target = PortQuery { protocol: port.protocol, port: port.target.clone() };
    let targets: Vec<_> = selected
        .iter()
        .flat_map(|pod| {
            let to = judge.party(Endpoint::Pod(pod));
            target.numbers_on(Some(pod)).into_iter().map(move |number| (to, number))
        })
        .collect();
    if targets.is_empty() {
        bail!("--to: no backend of Service {} declares its targetPort {target}", service.name)
    }
    Ok(targets)
}

/// `: {words} a, b`, or nothing about nothing.
fn listed(words: &str, items: Vec<String>) -> String {
    if items.is_empty() { String::new() } else { format!(": {words} {}", items.join(", ")) }
}
