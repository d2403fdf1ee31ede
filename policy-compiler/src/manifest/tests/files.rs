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

use super::{Input, Manifests, Problems, ReadOptions, files, read, read_file, read_with};
use crate::manifest::PassedOverKind;

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

fn read_path(path: &Path) -> Result<Manifests, Problems> {
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
    directory.write("b.yaml", "apiVersion: v1\nkind: Pod\na: [");
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
            "b.yaml:3: not valid YAML: unclosed bracket '['",
            "c.yaml: cannot be read: No such file or directory (os error 2)",
            "d.yaml: is no regular file",
            "e.yaml: is no regular file",
        ]
    );
}

#[test]
fn nothing_to_read_is_a_problem() {
    let directory = Directory::new();
    let empty = directory.write("empty/x.yaml", "# nothing\n");
    fs::create_dir(directory.path("bare")).unwrap();
    for (path, expected) in [
        (directory.path("bare"), "bare: no manifests (.yaml, .yml or .json) in this directory"),
        (directory.path("empty"), "empty: no Kubernetes objects found"),
        (empty, "empty/x.yaml: no Kubernetes objects found"),
        (directory.path("none"), "none: cannot be read: No such file or directory (os error 2)"),
    ] {
        assert_eq!(directory.strip(&read_path(&path).unwrap_err()), expected);
    }
    assert_eq!(files(&directory.path("bare")).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(
        directory.strip(&files(&directory.path("none")).unwrap_err()),
        "none: cannot be listed: No such file or directory (os error 2)"
    );
    assert_eq!(directory.strip(&read_file(&directory.0).unwrap_err()), ".: is a directory");
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

/// What is said of a directory with these files: the problems, or else the warnings and what is passed over.
fn said(files: &[(&str, &str)], options: &ReadOptions) -> Vec<String> {
    let directory = Directory::new();
    for (name, text) in files {
        directory.write(name, text);
    }
    let said: Vec<_> = match read_with(&[Input::Path(directory.0.clone())], Vec::new(), options) {
        Err(problems) => problems.into_iter().map(|problem| format!("error {problem}")).collect(),
        Ok(manifests) => {
            let warnings = manifests.warnings.iter().map(|warning| format!("warning {warning}"));
            let passed_over =
                manifests.passed_over.iter().map(|it| format!("passed over {}", it.to_problem()));
            warnings.chain(passed_over).collect()
        }
    };
    said.iter().map(|line| directory.strip(line)).collect()
}

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n";
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n";

#[test]
fn what_is_no_manifest_is_passed_over_in_a_directory() {
    let helm = "a Helm template: render it: `helm template CHART | podfence … -f -`";
    let template =
        |kind: &str| format!("{{{{- if .Values.on }}}}\nkind: {kind}\napiVersion: v1\n{{{{- end }}}}\n");
    let broken = "a key must be a string";
    for (file, text, expected) in [
        (
            "docker-compose.yaml",
            "services: {}\n",
            "passed over docker-compose.yaml:1: no Kubernetes object".to_owned(),
        ),
        (
            "Chart.yaml",
            "apiVersion: v2\nname: c\n",
            "passed over Chart.yaml:1: no Kubernetes object, but a Helm chart".to_owned(),
        ),
        (
            "values-prod.yaml",
            "a: 1\n",
            "passed over values-prod.yaml:1: no Kubernetes object, but the values of a Helm chart".to_owned(),
        ),
        (
            "kustomization.yml",
            "resources: []\n",
            "passed over kustomization.yml:1: no Kubernetes object, but a kustomization".to_owned(),
        ),
        ("deploy.yaml", &template("Deployment"), format!("passed over deploy.yaml:1: {helm}")),
        (
            "netpol.yaml",
            &template("NetworkPolicy"),
            format!("error netpol.yaml:2: a NetworkPolicy in {helm}"),
        ),
        (
            "c.json",
            "{\"a\": {{ x }}, \"kind\":\"CiliumNetworkPolicy\"}",
            format!("error c.json:1: a NetworkPolicy in {helm}"),
        ),
        ("deploy.yaml", "a: {{ x }}\nb: ${Y}\n", format!("passed over deploy.yaml:1: {helm}")),
        ("bad.yaml", "? [x]\n: y\n", format!("passed over bad.yaml:1: {broken}")),
        ("bad.yaml", "apiVersion: v1\nkind: Pod\n? [x]\n: y\n", format!("error bad.yaml:3: {broken}")),
        ("bad.yaml", "kind: NetworkPolicy\n? [x]\n: y\n", format!("error bad.yaml:2: {broken}")),
    ] {
        assert_eq!(
            said(&[("z.yaml", SERVICE), (file, text)], &ReadOptions::default()),
            [expected],
            "{file}: {text}"
        );
    }
}

#[test]
fn the_templates_of_a_chart_are_told_by_one_message() {
    let template = "kind: NetworkPolicy\nname: {{ x }}\n";
    assert_eq!(
        said(
            &[
                ("charts/web/Chart.yaml", "name: web\n"),
                ("charts/web/templates/a.yaml", template),
                ("charts/web/templates/b.yaml", template),
                ("c.yaml", template),
            ],
            &ReadOptions::default()
        ),
        [
            "error c.yaml:1: a NetworkPolicy in a Helm template: render it: `helm template CHART | podfence … -f -`",
            "error charts/web/templates/a.yaml:1: a NetworkPolicy in a Helm template: render it: `helm template charts/web | \
             podfence … -f -` (1 more like this)",
        ]
    );
}

#[test]
fn a_file_named_by_itself_has_to_be_a_manifest() {
    let directory = Directory::new();
    for (text, expected) in [
        ("? [x]\n: y\n", "f.yaml:1: a key must be a string"),
        (
            "{{- if .Values.x }}\na: 1\n",
            "f.yaml:1: a Helm template: render it: `helm template CHART | podfence … -f -`",
        ),
        ("a: 1\n", "f.yaml: no Kubernetes objects found: f.yaml:1: no Kubernetes object"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: '${NAME}'}\n",
            "f.yaml:1: a template with `${…}` in it: fill it in (`envsubst`, `oc process`) and give it as `-f -`",
        ),
    ] {
        let path = directory.write("f.yaml", text);
        assert_eq!(directory.strip(&read_path(&path).unwrap_err()), expected);
    }
    let path = directory.write("f.yaml", &format!("a: 1\n---\n{SERVICE}"));
    assert_eq!(read_path(&path).unwrap().passed_over[0].kind, PassedOverKind::Foreign);
}

#[test]
fn overlays_and_patches_are_told_by_one_message() {
    let other = |text: &str, spec: &str| format!("{text}spec: {spec}\n");
    let policy = other(POLICY, "{ingress: [{}]}");
    let service = other(SERVICE, "{selector: {a: b}}");
    let patch = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: 2}\n";
    let kustomization = ("overlay/kustomization.yaml", "resources: [../base]\n");
    let passed_over = "passed over overlay/kustomization.yaml:1: no Kubernetes object, but a kustomization";
    let contradiction = |kind: &str, name: &str, file: &str| {
        format!(
            "overlay/{file}:1: {kind} default/{name} is also at base/{file}:1, with other content: keep one of them"
        )
    };
    let built = "this directory is built by kustomize: `kubectl kustomize overlay | podfence … -f -`";
    for (files, expected) in [
        (
            vec![("base/s.yaml", SERVICE), ("overlay/s.yaml", &service)],
            vec![format!("warning {}; the first counts", contradiction("Service", "s", "s.yaml"))],
        ),
        (
            vec![("base/p.yaml", POLICY), ("overlay/p.yaml", &policy)],
            vec![format!("error {}", contradiction("NetworkPolicy", "p", "p.yaml"))],
        ),
        (
            vec![kustomization, ("base/s.yaml", SERVICE), ("overlay/s.yaml", &service)],
            vec![
                format!("warning {}; {built}", contradiction("Service", "s", "s.yaml")),
                passed_over.to_owned(),
            ],
        ),
        (
            vec![
                kustomization,
                ("base/s.yaml", SERVICE),
                ("overlay/s.yaml", &service),
                ("overlay/patches/d.yaml", patch),
            ],
            vec![
                format!(
                    "warning overlay/patches/d.yaml:4: spec.template: is required (1 more like this); {built}"
                ),
                passed_over.to_owned(),
            ],
        ),
        (
            vec![
                kustomization,
                ("base/p.yaml", POLICY),
                ("overlay/p.yaml", &policy),
                ("base/s.yaml", SERVICE),
                ("overlay/s.yaml", &service),
            ],
            vec![format!("error {}; {built}", contradiction("NetworkPolicy", "p", "p.yaml"))],
        ),
    ] {
        let said: Vec<_> = said(&files, &ReadOptions::default());
        assert_eq!(said, expected, "{files:?}");
    }
}

