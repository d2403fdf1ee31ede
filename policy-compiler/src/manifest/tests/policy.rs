//! `NetworkPolicy`: what is accepted, what is refused, and what is left of what is refused.

use super::{assert_problems, cluster, describe, policy_text, reading, said};
use crate::manifest::Resource;

#[track_caller]
fn assert_reads(spec: &str, expected: &str) {
    let cluster = cluster(&policy_text(spec));
    let policies: Vec<_> = cluster.policies().values().map(describe::policy).collect();
    assert_eq!(policies, [expected], "{spec}");
}

#[test]
fn policy_types_are_defaulted_as_the_api_server_does() {
    for (spec, expected) in [
        ("podSelector: {}", "*; ingress []"),
        ("podSelector:", "*; ingress []"),
        ("ingress: []", "*; ingress []"),
        ("policyTypes: []\negress: [{}]", "*; ingress []; egress [any : any]"),
        ("policyTypes:\negress:", "*; ingress []"),
        ("egress: []", "*; ingress []"),
        ("policyTypes: [Egress]", "*; egress []"),
        ("policyTypes: [Egress]\ningress: [{}]", "*; egress []"),
        ("policyTypes: [Ingress]\negress: [{}]", "*; ingress []"),
        ("policyTypes: [Egress, Ingress]", "*; ingress []; egress []"),
        ("policyTypes: [Ingress, Ingress]", "*; ingress []"),
    ] {
        assert_reads(spec, expected);
    }
}

#[test]
fn null_is_what_the_api_server_takes_it_for() {
    for (spec, expected) in [
        ("ingress:\n- ports: []\n-", "*; ingress [any : any | any : any]"),
        ("egress: [null]", "*; ingress []; egress [any : any]"),
        ("ingress: [{ports: [null]}]", "*; ingress [any : TCP]"),
        ("ingress: [{ports: [{port: null, endPort: ~, protocol: }]}]", "*; ingress [any : TCP]"),
        ("ingress: [{from: [{podSelector: null, namespaceSelector: {}}]}]", "*; ingress [(*)/(*) : any]"),
        ("podSelector: {matchLabels: {a: null}}", "a=; ingress []"),
        (
            "podSelector: {matchExpressions: [{key: a, operator: In, values: [null]}, {key: b, operator: Exists, values: }]}",
            "a=&b; ingress []",
        ),
    ] {
        assert_reads(spec, expected);
    }
}

#[test]
fn a_policy_without_a_spec_selects_every_pod() {
    for spec in ["", "spec:\n", "spec: {}\n"] {
        let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n";
        let cluster = cluster(&format!("{head}{spec}"));
        assert_eq!(cluster.policies().values().map(describe::policy).collect::<Vec<_>>(), ["*; ingress []"]);
    }
}

#[test]
fn selectors_ports_and_peers_have_every_form_of_the_api() {
    for (spec, expected) in [
        ("podSelector: {matchLabels: {a: b, x.io/c: ''}}", "a=b&x.io/c=; ingress []"),
        ("podSelector: {matchLabels: , matchExpressions: []}", "*; ingress []"),
        (
            "podSelector:\n  matchLabels: {z: '1'}\n  matchExpressions:\n  - {key: a, operator: In, values: ['y', x]}\n  \
             - {key: b, operator: NotIn, values: [v]}\n  - {key: c, operator: Exists}\n  \
             - {key: d, operator: DoesNotExist, values: []}",
            "z=1&a=x|y&b!=v&c&!d; ingress []",
        ),
        ("ingress: [{from: [], ports: }]", "*; ingress [any : any]"),
        ("ingress: [{from: [{podSelector: {}}]}]", "*; ingress [* : any]"),
        ("ingress: [{from: [{namespaceSelector: {}}]}]", "*; ingress [(*)/(*) : any]"),
        (
            "ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}]}]",
            "*; ingress [(*)/(a=b) : any]",
        ),
        (
            "ingress: [{from: [{namespaceSelector: {}}, {podSelector: {matchLabels: {a: b}}}]}]",
            "*; ingress [(*)/(*), a=b : any]",
        ),
        (
            "ingress: [{from: [{podSelector: null, ipBlock: {cidr: 10.0.0.0/8}}]}]",
            "*; ingress [10.0.0.0/8 : any]",
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 1.2.3.4/32]}}]}]",
            "*; ingress [0.0.0.0/0 - 10.0.0.0/8 - 1.2.3.4/32 : any]",
        ),
        ("ingress: [{from: [{ipBlock: {cidr: '::/0', except: null}}]}]", "*; ingress [::/0 : any]"),
        ("ingress: [{from: [{ipBlock: {cidr: '2001:DB8:0::/32'}}]}]", "*; ingress [2001:db8::/32 : any]"),
        ("ingress: [{ports: [{}]}]", "*; ingress [any : TCP]"),
        (
            "ingress: [{ports: [{protocol: null, port: 80}, {protocol: SCTP}]}]",
            "*; ingress [any : TCP 80, SCTP]",
        ),
        ("ingress: [{ports: [{port: 1, endPort: 65535}]}]", "*; ingress [any : TCP 1-65535]"),
        ("ingress: [{ports: [{port: 80, endPort: 80}]}]", "*; ingress [any : TCP 80]"),
        ("ingress: [{ports: [{port: 0x50}, {port: 0o120}]}]", "*; ingress [any : TCP 80, TCP 80]"),
        ("ingress: [{ports: [{port: http, protocol: UDP}]}]", "*; ingress [any : UDP http]"),
        ("ingress: [{ports: [{port: 'a-1-234567890-z'}]}]", "*; ingress [any : TCP a-1-234567890-z]"),
        (
            "policyTypes: [Egress]\negress: [{to: [{podSelector: {}}], ports: [{port: 53, protocol: UDP}]}, {}]",
            "*; egress [* : UDP 53 | any : any]",
        ),
    ] {
        assert_reads(spec, expected);
    }
}

