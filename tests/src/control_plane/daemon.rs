//! A program of the control plane, and its process.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};

use crate::namespace::Namespace;

/// A process that can be killed and started again. It is killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    namespace: Namespace,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    pub(super) fn start(
        namespace: &Namespace,
        program: &Path,
        arguments: Vec<String>,
        folder: &Path,
    ) -> Result<Self> {
        let name = program.file_name().context("a program has a name")?;
        let log = folder.join(name).with_extension("log");
        let (namespace, program) = (namespace.clone(), program.to_owned());
        let mut daemon = Self { namespace, program, arguments, log, child: None };
        daemon.restart()?;
        Ok(daemon)
    }

    /// Kills the process at once, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills the process, if it runs, and starts it anew.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = self
            .namespace
            .command(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(File::try_clone(&log)?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// The process's id; `None` while it is killed.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Fails if the process has ended by itself.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            bail!("{} has ended, {status}:\n{}", self.program.display(), self.log()?);
        }
        Ok(())
    }

    /// What it has written.
    pub(super) fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
