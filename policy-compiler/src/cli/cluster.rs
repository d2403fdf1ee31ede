//! `--cluster`: the objects of a live cluster, as the `kubectl` in `PATH` reads them.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, anyhow, bail};
use policy_compiler::manifest::{self, Object, Problem, Reading, Resource};
use policy_compiler::model::{Pod, Service};

use super::progress::Progress;

/// The name of the cluster where a file's would stand.
const FILE: &str = "cluster";

/// The longest that `kubectl` waits for one answer of the API server, which has at most 500 objects.
const REQUEST_TIMEOUT: &str = "--request-timeout=30s";

/// A resource that is read.
struct Kind {
    /// As `kubectl get` takes it.
    name: &'static str,
    is_namespaced: bool,
    /// What is not known without it; `None` where nothing can be said then.
    without: Option<&'static str>,
}

const fn kind(name: &'static str, is_namespaced: bool, without: Option<&'static str>) -> Kind {
    Kind { name, is_namespaced, without }
}

/// The only custom resource: not every cluster has it.
const CLUSTER_POLICIES: &str = "clusternetworkpolicies.policy.networking.k8s.io";

/// What decides about connections. Workloads do not: their pods are there.
const KINDS: [Kind; 7] = [
    kind("namespaces", false, Some("namespaces are taken to have no labels but their names")),
    kind("nodes", false, Some("the addresses of nodes are taken to be outside the cluster")),
    kind("pods", true, None),
    kind("services", true, Some("Services cannot be asked about")),
    kind("endpointslices.discovery.k8s.io", true, Some("Services without a selector have no backends")),
    kind("networkpolicies.networking.k8s.io", true, None),
    kind(CLUSTER_POLICIES, false, Some("the answer leaves the ClusterNetworkPolicies out")),
];

/// A cluster to read.
pub(crate) struct LiveCluster<'a> {
    /// The context of the kubeconfig; the current one without it.
    pub(crate) context: Option<&'a str>,
    /// The namespace to make do with where no others may be read.
    pub(crate) namespace: Option<&'a str>,
}

/// What `kubectl` printed.
struct Printed {
    reading: Reading,
    /// The resources that the user has no right to list.
    forbidden: BTreeSet<String>,
    /// A resource that the cluster does not know: then `kubectl` lists nothing at all.
    absent: Option<&'static str>,
}

impl LiveCluster<'_> {
    /// Reads the objects, and says on standard error which of them could not be read.
    pub(crate) fn read(&self) -> anyhow::Result<Reading> {
        let mut kinds: Vec<&Kind> = KINDS.iter().collect();
        let mut printed = self.get(&kinds, None)?;
        if let Some(absent) = printed.absent {
            kinds.retain(|kind| kind.name != absent);
            printed = self.get(&kinds, None)?;
        }
        let Printed { reading, forbidden, .. } = printed;
        let Some(missing) = needed(&forbidden) else {
            warn(&forbidden);
            return Ok(reading);
        };
        let Some(namespace) = self.namespace else {
            bail!("no right to list {missing} in all namespaces: give -n NAMESPACE to read that one alone")
        };
        let Printed { reading, forbidden: in_namespace, .. } = self.get(&kinds, Some(namespace))?;
        if let Some(missing) = needed(&in_namespace) {
            bail!("no right to list {missing}, in namespace {namespace} neither")
        }
        // Without standard error there is nobody to tell.
        let _ = writeln!(
            io::stderr(),
            "warning: no right to list {missing} in all namespaces: only namespace {namespace} is read"
        );
        let of_cluster = kinds.iter().filter(|kind| !kind.is_namespaced).map(|kind| kind.name.to_owned());
        warn(&in_namespace.into_iter().chain(of_cluster).collect());
        Ok(reading)
    }

    /// Has `kubectl` list the objects of all namespaces, or of one.
    fn get(&self, kinds: &[&Kind], namespace: Option<&str>) -> anyhow::Result<Printed> {
        let mut kubectl = self.spawn(kinds, namespace).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                anyhow!(
                    "the cluster is read by kubectl, which is not in PATH: install it, or give manifests (-f)"
                )
            }
            _ => anyhow!("cannot run kubectl: {error}"),
        })?;
        let progress = Arc::new(Progress::start("reading the cluster"));
        let complaints = kubectl.stderr.take().map(|stderr| {
            let progress = progress.clone();
            thread::spawn(move || pass_on(stderr, &progress))
        });
        let printed = kubectl.stdout.take().map(|stdout| read(progress.count(stdout)));
        let status = kubectl.wait().context("cannot wait for kubectl")?;
        let complaints = complaints.and_then(|thread| thread.join().ok()).unwrap_or_default();
        drop(progress);
        let forbidden = forbidden(&complaints);
        // A signal ends kubectl where the reader stops at what it cannot read; then that is what to report.
        let is_cut_off = status.code().is_none() && matches!(printed, Some(Err(_)));
        let absent = absent(&complaints);
        if !status.success() && forbidden.is_empty() && absent.is_none() && !is_cut_off {
            bail!("kubectl cannot read the cluster ({status})")
        }
        let reading = if absent.is_some() { None } else { printed.transpose()? };
        Ok(Printed { reading: reading.unwrap_or_default(), forbidden, absent })
    }

    /// Starts `kubectl`. It keeps standard input: a log-in may ask for something.
    fn spawn(&self, kinds: &[&Kind], namespace: Option<&str>) -> io::Result<Child> {
        let kinds = kinds.iter().filter(|kind| kind.is_namespaced || namespace.is_none());
        let kinds: Vec<_> = kinds.map(|kind| kind.name).collect();
        let mut command = Command::new("kubectl");
        command.args(["get", &kinds.join(","), "--output=json", REQUEST_TIMEOUT]);
        match namespace {
            Some(namespace) => command.args(["--namespace", namespace]),
            None => command.arg("--all-namespaces"),
        };
        command.args(self.context.iter().flat_map(|context| ["--context", context]));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    }
}

