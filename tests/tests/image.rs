//! The image: the same bytes each time, and the agent runs where there is nothing but what is in it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::testbed::{BOUND, policy};
use lab::{Agent, Lab, Outcome, Protocol, Topology, Underlay, program};
use serde_json::{Value, json};
use tempfile::TempDir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The most that the image may hold, bytes.
const BOUND_OF_SIZE: u64 = 32 << 20;

/// An OCI image layout.
struct Layout(TempDir);

impl Layout {
    /// Makes it with files that others cannot read by default, or that they can.
    fn make(umask: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let made = Command::new("sh")
            .args(["-euc", "umask $1; shift; exec \"$@\"", "sh", umask])
            .arg(Path::new(ROOT).join("image/oci-layout"))
            .args([folder.path(), &program("podfence-controller")?, &program("podfence-cni")?])
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(Self(folder))
    }

    /// Its files by their paths.
    fn files(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let contents = files(self.0.path())?.into_iter().map(|path| {
            let content = fs::read(&path)?;
            Ok((path.strip_prefix(self.0.path())?.to_owned(), content))
        });
        contents.collect()
    }

    /// The file that something refers to, which has the digest and the size that are said of it.
    fn blob(&self, descriptor: &Value) -> Result<PathBuf> {
        let digest = descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        let digest = digest.with_context(|| descriptor.to_string())?;
        let path = self.0.path().join("blobs/sha256").join(digest);
        assert_eq!(sha256(Command::new("cat").arg(&path))?, digest);
        assert_eq!(descriptor["size"], fs::metadata(&path)?.len());
        Ok(path)
    }

    fn read(&self, descriptor: &Value) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.blob(descriptor)?)?)?)
    }

    fn index(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.0.path().join("index.json"))?)?)
    }

    /// Its one image: configuration and layer.
    fn image(&self) -> Result<(Value, PathBuf)> {
        let manifest = self.read(&self.index()?["manifests"][0])?;
        Ok((self.read(&manifest["config"])?, self.blob(&manifest["layers"][0])?))
    }
}

/// The files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The digest of what a command prints.
fn sha256(command: &mut Command) -> Result<String> {
    let mut printing = command.stdout(std::process::Stdio::piped()).spawn()?;
    let printed = printing.stdout.take().context("no output")?;
    let sum = Command::new("sha256sum").stdin(printed).output()?;
    ensure!(printing.wait()?.success(), "{command:?}");
    let sum = String::from_utf8(sum.stdout)?;
    Ok(sum.split_whitespace().next().unwrap_or_default().to_owned())
}

/// The program that the Dockerfile's image starts.
fn entry_point_of_dockerfile() -> Result<Value> {
    let dockerfile = fs::read_to_string(Path::new(ROOT).join("Dockerfile"))?;
    let entry_point = dockerfile.lines().find_map(|line| line.strip_prefix("ENTRYPOINT "));
    Ok(serde_json::from_str(entry_point.context("no ENTRYPOINT")?)?)
}

#[test]
fn the_image_is_the_same_bytes_each_time() -> Result<()> {
    let layout = Layout::make("022")?;
    let (first, second) = (layout.files()?, Layout::make("077")?.files()?);
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    assert!(first == second, "the contents differ");

    let (configuration, layer) = layout.image()?;
    let difference = sha256(Command::new("gzip").args(["--decompress", "--stdout"]).arg(layer))?;
    assert_eq!(configuration["rootfs"]["diff_ids"], json!([format!("sha256:{difference}")]));
    assert_eq!(configuration["created"], "2023-11-14T22:13:20Z");
    assert_eq!(configuration["config"]["Entrypoint"], entry_point_of_dockerfile()?);
    // Index, manifest, configuration and layer, and what says that it is a layout: nothing that nobody refers to.
    assert_eq!(first.len(), 5);
    let name = &layout.index()?["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"];
    assert_eq!(*name, concat!("ghcr.io/podfence/podfence:", env!("CARGO_PKG_VERSION")));
    Ok(())
}

#[test]
fn the_agent_runs_from_what_the_image_has() -> Result<()> {
    let layout = Layout::make("022")?;
    let (configuration, layer) = layout.image()?;
    let image = tempfile::tempdir()?;
    let unpacked = Command::new("tar")
        .args(["--extract", "--gzip", "--no-same-owner", "--file"])
        .arg(layer)
        .arg("--directory")
        .arg(image.path())
        .status()?;
    assert!(unpacked.success());
    let sizes = files(image.path())?.into_iter().map(|path| Ok(fs::metadata(path)?.len()));
    let bytes = sizes.sum::<Result<u64>>()?;
    assert!(bytes < BOUND_OF_SIZE, "{bytes} bytes");
    let license = fs::read_to_string(image.path().join("licenses/crates"))?;
    assert!(license.contains("\nserde_json 1."), "{license}");

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

    let entry_point: Vec<String> = serde_json::from_value(configuration["config"]["Entrypoint"].clone())?;
    let inside = || {
        let mut command = node.namespace().command("chroot");
        command.arg(image.path()).args(&entry_point);
        command
    };
    let listen: SocketAddr = "127.0.0.1:9555".parse()?;
    let mut command = inside();
    command.args(["run", "--node-name", "node", "--manifests", "/manifests", "--listen"]);
    command.arg(listen.to_string());
    let mut agent = Agent::of_command(&node, listen, command)?;
    agent.wait_ready(BOUND)?;
    assert_eq!(lab.connect(&client, web.ipv4(), 80, Protocol::Tcp)?, Outcome::Denied);
    let status = inside().arg("status").output()?;
    assert!(String::from_utf8_lossy(&status.stdout).contains("shop/web"), "{status:?}");
    agent.stop(BOUND)?;
    assert!(inside().arg("cleanup").status()?.success());
    assert_eq!(lab.connect(&client, web.ipv4(), 80, Protocol::Tcp)?, Outcome::Allowed);
    Ok(())
}
