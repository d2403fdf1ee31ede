//! `podfence explain`

mod end;
mod report;
mod suggestion;
mod target;
mod text;

use std::io::Write;

use anyhow::{Context, bail};
use policy_compiler::explain::Word;
use policy_compiler::judge::{Endpoint, Judge};

use super::args::{Explain, ExplanationFormat};
use super::{Outcome, Output, input};
use end::End;
use report::{Question, Report};

pub(crate) fn run(args: &Explain, output: &mut Output) -> anyhow::Result<Outcome> {
    let manifests = input::read(&args.manifests)?;
    let cluster = &manifests.cluster;
    let judge = Judge::new(cluster).with_pods_to_node(args.manifests.pods_to_node);
    let from = match end::find(cluster, &args.from).context("--from")? {
        End::Pod(pod) => judge.party(Endpoint::Pod(pod)),
        End::Address(address) => judge.party(Endpoint::Address(address)),
        End::Service(service) => {
            bail!("--from: {} is a Service, which opens no connections: name a pod", service.name)
        }
    };
    let targets = match end::find(cluster, &args.to).context("--to")? {
        End::Pod(pod) => target::ports(judge.party(Endpoint::Pod(pod)), &args.port)?,
        End::Address(address) => target::ports(judge.party(Endpoint::Address(address)), &args.port)?,
        End::Service(service) => target::backends(cluster, &judge, service, &args.port)?,
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
