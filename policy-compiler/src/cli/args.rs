//! The flags, as clap reads them. Help, completions and manual pages all come from here.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use ipnet::IpNet;
use policy_compiler::manifest::{Exclude, Input, ip_address, ip_block, label_selector, namespace_name};
use policy_compiler::model::{LabelSelector, PodsToNode};

use super::query::{EndQuery, Selection, TrafficQuery};

const EXIT_CODES: &str = "\
Exit codes:
  0  fine
  1  the connection is denied (explain)
  2  bad input or usage; with -o json the problems are on standard output too, as
     {\"problems\": [{\"file\", \"line\", \"field\", \"message\"}]}";

/// Shows what Kubernetes NetworkPolicies mean: those of manifests, or of a live cluster. No kernel is touched.
#[derive(Debug, Parser)]
#[command(name = "podfence", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Compile(Compile),
    Explain(Explain),
    Matrix(Matrix),
    Completions(Completions),
    Man(Man),
}

impl Command {
    /// Where the objects come from, for the commands that read any.
    pub(crate) fn manifests_mut(&mut self) -> Option<&mut Manifests> {
        match self {
            Self::Compile(args) => Some(&mut args.manifests),
            Self::Explain(args) => Some(&mut args.manifests),
            Self::Matrix(args) => Some(&mut args.manifests),
            Self::Completions(_) | Self::Man(_) => None,
        }
    }

    /// Whether the answer is for a program, so that it is to have the problems too where there is none.
    pub(crate) fn answers_in_json(&self) -> bool {
        match self {
            Self::Compile(args) => matches!(args.output, RulesetFormat::Json),
            Self::Explain(args) => matches!(args.output, ExplanationFormat::Json),
            Self::Matrix(args) => matches!(args.output, MatrixFormat::Json),
            Self::Completions(_) | Self::Man(_) => false,
        }
    }
}

/// The arguments that say where the objects come from.
pub(crate) const SOURCE: &str = "source";

/// Where the objects are written, and what stands beside them.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new(SOURCE).args(["inputs", "cluster", "context"]).required(true).multiple(true)))]
pub(crate) struct Manifests {
    /// Manifests to read: a file, a directory with all below it, or `-` for standard input; repeatable
    ///
    /// YAML or JSON, several documents in a file, Lists. Pods, all that has a pod template (each stands for
    /// its pods), Namespaces, Nodes, Services, Endpoints, NetworkPolicies and ClusterNetworkPolicies count;
    /// other kinds, and what is no Kubernetes object, are passed over.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) inputs: Vec<Input>,

    /// Read the objects of the live cluster, by the kubectl in PATH; manifests are added to them
    #[arg(long)]
    pub(crate) cluster: bool,

    /// Read the live cluster of this context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,

    /// The namespace of objects that name none
    ///
    /// Names that `explain` is asked about are looked for there first. With --cluster, it is also what is read where the
    /// objects of all namespaces may not be listed.
    #[arg(short, long, value_name = "NAME", value_parser = namespace_name)]
    pub(crate) namespace: Option<Arc<str>>,

    /// Leave out files and directories with this name, or this path below the directory given by -f; repeatable
    ///
    /// *, ?, [...] and ** as in a shell: --exclude charts --exclude '*.json' --exclude 'overlays/**/patch.yaml'
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<Exclude>,

    /// Take warnings, and documents that are no Kubernetes objects, for errors
    #[arg(long)]
    pub(crate) strict: bool,

    /// Give pods without an address one of this range; repeatable, for a second address family
    #[arg(long = "pod-cidr", value_name = "CIDR", value_parser = block)]
    pub(crate) pod_cidrs: Vec<IpNet>,

    /// Put the namespaces that match under default deny in both directions, as the agent's flag does
    ///
    /// A selector as kubectl's: env=prod,tier in (web,api). Namespaces named kube-* are left out unless the
    /// selector asks for kubernetes.io/metadata.name in (their names).
    #[arg(long, value_name = "NAMESPACE-SELECTOR", value_parser = label_selector)]
    pub(crate) default_deny: Option<LabelSelector>,

