//! What is no object that is read: other kinds, other programs' files, templates, and what only looks like a policy.

use super::{assert_problems, reading, said};
use crate::manifest::{PassedOverKind, Placeholder, Resource};

#[test]
fn other_kinds_are_listed_and_passed_over() {
    let reading = reading(
        "{apiVersion: v1, kind: ConfigMap, data: {a: 1, a: 2}}\n---\n\
         {apiVersion: v1, kind: ConfigMapList, items: [{}, {}]}\n---\n\
         {apiVersion: example.com/v1, kind: AllowList, spec: [x]}\n---\n\
         {apiVersion: crd.projectcalico.org/v1, kind: NetworkPolicy, metadata: {name: b, namespace: a}}\n---\n\
         {apiVersion: serving.knative.dev/v1, kind: Service}\n",
    );
    let unread = reading.unread.iter().map(|unread| {
        let [namespace, name] = [&unread.namespace, &unread.name].map(|name| name.as_deref().unwrap_or("-"));
        format!("{}: {} {namespace}/{name}", unread.origin.line, unread.kind)
    });
    assert_eq!(
        unread.collect::<Vec<_>>(),
        [
            "1: ConfigMap -/-",
            "3: ConfigMap -/-",
            "3: ConfigMap -/-",
            "5: AllowList -/-",
            "7: NetworkPolicy.crd.projectcalico.org a/b",
            "9: Service.serving.knative.dev -/-"
        ]
    );
    assert_eq!((reading.objects.len(), reading.problems), (0, vec![]));
}

#[test]
fn a_policy_that_is_not_judged_is_told_from_other_objects() {
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, spec: {}}";
    let text_policy = "{a.yaml: \"apiVersion: networking.k8s.io/v1\\nkind: NetworkPolicy\\n---\\n\"}";
    for (text, expected) in [
        ("apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy", (true, 0)),
        ("apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy", (true, 0)),
        ("apiVersion: projectcalico.org/v3, kind: NetworkPolicy", (true, 0)),
        ("apiVersion: crd.projectcalico.org/v1, kind: GlobalNetworkPolicy", (true, 0)),
        ("apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy", (true, 0)),
        ("apiVersion: policy.networking.k8s.io/v1alpha1, kind: BaselineAdminNetworkPolicy", (true, 0)),
        ("apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy", (true, 0)),
        ("apiVersion: crd.antrea.io/v1beta1, kind: NetworkPolicy", (true, 0)),
        ("apiVersion: security.istio.io/v1, kind: AuthorizationPolicy", (true, 0)),
        ("apiVersion: cilium.io/v2, kind: CiliumNetworkPolcy", (true, 0)),
        ("apiVersion: example.com/v1, kind: AnyNetworkPolicy", (true, 0)),
        ("apiVersion: policy/v1, kind: PodDisruptionBudget", (false, 0)),
        ("apiVersion: cilium.io/v2, kind: CiliumNetworkPolicyList, items: [{}]", (true, 0)),
        (
            &format!("apiVersion: template.openshift.io/v1, kind: Template, objects: [{policy}, {policy}]"),
            (false, 2),
        ),
        (
            &format!(
                "apiVersion: policy.open-cluster-management.io/v1, kind: Policy, spec: {{a: [{{objectDefinition: {policy}}}]}}"
            ),
            (false, 1),
        ),
        (
            "apiVersion: v1, kind: Template, objects: [{apiVersion: extensions/v1beta1, kind: NetworkPolicy, spec: {}}, \
             {apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, spec: {}}, {apiVersion: v1, kind: Pod, spec: {}}]",
            (false, 2),
        ),
        (
            "apiVersion: kyverno.io/v1, kind: ClusterPolicy, spec: {rules: [{generate: {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, data: {}}}]}",
            (false, 1),
        ),
        (&format!("apiVersion: v1, kind: ConfigMap, data: {text_policy}"), (false, 1)),
        (
            "apiVersion: multicluster.crd.antrea.io/v1alpha1, kind: ResourceExport, \
             spec: {kind: AntreaClusterNetworkPolicy, clusterNetworkPolicy: {tier: a, ingress: [{action: Drop}]}}",
            (false, 1),
        ),
        ("apiVersion: example.com/v1, kind: Database, spec: {networkPolicy: {egress: [{}]}}", (false, 1)),
        ("apiVersion: example.com/v1, kind: Database, spec: {networkPolicy: {enabled: true}}", (false, 0)),
        (
            "apiVersion: v1, kind: Event, involvedObject: {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, name: p}",
            (false, 0),
        ),
        (
            "apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, spec: {names: {kind: NetworkPolicy}}",
            (false, 0),
        ),
    ] {
        let reading = reading(&format!("{{{text}}}"));
        assert_eq!(reading.problems, [], "{text}");
        let [unread] = &reading.unread[..] else { panic!("{text}: {reading:?}") };
        assert_eq!((unread.is_policy, unread.policies_inside), expected, "{text}");
    }
}

#[test]
fn a_document_that_is_no_object_is_passed_over() {
    for text in [
        "{}",
        "hello",
        "- op: replace\n  path: /spec",
        "services: {web: {image: x}}",
        "resources: [a.yaml]\npatches: []",
        "apiVersion: v2\nname: chart\nversion: 1.0.0",
        "apiVersion: v1\nname: chart",
        "apiVersion: 1\nproviders: []",
        "kind: pipeline\nsteps: []",
        "apiVersion: release-notes/v2\nkind:\n",
        "items: [{apiVersion: v1, kind: Pod}]",
    ] {
        let reading = reading(&format!("# a comment\n{text}\n"));
        assert_eq!(
            (reading.objects.len(), reading.unread.len(), &reading.problems),
            (0, 0, &vec![]),
            "{text}"
        );
        let [passed_over] = &reading.passed_over[..] else { panic!("{text}") };
        assert_eq!((&passed_over.kind, passed_over.origin.line), (&PassedOverKind::Foreign, 2), "{text}");
    }
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, spec: {}}";
    assert_eq!(reading(&format!("extraObjects: [{policy}]")).passed_over[0].policies, 1);
    assert_problems(
        &format!("{{apiVersion: v1, kind: Lsit, items: [{policy}]}}"),
        &["1: kind: there is no `Lsit` in `v1`: did you mean List?"],
    );
    assert_problems(
        &format!("[{policy}]"),
        &["1: a list of objects is no manifest: put them under `items` of a `kind: List`"],
    );
}

