//! The agent `podfence-controller`, run on a node of the lab.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process};

use crate::interference::Interference;
use crate::node::Node;
use crate::testbed::wait_until;

/// The port by which the next agent serves health and metrics in its node's namespace.
static NEXT_PORT: AtomicU16 = AtomicU16::new(9555);

/// The longest that an agent may take over an answer of its health server.
const ANSWER_BOUND: Duration = Duration::from_secs(2);

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(2);

/// A running agent. It is killed when dropped, and when the thread that started it ends.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    node: Node,
    log: File,
    listen: SocketAddr,
}

impl Agent {
    /// Starts an agent on a node, that follows the manifests in a directory.
    ///
    /// # Errors
    /// The program is not built, or cannot be started.
    pub fn start(node: &Node, manifests: &Path) -> Result<Self> {
        Self::start_with(node, ["--manifests".as_ref(), manifests.as_os_str()])
    }

    /// Starts an agent on a node with these arguments behind `run --node-name NAME --listen ADDRESS`.
    ///
    /// # Errors
    /// The program is not built, or cannot be started.
    pub fn start_with(node: &Node, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Result<Self> {
        Self::start_as(node, node.name(), arguments)
    }

    /// The same, with a name that may be another than the node's.
    ///
    /// # Errors
    /// The program is not built, or cannot be started.
    pub fn start_as(
        node: &Node,
        name: &str,
        arguments: impl IntoIterator<Item: AsRef<OsStr>>,
    ) -> Result<Self> {
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let mut command = node.namespace().command(program("podfence-controller")?);
        command.args(["run", "--node-name", name, "--listen", &listen.to_string()]).args(arguments);
        Self::of_command(node, listen, command)
    }

    /// Starts an agent by a command of the node's namespace that makes it serve health and metrics at `listen`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn of_command(node: &Node, listen: SocketAddr, mut command: Command) -> Result<Self> {
        let log = File::from(memfd_create("agent's log", MemfdFlags::CLOEXEC)?);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start the agent on {}", node.name()))?;
        Ok(Self { child, node: node.clone(), log, listen })
    }

    /// Waits until the agent says that the first complete state is in the kernel.
    ///
    /// # Errors
    /// It ends, or does not say so within `bound`; the error holds its log.
    pub fn wait_ready(&mut self, bound: Duration) -> Result<()> {
        self.wait("ready", bound, |code, _| code == 200)
    }

    /// Waits until the agent says that it is not ready, for a reason that holds these words.
    ///
    /// # Errors
    /// It ends, or does not say so within `bound`; the error holds its log.
    pub fn wait_unready(&mut self, reason: &str, bound: Duration) -> Result<()> {
        self.wait(&format!("unready because of `{reason}`"), bound, |code, body| {
            code == 503 && body.contains(reason)
        })
    }

    /// Waits for what `/readyz` answers.
    fn wait(&mut self, what: &str, bound: Duration, is_it: impl Fn(u16, &str) -> bool) -> Result<()> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent on {} ended with {status}:\n{}", self.node.name(), self.log()?);
            }
            match self.get("/readyz") {
                Ok((code, body)) if is_it(code, &body) => return Ok(()),
                answer if begin.elapsed() > bound => {
                    bail!("the agent on {} is not {what}: {answer:?}\n{}", self.node.name(), self.log()?)
                }
                _ => std::thread::sleep(INTERVAL),
            }
        }
    }

    /// What the agent answers to an HTTP GET: the status code and the body.
    ///
    /// # Errors
    /// It does not answer within two seconds, or not in HTTP.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut connection =
            self.node.namespace().run(|| Ok(TcpStream::connect_timeout(&self.listen, ANSWER_BOUND)?))?;
        connection.set_read_timeout(Some(ANSWER_BOUND))?;
        write!(connection, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.listen)?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
        let code =
            head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("there is no status code")?;
        Ok((code, body.to_owned()))
    }

    /// How far a counter of the agent has come: its metric `podfence_NAME_total`.
    ///
    /// # Errors
    /// As [`Agent::metric`].
    pub fn counter(&self, name: &str) -> Result<u64> {
        self.metric(&format!("podfence_{name}_total"))
    }

    /// The value of a metric, by its whole name, labels included.
    ///
    /// # Errors
    /// The agent does not answer, or has no such metric of a whole number.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let (code, body) = self.get("/metrics")?;
        ensure!(code == 200, "/metrics answers {code}: {body}");
        let values = body.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let mut numbers = values.filter_map(|value| value.parse().ok());
        numbers.next().with_context(|| format!("there is no number {name} in:\n{body}"))
    }

    /// Waits until a counter has come so far.
    ///
    /// # Errors
    /// It does not within `bound`; the error holds the agent's log.
    pub fn wait_for_counter(&self, name: &str, count: u64, bound: Duration) -> Result<()> {
        wait_until(bound, || {
            let now = self.counter(name)?;
            ensure!(now >= count, "{now} {name}, not {count}:\n{}", self.log()?);
            Ok(())
        })
    }

    /// The agent's resident memory, bytes.
    ///
    /// # Errors
    /// It does not run any more.
    pub fn resident_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kibibytes =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        Ok(kibibytes.context("the agent is a zombie")?.parse::<u64>()? * 1024)
    }

    /// The time that the agent has run on a processor so far.
    ///
    /// # Errors
    /// It does not run any more.
    pub fn processor_time(&self) -> Result<Duration> {
        let mut total = Duration::ZERO;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            let nanoseconds = text.split(' ').next().context("/proc/PID/task/TID/schedstat is empty")?;
            total += Duration::from_nanos(nanoseconds.parse()?);
        }
        Ok(total)
    }

    /// From now on the kernel refuses the agent's transactions that name something, such as a chain.
    ///
    /// # Errors
    /// The system does not let the agent be traced.
    pub fn interfere(&self, name: &str) -> Result<Interference> {
        Interference::begin(self.child.id(), name)
    }

    /// What the agent has written so far.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log(&self) -> Result<String> {
        // The agent shares the place in the file with us, so it must not be moved by reading.
        let mut text = vec![0; usize::try_from(self.log.metadata()?.len())?];
        self.log.read_exact_at(&mut text, 0)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The lines of its log in which the agent has explained denied connections.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn denials(&self) -> Result<Vec<String>> {
        Ok(self.log()?.lines().filter(|line| line.contains("podfence::denied")).map(str::to_owned).collect())
    }

    /// Asks the agent to stop (SIGTERM) and returns how it ended.
    ///
    /// # Errors
    /// It has not ended within `bound`.
    pub fn stop(mut self, bound: Duration) -> Result<ExitStatus> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.wait_ended(bound)
    }

    /// Waits until the agent has ended, and returns how.
    ///
    /// # Errors
    /// It has not within `bound`; the error holds its log.
    pub fn wait_ended(&mut self, bound: Duration) -> Result<ExitStatus> {
        wait_until(bound, || {
            let ended = self.child.try_wait()?;
            ended.with_context(|| {
                format!("the agent on {} has not ended:\n{:?}", self.node.name(), self.log())
            })
        })
    }

    /// Ends the agent at once (SIGKILL). What it has programmed stays in the kernel.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where cargo has put a program of the workspace: beside the folder of this test's own program.
///
/// # Errors
/// It is not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let found = here.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found
        .with_context(|| format!("{name} is not built for this profile: run `cargo build --workspace` first"))
}
