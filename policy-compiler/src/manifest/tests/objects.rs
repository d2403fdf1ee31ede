//! The other kinds, lists, and what surrounds an object.

use super::{assert_problems, cluster, describe, reading, said};
use crate::model::{Labels, ObjectName, TargetPort};

#[test]
fn a_pod_is_read_with_its_addresses_and_ports() {
    for (rest, expected) in [
        ("", "default/p {}"),
        ("spec: {hostNetwork: yes, nodeName: n1}", "default/p {} on n1, host network"),
        ("spec: {nodeName: ''}", "default/p {}"),
        ("status: {phase: Succeeded, podIP: 10.0.0.1}", "default/p {} 10.0.0.1, finished"),
        ("status: {phase: Failed}", "default/p {}, finished"),
        ("status: {phase: Pending, podIPs: [], podIP: ''}", "default/p {}"),
        (
            "status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}",
            "default/p {} 10.0.0.1 fd00::1",
        ),
        ("status: {podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.1}]}", "default/p {} 10.0.0.1 10.0.0.2"),
        ("status: {podIP: '::ffff:10.0.0.1', hostIP: 10.9.9.9}", "default/p {} 10.0.0.1"),
        (
            "spec: {hostNetwork: true}\nstatus: {hostIP: 10.9.9.9, hostIPs: [{ip: 10.9.9.9}, {ip: 'fd00::9'}]}",
            "default/p {} 10.9.9.9 fd00::9, host network",
        ),
        (
            "spec: {hostNetwork: true}\nstatus: {hostIP: 10.9.9.9, podIP: 10.9.9.8}",
            "default/p {} 10.9.9.8, host network",
        ),
        (
            "spec: {containers: [{ports: [{containerPort: 80, name: http}, {containerPort: 53, protocol: UDP}]}, {name: x}]}",
            "default/p {} http=80/TCP 53/UDP",
        ),
        (
            "spec:\n  initContainers:\n  - ports: [{containerPort: 1}]\n  - {restartPolicy: Always, ports: [{containerPort: 2}]}\n  \
             containers: [{ports: [{containerPort: 3}]}]",
            "default/p {} 2/TCP 3/TCP",
        ),
    ] {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\n{rest}");
        let pods: Vec<_> = cluster(&text).pods().values().map(describe::pod).collect();
        assert_eq!(pods, [expected], "{rest}");
    }
}

#[test]
fn namespaces_and_nodes_are_read() {
    let cluster = cluster(
        "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {team: x, kubernetes.io/metadata.name: b}}}\n\
         ---\n\
         apiVersion: v1\nkind: Node\nmetadata: {name: n.example.com}\n\
         spec: {podCIDR: 10.1.0.0/24, podCIDRs: [10.1.0.0/24, 'fd00:1::/64']}\n\
         status:\n  addresses:\n  - {type: InternalIP, address: 192.168.0.1}\n  - {type: Hostname, address: n}\n  \
         - {type: ExternalIP, address: '2001:db8::1'}\n\
         ---\n\
         {apiVersion: v1, kind: Node, metadata: {name: m}, spec: {podCIDR: 10.2.0.0/24}}\n",
    );
    let labels = Labels::from([
        ("team".to_owned(), "x".to_owned()),
        ("kubernetes.io/metadata.name".to_owned(), "a".to_owned()),
    ]);
    assert_eq!(cluster.namespaces()["a"].labels(), &labels);
    let show = |name: &str| {
        let node = &cluster.nodes()[name];
        format!("{:?} {:?}", node.addresses, node.pod_ranges)
    };
    assert_eq!(show("n.example.com"), "[192.168.0.1, 2001:db8::1] [10.1.0.0/24, fd00:1::/64]");
    assert_eq!(show("m"), "[] [10.2.0.0/24]");
}

