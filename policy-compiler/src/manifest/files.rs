//! Which files are read, and how much of them.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Problem;
use crate::model::Origin;

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// The manifests below a directory, sorted: every `.yaml`, `.yml` and `.json`, whatever it turns out to be
/// when it is read. Symbolic links are followed, and each directory is entered once, so that a link to a
/// directory above ends the walk. What starts with a dot is passed over, for it is an editor's or a
/// `ConfigMap` mount's own; so are backups (`x~`, `#x#`), which do not have these endings.
///
/// # Errors
/// A directory that cannot be listed.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>, Problem> {
    let mut found = Vec::new();
    let mut entered = HashSet::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        let cannot_list = |error: io::Error| file_problem(&directory, format!("cannot be listed: {error}"));
        if !entered.insert(directory.canonicalize().map_err(cannot_list)?) {
            continue;
        }
        for entry in fs::read_dir(&directory).map_err(cannot_list)? {
            let path = entry.map_err(cannot_list)?.path();
            if path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b".")) {
                continue;
            }
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(is_manifest) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_manifest(extension: &OsStr) -> bool {
    extension == "yaml" || extension == "yml" || extension == "json"
}

/// The contents of a regular file.
pub(super) fn contents(path: &Path) -> Result<Vec<u8>, Problem> {
    let cannot_read = |error: io::Error| file_problem(path, format!("cannot be read: {error}"));
    let metadata = fs::metadata(path).map_err(cannot_read)?;
    if metadata.is_dir() {
        return Err(file_problem(path, "is a directory"));
    }
    if !metadata.is_file() {
        return Err(file_problem(path, "is no regular file: pipe it into standard input (`-f -`)"));
    }
    if metadata.len() > MAX_BYTES {
        return Err(too_large(path));
    }
    bounded(File::open(path).map_err(cannot_read)?, path)
}

/// The contents of standard input.
pub(super) fn standard_input() -> Result<Vec<u8>, Problem> {
    bounded(io::stdin().lock(), Path::new("-"))
}

/// The whole of a source, unless it goes on beyond the limit.
pub(super) fn bounded(source: impl Read, path: &Path) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    source
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| file_problem(path, format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_BYTES { Err(too_large(path)) } else { Ok(bytes) }
}

fn too_large(path: &Path) -> Problem {
    file_problem(path, format!("is larger than {} MiB: split it", MAX_BYTES >> 20))
}

/// A problem about a file as a whole.
pub(super) fn file_problem(path: &Path, message: impl Into<String>) -> Problem {
    let origin = Origin { file: path.to_string_lossy().into(), line: 0 };
    Problem { origin, field: String::new(), message: message.into() }
}
