//! `ClusterNetworkPolicy`: what is accepted, what is refused, and what is left of what is refused.

use super::{assert_problems, cluster, describe, reading, said};
use crate::manifest::Resource;

/// A policy `p` with the lines of its spec, of which the first is line 6.
fn policy_text(spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!(
        "apiVersion: policy.networking.k8s.io/v1beta1\nkind: ClusterNetworkPolicy\nmetadata:\n  name: p\nspec:\n  \
         {spec}\n"
    )
}

/// A policy of every pod, with its rules from line 7 on.
fn rules_text(rules: &str) -> String {
    policy_text(&format!("{{tier: Admin, priority: 5, subject: {{namespaces: {{}}}},\n{rules}}}"))
}

/// What is read of a text, whatever is wrong in it.
fn read(text: &str) -> String {
    let reading = reading(text);
    let Resource::ClusterNetworkPolicy(policy) = &reading.objects[0].resource else { panic!("{text}") };
    describe::cluster_policy(policy)
}

#[test]
fn subjects_rules_peers_and_protocols_have_every_form_of_the_api() {
    const SUBJECT: &str = "tier: Admin\npriority: 5\nsubject: {namespaces: {}}\n";
    for (spec, expected) in [
        ("tier: Admin\npriority: 0\nsubject: {namespaces: {}}", "Admin 0 (*)/(*)"),
        (
            "tier: Baseline\npriority: 1000\nsubject: {namespaces: {matchLabels: {a: b}}}",
            "Baseline 1000 (a=b)/(*)",
        ),
        ("tier: Admin\npriority: 1\nsubject: {pods: {podSelector: {}}}", "Admin 1 (*)/(*)"),
        (
            "tier: Admin\npriority: 1\nsubject: {pods: {namespaceSelector: {matchLabels: {a: b}}, podSelector: \
             {matchLabels: {c: d}}}}\ningress: []\negress: []",
            "Admin 1 (a=b)/(c=d)",
        ),
        (
            &format!("{SUBJECT}ingress: [{{name: all, action: Pass, from: [{{namespaces: {{}}}}]}}]"),
            "Admin 5 (*)/(*); ingress [Pass all (*)/(*) : any]",
        ),
        (
            &format!(
                "{SUBJECT}egress: [{{action: Deny, to: [{{networks: [0.0.0.0/0, '::/0']}}, {{nodes: {{matchLabels: \
                 {{a: b}}}}}}]}}, {{action: Accept, to: [{{pods: {{podSelector: {{}}}}}}]}}]"
            ),
            "Admin 5 (*)/(*); egress [Deny 0.0.0.0/0, ::/0, nodes a=b : any | Accept (*)/(*) : any]",
        ),
        (
            &format!(
                "{SUBJECT}ingress: null\negress: [{{action: Deny, protocols: null, name: , to: [{{namespaces: {{matchLabels: \
                 null}}, pods: null}}, {{networks: ['64:ff9b::1.2.3.0/120', '2001:DB8:0::/32']}}]}}]"
            ),
            "Admin 5 (*)/(*); egress [Deny (*)/(*), 64:ff9b::102:300/120, 2001:db8::/32 : any]",
        ),
        (
            &format!(
                "{SUBJECT}ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], protocols: [{{tcp: \
                 {{destinationPort: {{number: 80}}}}}}, {{udp: {{destinationPort: {{range: {{start: 1, end: \
                 65535}}}}}}}}, {{sctp: {{destinationPort: {{number: 1}}}}}}, {{destinationNamedPort: http}}]}}]"
            ),
            "Admin 5 (*)/(*); ingress [Deny (*)/(*) : TCP 80, UDP 1-65535, SCTP 1, TCP http, UDP http, SCTP http]",
        ),
    ] {
        let text = policy_text(spec);
        for version in ["v1beta1", "v1alpha2"] {
            let cluster = cluster(&text.replace("v1beta1", version));
            let policies: Vec<_> =
                cluster.cluster_policies().values().map(describe::cluster_policy).collect();
            assert_eq!(policies, [expected], "{spec}");
        }
    }
}

#[test]
fn the_annotation_asks_for_audit_mode() {
    for (value, audited) in [("'true'", " audited"), ("'false'", ""), ("'True'", "")] {
        let text = policy_text("{tier: Admin, priority: 1, subject: {namespaces: {}}}")
            .replace("name: p", &format!("name: p\n  annotations: {{podfence.io/audit: {value}}}"));
        assert_eq!(read(&text), format!("Admin 1 (*)/(*){audited}"), "{value}");
    }
}

