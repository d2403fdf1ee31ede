//! Events: what `kubectl describe` says of packets that bypass the rules, of packets that the policies deny, and of
//! policies that the kernel refuses.

mod node;
mod pods;
mod policies;

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Receiver;
use tracing::warn;

use crate::datapath::Problem;
use crate::denials::Notice;
use crate::refusals::PolicyNews;

const COMPONENT: &str = "podfence-controller";

/// Where the events on objects without a namespace are.
const NAMESPACE: &str = "default";

/// The longest `message` that the API server takes, bytes.
const LONGEST_MESSAGE: usize = 1024;

/// What becomes Events.
#[derive(Debug)]
pub(crate) struct News {
    /// On the node.
    pub(crate) problems: Receiver<Problem>,
    /// On pods.
    pub(crate) denials: Receiver<Notice>,
    /// On policies.
    pub(crate) policies: Receiver<PolicyNews>,
}

/// Makes Events of the news until there are none to come.
pub(crate) async fn publish(client: Client, node: &str, News { problems, denials, policies }: News) {
    futures::future::join3(
        node::publish(&client, node, problems),
        pods::publish(&client, node, denials),
        policies::publish(&client, node, policies),
    )
    .await;
}

/// What names an object in an event, with the identifier that `kubectl describe` looks for; `None` if it is gone.
async fn reference<K>(
    objects: Api<K>,
    kind: &K::DynamicType,
    name: &str,
) -> kube::Result<Option<ObjectReference>>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    // The agent may list objects, and need not get them.
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    let objects = objects.list_metadata(&named).await?;
    Ok(objects.items.into_iter().next().map(|object| ObjectReference {
        api_version: Some(K::api_version(kind).into_owned()),
        kind: Some(K::kind(kind).into_owned()),
        name: object.metadata.name,
        namespace: object.metadata.namespace,
        uid: object.metadata.uid,
        ..ObjectReference::default()
    }))
}

/// What an event says.
struct Content {
    kind: &'static str,
    reason: &'static str,
    message: String,
    count: i32,
}

/// An event on an object that this node's agent makes, in the object's namespace or else in [`NAMESPACE`].
fn event(node: &str, object: ObjectReference, content: Content) -> Event {
    let now = Time(Timestamp::now());
    let namespace = object.namespace.clone().unwrap_or_else(|| NAMESPACE.to_owned());
    Event {
        metadata: ObjectMeta {
            generate_name: object.name.as_ref().map(|name| format!("{name}.")),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: object,
        type_: Some(content.kind.to_owned()),
        reason: Some(content.reason.to_owned()),
        message: Some(shortened(content.message)),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(content.count),
        source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: Some(node.to_owned()) }),
        reporting_component: Some(COMPONENT.to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    }
}

/// As much of a message as the API server takes.
fn shortened(mut message: String) -> String {
    const ELLIPSIS: &str = "…";
    if message.len() > LONGEST_MESSAGE {
        let room = LONGEST_MESSAGE - ELLIPSIS.len();
        let end = (0..=room).rev().find(|end| message.is_char_boundary(*end)).unwrap_or_default();
        message.truncate(end);
        message.push_str(ELLIPSIS);
    }
    message
}

/// What has gone wrong with events, said once.
#[derive(Default)]
struct Failures {
    last: String,
    forbidden: bool,
}

impl Failures {
    /// Says it, unless it is what failed before, or one right more that is missing.
    fn report(&mut self, error: &kube::Error, consequence: &str) {
        let is_right = matches!(error, kube::Error::Api(status) if status.code == 403);
        let text = error.to_string();
        if text != self.last && !(is_right && self.forbidden) {
            warn!(error = text, "{consequence}");
        }
        self.forbidden |= is_right;
        self.last = text;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_two_characters() {
        for (length, kept) in [(0, 0), (341, 341), (342, 340), (1000, 340)] {
            let message = shortened("→".repeat(length));
            let ellipsis = if length == kept { "" } else { "…" };
            assert_eq!(message, "→".repeat(kept) + ellipsis);
            assert!(message.len() <= LONGEST_MESSAGE);
        }
    }
}
