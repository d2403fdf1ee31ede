//! The plugin is put into a node's CNI configuration, and nothing is left of it afterwards.
//!
//! Each folder of `tests/installation` is a case: what is there `before` the plugin is installed, and what `after` it.
//! UPDATE=1 writes the latter anew.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use podfence_cni::installation::{self, Error, Installer};
use podfence_cni::settings::{OnUnavailable, Settings};
use tempfile::TempDir;

/// A node's folders.
struct Scene {
    folder: TempDir,
    installer: Installer,
}

impl Scene {
    fn new(files: &BTreeMap<PathBuf, File>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let installer = Installer {
            configurations: at("net.d"),
            programs: at("bin"),
            program: at("image"),
            settings: Settings::default(),
        };
        fs::create_dir(&installer.programs)?;
        fs::write(&installer.program, "the program")?;
        let scene = Self { folder, installer };
        scene.write(files)?;
        Ok(scene)
    }

    /// With one list of configurations.
    fn with(name: &str, text: &str) -> Result<Self> {
        Self::new(&BTreeMap::from([(name.into(), File::Text(text.into()))]))
    }

    fn write(&self, files: &BTreeMap<PathBuf, File>) -> Result<()> {
        for (name, file) in files {
            let path = self.installer.configurations.join(name);
            fs::create_dir_all(path.parent().context("no folder")?)?;
            match file {
                File::Text(text) => fs::write(path, text)?,
                File::Link(target) => symlink(target, path)?,
            }
        }
        Ok(())
    }

    fn files(&self) -> Result<BTreeMap<PathBuf, File>> {
        files(&self.installer.configurations)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.installer.configurations.join(name)
    }

    fn text(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.path(name))?)
    }

    /// Installs, and returns the names of what has changed.
    fn install(&self) -> Result<Vec<String>> {
        Ok(names(&self.installer.install()?.changed))
    }

    fn remove(&self) -> Result<Vec<String>> {
        Ok(names(&installation::remove(&self.installer.configurations)?.changed))
    }

    /// What is said of an error, without the folder.
    fn refusal(&self, error: &Error) -> String {
        let error: &dyn std::error::Error = error;
        let causes = std::iter::successors(Some(error), |&error| error.source());
        let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

#[derive(Debug, Clone, PartialEq)]
enum File {
    Text(String),
    Link(PathBuf),
}

/// All files below a folder.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, File>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (name, path) = (PathBuf::from(entry.file_name()), entry.path());
        if path.is_symlink() {
            found.insert(name, File::Link(fs::read_link(path)?));
        } else if path.is_dir() {
            found.extend(files(&path)?.into_iter().map(|(below, file)| (name.join(below), file)));
        } else {
            found.insert(name, File::Text(fs::read_to_string(path)?));
        }
    }
    Ok(found)
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.file_name().unwrap_or_default().display().to_string()).collect()
}

#[test]
fn the_plugin_comes_and_goes() -> Result<()> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/installation");
    for case in fs::read_dir(cases)? {
        let case = case?.path();
        let (before, after) = (files(&case.join("before"))?, case.join("after"));
        let scene = Scene::new(&before)?;
        scene.installer.install()?;
        if std::env::var_os("UPDATE").is_some() {
            let _ = fs::remove_dir_all(&after);
            let folder = scene.installer.configurations.display().to_string();
            let copied = std::process::Command::new("cp").args(["-a", &folder]).arg(&after).status();
            assert!(copied?.success());
        }
        assert_eq!(scene.files()?, files(&after)?, "{}", case.display());
        assert_eq!(scene.install()?, [""; 0], "{}: again", case.display());
        installation::remove(&scene.installer.configurations)?;
        assert_eq!(scene.files()?, before, "{}: removed", case.display());
        assert_eq!(scene.remove()?, [""; 0], "{}: removed again", case.display());
        let programs = fs::read_dir(&scene.installer.programs)?.count();
        assert_eq!(
            programs,
            1,
            "{}: the program stays for the pods that were started with it",
            case.display()
        );
    }
    Ok(())
}

const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}"#;
const SINGLE: &str = r#"{"cniVersion": "1.0.0", "name": "net", "type": "bridge"}"#;

