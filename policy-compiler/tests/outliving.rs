//! Policies of a namespace that is being deleted, or is not known, outlive their objects as long as its pods do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use policy_compiler::compile::Compiler;
use policy_compiler::model::{Direction, LabelSelector, Labels, Namespace, NetworkPolicy, ObjectName, Pod};
use policy_compiler::ruleset::Packet;

/// What happens, step by step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// The namespace is known, as one that is being deleted or not.
    Namespace {
        terminating: bool,
    },
    NamespaceGone,
    Policy,
    PolicyGone,
    Pod,
    PodGone,
    PodOfAnotherName,
    /// A table that was programmed before isolates the pod.
    WasIsolated,
}

use Step::{NamespaceGone, Pod as PodHere, PodGone, PodOfAnotherName, Policy, PolicyGone, WasIsolated};

const KNOWN: Step = Step::Namespace { terminating: false };
const TERMINATING: Step = Step::Namespace { terminating: true };

fn take(compiler: &mut Compiler, step: Step) {
    let shop: Arc<str> = "shop".into();
    let name = |name: &str| ObjectName::new("shop", name);
    let pod =
        |pod: &str, address: &str| Pod { addresses: vec![address.parse().unwrap()], ..Pod::new(name(pod)) };
    match step {
        Step::Namespace { terminating } => {
            let namespace = Namespace::new("shop", Labels::new()).with_terminating(terminating);
            compiler.put_namespace(&shop, Some(namespace));
        }
        NamespaceGone => compiler.put_namespace(&shop, None),
        Policy => {
            let policy = NetworkPolicy {
                name: name("closed"),
                subjects: LabelSelector::everything(),
                ingress: Some(Vec::new()),
                egress: None,
                audited: false,
                origin: None,
            };
            compiler.put_policy(&name("closed"), Some(policy));
        }
        PolicyGone => compiler.put_policy(&name("closed"), None),
        PodHere => compiler.put_pod(&name("pod"), Some(pod("pod", "10.0.0.1"))),
        PodGone => compiler.put_pod(&name("pod"), None),
        PodOfAnotherName => {
            let labels = Labels::from([("app".to_owned(), "other".to_owned())]);
            compiler.put_pod(&name("other"), Some(Pod { labels, ..pod("other", "10.0.0.2") }));
        }
        WasIsolated => compiler.keep_isolated(&name("pod"), Direction::Ingress),
    }
    compiler.update();
}

#[test]
fn what_goes_with_its_namespace_holds_until_the_last_pod_is_gone() {
    let cases: [(&[Step], bool); 18] = [
        (&[KNOWN, PodHere, Policy], true),
        (&[KNOWN, PodHere, Policy, PolicyGone], false),
        (&[KNOWN, PodHere, Policy, TERMINATING, PolicyGone], true),
        (&[KNOWN, PodHere, Policy, TERMINATING, PolicyGone, NamespaceGone], true),
        (&[KNOWN, PodHere, Policy, NamespaceGone, PolicyGone], true),
        (&[KNOWN, PodHere, Policy, TERMINATING, PolicyGone, KNOWN], false),
        (&[KNOWN, PodHere, Policy, TERMINATING, PolicyGone, NamespaceGone, KNOWN], false),
        (&[KNOWN, PodHere, Policy, TERMINATING, PolicyGone, Policy, KNOWN], true),
        (&[KNOWN, PodHere, Policy, NamespaceGone, PolicyGone, PodGone, PodHere], false),
        (&[KNOWN, PodHere, PodOfAnotherName, Policy, NamespaceGone, PolicyGone, PodGone, PodHere], true),
        (&[PodHere, Policy, PolicyGone], true),
        (&[PodHere, Policy, PolicyGone, KNOWN], false),
        (&[TERMINATING, PodHere, WasIsolated], true),
        (&[PodHere, WasIsolated], true),
        (&[PodHere, WasIsolated, NamespaceGone], true),
        (&[TERMINATING, PodHere, PodOfAnotherName, WasIsolated, PodGone, PodHere], true),
        (&[TERMINATING, PodHere, WasIsolated, KNOWN], false),
        (&[KNOWN, PodHere, WasIsolated], false),
    ];
    for (steps, isolated) in cases {
        let mut compiler = Compiler::new(None);
        for step in steps {
            take(&mut compiler, *step);
        }
        let [source, destination] = ["192.0.2.1", "10.0.0.1"].map(|address| address.parse().unwrap());
        let passes = compiler.ruleset().forwards(&Packet { source, destination, port: None });
        assert_eq!(!passes, isolated, "{steps:?}");
        if steps.contains(&WasIsolated) {
            let destination = "10.0.0.2".parse().unwrap();
            let passes = compiler.ruleset().forwards(&Packet { source, destination, port: None });
            assert!(passes, "{steps:?}: another pod was not isolated");
        }
    }
}
