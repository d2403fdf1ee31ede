//! What docs/install.md tells people to type: every block of `sh` is run, against a real API server.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lab::programs::{HELM, KUBECTL};
use lab::testbed::BOUND;
use lab::{Agent, ControlPlane, Lab, Topology, Underlay, User, program};

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

fn install() -> Result<String> {
    Ok(fs::read_to_string(Path::new(ROOT).join("docs/install.md"))?)
}

#[test]
fn what_install_md_says_works() -> Result<()> {
    let missing =
        HELM.available().and_then(|()| KUBECTL.available()).and_then(|()| ControlPlane::available());
    if let Err(missing) = missing {
        return Ok(writeln!(std::io::stderr(), "left out: {missing}")?);
    }
    let text = install()?;
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
    let mut path: Vec<PathBuf> = programs.iter().filter_map(|path| Some(path.parent()?.to_owned())).collect();
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    // What an agent that has ended leaves.
    node.namespace().nft("add table inet podfence")?;

    for (title, commands) in SECTIONS.into_iter().zip(in_sections) {
        for command in commands {
            let output = node
                .namespace()
                .command("sh")
                .args(["-euc", command])
                .current_dir(folder.path())
                .env("PATH", std::env::join_paths(&path)?)
                .env("HOME", folder.path())
                .env("KUBECONFIG", plane.kubeconfig(User::Administrator)?)
                .output()?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success(), "{title}: `{command}`: {said}");
        }
        let installed = plane.api().get("/apis/apps/v1/namespaces/kube-system/daemonsets/podfence").is_ok();
        assert_eq!(installed, title != "Removing", "after {title}");
    }
    assert_eq!(node.namespace().feed("nft", &["list", "tables"], "")?, "", "cleanup removes the table");
    let kubeconfig = folder.path().join("agent.kubeconfig");
    Agent::start_with(&node, ["--kubeconfig".as_ref(), kubeconfig.as_os_str()])?.wait_ready(BOUND)
}

#[test]
fn the_agent_understands_the_unit_of_systemd() -> Result<()> {
    let text = install()?;
    let line = blocks(&text, "ini").concat();
    let line =
        line.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/sbin/podfence-controller "));
    let arguments = line.context("no ExecStart")?.split(' ');
    // Help is only given where all that stands before it is understood.
    let agent =
        std::process::Command::new(program("podfence-controller")?).args(arguments).arg("--help").output()?;
    assert!(agent.status.success(), "{}", String::from_utf8_lossy(&agent.stderr));
    Ok(())
}
