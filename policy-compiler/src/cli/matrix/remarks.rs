//! What deserves a word because it leaves the matrix blank, or a part of it.

use std::collections::BTreeSet;

use policy_compiler::model::{Cluster, TargetPort};

use super::end::{Asked, End};
use crate::cli::args::{Matrix, MatrixFormat, Only};
use crate::cli::guess::did_you_mean;
use crate::cli::query::TrafficQuery;

/// Why the matrix has no rows, or lacks those of some destinations.
pub(super) fn remarks(
    args: &Matrix,
    cluster: &Cluster,
    ends: &[End<'_>],
    destinations: &[usize],
) -> Vec<String> {
    let mut remarks: Vec<_> = args
        .ports
        .iter()
        .filter_map(|query| unknown_port(query, cluster, !args.external.is_empty()))
        .collect();
    if ends.iter().all(|end| end.pod.is_none()) {
        remarks.push(without_pods(cluster));
    }
    if args.ports.is_empty() {
        remarks.extend(without_rows(ends, destinations));
    }
    let is_records = matches!(args.output, MatrixFormat::Json | MatrixFormat::Csv);
    if is_records && args.ports.contains(&TrafficQuery::All) {
        remarks.push("note: JSON and CSV have rows for ports: `--port all` has none there".to_owned());
    }
    remarks
}

/// That `--only` has left nothing.
pub(super) fn nothing_left(only: Only) -> String {
    match only {
        Only::Allowed => "note: nothing is allowed".to_owned(),
        Only::Denied => "note: nothing is denied".to_owned(),
    }
}

/// That destinations of which nothing is asked have no rows.
fn without_rows(ends: &[End<'_>], destinations: &[usize]) -> Vec<String> {
    let destinations = destinations.iter().filter_map(|index| ends.get(*index));
    let (pods, outside): (Vec<_>, Vec<_>) = destinations.partition(|end| end.pod.is_some());
    let unasked = |ends: &[&End<'_>]| {
        ends.iter().filter(|end| matches!(&end.asked, Asked::Traffic(traffic) if traffic.is_empty())).count()
    };
    let mut remarks = Vec::new();
    let hint = "declare no ports: give --port to see connections to them";
    if let count @ 1.. = unasked(&pods) {
        remarks.push(format!("note: {count} of {} pods {hint}", pods.len()));
    }
    if unasked(&outside) > 0 {
        remarks.push(format!("note: outside addresses {hint}"));
    }
    remarks
}

fn without_pods(cluster: &Cluster) -> String {
    let policies = cluster.policies().len() + cluster.cluster_policies().len();
    let hint = match (cluster.pods().len(), policies) {
        (0, 0) => String::new(),
        (0, _) => ": policies alone allow and deny nothing, add the workloads".to_owned(),
        (finished, _) => format!(" but finished ones ({finished})"),
    };
    format!("warning: there is no pod in the manifests{hint}")
}

/// That no pod has a port of this name.
fn unknown_port(query: &TrafficQuery, cluster: &Cluster, outside: bool) -> Option<String> {
    let TrafficQuery::Port(port) = query else { return None };
    let TargetPort::Name(name) = &port.port else { return None };
    let declared = || cluster.pods().values().filter(|pod| !pod.finished).flat_map(|pod| &pod.ports);
    let of_name = || declared().filter(|port| port.name.as_ref() == Some(name));
    if of_name().any(|of_name| of_name.protocol == port.protocol) || cluster.pods().is_empty() && outside {
        return None;
    }
    let others: BTreeSet<_> = of_name().map(|port| format!("{name}/{}", port.protocol)).collect();
    let hint = if others.is_empty() {
        did_you_mean(name, declared().filter_map(|port| port.name.clone()).collect::<BTreeSet<_>>())
    } else {
        format!(": did you mean {}?", others.into_iter().collect::<Vec<_>>().join(" or "))
    };
    Some(format!("warning: --port: no pod has a port named {port}{hint}"))
}
