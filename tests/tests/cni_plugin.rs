//! The CNI plugin behind the reference plugins, run by `cnitool` as container runtimes do. A stand-in for the agent
//! answers what it is told to.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::programs::{CNI_PLUGINS, CNITOOL, Program, is_there};
use lab::testbed::TestResult;
use lab::{Namespace, program};
use podfence_cni::installation::Installer;
use podfence_cni::protocol::{Answer, Attachment, PodReference, Request, Sandbox, receive, send};
use podfence_cni::records::Records;
use podfence_cni::settings::Settings;
use podfence_cni::state::State;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A node's network, with a configuration of its own.
struct Node {
    namespace: Namespace,
    folder: TempDir,
    cnitool: PathBuf,
    programs: OsString,
}

/// The plugins that make a pod's interface.
const MAKERS: [&str; 2] = ["bridge", "ptp"];

impl Node {
    /// `None`, and a word about it, where the plugins cannot be had.
    fn new() -> Result<Option<Self>> {
        let mut programs = CNI_PLUGINS.iter().chain([&CNITOOL]);
        if !is_there(programs.try_for_each(Program::available)) {
            return Ok(None);
        }
        let folder = |path: PathBuf| path.parent().map(Path::to_owned).context("a program is in no folder");
        let plugins: Result<Vec<_>> = CNI_PLUGINS.iter().map(|plugin| folder(plugin.path()?)).collect();
        let own = folder(program("podfence-cni")?)?;
        let node = Self {
            namespace: Namespace::new()?,
            folder: tempfile::tempdir()?,
            cnitool: CNITOOL.path()?,
            programs: std::env::join_paths(plugins?.into_iter().chain([own]))?,
        };
        for name in ["net.d", "lib", "run"] {
            fs::create_dir(node.folder.path().join(name))?;
        }
        node.namespace.ip("link set lo up")?;
        Ok(Some(node))
    }

