//! The plugin is put into a node's CNI configuration, and nothing is left of it afterwards.
//!
//! Each folder of `tests/installation` is a case: what is there `before` the plugin is installed, and what `after` it.
//! UPDATE=1 writes the latter anew.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use podfence_cni::installation::{Error, Installer};
use podfence_cni::settings::{OnUnavailable, Settings};
use tempfile::TempDir;

/// A node's folders.
struct Scene {
    folder: TempDir,
    installer: Installer,
}

impl Scene {
    fn new(files: &BTreeMap<PathBuf, File>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let installer = Installer {
            configurations: at("net.d"),
            programs: at("bin"),
            program: at("image"),
            settings: Settings::default(),
        };
        fs::create_dir(&installer.programs).unwrap();
        fs::write(&installer.program, "the program").unwrap();
        let scene = Self { folder, installer };
        scene.write(files);
        scene
    }

    /// With one list of configurations.
    fn with(name: &str, text: &str) -> Self {
        Self::new(&BTreeMap::from([(name.into(), File::Text(text.into()))]))
    }

    fn write(&self, files: &BTreeMap<PathBuf, File>) {
        for (name, file) in files {
            let path = self.installer.configurations.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match file {
                File::Text(text) => fs::write(path, text).unwrap(),
                File::Link(target) => symlink(target, path).unwrap(),
            }
        }
    }

    fn files(&self) -> BTreeMap<PathBuf, File> {
        files(&self.installer.configurations)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.installer.configurations.join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Installs, and returns the names of what has changed.
    fn install(&self) -> Vec<String> {
        names(&self.installer.install().unwrap().changed)
    }

    fn remove(&self) -> Vec<String> {
        names(&self.installer.remove().unwrap().changed)
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
fn files(folder: &Path) -> BTreeMap<PathBuf, File> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (name, path) = (PathBuf::from(entry.file_name()), entry.path());
        if path.is_symlink() {
            found.insert(name, File::Link(fs::read_link(path).unwrap()));
        } else if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, file)| (name.join(below), file)));
        } else {
            found.insert(name, File::Text(fs::read_to_string(path).unwrap()));
        }
    }
    found
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn the_plugin_comes_and_goes() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/installation");
    for case in fs::read_dir(cases).unwrap().map(|case| case.unwrap().path()) {
        let (before, after) = (files(&case.join("before")), case.join("after"));
        let scene = Scene::new(&before);
        scene.installer.install().unwrap();
        if std::env::var_os("UPDATE").is_some() {
            let _ = fs::remove_dir_all(&after);
            let folder = scene.installer.configurations.display().to_string();
            let copied = std::process::Command::new("cp").args(["-a", &folder]).arg(&after).status();
            assert!(copied.unwrap().success());
        }
        assert_eq!(scene.files(), files(&after), "{}", case.display());
        assert_eq!(scene.install(), [""; 0], "{}: again", case.display());
        scene.installer.remove().unwrap();
        assert_eq!(scene.files(), before, "{}: removed", case.display());
        assert_eq!(scene.remove(), [""; 0], "{}: removed again", case.display());
        let programs = fs::read_dir(&scene.installer.programs).unwrap().count();
        assert_eq!(
            programs,
            1,
            "{}: the program stays for the pods that were started with it",
            case.display()
        );
    }
}

const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}"#;
const SINGLE: &str = r#"{"cniVersion": "1.0.0", "name": "net", "type": "bridge"}"#;

#[test]
fn what_others_take_away_is_put_back() {
    let scene = Scene::with("net.conflist", LIST);
    assert_eq!(scene.install(), ["podfence-cni", "net.conflist"]);
    let installed = scene.text("net.conflist");

    fs::write(scene.path("net.conflist"), LIST).unwrap();
    assert_eq!(scene.install(), ["net.conflist"]);
    assert_eq!(scene.text("net.conflist"), installed);

    fs::write(scene.installer.programs.join("podfence-cni"), "another").unwrap();
    assert_eq!(scene.install(), ["podfence-cni"]);

    fs::write(scene.path("early.conflist"), LIST).unwrap();
    assert_eq!(scene.install(), ["early.conflist"], "the runtime takes another one now");
    assert_eq!(scene.remove(), ["early.conflist", "net.conflist"]);
    assert_eq!((scene.text("early.conflist"), scene.text("net.conflist")), (LIST.into(), LIST.into()));
}

