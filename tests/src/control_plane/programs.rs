//! Where kube-apiserver and etcd come from.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

/// The Go module that pins both; its `tool` lines name them.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/control-plane");
const REQUIREMENTS: &str = include_str!("../../control-plane/go.mod");

const API_SERVER: Program =
    Program { name: "kube-apiserver", package: "k8s.io/kubernetes/cmd/kube-apiserver" };
const ETCD: Program = Program { name: "etcd", package: "go.etcd.io/etcd/server/v3" };

struct Program {
    name: &'static str,
    package: &'static str,
}

pub(super) struct Programs {
    pub(super) api_server: PathBuf,
    pub(super) etcd: PathBuf,
}

/// Whether both programs are there or can be built, or one sentence that says what is missing.
pub(super) fn available() -> Result<(), String> {
    if find().is_some() || go_version().is_some_and(|version| version >= OLDEST_GO) {
        return Ok(());
    }
    let [major, minor] = OLDEST_GO;
    Err(format!(
        "a real API server needs Go {major}.{minor} or newer to be built, or kube-apiserver and etcd in KUBEBUILDER_ASSETS"
    ))
}

/// The oldest Go that gets itself the version that the module asks for.
const OLDEST_GO: [u32; 2] = [1, 21];

fn go_version() -> Option<[u32; 2]> {
    let output = Command::new("go").args(["env", "GOVERSION"]).output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    let mut numbers = version.trim().strip_prefix("go")?.split('.').map(str::parse);
    Some([numbers.next()?.ok()?, numbers.next()?.ok()?])
}

/// Both programs in `KUBEBUILDER_ASSETS` or `PATH`.
fn find() -> Option<Programs> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = assets.into_iter().chain(std::env::split_paths(&path)).collect();
    let find =
        |program: &Program| folders.iter().map(|folder| folder.join(program.name)).find(|p| p.is_file());
    Some(Programs { api_server: find(&API_SERVER)?, etcd: find(&ETCD)? })
}

/// Finds both programs, or builds them, once for all tests to come.
pub(super) fn find_or_build() -> Result<Programs> {
    if let Some(programs) = find() {
        return Ok(programs);
    }
    let cache = cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    // Tests run at once; one of them builds.
    let lock = File::create(cache.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    Ok(Programs { api_server: build(&API_SERVER, &cache)?, etcd: build(&ETCD, &cache)? })
}

/// A folder outside the clone for the versions that the module asks for.
fn cache() -> Result<PathBuf> {
    let folder = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => Path::new(&home).join(".cache"),
        _ => std::env::temp_dir(),
    };
    let version = REQUIREMENTS
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes ")?.split(' ').next())
        .context("tests/control-plane/go.mod requires no k8s.io/kubernetes")?;
    Ok(folder.join("podfence").join(format!("control-plane-{version}")))
}

fn build(program: &Program, cache: &Path) -> Result<PathBuf> {
    let path = cache.join(program.name);
    if path.is_file() {
        return Ok(path);
    }
    // Not captured as other output of a test is: it takes minutes.
    writeln!(std::io::stderr(), "building {} once, into {} …", program.name, cache.display())?;
    let unfinished = path.with_extension("unfinished");
    let output = Command::new("go")
        .args(["build", "-ldflags=-s -w", "-o"])
        .args([&unfinished, Path::new(program.package)])
        .current_dir(MODULE)
        .env("CGO_ENABLED", "0")
        .output()
        .context("the control plane is built with Go 1.21 or newer (`go`), or found in KUBEBUILDER_ASSETS")?;
    ensure!(
        output.status.success(),
        "cannot build {}: {}",
        program.name,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    fs::rename(&unfinished, &path)?;
    Ok(path)
}
