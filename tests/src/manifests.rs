//! A directory of manifests, as an agent follows it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// A new directory below the system's folder for temporary files; removed when dropped.
#[derive(Debug)]
pub struct Manifests {
    directory: TempDir,
}

impl Manifests {
    /// Makes an empty directory.
    ///
    /// # Errors
    /// The folder for temporary files cannot be written.
    pub fn new() -> Result<Self> {
        Ok(Self { directory: TempDir::with_prefix("podfence-lab-")? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Puts a file into the directory, or replaces it, in one step: nobody sees half of it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let unfinished = self.path().join(format!(".{name}.unfinished"));
        fs::write(&unfinished, text).with_context(|| format!("cannot write {name}"))?;
        fs::rename(unfinished, self.path().join(name)).with_context(|| format!("cannot write {name}"))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// There is no such file.
    pub fn remove(&self, name: &str) -> Result<()> {
        fs::remove_file(self.path().join(name)).with_context(|| format!("cannot remove {name}"))
    }
}
