//! The manifest of the kubectl plugin, as a release fills it in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use serde_json::Value;

const TEMPLATE: &str = include_str!("../../.krew.yaml");

/// Puts a tag, and an address and a checksum for each archive, where the template wants them.
fn filled_in(tag: &str) -> String {
    let mut text = String::new();
    for line in TEMPLATE.lines() {
        let archive = line.trim().strip_prefix("{{ addURIAndSha \"");
        let archive = archive.and_then(|rest| rest.strip_suffix("\" .TagName }}"));
        let line = match archive {
            Some(address) => format!("    uri: {address}\n    sha256: {}", "0".repeat(64)),
            None => line.to_owned(),
        };
        text += &line.replace("{{ .TagName }}", tag);
        text.push('\n');
    }
    text
}

#[test]
fn a_release_becomes_a_manifest_that_krew_takes() {
    let tag = concat!("v", env!("CARGO_PKG_VERSION"));
    let text = filled_in(tag);
    assert!(!text.contains("{{"), "{text}");
    let plugin: Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!(plugin["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!(plugin["kind"], "Plugin");
    // The name by which kubectl calls it: krew links kubectl-podfence to the program.
    assert_eq!(plugin["metadata"]["name"], "podfence");
    let spec = &plugin["spec"];
    assert_eq!(spec["version"], tag);
    assert_eq!(spec["homepage"], env!("CARGO_PKG_REPOSITORY"));
    // What krew's naming guide allows.
    let short = spec["shortDescription"].as_str().unwrap();
    assert!(short.len() <= 50 && !short.ends_with('.'), "{short}");
    let platforms = spec["platforms"].as_array().unwrap();
    let archives: BTreeSet<_> = platforms
        .iter()
        .map(|platform| {
            let labels = &platform["selector"]["matchLabels"];
            let (os, arch) = (labels["os"].as_str().unwrap(), labels["arch"].as_str().unwrap());
            let repository = env!("CARGO_PKG_REPOSITORY");
            let archive = format!("{repository}/releases/download/{tag}/podfence-{os}-{arch}.tar.gz");
            assert_eq!(platform["uri"], archive);
            assert_eq!(platform["bin"], "podfence");
            archive
        })
        .collect();
    assert_eq!(archives.len(), platforms.len(), "a platform is there twice");
}
