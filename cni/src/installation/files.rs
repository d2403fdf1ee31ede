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
    let result = place(&new, path, old, content);
    // After an exchange, what was displaced lies there.
    let _ = fs::remove_file(&new);
    sync_folder(path)?;
    result
}

/// Puts a prepared file with this content in place of one with another. Whether it is there then.
fn place(new: &Path, path: &Path, old: &[u8], content: &[u8]) -> io::Result<bool> {
    let (mut placed, mut expected) = (content.to_vec(), old.to_vec());
    loop {
        match renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL) => return place_at_once(new, path, old),
            result => result?,
        }
        let displaced = fs::read(new)?;
        if displaced == expected {
            return Ok(placed == content);
        }
        // Somebody else wrote it a moment ago. It goes back, with the same care.
        (placed, expected) = (displaced, placed);
    }
}

/// The same on a file system that exchanges no files. What others write in between is lost.
fn place_at_once(new: &Path, path: &Path, old: &[u8]) -> io::Result<bool> {
    let is_old = fs::read(path)? == old;
    if is_old {
        fs::rename(new, path)?;
    }
    Ok(is_old)
}

/// Deletes a file.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_folder(path)
}

/// Writes a file beside another, under a name that no runtime reads.
fn prepare(path: &Path, content: &[u8], mode: u32, owner: Option<&Metadata>) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default();
    let new = path.with_file_name(format!(".{}.podfence", name.display()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    let own = file.metadata()?;
    // Only a change of the owner needs a capability.
    if let Some(owner) = owner.filter(|owner| (owner.uid(), owner.gid()) != (own.uid(), own.gid())) {
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
