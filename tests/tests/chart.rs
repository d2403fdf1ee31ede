//! The Helm chart, rendered by the real helm: its values, what an agent may do with what it is given, and what
//! the monitoring asks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use lab::programs::{HELM, is_there};
use lab::testbed::{
    BOUND, Testbed, cluster_policy, cluster_policy_definition, namespace, policy, wait_until,
};
use lab::{Agent, ControlPlane, Lab, Node, Outcome, Pod, Probe, Protocol, Topology, Underlay, program};
use serde::Deserialize;
use serde_json::{Value, json};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/podfence");

/// Where the chart is installed.
const NAMESPACE: &str = "kube-system";

const PORT: u16 = 8080;

/// Values that switch every option on.
const EVERYTHING: &[&str] = &[
    "listen=0.0.0.0:9556",
    "strictStart=true",
    "keepConnections=true",
    "defaultDeny=env=prod",
    "defaultDenyAllowDns=true",
    "requireDoors=true",
    "allowPodTunnels=true",
    "podsToNode=policy",
    "cni.enabled=true",
    "serviceMonitor.enabled=true",
    "serviceMonitor.labels.release=prometheus",
    "prometheusRule.enabled=true",
    "prometheusRule.labels.release=prometheus",
    "dashboard.enabled=true",
    "imagePullSecrets[0].name=registry",
    "maxUnavailable=10%",
];

/// Runs helm on the chart with these values.
fn helm(command: &[&str], values: &[&str]) -> Result<Output> {
    let mut helm = Command::new(HELM.path()?);
    helm.args(command).args(["--namespace", NAMESPACE]);
    helm.args(values.iter().flat_map(|value| ["--set", value]));
    Ok(helm.output()?)
}

fn template(values: &[&str]) -> Result<Output> {
    helm(&["template", "podfence", CHART], values)
}

/// The objects that the chart is with these values, by kind.
fn render(values: &[&str]) -> Result<BTreeMap<String, Value>> {
    let output = template(values)?;
    ensure!(output.status.success(), "{values:?}: {}", String::from_utf8_lossy(&output.stderr));
    let documents = serde_yaml::Deserializer::from_slice(&output.stdout);
    let objects: Vec<Value> = documents.map(Value::deserialize).collect::<Result<_, _>>()?;
    let by_kind = |object: Value| Some((object["kind"].as_str()?.to_owned(), object));
    Ok(objects.into_iter().filter_map(by_kind).collect())
}

