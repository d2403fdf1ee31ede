//! What makes pods stands for one, whatever its kind.

use super::{cluster, describe, reading};

/// The pods of a text, in a line each.
fn pods(text: &str) -> Vec<String> {
    cluster(text).pods().values().map(describe::pod).collect()
}

const TEMPLATE: &str = "{metadata: {labels: {app: web}}, spec: {hostNetwork: true, containers: [{ports: [{containerPort: 80}]}]}}";

#[test]
fn a_workload_stands_for_one_pod_of_its_template() {
    let direct = format!("spec: {{template: {TEMPLATE}}}");
    let whole = "spec: {hostNetwork: true, containers: [{ports: [{containerPort: 80}]}]}".to_owned();
    let nested = format!("spec: {{jobTemplate: {{spec: {{template: {TEMPLATE}}}}}}}");
    for (api_version, kind, rest) in [
        ("apps/v1", "Deployment", &direct),
        ("extensions/v1beta1", "Deployment", &direct),
        ("apps/v1", "DaemonSet", &direct),
        ("apps/v1", "ReplicaSet", &direct),
        ("v1", "ReplicationController", &direct),
        ("batch/v1beta1", "CronJob", &nested),
        ("argoproj.io/v1alpha1", "Rollout", &direct),
        ("apps.openshift.io/v1", "DeploymentConfig", &direct),
        ("apps.kruise.io/v1alpha1", "CloneSet", &direct),
        ("apps.kruise.io/v1beta1", "StatefulSet", &direct),
        ("serving.knative.dev/v1", "Service", &direct),
        ("serving.knative.dev/v1", "Configuration", &direct),
        ("serving.knative.dev/v1", "Revision", &whole),
        ("keda.sh/v1alpha1", "ScaledJob", &format!("spec: {{jobTargetRef: {{template: {TEMPLATE}}}}}")),
        ("v1", "PodTemplate", &format!("template: {TEMPLATE}")),
        ("example.com/v1", "AnyKind", &nested),
    ] {
        let text = format!(
            "apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: w, namespace: shop, labels: {{app: web}}}}\n{rest}"
        );
        let pods = pods(&text);
        assert!(
            pods[0].starts_with("shop/w {app=web") && pods[0].ends_with("} 80/TCP, host network"),
            "{kind}: {pods:?}"
        );
    }
}

#[test]
fn a_virtual_machine_has_the_labels_of_its_template() {
    let spec = "spec: {domain: {devices: {}}}";
    let added = "kubevirt.io=virt-launcher,vm.kubevirt.io/name=w";
    for text in [
        format!(
            "kind: VirtualMachine, metadata: {{name: w}}, spec: {{template: {{metadata: {{labels: {{a: b}}}}, {spec}}}}}"
        ),
        format!("kind: VirtualMachineInstance, metadata: {{name: w, labels: {{a: b}}}}, {spec}"),
    ] {
        assert_eq!(
            pods(&format!("{{apiVersion: kubevirt.io/v1, {text}}}")),
            [format!("default/w {{a=b,{added}}}")],
            "{text}"
        );
    }
}

#[test]
fn a_kind_without_a_pod_template_is_not_read() {
    for text in [
        "apiVersion: monitoring.coreos.com/v1, kind: Prometheus, spec: {containers: [{name: x}]}",
        "apiVersion: argoproj.io/v1alpha1, kind: Rollout, spec: {workloadRef: {name: web}}",
        "apiVersion: cert-manager.io/v1, kind: Certificate, spec: {template: {spec: {}}}",
        "apiVersion: example.com/v1, kind: Site, spec: {template: {spec: {domain: example.com, containers: 2}}}",
    ] {
        let reading = reading(&format!("{{{text}, metadata: {{name: w, namespace: shop}}}}"));
        assert_eq!((reading.objects.len(), reading.unread.len(), reading.problems), (0, 1, vec![]), "{text}");
    }
}

#[test]
fn pods_have_the_labels_that_controllers_are_known_to_add() {
    let job = "batch.kubernetes.io/job-name=w,job-name=w";
    let replica = |index: u8| {
        format!("apps.kubernetes.io/pod-index={index},statefulset.kubernetes.io/pod-name=w-{index}")
    };
    for (kind, spec, expected) in [
        ("batch/v1, kind: Job", "", job.to_owned()),
        ("batch/v1, kind: Job", "parallelism: 3", job.to_owned()),
        ("apps/v1, kind: StatefulSet", "", replica(0)),
        ("apps/v1, kind: StatefulSet", "replicas: 1, ordinals: {start: 4}", replica(4)),
        ("apps/v1, kind: StatefulSet", "replicas: 2", String::new()),
        ("apps/v1, kind: StatefulSet", "replicas: 0", String::new()),
        ("apps/v1, kind: Deployment", "", String::new()),
        ("apps.openshift.io/v1, kind: DeploymentConfig", "", "deploymentconfig=w".to_owned()),
        (
            "serving.knative.dev/v1, kind: Service",
            "",
            "serving.knative.dev/configuration=w,serving.knative.dev/service=w".to_owned(),
        ),
    ] {
        let separator = if spec.is_empty() { "" } else { ", " };
        let text = format!(
            "{{apiVersion: {kind}, metadata: {{name: w}}, spec: {{template: {{spec: {{containers: []}}}}{separator}{spec}}}}}"
        );
        assert_eq!(pods(&text), [format!("default/w {{{expected}}}")], "{text}");
    }
    let labelled = "{apiVersion: batch/v1, kind: Job, metadata: {name: w}, \
                    spec: {template: {metadata: {labels: {job-name: mine}}}}}";
    assert_eq!(pods(labelled), ["default/w {batch.kubernetes.io/job-name=w,job-name=mine}"]);
}

#[test]
fn a_generated_name_is_made_up_and_stays() {
    let job = |metadata: &str| format!("{{apiVersion: v1, kind: Pod, metadata: {{{metadata}}}}}\n");
    let text = format!("{0}---\n{0}", job("generateName: migrate-"));
    assert_eq!(pods(&text), ["default/migrate-bctjt {}", "default/migrate-h9gmr {}"]);
    assert_eq!(pods(&text), pods(&text));
    assert_eq!(pods(&job("name: a, generateName: migrate-")), ["default/a {}"]);
}
