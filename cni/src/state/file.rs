//! The file: a line with the format, a line with the header in JSON, the messages that make the table, and the SHA-256
//! of all that.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Error, Timestamp};
use crate::protocol::PodReference;

/// The first line of a state.
const FORMAT: &str = "podfence state 1";

/// The first line of the file beside it.
const RANGES_FORMAT: &str = "podfence pod ranges 1";

const CHECKSUM: usize = 32;

/// What a node enforced at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Of what the state is.
    pub header: Header,
    /// The messages that make the table, in pieces of whole messages.
    pub(super) messages: Vec<Vec<u8>>,
}

/// Of what a state is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of podfence that has written it.
    pub version: String,
    /// The node.
    pub node: String,
    /// The name of its host, as the system has it.
    pub host: String,
    /// When the kernel had it.
    pub saved: Timestamp,
    /// The same for people.
    pub time: String,
    /// The SHA-256 of the chains and rules that the policies have become: all of the table but who is in its sets.
    pub policies: String,
    /// The pods of the node with networks of their own.
    pub pods: Vec<SavedPod>,
}

/// A pod of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPod {
    /// Which.
    #[serde(flatten)]
    pub pod: PodReference,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl State {
    /// Reads a state; `None` if there is none. It has to be this node's; without the name of the node, this host's.
    ///
    /// # Errors
    ///
    /// If it is not, or not what was written.
    pub fn read(path: &Path, node: Option<&str>) -> Result<Option<Self>, Error> {
        let Some(bytes) = read_if_there(path)? else { return Ok(None) };
        let content = check(path, FORMAT, &bytes)?;
        let damaged = || Error::Damaged(path.display().to_string());
        let end = content.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
        let (header, messages) = content.split_at_checked(end + 1).ok_or_else(damaged)?;
        let header: Header = serde_json::from_slice(header).map_err(|_| damaged())?;
        check_owner(path, (&header.node, &header.host), node)?;
        Ok(Some(Self { header, messages: vec![messages.to_vec()] }))
    }

    /// Writes the state in place of the one before: whoever reads the file, at any moment, finds one of both.
    ///
    /// # Errors
    ///
    /// If the disk is full or does not take it for another reason. The state before is still there.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let mut content = serde_json::to_vec(&self.header).map_err(|source| Error::File {
            action: "write",
            path: path.display().to_string(),
            source: source.into(),
        })?;
        content.push(b'\n');
        let messages = self.messages.iter().map(Vec::as_slice);
        write(path, FORMAT, &std::iter::once(content.as_slice()).chain(messages))
    }
}

/// The addresses of the node's pods, in a file of its own beside the state: if that is damaged, they are closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    /// The node.
    pub node: String,
    /// The name of its host, as the system has it.
    pub host: String,
    /// The ranges.
    pub ranges: Vec<IpNet>,
}

impl Ranges {
    /// Whether some were saved beside this state.
    pub fn exist(path: &Path) -> bool {
        beside(path).exists()
    }

    /// Reads those beside a state.
    ///
    /// # Errors
    ///
    /// If there are none, or they are another node's, or not what was written.
    pub fn read(path: &Path, node: Option<&str>) -> Result<Self, Error> {
        let path = &beside(path);
        let missing = || Error::Missing(path.display().to_string());
        let bytes = read_if_there(path)?.ok_or_else(missing)?;
        let content = check(path, RANGES_FORMAT, &bytes)?;
        let damaged = |_| Error::Damaged(path.display().to_string());
        let ranges: Self = serde_json::from_slice(content).map_err(damaged)?;
        check_owner(path, (&ranges.node, &ranges.host), node)?;
        Ok(ranges)
    }

    /// Writes them beside a state, as [`State::save`] does.
    ///
    /// # Errors
    ///
    /// As [`State::save`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let path = &beside(path);
        let content = serde_json::to_vec(self).map_err(|source| file("write", path)(source.into()))?;
        write(path, RANGES_FORMAT, &std::iter::once(content.as_slice()))
    }
}

/// Removes a state and what is beside it. That there is none is no error.
///
/// # Errors
///
/// If a file cannot be removed.
pub fn remove(path: &Path) -> Result<(), Error> {
    // Ranges without a state are taken for those of a state that is lost.
    for path in [&beside(path), path] {
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(file("remove", path)(source));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The name of this host.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The file beside a state.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".ranges");
    name.into()
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file("read", path)(source)),
    }
}

/// What follows the first line, if the file is of this format and whole.
fn check<'a>(path: &Path, format: &str, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if first != format.as_bytes() {
        const SHOWN: usize = 40;
        let found = String::from_utf8_lossy(first.get(..SHOWN).unwrap_or(first)).into_owned();
        // What lacks its end lacks everything.
        return Err(if format.as_bytes().starts_with(first) {
            Error::Damaged(path.display().to_string())
        } else {
            Error::Format { path: path.display().to_string(), found }
        });
    }
    let damaged = || Error::Damaged(path.display().to_string());
    let length = bytes.len().checked_sub(CHECKSUM).ok_or_else(damaged)?;
    let (content, checksum) = bytes.split_at_checked(length).ok_or_else(damaged)?;
    if Sha256::digest(content).as_slice() != checksum {
        return Err(damaged());
    }
    content.get(first.len() + 1..).ok_or_else(damaged)
}

fn check_owner(path: &Path, (node, host): (&str, &str), expected: Option<&str>) -> Result<(), Error> {
    let (is_own, here) = match expected {
        Some(expected) => (node == expected, format!("node {expected}")),
        None => (host == self::host(), format!("host {}", self::host())),
    };
    if is_own {
        return Ok(());
    }
    Err(Error::Foreign {
        path: path.display().to_string(),
        node: node.to_owned(),
        host: host.to_owned(),
        here,
    })
}

/// Writes a file in place of the one before, and does not return until it is on disk.
fn write<'a>(
    path: &Path,
    format: &'a str,
    content: &(impl Iterator<Item = &'a [u8]> + Clone),
) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(file("make", folder))?;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let put = || {
        // One that another program left, or a link, is not written through.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let mut checksum = Sha256::new();
        for piece in [format.as_bytes(), b"\n"].into_iter().chain(content.clone()) {
            written.write_all(piece)?;
            checksum.update(piece);
        }
        written.write_all(&checksum.finalize())?;
        written.sync_all()?;
        fs::rename(&new, path)?;
        fs::File::open(folder)?.sync_all()
    };
    put().map_err(|source| {
        // A disk that is full is not to stay so because of this.
        let _ = fs::remove_file(&new);
        file("write", path)(source)
    })
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.display().to_string();
    move |source| Error::File { action, path, source }
}
