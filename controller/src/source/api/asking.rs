//! Single objects that are asked for, beside the watch of their kind.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use kube::api::ListParams;
use kube::{Api, Client};
use policy_compiler::model::ObjectName;
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::{info, warn};

use super::decode::Object;
use super::known::Known;
use super::objects::{Kind, Namespace, Node, Pod};
use super::retries::Retries;
use super::{Ended, Follower, root_cause};
use crate::source::Changes;

/// How long an answer may take.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// Why an object is not known.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The API server refuses, or cannot be reached.
    #[error("the API server does not list it")]
    Refused(#[from] kube::Error),
    /// It does not answer in time.
    #[error("no answer for {} seconds", LONGEST_ANSWER.as_secs())]
    Late,
}

impl<F: Fn(Changes) -> bool> Follower<'_, F> {
    /// Hands on deleted policies, with what their namespaces have become meanwhile.
    pub(super) async fn settle_deletions(&self, namespaces: &RefCell<Known<Namespace>>) -> Ended {
        let mut retries = Retries::default();
        loop {
            let held = self.deletions.next().await;
            let (namespace, version) =
                match ask_for(&format!("metadata.name={}", held.namespace), &self.client).await {
                    Ok(answer) => answer,
                    Err(error) => {
                        self.metrics.source_failure();
                        let reason =
                            format!("cannot ask for namespace {}: {}", held.namespace, root_cause(&error));
                        if retries.is_new(&reason) {
                            warn!("{reason}; its deleted policies stay enforced");
                        }
                        tokio::time::sleep(retries.wait()).await;
                        continue;
                    }
                };
            if retries.end() {
                info!("namespaces of deleted policies can be asked for again");
            }
            let mut updates =
                Vec::from_iter(namespaces.borrow_mut().take_asked(&held.namespace, namespace, version));
            let (policies, received) = self.deletions.release(held);
            updates.extend(policies);
            if let Err(ended) = self.hand_on(updates, received.unwrap_or_else(Instant::now)) {
                return ended;
            }
        }
    }

    /// Asks for pods that the CNI plugin has reported and no watch has shown yet.
    pub(super) async fn look_for_pods(
        &self,
        pods: &RefCell<Known<Pod>>,
        mut unknown: UnboundedReceiver<ObjectName>,
    ) -> Ended {
        while let Some(ObjectName { namespace, name }) = unknown.recv().await {
            let fields = format!("metadata.namespace={namespace},metadata.name={name}");
            match ask_for::<Pod>(&fields, &self.client).await {
                Ok((pod, version)) => {
                    let update = pods.borrow_mut().take_asked(&ObjectName { namespace, name }, pod, version);
                    if let Err(ended) = self.hand_on(Vec::from_iter(update), Instant::now()) {
                        return ended;
                    }
                }
                // The plugin hears that the pod is unknown, and the runtime tries again.
                Err(error) => {
                    self.metrics.source_failure();
                    warn!("cannot ask for pod {namespace}/{name}: {}", root_cause(&error));
                }
            }
        }
        std::future::pending().await
    }

    /// Looks whether there is any Node. Where that cannot be known, the name of the own one has to be proven.
    pub(super) async fn look_for_nodes(&self) {
        let one = ListParams::default().limit(1);
        let nodes = Api::<Node>::all(self.client.clone()).list_metadata(&one).await;
        self.node.borrow_mut().among_nodes(nodes.map_or(true, |nodes| !nodes.items.is_empty()));
    }
}

/// Asks for the object with these fields, such as `metadata.name=default`. Returns it, if it exists, and the version of
/// its kind that shows that.
///
/// # Errors
///
/// If there is no answer in time.
async fn ask_for<K: Kind>(fields: &str, client: &Client) -> Result<(Option<Object<K>>, Option<u64>), Error> {
    // A list, since the role of the agent allows that, and since it says how new it is also where there is nothing.
    let only = ListParams::default().fields(fields);
    let objects = Api::<Object<K>>::all_with(client.clone(), &K::DynamicType::default());
    let list = tokio::time::timeout(LONGEST_ANSWER, objects.list(&only)).await.map_err(|_| Error::Late)??;
    let version = list.metadata.resource_version.and_then(|version| version.parse().ok());
    Ok((list.items.into_iter().next(), version))
}
