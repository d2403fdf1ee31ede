//! The program `podfence` as a shell sees it.
//!
//! The transcripts in `cli/` hold commands and all that they print: `$ command`, the lines of standard error
//! with `! ` before them, those of standard output, and `? code` where the exit code is not 0. Run with
//! `UPDATE=1` to write what the commands print now.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli")
}

fn podfence(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podfence"));
    command.args(arguments).current_dir(folder()).env_remove("COLUMNS").stdin(Stdio::null());
    command
}

/// Runs `podfence` and gives it `stdin`.
fn run_with(arguments: &[&str], stdin: &str) -> Output {
    let mut command = podfence(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What the transcript should say, from running its commands.
fn transcript_now(transcript: &str) -> String {
    let mut now = String::new();
    for (line, next) in transcript.lines().zip(transcript.lines().skip(1).chain([""])) {
        // Suggested policies have comments too.
        if line.starts_with('#') && next.starts_with('$') {
            writeln!(now, "\n{line}").unwrap();
        }
        let Some(arguments) = line.strip_prefix("$ podfence ") else { continue };
        let output = podfence(&arguments.split_whitespace().collect::<Vec<_>>()).output().unwrap();
        writeln!(now, "{line}").unwrap();
        for line in text(&output.stderr).lines() {
            writeln!(now, "{}", format!("! {line}").trim_end()).unwrap();
        }
        now.push_str(text(&output.stdout));
        match output.status.code() {
            Some(0) => {}
            code => writeln!(now, "? {}", code.unwrap()).unwrap(),
        }
    }
    now.trim_start().to_owned()
}

#[test]
fn commands_print_what_the_transcripts_say() {
    for name in [
        "explain.txt",
        "ends.txt",
        "matrix.txt",
        "compile.txt",
        "default-deny.txt",
        "own-node.txt",
        "audit.txt",
        "tiers.txt",
        "input.txt",
    ] {
        let path = folder().join(name);
        let transcript = std::fs::read_to_string(&path).unwrap();
        let now = transcript_now(&transcript);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &now).unwrap();
            continue;
        }
        for (line, (expected, found)) in transcript.lines().zip(now.lines()).enumerate() {
            assert_eq!(expected, found, "{name}:{}", line + 1);
        }
        assert_eq!(transcript.lines().count(), now.lines().count(), "{name}");
    }
}

#[test]
fn a_suggested_policy_lets_the_connection_through() {
    let shop = std::fs::read_to_string(folder().join("shop.yaml")).unwrap();
    let denied_connections = [
        ("frontend", "backend-2", "9001"),
        ("frontend", "backend-1", "53/UDP"),
        ("prometheus", "backend-1", "9100"),
        ("prometheus", "frontend", "8080"),
        ("prometheus", "203.0.113.7", "443"),
        ("prometheus", "2001:db8::7", "443"),
        ("prometheus", "agent", "9200/UDP"),
        ("agent", "backend-1", "9100"),
        ("203.0.113.7", "frontend", "8080"),
        ("2001:db8::7", "backend-1", "9000"),
        ("frontend", "svc/shop/backend", "80"),
    ];
    for (from, to, port) in denied_connections {
        let question = ["explain", "-f", "-", "--from", from, "--to", to, "--port", port, "-o", "json"];
        let denied = run_with(&question, &shop);
        assert_eq!(denied.status.code(), Some(1), "{from} -> {to} {port}");
        let report: Value = serde_json::from_slice(&denied.stdout).unwrap();
        let connections = report["connections"].as_array().unwrap();
        let mut amended = shop.clone();
        for policy in connections.iter().filter_map(|it| it["suggestions"].as_array()).flatten() {
            write!(amended, "---\n{policy}\n").unwrap();
        }
        let allowed = run_with(&question, &amended);
        assert_eq!(allowed.status.code(), Some(0), "{from} -> {to} {port}: {}", text(&allowed.stdout));
    }
}

