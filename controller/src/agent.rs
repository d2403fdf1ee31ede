//! The agent: a source of objects, the thread that enforces them, and what it says of itself.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use kube::Client;
use podfence_cni::installation::Installer;
use podfence_cni::records;
use policy_compiler::compile::Compiler;
use policy_compiler::model::{DefaultDeny, ObjectName, PodsToNode};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tracing::{info, warn};

use crate::boot::{self, Commits, Keeper, NodePods, Saved};
use crate::cutter::{Cutter, NodeAddresses};
use crate::datapath::{Examiner, LocalPods};
use crate::denials::{self, Denial, Explainer};
use crate::doors::{DoorKeeper, DoorOptions, Finder};
use crate::enforcer::Enforcer;
use crate::events::{self, News};
use crate::health::Health;
use crate::heard::Heard;
use crate::http;
use crate::kernel::{Connection, Kernel, Watch, routes};
use crate::message::{Case, Message, Question};
use crate::metrics::Metrics;
use crate::plugin::{self, Plugin};
use crate::refusals::{PolicyNews, Refusals};
use crate::sandboxes::{Sandboxes, Server};
use crate::source::Changes;
use crate::source::api::{ApiServer, is_deleted};
use crate::source::manifests::Manifests;
use crate::threads::Threads;

/// How many problems of the data path wait at the most until Events are made of them.
const COMPLAINTS: usize = 16;

/// How many notices of denials wait at the most until Events are made of them.
const NOTICES: usize = 64;

/// How long the agent stays to save what it enforces last.
const LAST_WRITE: Duration = Duration::from_millis(500);

/// What the agent is to do.
pub struct Options {
    /// The node whose pods are enforced.
    pub node_name: String,
    /// Where the objects come from.
    pub source: Source,
    /// Whether addresses of the node's pod ranges that belong to no known pod are closed.
    pub strict_start: bool,
    /// The namespaces that are denied everything unless a policy allows it.
    pub default_deny: Option<DefaultDeny>,
    /// Who decides what isolated pods may send to the node.
    pub pods_to_node: PodsToNode,
    /// Whether what the policies deny is logged and passes.
    pub audit: bool,
    /// Where health and metrics are served.
    pub listen: Option<SocketAddr>,
    /// Whether open connections stay that the policies come to deny.
    pub keep_connections: bool,
    /// How the doors of pods are guarded; `None` to go by addresses alone.
    pub doors: Option<DoorOptions>,
    /// The socket on which the CNI plugin is heard, if it is. Beside it are the records of sandboxes.
    pub cni_socket: Option<PathBuf>,
    /// What keeps the CNI plugin in the node's configuration, if it is to be there.
    pub plugin: Option<Installation>,
    /// Where what is enforced is kept for the next boot; `None` to keep nothing.
    pub state: Option<PathBuf>,
}

/// How the CNI plugin is installed.
#[derive(Debug, Clone)]
pub struct Installation {
    /// Puts it where it belongs.
    pub installer: Installer,
    /// The DaemonSet with which it goes; `None` if it stays until somebody takes it out.
    pub daemon_set: Option<ObjectName>,
}

/// Where objects come from.
pub enum Source {
    /// A directory of manifests.
    Manifests(PathBuf),
    /// The cluster that a kubeconfig's current context names.
    Kubeconfig(PathBuf),
    /// The cluster in a pod of which this process runs.
    InCluster,
}