/// The container of the agent.
fn container(objects: &BTreeMap<String, Value>) -> &Value {
    &objects["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]
}

fn arguments(objects: &BTreeMap<String, Value>) -> Vec<&str> {
    let arguments = container(objects)["args"].as_array();
    arguments.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn file(name: &str) -> Result<String> {
    let path = Path::new(CHART).join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[test]
fn helm_finds_nothing_wrong() -> Result<()> {
    if !is_there(HELM.available()) {
        return Ok(());
    }
    for values in [&[][..], EVERYTHING] {
        let output = helm(&["lint", "--strict", CHART], values)?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

#[test]
fn the_pods_get_what_an_agent_needs_and_no_more() -> Result<()> {
    if !is_there(HELM.available()) {
        return Ok(());
    }
    let objects = render(&[])?;
    assert_eq!(
        objects.keys().map(String::as_str).collect::<Vec<_>>(),
        ["ClusterRole", "ClusterRoleBinding", "DaemonSet", "ServiceAccount"]
    );
    let version = env!("CARGO_PKG_VERSION");
    let pod = "/spec/template/spec";
    let container = "/spec/template/spec/containers/0";
    for (base, field, expected) in [
        ("", "/spec/updateStrategy/rollingUpdate", json!({"maxUnavailable": 1, "maxSurge": 0})),
        (pod, "/hostNetwork", json!(true)),
        (pod, "/hostPID", Value::Null),
        (
            pod,
            "/volumes",
            json!([{"name": "state", "hostPath": {"path": "/var/lib/podfence", "type": "DirectoryOrCreate"}}]),
        ),
        (container, "/volumeMounts", json!([{"name": "state", "mountPath": "/var/lib/podfence"}])),
        (container, "/env/1", json!({"name": "PODFENCE_STATE", "value": "/var/lib/podfence/state"})),
        (pod, "/serviceAccountName", json!("podfence")),
        (pod, "/priorityClassName", json!("system-node-critical")),
        (pod, "/tolerations", json!([{"operator": "Exists"}])),
        (container, "/image", json!(format!("ghcr.io/podfence/podfence:{version}"))),
        (container, "/args", json!(["run", "--listen=127.0.0.1:9555"])),
        (container, "/env/0/name", json!("NODE_NAME")),
        (container, "/env/0/valueFrom/fieldRef/fieldPath", json!("spec.nodeName")),
        (
            container,
            "/securityContext",
            json!({
                "runAsUser": 0,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }),
        ),
    ] {
        let value = objects["DaemonSet"].pointer(&format!("{base}{field}"));
        assert_eq!(value.unwrap_or(&Value::Null), &expected, "{base}{field}");
    }
    assert_eq!(objects["ServiceAccount"]["automountServiceAccountToken"], false);
    Ok(())
}

#[test]
fn the_plugin_gets_the_folders_of_the_node_that_it_is_installed_in() -> Result<()> {
    if !is_there(HELM.available()) {
        return Ok(());
    }
    let objects = render(&["cni.enabled=true", "cni.configurations=/var/lib/cni/net.d"])?;
    let pod = &objects["DaemonSet"]["spec"]["template"]["spec"];
    let paths = |list: &Value, field: &str| -> Vec<Value> {
        list.as_array().into_iter().flatten().filter_map(|item| item.pointer(field).cloned()).collect()
    };
    let expected =
        ["/var/lib/podfence", "/run/podfence", "/var/lib/cni/net.d", "/opt/cni/bin"].map(Value::from);
    assert_eq!(paths(&pod["volumes"], "/hostPath/path"), expected);
    assert_eq!(paths(&container(&objects)["volumeMounts"], "/mountPath"), expected);
    assert_eq!(
        objects["Role"]["rules"],
        json!([{"apiGroups": ["apps"], "resources": ["daemonsets"], "resourceNames": ["podfence"], "verbs": ["get"]}])
    );
    Ok(())
}

#[test]
fn the_agent_takes_the_arguments_of_every_value() -> Result<()> {
    if !is_there(HELM.available()) {
        return Ok(());
    }
    for (values, argument) in [
        (&["listen=[::]:80"][..], "--listen=[::]:80"),
        (&["strictStart=true"], "--strict-start"),
        (&["keepConnections=true"], "--keep-connections"),
        (&["defaultDeny=env=prod\\,tier in (web\\,api)"], "--default-deny=env=prod,tier in (web,api)"),
        (&["defaultDeny=!open", "defaultDenyAllowDns=true"], "--default-deny-allow-dns"),
        (&["doors=false"], "--no-doors"),
        (&["requireDoors=true"], "--require-doors"),
        (&["allowPodTunnels=true"], "--allow-pod-tunnels"),
        (&["podsToNode=policy"], "--pods-to-node=policy"),
        (&["cni.enabled=true"], "--install-cni"),
        (&["cni.enabled=true", "cni.unavailable=strict"], "--cni-unavailable=strict"),
        (&["cni.enabled=true", "cni.timeoutSeconds=3"], "--cni-timeout=3"),
        (&["cni.enabled=true", "cni.programs=/var/cni"], "--cni-programs=/var/cni"),
    ] {
        let objects = render(values)?;
        let arguments = arguments(&objects);
        assert!(arguments.contains(&argument), "{values:?}: {arguments:?}");
        // Help is only given where all that stands before it is understood.
        let agent = Command::new(program("podfence-controller")?).args(&arguments).arg("--help").output()?;
        assert!(agent.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&agent.stderr));
    }
    Ok(())
}

#[test]
fn without_a_folder_for_the_state_nothing_of_the_node_is_mounted() -> Result<()> {
    if !is_there(HELM.available()) {
        return Ok(());
    }
    let objects = render(&["stateFolder="])?;
    let pod = &objects["DaemonSet"]["spec"]["template"]["spec"];
    assert_eq!((&pod["volumes"], &container(&objects)["volumeMounts"]), (&Value::Null, &Value::Null));
    assert_eq!(container(&objects)["env"][1], Value::Null);
    Ok(())
}

#[test]
fn the_probes_ask_where_the_agent_listens() -> Result<()> {
    if !is_there(HELM.available()) {
        return Ok(());
    }
    for (listen, host, port) in [
        ("127.0.0.1:9555", json!("127.0.0.1"), 9555),
        ("[::1]:9555", json!("::1"), 9555),
        ("[fd00::10]:80", json!("fd00::10"), 80),
        ("0.0.0.0:80", Value::Null, 80),
        ("[::]:65535", Value::Null, 65535),
    ] {
        let objects = render(&[&format!("listen={listen}")])?;
        let container = container(&objects);
        for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            let asks = &container[probe]["httpGet"];
            assert_eq!((&asks["path"], &asks["port"]), (&json!(path), &json!(port)), "{listen}");
            assert_eq!(asks["host"], host, "{listen}");
        }
        assert_eq!(container["ports"][0]["containerPort"], port, "{listen}");
    }
    Ok(())
}

#[test]
fn wrong_values_are_refused() -> Result<()> {
    if !is_there(HELM.available()) {
        return Ok(());
    }
    for (values, named) in [
        (&["strictstart=true"][..], "strictstart"),
        (&["image.name=podfence"], "name"),
        (&["image.tag=1"], "tag"),
        (&["image.pullPolicy=always"], "pullPolicy"),
        (&["listen=9555"], "listen"),
        (&["cni.unavailable=fail"], "unavailable"),
        (&["cni.timeoutSeconds=61"], "timeoutSeconds"),
        (&["cni.programs=cni"], "programs"),
        (&["listen=:9555"], "listen"),
        (&["listen=localhost:9555"], "listen"),
        (&["listen=127.0.0.1:0"], "listen"),
        (&["strictStart=yes"], "strictStart"),
        (&["stateFolder=var/lib"], "stateFolder"),
        (&["maxUnavailable=0"], "maxUnavailable"),
        (&["maxUnavailable=half"], "maxUnavailable"),
        (&["dashboard.label=x"], "dashboard"),
        (&["defaultDeny=1"], "defaultDeny"),
        (&["doors=no"], "doors"),
        (&["doors=false", "requireDoors=true"], "requireDoors"),
        (&["doors=false", "allowPodTunnels=true"], "allowPodTunnels"),
        (&["podsToNode=deny"], "podsToNode"),
        (&["defaultDenyAllowDns=true"], "defaultDeny"),
        (&["serviceMonitor.enabled=true"], "listen"),
    ] {
        let output = template(values)?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{values:?} is taken");
        assert!(said.contains(named), "{values:?}: {said}");
    }
    Ok(())
}

/// Whoever reads values.yaml finds out what a value does, and can set what the schema allows.
#[test]
fn every_value_is_explained_and_allowed() -> Result<()> {
    let text = file("values.yaml")?;
    for paragraph in text.split("\n\n") {
        assert!(paragraph.contains("# "), "no comment in:\n{paragraph}");
    }
    let values: Value = serde_yaml::from_str(&text)?;
    let schema: Value = serde_json::from_str(&file("values.schema.json")?)?;
    let keys =
        |value: &Value| value.as_object().map(|object| object.keys().cloned().collect::<BTreeSet<_>>());
    let mut allowed = keys(&schema["properties"]).context("a schema has properties")?;
    allowed.remove("global");
    assert_eq!(keys(&values).context("values are a mapping")?, allowed);
    Ok(())
}

/// A node, an API server that knows it, and what the chart says agents may do there.
struct Cluster {
    plane: ControlPlane,
    lab: Lab,
    node: Node,
    objects: BTreeMap<String, Value>,
}

impl Cluster {
    /// `None`, and a word about it, where no API server can be had.
    fn new(values: &[&str]) -> Result<Option<Self>> {
        if !is_there(ControlPlane::available()) {
            return Ok(None);
        }
        let mut lab = Lab::new(Topology::Routed, Underlay::HostGateway)?;
        let node = lab.node("node-1")?;
        let plane = ControlPlane::start(lab.world().namespace(), lab.world().ipv4())?;
        plane.api().put(&node.manifest())?;
        Ok(Some(Self { plane, lab, node, objects: render(values)? }))
    }

    /// Installs the account of the chart, under another name, with these rights.
    fn install_account(&self, name: &str, rules: &Value) -> Result<()> {
        let mut objects =
            ["ServiceAccount", "ClusterRole", "ClusterRoleBinding"].map(|kind| self.objects[kind].clone());
        for object in &mut objects {
            object["metadata"]["name"] = json!(name);
        }
        let [account, role, binding] = &mut objects;
        role["rules"] = rules.clone();
        binding["roleRef"]["name"] = json!(name);
        binding["subjects"][0]["name"] = json!(name);
        for object in [account, role, binding] {
            self.plane.api().apply(object)?;
        }
        Ok(())
    }

    /// Adds a pod to the node that listens on [`PORT`].
    fn pod(&mut self, name: &str) -> Result<Pod> {
        let pod = self.lab.pod(&self.node, name)?;
        pod.serve(&[(Protocol::Tcp, PORT)])?;
        self.plane.api().put(&pod.manifest(&[], &[]))?;
        Ok(pod)
    }

    /// Starts an agent on the node as the chart has it: with the pod's arguments, environment and capabilities, and
    /// the token of an account.
    fn start_agent(&self, account: &str) -> Result<Agent> {
        let pod = &self.objects["DaemonSet"]["spec"]["template"]["spec"];
        let security = &container(&self.objects)["securityContext"]["capabilities"];
        assert_eq!(security, &json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}));
        assert_eq!(pod["hostNetwork"], true);
        let arguments = arguments(&self.objects);
        let listen = arguments.iter().find_map(|argument| argument.strip_prefix("--listen="));
        let listen = listen.context("the agent listens nowhere")?.parse()?;
        let mut command = self.node.namespace().command("setpriv");
        command
            .args(["--bounding-set=-all,+net_admin", "--inh-caps=-all", "--no-new-privs"])
            .arg(program("podfence-controller")?)
            .args(arguments)
            .env("NODE_NAME", self.node.name())
            .env("PODFENCE_KUBECONFIG", self.plane.kubeconfig_of_account(NAMESPACE, account)?);
        Agent::of_command(&self.node, listen, command)
    }
}

#[test]
fn the_role_lets_an_agent_do_its_work() -> Result<()> {
    if !is_there(HELM.available()) {
        return Ok(());
    }
    let Some(mut cluster) = Cluster::new(&["strictStart=true"])? else { return Ok(()) };
    for kind in ["ServiceAccount", "ClusterRole", "ClusterRoleBinding"] {
        cluster.plane.api().apply(&cluster.objects[kind])?;
    }
    let mut agent = cluster.start_agent("podfence")?;
    agent.wait_ready(BOUND)?;

    // What changes from now on is heard of by watches.
    let api = cluster.plane.api().clone();
    for (name, labels) in [("shop", json!({"team": "shop"})), ("other", json!({}))] {
        api.put(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
        )?;
    }
    let (web, client, stranger) =
        (cluster.pod("shop/web")?, cluster.pod("shop/client")?, cluster.pod("other/stranger")?);
    let team = json!({"namespaceSelector": {"matchLabels": {"team": "shop"}}});
    api.put(&policy("shop", "team", &json!({"podSelector": {}, "ingress": [{"from": [team]}]})))?;
    for (from, outcome) in [(&stranger, Outcome::Denied), (&client, Outcome::Allowed)] {
        let probe = Probe::new(from, web.ipv4(), PORT, Protocol::Tcp);
        cluster.lab.wait_for(&probe, outcome, BOUND).with_context(|| agent.log().unwrap_or_default())?;
    }

    cluster.node.namespace().sysctl("ipv4/ip_forward 0")?;
    // A pod that comes is reason enough to look at the way of packets.
    cluster.pod("shop/another")?;
    wait_until(BOUND, || {
        let events = api.get("/api/v1/events?fieldSelector=involvedObject.kind=Node")?;
        ensure!(events["items"][0]["reason"] == "ForwardingDisabled", "{events}\n{}", agent.log()?);
        Ok(())
    })
}

#[test]
fn the_role_has_no_right_that_an_agent_does_not_use() -> Result<()> {
    if !is_there(HELM.available()) {
        return Ok(());
    }
    let Some(mut cluster) = Cluster::new(&[])? else { return Ok(()) };
    // So that there is something to tell of in events.
    cluster.plane.api().put(&namespace("shop", &json!({})))?;
    let (web, client) = (cluster.pod("shop/web")?, cluster.pod("shop/client")?);
    cluster.plane.api().put(&policy("shop", "deny", &json!({"podSelector": {}})))?;
    let denied = Probe::new(&client, web.ipv6(), PORT, Protocol::Udp);
    cluster.node.namespace().sysctl("ipv4/ip_forward 0")?;
    let rules = &cluster.objects["ClusterRole"]["rules"];
    let words = |value: &Value| serde_json::from_value::<Vec<String>>(value.clone());
    cluster.plane.api().put(&cluster_policy_definition(&["v1beta1"]))?;
    // One right for each group of the API, resource and verb.
    let mut rights = Vec::new();
    for rule in rules.as_array().context("no rules")? {
        for group in words(&rule["apiGroups"])? {
            for resource in words(&rule["resources"])? {
                for verb in words(&rule["verbs"])? {
                    rights.push((group.clone(), resource.clone(), verb, &rule["resourceNames"]));
                }
            }
        }
    }
    for (index, missing) in rights.iter().enumerate() {
        let (_, resource, verb, _) = missing;
        let account = format!("without-{verb}-{resource}");
        let others = rights.iter().enumerate().filter(|(other, _)| *other != index);
        let rules: Vec<Value> = others
            .map(|(_, (group, resource, verb, names))| {
                json!({"apiGroups": [group], "resources": [resource], "verbs": [verb], "resourceNames": names})
            })
            .collect();
        cluster.install_account(&account, &json!(rules))?;
        let agent = cluster.start_agent(&account)?;
        let refusal = format!("cannot {verb} resource \"{resource}\"");
        wait_until(BOUND, || {
            let log = agent.log()?;
            // Some of what is logged has its quotes escaped.
            let refused = log.replace('\\', "").contains(&refusal);
            if !refused && resource == "events" {
                cluster.lab.probe(std::slice::from_ref(&denied))?;
            }
            ensure!(refused, "works without the right to {verb} {resource}:\n{log}");
            Ok(())
        })?;
        agent.stop(BOUND)?;
    }
    Ok(())
}

/// The names of metrics in an expression or a text that has some.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words.filter(|word| word.starts_with("podfence_")).collect()
}

