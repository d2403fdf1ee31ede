//! YAML and JSON as text: what is one, what is refused, and the limits.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::{cluster, parse, policy_text, reading};
use crate::manifest::Resource;
use crate::manifest::scalar::Resolved;
use crate::manifest::tree::{Value, documents};

#[track_caller]
fn assert_refused(text: &[u8], expected: &str) {
    let start = Instant::now();
    let problem = parse(text, "f").expect_err(&String::from_utf8_lossy(&text[..text.len().min(200)]));
    assert_eq!(problem.to_string(), expected);
    assert!(start.elapsed() < Duration::from_secs(20), "{expected}: {:?}", start.elapsed());
}

fn repeated(range: Range<usize>, text: impl Fn(usize) -> String) -> String {
    range.map(text).collect::<Vec<_>>().concat()
}

#[test]
fn scalars_mean_what_they_mean_to_kubectl() {
    for (text, expected) in [
        ("", Resolved::Null),
        ("~", Resolved::Null),
        ("Null", Resolved::Null),
        ("'null'", Resolved::String("null")),
        ("yes", Resolved::Bool(true)),
        ("Off", Resolved::Bool(false)),
        ("\"yes\"", Resolved::String("yes")),
        ("yeS", Resolved::String("yeS")),
        ("!!str yes", Resolved::String("yes")),
        ("!!int '5'", Resolved::Integer(Some(5))),
        ("0", Resolved::Integer(Some(0))),
        ("-12", Resolved::Integer(Some(-12))),
        ("+12", Resolved::Integer(Some(12))),
        ("1_000", Resolved::Integer(Some(1000))),
        ("0x1F", Resolved::Integer(Some(31))),
        ("0o17", Resolved::Integer(Some(15))),
        ("0b11", Resolved::Integer(Some(3))),
        ("0x", Resolved::String("0x")),
        ("0xg", Resolved::String("0xg")),
        ("017", Resolved::Integer(None)),
        ("99999999999999999999", Resolved::Integer(None)),
        ("1.5", Resolved::Float),
        ("1.", Resolved::Float),
        (".5", Resolved::Float),
        ("12e4567", Resolved::Float),
        ("-.inf", Resolved::Float),
        (".NaN", Resolved::Float),
        ("1.2.3", Resolved::String("1.2.3")),
        ("10.0.0.0/8", Resolved::String("10.0.0.0/8")),
        ("1a", Resolved::String("1a")),
        (".", Resolved::String(".")),
        ("2024-01-01", Resolved::String("2024-01-01")),
    ] {
        let text = format!("- {text}\n");
        let root = documents(&text).next().unwrap().unwrap();
        let Value::Sequence(items) = &root.value else { panic!("{text}") };
        let Value::Scalar(scalar) = &items[0].value else { panic!("{text}") };
        assert_eq!(scalar.resolve(), expected, "{text}");
    }
}

#[test]
fn the_same_manifest_has_many_spellings() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n";
    let json = "{\n\t\"apiVersion\": \"v1\",\"kind\":\"Pod\",\n\t\"metadata\": {\"name\": \"p\"}}\n";
    for text in [
        pod.to_owned(),
        json.to_owned(),
        format!("\u{feff}{pod}"),
        format!("\u{feff}{json}"),
        pod.replace('\n', "\r\n"),
        json.replace('\n', "\r\n"),
        format!("# comment\n%YAML 1.2\n---\n{pod}...\n"),
        format!("---\n---\n{pod}---\n---\n# nothing\n"),
        format!("---\nnull\n---\n{pod}...\n...\n"),
        format!("{pod}---\n\u{feff}---\n"),
        pod.trim_end().to_owned(),
    ] {
        assert_eq!(cluster(&text).pods().len(), 1, "{text:?}");
    }
}

#[test]
fn empty_texts_hold_nothing_and_are_no_problem() {
    for text in
        ["", "\n", "# comment\n", "---\n", "---\n...\n", "\u{feff}", "null\n", "--- # a\n---\n", "\r\n"]
    {
        let reading = reading(text);
        assert_eq!((reading.objects, reading.problems), (vec![], vec![]), "{text:?}");
    }
}

#[test]
fn aliases_and_merge_keys_are_resolved() {
    let text = policy_text(
        "podSelector: &web {matchLabels: &labels {a: b, c: d}}\ningress:\n- from:\n  - podSelector: *web\n  \
         - podSelector: {matchLabels: {<<: *labels, a: z}}\n  \
         - podSelector: {matchLabels: {<<: [{e: f, a: x}, *labels]}}",
    );
    let cluster = cluster(&text);
    let policies: Vec<_> = cluster.policies().values().map(super::describe::policy).collect();
    assert_eq!(policies, ["a=b&c=d; ingress [a=b&c=d, a=z&c=d, e=f&a=x&c=d : any]"]);
}

