//! Which files are read.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::Problem;
use crate::model::Origin;

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

/// A regular file.
pub(super) fn open_regular(path: &Path) -> Result<File, Problem> {
    let metadata = fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
    if metadata.is_file() || metadata.is_dir() {
        open(path)
    } else {
        // To open a pipe can take forever.
        Err(file_problem(path, "is no regular file"))
    }
}

/// A file of any sort: a pipe, too.
pub(super) fn open(path: &Path) -> Result<File, Problem> {
    if path.is_dir() {
        return Err(file_problem(path, "is a directory"));
    }
    File::open(path).map_err(|error| cannot_read(path, &error))
}

fn cannot_read(path: &Path, error: &io::Error) -> Problem {
    file_problem(path, format!("cannot be read: {error}"))
}

/// A problem about a file as a whole.
pub(super) fn file_problem(path: &Path, message: impl Into<String>) -> Problem {
    let origin = Origin { file: path.to_string_lossy().into(), line: 0 };
    Problem { origin, field: String::new(), message: message.into() }
}