#[test]
fn sloppy_blocks_are_read_as_kubernetes_reads_them_with_a_warning() {
    for (written, read) in [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("010.000.0.0/08", "10.0.0.0/8"),
        ("2001:db8::1/32", "2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:1.2.3.4/90", "::ffc0:0:0/90"),
    ] {
        let reading =
            reading(&policy_text(&format!("ingress:\n- from:\n  - ipBlock:\n      cidr: '{written}'")));
        let warning = format!(
            "9: spec.ingress[0].from[0].ipBlock.cidr: read as {read}: write it so, because the API server may \
             refuse `{written}`"
        );
        assert_eq!((said(&reading.problems), said(&reading.warnings)), (vec![], vec![warning]));
        let Resource::NetworkPolicy(policy) = &reading.objects[0].resource else { panic!() };
        assert_eq!(describe::policy(policy), format!("*; ingress [{read} : any]"));
    }
}

#[test]
fn a_rule_knows_its_line() {
    let text = policy_text("ingress:\n- from: []\n# any\n- ports: []\n  from: []\negress: [{}]");
    let reading = reading(&text);
    let Resource::NetworkPolicy(policy) = &reading.objects[0].resource else { panic!() };
    let lines = |rules: &Option<Vec<crate::model::Rule>>| -> Vec<usize> {
        rules.iter().flatten().filter_map(|rule| Some(rule.origin.as_ref()?.line)).collect()
    };
    assert_eq!((lines(&policy.ingress), lines(&policy.egress)), (vec![7, 9], vec![11]));
    assert_eq!(policy.origin.as_ref().map(ToString::to_string).as_deref(), Some("f:1"));
}

