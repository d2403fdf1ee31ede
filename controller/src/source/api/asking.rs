//! Single objects that are asked for, beside the watch of their kind.

use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Client};

use super::decode::Object;
use super::objects::Kind;

/// How long an answer may take.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// Why an object is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API server refuses, or cannot be reached.
    #[error("the API server does not list it")]
    Refused(#[from] kube::Error),
    /// It does not answer in time.
    #[error("no answer for {} seconds", LONGEST_ANSWER.as_secs())]
    Late,
}

/// Asks for the object with these fields, such as `metadata.name=default`. Returns it, if it exists, and the version of
/// its kind that shows that.
///
/// # Errors
///
/// If there is no answer in time.
pub(super) async fn ask_for<K: Kind>(
    fields: &str,
    client: &Client,
) -> Result<(Option<Object<K>>, Option<u64>), Error> {
    // A list, since the role of the agent allows that, and since it says how new it is also where there is nothing.
    let only = ListParams::default().fields(fields);
    let objects = Api::<Object<K>>::all_with(client.clone(), &K::DynamicType::default());
    let list = tokio::time::timeout(LONGEST_ANSWER, objects.list(&only)).await.map_err(|_| Error::Late)??;
    let version = list.metadata.resource_version.and_then(|version| version.parse().ok());
    Ok((list.items.into_iter().next(), version))
}
