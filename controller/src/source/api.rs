//! The API server: the objects of the cluster, listed once and then watched.
//!
//! A watch that breaks goes on where it broke. Where the API server does not know that place any more, the
//! objects are listed again, and those that are gone from the list count as gone. Whatever fails, what has
//! been handed on stays known.

mod asking;
mod decode;
mod definition;
mod deletions;
mod known;
mod listener;
mod node;
mod nodes;
mod objects;
mod own_set;
mod policies;
mod retries;
#[cfg(test)]
mod tests;

pub(crate) use own_set::is_deleted;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::config::{Config, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use policy_compiler::model::ObjectName;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Sender, UnboundedReceiver};
use tokio::sync::watch;
use tracing::{info, warn};

use self::decode::Object;
use self::definition::Served;
use self::deletions::Deletions;
use self::known::Known;
use self::node::OwnNode;
use self::objects::{Kind, Namespace, Node, Pod, Remark, kind, plural};
use self::policies::NetworkPolicy;
use self::retries::Retries;
use super::{Changes, Knowledge, Update};
use crate::health::{Condition, Health};
use crate::heard::Heard;
use crate::metrics::Metrics;
use crate::refusals::{PolicyContent, PolicyNews};

/// How long a watch lasts, seconds; then the server ends it, and it begins anew where it was. So something is heard of
/// every kind, also of one that nobody changes: of such a kind not every server sends bookmarks.
const WATCH_LENGTH: u32 = 100;

/// How long a silent connection counts as alive.
const LONGEST_SILENCE: Duration = Duration::from_secs(120);

/// How old what is known of a kind may be, unless a watch has said since that nothing has changed.
const LONGEST_AGE: Duration = Duration::from_secs(150);

/// How often ages are looked at.
const LOOK: Duration = Duration::from_secs(5);

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
    heard: Heard,
    runtime: Runtime,
}

impl ApiServer {
    /// The one that a kubeconfig's current context names.
    ///
    /// # Errors
    ///
    /// If the file is no usable kubeconfig. Whether the server answers is not asked.
    pub(crate) fn of_kubeconfig(path: &Path, heard: Heard) -> Result<Self, Error> {
        let error = |source| Error::Kubeconfig { path: path.to_owned(), source };
        let kubeconfig = Kubeconfig::read_from(path).map_err(error)?;
        let runtime = runtime()?;
        let options = KubeConfigOptions::default();
        let config = runtime.block_on(Config::from_custom_kubeconfig(kubeconfig, &options)).map_err(error)?;
        Self::new(config, runtime, heard)
    }

    /// The one whose service account this process has been given.
    ///
    /// # Errors
    ///
    /// If there is no service account. Whether the server answers is not asked.
    pub(crate) fn of_service_account(heard: Heard) -> Result<Self, Error> {
        Self::new(Config::incluster().map_err(Error::InCluster)?, runtime()?, heard)
    }

    fn new(mut config: Config, runtime: Runtime, heard: Heard) -> Result<Self, Error> {
        let server = config.cluster_url.to_string();
        config.read_timeout = Some(LONGEST_SILENCE);
        config.reset_reader_on_write = true;
        // It would wait in silence for as long as the server is overloaded or without its database.
        config.default_retry = false;
        let client = {
            let _inside = runtime.enter();
            let namespace = config.default_namespace.clone();
            let client = Client::try_from(config)
                .map_err(|source| Error::Client { server: server.clone(), source })?;
            listener::noting(client, namespace, heard.clone())
        };
        info!(server, "follows the API server");
        Ok(Self { client, heard, runtime })
    }

    /// Its client, which works as long as the objects are followed.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Hands all objects to `hand_on`, of nodes only the one of this name unless a policy names others, and then each
    /// change of what is read of them at once, until `hand_on` returns false. What `beside` makes of the client runs
    /// beside that. Remarks on policies go into `remarks`, as far as there is room. Pods whose names come out of
    /// `unknown` are asked for.
    #[expect(clippy::too_many_arguments, reason = "each is a way of its own out of the agent's other parts")]
    pub(crate) fn follow<B: Future<Output = ()>>(
        self,
        node: &str,
        health: Health,
        metrics: &Metrics,
        remarks: Sender<PolicyNews>,
        unknown: UnboundedReceiver<ObjectName>,
        hand_on: impl Fn(Changes) -> bool,
        beside: impl FnOnce(Client) -> B,
    ) {
        let kinds = [plural::<Namespace>(), plural::<NetworkPolicy>(), plural::<Node>(), plural::<Pod>()];
        let missing = kinds
            .into_iter()
            .chain([definition::PLURAL.to_owned()])
            .map(|plural| (plural.clone(), format!("{plural} are not listed yet")));
        let beside = beside(self.client.clone());
        let follower = Follower {
            client: self.client,
            heard: self.heard,
            health,
            metrics,
            hand_on,
            remarks,
            missing: RefCell::new(missing.collect()),
            served: watch::Sender::new(Served::Unknown),
            naming_nodes: watch::Sender::default(),
            silent: RefCell::default(),
            node: RefCell::new(OwnNode::new(node)),
            deletions: Deletions::default(),
            complete: Cell::new(false),
            undecodable: RefCell::default(),
        };
        let all = watcher::Config::default().timeout(WATCH_LENGTH);
        let (namespaces, policies, pods) = Default::default();
        self.runtime.block_on(async {
            // The objects are followed when that is over, too.
            let beside = async {
                beside.await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = beside => {}
                Ended = follower.follow::<Namespace>(&all, &(), &namespaces) => {}
                Ended = follower.follow::<NetworkPolicy>(&all, &(), &policies) => {}
                Ended = follower.follow_definition(&all) => {}
                Ended = follower.follow_cluster_policies(&all) => {}
                Ended = follower.follow_nodes(&all, node) => {}
                Ended = follower.follow::<Pod>(&all, &(), &pods) => {}
                Ended = follower.settle_deletions(&namespaces) => {}
                Ended = follower.look_for_pods(&pods, unknown) => {}
                Ended = follower.look_at_ages() => {}
            }
        });
    }
}