#[test]
fn names_and_paths_can_be_left_out() {
    for (exclude, left) in [
        (&[][..], &["a.yaml", "charts/b.yaml", "charts/deep/c.json", "x/charts.yaml"][..]),
        (&["charts"], &["a.yaml", "x/charts.yaml"]),
        (&["charts/"], &["a.yaml", "x/charts.yaml"]),
        (&["*.json", "a.*"], &["charts/b.yaml", "x/charts.yaml"]),
        (&["charts/*.yaml"], &["a.yaml", "charts/deep/c.json", "x/charts.yaml"]),
        (&["charts/**"], &["a.yaml", "x/charts.yaml"]),
        (&["**/*.yaml"], &["charts/deep/c.json"]),
        (&["deep/c.json"], &["a.yaml", "charts/b.yaml", "charts/deep/c.json", "x/charts.yaml"]),
    ] {
        let exclude = exclude.iter().map(|glob| glob.parse().unwrap()).collect();
        let files =
            ["a.yaml", "charts/b.yaml", "charts/deep/c.json", "x/charts.yaml"].map(|name| (name, "a: 1\n"));
        let files = [&[("z.yml", SERVICE)][..], &files].concat();
        let said = said(&files, &ReadOptions { exclude, ..ReadOptions::default() });
        let expected: Vec<_> =
            left.iter().map(|file| format!("passed over {file}:1: no Kubernetes object")).collect();
        assert_eq!(said, expected);
    }
}

#[test]
fn objects_that_name_no_namespace_go_where_they_are_put() {
    let directory = Directory::new();
    let named = SERVICE.replace("{name: s}", "{name: t, namespace: shop}");
    let path = directory.write("f.yaml", &format!("{SERVICE}---\n{named}---\n{POLICY}"));
    for (namespace, services, in_default) in
        [(None, ["default/s", "shop/t"], 2), (Some("prod"), ["prod/s", "shop/t"], 0)]
    {
        let options = ReadOptions { namespace: namespace.map(Into::into), ..ReadOptions::default() };
        let manifests = read_with(&[Input::Path(path.clone())], Vec::new(), &options).unwrap();
        let found = manifests.cluster.services().keys().map(ToString::to_string);
        assert_eq!(found.collect::<Vec<_>>(), services);
        assert_eq!(manifests.in_default.len(), in_default);
    }
}