#[test]
fn dashboard_alerts_and_document_name_metrics_that_there_are() -> Result<()> {
    let mut testbed = Testbed::new(Topology::Routed, Underlay::HostGateway, &["node"])?;
    let web = testbed.pod("node", "shop/web", &[PORT])?;
    testbed.put(&policy(
        "shop",
        "web",
        &json!({"podSelector": {}, "ingress": [{"ports": [{"port": PORT}]}]}),
    ))?;
    let _audited = testbed.pod("node", "other/web", &[])?;
    let mut audited = policy("other", "web", &json!({"podSelector": {}}));
    audited["metadata"]["annotations"] = json!({"podfence.io/audit": "true"});
    testbed.put(&audited)?;
    let spec = json!({
        "tier": "Baseline", "priority": 10, "subject": {"namespaces": {}},
        "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
    });
    testbed.put(&cluster_policy("v1beta1", "default-deny", &spec))?;
    let agent = testbed.start_agent_with("node", &["--strict-start"])?;
    let (_, exported) = agent.get("/metrics")?;
    assert!(exported.contains("podfence_ready 1"), "{exported}");
    drop(web);
    let samples: String =
        exported.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let mut exported = metrics_in(&samples);
    // Only an agent that follows an API server has it (tests/cluster.rs).
    exported.insert("podfence_source_age_seconds");
    let dashboard: Value = serde_json::from_str(&file("files/dashboard.json")?)?;
    let alerts: Value = serde_yaml::from_str(&file("files/alerts.yaml")?)?;
    let operating = file("../../docs/operating.md")?;
    for (name, text) in [
        ("dashboard.json", dashboard.to_string()),
        ("alerts.yaml", alerts.to_string()),
        ("operating.md", operating),
    ] {
        let asked = metrics_in(&text);
        assert!(asked.len() > 5, "{name} asks for {asked:?} only");
        assert!(asked.is_subset(&exported), "{name}: no agent exports {:?}", asked.difference(&exported));
    }
    Ok(())
}

