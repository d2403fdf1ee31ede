//! What is said of a release: its list of components against the programs and against cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::program;
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The packages, each with its program.
const PROGRAMS: [(&str, &str); 3] = [
    ("policy-compiler", "podfence"),
    ("controller", "podfence-controller"),
    ("podfence-cni", "podfence-cni"),
];

/// A crate's name and version, as `NAME-VERSION`.
type Crate = String;

fn json(command: &mut Command) -> Result<Value> {
    let output = command.current_dir(ROOT).env("SOURCE_DATE_EPOCH", "1700000000").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn sbom((package, file): (&str, &str)) -> Result<Value> {
    json(Command::new(Path::new(ROOT).join("release/sbom")).arg(package).arg(program(file)?))
}

fn list<'v>(value: &'v Value, field: &str) -> Result<&'v Vec<Value>> {
    value[field].as_array().with_context(|| format!("no {field}"))
}

fn text<'v>(value: &'v Value, field: &str) -> Result<&'v str> {
    value[field].as_str().with_context(|| format!("no {field} in {value}"))
}

fn name(component: &Value) -> Result<Crate> {
    Ok(format!("{}-{}", text(component, "name")?, text(component, "version")?))
}

/// The crates whose sources a program names where it may panic. Not all crates do that.
fn named_in(program: &Path) -> Result<BTreeSet<Crate>> {
    let content = fs::read(program)?;
    let content = String::from_utf8_lossy(&content);
    let paths = content.split("/registry/src/").skip(1);
    Ok(paths.filter_map(|path| Some(path.split('/').nth(1)?.to_owned())).collect())
}

/// The crates that a package may link, with any feature: not those that only run while it is built or tested.
fn reachable(metadata: &Value, package: &str) -> Result<BTreeSet<Crate>> {
    let mut packages = BTreeMap::new();
    for package in list(metadata, "packages")? {
        packages.insert(text(package, "id")?, package);
    }
    let mut dependencies = BTreeMap::new();
    for node in list(&metadata["resolve"], "nodes")? {
        dependencies.insert(text(node, "id")?, list(node, "deps")?);
    }
    let start = packages.iter().find(|(_, it)| it["name"] == package).context("no such package")?;
    let mut pending = vec![*start.0];
    let mut reached = BTreeSet::new();
    while let Some(id) = pending.pop() {
        let package = packages[id];
        let targets = list(package, "targets")?;
        let is_macro = targets.iter().any(|target| target["kind"] == serde_json::json!(["proc-macro"]));
        if is_macro || !reached.insert(name(package)?) {
            continue;
        }
        for dependency in dependencies[id] {
            if list(dependency, "dep_kinds")?.iter().any(|it| it["kind"].is_null()) {
                pending.push(text(dependency, "pkg")?);
            }
        }
    }
    Ok(reached)
}

#[test]
fn the_list_of_components_has_what_is_linked_and_nothing_else() -> Result<()> {
    let metadata = ["metadata", "--locked", "--format-version=1"];
    let metadata = json(Command::new("cargo").args(metadata))?;
    let lock = fs::read_to_string(Path::new(ROOT).join("Cargo.lock"))?;
    for (package, file) in PROGRAMS {
        let sbom = sbom((package, file))?;
        let is_c_library = |it: &Value| it["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:deb/"));
        let (c_libraries, mut components): (Vec<_>, Vec<_>) =
            list(&sbom, "components")?.iter().partition(|component| is_c_library(component));
        components.push(&sbom["metadata"]["component"]);

        let c_libraries = c_libraries.into_iter().map(|it| text(it, "name")).collect::<Result<Vec<_>>>()?;
        let links = |library| c_libraries.iter().any(|name| name.starts_with(library));
        assert!(links("libc6"), "{package}: {c_libraries:?}");
        for library in ["libnftnl", "libmnl"] {
            assert_eq!(links(library), package == "controller", "{package}: {c_libraries:?}");
        }

        let listed = components.iter().copied().map(name).collect::<Result<BTreeSet<_>>>()?;
        assert_eq!(listed.len(), components.len(), "{package} names a crate twice");

        let named = named_in(&program(file)?)?;
        let missing: Vec<_> = named.difference(&listed).collect();
        assert!(missing.is_empty(), "{package} lacks {missing:?}");
        let reachable = reachable(&metadata, package)?;
        let surplus: Vec<_> = listed.difference(&reachable).collect();
        assert!(surplus.is_empty(), "{package} does not link {surplus:?}");

        for component in components {
            let purl = text(component, "purl")?;
            assert!(!text(&component["licenses"][0], "expression")?.is_empty(), "{purl}");
            if purl.starts_with("pkg:cargo/") {
                let checksum = text(&component["hashes"][0], "content")?;
                assert!(lock.contains(&format!("checksum = \"{checksum}\"")), "{purl}");
            } else {
                assert!(purl.starts_with("pkg:github/podfence/podfence@"), "{purl}");
            }
        }
    }
    Ok(())
}

#[test]
fn features_that_only_others_ask_for_are_not_listed() -> Result<()> {
    let listed = list(&sbom(PROGRAMS[1])?, "components")?.iter().map(name).collect::<Result<Vec<_>>>()?;
    for only_of_the_command_line in ["clap_mangen-", "clap_complete-"] {
        let found = listed.iter().find(|name| name.starts_with(only_of_the_command_line));
        assert_eq!(found, None);
    }
    Ok(())
}

#[test]
fn the_list_of_components_is_the_same_each_time() -> Result<()> {
    let first = sbom(PROGRAMS[2])?;
    assert_eq!(first, sbom(PROGRAMS[2])?);
    assert_eq!(first["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
    assert_ne!(first["serialNumber"], sbom(PROGRAMS[0])?["serialNumber"]);
    Ok(())
}
