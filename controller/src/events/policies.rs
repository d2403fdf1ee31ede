//! Events on policies: the kernel refuses them, or takes them again, or they are not entirely what was meant.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DynamicObject, PostParams};
use kube::{Api, Client};
use policy_compiler::model::PolicyName;
use tokio::sync::mpsc::Receiver;

use super::{Content, Failures, NAMESPACE, event, reference};
use crate::cluster_policies::Version;
use crate::refusals::{PolicyContent, PolicyNews, consequence};
use crate::token_bucket::TokenBucket;

/// The `reason` of an event.
const REFUSED: &str = "PolicyRefused";
const ENFORCED: &str = "PolicyEnforced";
const REMARK: &str = "PolicyWarning";

/// The longest part of a policy's name in that of an event, bytes: the API server takes 253, with what stands behind.
const LONGEST_NAME: usize = 200;

/// How many events are made at once, and how soon another one: who edits a bad policy again and again gets no more.
const IN_ALL: (u32, Duration) = (25, Duration::from_secs(10));

/// Makes Events of what there is to say about policies until there is nothing to come. What cannot be published is in
/// the log.
pub(super) async fn publish(client: &Client, node: &str, mut policies: Receiver<PolicyNews>) {
    let (most, interval) = IN_ALL;
    let mut in_all = TokenBucket::new(most, interval, Instant::now());
    let mut failures = Failures::default();
    while let Some(news) = policies.recv().await {
        if in_all.take(Instant::now())
            && let Err(error) = create(client, node, news).await
        {
            failures.report(&error, "a policy gets no event; the log has it");
        }
    }
}

async fn create(client: &Client, node: &str, PolicyNews { policy, content }: PolicyNews) -> kube::Result<()> {
    let Some(object) = find(client, &policy).await? else { return Ok(()) };
    let is_remark = matches!(content, PolicyContent::Remark(_));
    let content = match content {
        PolicyContent::Refused(reason) => Content {
            kind: "Warning",
            reason: REFUSED,
            message: format!("on node {node} {}, because {reason}", consequence(&policy)),
            count: 1,
        },
        PolicyContent::Enforced => Content {
            kind: "Normal",
            reason: ENFORCED,
            message: format!("the kernel of node {node} takes the policy: its rules are enforced"),
            count: 1,
        },
        PolicyContent::Remark(message) => Content { kind: "Warning", reason: REMARK, message, count: 1 },
    };
    let mut event = event(node, object, content);
    if is_remark {
        event.metadata.name = Some(common_name(&event));
    }
    let namespace = event.metadata.namespace.as_deref().unwrap_or(NAMESPACE);
    let events = Api::<Event>::namespaced(client.clone(), namespace);
    match events.create(&PostParams::default(), &event).await {
        // The agent of another node was faster.
        Err(kube::Error::Api(status)) if is_remark && status.code == 409 => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// A name that is the same on every node, where all of them have the same to say.
fn common_name(event: &Event) -> String {
    let object = &event.involved_object;
    let mut hasher = DefaultHasher::new();
    (&object.uid, &event.message).hash(&mut hasher);
    let mut name = object.name.clone().unwrap_or_default();
    name.truncate(LONGEST_NAME);
    format!("{}.{:016x}", name.trim_end_matches(['.', '-']), hasher.finish())
}

/// What names a policy in an event; `None` if it is gone.
async fn find(client: &Client, policy: &PolicyName) -> kube::Result<Option<ObjectReference>> {
    match policy {
        PolicyName::Namespaced(name) => {
            let policies = Api::<NetworkPolicy>::namespaced(client.clone(), &name.namespace);
            reference(policies, &(), &name.name).await
        }
        PolicyName::Cluster(name) => {
            for resource in Version::ALL.map(Version::resource) {
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
