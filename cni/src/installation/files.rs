//! Files that change whole or not at all.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Writes a new file, or one in place of another.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let new = prepare(path, content, mode, None)?;
    fs::rename(&new, path)?;
    sync_folder(path)
}

/// Writes a file in place of one that has this content, with the same mode and owner. `false`: it has another content
/// by now, and is left alone.
pub(super) fn replace(path: &Path, old: &[u8], content: &[u8]) -> io::Result<bool> {
    // A link stays one.
    let path = &fs::canonicalize(path)?;
    let metadata = fs::metadata(path)?;
    let new = prepare(path, content, metadata.mode(), Some(&metadata))?;
    if let Err(error) = exchange(&new, path) {
        return if error == Errno::INVAL { replace_at_once(path, old, &new) } else { Err(error.into()) };
    }
    // What was displaced lies there now. Somebody else may have written it a moment ago.
    let is_old = fs::read(&new)? == old;
    if !is_old {
        // It comes back, with what may still be written to it.
        exchange(&new, path)?;
    }
    fs::remove_file(&new)?;
    sync_folder(path)?;
    Ok(is_old)
}

/// Deletes a file.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_folder(path)
}

fn exchange(a: &Path, b: &Path) -> rustix::io::Result<()> {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)
}

/// The same on a file system that exchanges no files. What others write in between is lost.
fn replace_at_once(path: &Path, old: &[u8], new: &Path) -> io::Result<bool> {
    if fs::read(path)? != old {
        fs::remove_file(new)?;
        return Ok(false);
    }
    fs::rename(new, path)?;
    sync_folder(path)?;
    Ok(true)
}

/// Writes a file beside another, under a name that no runtime reads.
fn prepare(path: &Path, content: &[u8], mode: u32, owner: Option<&Metadata>) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default();
    let new = path.with_file_name(format!(".{}.podfence", name.display()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    if let Some(owner) = owner {
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
    file.sync_all()?;
    Ok(new)
}

/// Makes what happened in a file's folder last.
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
