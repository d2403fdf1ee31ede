//! `podfence-controller`: keeps a node's nftables table in step with its network policies.

mod cni;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};
use controller::agent::{self, Options, Source};
use controller::doors::DoorOptions;
use controller::kernel::Kernel;
use controller::plugin;
use controller::status::Status;
use controller::threads::end_process_on_panic;
use ipnet::IpNet;
use podfence_cni::closed;
use podfence_cni::installation::CONFIGURATIONS;
use podfence_cni::state::{self, DEFAULT_PATH};
use policy_compiler::manifest::label_selector;
use policy_compiler::model::{DefaultDeny, LabelSelector, PodsToNode};
use tracing_subscriber::EnvFilter;

/// Enforces Kubernetes network policies on this node with nftables, in the table `inet podfence`.
#[derive(Parser)]
#[command(
    name = "podfence-controller",
    version,
    after_help = "Exit codes: 0 stopped or done, 1 failed, 2 usage.\n\nLogging follows RUST_LOG (default: info)."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Enforce the policies until stopped. The rules stay when the agent stops.
    Run(Box<Run>),
    /// Say what the kernel enforces: isolated pods, and the traffic of each rule.
    Status {
        /// The form of the answer.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Remove the tables and the saved state: from then on nothing is enforced, nor when the node boots. The CNI plugin is
    /// taken out of the node's configuration.
    Cleanup {
        /// The folder of the node's CNI configurations.
        #[arg(long, value_name = "DIR", env = "PODFENCE_CNI_CONFIGURATIONS", default_value = CONFIGURATIONS)]
        cni_configurations: PathBuf,
        /// Where the state is saved.
        #[arg(long, value_name = "FILE", env = "PODFENCE_STATE", default_value = DEFAULT_PATH)]
        state: PathBuf,
    },
    /// Program the state that was saved last, if the kernel has no table: to be run before the node's first pod starts.
    ///
    /// A state that is damaged, of another node or of a format that this version does not know is refused (exit code 1).
    /// Then the addresses of the node's pods are closed until an agent enforces, as far as they are known: from the file
    /// FILE.ranges beside the state, and from --pod-ranges.
    Restore(Restore),
}

