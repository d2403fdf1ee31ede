//! `--cluster` and `kubectl podfence`, with a `kubectl` that prints what a test tells it to.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Two pods, one of which nobody may reach.
const OBJECTS: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"},
 "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}},
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db", "namespace": "shop", "labels": {"app": "db"}},
 "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 5432}]}]}},
{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "db", "namespace": "shop"},
 "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]}}
]}"#;

/// The kinds that are asked for.
const KINDS: &str = "namespaces,nodes,pods,services,endpointslices.discovery.k8s.io,networkpolicies.networking.k8s.io,\
     clusternetworkpolicies.policy.networking.k8s.io";

/// A directory with a `kubectl` and the plugin, which are all that is in `PATH`.
struct Machine(PathBuf);

impl Machine {
    /// `kubectl` is a script; each call of it adds a line with its arguments to the file `calls`.
    fn new(name: &str, kubectl: Option<&str>) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for link in ["podfence", "kubectl-podfence", "kubectl_complete-podfence"] {
            symlink(env!("CARGO_BIN_EXE_podfence"), folder.join(link)).unwrap();
        }
        fs::write(folder.join("objects.json"), OBJECTS).unwrap();
        if let Some(kubectl) = kubectl {
            let path = folder.join("kubectl");
            fs::write(&path, format!("#!/bin/sh\necho \"$*\" >>calls\n{kubectl}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(folder)
    }

    fn run(&self, command: &str) -> Output {
        let mut words = command.split(' ');
        let program = self.0.join(words.next().unwrap());
        let path = format!("{}:/bin:/usr/bin", self.0.display());
        let path = if self.0.join("kubectl").exists() { path } else { self.0.display().to_string() };
        Command::new(program).args(words).current_dir(&self.0).env("PATH", path).output().unwrap()
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.0.join("calls")).unwrap_or_default()
    }
}

/// A script that prints the objects, complains, and fails.
fn complaining(complaint: &str) -> String {
    format!("/bin/cat objects.json; echo '{complaint}' >&2; exit 1")
}

fn forbidden(resource: &str) -> String {
    let (name, group) = resource.split_once('.').unwrap_or((resource, ""));
    format!(
        "Error from server (Forbidden): {resource} is forbidden: User \"jane\" cannot list resource \"{name}\" in API \
         group \"{group}\" at the cluster scope"
    )
}

#[test]
fn a_cluster_is_read_by_one_call_of_kubectl() {
    for (command, context) in [
        ("podfence explain --cluster --from web --to db", ""),
        ("podfence explain --context prod --from web --to db", " --context prod"),
        ("podfence explain --cluster --context prod --from web --to db", " --context prod"),
        ("kubectl-podfence explain --from web --to db", ""),
        ("kubectl-podfence explain --context prod --from web --to db", " --context prod"),
    ] {
        let machine = Machine::new("call", Some("/bin/cat objects.json"));
        let output = machine.run(command);
        let (stdout, stderr) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!((output.status.code(), stderr.as_str()), (Some(1), ""), "{command}: {stdout}");
        assert!(stdout.starts_with("DENIED  shop/web → shop/db  5432/TCP"), "{command}: {stdout}");
        // Nobody can look up the lines of what kubectl prints.
        assert!(!stdout.contains("cluster:"), "{command}: {stdout}");
        let arguments =
            format!("get {KINDS} --output=json --request-timeout=30s --all-namespaces{context}\n");
        assert_eq!(machine.calls(), arguments, "{command}");
    }
}

#[test]
fn every_command_reads_a_cluster_and_manifests_are_added_to_it() {
    let machine = Machine::new("commands", Some("/bin/cat objects.json"));
    fs::write(
        machine.0.join("more.yaml"),
        "{apiVersion: v1, kind: Pod, metadata: {name: new, namespace: shop}}",
    )
    .unwrap();
    for (command, part) in [
        ("kubectl-podfence matrix -o csv", "shop/web,shop/db,5432,TCP,,allow,deny,deny"),
        ("kubectl-podfence compile", "table inet podfence"),
        ("podfence matrix --cluster -f more.yaml -o csv", "shop/new,shop/db,5432,TCP,,allow,deny,deny"),
    ] {
        let output = machine.run(command);
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && stdout.contains(part), "{command}: {stdout}");
    }
    let calls = machine.calls();
    let files_alone = machine.run("kubectl-podfence matrix -f more.yaml");
    assert!(files_alone.status.success());
    assert_eq!(machine.calls(), calls, "with manifests the plugin reads no cluster");
}

