//! The commands that people run: `status`, `cleanup`, wrong usage, the demo, and all of it without root.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::listing::Listing;
use lab::testbed::{Testbed, policy, status};
use lab::{Manifests, Namespace, Outcome, Protocol, Topology, Underlay, program};
use serde_json::json;

const PORT: u16 = 8080;

/// The demo as cargo has built it.
const DEMO: &str = env!("CARGO_BIN_EXE_demo");

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs the agent's program in a network namespace.
fn controller(namespace: &Namespace, arguments: &[&str]) -> Result<Output> {
    let mut command = namespace.command(program("podfence-controller")?);
    Ok(command.args(arguments).env_remove("NODE_NAME").output()?)
}

#[test]
fn cleanup_removes_the_table_and_nothing_else_does() -> Result<()> {
    let mut testbed = Testbed::new(Topology::Routed, Underlay::HostGateway, &["node"])?;
    let client = testbed.pod("node", "shop/client", &[PORT])?;
    let web = testbed.pod("node", "shop/web", &[PORT])?;
    testbed.put(&policy("shop", "web", &json!({"podSelector": {"matchLabels": {"app": "web"}}})))?;
    let reaches = || testbed.lab.connect(&client, web.ipv4(), PORT, Protocol::Tcp);
    testbed.start_agent("node")?.stop(Duration::from_secs(1))?;
    testbed.start_agent("node")?.kill();
    assert_eq!(reaches()?, Outcome::Denied);
    let status = status(web.node())?;
    assert_eq!(status["enforced"], true);
    assert_eq!(status["groups"][0]["isolation"], "isolated by shop/web");
    assert_eq!(status["groups"][0]["pods"][0], json!({"name": "shop/web", "address": web.ipv4()}));

    let node = web.node().namespace();
    node.nft("add table inet others; add table ip podfence")?;
    assert!(controller(node, &["cleanup"])?.status.success());
    assert_eq!(node.feed("nft", &["list", "tables"], "")?, "table inet others\ntable ip podfence\n");
    assert_eq!(reaches()?, Outcome::Allowed);
    Ok(())
}

#[test]
fn without_a_table_status_says_so_and_cleanup_has_nothing_to_do() -> Result<()> {
    let namespace = Namespace::new()?;
    let spoken = controller(&namespace, &["status"])?;
    assert!(spoken.status.success());
    assert!(text(&spoken.stdout).starts_with("Nothing is enforced"), "{}", text(&spoken.stdout));
    let json: serde_json::Value =
        serde_json::from_slice(&controller(&namespace, &["status", "-o", "json"])?.stdout)?;
    assert_eq!(
        json,
        json!({"enforced": false, "groups": [], "rules": [], "tiers": [], "untracked": [], "strict_start": []})
    );
    assert!(controller(&namespace, &["cleanup"])?.status.success());
    assert_eq!(Listing::of(&namespace)?, Listing::default());
    Ok(())
}

#[test]
fn wrong_usage_is_2_and_failure_is_1() -> Result<()> {
    let namespace = Namespace::new()?;
    for (arguments, code) in [
        (&[][..], 2),
        (&["walk"], 2),
        (&["run"], 2),
        (&["run", "--node-name", "node", "--manifests", "/", "--kubeconfig", "/dev/null"], 2),
        (&["run", "--node-name", "node", "--manifests", "/", "--listen", "here"], 2),
        (&["status", "--output", "xml"], 2),
        (&["run", "--node-name", "node", "--manifests", "/no/such/directory"], 1),
    ] {
        let output = controller(&namespace, arguments)?;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty(), "{arguments:?} says nothing");
    }
    Ok(())
}

/// For a while: the agent before it may be about to end.
#[test]
fn an_address_that_stays_taken_ends_the_agent() -> Result<()> {
    let namespace = Namespace::new()?;
    let directory = Manifests::new()?;
    let manifests = directory.path().to_string_lossy();
    let _taken = namespace.run(|| Ok(std::net::TcpListener::bind("127.0.0.1:9555")?))?;
    let refusal = controller(
        &namespace,
        &["run", "--node-name", "node", "--manifests", &manifests, "--listen", "127.0.0.1:9555"],
    )?;
    assert_eq!(refusal.status.code(), Some(1));
    assert!(text(&refusal.stderr).contains("cannot listen on 127.0.0.1:9555"), "{}", text(&refusal.stderr));
    Ok(())
}

#[test]
fn the_demo_shows_that_policies_and_packets_agree() -> Result<()> {
    let begin = Instant::now();
    let demo = Command::new(DEMO).output()?;
    assert!(demo.status.success(), "{}", text(&demo.stdout));
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    let shown = text(&demo.stdout);
    for part in ["the policies say", "the packets did", "ms after", "kill -9", "everything is still enforced"]
    {
        assert!(shown.contains(part), "`{part}` is not in:\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "colours where there is no terminal:\n{shown}");
    Ok(())
}

/// Runs a command without any right that root has and others have not.
fn without_capabilities() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all"]);
    command
}

/// Whoever may not make network namespaces sees the dry run, and why.
#[test]
fn the_demo_shows_the_dry_run_where_there_is_no_lab() -> Result<()> {
    let demo = without_capabilities().arg(DEMO).output()?;
    let shown = text(&demo.stdout);
    assert!(demo.status.success(), "{shown}{}", text(&demo.stderr));
    for part in ["No packets can be shown on this machine", "podfence matrix", "podfence explain", "DENIED"] {
        assert!(shown.contains(part), "`{part}` is not in:\n{shown}");
    }
    Ok(())
}

#[test]
fn the_demo_runs_without_root() -> Result<()> {
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("run-privileged");
    let demo = without_capabilities().arg(runner).arg(DEMO).output()?;
    let shown = text(&demo.stdout);
    if demo.status.code() == Some(77) {
        eprintln!("not tried without root: {}", text(&demo.stderr));
        return Ok(());
    }
    assert!(demo.status.success(), "{shown}{}", text(&demo.stderr));
    assert!(shown.contains("everything is still enforced"), "{shown}");
    Ok(())
}