#[test]
fn what_others_add_stays() {
    let scene = Scene::with("net.conflist", LIST);
    scene.install();
    let with_another = scene.text("net.conflist").replace("}]}", "}, {\"type\": \"istio-cni\"}]}");
    fs::write(scene.path("net.conflist"), &with_another).unwrap();
    assert_eq!(scene.install(), [""; 0]);
    scene.remove();
    let left = LIST.replace("}]}", "}, {\"type\": \"istio-cni\"}]}");
    assert_eq!(scene.text("net.conflist"), left);
}

#[test]
fn an_entry_written_by_hand_keeps_its_place_and_its_other_keys() {
    let by_hand = r#"{"type": "podfence-cni", "capabilities": {"ips": true}, "timeoutSeconds": 3}"#;
    let text = LIST.replace("{\"type\"", &format!("{by_hand}, {{\"type\""));
    let mut scene = Scene::with("net.conflist", &text);
    scene.installer.settings.on_unavailable = OnUnavailable::Strict;
    scene.install();
    let own = r#"{"type":"podfence-cni","capabilities":{"ips":true},"onUnavailable":"strict","socket":"/run/podfence/cni.sock","timeoutSeconds":10}"#;
    assert_eq!(scene.text("net.conflist"), text.replace(by_hand, own));
    scene.remove();
    assert_eq!(scene.text("net.conflist"), LIST);
}

#[test]
fn the_list_that_is_made_of_a_single_plugin_follows_it() {
    let mut scene = Scene::with("net.conf", SINGLE);
    assert_eq!(scene.install(), ["podfence-cni", "net-podfence.conflist"]);
    scene.installer.settings.timeout = 20.try_into().unwrap();
    assert_eq!(scene.install(), ["net-podfence.conflist"]);
    fs::write(scene.path("net.conf"), SINGLE.replace("bridge", "ptp")).unwrap();
    assert_eq!(scene.install(), ["net-podfence.conflist"]);
    assert!(scene.text("net-podfence.conflist").contains("ptp"));

    // What others change in it is theirs from then on.
    let with_another = scene.text("net-podfence.conflist").replace("\n  ]", ", {\"type\": \"istio-cni\"}]");
    fs::write(scene.path("net-podfence.conflist"), with_another).unwrap();
    assert_eq!(scene.install(), [""; 0]);
    assert_eq!(scene.remove(), ["net-podfence.conflist"]);
    let left = scene.text("net-podfence.conflist");
    assert!(left.contains("istio-cni") && !left.contains("podfence-cni"), "{left}");
    fs::remove_file(scene.path("net-podfence.conflist")).unwrap();

    scene.install();
    fs::remove_file(scene.path("net.conf")).unwrap();
    let outcome = scene.installer.install().unwrap();
    assert_eq!(
        (outcome.configuration, names(&outcome.changed)),
        (None, vec!["net-podfence.conflist".into()])
    );
}

#[test]
fn mode_and_links_stay() {
    let scene = Scene::with("net.conflist", LIST);
    fs::set_permissions(scene.path("net.conflist"), fs::Permissions::from_mode(0o640)).unwrap();
    scene.install();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(scene.path("net.conflist")), 0o640);
    assert_eq!(mode(scene.installer.programs.join("podfence-cni")), 0o755);
    assert_eq!(scene.files().len(), 1, "nothing is left beside it");
}

#[test]
fn what_cannot_be_used_is_said() {
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
        let scene = Scene::with(name, &text);
        let error = scene.installer.install().unwrap_err();
        assert_eq!(
            scene.refusal(&error),
            format!("the CNI configuration net.d/{name} cannot be used: {problem}")
        );
        scene.remove();
        assert_eq!(scene.text(name), text);
    }
}

#[test]
fn folders_that_are_missing_or_empty_are_said() {
    let scene = Scene::with("README", "no configuration");
    let outcome = scene.installer.install().unwrap();
    assert_eq!(outcome.configuration, None);
    assert!(outcome.to_string().starts_with("there is no CNI configuration yet; changed: "), "{outcome}");

    fs::remove_dir_all(&scene.installer.configurations).unwrap();
    let folder = "does not exist: name the folder in which the container runtime looks for CNI";
    let error = scene.installer.install().unwrap_err();
    assert_eq!(scene.refusal(&error), format!("net.d {folder} configurations"));
    fs::remove_dir_all(&scene.installer.programs).unwrap();
    let error = scene.installer.install().unwrap_err();
    assert_eq!(scene.refusal(&error), format!("bin {folder} programs"));
}
