//! The flags, as clap reads them. Help, completions and manual pages all come from here.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use policy_compiler::manifest::{Input, label_selector};
use policy_compiler::model::{LabelSelector, PodsToNode};

use super::explain::{EndQuery, TrafficQuery};
use super::matrix::Selection;

const EXIT_CODES: &str = "\
Exit codes:
  0  fine
  1  the connection is denied (explain)
  2  bad input or usage";

/// Shows what Kubernetes NetworkPolicies mean, without a cluster and without touching a kernel.
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

/// Where the objects are written, and what stands beside them.
#[derive(Debug, clap::Args)]
pub(crate) struct Manifests {
    /// Manifests to read: a file, a directory with all below it, or `-` for standard input; repeatable
    ///
    /// YAML or JSON, several documents in a file, Lists. Pods, workloads (each stands for its pods),
    /// Namespaces, Nodes, Services and NetworkPolicies count; other kinds are passed over.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", required = true)]
    pub(crate) inputs: Vec<Input>,

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

/// Print the nftables ruleset that the policies become
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  podfence compile -f manifests/
  podfence compile -f manifests/ --node worker-1 | nft -c -f -
  kubectl get pods,namespaces,nodes,netpol -A -o json | podfence compile -f - --node worker-1")]
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
  podfence explain -f manifests/ --from web --to service/shop/db --port postgres
  podfence explain -f manifests/ --from 203.0.113.7 --to shop/web --port 443/TCP -o json

Ends:
  NAMESPACE/NAME      a pod or workload; with --to, also a Service
  NAME                the same, if only one namespace has it
  IP                  an address; a pod's or Service's stands for its owner
  svc/NAMESPACE/NAME  a Service, each of whose backends is judged (or service/…)

Exit codes:
  0  allowed
  1  denied, to one backend at least
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

Without --port, a destination is asked for the ports that its containers declare. The formats for
people ask for everything where it declares none; JSON and CSV have no row there. Pods that are alike
share a line in the formats for people; JSON and CSV have every ordered pair, pods with themselves
included. Finished pods have none. An outside address is paired with the pods in both directions.

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
    #[arg(long = "external", value_name = "IP")]
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