    /// Configures the network `net` with a plugin that makes interfaces and this one behind it, with these keys.
    fn configure(&self, maker: &str, version: &str, keys: &Value) -> Result<()> {
        let list = json!({
            "cniVersion": version,
            "name": "net",
            "plugins": [{
                "type": maker,
                "bridge": "cni0",
                "isGateway": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": self.folder.path().join("ipam"),
                    "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]],
                },
            }, self.own(keys)],
        });
        Ok(fs::write(self.folder.path().join("net.d/net.conflist"), list.to_string())?)
    }

    /// The plugin's own entry.
    fn own(&self, keys: &Value) -> Value {
        let mut entry = json!({"type": "podfence-cni", "socket": self.socket(), "timeoutSeconds": 1});
        if let (Some(entry), Some(keys)) = (entry.as_object_mut(), keys.as_object()) {
            entry.extend(keys.clone());
        }
        entry
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("run/cni.sock")
    }

    /// Has `cnitool` do something with a pod. What it remembers is in a folder of its own.
    fn cnitool(&self, action: &str, pod: &Namespace) -> Result<Output> {
        let script = r#"mount --bind "$1" /var/lib && shift && exec "$@""#;
        let mut command = self.namespace.command("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(self.folder.path().join("lib"));
        command.arg(&self.cnitool).args([action, "net", &pod.path()]);
        command.env("NETCONFPATH", self.folder.path().join("net.d")).env("CNI_PATH", &self.programs);
        let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=1-2";
        Ok(command.env("CNI_ARGS", arguments).output()?)
    }

    /// The same, which is expected to succeed; returns what it prints.
    fn succeed(&self, action: &str, pod: &Namespace) -> Result<String> {
        let output = self.cnitool(action, pod)?;
        ensure!(output.status.success(), "{action}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same, which is expected to fail; returns what it says.
    fn fail(&self, action: &str, pod: &Namespace) -> Result<String> {
        let output = self.cnitool(action, pod)?;
        ensure!(!output.status.success(), "{action}: {}", String::from_utf8_lossy(&output.stdout));
        Ok(String::from_utf8(output.stderr)?)
    }

    fn records(&self) -> Result<Vec<Sandbox>> {
        let records = Records::open(&self.folder.path().join("run/sandboxes"))?.all()?;
        Ok(records.into_iter().collect::<Result<_, _>>()?)
    }
}

/// What a stand-in for the agent was asked, and what it answers.
#[derive(Default)]
struct Conversation {
    asked: Vec<Request>,
    refusal: Option<String>,
    /// Whether it refuses only once.
    is_once: bool,
    is_over: bool,
}

/// A stand-in for the agent. It ends when dropped.
struct StandIn {
    socket: PathBuf,
    conversation: Arc<Mutex<Conversation>>,
}

impl StandIn {
    fn start(node: &Node) -> Result<Self> {
        let socket = node.socket();
        let listener = UnixListener::bind(&socket)?;
        let conversation = Arc::<Mutex<Conversation>>::default();
        let shared = conversation.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut conversation = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if conversation.is_over || stream.and_then(|stream| conversation.answer(&stream)).is_err() {
                    break;
                }
            }
        });
        Ok(Self { socket, conversation })
    }

    fn with<T>(&self, action: impl FnOnce(&mut Conversation) -> T) -> T {
        action(&mut self.conversation.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn refuse(&self, reason: Option<&str>) {
        self.with(|conversation| conversation.refusal = reason.map(str::to_owned));
    }

    /// The pod that it was told of since the last time, and nothing else.
    fn added(&self) -> Result<Sandbox> {
        match self.asked().as_slice() {
            [Request::Add(sandbox)] => Ok(sandbox.clone()),
            others => bail!("it was asked {others:?}"),
        }
    }

    /// What it was asked since the last time.
    fn asked(&self) -> Vec<Request> {
        self.with(|conversation| std::mem::take(&mut conversation.asked))
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.with(|conversation| conversation.is_over = true);
        let _ = UnixStream::connect(&self.socket);
        let _ = fs::remove_file(&self.socket);
    }
}

impl Conversation {
    fn answer(&mut self, stream: &UnixStream) -> io::Result<()> {
        self.asked.push(receive(stream)?);
        let refusal = if self.is_once { self.refusal.take() } else { self.refusal.clone() };
        send(stream, &refusal.map_or(Answer::Done, Answer::Refused))
    }
}

#[test]
fn the_agent_learns_who_the_pod_is_and_its_addresses() -> TestResult {
    let Some(node) = Node::new()? else { return Ok(()) };
    let agent = StandIn::start(&node)?;
    let versions = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    for (version, maker) in versions.into_iter().zip(MAKERS.into_iter().cycle()) {
        node.configure(maker, version, &json!({}))?;
        let pod = Namespace::new()?;
        let printed: Value = serde_json::from_str(&node.succeed("add", &pod)?)?;
        assert_eq!(printed["cniVersion"], version);
        let sandbox = agent.added()?;
        let who = PodReference { namespace: "shop".into(), name: "web".into(), uid: Some("1-2".into()) };
        assert_eq!(sandbox.pod, who);
        let addresses = printed["ips"].as_array().context("no addresses")?.iter();
        let addresses: Vec<_> =
            addresses.filter_map(|ip| ip["address"].as_str()?.split('/').next()).collect();
        let reported: Vec<_> = sandbox.addresses.iter().map(ToString::to_string).collect();
        assert_eq!((reported.len(), reported), (2, addresses.iter().map(ToString::to_string).collect()));
        node.succeed("del", &pod)?;
        assert_eq!(agent.asked(), [Request::Del(sandbox.attachment)]);
    }
    Ok(())
}

#[test]
fn deletions_succeed_twice_and_for_what_was_never_added() -> TestResult {
    let Some(node) = Node::new()? else { return Ok(()) };
    for maker in MAKERS {
        node.configure(maker, "1.0.0", &json!({"onUnavailable": "open"}))?;
        let pod = Namespace::new()?;
        node.succeed("del", &pod)?;
        let agent = StandIn::start(&node)?;
        node.succeed("add", &pod)?;
        agent.refuse(Some("not now"));
        node.succeed("del", &pod)?;
        drop(agent);
        node.succeed("del", &pod)?;
        node.succeed("add", &pod)?;
        assert_eq!(node.records()?.len(), 1);
        node.succeed("del", &pod)?;
        assert_eq!(node.records()?, []);
    }
    Ok(())
}

#[test]
fn a_pod_that_is_enforced_no_longer_is_reported_by_check() -> TestResult {
    let Some(node) = Node::new()? else { return Ok(()) };
    let agent = StandIn::start(&node)?;
    for maker in MAKERS {
        node.configure(maker, "0.4.0", &json!({}))?;
        let pod = Namespace::new()?;
        node.succeed("add", &pod)?;
        let added = agent.added()?;
        node.succeed("check", &pod)?;
        assert_eq!(agent.asked(), [Request::Check(added)]);
        agent.refuse(Some("its door is unknown"));
        let problem = node.fail("check", &pod)?;
        assert!(
            problem.contains("the policies of the pod are not enforced: its door is unknown"),
            "{problem}"
        );
        agent.refuse(None);
        // Whatever befalls the interface itself is noticed by the plugin that made it.
        pod.ip("link set eth0 down\naddress flush dev eth0")?;
        node.fail("check", &pod)?;
        node.succeed("del", &pod)?;
        agent.asked();
    }
    Ok(())
}

#[test]
fn a_pod_waits_for_the_agent() -> TestResult {
    let Some(node) = Node::new()? else { return Ok(()) };
    node.configure("ptp", "1.1.0", &json!({}))?;
    let pod = Namespace::new()?;
    let begin = Instant::now();
    let problem = node.fail("add", &pod)?;
    assert!(
        problem.contains("the policies of the pod are not enforced yet; the agent cannot be reached"),
        "{problem}"
    );
    assert!((1..10).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    let problem = node.fail("status", &pod)?;
    assert!(problem.contains("no pod can start"), "{problem}");
    node.succeed("del", &pod)?;

    // An agent that is replaced meanwhile keeps no pod from starting.
    node.configure("ptp", "1.1.0", &json!({"timeoutSeconds": 30}))?;
    let agent = thread::scope(|scope| {
        let late = scope.spawn(|| {
            thread::sleep(Duration::from_millis(300));
            StandIn::start(&node)
        });
        node.succeed("add", &pod)?;
        late.join().expect("the stand-in starts")
    })?;
    node.succeed("status", &pod)?;
    node.succeed("del", &pod)?;
    agent.refuse(Some("the API server does not know the pod"));
    let problem = node.fail("add", &pod)?;
    assert!(problem.contains("the agent refuses: the API server does not know the pod"), "{problem}");
    Ok(())
}

#[test]
fn a_pod_may_start_closed() -> TestResult {
    let Some(node) = Node::new()? else { return Ok(()) };
    node.configure("ptp", "1.1.0", &json!({"onUnavailable": "strict"}))?;
    let pod = Namespace::new()?;
    node.succeed("add", &pod)?;
    let records = node.records()?;
    let [sandbox] = records.as_slice() else { bail!("one record: {records:?}") };
    let closed = node.namespace.feed("nft", &["list", "table", "inet", "podfence_closed"], "")?;
    for address in &sandbox.addresses {
        assert!(closed.contains(&address.to_string()), "{address}:\n{closed}");
    }
    node.succeed("status", &pod)?;
    node.succeed("del", &pod)?;

    // What an agent knows a moment later is open.
    let agent = StandIn::start(&node)?;
    agent.refuse(Some("not yet"));
    agent.with(|conversation| conversation.is_once = true);
    node.succeed("add", &Namespace::new()?)?;
    let asked = agent.asked();
    let [Request::Add(first), Request::Add(second)] = asked.as_slice() else { bail!("two ADDs: {asked:?}") };
    assert_eq!(first, second);
    let closed = node.namespace.feed("nft", &["list", "table", "inet", "podfence_closed"], "")?;
    let is_closed = |address: &IpAddr| closed.contains(&address.to_string());
    assert!(sandbox.addresses.iter().all(is_closed) && !first.addresses.iter().any(is_closed), "{closed}");
    Ok(())
}

#[test]
fn before_an_agent_runs_the_saved_state_is_restored() -> TestResult {
    let Some(node) = Node::new()? else { return Ok(()) };
    node.configure("ptp", "1.1.0", &json!({"onUnavailable": "open"}))?;
    let folder = node.folder.path().join("lib/podfence");
    fs::create_dir(&folder)?;
    // `cnitool` knows pods by the paths of their namespaces: all stay.
    let pods = [Namespace::new()?, Namespace::new()?, Namespace::new()?];
    let tables = || node.namespace.feed("nft", &["list", "tables"], "");

    node.namespace.nft("add table inet podfence\nadd chain inet podfence before")?;
    let state = node.namespace.run(|| Ok(State::of_kernel("node-1", Vec::new())?))?;
    state.save(&folder.join("state"))?;
    node.namespace.nft("delete table inet podfence")?;
    node.succeed("add", &pods[0])?;
    assert_eq!(tables()?, "table inet podfence\n");

    // A state that cannot be used is reported. An agent that has been there knows better.
    node.namespace.nft("delete table inet podfence")?;
    fs::write(folder.join("state"), "damaged")?;
    let notes = String::from_utf8(node.cnitool("add", &pods[1])?.stderr)?;
    assert!(notes.contains("podfence-cni: the saved state is not restored"), "{notes}");
    let _agent = StandIn::start(&node)?;
    assert_eq!(String::from_utf8(node.cnitool("add", &pods[2])?.stderr)?, "");
    Ok(())
}

#[test]
fn an_agent_that_accepts_nothing_holds_nothing_up() -> TestResult {
    let Some(node) = Node::new()? else { return Ok(()) };
    node.configure("ptp", "1.1.0", &json!({}))?;
    let _deaf = UnixListener::bind(node.socket())?;
    // As many as the kernel keeps waiting, and more.
    let queue: Vec<_> = (0..5000).map_while(|_| connect_at_once(&node.socket())).collect();
    assert!(queue.len() < 5000);
    let pod = Namespace::new()?;
    let begin = Instant::now();
    node.fail("add", &pod)?;
    node.fail("status", &pod)?;
    node.succeed("del", &pod)?;
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    Ok(())
}

/// Connects, where the listener has room for it.
fn connect_at_once(socket: &Path) -> Option<rustix::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&stream, &SocketAddrUnix::new(socket).ok()?).ok()?;
    Some(stream)
}