fn runtime() -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)
}

/// Follows all kinds.
struct Follower<'m, F> {
    client: Client,
    heard: Heard,
    health: Health,
    metrics: &'m Metrics,
    hand_on: F,
    /// Takes what becomes Events on policies.
    remarks: Sender<PolicyNews>,
    /// The kinds that have not been listed yet, and why.
    missing: RefCell<BTreeMap<String, String>>,
    /// How ClusterNetworkPolicies are served.
    served: watch::Sender<Served>,
    /// The ClusterNetworkPolicies that name nodes.
    naming_nodes: watch::Sender<BTreeSet<Arc<str>>>,
    /// The kinds of which nothing has been heard for [`LONGEST_AGE`].
    silent: RefCell<BTreeSet<String>>,
    node: RefCell<OwnNode>,
    deletions: Deletions,
    /// Whether all that exists has been handed on once.
    complete: Cell<bool>,
    /// How many objects of a kind cannot be decoded, if there are any.
    undecodable: RefCell<BTreeMap<String, usize>>,
}

/// Nobody listens any more.
struct Ended;

impl<F: Fn(Changes) -> bool> Follower<'_, F> {
    async fn follow<K: Kind>(
        &self,
        which: &watcher::Config,
        version: &K::DynamicType,
        known: &RefCell<Known<K>>,
    ) -> Ended {
        let mut retries = Retries::default();
        loop {
            let objects = Api::<Object<K>>::all_with(self.client.clone(), version);
            if let Err(ended) = self.watch(objects, which, known, &mut retries).await {
                return ended;
            }
        }
    }

    /// Lists and watches a kind, until an event is lost.
    async fn watch<K: Kind>(
        &self,
        objects: Api<Object<K>>,
        which: &watcher::Config,
        known: &RefCell<Known<K>>,
        retries: &mut Retries,
    ) -> Result<(), Ended> {
        let mut events = pin!(watcher(objects, which.clone()));
        let begin = Instant::now();
        loop {
            let event = match tokio::time::timeout(LOOK, events.next()).await {
                Ok(Some(event)) => event,
                Ok(None) => break,
                // A watch that has become silent may have lost what it should say.
                Err(_) if self.is_silent::<K>() && begin.elapsed() > LONGEST_AGE => break,
                Err(_) => continue,
            };
            let received = Instant::now();
            match event {
                Ok(event) => {
                    let listed = matches!(event, watcher::Event::InitDone);
                    let taken = known.borrow_mut().take(event);
                    if listed && known.borrow().has_lost_all() {
                        self.note_emptied::<K>();
                    }
                    self.count_undecodable::<K>(known.borrow().undecodable());
                    known
                        .borrow_mut()
                        .take_remarks()
                        .iter()
                        .for_each(|(name, it)| self.remark::<K>(name, it));
                    let Some(mut updates) = taken else { continue };
                    self.deletions.hold(&mut updates, received, &self.node.borrow());
                    self.note_named_nodes(&updates);
                    if listed && K::READ_IF_ALLOWED {
                        self.look_for_nodes().await;
                    }
                    if listed && !self.is_silent::<K>() {
                        self.heard.note(&plural::<K>());
                    }
                    if retries.end() {
                        info!("{} are followed again", plural::<K>());
                    }
                    let first = self.missing.borrow_mut().remove(&plural::<K>()).is_some();
                    if first || !updates.is_empty() {
                        self.hand_on(updates, received)?;
                    }
                }
                Err(error) => {
                    let optional = K::READ_IF_ALLOWED && self.naming_nodes.borrow().is_empty();
                    self.report(&plural::<K>(), optional, &error, retries, received)?;
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

    /// Says that a list has none of the objects that were known: they may be gone, or the API server has lost them.
    fn note_emptied<K: Kind>(&self) {
        warn!(
            "the API server lists no {} any more, although some were known: the node follows it. If nobody has deleted \
             them, etcd may have been restored from a backup that lacks them",
            plural::<K>()
        );
        self.metrics.list_emptied(&kind::<K>());
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
        self.metrics.undecodable(&kind::<K>(), objects);
    }

    /// Logs remarks on an object, and hands on those on a policy.
    fn remark<K: Kind>(&self, name: &K::Name, remarks: &[Remark]) {
        for Remark { field, message, consequence } in remarks {
            warn!(kind = kind::<K>(), %name, field, message, "{consequence}");
        }
        if let Some(policy) = K::policy(name) {
            let sentences: Vec<_> = remarks.iter().map(ToString::to_string).collect();
            // Where many wait already, the log has it.
            let content = PolicyContent::Remark(sentences.join("; "));
            let _ = self.remarks.try_send(PolicyNews { policy, content });
        }
    }

    /// Says that a kind cannot be listed or watched. Without an `optional` one everything is enforced where it may not be
    /// read.
    fn report(
        &self,
        plural: &str,
        optional: bool,
        error: &watcher::Error,
        retries: &mut Retries,
        received: Instant,
    ) -> Result<(), Ended> {
        self.metrics.source_failure();
        retries.set_urgent(self.missing.borrow().contains_key(plural) && is_unanswered(error));
        let reason = reason(error, plural);
        if retries.is_new(&reason) {
            warn!("{reason}; what is known stays enforced");
        }
        match self.missing.borrow_mut().entry(plural.to_owned()) {
            Entry::Occupied(missing) if optional && is_forbidden(error) => {
                missing.remove();
                self.node.borrow_mut().among_nodes(false);
            }
            Entry::Occupied(mut missing) => drop(missing.insert(reason)),
            Entry::Vacant(_) => return Ok(()),
        }
        self.hand_on(Vec::new(), received)
    }

    /// Looks now and then whether nothing has been heard of a kind for too long.
    async fn look_at_ages(&self) -> Ended {
        loop {
            tokio::time::sleep(LOOK).await;
            let ages = self.heard.ages().into_iter();
            let silent: BTreeSet<_> =
                ages.filter(|(_, age)| *age > LONGEST_AGE).map(|(kind, _)| kind).collect();
            let before = self.silent.replace(silent.clone());
            for kind in silent.difference(&before) {
                warn!("{}; what is known stays enforced", why_silent(kind));
            }
            for kind in before.difference(&silent) {
                info!("something is heard of {kind} again");
            }
            if silent != before
                && let Err(ended) = self.hand_on(Vec::new(), Instant::now())
            {
                return ended;
            }
        }
    }

    fn knowledge(&self) -> Knowledge {
        let missing: Vec<String> = self.missing.borrow().values().cloned().collect();
        if !missing.is_empty() {
            return Knowledge::Pending(missing.join("; "));
        }
        if let Some(reason) = self.node.borrow().why_unknown() {
            return if self.complete.get() { Knowledge::Stale(reason) } else { Knowledge::Pending(reason) };
        }
        self.complete.set(true);
        let silent: Vec<_> = self.silent.borrow().iter().map(|kind| why_silent(kind)).collect();
        if silent.is_empty() { Knowledge::Complete } else { Knowledge::Stale(silent.join("; ")) }
    }

    fn is_silent<K: Kind>(&self) -> bool {
        self.silent.borrow().contains(&plural::<K>())
    }

    fn hand_on(&self, updates: Vec<Update>, received: Instant) -> Result<(), Ended> {
        self.node.borrow_mut().note(&updates);
        let knowledge = self.knowledge();
        if (self.hand_on)(Changes { updates, received, knowledge }) { Ok(()) } else { Err(Ended) }
    }
}

fn why_silent(kind: &str) -> String {
    format!("nothing has been heard of {kind} for {} seconds", LONGEST_AGE.as_secs())
}

fn is_forbidden(error: &watcher::Error) -> bool {
    matches!(cause(error), Some(kube::Error::Api(status)) if status.code == 403)
}

/// Whether there was no answer, so that nobody was burdened.
fn is_unanswered(error: &watcher::Error) -> bool {
    matches!(cause(error), Some(kube::Error::Service(_) | kube::Error::HyperError(_)))
}

/// What the client says.
fn cause(error: &watcher::Error) -> Option<&kube::Error> {
    match error {
        watcher::Error::InitialListFailed(cause)
        | watcher::Error::WatchStartFailed(cause)
        | watcher::Error::WatchFailed(cause) => Some(cause),
        _ => None,
    }
}

/// What failed, and the cause at the bottom of it.
fn reason(error: &watcher::Error, plural: &str) -> String {
    let verb = match error {
        watcher::Error::InitialListFailed(_) => "list",
        _ => "watch",
    };
    format!("cannot {verb} {plural}: {cause}", cause = root_cause(error))
}

/// The cause at the bottom of an error.
fn root_cause(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}