#[test]
fn a_service_is_read() {
    for (spec, addresses, selects, ports) in [
        ("", "[]", false, "[]"),
        ("spec: {clusterIP: None, clusterIPs: [None], selector: {a: b}}", "[]", true, "[]"),
        ("spec: {clusterIP: 10.0.0.1, selector: {}}", "[10.0.0.1]", false, "[]"),
        (
            "spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, 'fd00::1']}",
            "[10.0.0.1, fd00::1]",
            false,
            "[]",
        ),
        (
            "spec: {type: LoadBalancer, clusterIP: 10.0.0.1, externalIPs: [198.51.100.7], loadBalancerIP: 203.0.113.9}\n\
             status: {loadBalancer: {ingress: [{ip: 203.0.113.9}, {ip: 203.0.113.10, ipMode: VIP}, \
             {ip: 203.0.113.11, ipMode: Proxy}, {hostname: lb.example.com}]}}",
            "[10.0.0.1, 203.0.113.9, 198.51.100.7, 203.0.113.10]",
            false,
            "[]",
        ),
        ("spec: {type: ExternalName, externalName: db.example.com}", "[] db.example.com", false, "[]"),
        ("spec: {clusterIP: 10.0.0.1, externalName: db.example.com}", "[10.0.0.1]", false, "[]"),
        (
            "spec: {type: NodePort, ports: [{port: 80, nodePort: 30080}, {port: 81, nodePort: 0}]}",
            "[]",
            false,
            r#"["80/TCP->80 at 30080", "81/TCP->81"]"#,
        ),
        (
            "spec: {ports: [{port: 80}, {port: 81, targetPort: 8081, name: x}, {port: 53, protocol: UDP, targetPort: dns}]}",
            "[]",
            false,
            r#"["80/TCP->80", "81/TCP->8081", "53/UDP->dns"]"#,
        ),
    ] {
        let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\n{spec}");
        let cluster = cluster(&text);
        let service = cluster.services().values().next().unwrap();
        let shown: Vec<_> = service
            .ports
            .iter()
            .map(|port| {
                let target = match &port.target {
                    TargetPort::Number(number) => number.to_string(),
                    TargetPort::Name(name) => name.clone(),
                };
                let node_port = port.node_port.map(|port| format!(" at {port}")).unwrap_or_default();
                format!("{}/{}->{target}{node_port}", port.number, port.protocol)
            })
            .collect();
        let external = service.external_name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        assert_eq!(format!("{:?}{external}", service.addresses), addresses, "{spec}");
        assert_eq!((service.selector.is_some(), format!("{shown:?}").as_str()), (selects, ports), "{spec}");
    }
}

#[test]
fn backends_are_read_from_endpoints_and_endpoint_slices() {
    let slice = "apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, \
                 metadata: {name: s-1, labels: {kubernetes.io/service-name: s}}, ports: [{name: '', port: 80}, {}]";
    for (text, expected) in [
        (
            "{apiVersion: v1, kind: Endpoints, metadata: {name: s}, subsets: [{addresses: [{ip: 10.0.0.1}], \
             notReadyAddresses: [{ip: 10.0.0.2}], ports: [{name: a, port: 80}, {name: b, port: 53, protocol: UDP}]}, \
             {addresses: [{ip: 10.0.0.3}], ports: [{port: 81}]}]}"
                .to_owned(),
            &["[10.0.0.1] a=80/TCP b=53/UDP", "[10.0.0.3] 81/TCP"][..],
        ),
        ("{apiVersion: v1, kind: Endpoints, metadata: {name: other}, subsets: [{}]}".to_owned(), &[]),
        (
            format!(
                "{{{slice}, addressType: IPv6, endpoints: [{{addresses: ['fd00::1']}}, \
                 {{addresses: ['fd00::2'], conditions: {{ready: false}}}}, {{addresses: ['fd00::3'], \
                 conditions: {{ready: true}}}}]}}"
            ),
            &["[fd00::1, fd00::3] 80/TCP"],
        ),
        (format!("{{{slice}, addressType: FQDN, endpoints: [{{addresses: [db.example.com]}}]}}"), &[]),
    ] {
        let cluster = cluster(&text);
        let subsets = cluster.endpoints_of(&ObjectName::new("default", "s")).map(|subset| {
            let ports = subset.ports.iter().map(|port| {
                let name = port.name.as_ref().map(|name| format!("{name}=")).unwrap_or_default();
                format!(" {name}{}/{}", port.number, port.protocol)
            });
            format!("{:?}{}", subset.addresses, ports.collect::<String>())
        });
        assert_eq!(subsets.collect::<Vec<_>>(), expected, "{text}");
    }
}

#[test]
fn lists_of_every_sort_are_opened() {
    let item = "{apiVersion: v1, kind: Pod, metadata: {name: p}}";
    let bare = "{metadata: {name: p}}";
    for text in [
        format!("{{apiVersion: v1, kind: List, items: [{item}]}}"),
        format!("{{apiVersion: v1, kind: PodList, items: [{bare}]}}"),
        format!("{{apiVersion: v1, kind: PodList, metadata: {{}}, items: [{item}]}}"),
        format!(
            "{{apiVersion: v1, kind: List, items: [{{apiVersion: v1, kind: PodList, items: [{bare}]}}]}}"
        ),
    ] {
        assert_eq!(cluster(&text).pods().len(), 1, "{text}");
    }
    assert_problems(
        "apiVersion: v1\nkind: List\nitems:\n- metadata: {name: p}\n-\n- {apiVersion: v1, kind: Pod, metadata: {name: p, labels: {a: 1}}}",
        &[
            "4: items[0].apiVersion: is required",
            "4: items[0].kind: is required",
            "5: items[1].apiVersion: is required",
            "5: items[1].kind: is required",
            "6: items[2].metadata.labels.a: must be a string: put it in quotes, but is the number `1`",
        ],
    );
}

