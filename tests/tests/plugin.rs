//! `kubectl podfence` against a real API server: what people with more and fewer rights are told.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use lab::programs::{KUBECTL, is_there};
use lab::testbed::{cluster_policy, cluster_policy_definition, namespace, policy};
use lab::{ControlPlane, Lab, Namespace, Topology, Underlay, User, program};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A cluster, and a machine with `kubectl` and the plugin.
struct Scene {
    plane: ControlPlane,
    /// The network namespace from which the API server can be reached.
    world: Namespace,
    folder: TempDir,
    path: std::ffi::OsString,
    _lab: Lab,
}

impl Scene {
    /// `None`, and a word about it, where no API server or no `kubectl` can be had.
    fn new() -> Result<Option<Self>> {
        if !is_there(KUBECTL.available()) {
            return Ok(None);
        }
        let lab = Lab::new(Topology::Routed, Underlay::HostGateway)?;
        let Some(plane) = ControlPlane::beside(&lab)? else { return Ok(None) };
        let folder = tempfile::tempdir()?;
        for name in ["kubectl-podfence", "kubectl_complete-podfence"] {
            symlink(program("podfence")?, folder.path().join(name))?;
        }
        let kubectl = KUBECTL.path()?;
        let of_kubectl = kubectl.parent().context("kubectl is in no folder")?;
        let path =
            std::env::join_paths([folder.path(), of_kubectl, Path::new("/usr/bin"), Path::new("/bin")])?;
        let world = lab.world().namespace().clone();
        let scene = Self { plane, world, folder, path, _lab: lab };
        scene.fill()?;
        Ok(Some(scene))
    }

    /// A shop whose database only its API may reach.
    fn fill(&self) -> Result<()> {
        let api = self.plane.api();
        api.put(&namespace("shop", &json!({"team": "web"})))?;
        api.put(&namespace("monitoring", &json!({})))?;
        let web =
            |name: &str| json!([{"kind": "ReplicaSet", "apiVersion": "apps/v1", "name": name, "uid": "1"}]);
        api.put(&pod("shop", "web-5d9c-1", "web", "10.244.1.2", &web("web-5d9c")))?;
        api.put(&pod("shop", "web-5d9c-2", "web", "10.244.2.2", &web("web-5d9c")))?;
        api.put(&pod("shop", "db", "db", "10.244.1.3", &json!([])))?;
        api.put(&pod("monitoring", "prometheus", "prometheus", "10.244.2.3", &json!([])))?;
        api.put(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "db"},
            "spec": {"selector": {"app": "db"}, "ports": [{"port": 5432, "targetPort": 8080}]},
        }))?;
        let from =
            json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 8080}]}]);
        api.put(&policy(
            "shop",
            "db",
            &json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": from}),
        ))
    }

    fn kubectl(&self, kubeconfig: &Path, arguments: &str) -> Result<Output> {
        let mut command = self.world.command(KUBECTL.path()?);
        command.args(arguments.split(' ')).env("PATH", &self.path).env("HOME", self.folder.path());
        Ok(command.env("KUBECONFIG", kubeconfig).current_dir(self.folder.path()).output()?)
    }

    /// Runs `kubectl` and expects an exit code, these words on standard output and these on standard error.
    fn expect(
        &self,
        kubeconfig: &Path,
        arguments: &str,
        code: i32,
        said: &str,
        complaint: &str,
    ) -> Result<()> {
        let output = self.kubectl(kubeconfig, arguments)?;
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        ensure!(output.status.code() == Some(code), "`{arguments}`: {stdout}{stderr}");
        ensure!(stdout.contains(said), "`{arguments}` does not say `{said}`: {stdout}{stderr}");
        ensure!(stderr.contains(complaint), "`{arguments}` does not complain `{complaint}`: {stderr}");
        ensure!(!complaint.is_empty() || stderr.is_empty(), "`{arguments}` complains: {stderr}");
        Ok(())
    }

    /// Somebody who may list some resources of the namespace `shop`, and nothing else.
    fn tenant(&self) -> Result<PathBuf> {
        let api = self.plane.api();
        let named = json!({"namespace": "shop", "name": "tenant"});
        let rules = json!([
            {"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["list"]},
            {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list"]},
        ]);
        api.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named}))?;
        let group = "rbac.authorization.k8s.io";
        let version = format!("{group}/v1");
        api.apply(&json!({"apiVersion": version, "kind": "Role", "metadata": named, "rules": rules}))?;
        api.apply(&json!({
            "apiVersion": version, "kind": "RoleBinding", "metadata": named,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "tenant"},
            "subjects": [{"kind": "ServiceAccount", "namespace": "shop", "name": "tenant"}],
        }))?;
        self.plane.kubeconfig_of_account("shop", "tenant")
    }
}

