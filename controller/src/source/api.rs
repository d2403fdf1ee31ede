//! The API server: the objects of the cluster, listed once and then watched.
//!
//! A watch that breaks goes on where it broke. Where the API server does not know that place any more, the
//! objects are listed again, and those that are gone from the list are told as gone. Whatever fails, what has
//! been told stays told.

mod decode;
mod events;
mod objects;
#[cfg(test)]
mod tests;
mod told;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::config::{Config, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use tokio::runtime::Runtime;
use tracing::{info, warn};

use self::decode::Object;
use self::objects::{Kind, Namespace, NetworkPolicy, Node, Pod};
use self::told::Told;
use super::{Changes, Knowledge, News, Update};
use crate::health::{Condition, Health};
use crate::metrics::Metrics;

/// How long a silent connection counts as alive. A watch of which nothing is heard gets a bookmark about once
/// a minute.
const LONGEST_SILENCE: Duration = Duration::from_secs(90);

/// The wait after the first failure; it doubles up to [`LONGEST_RETRY`], and up to a half of it is left out by
/// chance, so that not all nodes come back at once.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(4);

/// Why the API server cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file cannot be read, or does not say how to reach a cluster.
    #[error("cannot use the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// There is no service account, as a pod has one.
    #[error("this is no pod of a cluster: name a kubeconfig or a directory of manifests")]
    InCluster(#[source] InClusterError),
    /// The credentials or certificates are of no use.
    #[error("cannot make a client of the API server at {server}")]
    Client {
        /// Its address.
        server: String,
        /// What is wrong.
        source: kube::Error,
    },
    /// The system does not give what a client needs.
    #[error("cannot start the client of the API server")]
    Runtime(#[source] std::io::Error),
}

/// A cluster's API server.
pub(crate) struct ApiServer {
    client: Client,
    runtime: Runtime,
}

impl ApiServer {
    /// The one that a kubeconfig's current context names.
    ///
    /// # Errors
    ///
    /// If the file is no usable kubeconfig. Whether the server answers is not asked.
    pub(crate) fn of_kubeconfig(path: &Path) -> Result<Self, Error> {
        let error = |source| Error::Kubeconfig { path: path.to_owned(), source };
        let kubeconfig = Kubeconfig::read_from(path).map_err(error)?;
        let runtime = runtime()?;
        let options = KubeConfigOptions::default();
        let config = runtime.block_on(Config::from_custom_kubeconfig(kubeconfig, &options)).map_err(error)?;
        Self::new(config, runtime)
    }

    /// The one whose service account this process has been given.
    ///
    /// # Errors
    ///
    /// If there is no service account. Whether the server answers is not asked.
    pub(crate) fn of_service_account() -> Result<Self, Error> {
        Self::new(Config::incluster().map_err(Error::InCluster)?, runtime()?)
    }

    fn new(mut config: Config, runtime: Runtime) -> Result<Self, Error> {
        let server = config.cluster_url.to_string();
        config.read_timeout = Some(LONGEST_SILENCE);
        config.reset_reader_on_write = true;
        // It would wait in silence for as long as the server is overloaded or without its database.
        config.default_retry = false;
        let client = {
            let _inside = runtime.enter();
            Client::try_from(config).map_err(|source| Error::Client { server: server.clone(), source })?
        };
        info!(server, "follows the API server");
        Ok(Self { client, runtime })
    }

    /// Tells all objects, of nodes only the one of this name, and then each change of what is read of them at
    /// once, until `tell` returns false. The news become events.
    pub(crate) fn follow(
        self,
        node: &str,
        health: Health,
        metrics: &Metrics,
        news: News,
        tell: impl Fn(Changes) -> bool,
    ) {
        // The node is none of them: the policies are enforced without it.
        let missing = [plural::<Namespace>(), plural::<NetworkPolicy>(), plural::<Pod>()]
            .map(|plural| (plural.clone(), format!("{plural} are not listed yet")));
        let publishing = events::publish(self.client.clone(), node, news);
        let follower = Follower {
            client: self.client,
            health,
            metrics,
            tell,
            missing: RefCell::new(BTreeMap::from(missing)),
            undecodable: RefCell::default(),
        };
        let all = watcher::Config::default();
        let own = all.clone().fields(&format!("metadata.name={node}"));
        self.runtime.block_on(async {
            // Whether or not somebody still has news, the objects are followed.
            let publishing = async {
                publishing.await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = publishing => {}
                Ended = follower.follow::<Namespace>(&all) => {}
                Ended = follower.follow::<NetworkPolicy>(&all) => {}
                Ended = follower.follow::<Node>(&own) => {}
                Ended = follower.follow::<Pod>(&all) => {}
            }
        });
    }
}

fn runtime() -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)
}

/// A kind as the API's paths and messages have it, such as `pods`.
fn plural<K: Kind>() -> String {
    K::plural(&()).into_owned()
}

