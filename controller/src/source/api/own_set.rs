//! The DaemonSet whose pods the agents are.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client};
use policy_compiler::model::ObjectName;
use tracing::warn;

/// How long an answer may take: an agent ends within a second.
const LONGEST_ANSWER: Duration = Duration::from_millis(600);

/// Whether a DaemonSet is deleted, or being deleted. Who uninstalls takes the agents' rights away too, so to be refused is
/// an answer as well. Where there is no answer, it is not known to be.
pub(crate) async fn is_deleted(client: Client, name: &ObjectName) -> bool {
    let sets = Api::<DaemonSet>::namespaced(client, &name.namespace);
    match tokio::time::timeout(LONGEST_ANSWER, sets.get_metadata_opt(&name.name)).await {
        Ok(Ok(set)) => set.is_none_or(|set| set.metadata.deletion_timestamp.is_some()),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => true,
        Ok(Err(error)) => {
            warn!(%error, "it is not known whether DaemonSet {name} is deleted: the CNI plugin stays");
            false
        }
        Err(_) => {
            warn!("it is not known in time whether DaemonSet {name} is deleted: the CNI plugin stays");
            false
        }
    }
}
