//! Events on policies: the kernel refuses them, or takes them again.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DynamicObject, PostParams};
use kube::{Api, Client};
use policy_compiler::model::PolicyName;
use tokio::sync::mpsc::Receiver;

use super::{Content, Failures, NAMESPACE, event, reference};
use crate::cluster_policies::{self, VERSIONS};
use crate::refusals::{Refusal, consequence};
use crate::token_bucket::TokenBucket;

/// The `reason` of an event.
const REFUSED: &str = "PolicyRefused";
const ENFORCED: &str = "PolicyEnforced";

/// How many events are made at once, and how soon another one: who edits a bad policy again and again gets no more.
const IN_ALL: (u32, Duration) = (25, Duration::from_secs(10));

/// Makes Events of policies that the kernel refuses until there are none to come. What cannot be published is in the
/// log.
pub(super) async fn publish(client: &Client, node: &str, mut refusals: Receiver<Refusal>) {
    let (most, interval) = IN_ALL;
    let mut in_all = TokenBucket::new(most, interval, Instant::now());
    let mut failures = Failures::default();
    while let Some(refusal) = refusals.recv().await {
        if in_all.take(Instant::now())
            && let Err(error) = create(client, node, refusal).await
        {
            failures.report(&error, "a policy gets no event of what the kernel makes of it; the log has it");
        }
    }
}

async fn create(client: &Client, node: &str, Refusal { policy, reason }: Refusal) -> kube::Result<()> {
    let Some(object) = find(client, &policy).await? else { return Ok(()) };
    let content = match reason {
        Some(reason) => Content {
            kind: "Warning",
            reason: REFUSED,
            message: format!("on node {node} {}, because {reason}", consequence(&policy)),
            count: 1,
        },
        None => Content {
            kind: "Normal",
            reason: ENFORCED,
            message: format!("the kernel of node {node} takes the policy: its rules are enforced"),
            count: 1,
        },
    };
    let event = event(node, object, content);
    let namespace = event.metadata.namespace.as_deref().unwrap_or(NAMESPACE);
    let events = Api::<Event>::namespaced(client.clone(), namespace);
    events.create(&PostParams::default(), &event).await.map(drop)
}

/// What names a policy in an event; `None` if it is gone.
async fn find(client: &Client, policy: &PolicyName) -> kube::Result<Option<ObjectReference>> {
    match policy {
        PolicyName::Namespaced(name) => {
            let policies = Api::<NetworkPolicy>::namespaced(client.clone(), &name.namespace);
            reference(policies, &(), &name.name).await
        }
        PolicyName::Cluster(name) => {
            for resource in VERSIONS.map(cluster_policies::resource) {
                let policies = Api::<DynamicObject>::all_with(client.clone(), &resource);
                match reference(policies, &resource, name).await {
                    // The API server does not serve this version.
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    outcome => return outcome,
                }
            }
            Ok(None)
        }
    }
}