#[test]
fn a_policy_and_its_rules_know_their_lines() {
    let text =
        rules_text("ingress: [\n  {action: Deny, from: [{namespaces: {}}]},\n  {action: Pass, from: []}]");
    let reading = reading(&text);
    let Resource::ClusterNetworkPolicy(policy) = &reading.objects[0].resource else { panic!() };
    let lines: Vec<_> = policy.ingress.iter().flat_map(|rule| &rule.rule.origin).map(|o| o.line).collect();
    assert_eq!((policy.origin.as_ref().map(|origin| origin.line), lines), (Some(1), vec![8, 9]));
}

#[test]
fn what_is_wrong_besides_the_rules_leaves_them_in_doubt() {
    const RULES: &str = "ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: \
                         {matchLabels: {a: b}}}]}, {action: Pass, from: [{namespaces: {}}]}]";
    const DOUBT: &str = "ingress [Accept none : any | Deny (a=b)/(*) : any | Deny (*)/(*) : any]";
    for (head, problem, subject) in [
        (
            "tier: admin\npriority: 5\nsubject: {namespaces: {}}",
            "6: spec.tier: `admin` is unknown: use one of Admin, Baseline",
            "(*)/(*)",
        ),
        ("priority: 5\nsubject: {namespaces: {}}", "5: spec.tier: is required", "(*)/(*)"),
        ("tier: Baseline\nsubject: {namespaces: {}}", "5: spec.priority: is required", "(*)/(*)"),
        (
            "tier: Baseline\npriority: 1001\nsubject: {namespaces: {}}",
            "7: spec.priority: 1001 is no priority: use a number from 0 to 1000",
            "(*)/(*)",
        ),
        (
            "tier: Baseline\npriority: -1\nsubject: {namespaces: {}}",
            "7: spec.priority: -1 is no priority: use a number from 0 to 1000",
            "(*)/(*)",
        ),
        (
            "tier: Baseline\npriority: '5'\nsubject: {namespaces: {}}",
            "7: spec.priority: must be a number from 0 to 1000, but is the string `5`",
            "(*)/(*)",
        ),
        ("tier: Baseline\npriority: 5", "5: spec.subject: is required", "(*)/(*)"),
        (
            "tier: Baseline\npriority: 5\nsubject: {}",
            "8: spec.subject: is empty: give namespaces or pods",
            "(*)/(*)",
        ),
        (
            "tier: Baseline\npriority: 5\nsubject: {namespaces: {}, pods: {podSelector: {}}}",
            "8: spec.subject: give one of namespaces, pods, not several",
            "(*)/(*)",
        ),
        (
            "tier: Baseline\npriority: 5\nsubject: {networks: {}}",
            "8: spec.subject.networks: unknown field; known here: namespaces, pods",
            "(*)/(*)",
        ),
        (
            "tier: Baseline\npriority: 5\nsubject: {pods: {namespaceSelector: {}}}",
            "8: spec.subject.pods.podSelector: is required",
            "(*)/(*)",
        ),
        (
            "tier: Baseline\npriority: 5\nsubject: {pods: {podSelector: {matchLabels: {c: d}}, namespaceSelectr: {}}}",
            "8: spec.subject.pods.namespaceSelectr: unknown field; did you mean `namespaceSelector`?",
            "(*)/(*)",
        ),
        (
            "tier: Baseline\npriority: 5\nsubject: {namespaces: {matchLabels: {a: null}}}",
            "8: spec.subject.namespaces.matchLabels.a: is empty: the API server drops the label, and selects more; write \"\"",
            "(a=)/(*)",
        ),
        (
            "tier: Baseline\npriority: 5\nsubject: {namespaces: {matchExpressions: [{key: a, operator: Is}]}}",
            "8: spec.subject.namespaces.matchExpressions[0].operator: `Is` is no operator: use In, NotIn, Exists or DoesNotExist",
            "(*)/(*)",
        ),
        (
            "tier: Baseline\npriority: 5\nsubject: {namespaces: {matchLabels: {c: d}}}\nlog: true",
            "9: spec.log: unknown field; known here: tier, priority, subject, ingress, egress",
            "(c=d)/(*)",
        ),
    ] {
        let text = policy_text(&format!("{head}\n{RULES}"));
        assert_problems(&text, &[problem]);
        assert_eq!(read(&text), format!("Admin 0 {subject}; {DOUBT}"), "{head}");
    }
    let closed = "Admin 0 (*)/(*); ingress [Deny any : any]; egress [Deny any : any]";
    for (text, problem) in [
        (policy_text("{}").replace("spec:\n  {}\n", ""), "1: spec: is required"),
        (policy_text("- a"), "5: spec: must be an object (`key: value`), but is a list"),
    ] {
        assert_problems(&text, &[problem]);
        assert_eq!(read(&text), closed, "{text}");
    }
}