/// Reads what `kubectl` prints. Nobody can look up its lines, so the objects have no origins.
fn read(printed: impl Read) -> Result<Reading, Problem> {
    let mut reading = manifest::parse(printed, FILE)?;
    reading.objects = reading.objects.into_iter().map(without_origin).collect();
    Ok(reading)
}

fn without_origin(object: Object) -> Object {
    let resource = match object.resource {
        Resource::NetworkPolicy(policy) => Resource::NetworkPolicy(policy.without_origins()),
        Resource::ClusterNetworkPolicy(policy) => Resource::ClusterNetworkPolicy(policy.without_origins()),
        Resource::Service(service) => Resource::Service(Service { origin: None, ..service }),
        Resource::Workload(mut workload) => {
            workload.pod = Pod { origin: None, ..workload.pod };
            Resource::Workload(workload)
        }
        other => other,
    };
    Object { resource, ..object }
}

/// Passes on what `kubectl` and its log-in programs write to standard error, at once because they may ask something, and
/// returns it. That a resource is [absent] is no complaint.
fn pass_on(mut stderr: impl Read, progress: &Progress) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut buffer) {
        let bytes = buffer.get(..length).unwrap_or_default();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if absent(&String::from_utf8_lossy(line)).is_none() {
                progress.interrupt(line);
            }
        }
        all.extend_from_slice(bytes);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// The resources in `… is forbidden: User "…" cannot list resource "…" in API group "…" …`.
fn forbidden(complaints: &str) -> BTreeSet<String> {
    let named = complaints.split("cannot list resource \"").skip(1);
    let quoted = named.filter_map(|rest| {
        let (resource, rest) = rest.split_once('"')?;
        let group = rest.strip_prefix(" in API group \"").and_then(|rest| rest.split_once('"'));
        Some(match group {
            Some((group @ ("discovery.k8s.io" | "networking.k8s.io" | "policy.networking.k8s.io"), _)) => {
                format!("{resource}.{group}")
            }
            _ => resource.to_owned(),
        })
    });
    quoted.collect()
}

/// The custom resource in `… the server doesn't have a resource type "…"`.
fn absent(complaints: &str) -> Option<&'static str> {
    let (_, rest) = complaints.split_once("the server doesn't have a resource type \"")?;
    let (resource, _) = rest.split_once('"')?;
    CLUSTER_POLICIES.strip_prefix(resource)?.starts_with('.').then_some(CLUSTER_POLICIES)
}

/// The forbidden resources without which nothing can be said.
fn needed(forbidden: &BTreeSet<String>) -> Option<String> {
    let missing = KINDS.iter().filter(|kind| kind.without.is_none() && forbidden.contains(kind.name));
    let missing: Vec<_> = missing.map(|kind| kind.name).collect();
    (!missing.is_empty()).then(|| missing.join(" and "))
}

/// Says what is not known without the other forbidden resources.
fn warn(forbidden: &BTreeSet<String>) {
    for Kind { name, without, .. } in KINDS.iter().filter(|kind| forbidden.contains(kind.name)) {
        if let Some(without) = without {
            // Without standard error there is nobody to tell.
            let _ = writeln!(io::stderr(), "warning: no right to list {name}: {without}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forbidden_resources_are_found_in_what_kubectl_says() {
        let complaints = "\
Error from server (Forbidden): nodes is forbidden: User \"jane\" cannot list resource \"nodes\" in API group \"\" at the cluster scope
Error from server (Forbidden): networkpolicies.networking.k8s.io is forbidden: User \"jane\" cannot list resource \"networkpolicies\" in API group \"networking.k8s.io\" at the cluster scope
";
        let found = forbidden(complaints);
        assert_eq!(found, ["networkpolicies.networking.k8s.io", "nodes"].map(str::to_owned).into());
        assert_eq!(needed(&found).as_deref(), Some("networkpolicies.networking.k8s.io"));
        assert_eq!(forbidden("error: current-context is not set"), BTreeSet::new());
    }
}