#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Run {
    /// The node whose pods are enforced, as pods name it in spec.nodeName.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_name: String,
    /// Follow the manifests in a directory; no cluster is needed.
    #[arg(long, value_name = "DIR", env = "PODFENCE_MANIFESTS")]
    manifests: Option<PathBuf>,
    /// Follow the cluster that a kubeconfig names. Without it and --manifests, the one whose pod this is.
    #[arg(long, value_name = "FILE", env = "PODFENCE_KUBECONFIG", conflicts_with = "manifests")]
    kubeconfig: Option<PathBuf>,
    /// Drop what comes from or goes to an address of this node's pod ranges (spec.podCIDRs of the Node) that no
    /// known pod has yet: a pod reaches nothing until its policies are in the kernel.
    #[arg(long, env = "PODFENCE_STRICT_START")]
    strict_start: bool,
    /// Put the namespaces that match under default deny, in both directions, as if a policy stood in each. A
    /// selector as kubectl's: env=prod,tier in (web,api). Namespaces named kube-* are left out unless the selector
    /// asks for kubernetes.io/metadata.name in (their names). Strict start comes with it wherever the Node names
    /// its pod ranges: nobody can tell the namespace of a pod that is not known yet.
    #[arg(long, value_name = "NAMESPACE-SELECTOR", env = "PODFENCE_DEFAULT_DENY", value_parser = label_selector)]
    default_deny: Option<LabelSelector>,
    /// Let pods under default deny reach the cluster's DNS: port 53 of k8s-app=kube-dns in kube-system, and of their
    /// own node with --pods-to-node policy.
    #[arg(long, env = "PODFENCE_DEFAULT_DENY_ALLOW_DNS", requires = "default_deny")]
    default_deny_allow_dns: bool,
    /// Who decides what isolated pods may send to this node: with "allow" all of it passes, with "policy" the policies
    /// judge it, as for any address. What the node sends to its pods passes, and so do the answers.
    #[arg(long, value_name = "allow|policy", env = "PODFENCE_PODS_TO_NODE", default_value_t)]
    #[arg(hide_possible_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(PodsToNode::NAMES).try_map(|name| name.parse::<PodsToNode>()))]
    pods_to_node: PodsToNode,
    /// Put all policies into audit mode: what they would deny is logged and counted, and passes. The annotation
    /// podfence.io/audit: "true" does the same for one policy, or for those of a namespace. What strict start
    /// drops is dropped all the same.
    #[arg(long, env = "PODFENCE_AUDIT")]
    audit: bool,
    /// Go by the addresses of packets alone. By default nothing leaves a pod's door (the node's end of its link) that
    /// is not the pod's own, and nothing comes in elsewhere with the source of a pod of this node.
    #[arg(long, env = "PODFENCE_NO_DOORS", conflicts_with_all = ["require_doors", "allow_pod_tunnels"])]
    no_doors: bool,
    /// Drop what comes from or goes to a pod whose door cannot be found, but for what its node sends. By default it is
    /// judged by its addresses.
    #[arg(long, env = "PODFENCE_REQUIRE_DOORS")]
    require_doors: bool,
    /// Let pods send packets that are encapsulated as for a tunnel of the nodes (VXLAN, Geneve, IPIP, SIT, GRE, FOU).
    #[arg(long, env = "PODFENCE_ALLOW_POD_TUNNELS")]
    allow_pod_tunnels: bool,
    #[command(flatten)]
    cni: cni::Arguments,
    /// Serve /healthz, /readyz and /metrics.
    #[arg(long, value_name = "ADDR:PORT", env = "PODFENCE_LISTEN")]
    listen: Option<SocketAddr>,
    /// Keep open connections that the policies come to deny. By default they are cut, in both directions.
    #[arg(long, env = "PODFENCE_KEEP_CONNECTIONS")]
    keep_connections: bool,
    /// Save what is enforced in this file (and FILE.ranges), at most every 10 seconds, and restore it at the start if the
    /// kernel has no table: a node that boots enforces it before it reaches the API server.
    #[arg(long, value_name = "FILE", env = "PODFENCE_STATE")]
    state: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Restore {
    /// Where the state is saved.
    #[arg(long, value_name = "FILE", env = "PODFENCE_STATE", default_value = DEFAULT_PATH)]
    state: PathBuf,
    /// The node that this is. Without it, the state has to be of a node with this host's name.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_name: Option<String>,
    /// The ranges that the node's pods get their addresses from, with commas between them. They are closed until an
    /// agent enforces if the state is refused, and if none was ever saved.
    #[arg(long, value_name = "CIDR", env = "PODFENCE_POD_RANGES", value_delimiter = ',')]
    pod_ranges: Vec<IpNet>,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    // The client of the API server logs every try that fails; the source of objects says it better.
    let quiet = "info,kube_client=off,kube_runtime=off";
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let outcome = match command {
        Command::Run(arguments) => run(*arguments),
        Command::Status { output } => status(output),
        Command::Cleanup { cni_configurations, state } => cleanup(&cni_configurations, &state),
        Command::Restore(arguments) => restore(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Run) -> Result<()> {
    end_process_on_panic();
    // Fails only if there is a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let source = match (arguments.manifests, arguments.kubeconfig) {
        (Some(directory), _) => Source::Manifests(directory),
        (None, Some(path)) => Source::Kubeconfig(path),
        (None, None) => Source::InCluster,
    };
    let Run { default_deny_allow_dns: allow_dns, pods_to_node, .. } = arguments;
    let default_deny =
        arguments.default_deny.map(|namespaces| DefaultDeny { namespaces, allow_dns, pods_to_node });
    agent::run(Options {
        node_name: arguments.node_name,
        source,
        strict_start: arguments.strict_start,
        default_deny,
        pods_to_node,
        audit: arguments.audit,
        listen: arguments.listen,
        keep_connections: arguments.keep_connections,
        cni_socket: arguments.cni.socket(),
        plugin: arguments.cni.installation(arguments.state.as_deref())?,
        state: arguments.state,
        doors: (!arguments.no_doors).then_some(DoorOptions {
            required: arguments.require_doors,
            allow_tunnels: arguments.allow_pod_tunnels,
        }),
    })
}

fn status(output: Output) -> Result<()> {
    let status = Status::of(&Kernel::open()?.read_all()?);
    let text = match output {
        Output::Text => status.to_string(),
        Output::Json => serde_json::to_string_pretty(&status)? + "\n",
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the status")
}

fn restore(Restore { state, node_name, pod_ranges }: &Restore) -> Result<()> {
    let outcome = state::restore_if_missing(state, node_name.as_deref(), pod_ranges)?;
    tracing::info!("{outcome}");
    Ok(())
}

fn cleanup(cni_configurations: &Path, state: &Path) -> Result<()> {
    // While an agent runs, the kernel refuses, and nothing is removed.
    let removed = Kernel::open()?.delete_tables()?;
    state::remove(state)?;
    closed::open_all().context("cannot open what is closed until an agent enforces")?;
    tracing::info!(
        "{}",
        if removed { "the tables are removed: nothing is enforced" } else { "there was no table" }
    );
    // A node without the folder has no plugin.
    if cni_configurations.is_dir() {
        plugin::remove(cni_configurations)?;
    }
    Ok(())
}
