//! `podfence explain`

mod end;
mod policy;
mod question;
mod report;
mod target;
mod text;

pub(crate) use question::Question;
pub(crate) use target::Asked;

use std::io::Write;

use anyhow::{Context, bail};
use policy_compiler::judge::{Endpoint, Judge};

use super::args::{Explain, ExplanationFormat};
use super::input;
use super::output::{Outcome, Output};
use super::query::{EndQuery, TrafficQuery};
use end::{End, Finder};
use report::{Heading, Report};
use target::{Place, targets};

pub(crate) fn run(args: &Explain, output: &mut Output) -> anyhow::Result<Outcome> {
    let namespace = args.manifests.namespace.as_deref();
    let described = [&args.from, &args.to].into_iter().filter_map(|end| end.described(namespace));
    let manifests = input::read_with_pods(&args.manifests, described)?;
    let judge = Judge::new(&manifests.cluster).with_pods_to_node(args.manifests.pods_to_node);
    let finder = Finder { manifests: &manifests, namespace };
    let traffic = traffic(args)?;
    let sources = sources(finder, &judge, &args.from).context("--from")?;
    let targets = targets(finder, &judge, &args.to, traffic.as_ref())?;
    let mut questions = Vec::new();
    for target in &targets.targets {
        questions.extend(sources.iter().flat_map(|from| Question::all(&judge, *from, target)));
    }
    if sources.len() > 1 && targets.targets.len() > 1 {
        // Of the pods of one workload, each is asked about the others.
        questions.retain(|question| !question.is_about_one_pod());
    }
    if questions.is_empty() {
        bail!("two CIDRs: no policy judges what goes between addresses outside the cluster, so name a pod")
    }
    let answers: Vec<_> = questions.iter().flat_map(|question| question.answers(&judge)).collect();
    let everything = targets.targets.iter().any(|target| target.asked == Asked::Everything);
    let heading = Heading {
        from: args.from.text.clone(),
        to: args.to.text.clone(),
        port: traffic.as_ref().map(ToString::to_string),
    };
    let report = Report::new(heading, targets.notes, &judge, &answers, !everything);
    match args.output {
        ExplanationFormat::Text => text::write(&report, output)?,
        ExplanationFormat::Json => {
            serde_json::to_writer_pretty(&mut *output, &report).map_err(std::io::Error::from)?;
            writeln!(output)?;
        }
    }
    Ok(if report.verdict.allows() { Outcome::Fine } else { Outcome::Denied })
}

/// What is asked about, by `--port` or by what stands behind the destination.
fn traffic(args: &Explain) -> anyhow::Result<Option<TrafficQuery>> {
    let of_end = args.to.port.clone().map(TrafficQuery::Port);
    match (&args.port, of_end) {
        (Some(port), Some(of_end)) if *port != of_end => {
            bail!("--to {} says port {of_end}, and --port {port}: leave one of them out", args.to.text)
        }
        (port, of_end) => Ok(port.clone().or(of_end)),
    }
}

fn sources<'a>(finder: Finder<'a>, judge: &Judge<'a>, query: &EndQuery) -> anyhow::Result<Vec<Place<'a>>> {
    if let Some(port) = &query.port {
        bail!("{} says port {port}: policies see no port at the source, so leave it out", query.text)
    }
    Ok(match finder.find(query, None)? {
        End::Pods(pods) => pods.iter().map(|pod| Place::Party(judge.party(Endpoint::Pod(pod)))).collect(),
        End::Address(address) => vec![Place::Party(judge.party(Endpoint::Address(address)))],
        End::Block(block) => vec![Place::Block(block)],
        End::Service(service) | End::NodePort(service, _) => {
            bail!("{} is a Service, which opens no connections: name a pod", service.name)
        }
    })
}
