//! Which files are read.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Input, files, read, read_file};

/// A directory of its own for each test, gone with it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name =
            format!("podfence-manifest-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A message without this directory's name.
    fn strip(&self, message: &impl ToString) -> String {
        message
            .to_string()
            .replace(&format!("{}/", self.0.display()), "")
            .replace(&self.0.display().to_string(), ".")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n")
}

fn read_path(path: &Path) -> Result<super::Manifests, super::Problems> {
    read(&[Input::Path(path.to_owned())])
}

#[test]
fn a_directory_is_walked_in_order_without_what_editors_leave_there() {
    let directory = Directory::new();
    for name in [
        "b.yaml",
        "a.yml",
        "c.json",
        "sub/deep/d.yaml",
        "e.yaml~",
        "#f.yaml#",
        ".#g.yaml",
        ".h.yaml",
        "i.txt",
        "4913",
        "j.yaml.swp",
        ".git/k.yaml",
        "README",
        "..2024/l.yaml",
        "m.yaml.d/n.yaml",
    ] {
        directory.write(name, &pod("p"));
    }
    symlink(directory.path("..2024"), directory.path("..data")).unwrap();
    symlink("..data/l.yaml", directory.path("l.yaml")).unwrap();
    let found: Vec<String> =
        files(&directory.0).unwrap().iter().map(|path| directory.strip(&path.display())).collect();
    assert_eq!(found, ["a.yml", "b.yaml", "c.json", "l.yaml", "m.yaml.d/n.yaml", "sub/deep/d.yaml"]);
}

#[test]
fn a_directory_that_contains_itself_is_read_once() {
    let directory = Directory::new();
    directory.write("sub/a.yaml", &pod("a"));
    symlink("..", directory.path("sub/up")).unwrap();
    symlink(".", directory.path("here")).unwrap();
    let manifests = read_path(&directory.0).unwrap();
    assert_eq!((manifests.cluster.pods().len(), manifests.warnings), (1, vec![]));
}

#[test]
fn a_file_named_by_itself_is_read_whatever_its_name() {
    let directory = Directory::new();
    let path = directory.write(".hidden.txt", &pod("a"));
    assert_eq!(read_path(&path).unwrap().cluster.pods().len(), 1);
    let pod = read_path(&path).unwrap().cluster.pods().values().next().unwrap().clone();
    assert_eq!(pod.origin.map(|origin| directory.strip(&origin)), Some(".hidden.txt:1".to_owned()));
}

#[test]
fn every_unreadable_file_is_named_beside_the_problems_of_the_others() {
    let directory = Directory::new();
    directory.write("a.yaml", "kind: Pod\n");
    directory.write("b.yaml", "a: [");
    symlink("nowhere", directory.path("c.yaml")).unwrap();
    symlink("/dev/zero", directory.path("d.yaml")).unwrap();
    let _socket = UnixListener::bind(directory.path("e.yaml")).unwrap();
    directory.write("f.yaml", "a: \0");
    directory.write("g.yaml", &pod("g"));
    let problems = read_path(&directory.0).unwrap_err();
    assert_eq!(
        directory.strip(&problems).lines().collect::<Vec<_>>(),
        [
            "a.yaml:1: apiVersion: is required",
            "b.yaml:1: not valid YAML: unclosed bracket '['",
            "c.yaml:1: cannot be read: No such file or directory (os error 2)",
            "d.yaml:1: is no regular file",
            "e.yaml:1: is no regular file",
            "f.yaml:1: a NUL byte: the file is binary, or UTF-16 without a byte order mark",
        ]
    );
}

#[test]
fn nothing_to_read_is_a_problem() {
    let directory = Directory::new();
    let empty = directory.write("empty/x.yaml", "# nothing\n");
    fs::create_dir(directory.path("bare")).unwrap();
    for (path, expected) in [
        (directory.path("bare"), "bare:1: no manifests (.yaml, .yml or .json) in this directory"),
        (directory.path("empty"), "empty:1: no Kubernetes objects found"),
        (empty, "empty/x.yaml:1: no Kubernetes objects found"),
        (directory.path("none"), "none:1: cannot be read: No such file or directory (os error 2)"),
    ] {
        assert_eq!(directory.strip(&read_path(&path).unwrap_err()), expected);
    }
    assert_eq!(files(&directory.path("bare")).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(
        directory.strip(&files(&directory.path("none")).unwrap_err()),
        "none:1: cannot be listed: No such file or directory (os error 2)"
    );
    assert_eq!(directory.strip(&read_file(&directory.0).unwrap_err()), ".:1: is a directory");
}

#[test]
fn a_dash_is_standard_input() {
    assert_eq!(Input::from(OsString::from("-")), Input::Stdin);
    assert_eq!(Input::from(OsString::from("./-")), Input::Path("./-".into()));
}

#[test]
fn a_pipe_is_read() {
    let (reader, mut writer) = io::pipe().unwrap();
    let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
    let writing = thread::spawn(move || {
        for name in ["a", "b"] {
            writeln!(writer, "{}---", pod(name)).unwrap();
        }
    });
    assert_eq!(read_path(&path).unwrap().cluster.pods().len(), 2);
    writing.join().unwrap();
}
