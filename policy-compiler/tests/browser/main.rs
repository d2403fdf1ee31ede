//! `podfence matrix -o html`, in a real browser: what people see, click and type.
//!
//! Needs Chromium (`apt-get install chromium`) in PATH; without it the tests are left out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod chromium;

use std::path::{Path, PathBuf};
use std::process::Command;

use chromium::Browser;
use serde_json::{Value, json};

/// Writes the page for manifests.
fn page(name: &str, manifests: &Path) -> PathBuf {
    let output = Command::new(env!("CARGO_BIN_EXE_podfence"))
        .args(["matrix", "-o", "html", "-f"])
        .arg(manifests)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, &output.stdout).unwrap();
    path
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(name)
}

/// The answer's text.
const ANSWER: &str = "document.getElementById('answer').innerText";

/// What a screen reader says of the focused cell.
const FOCUSED: &str = "document.activeElement.ariaLabel";

/// The names of the rows, as they are shown.
const ROWS: &str = "[...document.querySelectorAll('tbody th')].map(cell => cell.innerText)";

/// Finds a cell by its label.
fn cell(label: &str) -> String {
    format!("[...document.querySelectorAll('td')].find(cell => cell.ariaLabel.startsWith({}))", json!(label))
}

#[test]
fn a_click_and_a_key_explain_a_cell() {
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&page("shop.html", &fixture("shop.yaml")));
    browser.click(&cell("shop/frontend to shop/backend-1:"));
    assert_eq!(browser.get(FOCUSED), json!("shop/frontend to shop/backend-1: allowed on 9000 only"));
    let explained = browser.text(ANSWER);
    for part in [
        "shop/frontend → shop/backend-1",
        "ALLOWED 9000/TCP",
        "DENIED 9100/TCP",
        "ingress[0]",
        "shop.yaml:",
        "pod frontend has app=frontend (needs app=prometheus)",
    ] {
        assert!(explained.contains(part), "`{part}` is not in:\n{explained}");
    }
    assert_eq!(browser.get("document.getElementById('answer').ariaLive"), json!("polite"));

    browser.key("ArrowRight");
    assert_eq!(browser.get(FOCUSED), json!("shop/frontend to shop/backend-2: denied"));
    browser.key("Enter");
    assert!(browser.text(ANSWER).contains("DENIED 9001/TCP"), "{}", browser.text(ANSWER));
    browser.key("Escape");
    assert!(browser.text(ANSWER).starts_with("Choose a cell"), "{}", browser.text(ANSWER));
    assert_eq!(browser.get(FOCUSED), json!("shop/frontend to shop/backend-2: denied"));
    browser.key("Home");
    assert_eq!(browser.get("document.activeElement.scope"), json!("row"));
    // One stop for the tabulator, and the colours are not the only mark.
    assert_eq!(browser.get("document.querySelectorAll('#matrix [tabindex=\"0\"]').length"), json!(1));
    assert_eq!(browser.get(&format!("{}.textContent", cell("shop/frontend to shop/backend-2:"))), json!("✗"));
}

#[test]
fn search_and_filters_leave_what_matches() {
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&page("filters.html", &fixture("shop.yaml")));
    let everything = browser.get(ROWS);
    browser.click("document.getElementById('from')");
    browser.type_text("front");
    assert_eq!(browser.get(ROWS), json!(["▾ shop", "frontend"]));
    browser.type_text("-no-such-pod");
    assert_eq!(browser.get("document.getElementById('nothing').hidden"), json!(false));
    browser.click("document.getElementById('reset')");
    assert_eq!(browser.get(ROWS), everything);

    browser.choose("to-namespace", "monitoring");
    browser.choose("only", "denied");
    assert_eq!(browser.get(ROWS), json!(["▾ monitoring", "prometheus"]));

    browser.click("document.getElementById('collapse')");
    browser.choose("to-namespace", "");
    browser.choose("only", "");
    assert_eq!(browser.get(ROWS), json!(["▸ monitoring 2", "▸ shop 3"]));
    browser.click("document.querySelector('tbody th')");
    assert_eq!(browser.get("document.querySelector('tbody th').ariaExpanded"), json!("true"));
}

/// Names, labels and files are text on the page, whatever is written in them.
#[test]
fn nothing_in_manifests_becomes_markup() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("<b>hostile");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("<script><img src=x onerror=document.title=1>.yaml");
    let pod = |name: &str, label: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": label}},
            "spec": {"containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80}]}]},
        })
    };
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "other"}}}]}]},
    });
    let items = [pod("web", "web"), pod("client", "client"), policy];
    std::fs::write(file, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).unwrap();
    browser.open(&page("hostile.html", &folder));
    browser.click("document.querySelector('td.denied')");
    assert!(
        browser.text(ANSWER).contains("<img src=x onerror=document.title=1>.yaml:"),
        "{}",
        browser.text(ANSWER)
    );
    assert_eq!(browser.get("document.querySelectorAll('img, b b').length"), json!(0));
    assert_eq!(browser.get("document.title"), json!("Who reaches whom: podfence matrix"));
    assert_eq!(browser.get("performance.getEntriesByType('resource').length"), json!(0));
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}
