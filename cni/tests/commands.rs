//! The program `podfence-cni` as a container runtime runs it, where no agent runs.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result};
use podfence_cni::protocol::{Attachment, PodReference, Sandbox};
use podfence_cni::records::Records;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A node without an agent.
struct Node(TempDir);

/// What the program leaves: whether it succeeds, and what it prints.
struct Output {
    success: bool,
    stdout: String,
    stderr: String,
}

impl Node {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// The configuration of the plugin, with these keys set or, if they are `null`, left out.
    fn configuration(&self, keys: &Value) -> String {
        let mut configuration = json!({
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "podfence-cni",
            "socket": self.0.path().join("cni.sock"),
            "timeoutSeconds": 1,
            "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.5/16"}]},
        });
        if let (Some(configuration), Value::Object(keys)) = (configuration.as_object_mut(), keys) {
            configuration.extend(keys.clone());
            configuration.retain(|_, value| !value.is_null());
        }
        configuration.to_string()
    }

    /// Keeps a record of a pod's sandbox.
    fn record(&self, container: &str) -> Result<()> {
        let sandbox = Sandbox {
            attachment: Attachment { container: container.into(), interface: "eth0".into() },
            pod: PodReference { namespace: "shop".into(), name: "web".into(), uid: None },
            addresses: Vec::new(),
        };
        Ok(Records::open(&self.0.path().join("sandboxes"))?.put(&sandbox)?)
    }

    /// The sandboxes of which there is a record.
    fn records(&self) -> Result<Vec<String>> {
        let records = Records::open(&self.0.path().join("sandboxes"))?.all()?;
        records.into_iter().map(|record| Ok(record?.attachment.container)).collect()
    }

    fn without_path(&self, text: &str) -> String {
        text.replace(&self.0.path().display().to_string(), "/run/podfence")
    }
}

/// Runs the program for the interface `eth0` of a pod's sandbox.
fn run(container: &str, command: &str, configuration: &str) -> Result<Output> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_podfence-cni"))
        .env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", container)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", "/proc/self/ns/net")
        .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    // A program that fails early closes its input; its own message says why.
    let _ = stdin.write_all(configuration.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    let [stdout, stderr] = [output.stdout, output.stderr].map(String::from_utf8);
    Ok(Output { success: output.status.success(), stdout: stdout?, stderr: stderr? })
}

#[test]
fn errors_have_the_codes_of_the_specification() -> Result<()> {
    let node = Node::new()?;
    let behind = "prevResult is missing: podfence-cni runs behind the plugin that makes the interface";
    let away =
        "the agent cannot be reached at /run/podfence/cni.sock: No such file or directory (os error 2)";
    let supported = "is not one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0";
    let cases = [
        ("ADD", json!({"cniVersion": "0.2.0"}), 1, format!("CNI version `0.2.0` {supported}"), ""),
        ("ADD", json!({"cniVersion": null}), 1, format!("CNI version `` {supported}"), ""),
        ("CHECK", json!({"cniVersion": "0.3.1"}), 1, "CHECK is no command of CNI version 0.3.1".into(), ""),
        ("GC", json!({"cniVersion": "1.0.0"}), 1, "GC is no command of CNI version 1.0.0".into(), ""),
        (
            "ADD",
            json!({"onUnavailible": "open"}),
            2,
            "unknown key `onUnavailible` with the value \"open\"".into(),
            "",
        ),
        ("STOP", json!({}), 4, "CNI_COMMAND is `STOP`, which is no command of CNI".into(), ""),
        (
            "ADD",
            json!({"onUnavailable": "close"}),
            7,
            "onUnavailable: unknown variant `close`, expected one of `wait`, `strict`, `open`".into(),
            "",
        ),
        (
            "ADD",
            json!({"timeoutSeconds": 61}),
            7,
            "timeoutSeconds: a timeout of 61 seconds is not between 1 and 60".into(),
            "",
        ),
        ("ADD", json!({"prevResult": null}), 7, behind.into(), ""),
        ("CHECK", json!({"prevResult": null}), 7, behind.into(), ""),
        ("ADD", json!({}), 11, "the policies of the pod are not enforced yet".into(), away),
        ("CHECK", json!({}), 11, "the policies of the pod are not enforced yet".into(), away),
        ("STATUS", json!({}), 50, "no pod can start: their policies would not be enforced".into(), away),
    ];
    let check = |(command, keys, code, message, details): (&str, Value, u64, String, &str)| -> Result<()> {
        let output = run("c1", command, &node.configuration(&keys))?;
        let error: Value = serde_json::from_str(&output.stdout)?;
        assert!(!output.success);
        assert_eq!(error["code"], code, "{command} {keys}: {error}");
        assert_eq!(error["msg"], message, "{command} {keys}");
        assert_eq!(
            node.without_path(error["details"].as_str().unwrap_or_default()),
            details,
            "{command} {keys}"
        );
        Ok(())
    };
    // At once, because some of them wait for an agent.
    thread::scope(|scope| {
        let checks: Vec<_> = cases.into_iter().map(|case| scope.spawn(|| check(case))).collect();
        checks.into_iter().try_for_each(|check| check.join().expect("no panic"))
    })?;
    let output = run("c1", "ADD", "{")?;
    let error: Value = serde_json::from_str(&output.stdout)?;
    assert_eq!((output.success, &error["code"], &error["cniVersion"]), (false, &json!(6), &json!("1.1.0")));
    Ok(())
}

