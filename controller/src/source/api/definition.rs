//! The definition of `ClusterNetworkPolicy`: it may be missing, come at any time, and go.
//!
//! Only the definition itself shows that there are no such policies. That the API server has nothing at their path may
//! be because it is about to start, or another one than before.

use std::cell::RefCell;
use std::fmt;
use std::pin::pin;
use std::time::Instant;

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::Deserialize;
use tracing::info;

use super::known::Known;
use super::policies::ClusterNetworkPolicy;
use super::retries::Retries;
use super::{Ended, Follower, is_forbidden};
use crate::cluster_policies::{self, Version};
use crate::source::Changes;

/// Definitions as the API's paths and messages have them.
pub(super) const PLURAL: &str = "customresourcedefinitions";

/// How the API server serves ClusterNetworkPolicies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Served {
    /// That is not known yet.
    Unknown,
    /// They are not defined: there are none.
    Undefined,
    /// In no version that is read.
    Unreadable,
    /// In a version that is read.
    In(Version),
}

/// `apiextensions.k8s.io/v1 CustomResourceDefinition`, without the schema.
#[derive(Debug, Clone, Resource, Deserialize)]
#[resource(inherit = apiextensions::CustomResourceDefinition)]
pub(super) struct Definition {
    metadata: ObjectMeta,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Deserialize)]
struct Spec {
    versions: Vec<VersionOfDefinition>,
}

#[derive(Debug, Clone, Deserialize)]
struct VersionOfDefinition {
    name: String,
    served: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Definition {
    /// `None` while nothing is served by it.
    fn served(&self) -> Option<Served> {
        let conditions = self.status.conditions.as_deref().unwrap_or_default();
        let is_established =
            |condition: &Condition| condition.kind == "Established" && condition.status == "True";
        conditions.iter().any(is_established).then(|| {
            let is_served = |version: &Version| {
                self.spec.versions.iter().any(|known| known.served && known.name == version.as_str())
            };
            Version::ALL.into_iter().find(is_served).map_or(Served::Unreadable, Served::In)
        })
    }
}

impl<F: Fn(Changes) -> bool> Follower<'_, F> {
    /// Follows ClusterNetworkPolicies, in the version that is served, as long as they are defined.
    pub(super) async fn follow_cluster_policies(&self, which: &watcher::Config) -> Ended {
        let known: RefCell<Known<ClusterNetworkPolicy>> = RefCell::default();
        let mut served = self.served.subscribe();
        loop {
            let now = *served.borrow_and_update();
            if let Served::In(version) = now {
                tokio::select! {
                    biased;
                    _ = served.changed() => {}
                    ended = self.follow(which, &version, &known) => return ended,
                }
                continue;
            }
            if now == Served::Undefined
                && let Err(ended) = self.end_cluster_policies(&known)
            {
                return ended;
            }
            // The sender lives as long as `self`.
            let _ = served.changed().await;
        }
    }

    /// The policies are not defined any more: the API server has deleted them.
    fn end_cluster_policies(&self, known: &RefCell<Known<ClusterNetworkPolicy>>) -> Result<(), Ended> {
        let updates = known.borrow_mut().take_end();
        self.heard.forget(cluster_policies::PLURAL);
        self.count_undecodable::<ClusterNetworkPolicy>(0);
        if updates.is_empty() { Ok(()) } else { self.hand_on(updates, Instant::now()) }
    }

    /// Follows the definition.
    pub(super) async fn follow_definition(&self, which: &watcher::Config) -> Ended {
        let name = format!("{}.{}", cluster_policies::PLURAL, cluster_policies::GROUP);
        let which = which.clone().fields(&format!("metadata.name={name}"));
        let mut retries = Retries::default();
        loop {
            let mut events = pin!(watcher(Api::<Definition>::all(self.client.clone()), which.clone()));
            let mut listed = Served::Undefined;
            while let Some(event) = events.next().await {
                let now = match event {
                    Ok(Event::Init) => {
                        listed = Served::Undefined;
                        continue;
                    }
                    Ok(Event::InitApply(definition)) => {
                        listed = definition.served().unwrap_or_else(|| self.as_before());
                        continue;
                    }
                    Ok(Event::InitDone) => {
                        self.heard.note(PLURAL);
                        listed
                    }
                    Ok(Event::Apply(definition)) => definition.served().unwrap_or_else(|| self.as_before()),
                    Ok(Event::Delete(_)) => Served::Undefined,
                    Err(error) => match self.do_without_definition(&error, &mut retries).await {
                        Ok(()) => continue,
                        Err(ended) => return ended,
                    },
                };
                if retries.end() {
                    info!("{PLURAL} are followed again");
                }
                if let Err(ended) = self.learn_served(now) {
                    return ended;
                }
            }
        }
    }

    /// Reports that the definition cannot be read, and asks for the policies themselves where it may not be.
    async fn do_without_definition(
        &self,
        error: &watcher::Error,
        retries: &mut Retries,
    ) -> Result<(), Ended> {
        self.report(PLURAL, false, error, retries, Instant::now())?;
        // What is not found is no proof that policies which are known are gone.
        if is_forbidden(error)
            && !matches!(*self.served.borrow(), Served::In(_))
            && let Some(served) = self.discover().await
        {
            self.learn_served(served)?;
        }
        tokio::time::sleep(retries.wait()).await;
        Ok(())
    }

    /// Asks in which version the policies are served; `None` if that cannot be known.
    async fn discover(&self) -> Option<Served> {
        for version in Version::ALL {
            let group_version = format!("{}/{}", cluster_policies::GROUP, version.as_str());
            match self.client.list_api_group_resources(&group_version).await {
                Ok(list) if list.resources.iter().any(|it| it.name == cluster_policies::PLURAL) => {
                    return Some(Served::In(version));
                }
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(_) => return None,
            }
        }
        Some(Served::Undefined)
    }

    /// What is known of a definition that is there and does not serve yet.
    fn as_before(&self) -> Served {
        match *self.served.borrow() {
            Served::Unknown => Served::Undefined,
            served => served,
        }
    }

    /// Takes in how the policies are served now.
    fn learn_served(&self, now: Served) -> Result<(), Ended> {
        let before = self.served.send_replace(now);
        let first = self.missing.borrow_mut().remove(PLURAL).is_some();
        if before == now {
            return if first { self.hand_on(Vec::new(), Instant::now()) } else { Ok(()) };
        }
        info!("{} are {now}", cluster_policies::PLURAL);
        let plural = cluster_policies::PLURAL;
        let missing = match (before, now) {
            (Served::In(_), Served::In(_)) => return Ok(()),
            (_, Served::In(_)) => Some(format!("{plural} are not listed yet")),
            (_, Served::Unreadable) => Some(format!("{plural} are {now}")),
            (_, Served::Undefined | Served::Unknown) => None,
        };
        self.missing.borrow_mut().remove(plural);
        self.missing.borrow_mut().extend(missing.map(|missing| (plural.to_owned(), missing)));
        self.hand_on(Vec::new(), Instant::now())
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Undefined => f.write_str("not defined"),
            Self::Unreadable => {
                let versions = Version::ALL.map(Version::as_str).join(" nor ");
                write!(f, "served neither in {versions}, and no other version is read")
            }
            Self::In(version) => write!(f, "served in {}", version.as_str()),
        }
    }
}
