//! Events on the node: packets bypass the rules.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, ObjectReference};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::mpsc::Receiver;

use super::{Content, Failures, NAMESPACE, event};
use crate::datapath::Problem;

/// How long a problem that has been published is not published again. The API server keeps an event for an hour.
const SILENCE: Duration = Duration::from_secs(30 * 60);

/// Makes an Event of every problem, of one that is reported again and again only now and then. What
/// cannot be published, for want of the right or of an answer, is tried again when it is reported again.
pub(super) async fn publish(client: &Client, node: &str, mut problems: Receiver<Problem>) {
    let events = Api::<Event>::namespaced(client.clone(), NAMESPACE);
    let mut published: BTreeMap<Problem, Instant> = BTreeMap::new();
    let mut failures = Failures::default();
    while let Some(problem) = problems.recv().await {
        published.retain(|_, at| at.elapsed() < SILENCE);
        if published.contains_key(&problem) {
            continue;
        }
        let content =
            Content { kind: "Warning", reason: problem.reason(), message: problem.to_string(), count: 1 };
        match events.create(&PostParams::default(), &event(node, reference(node), content)).await {
            Ok(_) => {
                published.insert(problem, Instant::now());
            }
            Err(error) => failures.report(&error, "the node gets no event of the problem"),
        }
    }
}

fn reference(node: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.to_owned()),
        // As the kubelet's own events have it, and `kubectl describe node` looks for.
        uid: Some(node.to_owned()),
        ..ObjectReference::default()
    }
}