#[test]
fn collecting_names_what_is_in_use() -> TestResult {
    let Some(node) = Node::new()? else { return Ok(()) };
    node.configure("bridge", "1.1.0", &json!({}))?;
    let agent = StandIn::start(&node)?;
    let pod = Namespace::new()?;
    node.succeed("add", &pod)?;
    let sandbox = agent.added()?;
    // To `cnitool` nothing is in use; it deletes what it remembers.
    node.succeed("gc", &pod)?;
    assert_eq!(agent.asked(), [Request::Del(sandbox.attachment)]);

    let used = Attachment { container: "c1".into(), interface: "eth0".into() };
    let configuration = node.own(&json!({
        "cniVersion": "1.1.0", "name": "net", "cni.dev/valid-attachments": [used],
    }));
    let own = program("podfence-cni")?;
    let namespace = node.namespace.clone();
    let script = format!("CNI_COMMAND=GC exec {}", own.display());
    namespace.feed("sh", &["-c", &script], &configuration.to_string())?;
    assert_eq!(agent.asked(), [Request::Gc { valid: vec![used] }]);
    Ok(())
}

#[test]
fn what_is_no_pod_of_kubernetes_passes() -> TestResult {
    let Some(node) = Node::new()? else { return Ok(()) };
    let previous = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.77.0.9/24"}], "dns": {}});
    let keys = json!({"cniVersion": "1.0.0", "name": "net", "prevResult": previous});
    let variables = "CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_IFNAME=eth0 CNI_NETNS=/n";
    let script = format!("{variables} exec {}", program("podfence-cni")?.display());
    let printed = node.namespace.feed("sh", &["-c", &script], &node.own(&keys).to_string())?;
    assert_eq!(serde_json::from_str::<Value>(&printed)?, previous);
    Ok(())
}

#[test]
fn a_read_only_host_is_said() -> TestResult {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("net.d"))?;
    fs::create_dir(at("bin"))?;
    fs::write(at("program"), "")?;
    let installer = Installer {
        configurations: at("net.d"),
        programs: at("bin"),
        program: at("program"),
        settings: Settings::default(),
    };
    let result = thread::scope(|scope| {
        let alone = scope.spawn(|| -> Result<_> {
            // SAFETY: only `UnshareFlags::FILES` can break the promises of file descriptors; it is not set.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            mount("tmpfs", &installer.configurations, "tmpfs", MountFlags::empty(), None)?;
            let list = json!({"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]});
            fs::write(at("net.d/net.conflist"), list.to_string())?;
            mount_remount(&installer.configurations, MountFlags::RDONLY, "")?;
            Ok(installer.install())
        });
        alone.join().expect("no panic")
    });
    let error = result?.expect_err("nothing can be written");
    let path = at("net.d/net.conflist");
    let problem = "is on a read-only file system: the plugin has to be installed by what builds the node";
    assert_eq!(error.to_string(), format!("{} {problem}", path.display()));
    Ok(())
}