fn pod(namespace: &str, name: &str, app: &str, address: &str, owners: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": name, "ownerReferences": owners,
            "labels": {"app": app, "pod-template-hash": "5d9c"},
        },
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "main", "image": "example.invalid/none", "ports": [{"containerPort": 8080, "protocol": "TCP"}]}],
        },
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

#[test]
fn the_plugin_answers_about_the_cluster() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let administrator = scene.plane.kubeconfig(User::Administrator)?;
    for (arguments, code, said) in [
        (
            "podfence explain --from deploy/web --to svc/shop/db --port 5432",
            0,
            "ALLOWED  deploy/web → svc/shop/db",
        ),
        (
            "podfence explain --from prometheus --to http://db.shop:5432",
            1,
            "pod prometheus has app=prometheus",
        ),
        ("podfence explain --context lab -n shop --from web-5d9c-1 --to db", 0, "8080/TCP"),
        ("podfence explain --from ns=ingress,app=web --to pod/shop/db", 1, "To allow it, apply:"),
        ("podfence matrix --port 8080 -o csv", 0, "shop/web-5d9c-2,shop/db,8080,TCP,,allow,allow,allow"),
        ("podfence compile --node node-1", 0, "table inet podfence"),
        ("__complete podfence explain --po", 0, "--port\t"),
    ] {
        let complaint = if arguments.starts_with("__complete") { "Completion ended" } else { "" };
        scene.expect(&administrator, arguments, code, said, complaint)?;
    }
    scene.expect(
        &administrator,
        "podfence matrix --context nowhere",
        2,
        "",
        "kubectl cannot read the cluster",
    )
}

/// A cluster need not know the resource, and may be taught it.
#[test]
fn cluster_network_policies_are_read_once_the_cluster_has_them() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let administrator = scene.plane.kubeconfig(User::Administrator)?;
    let explain = "podfence explain --from web-5d9c-1 --to db --port 8080";
    scene.expect(&administrator, explain, 0, "a policy isolates shop/db, and a rule covers this", "")?;

    let definition = cluster_policy_definition(&["v1alpha2", "v1beta1"]);
    let spec = json!({
        "tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
        "ingress": [{"action": "Deny", "from": [{"namespaces": {"matchLabels": {"team": "web"}}}]}],
    });
    let guard = cluster_policy("v1beta1", "guard", &spec);
    for (object, wait) in [(definition, Some("crd --all --for condition=Established")), (guard, None)] {
        std::fs::write(scene.folder.path().join("object.json"), object.to_string())?;
        scene.expect(&administrator, "create -f object.json", 0, "created", "")?;
        if let Some(wait) = wait {
            scene.expect(&administrator, &format!("wait {wait}"), 0, "condition met", "")?;
        }
    }
    scene.expect(&administrator, explain, 1, "Admin policy guard (priority 1)", "")
}

#[test]
fn people_with_fewer_rights_are_told_what_is_missing() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let explain = "podfence explain --from web-5d9c-1 --to db --port 8080";
    let [agent, stranger] = [User::Agent, User::Stranger].map(|user| scene.plane.kubeconfig(user));
    scene.expect(
        &agent?,
        explain,
        0,
        "ALLOWED",
        "no right to list services: Services cannot be asked about",
    )?;
    let policies = "no right to list pods and networkpolicies.networking.k8s.io in all namespaces";
    scene.expect(&stranger?, explain, 2, "", policies)?;
    let tenant = scene.tenant()?;
    scene.expect(&tenant, explain, 2, "", "give -n NAMESPACE")?;
    let in_shop = "podfence explain -n shop --from web-5d9c-1 --to svc/db --port 5432";
    scene.expect(&tenant, in_shop, 0, "ALLOWED", "only namespace shop is read")?;
    let elsewhere = "podfence explain -n monitoring --from web-5d9c-1 --to db";
    scene.expect(&tenant, elsewhere, 2, "", "in namespace monitoring neither")
}
