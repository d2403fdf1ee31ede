//! Interference with what a process asks of nftables, so that the kernel itself refuses it.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use anyhow::{Context, Result};
use nix::libc::{self, SYS_sendto};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A program is traced, and the first time that a transaction names something the name is changed on its way to the
/// kernel. So that does not exist where the rest of the transaction refers to it.
#[derive(Debug)]
pub struct Interference {
    goes_on: Arc<AtomicBool>,
}

impl Interference {
    /// Begins to change `name` in what a process sends.
    ///
    /// # Errors
    /// The system does not let the process be traced.
    pub(crate) fn begin(process: u32, name: &str) -> Result<Self> {
        let goes_on = Arc::new(AtomicBool::new(true));
        let (name, still) = (name.as_bytes().to_owned(), goes_on.clone());
        let (sender, attached) = mpsc::channel();
        // Only the thread that attaches to a process can trace it.
        std::thread::spawn(move || {
            let outcome = attach(process);
            let traces = outcome.is_ok();
            if sender.send(outcome).is_ok() && traces {
                trace(&name, &still);
            }
        });
        attached.recv()?.with_context(|| format!("cannot trace process {process}"))?;
        Ok(Self { goes_on })
    }

    /// From now on everything reaches the kernel as it was sent.
    pub fn end(self) {
        drop(self);
    }
}

impl Drop for Interference {
    fn drop(&mut self) {
        self.goes_on.store(false, Ordering::Relaxed);
    }
}

fn attach(process: u32) -> Result<()> {
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = Pid::from_raw(thread?.file_name().to_string_lossy().parse()?);
        ptrace::seize(thread, options)?;
        ptrace::interrupt(thread)?;
    }
    Ok(())
}

/// Follows the threads from one system call to the next, until all have ended.
fn trace(name: &[u8], goes_on: &AtomicBool) {
    let of_this_thread = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    while let Ok(status) = waitpid(None, Some(of_this_thread)) {
        let (thread, signal) = match status {
            WaitStatus::PtraceSyscall(thread) => {
                if goes_on.load(Ordering::Relaxed) {
                    // A thread that is gone sends nothing.
                    let _ = change(thread, name);
                }
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            WaitStatus::Stopped(thread, signal) => {
                (thread, Some(signal).filter(|signal| *signal != Signal::SIGTRAP))
            }
            _ => continue,
        };
        let _ = ptrace::syscall(thread, signal);
    }
}

/// Changes the first use of a name in what a thread is about to send.
fn change(thread: Pid, name: &[u8]) -> nix::Result<()> {
    let call = ptrace::syscall_info(thread)?;
    if call.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(());
    }
    // SAFETY: the kernel fills in this part of the union where it stops at the entry of a system call.
    let entry = unsafe { call.u.entry };
    let [_, buffer, length, ..] = entry.args.map(|argument| usize::try_from(argument).unwrap_or(0));
    if entry.nr != SYS_sendto as u64 {
        return Ok(());
    }
    let mut sent = vec![0; length];
    process_vm_readv(
        thread,
        &mut [IoSliceMut::new(&mut sent)],
        &[RemoteIoVec { base: buffer, len: length }],
    )?;
    if let Some(at) = sent.windows(name.len()).position(|window| window == name) {
        let last = RemoteIoVec { base: buffer + at + name.len() - 1, len: 1 };
        process_vm_writev(thread, &[IoSlice::new(b"~")], &[last])?;
    }
    Ok(())
}