#[test]
fn what_others_take_away_is_put_back() -> Result<()> {
    let scene = Scene::with("net.conflist", LIST)?;
    assert_eq!(scene.install()?, ["podfence-cni", "net.conflist"]);
    let installed = scene.text("net.conflist")?;

    fs::write(scene.path("net.conflist"), LIST)?;
    assert_eq!(scene.install()?, ["net.conflist"]);
    assert_eq!(scene.text("net.conflist")?, installed);

    fs::write(scene.installer.programs.join("podfence-cni"), "another")?;
    assert_eq!(scene.install()?, ["podfence-cni"]);

    fs::write(scene.path("early.conflist"), LIST)?;
    assert_eq!(scene.install()?, ["early.conflist"], "the runtime takes another one now");
    assert_eq!(scene.remove()?, ["early.conflist", "net.conflist"]);
    assert_eq!((scene.text("early.conflist")?, scene.text("net.conflist")?), (LIST.into(), LIST.into()));
    Ok(())
}

#[test]
fn what_others_add_stays() -> Result<()> {
    let scene = Scene::with("net.conflist", LIST)?;
    scene.install()?;
    let with_another = scene.text("net.conflist")?.replace("}]}", "}, {\"type\": \"istio-cni\"}]}");
    fs::write(scene.path("net.conflist"), &with_another)?;
    assert_eq!(scene.install()?, [""; 0]);
    scene.remove()?;
    let left = LIST.replace("}]}", "}, {\"type\": \"istio-cni\"}]}");
    assert_eq!(scene.text("net.conflist")?, left);
    Ok(())
}

#[test]
fn an_entry_written_by_hand_keeps_its_place_and_its_other_keys() -> Result<()> {
    let by_hand = r#"{"type": "podfence-cni", "capabilities": {"ips": true}, "timeoutSeconds": 3}"#;
    let text = LIST.replace("{\"type\"", &format!("{by_hand}, {{\"type\""));
    let mut scene = Scene::with("net.conflist", &text)?;
    scene.installer.settings.on_unavailable = OnUnavailable::Strict;
    scene.install()?;
    let own = r#"{"type":"podfence-cni","capabilities":{"ips":true},"onUnavailable":"strict","socket":"/run/podfence/cni.sock","state":"/var/lib/podfence/state","timeoutSeconds":10}"#;
    assert_eq!(scene.text("net.conflist")?, text.replace(by_hand, own));
    scene.remove()?;
    assert_eq!(scene.text("net.conflist")?, LIST);
    Ok(())
}

#[test]
fn the_list_that_is_made_of_a_single_plugin_follows_it() -> Result<()> {
    let mut scene = Scene::with("net.conf", SINGLE)?;
    assert_eq!(scene.install()?, ["podfence-cni", "net-podfence.conflist"]);
    scene.installer.settings.timeout = 20.try_into()?;
    assert_eq!(scene.install()?, ["net-podfence.conflist"]);
    fs::write(scene.path("net.conf"), SINGLE.replace("bridge", "ptp"))?;
    assert_eq!(scene.install()?, ["net-podfence.conflist"]);
    assert!(scene.text("net-podfence.conflist")?.contains("ptp"));

    // What others change in it is theirs from then on.
    let with_another = scene.text("net-podfence.conflist")?.replace("\n  ]", ", {\"type\": \"istio-cni\"}]");
    fs::write(scene.path("net-podfence.conflist"), with_another)?;
    assert_eq!(scene.install()?, [""; 0]);
    assert_eq!(scene.remove()?, ["net-podfence.conflist"]);
    let left = scene.text("net-podfence.conflist")?;
    assert!(left.contains("istio-cni") && !left.contains("podfence-cni"), "{left}");
    fs::remove_file(scene.path("net-podfence.conflist"))?;

    scene.install()?;
    fs::remove_file(scene.path("net.conf"))?;
    let outcome = scene.installer.install()?;
    assert_eq!(
        (outcome.configuration, names(&outcome.changed)),
        (None, vec!["net-podfence.conflist".into()])
    );
    Ok(())
}