/// A rule, what is wrong in it, and what is left of it: an Accept matches nothing, the others deny everything.
const CLOSED: &[(&str, &str)] = &[
    ("from: [{}]", "ingress[0].from[0]: is empty: give namespaces or pods"),
    ("from: [{namespaces: {}}, {}]", "ingress[0].from[1]: is empty: give namespaces or pods"),
    (
        "from: [{networks: [10.0.0.0/8]}]",
        "ingress[0].from[0].networks: unknown field; known here: namespaces, pods",
    ),
    ("from: [{services: {}}]", "ingress[0].from[0].services: unknown field; known here: namespaces, pods"),
    (
        "from: [{namespaces: {}, pods: {podSelector: {}}}]",
        "ingress[0].from[0]: give one of namespaces, pods, not several",
    ),
    ("from: [{pods: {}}]", "ingress[0].from[0].pods.podSelector: is required"),
    ("from: []", "ingress[0].from: is empty: give at least one entry"),
    ("name: a", "ingress[0].from: is required"),
    (
        "from: [{namespaces: {}}], log: true",
        "ingress[0].log: unknown field; known here: name, action, from, protocols",
    ),
    ("from: [{namespaces: {}}], protocols: []", "ingress[0].protocols: is empty: give at least one entry"),
    (
        "from: [{namespaces: {}}], protocols: [{}]",
        "ingress[0].protocols[0]: is empty: give tcp or udp or sctp or destinationNamedPort",
    ),
    (
        "from: [{namespaces: {}}], protocols: [{tcp: {}}]",
        "ingress[0].protocols[0].tcp: is empty: give destinationPort",
    ),
    (
        "from: [{namespaces: {}}], protocols: [{quic: {}}]",
        "ingress[0].protocols[0].quic: unknown field; known here: tcp, udp, sctp, destinationNamedPort",
    ),
    (
        "from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 1}}, destinationNamedPort: a}]",
        "ingress[0].protocols[0]: give one of tcp, udp, sctp, destinationNamedPort, not several",
    ),
    (
        "from: [{namespaces: {}}], protocols: [{udp: {destinationPort: {}}}]",
        "ingress[0].protocols[0].udp.destinationPort: is empty: give number or range",
    ),
    (
        "from: [{namespaces: {}}], protocols: [{udp: {destinationPort: {number: 0}}}]",
        "ingress[0].protocols[0].udp.destinationPort.number: 0 is no port: use a number from 1 to 65535",
    ),
    (
        "from: [{namespaces: {}}], protocols: [{udp: {destinationPort: {range: {start: 5, end: 5}}}}]",
        "ingress[0].protocols[0].udp.destinationPort.range: end 5 must lie above start 5",
    ),
    (
        "from: [{namespaces: {}}], protocols: [{udp: {destinationPort: {range: {start: 5}}}}]",
        "ingress[0].protocols[0].udp.destinationPort.range.end: is required",
    ),
    (
        "from: [{namespaces: {}}], protocols: [{sctp: {destinationPort: {number: 1, range: {start: 1, end: 2}}}}]",
        "ingress[0].protocols[0].sctp.destinationPort: give one of number, range, not several",
    ),
    ("to: [{networks: []}]", "egress[0].to[0].networks: is empty: give at least one entry"),
    (
        "to: [{networks: [10.0.0.1/8]}]",
        "egress[0].to[0].networks[0]: the API server refuses `10.0.0.1/8`: write 10.0.0.0/8",
    ),
    (
        "to: [{networks: ['::ffff:10.0.0.0/104']}]",
        "egress[0].to[0].networks[0]: the API server refuses `::ffff:10.0.0.0/104`: write 10.0.0.0/8",
    ),
    (
        "to: [{networks: [010.0.0.0/8]}]",
        "egress[0].to[0].networks[0]: the API server refuses `010.0.0.0/8`: write 10.0.0.0/8",
    ),
    (
        "to: [{networks: [10.0.0.0]}]",
        "egress[0].to[0].networks[0]: `10.0.0.0` is no block: for one address write 10.0.0.0/32",
    ),
    (
        "to: [{domainNames: [localhost]}]",
        "egress[0].to[0].domainNames[0]: `localhost` is no domain name: write one such as www.example.com",
    ),
    (
        "to: [{domainNames: ['a.*.com']}]",
        "egress[0].to[0].domainNames[0]: `a.*.com` is no domain name: write one such as www.example.com",
    ),
    (
        "to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: http}]",
        "egress[0]: destinationNamedPort cannot stand beside networks, nodes or domainNames, which have no named ports: \
         make two rules of it",
    ),
    (
        "to: [{pods: {podSelector: {}}}, {nodes: {}}], protocols: [{destinationNamedPort: http}]",
        "egress[0]: destinationNamedPort cannot stand beside networks, nodes or domainNames, which have no named ports: \
         make two rules of it",
    ),
];