#[test]
fn what_is_no_yaml_is_refused_with_its_line() {
    for (text, expected) in [
        (&b"a: b\nc: \xff\n"[..], "f:2: not UTF-8 text"),
        (b"a: b\n\0", "f:2: a NUL byte: the file is binary, or text that is not UTF-8"),
        (b"\xff\xfea\0:\0", "f:1: a NUL byte: the file is binary, or text that is not UTF-8"),
        (b"a: 1\n---\n? [x]\n: y\n", "f:3: a key must be a string"),
        (b"a: &a 1\n---\nb: *a\n", "f:3: the alias names no anchor before it in this document"),
        (b"a: &a [*a]\n", "f:1: the alias names no anchor before it in this document"),
        (b"<<: x\n", "f:1: `<<` must be followed by an object or a list of objects"),
    ] {
        assert_refused(text, expected);
    }
    for text in
        ["a: [1", "a: b: c", "{\"a\": 1} x", "\tb: 1\na: 1", "a: 'x", "a: *nobody", "---\n%", "&a &b c"]
    {
        let problem = parse(text.as_bytes(), "f").expect_err(text);
        assert!(problem.message.starts_with("not valid YAML: "), "{text}: {problem}");
    }
}

#[test]
fn bombs_and_abysses_end_early() {
    let laughs =
        repeated(1..12, |i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(",")));
    let many = "f:7: more than 4000000 values in one file, aliases expanded: split it";
    assert_refused(format!("a0: &a0 [x,x,x,x,x,x,x,x,x]\n{laughs}").as_bytes(), many);

    let text = "x".repeat(1 << 20);
    let texts = format!("a: &a {text}\nb: [{}]\n", vec!["*a"; 1000].join(","));
    assert_refused(texts.as_bytes(), &many.replace("f:7", "f:2"));

    let merges = repeated(1..40, |i| format!("a{i}: &a{i} {{<<: [*a{0}, *a{0}], k{i}: 1}}\n", i - 1));
    let reading = reading(&format!("apiVersion: v1\nkind: X\na0: &a0 {{k: 1}}\n{merges}"));
    assert_eq!(reading.unread.len(), 1);

    let flow = format!("- [{}]\n", vec!["[]"; 1 << 20].join(","));
    assert_refused(flow.as_bytes(), "f:1: too many values in `[...]` and `{...}` for one file: split it");

    let deep = "nested deeper than 100 levels";
    assert_refused(("[\n".repeat(150) + &"]".repeat(150)).as_bytes(), &format!("f:101: {deep}"));
    assert_refused(("{a:\n".repeat(150) + &"}".repeat(150)).as_bytes(), &format!("f:101: {deep}"));
    assert_refused("[".repeat(1 << 20).as_bytes(), "f:1: not valid YAML: recursion limit exceeded");
    assert_refused("- ".repeat(1 << 16).as_bytes(), &format!("f:1: {deep}"));
    assert_refused("? ".repeat(1 << 16).as_bytes(), &format!("f:1: {deep}"));
    let stacked = repeated(1..200, |i| format!("a{i}: &a{i} [*a{}]\n", i - 1));
    assert_refused(format!("a0: &a0 []\n{stacked}").as_bytes(), &format!("f:100: {deep}"));
}

#[test]
fn json_escapes_are_those_of_json() {
    for (escaped, label) in [
        (r"\u0061\/", "a/"),
        (r"\ud83e\udd80", "\u{1f980}"),
        (r"\\ud83e\\udd80", r"\ud83e\udd80"),
        (r"\u00e9\ud83e\udd80", "é\u{1f980}"),
    ] {
        let text = format!(
            "\n \n\t{{\"apiVersion\": \"v1\", \"kind\": \"Pod\",\n\"metadata\": {{\"name\": \"p\", \
             \"labels\": {{\"a\": \"{escaped}\"}}}}}}"
        );
        let reading = reading(&text);
        let Resource::Workload(workload) = &reading.objects[0].resource else { panic!() };
        assert_eq!((workload.pod.labels["a"].as_str(), reading.objects[0].origin.line), (label, 3), "{text}");
    }
}

#[test]
fn the_first_thousand_problems_are_enough() {
    let reading = reading(&policy_text(&format!("ingress: [{}]", vec!["1"; 3000].join(","))));
    assert_eq!(reading.problems.len(), 1001);
    let last = reading.problems.last().unwrap();
    assert_eq!(last.to_string(), "f:6: there is more to say than the 1000 messages before this one");
}

#[test]
fn large_objects_are_read_in_linear_time() {
    let start = Instant::now();
    let labels = repeated(0..50_000, |i| format!("  k{i}: v\n"));
    let reading = reading(&format!("apiVersion: v1\nkind: ConfigMap\ndata:\n{labels}"));
    assert_eq!(reading.unread.len(), 1);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