#[test]
fn a_template_is_passed_over_unless_it_is_a_policy() {
    let helm = "a Helm template: render it: `helm template CHART | podfence … -f -`";
    let variable =
        "a template with `${…}` in it: fill it in (`envsubst`, `oc process`) and give it as `-f -`";
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:";
    for (text, expected) in [
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: '{{ .Values.name }}'}", Ok(Placeholder::Helm)),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: \"${NAMESPACE}\"}",
            Ok(Placeholder::Variable),
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: '${{PORT}}'}]}",
            Ok(Placeholder::Variable),
        ),
        (
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: '{{ $name }}'}\n",
            Err(format!("3: metadata.name: `{{{{ $name }}}}` is not filled in: {helm}")),
        ),
        (
            &format!("{policy} {{podSelector: {{matchLabels: {{app: '${{APP}}'}}}}}}"),
            Err(format!("4: spec.podSelector.matchLabels.app: `${{APP}}` is not filled in: {variable}")),
        ),
    ] {
        let reading = reading(text);
        match expected {
            Ok(placeholder) => {
                assert_eq!((reading.objects.len(), reading.problems), (0, vec![]), "{text}");
                assert_eq!(reading.passed_over[0].kind, PassedOverKind::Template(placeholder), "{text}");
            }
            Err(problem) => assert_eq!(said(&reading.problems), [problem], "{text}"),
        }
    }
    let command = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {a: '{{ x }}'}}\n\
                   spec: {containers: [{args: ['${HOME}']}]}";
    assert_eq!((reading(command).objects.len(), reading(command).passed_over.len()), (1, 0));
}

#[test]
fn a_mistyped_kind_or_group_is_a_problem_and_read_as_what_was_meant() {
    let wrong_version = |kind: &str, given: &str, right: &str| {
        format!("apiVersion: there is no {kind} in `{given}`: write `apiVersion: {right}`")
    };
    let wrong_kind = |kind: &str, given: &str, meant: &str| {
        format!("kind: there is no `{kind}` in `{given}`: did you mean {meant}?")
    };
    let networking = "networking.k8s.io/v1";
    for (version, kind, right) in [
        ("extensions/v1beta1", "NetworkPolicy", networking),
        ("networking.k8s.io/v1beta1", "NetworkPolicy", networking),
        ("networking.k8s.io", "NetworkPolicy", networking),
        ("netwroking.k8s.io/v1", "NetworkPolicy", networking),
        ("Networking.k8s.io/v1", "NetworkPolicy", networking),
        ("network.k8s.io/v1", "NetworkPolicy", networking),
        ("networking.kubernetes.io/v1", "NetworkPolicy", networking),
        ("v1", "NetworkPolicy", networking),
        ("apps/v1", "Pod", "v1"),
        ("V1", "Pod", "v1"),
        ("v1", "Deployment", "apps/v1"),
        ("app/v1", "Deployment", "apps/v1"),
        ("apps/v1", "Job", "batch/v1"),
    ] {
        check(version, kind, &wrong_version(kind, version, right));
    }
    for (version, kind, meant) in [
        (networking, "NetworkPolcy", "NetworkPolicy"),
        (networking, "networkpolicy", "NetworkPolicy"),
        (networking, "Networkpolicy", "NetworkPolicy"),
        (networking, "NetworkPolicies", "NetworkPolicy"),
        (networking, "NetPol", "NetworkPolicy"),
        ("netwroking.k8s.io/v1", "NetworkPolcy", "NetworkPolicy"),
        ("v1", "networkPolicy", "NetworkPolicy"),
        ("v1", "pod", "Pod"),
        ("v1", "Pdo", "Pod"),
        ("v1", "NameSpace", "Namespace"),
        ("v1", "Servcie", "Service"),
        ("apps/v1", "Deploymnet", "Deployment"),
        ("apps/v1", "Statefulset", "StatefulSet"),
        ("batch/v1", "Cronjob", "CronJob"),
    ] {
        check(version, kind, &wrong_kind(kind, version, meant));
    }
    for (version, kind) in [
        ("v1", "Secret"),
        ("v1", "Config"),
        ("v1", "Route"),
        (networking, "Ingress"),
        (networking, "IPAddress"),
        ("networking.istio.io/v1", "ServiceEntry"),
        ("networking.gke.io/v1", "FQDNNetworkPolicy"),
        ("example.com/v1", "pod"),
    ] {
        let reading = reading(&format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: a}}}}"));
        assert_eq!((reading.unread.len(), reading.problems), (1, vec![]), "{version} {kind}");
    }
}

#[track_caller]
fn check(version: &str, kind: &str, problem: &str) {
    let template = "template: {}, jobTemplate: {spec: {template: {}}}";
    let spec = if kind.to_lowercase().starts_with("net") { "" } else { template };
    let text = format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: a}}, spec: {{{spec}}}}}");
    assert_problems(&text, &[&format!("1: {problem}")]);
    let is_policy = matches!(reading(&text).objects[0].resource, Resource::NetworkPolicy(_));
    assert_eq!(is_policy, spec.is_empty());
}