#[test]
fn what_cannot_be_read_is_said() {
    let nodes = complaining(&forbidden("nodes"));
    let policies = complaining(&forbidden("networkpolicies.networking.k8s.io"));
    let cluster_policies = complaining(&forbidden("clusternetworkpolicies.policy.networking.k8s.io"));
    let explain = "podfence explain --cluster --from web --to db";
    for (name, kubectl, command, code, words) in [
        ("none", None, explain, 2, "kubectl, which is not in PATH"),
        (
            "nodes",
            Some(nodes.as_str()),
            explain,
            1,
            "warning: no right to list nodes: the addresses of nodes",
        ),
        (
            "policies",
            Some(policies.as_str()),
            explain,
            2,
            "no right to list networkpolicies.networking.k8s.io in all namespaces",
        ),
        (
            "cluster-policies",
            Some(cluster_policies.as_str()),
            explain,
            1,
            "warning: no right to list clusternetworkpolicies.policy.networking.k8s.io: the answer leaves",
        ),
        (
            "context",
            Some("echo 'error: no context' >&2; exit 1"),
            explain,
            2,
            "error: no context\nerror: kubectl",
        ),
        (
            "empty",
            Some("echo '{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": []}'"),
            explain,
            2,
            "error: ",
        ),
        ("cut-off", Some("while :; do echo ']'; done"), explain, 2, "cluster:"),
        ("broken", Some("echo '{'"), explain, 2, "cluster:"),
        ("source", Some("true"), "podfence matrix", 2, "--filename"),
    ] {
        let machine = Machine::new(name, kubectl);
        let output = machine.run(command);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {stderr}");
        assert!(stderr.contains(words), "{name}: {stderr}");
    }
}

/// `kubectl` lists nothing if one of the resources does not exist, and a cluster need not have this one.
#[test]
fn a_cluster_without_cluster_network_policies_is_read_by_a_second_call() {
    let absent = "error: the server doesn't have a resource type \"clusternetworkpolicies\"";
    let kubectl = format!(
        "case \"$*\" in *clusternetworkpolicies*) echo '{}' >&2; exit 1;; *) /bin/cat objects.json;; esac",
        absent.replace('\'', "'\\''")
    );
    let machine = Machine::new("absent", Some(&kubectl));
    let output = machine.run("podfence explain --cluster --from web --to db");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.as_str()), (Some(1), ""));
    assert_eq!(machine.calls().lines().count(), 2);
}

/// Most people may read no more than their own namespace.
#[test]
fn a_namespace_is_read_where_others_may_not_be() {
    let kubectl = format!(
        "case \"$*\" in *--all-namespaces*) {};; *) /bin/cat objects.json;; esac",
        complaining(&forbidden("pods"))
    );
    let machine = Machine::new("namespace", Some(&kubectl));
    let output = machine.run("kubectl-podfence explain -n shop --from web --to db");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for words in ["only namespace shop is read", "warning: no right to list namespaces: "] {
        assert!(stderr.contains(words), "{stderr}");
    }
    let calls = machine.calls();
    let second = calls.lines().last();
    let arguments = "get pods,services,endpointslices.discovery.k8s.io,networkpolicies.networking.k8s.io \
                     --output=json --request-timeout=30s --namespace shop";
    assert_eq!((calls.lines().count(), second), (2, Some(arguments)));
}

#[test]
fn the_plugin_is_called_as_people_call_it() {
    let machine = Machine::new("help", Some("true"));
    let help = String::from_utf8(machine.run("kubectl-podfence explain --help").stdout).unwrap();
    assert!(help.contains("Usage: kubectl podfence explain"), "{help}");
    assert!(help.contains("  kubectl podfence explain -f"), "{help}");
    assert!(!help.contains("  podfence"), "{help}");
}

#[test]
fn kubectl_is_given_completions() {
    let machine = Machine::new("completions", Some("true"));
    for (typed, offered, directive) in [
        ("ex", Some("explain\tSay whether"), ":4"),
        ("matrix --ext", Some("--external\t"), ":4"),
        ("explain -o ", Some("json\t"), ":4"),
        ("explain -f ", None, ":0"),
    ] {
        let output = machine.run(&format!("kubectl_complete-podfence {typed}"));
        let lines = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{typed}");
        assert!(
            offered.is_none_or(|offered| lines.lines().any(|line| line.starts_with(offered))),
            "{typed}: {lines}"
        );
        assert_eq!(lines.lines().last(), Some(directive), "{typed}: {lines}");
    }
    assert_eq!(machine.calls(), "");
}