/// Spec, problem, and what the policy says without the part that is wrong.
const INVALID: &[(&str, &str, &str)] = &[
    (
        "podSelecter: {matchLabels: {a: b}}\ningress: [{}]",
        "6: spec.podSelecter: unknown field; did you mean `podSelector`?",
        "*; ingress []; egress []",
    ),
    (
        "ingres: [{}]\npodSelector: {matchLabels: {a: b}}\negress: [{}]",
        "6: spec.ingres: unknown field; did you mean `ingress`?",
        "a=b; ingress []; egress []",
    ),
    (
        "types: [Egress]",
        "6: spec.types: unknown field; known here: podSelector, policyTypes, ingress, egress",
        "*; ingress []; egress []",
    ),
    (
        "podSelector: {app: web}\npolicyTypes: [Ingress]\ningress: [{}]\negress: [{}]",
        "6: spec.podSelector.app: unknown field; known here: matchLabels, matchExpressions",
        "*; ingress []",
    ),
    (
        "podSelector: app=web",
        "6: spec.podSelector: must be an object (`key: value`), but is the string `app=web`",
        "*; ingress []",
    ),
    (
        "podSelector: {matchLabels: {a: 1}}",
        "6: spec.podSelector.matchLabels.a: must be a string: put it in quotes, but is the number `1`",
        "*; ingress []",
    ),
    (
        "podSelector: {matchLabels: {a: yes}}",
        "6: spec.podSelector.matchLabels.a: must be a string: put it in quotes, but is the boolean `yes`",
        "*; ingress []",
    ),
    (
        "podSelector: {matchLabels: {a: b, a: c}}\ningress: [{}]",
        "6: spec.podSelector.matchLabels.a: the key is already there on line 6: keep one of them",
        "*; ingress []",
    ),
    (
        "podSelector: {matchExpressions: [{key: a, operator: In}]}",
        "6: spec.podSelector.matchExpressions[0]: operator In needs at least one entry in `values`",
        "*; ingress []",
    ),
    (
        "podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}",
        "6: spec.podSelector.matchExpressions[0]: operator Exists takes no `values`",
        "*; ingress []",
    ),
    (
        "podSelector: {matchExpressions: [{key: a, operator: in, values: [b]}]}",
        "6: spec.podSelector.matchExpressions[0].operator: `in` is no operator: use In, NotIn, Exists or DoesNotExist",
        "*; ingress []",
    ),
    (
        "podSelector: {matchExpressions: [{operator: Exists}]}",
        "6: spec.podSelector.matchExpressions[0].key: is required",
        "*; ingress []",
    ),
    (
        "podSelector: {matchExpressions: [{key: a}]}",
        "6: spec.podSelector.matchExpressions[0].operator: is required",
        "*; ingress []",
    ),
    (
        "policyTypes: [ingress]",
        "6: spec.policyTypes[0]: `ingress` is no policy type: use Ingress or Egress",
        "*; ingress []; egress []",
    ),
    (
        "policyTypes: Egress",
        "6: spec.policyTypes: must be a list, but is the string `Egress`",
        "*; ingress []; egress []",
    ),
    (
        "policyTypes: [Egress, Egress, Egress]",
        "6: spec.policyTypes: more than two entries: there are only Ingress and Egress",
        "*; ingress []; egress []",
    ),
    ("ingress: {}", "6: spec.ingress: must be a list, but is an object", "*; ingress []"),
    ("egress: all", "6: spec.egress: must be a list, but is the string `all`", "*; ingress []; egress []"),
    (
        "ingress: [{from: [null]}]",
        "6: spec.ingress[0].from[0]: names no peer: give podSelector, namespaceSelector or ipBlock",
        "*; ingress [none : any]",
    ),
    (
        "policyTypes: [null]",
        "6: spec.policyTypes[0]: `` is no policy type: use Ingress or Egress",
        "*; ingress []; egress []",
    ),
    (
        "ingress: [{to: [{podSelector: {}}]}]",
        "6: spec.ingress[0].to: unknown field; known here: from, ports",
        "*; ingress [none : none]",
    ),
    (
        "egress: [{from: []}]",
        "6: spec.egress[0].from: unknown field; known here: to, ports",
        "*; ingress []; egress [none : none]",
    ),
    (
        "ingress: [{from: {podSelector: {}}}]",
        "6: spec.ingress[0].from: must be a list, but is an object",
        "*; ingress [none : any]",
    ),
    (
        "ingress:\n- from:\n  - {}\n  - podSelector: {}",
        "8: spec.ingress[0].from[0]: names no peer: give podSelector, namespaceSelector or ipBlock",
        "*; ingress [* : any]",
    ),
    (
        "ingress:\n- from:\n  - podSelector: null",
        "8: spec.ingress[0].from[0]: names no peer: give podSelector, namespaceSelector or ipBlock",
        "*; ingress [none : any]",
    ),
    (
        "ingress:\n- from:\n  - ipBlock: {cidr: 10.0.0.0/8}\n    podSelector: {}",
        "8: spec.ingress[0].from[0]: ipBlock cannot stand beside a selector: make it a peer of its own",
        "*; ingress [none : any]",
    ),
    (
        "ingress: [{from: [{podselector: {}, namespaceSelector: {}}]}]",
        "6: spec.ingress[0].from[0].podselector: unknown field; did you mean `podSelector`?",
        "*; ingress [none : any]",
    ),
    (
        "ingress: [{from: [{ipBlock: {}}]}]",
        "6: spec.ingress[0].from[0].ipBlock.cidr: is required",
        "*; ingress [none : any]",
    ),
    (
        "ingress: [{from: [{ipBlock: {cidr: 10.0.0.1}}]}]",
        "6: spec.ingress[0].from[0].ipBlock.cidr: `10.0.0.1` is no block: for one address write 10.0.0.1/32",
        "*; ingress [none : any]",
    ),
    (
        "ingress: [{from: [{ipBlock: {cidr: ten}}]}]",
        "6: spec.ingress[0].from[0].ipBlock.cidr: `ten` is no block: write ADDRESS/LENGTH, such as 10.0.0.0/8",
        "*; ingress [none : any]",
    ),
    (
        "ingress: [{from: [{ipBlock: {cidr: 10.0.0/8}}]}]",
        "6: spec.ingress[0].from[0].ipBlock.cidr: `10.0.0/8` is no block: what is before the `/` is no IP address",
        "*; ingress [none : any]",
    ),
    (
        "ingress: [{from: [{ipBlock: {cidr: '::/129'}}]}]",
        "6: spec.ingress[0].from[0].ipBlock.cidr: `::/129` is no block: the length must be 0 to 128",
        "*; ingress [none : any]",
    ),
    (
        "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/+8}}]}]",
        "6: spec.ingress[0].from[0].ipBlock.cidr: `10.0.0.0/+8` is no block: the length must be 0 to 32",
        "*; ingress [none : any]",
    ),
    (
        "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]",
        "6: spec.ingress[0].from[0].ipBlock.except[0]: 10.0.0.0/8 must lie inside cidr 10.0.0.0/8 and be smaller",
        "*; ingress [none : any]",
    ),
    (
        "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 11.0.0.0/16]}}]}]",
        "6: spec.ingress[0].from[0].ipBlock.except[1]: 11.0.0.0/16 must lie inside cidr 10.0.0.0/8 and be smaller",
        "*; ingress [none : any]",
    ),
    (
        "ingress: [{from: [{ipBlock: {cidr: '::/0', except: [10.0.0.0/8]}}]}]",
        "6: spec.ingress[0].from[0].ipBlock.except[0]: 10.0.0.0/8 must lie inside cidr ::/0 and be smaller",
        "*; ingress [none : any]",
    ),
    (
        "ingress: [{ports: [{port: 80, prot: UDP}, {port: 81}]}]",
        "6: spec.ingress[0].ports[0].prot: unknown field; did you mean `port`?",
        "*; ingress [any : TCP 81]",
    ),
    (
        "ingress: [{ports: [{protocol: tcp}]}]",
        "6: spec.ingress[0].ports[0].protocol: `tcp` is no protocol: use TCP, UDP or SCTP",
        "*; ingress [any : none]",
    ),
    (
        "ingress: [{ports: [{port: 0}]}]",
        "6: spec.ingress[0].ports[0].port: 0 is no port: use a number from 1 to 65535",
        "*; ingress [any : none]",
    ),
    (
        "ingress: [{ports: [{port: 65536}]}]",
        "6: spec.ingress[0].ports[0].port: 65536 is no port: use a number from 1 to 65535",
        "*; ingress [any : none]",
    ),
    (
        "ingress: [{ports: [{port: \"80\"}]}]",
        "6: spec.ingress[0].ports[0].port: a number in quotes is taken for a name: write `80` without",
        "*; ingress [any : none]",
    ),
    (
        "ingress: [{ports: [{port: 80.5}]}]",
        "6: spec.ingress[0].ports[0].port: must be a number from 1 to 65535 or the name of a port, but is the number `80.5`",
        "*; ingress [any : none]",
    ),
    (
        "ingress: [{ports: [{port: 0443}]}]",
        "6: spec.ingress[0].ports[0].port: must be a number from 1 to 65535 or the name of a port, but is the number `0443`",
        "*; ingress [any : none]",
    ),
    (
        "ingress: [{ports: [{endPort: 90}]}]",
        "6: spec.ingress[0].ports[0].endPort: needs a port to start from",
        "*; ingress [any : none]",
    ),
    (
        "ingress: [{ports: [{port: http, endPort: 90}]}]",
        "6: spec.ingress[0].ports[0].endPort: needs a numeric port: a named port has no range",
        "*; ingress [any : none]",
    ),
    (
        "ingress: [{ports: [{port: 90, endPort: 89}]}]",
        "6: spec.ingress[0].ports[0].endPort: 89 lies below port 90",
        "*; ingress [any : none]",
    ),
    (
        "ingress: [{ports: [{port: 90, endPort: \"91\"}]}]",
        "6: spec.ingress[0].ports[0].endPort: must be a number from 1 to 65535, but is the string `91`",
        "*; ingress [any : none]",
    ),
];