#[test]
fn a_rule_with_peers_or_protocols_that_cannot_be_read_is_closed() {
    for (rule, problem) in CLOSED {
        for (action, left) in [("Accept", "Accept none"), ("Deny", "Deny any"), ("Pass", "Deny any")] {
            let direction = if rule.contains("to: ") { "egress" } else { "ingress" };
            let text = rules_text(&format!("{direction}: [{{action: {action}, {rule}}}]"));
            assert_problems(&text, &[&format!("7: spec.{problem}")]);
            let left = left.replace(' ', if rule.starts_with("name") { " a " } else { " " });
            assert_eq!(read(&text), format!("Admin 5 (*)/(*); {direction} [{left} : any]"), "{rule}");
        }
    }
}

#[test]
fn an_action_that_is_unknown_denies_what_the_rule_covers() {
    for (action, problem) in [
        ("action: Log, ", "7: spec.ingress[0].action: `Log` is unknown: use one of Accept, Deny, Pass"),
        ("", "7: spec.ingress[0].action: is required"),
    ] {
        let text =
            rules_text(&format!("ingress: [{{{action}from: [{{namespaces: {{matchLabels: {{a: b}}}}}}]}}]"));
        assert_problems(&text, &[problem]);
        assert_eq!(read(&text), "Admin 5 (*)/(*); ingress [Deny (a=b)/(*) : any]");
    }
    let text = rules_text("ingress: [null]");
    assert_eq!(
        said(&reading(&text).problems)[0],
        "7: spec.ingress[0]: is empty: the API server refuses that here"
    );
    assert_eq!(read(&text), "Admin 0 (*)/(*); ingress [Deny any : any]");
    let text = rules_text("ingress: {}");
    assert_problems(&text, &["7: spec.ingress: must be a list, but is an object"]);
    assert_eq!(read(&text), "Admin 5 (*)/(*); ingress [Deny any : any]");
}

/// What the API server refuses although its meaning is plain: it is a problem, and counts.
#[test]
fn what_is_too_long_or_twice_is_refused_and_counts() {
    let many = |entry: &str| vec![entry; 26].join(", ");
    let networks: Vec<_> = (0..26).map(|index| format!("10.{index}.0.0/16")).collect();
    for (rules, problem) in [
        (
            format!("ingress: [{}]", many("{action: Deny, from: [{namespaces: {}}]}")),
            "ingress: has 26 entries: the API server takes at most 25",
        ),
        (
            format!("ingress: [{{action: Deny, from: [{}]}}]", many("{namespaces: {}}")),
            "ingress[0].from: has 26 entries: the API server takes at most 25",
        ),
        (
            format!(
                "ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], protocols: [{}]}}]",
                many("{udp: {destinationPort: {number: 1}}}")
            ),
            "ingress[0].protocols: has 26 entries: the API server takes at most 25",
        ),
        (
            format!("egress: [{{action: Deny, to: [{{networks: [{}]}}]}}]", networks.join(", ")),
            "egress[0].to[0].networks: has 26 entries: the API server takes at most 25",
        ),
        (
            "egress: [{action: Deny, to: [{networks: [10.0.0.0/8, 10.0.0.0/8]}]}]".to_owned(),
            "egress[0].to[0].networks[1]: `10.0.0.0/8` is already there: keep one of them",
        ),
        (
            format!("ingress: [{{name: {}, action: Deny, from: [{{namespaces: {{}}}}]}}]", "ä".repeat(101)),
            "ingress[0].name: has 101 characters: the API server takes at most 100",
        ),
    ] {
        let text = rules_text(&rules);
        assert_problems(&text, &[&format!("7: spec.{problem}")]);
        let entries = read(&text).matches(", ").count() + read(&text).matches(" | ").count() + 1;
        assert_eq!(entries, if problem.contains("26") { 26 } else { entries }, "{rules}");
        assert!(!read(&text).contains("none"), "{rules}");
    }
    let longest = rules_text(&format!(
        "ingress: [{{name: {}, action: Deny, from: [{{namespaces: {{}}}}]}}]",
        "ä".repeat(100)
    ));
    assert_problems(&longest, &[]);
}