/// Follows all kinds.
struct Follower<'m, F> {
    client: Client,
    health: Health,
    metrics: &'m Metrics,
    tell: F,
    /// The kinds that have not been listed yet, and why.
    missing: RefCell<BTreeMap<String, String>>,
    /// How many objects of a kind cannot be decoded, if there are any.
    undecodable: RefCell<BTreeMap<String, usize>>,
}

/// Nobody listens any more.
struct Ended;

impl<F: Fn(Changes) -> bool> Follower<'_, F> {
    async fn follow<K: Kind>(&self, which: &watcher::Config) -> Ended {
        let mut told = Told::<K>::default();
        let mut retries = Retries::default();
        loop {
            if let Err(ended) = self.watch(which, &mut told, &mut retries).await {
                return ended;
            }
        }
    }

    /// Lists and watches a kind, until an event is lost.
    async fn watch<K: Kind>(
        &self,
        which: &watcher::Config,
        told: &mut Told<K>,
        retries: &mut Retries,
    ) -> Result<(), Ended> {
        let mut events = pin!(watcher(Api::<Object<K>>::all(self.client.clone()), which.clone()));
        while let Some(event) = events.next().await {
            let received = Instant::now();
            match event {
                Ok(event) => {
                    let taken = told.take(event);
                    self.count_undecodable::<K>(told.undecodable());
                    let Some(updates) = taken else { continue };
                    if retries.end() {
                        info!("{} are followed again", plural::<K>());
                    }
                    let first = self.missing.borrow_mut().remove(&plural::<K>()).is_some();
                    if first || !updates.is_empty() {
                        self.tell(updates, received)?;
                    }
                }
                Err(error) => {
                    self.report::<K>(&error, retries, received)?;
                    tokio::time::sleep(retries.wait()).await;
                    // The stream would go on behind what could not be read.
                    if matches!(error, watcher::Error::WatchFailed(kube::Error::SerdeError(_))) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Says how many objects of a kind cannot be decoded now.
    fn count_undecodable<K: Kind>(&self, objects: usize) {
        let mut undecodable = self.undecodable.borrow_mut();
        let before = if objects > 0 {
            undecodable.insert(plural::<K>(), objects)
        } else {
            undecodable.remove(&plural::<K>())
        };
        if before.unwrap_or_default() == objects {
            return;
        }
        let counts: Vec<_> = undecodable.iter().map(|(plural, count)| format!("{count} {plural}")).collect();
        if counts.is_empty() {
            self.health.good(Condition::Objects);
        } else {
            let reason = format!("objects of the API server cannot be decoded ({})", counts.join(", "));
            self.health.bad(Condition::Objects, reason);
        }
        self.metrics.undecodable(&K::kind(&()), objects);
    }

    /// Says that a kind cannot be listed or watched.
    fn report<K: Kind>(
        &self,
        error: &watcher::Error,
        retries: &mut Retries,
        received: Instant,
    ) -> Result<(), Ended> {
        self.metrics.source_failure();
        let reason = reason(error, &plural::<K>());
        if retries.is_new(&reason) {
            warn!("{reason}; what is known stays enforced");
        }
        match self.missing.borrow_mut().get_mut(&plural::<K>()) {
            Some(missing) => *missing = reason,
            None => return Ok(()),
        }
        self.tell(Vec::new(), received)
    }

    fn tell(&self, updates: Vec<Update>, received: Instant) -> Result<(), Ended> {
        let missing: Vec<String> = self.missing.borrow().values().cloned().collect();
        let knowledge =
            if missing.is_empty() { Knowledge::Complete } else { Knowledge::Pending(missing.join("; ")) };
        if (self.tell)(Changes { updates, received, knowledge }) { Ok(()) } else { Err(Ended) }
    }
}

/// What failed, and the cause at the bottom of it.
fn reason(error: &watcher::Error, plural: &str) -> String {
    let verb = match error {
        watcher::Error::InitialListFailed(_) => "list",
        _ => "watch",
    };
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let cause = causes.last().map(ToString::to_string).unwrap_or_default();
    format!("cannot {verb} {plural}: {cause}")
}

/// Failures in a row.
#[derive(Default)]
struct Retries {
    failures: u32,
    /// What failed last.
    reason: String,
}

impl Retries {
    /// Whether something else failed before.
    fn is_new(&mut self, reason: &str) -> bool {
        let new = self.reason != reason;
        reason.clone_into(&mut self.reason);
        new
    }

    /// Counts a failure; returns how long to wait after it.
    fn wait(&mut self) -> Duration {
        let wait = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST_RETRY);
        self.failures += 1;
        wait.mul_f64(1.0 - fastrand::f64() / 2.0)
    }

    /// Counts a success; whether there were failures before it.
    fn end(&mut self) -> bool {
        std::mem::take(self).failures > 0
    }
}