/// A list is read item by item, before it is known that it is one.
#[test]
fn the_items_of_a_list_count_wherever_its_kind_stands() {
    let items = "[{apiVersion: v1, kind: Pod, metadata: {name: a}},\n{apiVersion: v1, kind: Namespace, metadata: {name: b, labels: {c: 1}}}, \
                 {apiVersion: v1, kind: ConfigMap}, {metadata: {name: d}}]";
    let json = "[{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"a\"}},\n{\"apiVersion\": \"v1\", \"kind\": \
                \"Namespace\", \"metadata\": {\"name\": \"b\", \"labels\": {\"c\": 1}}}, {\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\"}, \
                {\"metadata\": {\"name\": \"d\"}}]";
    let label = "items[1].metadata.labels.c: must be a string: put it in quotes, but is the number `1`";
    for (text, line) in [
        (format!("apiVersion: v1\nitems: {items}\nkind: PodList"), 3),
        (format!("kind: PodList\nitems: {items}\napiVersion: v1"), 3),
        (format!("{{\"items\": {json}, \"kind\": \"PodList\", \"apiVersion\": \"v1\"}}"), 2),
        (format!("\n{{\"kind\": \"PodList\", \"apiVersion\": \"v1\", \"items\": {json}}}"), 3),
    ] {
        let reading = reading(&text);
        assert_eq!(said(&reading.problems), [format!("{line}: {label}")], "{text}");
        let lines: Vec<_> = reading.objects.iter().map(|object| object.origin.line).collect();
        assert_eq!((lines, reading.unread.len()), (vec![line - 1, line, line], 1), "{text}");
    }
    for text in [
        format!("apiVersion: v1\nitems: {items}\nkind: Other"),
        format!("{{\"items\": {json}, \"kind\": \"Other\", \"apiVersion\": \"v1\"}}"),
    ] {
        let reading = reading(&text);
        assert_eq!((reading.objects, reading.problems), (vec![], vec![]), "{text}");
        assert_eq!(reading.unread.iter().map(|unread| &unread.kind).collect::<Vec<_>>(), ["Other"], "{text}");
    }
    for items in ["", "null", "[]", "[  # nothing\n]"] {
        let reading = reading(&format!("apiVersion: v1\nkind: List\nitems: {items}\n"));
        assert_eq!((reading.objects, reading.problems, reading.unread.len()), (vec![], vec![], 0), "{items}");
    }
}

#[test]
fn a_repeated_key_matters_where_it_is_read() {
    let pod = |spec: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n");
    assert_problems(
        &pod("{containers: [{envFrom: [], envFrom: [], env: {a: 1, a: 2}}], volumes: [], volumes: []}"),
        &[],
    );
    assert_problems(
        &pod("{containers: [{ports: [], envFrom: [],\nports: []}], nodeName: a,\nnodeName: b}"),
        &[
            "5: spec.containers[0].ports: the key is already there on line 4: keep one of them",
            "6: spec.nodeName: the key is already there on line 5: keep one of them",
        ],
    );
    assert_problems(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nmetadata: {name: b}",
        &["4: metadata: the key is already there on line 3: keep one of them"],
    );
}

