//! The sandboxes that the agent has been told of, a file for each.

use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::protocol::{Attachment, Sandbox};

/// The folder of the records beside the agent's socket.
pub fn folder(socket: &Path) -> PathBuf {
    socket.with_file_name("sandboxes")
}

/// The folder with the records.
#[derive(Debug, Clone)]
pub struct Records {
    folder: PathBuf,
}

/// What became of reading a record.
pub type Read = Result<Sandbox, Error>;

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct Error {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Records {
    /// Those in this folder, which is made where it is missing. Only its owner can read it.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(error("make the folder", folder))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// All of them.
    ///
    /// # Errors
    ///
    /// If the folder cannot be listed; for each record, if it cannot be read.
    pub fn all(&self) -> Result<Vec<Read>, Error> {
        let list = fs::read_dir(&self.folder).map_err(error("list", &self.folder))?;
        let paths = list.filter_map(Result::ok).map(|entry| entry.path());
        let records = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        Ok(records.map(|path| read(&path)).collect())
    }

    /// Keeps a record, whole or not at all.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn put(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let path = self.path(&sandbox.attachment);
        let new = path.with_extension("new");
        let write = || {
            let options =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
            options?.write_all(&serde_json::to_vec(sandbox)?)?;
            fs::rename(&new, &path)
        };
        write().map_err(error("write", &path))
    }

    /// Deletes a record. That there is none is no error.
    ///
    /// # Errors
    ///
    /// If the file cannot be deleted.
    pub fn delete(&self, attachment: &Attachment) -> Result<(), Error> {
        let path = self.path(attachment);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(error("delete", &path)(source)),
            _ => Ok(()),
        }
    }

    /// The file of a record. The specification allows letters, digits, dots, dashes and underscores in the sandbox's
    /// identifier, and no slash in the interface's name.
    fn path(&self, Attachment { container, interface }: &Attachment) -> PathBuf {
        let plain = |text: &str| text.replace(['/', '\0'], "_");
        self.folder.join(format!("{}:{}.json", plain(container), plain(interface)))
    }
}

fn read(path: &Path) -> Read {
    let text = fs::read(path).map_err(error("read", path))?;
    serde_json::from_slice(&text).map_err(|source| error("read", path)(source.into()))
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error { action, path, source }
}
