//! What the documents tell people to type: every block of `sh` is run, those of docs/install.md against a real API
//! server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::programs::{HELM, KUBECTL, is_there};
use lab::testbed::{BOUND, Testbed, policy, wait_until};
use lab::{Agent, ControlPlane, Lab, Namespace, Outcome, Probe, Protocol, Topology, Underlay, User, program};
use serde_json::json;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The sections that have commands to run, in an order in which they can be: no two ways to install at once.
const SECTIONS: [&str; 5] =
    ["With Helm", "Upgrading", "Removing", "Without Helm on the cluster", "Without pods"];

/// The code blocks of a language in a text.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).filter_map(|block| Some(block.split_once("\n```")?.0)).collect()
}

/// What stands below a heading of the second level.
fn section<'t>(text: &'t str, title: &str) -> Result<&'t str> {
    let (_, behind) = text.split_once(&format!("\n## {title}\n")).with_context(|| title.to_owned())?;
    Ok(behind.split("\n## ").next().unwrap_or(behind))
}

fn document(name: &str) -> Result<String> {
    Ok(fs::read_to_string(Path::new(ROOT).join("docs").join(name))?)
}

/// A shell that runs a command and finds these programs.
fn shell(namespace: &Namespace, command: &str, programs: &[PathBuf]) -> Result<Command> {
    let mut path: Vec<PathBuf> = programs.iter().filter_map(|path| Some(path.parent()?.to_owned())).collect();
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut shell = namespace.command("sh");
    shell.args(["-euc", command]).env("PATH", std::env::join_paths(&path)?);
    Ok(shell)
}