#[test]
fn mistakes_outside_policies_are_found() {
    for (text, problems) in [
        ("kind: Pod", &["1: apiVersion: is required"][..]),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {metadata: 1, spec: 1}}",
            &[
                "4: spec.template.metadata: must be an object (`key: value`), but is the number `1`",
                "4: spec.template.spec: must be an object (`key: value`), but is the number `1`",
            ],
        ),
        ("apiVersion: v1\nmetadata: {name: a}", &["1: kind: is required"]),
        ("apiVersion: v1\nkind: Pod", &["1: metadata: is required"]),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}", &["3: metadata.name: is required"]),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: 1}",
            &["3: metadata.name: must be a string: put it in quotes, but is the number `1`"],
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: 'a b', namespace: '.'}",
            &[
                "3: metadata.namespace: `.` is no name: at most 253 letters, digits, `-`, `_` and `.`, a letter or digit at both ends",
                "3: metadata.name: `a b` is no name: at most 253 letters, digits, `-`, `_` and `.`, a letter or digit at both ends",
            ],
        ),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}", &["1: spec: is required"]),
        (
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}\nspec: {}",
            &["4: spec.jobTemplate: is required"],
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {x.io/b: true}}\nspec:\n  hostNetwork: 1\n  \
             containers:\n  - ports: [{containerPort: 70000}, {name: x}, {containerPort: 1, protocol: tcp}]\n\
             status:\n  podIP: 10.0.0\n  podIPs:\n  - 10.0.0.1",
            &[
                "3: metadata.labels[`x.io/b`]: must be a string: put it in quotes, but is the boolean `true`",
                "5: spec.hostNetwork: must be true or false, but is the number `1`",
                "7: spec.containers[0].ports[0].containerPort: 70000 is no port: use a number from 1 to 65535",
                "7: spec.containers[0].ports[1].containerPort: is required",
                "7: spec.containers[0].ports[2].protocol: `tcp` is no protocol: use TCP, UDP or SCTP",
                "9: status.podIP: `10.0.0` is no IP address",
                "11: status.podIPs[0]: must be an object (`key: value`), but is the string `10.0.0.1`",
            ],
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  clusterIP: x\n  ports:\n  - {}\n  \
             - {port: 1, targetPort: '80'}",
            &[
                "5: spec.clusterIP: `x` is no IP address",
                "7: spec.ports[0].port: is required",
                "8: spec.ports[1].targetPort: a number in quotes is taken for a name: write `80` without",
            ],
        ),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDR: x}\nstatus: {addresses: [{type: InternalIP, address: x}]}",
            &[
                "4: spec.podCIDR: `x` is no block: write ADDRESS/LENGTH, such as 10.0.0.0/8",
                "5: status.addresses[0].address: `x` is no IP address",
            ],
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  name: b",
            &["5: metadata.name: the key is already there on line 4: keep one of them"],
        ),
        (
            "apiVersion: v1\nkind: Pod\nkind: Pod\nmetadata: {name: a}",
            &["3: kind: the key is already there on line 2: keep one of them"],
        ),
        (
            "apiVersion: v1\nkind: List\nitems: []\nitems: []",
            &["4: items: the key is already there on line 3: keep one of them"],
        ),
        ("apiVersion: v1\nkind: List\nitems: {}", &["3: items: must be a list, but is an object"]),
        (
            "kind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}",
            &["1: apiVersion: is required"],
        ),
        (
            "apiVersion: v1\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}",
            &["1: kind: is required"],
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nlabels: {b: c}",
            &["4: labels: unknown field; known here: apiVersion, kind, metadata, spec, status"],
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  template:\n    metdata: {labels: {b: c}}",
            &["6: spec.template.metdata: unknown field; did you mean `metadata`?"],
        ),
    ] {
        assert_problems(text, problems);
    }
}

#[test]
fn addresses_of_the_node_itself_lead_nowhere() {
    for (text, problems) in [
        (
            "apiVersion: v1\nkind: Endpoints\nmetadata: {name: a}\nsubsets: [{addresses: [{ip: 127.0.0.1}, {ip: 10.0.0.1}]}]",
            &[
                "4: subsets[0].addresses[0].ip: the API server refuses 127.0.0.1 here: it is an unspecified, loopback or link-local address",
            ][..],
        ),
        (
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv6\n\
             endpoints: [{addresses: ['fe80::1']}, {addresses: ['fd00::1']}]",
            &[
                "5: endpoints[0].addresses[0]: the API server refuses fe80::1 here: it is an unspecified, loopback or link-local address",
            ],
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {externalIPs: [224.0.0.1, 0.0.0.0, 239.0.0.1]}",
            &[
                "4: spec.externalIPs[0]: the API server refuses 224.0.0.1 here: it is an unspecified, loopback or link-local address",
                "4: spec.externalIPs[1]: the API server refuses 0.0.0.0 here: it is an unspecified, loopback or link-local address",
            ],
        ),
    ] {
        assert_problems(text, problems);
    }
}

#[test]
fn what_only_the_api_server_would_refuse_is_a_warning() {
    for (metadata, warning) in [
        (
            "name: a_b",
            "metadata.name: the API server refuses `a_b`: it wants lower-case letters, digits, `-`, `.`",
        ),
        (
            "name: a, namespace: A",
            "metadata.namespace: the API server refuses `A`: it wants lower-case letters, digits, `-`",
        ),
        (
            "name: a, labels: {b: '-c'}",
            "metadata.labels.b: `-c` is no label value: at most 63 letters, digits, `-`, `_` and `.`, a letter \
             or digit at both ends",
        ),
    ] {
        let reading = reading(&format!("{{apiVersion: v1, kind: Pod, metadata: {{{metadata}}}}}"));
        assert_eq!(
            (said(&reading.problems), said(&reading.warnings)),
            (vec![], vec![format!("1: {warning}")])
        );
    }
}
