//! No input makes the reader panic, and what is written comes back.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::syntax::{OneByOne, documents};
use super::{assemble, parse, policy_text};
use crate::manifest::scalar::Resolved;
use crate::manifest::tree::{Node, Value};

const POLICY: &str = "\
podSelector: &s {matchLabels: {app: web}, matchExpressions: [{key: a, operator: In, values: [b, 'c']}]}
policyTypes: [Ingress, Egress]
ingress:
- from:
  - podSelector: *s
    namespaceSelector: {}
  - ipBlock:
      cidr: 10.0.0.0/8
      except: [10.1.0.0/16, \"10.2.0.0/16\"]
  ports:
  - {port: 80, endPort: 90, protocol: TCP}
  - port: http
egress:
- to: []
";

fn manifest() -> String {
    let pod = "---\n{\"apiVersion\": \"v1\", \"kind\": \"PodList\", \"items\": [{\"metadata\": {\"name\": \"p\", \
               \"labels\": {\"a\": \"\\u0062\"}}, \"spec\": {\"containers\": [{\"ports\": [{\"containerPort\": 1}]}]}, \
               \"status\": {\"podIPs\": [{\"ip\": \"::1\"}]}}]}\n---\n\
               apiVersion: batch/v1\nkind: CronJob\nmetadata:\n  <<: {name: c}\nspec: {jobTemplate: {spec: {template: |\n  x\n}}}\n";
    policy_text(POLICY) + pod
}

/// Whatever a text is, it is the same when it comes slowly.
fn survive(text: &[u8]) {
    let reading = parse(text, "f").ok();
    assert_eq!(parse(OneByOne(text), "f").ok(), reading, "{:?}", String::from_utf8_lossy(text));
    if let Some(reading) = reading {
        let _ = assemble([reading.clone(), reading]);
    }
}

/// A tree without its lines.
fn plain(node: &Node) -> Json {
    match &node.value {
        Value::Scalar(scalar) => match scalar.resolve() {
            Resolved::Null => Json::Null,
            Resolved::Bool(value) => json!(value),
            Resolved::Integer(value) => json!(value),
            Resolved::Float => json!(scalar.text.parse::<f64>().unwrap()),
            Resolved::String(text) => json!(text),
        },
        Value::Sequence(items) => items.iter().map(plain).collect(),
        Value::Mapping(entries) => {
            entries.iter().map(|entry| (entry.key.to_string(), plain(&entry.value))).collect()
        }
        Value::Repeated { .. } | Value::HandedOn => panic!("{node:?}"),
    }
}

/// Texts that need quotes, or another form.
const TRICKY: &[&str] = &[
    "",
    " a",
    "a ",
    "null",
    "~",
    "true",
    "1",
    "0x1",
    "-1.5",
    "- a",
    "a: b",
    "a #b",
    "#",
    "|",
    ">",
    "'",
    "\"",
    "\\",
    "a\nb",
    "\n",
    "a\n\n b\n",
    "\ta",
    "---",
    "--- a",
    "...",
    "{",
    "[a]",
    "*a",
    "&a",
    "!a",
    "%a",
    "@a",
    "é",
    "\u{1f980}",
    "\u{feff}a",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![prop::sample::select(TRICKY).prop_map(str::to_owned), "[ -~]{0,12}", "\\PC{0,6}"]
        // YAML 1.1 and 1.2 differ on them.
        .prop_filter("a line break to some", |text| !text.contains(['\u{85}', '\u{2028}', '\u{2029}']))
        .prop_filter("boolean", |text| {
            !matches!(text.to_lowercase().as_str(), "y" | "n" | "yes" | "no" | "on" | "off")
        })
}

fn tree() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        text().prop_map(Json::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        // None begins as `y`, `on` or `false` does, which the writer does not quote.
        let object = prop::collection::btree_map("[a-e/.][a-z/.]{0,7}", inner.clone(), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Json::from),
            object.prop_map(|entries| Json::from(Map::from_iter(entries))),
        ]
    })
}

/// Pieces that mean something to YAML, and some that should not.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(vec![
            "\n",
            "  ",
            "- ",
            ": ",
            "? ",
            "&s ",
            "*s",
            "!!str ",
            "! ",
            "<<: ",
            "{",
            "}",
            "[",
            "]",
            ",",
            "'",
            "\"",
            "|\n",
            ">-\n",
            "#",
            " #",
            "---\n",
            "...\n",
            "%YAML 1.2\n",
            "\t",
            "\r",
            "\u{feff}",
            "\0",
            "null",
            "\\u",
            "\\ud83d",
            "0x",
            "65536",
            "-1",
            "::/0",
            "é",
            "\u{1f980}",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        any::<u8>().prop_map(|byte| vec![byte]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survive(&bytes);
    }

    #[test]
    fn arbitrary_pieces_do_no_harm(pieces in prop::collection::vec(piece(), 0..60)) {
        survive(&pieces.concat());
    }

    #[test]
    fn what_is_written_is_read(trees in prop::collection::vec(tree().prop_map(|tree| json!({"a": tree})), 1..4)) {
        let mut forms = [const { String::new() }; 4];
        for tree in &trees {
            let [compact, pretty, yaml, flow] = &mut forms;
            write!(compact, "{tree}").unwrap();
            writeln!(pretty, "{tree:#}").unwrap();
            write!(yaml, "---\n{}", serde_yaml::to_string(tree).unwrap()).unwrap();
            writeln!(flow, "---\n{tree:#}").unwrap();
        }
        for form in forms {
            let read: Vec<_> = documents(form.as_bytes()).iter().map(plain).collect();
            prop_assert_eq!(&read, &trees, "{}", form);
        }
    }

    #[test]
    fn a_mutated_manifest_does_no_harm(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, piece()), 1..6)
    ) {
        let mut bytes = manifest().into_bytes();
        for (index, removed, inserted) in edits {
            let start = index.index(bytes.len() + 1);
            let end = (start + removed).min(bytes.len());
            bytes.splice(start..end, inserted);
        }
        survive(&bytes);
    }
}

#[test]
fn every_beginning_of_a_manifest_does_no_harm() {
    let bytes = manifest().into_bytes();
    for end in 0..bytes.len() {
        survive(&bytes[..end]);
    }
}