#[test]
fn a_node_gets_the_ruleset_of_its_own_pods() {
    let ruleset = |arguments: &[&str]| {
        let output = podfence(&[&["compile", "-f", "shop.yaml"], arguments].concat()).output().unwrap();
        assert!(output.status.success());
        text(&output.stdout).to_owned()
    };
    let isolates = |ruleset: &str| ["shop/backend-1", "shop/backend-2"].map(|pod| ruleset.contains(pod));
    assert_eq!(isolates(&ruleset(&[])), [true, true]);
    assert_eq!(isolates(&ruleset(&["--node", "worker-1"])), [true, false]);
    assert_eq!(isolates(&ruleset(&["--node", "worker-2", "-o", "json"])), [false, true]);
}

#[test]
fn pods_without_addresses_get_them_from_a_range_or_a_warning() {
    let warning = |lacking: &str| {
        format!(
            "warning: {lacking} pods have no address (status.podIPs): nothing is enforced for them: give --pod-cidr"
        )
    };
    let ipv4 = ["--pod-cidr", "10.244.0.0/30"];
    let both = [&ipv4[..], &["--pod-cidr", "fd00::/64"]].concat();
    for (arguments, expected, isolated) in [
        (&[][..], vec![warning("2 of 2")], &[][..]),
        (&ipv4, vec![], &["10.244.0.1 : goto"]),
        (&both, vec![], &["10.244.0.1 : goto", "fd00::1 : goto"]),
        (&["--node", "none"], vec!["warning: --node: no manifest names the node `none`".to_owned()], &[]),
        (
            &["--pod-cidr", "10.244.0.0/32"],
            vec!["error: --pod-cidr: 10.244.0.0/32 has no address left for pod shop/web".to_owned()],
            &[],
        ),
    ] {
        let question = ["compile", "-f", "repository/deploy", "-n", "shop"];
        let output = podfence(&[&question, arguments].concat()).output().unwrap();
        let others = ["passed over", "not judged", "not declared"];
        let lines =
            text(&output.stderr).lines().filter(|line| !others.iter().any(|other| line.contains(other)));
        assert_eq!(lines.collect::<Vec<_>>(), expected);
        let ruleset = text(&output.stdout);
        assert!(isolated.iter().all(|part| ruleset.contains(part)), "{ruleset}");
    }
}

#[test]
fn colours_appear_where_they_are_seen_and_wanted() {
    let arguments = ["matrix", "-f", "shop.yaml"];
    let coloured = |variables: &[(&str, &str)]| {
        let output = podfence(&arguments).envs(variables.iter().copied()).output().unwrap();
        text(&output.stdout).contains('\x1b')
    };
    assert!(!coloured(&[]));
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("NO_COLOR", "1")]));
}

#[test]
fn a_reader_that_leaves_ends_the_output_quietly() {
    let arguments = ["matrix", "-f", "-", "-o", "json"];
    let mut pods = String::new();
    for index in 0..200 {
        let spec = "spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}";
        writeln!(pods, "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: pod-{index}}}, {spec}}}")
            .unwrap();
    }
    let mut command = podfence(&arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(pods.as_bytes()).unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((first.as_str(), text(&output.stderr), output.status.code()), ("[\n", "", Some(0)));
}

#[test]
fn every_shell_has_completions_and_every_subcommand_a_manual_page() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = podfence(&["completions", shell]).output().unwrap();
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("external"), "{shell}");
    }
    let output = podfence(&["man"]).output().unwrap();
    assert!(text(&output.stdout).contains(".TH podfence 1"));

    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("man");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    assert!(podfence(&["man", directory.to_str().unwrap()]).output().unwrap().status.success());
    let pages = std::fs::read_dir(&directory).unwrap().map(|page| page.unwrap().path());
    let pages: Vec<_> = pages.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert_eq!(pages.len(), 6);
    for page in pages {
        assert!(page.contains(".SH \"EXIT STATUS\"") || page.contains(".SH EXAMPLES"), "{page}");
        assert!(!page.contains("EXTRA") && !page.contains("podfence\\-help"), "{page}");
    }
}