#[test]
fn a_wrong_part_is_reported_and_never_widens_the_rest() {
    for (spec, problem, rest) in INVALID {
        let text = policy_text(spec);
        assert_problems(&text, &[problem]);
        let reading = reading(&text);
        let Resource::NetworkPolicy(policy) = &reading.objects[0].resource else { panic!() };
        assert_eq!(describe::policy(policy), *rest, "{spec}");
    }
}

#[test]
fn port_names_are_checked() {
    for name in ["-a", "a-", "a--b", "HTTP", "a_b", "abcdefghijklmnop", "1-2", ""] {
        assert_problems(
            &policy_text(&format!("ingress: [{{ports: [{{port: '{name}'}}]}}]")),
            &[&format!(
                "6: spec.ingress[0].ports[0].port: `{name}` is no port name: at most 15 lower-case letters, \
                 digits and single `-`, at least one letter, no `-` at the ends"
            )],
        );
    }
}

#[test]
fn label_keys_and_values_in_selectors_are_checked() {
    let long = "a".repeat(64);
    for (key, value, valid) in [
        ("a", "", true),
        ("A_b.c-9", "A_b.c-9", true),
        ("x.io/a", "1", true),
        (&long[..63], &long[..63], true),
        (&long, "v", false),
        ("a", &long, false),
        ("-a", "v", false),
        ("a", "-v", false),
        ("a b", "v", false),
        ("a", "v/w", false),
        ("/a", "v", false),
        ("x.io/", "v", false),
        ("X.io/a", "v", false),
        ("x/y/z", "v", false),
        ("", "v", false),
    ] {
        let labels = format!("podSelector: {{matchLabels: {{'{key}': '{value}'}}}}");
        let expression = format!(
            "podSelector: {{matchExpressions: [{{key: '{key}', operator: In, values: ['{value}']}}]}}"
        );
        for spec in [labels, expression] {
            let problems = reading(&policy_text(&spec)).problems;
            assert_eq!(problems.is_empty(), valid, "{spec}: {problems:?}");
        }
    }
}