    /// Let pods under default deny reach the cluster's DNS: port 53 of k8s-app=kube-dns in kube-system
    ///
    /// With --pods-to-node policy, port 53 of their own node too, where a cache may listen.
    #[arg(long, requires = "default_deny")]
    pub(crate) default_deny_allow_dns: bool,

    /// Who decides what isolated pods may send to the node that runs them
    ///
    /// "allow": all of it passes. "policy": the policies judge it, as for any address.
    #[arg(long, value_name = "allow|policy", default_value_t, hide_possible_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(PodsToNode::NAMES).try_map(|name| name.parse::<PodsToNode>()))]
    pub(crate) pods_to_node: PodsToNode,
}

/// An address in each of its spellings.
fn address(text: &str) -> Result<IpAddr, String> {
    ip_address(text).ok_or_else(|| format!("`{text}` is no IP address"))
}

/// A block in each of its spellings.
fn block(text: &str) -> Result<IpNet, String> {
    ip_block(text).ok_or_else(|| format!("`{text}` is no block: write ADDRESS/LENGTH, such as 10.244.0.0/16"))
}

/// Print the nftables ruleset that the policies become
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  podfence compile -f manifests/
  podfence compile -f manifests/ --node worker-1 | nft -c -f -
  podfence compile --cluster --node worker-1")]
pub(crate) struct Compile {
    #[command(flatten)]
    pub(crate) manifests: Manifests,

    /// Compile for the pods that this node runs; as if one node ran every pod with an address without it
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,

    /// With strict start: addresses in the node's pod ranges (spec.podCIDRs) that no pod has are closed
    ///
    /// Comes with --default-deny.
    #[arg(long, requires = "node")]
    pub(crate) strict_start: bool,

    /// How to print the ruleset
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) output: RulesetFormat,
}

/// What a ruleset is printed as.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum RulesetFormat {
    /// What `nft -f` reads
    #[default]
    Nft,
    /// What `nft -j -f` reads
    Json,
}

/// Say whether a connection is allowed, and which policies and rules decide
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  podfence explain -f manifests/ --from shop/web --to shop/db --port 5432
  podfence explain -f manifests/ --from deploy/web --to http://db.shop:8080/
  podfence explain -f manifests/ --from web --to db --port icmp
  podfence explain -f manifests/ --from ns=ingress,app=nginx --to shop/web
  podfence explain -f manifests/ --from 203.0.113.0/24 --to shop/web --port 443/TCP -o json
  podfence explain --cluster --from shop/web --to svc/shop/db --port postgres

Ends:
  NAMESPACE/NAME       a pod or workload; with --to, also a Service
  NAME                 the same: that of -n, or of the only namespace that has one
  KIND/[NAMESPACE/]NAME
                       as kubectl calls them: pod/web, deploy/shop/web, sts/db, svc/shop/db
  IP                   an address; that of a pod, Service or node port stands for it
  CIDR                 all of its addresses, by the parts that are treated alike
  NAME.NAMESPACE[.svc] a Service by its DNS name, a URL of it too
  ns=NAMESPACE,LABEL=VALUE,...
                       a pod with these labels, which need not be in the manifests. A namespace
                       that is not declared there has its name and no labels that are known

A port may stand behind the destination: --to db:5432. A Service stands for each of its
backends, and a workload for its pods; what a workload sends to itself goes from one of its
pods to another. Where a pod and a Service have one name, the pod is meant, unless only the
Service has the port.

Policies that would allow what is denied are judged before they are shown. The answer says
what else they open, and which pods they isolate that no policy isolates yet.

JSON:
  from, to, port     the question; no port where none was asked for
  verdict            allow or deny: allow if all connections are allowed
  notes              how the question was understood, where that may surprise
  connections        an object for each connection, or for all of a range of ports
    from, to, protocol, port, endPort, family, verdict
                     protocol is TCP, UDP, SCTP or other (ICMP and what else has no ports);
                     endPort where it is more than one port; family where the two differ
    replicasOf       the workload that both ends are pods of
    egress, ingress  verdict, reason, and the policies with their rules and what each lacks;
                     tiers: the rules of ClusterNetworkPolicies that cover it, and those that
                     come nearest to sparing it what they deny
    suggestions      NetworkPolicies, which together allow it
  effects            what the suggested policies open and isolate besides
  obstacles          why no policy is suggested

