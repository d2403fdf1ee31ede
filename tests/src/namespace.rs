//! A network namespace that exists for as long as somebody holds it, and work done inside it.
//!
//! A namespace has no name under `/run/netns` and no process in it: it is kept alive by file descriptors alone,
//! so it vanishes with the process that made it, whatever ends that process.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// The longest that a device or an address may take to work.
const READY_BOUND: Duration = Duration::from_secs(20);

/// A handle on a network namespace; the namespace lives as long as one of its handles, or a socket in it.
#[derive(Debug, Clone)]
pub struct Namespace {
    link: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes a new, empty network namespace. Its loopback device is down.
    ///
    /// # Errors
    /// The kernel refuses: no privilege (`CAP_SYS_ADMIN`), no network namespaces, or too many of them.
    pub fn new() -> Result<Self> {
        let link = in_thread(|| {
            // SAFETY: only `UnshareFlags::FILES` can break the promises of file descriptors; it is not set.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("cannot make a network namespace")?;
            std::fs::File::open("/proc/thread-self/ns/net").context("cannot open the new network namespace")
        })?;
        Ok(Self { link: Arc::new(link.into()) })
    }

    /// Runs `action` inside the namespace, in a thread of its own that ends with it. Sockets which `action`
    /// makes stay in the namespace wherever they are used later.
    ///
    /// # Errors
    /// Those of `action`, or the namespace cannot be entered.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_thread(|| {
            self.enter()?;
            action()
        })
    }

    /// Moves the calling thread into the namespace. To be called only in threads that end soon after.
    pub(crate) fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.link.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// A command that will run inside the namespace, with the directories of administrators' programs in its
    /// `PATH`. It is killed when the *thread* that spawned it ends (`PR_SET_PDEATHSIG`), so it never outlives
    /// this process.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
        let namespace = self.clone();
        let parent = getpid();
        // SAFETY: between fork and exec the closure makes three system calls and touches no lock and no heap.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                if getppid() != Some(parent) {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                namespace.enter()
            });
        }
        command
    }

    /// Runs a program inside the namespace to its end, feeds it `input` and returns what it printed.
    ///
    /// # Errors
    /// It cannot be started or fails; the error holds what it wrote to its standard error.
    pub fn feed(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{program}`"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that fails early closes its input; its own message says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "`{program} {}` failed: {}\nits input was:\n{input}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs lines of `ip` commands (iproute2, without the leading `ip`).
    ///
    /// # Errors
    /// One of the lines fails; the lines after it have not run.
    pub fn ip(&self, script: &str) -> Result<()> {
        self.feed("ip", &["-batch", "-"], script).map(drop)
    }

    /// Waits until packets pass over a device. The kernel notices that a new veth pair is plugged in a while
    /// after both of its ends are up, and a busy machine needs longer.
    pub(crate) fn wait_for_link(&self, name: &str) -> Result<()> {
        wait(&format!("the device {name}"), || {
            let state = self.feed("ip", &["-details", "link", "show", "dev", name], "")?;
            let is_port = state.contains("bridge_slave");
            Ok(state.contains("state UP") && (!is_port || state.contains("bridge_slave state forwarding")))
        })
    }

    /// Waits until every IPv6 address is in use. A new one can be bound at once, but its route comes later from
    /// a queue of the kernel, and until then packets to it are lost.
    pub(crate) fn wait_for_addresses(&self) -> Result<()> {
        const RTF_LOCAL: u32 = 0x8000_0000;
        wait("an IPv6 address", || {
            let (addresses, routes) = self.run(|| {
                let table = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
                Ok((table("if_inet6")?, table("ipv6_route")?))
            })?;
            // The columns: address, index, prefix, scope, flags, device; and
            // destination, prefix, source, prefix, next hop, metric, references, uses, flags, device.
            let local: HashSet<_> = routes
                .lines()
                .map(|route| route.split_whitespace().collect::<Vec<_>>())
                .filter(|route| {
                    let flags = route.get(8).and_then(|flags| u32::from_str_radix(flags, 16).ok());
                    flags.unwrap_or(0) & RTF_LOCAL != 0
                })
                .filter_map(|route| Some((*route.first()?, *route.get(9)?)))
                .collect();
            Ok(addresses
                .lines()
                .filter_map(|line| {
                    Some((line.split_whitespace().next()?, line.split_whitespace().next_back()?))
                })
                .all(|address| local.contains(&address)))
        })
    }

    /// Loads nft commands in one transaction, as `nft -f` does.
    ///
    /// # Errors
    /// nft refuses them; nothing has changed.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.feed("nft", &["-f", "-"], script).map(drop)
    }

    /// Sets network parameters: lines of a path below `/proc/sys/net` and a value.
    ///
    /// # Errors
    /// A parameter does not exist or cannot be written.
    pub fn sysctl(&self, settings: &str) -> Result<()> {
        self.run(|| {
            for (name, value) in settings.lines().filter_map(|line| line.trim().split_once(' ')) {
                std::fs::write(format!("/proc/sys/net/{name}"), value)
                    .with_context(|| format!("cannot set net/{name} to {value}"))?;
            }
            Ok(())
        })
    }

    /// A path by which another process of the same user can open the namespace while this process lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.link.as_raw_fd())
    }

    /// Opens the namespace that another process calls by this [`path`](Self::path).
    ///
    /// # Errors
    /// The process is gone, or belongs to another user.
    pub fn open(path: &str) -> Result<Self> {
        let link = std::fs::File::open(path).with_context(|| format!("cannot open the namespace {path}"))?;
        Ok(Self { link: Arc::new(link.into()) })
    }
}

/// Waits until `is_ready` holds, for a bounded time.
fn wait(what: &str, is_ready: impl Fn() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is_ready()? {
        ensure!(begin.elapsed() < READY_BOUND, "{what} is not ready after {READY_BOUND:?}");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Runs `action` in a new thread and waits for it; a panic goes on in the caller.
pub(crate) fn in_thread<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(action).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