#[test]
fn the_fields_around_the_spec_are_checked_too() {
    let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";
    let cases = [
        (
            "metadata: {name: p}\nsepc: {}\n",
            "4: sepc: unknown field; did you mean `spec`?",
            "*; ingress []; egress []",
        ),
        (
            "metadata: {name: p, namespce: x}\nspec: {ingress: [{}]}\n",
            "3: metadata.namespce: unknown field; did you mean `namespace`?",
            "*; ingress []; egress []",
        ),
        (
            "metadata: {name: p}\nspec: []\n",
            "4: spec: must be an object (`key: value`), but is a list",
            "*; ingress []; egress []",
        ),
    ];
    for (body, problem, rest) in cases {
        let text = format!("{head}{body}");
        assert_problems(&text, &[problem]);
        let reading = reading(&text);
        let Resource::NetworkPolicy(policy) = &reading.objects[0].resource else { panic!() };
        assert_eq!(describe::policy(policy), rest, "{body}");
    }
    assert!(reading(&format!("{head}metadata: {{name: p}}\nspec: {{}}\nstatus: {{}}\n")).problems.is_empty());
}

#[test]
fn all_problems_come_at_once_and_in_order() {
    assert_problems(
        &policy_text("ingress:\n- ports: [{port: 0}]\n  from: [{}]\npolicyTypes: [In]\npodSelector: 1\nx: 1"),
        &[
            "7: spec.ingress[0].ports[0].port: 0 is no port: use a number from 1 to 65535",
            "8: spec.ingress[0].from[0]: names no peer: give podSelector, namespaceSelector or ipBlock",
            "9: spec.policyTypes[0]: `In` is no policy type: use Ingress or Egress",
            "10: spec.podSelector: must be an object (`key: value`), but is the number `1`",
            "11: spec.x: unknown field; known here: podSelector, policyTypes, ingress, egress",
        ],
    );
}