#[test]
fn what_cannot_match_is_said() {
    for (rules, warning, read_as) in [
        (
            "egress: [{action: Accept, to: [{domainNames: ['*.example.com', a.b.]}, {namespaces: {}}]}]",
            "7: spec.egress[0].to[0].domainNames: domain names are not resolved: this peer matches nothing",
            "egress [Accept *.example.com, a.b., (*)/(*) : any]",
        ),
        (
            "ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{destinationNamedPort: HTTP}]}]",
            "7: spec.ingress[0].protocols[0].destinationNamedPort: no container port can be named `HTTP`: it matches \
             nothing",
            "ingress [Accept (*)/(*) : TCP HTTP, UDP HTTP, SCTP HTTP]",
        ),
    ] {
        let text = rules_text(rules);
        let reading = reading(&text);
        assert_eq!((said(&reading.problems), said(&reading.warnings)), (vec![], vec![warning.to_owned()]));
        assert_eq!(read(&text), format!("Admin 5 (*)/(*); {read_as}"));
    }
    for action in ["Deny", "Pass"] {
        let text = rules_text(&format!("egress: [{{action: {action}, to: [{{domainNames: [a.b]}}]}}]"));
        let warnings = said(&reading(&text).warnings);
        let expected = format!(
            "7: spec.egress[0]: domainNames are for Accept rules: this {action} rule denies everything"
        );
        assert!(warnings.contains(&expected), "{warnings:?}");
        assert_eq!(read(&text), "Admin 5 (*)/(*); egress [Deny any : any]");
    }
}

#[test]
fn a_version_that_is_unknown_is_refused() {
    const READ: &str = "policy.networking.k8s.io/v1beta1 and policy.networking.k8s.io/v1alpha2";
    const RIGHT: &str = "write `apiVersion: policy.networking.k8s.io/v1beta1`";
    for (version, problem) in [
        (
            "policy.networking.k8s.io/v1",
            format!(
                "1: apiVersion: ClusterNetworkPolicy is not read in `policy.networking.k8s.io/v1`, but in {READ}"
            ),
        ),
        (
            "policy.networking.k8s.io/v1alpha1",
            format!(
                "1: apiVersion: ClusterNetworkPolicy is not read in `policy.networking.k8s.io/v1alpha1`, but in {READ}"
            ),
        ),
        (
            "networking.k8s.io/v1",
            format!("1: apiVersion: there is no ClusterNetworkPolicy in `networking.k8s.io/v1`: {RIGHT}"),
        ),
    ] {
        let text = policy_text("{tier: Admin, priority: 1, subject: {namespaces: {}}}");
        assert_problems(&text.replace("policy.networking.k8s.io/v1beta1", version), &[&problem]);
    }
    let misspelt = policy_text("{tier: Admin, priority: 1, subject: {namespaces: {}}}");
    let misspelt = misspelt.replace("kind: ClusterNetworkPolicy", "kind: ClusterNetworkPolcy");
    assert_eq!(said(&reading(&misspelt).problems).len(), 1);
}

#[test]
fn a_policy_of_the_cluster_belongs_to_no_namespace() {
    let text = policy_text("{tier: Admin, priority: 1, subject: {namespaces: {}}}");
    let reading = reading(&text);
    assert!(!reading.objects[0].in_default);
    assert!(cluster(&text).namespaces().is_empty());
}