fn succeed(mut command: Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn what_install_md_says_works() -> Result<()> {
    if !is_there(HELM.available().and_then(|()| KUBECTL.available()).and_then(|()| ControlPlane::available()))
    {
        return Ok(());
    }
    let text = document("install.md")?;
    let commands = |text| blocks(text, "sh");
    let in_sections = SECTIONS.map(|title| section(&text, title).map(commands));
    let in_sections: Vec<_> = in_sections.into_iter().collect::<Result<_>>()?;
    assert_eq!(in_sections.concat().len(), commands(&text).len(), "a section is not run");

    let mut lab = Lab::new(Topology::Routed, Underlay::HostGateway)?;
    let node = lab.node("node-1")?;
    let plane = ControlPlane::start(lab.world().namespace(), lab.world().ipv4())?;
    let folder = tempfile::tempdir()?;
    std::os::unix::fs::symlink(Path::new(ROOT).join("charts"), folder.path().join("charts"))?;
    let programs = [HELM.path()?, KUBECTL.path()?, program("podfence-controller")?];
    // What an agent that has ended leaves.
    node.namespace().nft("add table inet podfence")?;

    for (title, commands) in SECTIONS.into_iter().zip(in_sections) {
        for command in commands {
            let mut shell = shell(node.namespace(), command, &programs)?;
            shell.current_dir(folder.path()).env("HOME", folder.path());
            shell.env("KUBECONFIG", plane.kubeconfig(User::Administrator)?);
            succeed(shell).with_context(|| format!("{title}: `{command}`"))?;
        }
        let installed = plane.api().get("/apis/apps/v1/namespaces/kube-system/daemonsets/podfence").is_ok();
        assert_eq!(installed, title != "Removing", "after {title}");
    }
    assert_eq!(node.namespace().feed("nft", &["list", "tables"], "")?, "", "cleanup removes the table");
    let kubeconfig = folder.path().join("agent.kubeconfig");
    Agent::start_with(&node, ["--kubeconfig".as_ref(), kubeconfig.as_os_str()])?.wait_ready(BOUND)
}

#[test]
fn what_operating_md_says_works() -> Result<()> {
    let node = Lab::new(Topology::Routed, Underlay::HostGateway)?.node("node-1")?;
    // What an agent that has ended leaves.
    node.namespace().nft("add table inet podfence")?;
    for command in blocks(&document("operating.md")?, "sh") {
        let shell = shell(node.namespace(), command, &[program("podfence-controller")?])?;
        succeed(shell).with_context(|| command.to_owned())?;
    }
    assert_eq!(node.namespace().feed("nft", &["list", "tables"], "")?, "", "cleanup removes the table");
    Ok(())
}

/// A pod is denied what it asks of another, and somebody goes by the book.
#[test]
fn what_debugging_md_says_works() -> Result<()> {
    if !is_there(KUBECTL.available().and_then(|()| ControlPlane::available())) {
        return Ok(());
    }
    let mut testbed = Testbed::new(Topology::Routed, Underlay::HostGateway, &["node-1"])?;
    let (client, web) =
        (testbed.pod("node-1", "shop/client", &[])?, testbed.pod("node-1", "shop/web", &[8080])?);
    let friends = json!([{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}]);
    let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": friends});
    testbed.put(&policy("shop", "web", &spec))?;
    let world = testbed.lab.world();
    let plane = ControlPlane::start(world.namespace(), world.ipv4())?;
    plane.api().put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))?;
    plane.api().put(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }))?;
    testbed.objects()?.iter().try_for_each(|object| plane.api().put(object))?;
    let kubeconfig = plane.kubeconfig(User::Agent)?;
    let mut agent = Agent::start_with(web.node(), ["--kubeconfig".as_ref(), kubeconfig.as_os_str()])?;
    agent.wait_ready(BOUND)?;
    let probe = Probe::new(&client, web.ipv4(), 8080, Protocol::Tcp);
    testbed.lab.wait_for(&probe, Outcome::Denied, BOUND)?;
    wait_until(BOUND, || {
        let events = plane.api().get("/api/v1/namespaces/shop/events?fieldSelector=reason=PolicyDenied")?;
        ensure!(!events["items"][0].is_null(), "{events}\n{}", agent.log()?);
        Ok(())
    })?;

    let folder = tempfile::tempdir()?;
    let programs = [KUBECTL.path()?, program("podfence")?, program("podfence-controller")?];
    for command in blocks(&document("debugging.md")?, "sh") {
        let mut shell = shell(web.node().namespace(), command, &programs)?;
        shell.current_dir(folder.path()).env("HOME", folder.path());
        let output = shell.env("KUBECONFIG", plane.kubeconfig(User::Administrator)?).output()?;
        let [said, complaint] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        let (code, words) = match command {
            _ if command.starts_with("podfence explain") => {
                (1, "pod client has app=client (needs app=friend)")
            }
            _ if command.contains("reason=PolicyDenied") => {
                (0, "pod client has app=client (needs app=friend)")
            }
            _ if command.contains("status") => (0, "isolated by shop/web: denied"),
            _ => (0, ""),
        };
        ensure!(output.status.code() == Some(code), "`{command}`: {said}{complaint}");
        ensure!(said.contains(words), "`{command}`: {said}{complaint}");
        if let Some((_, value)) = command.split_once("podfence.io/audit") {
            let outcome = if value == "=true" { Outcome::Allowed } else { Outcome::Denied };
            testbed.lab.wait_for(&probe, outcome, BOUND).context(value.to_owned())?;
        }
    }
    Ok(())
}

#[test]
fn the_agent_understands_the_units_of_systemd() -> Result<()> {
    let of_agent = blocks(&document("install.md")?, "ini").concat();
    let of_boot = fs::read_to_string(Path::new(ROOT).join("boot/podfence-restore.service"))?;
    for unit in [of_agent, of_boot] {
        let mut lines = unit.lines();
        let line = lines.find_map(|line| line.strip_prefix("ExecStart=/usr/local/sbin/podfence-controller "));
        let arguments = line.context("no ExecStart")?.split(' ');
        // Help is only given where all that stands before it is understood.
        let agent = Command::new(program("podfence-controller")?).args(arguments).arg("--help").output()?;
        assert!(agent.status.success(), "{}", String::from_utf8_lossy(&agent.stderr));
    }
    Ok(())
}