#[test]
fn the_mode_stays() -> Result<()> {
    let scene = Scene::with("net.conflist", LIST)?;
    fs::set_permissions(scene.path("net.conflist"), fs::Permissions::from_mode(0o640))?;
    scene.install()?;
    let program = scene.installer.programs.join("podfence-cni");
    for (path, mode) in [(scene.path("net.conflist"), 0o640), (program, 0o755)] {
        assert_eq!(fs::metadata(path)?.permissions().mode() & 0o7777, mode);
    }
    assert_eq!(scene.files()?.len(), 1, "nothing is left beside it");
    Ok(())
}

#[test]
fn what_cannot_be_used_is_said() -> Result<()> {
    let list = |version: &str| format!(r#"{{{version} "name": "net", "plugins": [{{"type": "bridge"}}]}}"#);
    let version = |problem: &str| {
        format!("its `cniVersion` is {problem}: podfence-cni can be chained with 0.3.0 to 1.1.0")
    };
    for (name, text, problem) in [
        (
            "net.conflist",
            "{".into(),
            "it is no CNI configuration: EOF while parsing an object at line 1 column 1".into(),
        ),
        ("net.conflist", SINGLE.to_owned(), "its list `plugins` is missing or empty".to_owned()),
        (
            "net.conf",
            LIST.into(),
            "it has a list `plugins`, which runtimes read only from files that end in .conflist".into(),
        ),
        ("net.conf", r#"{"cniVersion": "1.0.0", "type": "bridge"}"#.into(), "it has no `name`".into()),
        ("net.conflist", list(r#""cniVersion": "0.2.0","#), version("`0.2.0`")),
        ("net.conflist", list(""), version("missing, which means 0.1.0")),
        (
            "net.conflist",
            list(r#""cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.10.0"],"#),
            version("`1.10.0`"),
        ),
        (
            "net.conflist",
            LIST.replace("{\"type\"", "{\"kind\""),
            "it is no CNI configuration: missing field `type` at line 1 column 18".into(),
        ),
    ] {
        let scene = Scene::with(name, &text)?;
        let error = scene.installer.install().expect_err("it is installed");
        assert_eq!(
            scene.refusal(&error),
            format!("the CNI configuration net.d/{name} cannot be used: {problem}")
        );
        scene.remove()?;
        assert_eq!(scene.text(name)?, text);
    }
    Ok(())
}

#[test]
fn folders_that_are_missing_or_empty_are_said() -> Result<()> {
    let scene = Scene::with("README", "no configuration")?;
    let outcome = scene.installer.install()?;
    assert_eq!(outcome.configuration, None);
    assert!(outcome.to_string().starts_with("there is no CNI configuration yet; changed: "), "{outcome}");

    fs::remove_dir_all(&scene.installer.configurations)?;
    let folder = "does not exist: name the folder in which the container runtime looks for CNI";
    let error = scene.installer.install().expect_err("it is installed");
    assert_eq!(scene.refusal(&error), format!("net.d {folder} configurations"));
    fs::remove_dir_all(&scene.installer.programs)?;
    let error = scene.installer.install().expect_err("it is installed");
    assert_eq!(scene.refusal(&error), format!("bin {folder} programs"));
    Ok(())
}

/// A program that writes its configuration over and over, in place or by renaming.
#[test]
fn what_others_write_at_the_same_moment_is_not_lost() -> Result<()> {
    const TIMES: usize = 300;
    for in_place in [false, true] {
        let scene = Scene::with("net.conflist", LIST)?;
        let path = scene.path("net.conflist");
        let text = |number: usize| LIST.replace("bridge", &format!("bridge-{number}"));
        let write = |number: usize| {
            if in_place {
                return fs::write(&path, text(number));
            }
            fs::write(path.with_extension("new"), text(number))?;
            fs::rename(path.with_extension("new"), &path)
        };
        thread::scope(|scope| {
            let writer = scope.spawn(|| (1..=TIMES).try_for_each(write));
            while !writer.is_finished() {
                // What is half written cannot be read; it is tried again.
                let _ = scene.installer.install();
            }
            writer.join().expect("no panic")
        })?;
        scene.install()?;
        assert!(scene.text("net.conflist")?.contains("podfence-cni"));
        scene.remove()?;
        assert_eq!(scene.text("net.conflist")?, text(TIMES));
    }
    Ok(())
}