/// Enforces until SIGTERM or SIGINT. The rules stay.
///
/// # Errors
///
/// If the kernel, the source or the address to listen on cannot be had at the start, or the thread that
/// enforces ends.
pub fn run(options: Options) -> Result<()> {
    let Options { node_name, source, strict_start, default_deny, pods_to_node, audit, .. } = options;
    let Options { listen, keep_connections, doors, cni_socket, plugin, state, .. } = options;
    let heard = Heard::default();
    let (health, metrics) = (Health::default(), Arc::new(Metrics::new(heard.clone())));
    let threads = Threads::new(health.clone(), metrics.clone());
    let (sender, messages) = mpsc::channel();

    boot::begin(state.as_deref(), &node_name, &health, &metrics);
    let kernel = Kernel::open().context("cannot reach nf_tables: CAP_NET_ADMIN is needed")?;
    let watch = Watch::open(&kernel)?;
    let socket = routes::Socket::open().context("cannot reach rtnetlink")?;
    let (pods, addresses) = mpsc::channel();
    let (complaints, problems) = tokio::sync::mpsc::channel(COMPLAINTS);
    let (notices, denials) = tokio::sync::mpsc::channel(NOTICES);
    let (policy_news, policies) = tokio::sync::mpsc::channel(NOTICES);
    let finder =
        doors.map(|options| find_doors(&kernel, &node_name, options, &sender, &threads)).transpose()?;
    let keeper = doors
        .zip(finder.flatten())
        .map(|(options, finder)| DoorKeeper::new(finder, options, notices.clone(), metrics.clone()));
    let (asking, unknown) = tokio::sync::mpsc::unbounded_channel();
    let sandboxes =
        cni_socket.map(|socket| hear_plugin(&socket, &node_name, asking, &sender, &metrics, &threads));
    let sandboxes = sandboxes.transpose()?;
    let hand_on = to_enforcer(LocalPods::new(&node_name, pods), sender.clone());
    let follower =
        Follower { node: &node_name, heard, health: &health, metrics: &metrics, threads: &threads };
    let news = News { problems, denials, policies };
    let client = follower.follow(&source, news, policy_news.clone(), unknown, hand_on)?;
    let plugin = plugin.map(|it| (Plugin::new(it.installer), it.daemon_set));
    if let Some((plugin, _)) = &plugin {
        let keeper = plugin::Keeper::new(plugin.clone(), health.clone(), metrics.clone());
        threads.spawn("plugin", move || keeper.run())?;
    }
    let examiner = Examiner::new(socket, health.clone(), metrics.clone(), complaints);
    threads.spawn("datapath", move || examiner.run(&addresses))?;
    let explainer = Explainer::new(ask(sender.clone()), notices, metrics.clone(), pods_to_node);
    threads.spawn("denials", move || explainer.run())?;
    let reporting = sender.clone();
    threads.spawn("watch", move || report(watch, Watch::changed, &reporting, || Message::TableChanged))?;
    let start_cutter = || Cutter::start(judge(sender.clone()), metrics.clone(), &threads);
    let cutter = (!keep_connections).then(start_cutter).transpose()?;
    let doors = doors.filter(|_| keeper.is_some());
    let strictness = Strictness { strict_start, audit, default_deny, pods_to_node };
    let compiler = compiler(&node_name, strictness, doors);
    let refusals = Refusals::new(health.clone(), metrics.clone(), policy_news);
    let enforcer = Enforcer::new(compiler, kernel, cutter, keeper, health.clone(), metrics.clone(), refusals)
        .guarding(strict_start)
        .with_sandboxes(sandboxes, state.clone().map(|path| Saved::new(path, &node_name)));
    let (commits, noted) = Commits::channel();
    let enforcer = enforcer.noting(commits.clone());
    let inquiring = sender.clone();
    let keeper =
        Keeper::new(state, node_name.clone(), move || inquire(&inquiring), health.clone(), metrics.clone());
    let keeping = commits.clone();
    let saving = threads.spawn("state", move || keeper.run(&keeping, &noted))?;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let enforcing = threads.spawn("enforcer", move || {
        let _end = end;
        enforcer.run(&messages);
    })?;
    info!(node = node_name, "started");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let serving = async {
            match listen {
                Some(address) => http::serve(address, health, metrics)
                    .await
                    .with_context(|| format!("cannot listen on {address}")),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            outcome = serving => outcome,
            _ = ended => Err(anyhow!("nothing is left to enforce for: the source has ended")),
        }
    });
    threads.stop();
    if let Some(((plugin, Some(daemon_set)), client)) = plugin.zip(client)
        && runtime.block_on(is_deleted(client, &daemon_set))
    {
        plugin.withdraw();
    }
    commits.finish(&saving, LAST_WRITE);
    // The receiver is gone only if the thread is, and then it has stopped.
    let _ = sender.send(Message::Stop);
    enforcing.join().map_err(|_| anyhow!("the thread that enforces has panicked"))?;
    info!("stopped; the rules stay");
    outcome
}

/// Hands all objects to the enforcer, and the addresses of the node's pods to the examiner.
fn to_enforcer(pods: LocalPods, enforcer: Sender<Message>) -> impl Fn(Changes) -> bool + Send + 'static {
    move |changes: Changes| {
        pods.note(&changes.updates);
        enforcer.send(Message::Changes(changes)).is_ok()
    }
}

/// Has the enforcer judge connections.
fn judge(
    enforcer: Sender<Message>,
) -> impl Fn(Vec<Connection>, &NodeAddresses) -> Option<Vec<Connection>> + Send + 'static {
    move |connections, own| {
        let (denied, verdict) = mpsc::channel();
        // Without an enforcer, `denied` is dropped with the message.
        let _ = enforcer.send(Message::Judge(Case { connections, own: own.clone(), denied }));
        verdict.recv().ok()
    }
}

/// Asks the enforcer for the node's pods.
fn inquire(enforcer: &Sender<Message>) -> Option<Receiver<NodePods>> {
    let (answer, pods) = mpsc::channel();
    enforcer.send(Message::NodePods(answer)).ok().map(|()| pods)
}

/// Asks the enforcer what decides about packets.
fn ask(enforcer: Sender<Message>) -> impl Fn(Denial) -> denials::Answer + Send + 'static {
    move |denial| {
        let (answer, findings) = mpsc::channel();
        enforcer.send(Message::Explain(Question { denial, answer })).map_err(|_| denials::Ended)?;
        Ok(findings.recv().ok())
    }
}

/// What it takes to follow a source of objects.
struct Follower<'a> {
    node: &'a str,
    heard: Heard,
    health: &'a Health,
    metrics: &'a Arc<Metrics>,
    threads: &'a Threads,
}