#[test]
fn the_options_of_monitoring_are_what_its_operators_look_for() -> Result<()> {
    if !is_there(HELM.available()) {
        return Ok(());
    }
    let objects = render(EVERYTHING)?;
    for kind in ["ServiceMonitor", "PrometheusRule"] {
        assert_eq!(objects[kind]["metadata"]["labels"]["release"], "prometheus", "{kind}");
    }
    let (monitor, service) = (&objects["ServiceMonitor"]["spec"], &objects["Service"]);
    let pod = &objects["DaemonSet"]["spec"]["template"]["metadata"];
    assert_eq!(service["spec"]["selector"], pod["labels"]);
    let port = &service["spec"]["ports"][0];
    assert_eq!(port["port"], container(&objects)["ports"][0]["containerPort"]);
    assert_eq!(port["name"], monitor["endpoints"][0]["port"]);
    for (label, value) in monitor["selector"]["matchLabels"].as_object().context("no labels")? {
        assert_eq!(&service["metadata"]["labels"][label], value);
    }
    let alerts: Value = serde_yaml::from_str(&file("files/alerts.yaml")?)?;
    assert_eq!(objects["PrometheusRule"]["spec"], alerts);
    let dashboard = &objects["ConfigMap"];
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let text = dashboard["data"]["podfence.json"].as_str().context("no dashboard")?;
    assert_eq!(
        serde_json::from_str::<Value>(text)?,
        serde_json::from_str::<Value>(&file("files/dashboard.json")?)?
    );
    Ok(())
}
