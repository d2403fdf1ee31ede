//! Events on the node: what `kubectl describe node` says of packets that do not come past the rules.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::mpsc::Receiver;
use tracing::warn;

use crate::datapath::Problem;

/// How long nothing more is said of a problem that has been told. The API server keeps an event for an hour.
const SILENCE: Duration = Duration::from_secs(30 * 60);

/// Where the events on objects without a namespace are.
const NAMESPACE: &str = "default";

const COMPONENT: &str = "podfence-controller";

/// Tells the API server of every problem, of one that is reported again and again only now and then. What
/// cannot be told, for want of the right or of an answer, is tried again when it is reported again.
pub(super) async fn publish(client: Client, node: &str, mut problems: Receiver<Problem>) {
    let events = Api::<Event>::namespaced(client, NAMESPACE);
    let mut told: BTreeMap<Problem, Instant> = BTreeMap::new();
    let mut failure = String::new();
    while let Some(problem) = problems.recv().await {
        told.retain(|_, at| at.elapsed() < SILENCE);
        if told.contains_key(&problem) {
            continue;
        }
        match events.create(&PostParams::default(), &event(node, &problem)).await {
            Ok(_) => {
                told.insert(problem, Instant::now());
            }
            Err(error) => {
                let error = error.to_string();
                if error != failure {
                    warn!(error, "the node gets no event of the problem");
                    failure = error;
                }
            }
        }
    }
}

fn event(node: &str, problem: &Problem) -> Event {
    let now = Time(Timestamp::now());
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{node}.")),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            // As the kubelet's own events have it, and `kubectl describe node` looks for.
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(problem.reason().to_owned()),
        message: Some(problem.to_string()),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: Some(node.to_owned()) }),
        reporting_component: Some(COMPONENT.to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    }
}
