//! The image: the agent runs where there is nothing but what the Dockerfile puts there.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::testbed::{BOUND, policy};
use lab::{Agent, Lab, Outcome, Protocol, Topology, Underlay, program};
use serde_json::json;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The most that the image may hold, bytes.
const BOUND_OF_SIZE: u64 = 32 << 20;

/// The program that the image starts.
fn entry_point() -> Result<String> {
    let dockerfile = fs::read_to_string(Path::new(ROOT).join("Dockerfile"))?;
    let entry_point = dockerfile.lines().find_map(|line| line.strip_prefix("ENTRYPOINT "));
    let [program]: [String; 1] = serde_json::from_str(entry_point.context("no ENTRYPOINT")?)?;
    Ok(program)
}

/// How many bytes the files below a folder have.
fn size(folder: &Path) -> Result<u64> {
    let sizes = fs::read_dir(folder)?.map(|entry| {
        let entry = entry?;
        if entry.file_type()?.is_dir() { size(&entry.path()) } else { Ok(entry.metadata()?.len()) }
    });
    sizes.sum()
}

#[test]
fn the_agent_runs_from_what_the_image_has() -> Result<()> {
    let image = tempfile::tempdir()?;
    let made = Command::new(Path::new(ROOT).join("image/root-filesystem"))
        .arg(program("podfence-controller")?)
        .arg(image.path())
        .output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let bytes = size(image.path())?;
    assert!(bytes < BOUND_OF_SIZE, "{bytes} bytes");

    let mut lab = Lab::new(Topology::Routed, Underlay::HostGateway)?;
    let node = lab.node("node")?;
    let web = lab.pod(&node, "shop/web")?;
    let client = lab.pod(&node, "shop/client")?;
    web.serve(&[(Protocol::Tcp, 80)])?;
    let manifests = image.path().join("manifests");
    fs::create_dir(&manifests)?;
    let isolate = policy("shop", "isolate", &json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    for (name, object) in [("web", web.manifest(&[], &[])), ("isolate", isolate)] {
        fs::write(manifests.join(format!("{name}.json")), object.to_string())?;
    }

    let inside = || -> Result<Command> {
        let mut command = node.namespace().command("chroot");
        command.arg(image.path()).arg(entry_point()?);
        Ok(command)
    };
    let listen: SocketAddr = "127.0.0.1:9555".parse()?;
    let mut command = inside()?;
    command.args([
        "run",
        "--node-name",
        "node",
        "--manifests",
        "/manifests",
        "--listen",
        &listen.to_string(),
    ]);
    let mut agent = Agent::of_command(&node, listen, command)?;
    agent.wait_ready(BOUND)?;
    assert_eq!(lab.connect(&client, web.ipv4(), 80, Protocol::Tcp)?, Outcome::Denied);
    let status = inside()?.arg("status").output()?;
    assert!(String::from_utf8_lossy(&status.stdout).contains("shop/web"), "{status:?}");
    agent.stop(BOUND)?;
    assert!(inside()?.arg("cleanup").status()?.success());
    assert_eq!(lab.connect(&client, web.ipv4(), 80, Protocol::Tcp)?, Outcome::Allowed);
    Ok(())
}