Exit codes:
  0  allowed
  1  denied, in part at least
  2  bad input or usage")]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) manifests: Manifests,

    /// Who opens the connection
    #[arg(long, value_name = "END")]
    pub(crate) from: EndQuery,

    /// Who is connected to
    #[arg(long, value_name = "END")]
    pub(crate) to: EndQuery,

    /// The port of the destination: a number or a name, TCP unless said otherwise; icmp, or all
    ///
    /// "icmp" stands for every protocol that no policy can name, "all" for everything that can be sent. Without it, the
    /// question is about all ports that the destination declares, or about everything where it declares none.
    #[arg(long, value_name = "PORT[/PROTO]")]
    pub(crate) port: Option<TrafficQuery>,

    /// How to print the answer
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) output: ExplanationFormat,
}

/// What an explanation is printed as.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum ExplanationFormat {
    /// For people
    #[default]
    Text,
    /// The same facts with stable names
    Json,
}

/// Show which pods can reach which others, on which ports
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  podfence matrix -f manifests/
  podfence matrix -f manifests/ --port 80 --port dns/UDP
  podfence matrix -f manifests/ --to shop/ --only denied
  podfence matrix -f manifests/ -o html > matrix.html
  podfence matrix -f manifests/ --external 203.0.113.7 --port 443 -o csv > matrix.csv

Selections:
  NAMESPACE/NAME  a pod or workload
  NAME            the same, in every namespace
  KIND/NAME       the same, of one kind (deploy/web); or KIND/NAMESPACE/NAME
  NAMESPACE/      everything in a namespace
  IP              an address that --external names, or a pod's

Without --port, a destination is asked for the ports that its containers declare. The formats
for people ask for everything where it declares none; JSON and CSV have no row there. Pods that
are alike share a line in the formats for people; JSON and CSV have every ordered pair, pods
with themselves included. Finished pods have none. An outside address is paired with the pods in
both directions.

Exit codes:
  0  fine, whatever is allowed or denied
  2  bad input or usage")]
pub(crate) struct Matrix {
    #[command(flatten)]
    pub(crate) manifests: Manifests,

    /// A port to ask for instead of the declared ones: a number or a name; repeatable
    ///
    /// TCP unless said otherwise. A name asks each destination for the ports that it calls so. "icmp" asks for ICMP and
    /// every other protocol without ports, "all" for all that is allowed.
    #[arg(long = "port", value_name = "PORT[/PROTO]|icmp|all")]
    pub(crate) ports: Vec<TrafficQuery>,

    /// An address outside the cluster to pair with every pod; repeatable
    #[arg(long = "external", value_name = "IP", value_parser = address)]
    pub(crate) external: Vec<IpAddr>,

    /// Show only what these open: NAMESPACE/NAME, NAME, KIND/NAME, NAMESPACE/ or an address; repeatable
    #[arg(long, value_name = "SELECTION")]
    pub(crate) from: Vec<Selection>,

    /// Show only what leads to these; repeatable
    #[arg(long, value_name = "SELECTION")]
    pub(crate) to: Vec<Selection>,

    /// Show only what is allowed, or only what is denied
    #[arg(long, value_enum, value_name = "allowed|denied", hide_possible_values = true)]
    pub(crate) only: Option<Only>,

    /// How to print the rows
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) output: MatrixFormat,
}

/// Which verdicts a matrix shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Only {
    /// What is allowed
    Allowed,
    /// What is denied
    Denied,
}

/// What a matrix is printed as.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum MatrixFormat {
    /// A table for people, equal pods on one line
    #[default]
    Table,
    /// An array with an object for each row
    Json,
    /// A header, then a line for each row
    Csv,
    /// The table in Markdown, short enough for a comment on a pull request
    Md,
    /// A graph for Graphviz: `podfence matrix … -o dot | dot -Tsvg`
    Dot,
    /// A page for a browser, with the explanation of each cell; one file that loads nothing
    Html,
}

/// Print the completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  podfence completions bash > /etc/bash_completion.d/podfence")]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

/// Print the manual page, or write all of them into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  podfence man | man -l -
  podfence man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Where to write podfence.1 and a page for each subcommand
    pub(crate) directory: Option<PathBuf>,
}
