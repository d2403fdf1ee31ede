//! A directory of manifests, as an agent follows it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

/// A new directory below the system's folder for temporary files; removed when dropped.
#[derive(Debug)]
pub struct Manifests {
    directory: PathBuf,
}

impl Manifests {
    /// Makes an empty directory.
    ///
    /// # Errors
    /// The folder for temporary files cannot be written.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let directory =
                std::env::temp_dir().join(format!("podfence-lab-{}-{number}", std::process::id()));
            match fs::create_dir(&directory) {
                Ok(()) => return Ok(Self { directory }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot make {}", directory.display()));
                }
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Puts a file into the directory, or replaces it, in one step: nobody sees half of it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let unfinished = self.directory.join(format!(".{name}.unfinished"));
        fs::write(&unfinished, text).with_context(|| format!("cannot write {name}"))?;
        fs::rename(unfinished, self.directory.join(name)).with_context(|| format!("cannot write {name}"))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// There is no such file.
    pub fn remove(&self, name: &str) -> Result<()> {
        fs::remove_file(self.directory.join(name)).with_context(|| format!("cannot remove {name}"))
    }
}

impl Drop for Manifests {
    fn drop(&mut self) {
        // What is left over is a few small files among the temporary ones.
        let _ = fs::remove_dir_all(&self.directory);
    }
}
