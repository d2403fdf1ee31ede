//! No input makes the reader panic.

use proptest::prelude::*;

use super::{assemble, parse, policy_text};

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

fn survive(text: &[u8]) {
    if let Ok(reading) = parse(text, "f") {
        let _ = assemble([reading.clone(), reading]);
    }
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
            "\u{2028}",
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
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survive(&bytes);
    }

    #[test]
    fn arbitrary_pieces_do_no_harm(pieces in prop::collection::vec(piece(), 0..60)) {
        survive(&pieces.concat());
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
