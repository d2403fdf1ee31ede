//! The file, without a kernel: what is written is read, and nothing else is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::file::{Header, Ranges, SavedPod, State, host};
use super::{Error, Timestamp, remove};
use crate::protocol::PodReference;

/// A folder of its own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("podfence-state-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("state")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn state() -> State {
    let saved = Timestamp::from(1_795_867_390);
    let pod = PodReference { namespace: "shop".to_owned(), name: "web".to_owned(), uid: None };
    let header = Header {
        version: "0.1.0".to_owned(),
        node: "node-1".to_owned(),
        host: host(),
        saved,
        time: saved.to_string(),
        policies: String::new(),
        pods: vec![SavedPod { pod, addresses: vec![[10, 244, 1, 2].into()] }],
    };
    State { header, messages: vec![b"messages\nwith lines".to_vec()] }
}

#[test]
fn what_is_saved_is_read_by_its_owner_alone() {
    let folder = Folder::new("saved");
    let path = folder.file();
    assert_eq!(State::read(&path, Some("node-1")).unwrap(), None);
    for _ in 0..2 {
        state().save(&path).unwrap();
        assert_eq!(State::read(&path, Some("node-1")).unwrap(), Some(state()));
        assert_eq!(State::read(&path, None).unwrap(), Some(state()));
    }
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&folder.0)), (0o600, 0o700));
    let files: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["state"]);
    remove(&path).unwrap();
    remove(&path).unwrap();
    assert_eq!(State::read(&path, None).unwrap(), None);
}

#[test]
fn the_pieces_of_the_messages_are_one_behind_the_other() {
    let folder = Folder::new("pieces");
    let path = folder.file();
    let pieces = vec![b"messages\nwith".to_vec(), Vec::new(), b" lines".to_vec()];
    State { messages: pieces, ..state() }.save(&path).unwrap();
    assert_eq!(State::read(&path, None).unwrap(), Some(state()));
}

#[test]
fn no_other_file_is_taken_for_a_state() {
    let folder = Folder::new("others");
    let path = folder.file();
    state().save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let read = |bytes: &[u8], node| {
        fs::write(&path, bytes).unwrap();
        State::read(&path, node)
    };
    for length in 0..whole.len() {
        assert!(matches!(read(&whole[..length], None), Err(Error::Damaged(_))), "the first {length} bytes");
    }
    for place in 0..whole.len() {
        let mut other = whole.clone();
        other[place] ^= 1;
        let refused = matches!(read(&other, None), Err(Error::Damaged(_) | Error::Format { .. }));
        assert!(refused, "byte {place} is another one");
    }
    assert!(matches!(read(&[&whole[..], b"\0"].concat(), None), Err(Error::Damaged(_))));
    let newer = String::from_utf8_lossy(&whole).replace("podfence state 1", "podfence state 2");
    let message = read(newer.as_bytes(), None).unwrap_err().to_string();
    assert!(message.contains("\"podfence state 2\""), "{message}");
    let message = read(&whole, Some("node-2")).unwrap_err().to_string();
    assert!(
        message.contains("the state of node node-1") && message.contains("this is node node-2"),
        "{message}"
    );
}

#[test]
fn a_state_of_another_host_needs_the_name_of_the_node() {
    let folder = Folder::new("host");
    let path = folder.file();
    let mut other = state();
    other.header.host = "elsewhere".to_owned();
    other.save(&path).unwrap();
    assert!(matches!(State::read(&path, None), Err(Error::Foreign { .. })));
    assert_eq!(State::read(&path, Some("node-1")).unwrap(), Some(other));
}

#[test]
fn what_cannot_be_written_leaves_what_is_there() {
    let folder = Folder::new("unwritable");
    let path = folder.file();
    state().save(&path).unwrap();
    // The name of the file that takes its place is that of a folder.
    fs::create_dir_all(folder.0.join("state.new/in-the-way")).unwrap();
    assert!(matches!(state().save(&path), Err(Error::File { action: "write", .. })));
    assert_eq!(State::read(&path, None).unwrap(), Some(state()));
}

#[test]
fn ranges_are_kept_beside_the_state() {
    let folder = Folder::new("ranges");
    let path = folder.file();
    let ranges = Ranges {
        node: "node-1".to_owned(),
        host: host(),
        ranges: vec!["10.244.1.0/24".parse().unwrap(), "fd44::/64".parse().unwrap()],
    };
    assert!(!Ranges::exist(&path));
    ranges.save(&path).unwrap();
    assert!(Ranges::exist(&path));
    assert_eq!(Ranges::read(&path, Some("node-1")).unwrap(), ranges);
    assert!(matches!(Ranges::read(&path, Some("node-2")), Err(Error::Foreign { .. })));
}

#[test]
fn times_are_printed_as_people_read_them() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_795_867_390, "2026-11-28T12:03:10Z"),
        (4_107_542_399, "2100-02-28T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(Timestamp::from(seconds).to_string(), expected);
    }
}