#[test]
fn a_deletion_never_fails() -> Result<()> {
    let node = Node::new()?;
    run("c1", "ADD", &node.configuration(&json!({"onUnavailable": "open"})))?;
    assert_eq!(node.records()?, ["c1"]);
    for configuration in [
        node.configuration(&json!({"cniVersion": "0.3.1"})),
        node.configuration(&json!({"prevResult": null})),
        node.configuration(&json!({"timeoutSeconds": 0, "unknown": true, "cniVersion": "9"})),
    ] {
        let output = run("c1", "DEL", &configuration)?;
        assert_eq!((output.success, output.stdout.as_str()), (true, ""), "{configuration}");
        assert_eq!(node.records()?, [""; 0]);
        assert!(
            output.stderr.starts_with("podfence-cni: c1/eth0 is deleted without the agent"),
            "{}",
            output.stderr
        );
    }
    Ok(())
}

#[test]
fn collecting_deletes_the_records_of_what_is_not_in_use() -> Result<()> {
    let node = Node::new()?;
    for container in ["c1", "c2", "c3"] {
        node.record(container)?;
    }
    let c2 = Attachment { container: "c2".into(), interface: "eth0".into() };
    for (valid, left) in
        [(json!({}), vec!["c1", "c2", "c3"]), (json!({"cni.dev/valid-attachments": [c2]}), vec!["c2"])]
    {
        assert!(run("c1", "GC", &node.configuration(&valid))?.success);
        let mut records = node.records()?;
        records.sort();
        assert_eq!(records, left);
    }
    // A runtime written in Go may write an empty list so.
    let empty = node.configuration(&json!({"x": 1})).replace("\"x\":1", "\"cni.dev/valid-attachments\":null");
    assert!(run("c1", "GC", &empty)?.success);
    assert_eq!(node.records()?, [""; 0]);
    Ok(())
}

#[test]
fn a_pod_may_start_unenforced() -> Result<()> {
    let node = Node::new()?;
    let open = node.configuration(&json!({"onUnavailable": "open"}));
    let output = run("c1", "ADD", &open)?;
    assert_eq!(output.stdout, "{\"cniVersion\":\"1.1.0\",\"ips\":[{\"address\":\"10.1.0.5/16\"}]}\n");
    assert!(
        output.stderr.starts_with("podfence-cni: shop/web starts unenforced: the agent cannot be reached")
    );
    assert!(run("c1", "STATUS", &open)?.success);
    Ok(())
}

#[test]
fn versions_are_reported() -> Result<()> {
    for (configuration, version) in [("{\"cniVersion\":\"0.4.0\"}", "0.4.0"), ("", "1.1.0")] {
        let output = run("c1", "VERSION", configuration)?;
        let expected = json!({"cniVersion": version, "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]});
        assert_eq!(serde_json::from_str::<Value>(&output.stdout)?, expected);
    }
    Ok(())
}