impl Follower<'_> {
    /// Starts to follow a source. Where it is an API server, the news become Events, and its client is returned.
    fn follow(
        self,
        source: &Source,
        news: News,
        remarks: tokio::sync::mpsc::Sender<PolicyNews>,
        unknown: UnboundedReceiver<ObjectName>,
        hand_on: impl Fn(Changes) -> bool + Send + 'static,
    ) -> Result<Option<Client>> {
        let heard = self.heard;
        let server = match source {
            Source::Manifests(directory) => {
                let manifests = Manifests::watch(directory)?;
                self.threads.spawn("manifests", move || manifests.follow(hand_on))?;
                return Ok(None);
            }
            Source::Kubeconfig(path) => ApiServer::of_kubeconfig(path, heard)?,
            Source::InCluster => ApiServer::of_service_account(heard)?,
        };
        let client = server.client();
        let (node, health, metrics) = (self.node.to_owned(), self.health.clone(), self.metrics.clone());
        self.threads.spawn("api", move || {
            let publish = |client| events::publish(client, &node, news);
            server.follow(&node, health, &metrics, remarks, unknown, hand_on, publish);
        })?;
        Ok(Some(client))
    }
}

/// What is enforced beside the policies.
struct Strictness {
    strict_start: bool,
    audit: bool,
    default_deny: Option<DefaultDeny>,
    pods_to_node: PodsToNode,
}

/// What makes the tables of a node.
fn compiler(node: &str, strictness: Strictness, doors: Option<DoorOptions>) -> Compiler {
    let Strictness { strict_start, audit, default_deny, pods_to_node } = strictness;
    let compiler = match default_deny {
        // A pod under default deny is isolated before anything is known of it, as far as the node says.
        Some(default_deny) => Compiler::strict(node).with_default_deny(default_deny),
        None if strict_start => Compiler::strict(node),
        None => Compiler::new(Some(node)),
    };
    let compiler = compiler.with_pods_to_node(pods_to_node);
    let compiler = if audit { compiler.with_audit() } else { compiler };
    match doors {
        Some(DoorOptions { required: true, .. }) => compiler.with_required_doors(),
        Some(_) => compiler.with_doors(),
        None => compiler,
    }
}

/// Begins to listen to the CNI plugin.
fn hear_plugin(
    socket: &Path,
    node: &str,
    unknown: UnboundedSender<ObjectName>,
    enforcer: &Sender<Message>,
    metrics: &Arc<Metrics>,
    threads: &Threads,
) -> Result<Sandboxes> {
    let cannot = || format!("cannot listen to the CNI plugin at {}", socket.display());
    let server = Server::open(socket).with_context(cannot)?;
    let folder = records::folder(socket);
    let sandboxes = Sandboxes::open(node, &folder, unknown, metrics.clone()).with_context(cannot)?;
    let enforcer = enforcer.clone();
    let hand_on = move |order| enforcer.send(Message::Sandbox(order)).is_ok();
    threads.spawn("cni", move || server.serve(&hand_on))?;
    Ok(sandboxes)
}

/// Begins to look for doors; `None` where the kernel cannot guard them and they are not required.
fn find_doors(
    kernel: &Kernel,
    node: &str,
    options: DoorOptions,
    enforcer: &Sender<Message>,
    threads: &Threads,
) -> Result<Option<Finder>> {
    let open = || {
        ensure!(kernel.has_netdev(), "the kernel has no nf_tables of the family netdev (Linux 5.16)");
        Ok((Finder::open(node)?, routes::Watch::open()?))
    };
    let (finder, links) = match open() {
        Ok(opened) => opened,
        Err(error) if options.required => {
            return Err(error.context("doors are required and cannot be guarded"));
        }
        Err(error) => {
            warn!(
                error = format!("{error:#}"),
                "doors are not guarded: packets are judged by their addresses alone"
            );
            return Ok(None);
        }
    };
    let enforcer = enforcer.clone();
    threads
        .spawn("links", move || report(links, routes::Watch::changed, &enforcer, || Message::LinksChanged))?;
    Ok(Some(finder))
}

/// Reports to the enforcer, by a message, whenever a watch has seen something.
fn report<W: AsFd, E: Into<anyhow::Error>>(
    mut watch: W,
    changed: impl Fn(&mut W) -> Result<bool, E>,
    enforcer: &Sender<Message>,
    message: fn() -> Message,
) {
    loop {
        match wait_for(&watch).and_then(|()| changed(&mut watch).map_err(Into::into)) {
            Ok(false) => {}
            Ok(true) if enforcer.send(message()).is_ok() => {}
            Ok(true) => return,
            Err(error) => return warn!(%error, "changes go unnoticed from now on"),
        }
    }
}

/// Waits until there is something to read.
fn wait_for(descriptor: impl AsFd) -> Result<()> {
    loop {
        match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], None) {
            Err(Errno::INTR) => {}
            outcome => return Ok(outcome.map(drop)?),
        }
    }
}
