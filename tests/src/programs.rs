//! Programs of others that tests run: found on this machine, or built from their Go modules.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

/// The Go module that pins all of them; its `tool` lines name their packages.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/programs");
const REQUIREMENTS: &str = include_str!("../programs/go.mod");

/// The oldest Go that gets itself the version that the module asks for.
const OLDEST_GO: [u32; 2] = [1, 21];

/// A program that is written in Go.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    package: &'static str,
    /// Whether another program has this name too: then it is always built.
    is_ambiguous: bool,
}

/// The API server.
pub const KUBE_APISERVER: Program = Program::new("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver");

/// Its database.
pub const ETCD: Program = Program::new("etcd", "go.etcd.io/etcd/server/v3");

/// Its client.
pub const KUBECTL: Program = Program::new("kubectl", "k8s.io/kubernetes/cmd/kubectl");

/// What installs charts.
pub const HELM: Program = Program::new("helm", "helm.sh/helm/v4/cmd/helm");

/// What runs CNI plugins as container runtimes do.
pub const CNITOOL: Program = Program::new("cnitool", "github.com/containernetworking/cni/cnitool");

/// CNI's reference plugins that make a pod's interface. iproute2 has a `bridge` too.
pub const CNI_PLUGINS: [Program; 3] = [
    Program::new("bridge", "github.com/containernetworking/plugins/plugins/main/bridge").ambiguous(),
    Program::new("ptp", "github.com/containernetworking/plugins/plugins/main/ptp").ambiguous(),
    Program::new("host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local").ambiguous(),
];

/// Whether what a test needs can be had; where not, says on standard error that the test is left out.
pub fn is_there(availability: Result<(), String>) -> bool {
    // Without standard error there is nobody to tell.
    let tell = |missing: String| drop(writeln!(std::io::stderr(), "left out: {missing}"));
    availability.map_err(tell).is_ok()
}

impl Program {
    const fn new(name: &'static str, package: &'static str) -> Self {
        Self { name, package, is_ambiguous: false }
    }

    const fn ambiguous(self) -> Self {
        Self { is_ambiguous: true, ..self }
    }

    /// Whether it is there or can be built, or one sentence that says what is missing.
    ///
    /// # Errors
    /// The sentence.
    pub fn available(&self) -> Result<(), String> {
        if self.find().is_some() || go_version().is_some_and(|version| version >= OLDEST_GO) {
            return Ok(());
        }
        let (name, [major, minor]) = (self.name, OLDEST_GO);
        Err(format!(
            "{name} is not in KUBEBUILDER_ASSETS or PATH, and needs Go {major}.{minor} or newer to be built"
        ))
    }

    /// Where it is: in `KUBEBUILDER_ASSETS`, in `PATH`, or else in a folder outside the clone, where it is
    /// built once for all tests to come. That takes up to some minutes.
    ///
    /// # Errors
    /// It can neither be found nor built.
    pub fn path(&self) -> Result<PathBuf> {
        if let Some(path) = self.find() {
            return Ok(path);
        }
        let (cache, version) = (cache(), self.version()?);
        let folder = cache.join(version);
        let path = folder.join(self.name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // Tests run at once; one of them builds.
        let lock = File::create(cache.join("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        if !path.is_file() {
            self.build(version, &path)?;
        }
        Ok(path)
    }

    fn find(&self) -> Option<PathBuf> {
        if self.is_ambiguous {
            return None;
        }
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = assets.into_iter().chain(std::env::split_paths(&path));
        folders.find_map(|folder| Some(folder.join(self.name)).filter(|path| path.is_file()))
    }

    /// The version that is built: that of the module that the package is in.
    fn version(&self) -> Result<&'static str> {
        let mut requirements = REQUIREMENTS.lines().filter_map(|line| line.trim().split_once(' '));
        let (_, version) = requirements
            .find(|(module, _)| self.package.strip_prefix(module).is_some_and(is_below))
            .with_context(|| format!("{MODULE}/go.mod requires no module that has {}", self.package))?;
        Ok(version.split(' ').next().unwrap_or(version))
    }

    fn build(&self, version: &str, path: &Path) -> Result<()> {
        // Not captured as other output of a test is: it takes minutes.
        writeln!(std::io::stderr(), "building {} once …", path.display())?;
        // The API server says which version it is, and helm asks.
        let flags = format!("-ldflags=-s -w -X k8s.io/component-base/version.gitVersion={version}");
        let unfinished = path.with_extension("unfinished");
        let output = Command::new("go")
            .args(["build", &flags, "-o"])
            .args([&unfinished, Path::new(self.package)])
            .current_dir(MODULE)
            .env("CGO_ENABLED", "0")
            .output()
            .with_context(|| format!("{} is built with Go (`go`)", self.name))?;
        ensure!(
            output.status.success(),
            "cannot build {}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(fs::rename(&unfinished, path)?)
    }
}

/// Whether what is left of a package's path behind a module's is a folder in it.
fn is_below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

fn go_version() -> Option<[u32; 2]> {
    let output = Command::new("go").args(["env", "GOVERSION"]).output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    let mut numbers = version.trim().strip_prefix("go")?.split('.').map(str::parse);
    Some([numbers.next()?.ok()?, numbers.next()?.ok()?])
}

/// A folder outside the clone.
fn cache() -> PathBuf {
    let folder = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => Path::new(&home).join(".cache"),
        _ => std::env::temp_dir(),
    };
    folder.join("podfence").join("programs")
}
