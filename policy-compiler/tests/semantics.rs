//! What NetworkPolicies mean, row by row: the judge against the files in `semantics/`.
//!
//! A file's leading comment says what it is about and what is expected, a connection a line:
//! `#   from -> to  port[/protocol]|icmp [family]  allow | deny egress | deny ingress | deny egress ingress`.
//! An end is `namespace/pod`, a pod of the namespace `default`, or an address. Without a family, the verdict
//! holds in every family that the two ends have. A line `# pods-to-node: policy` says who judges that.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::Path;

use policy_compiler::judge::{Connection, Decision, Endpoint, Judge, Party, PolicyRule, Ruling, Traffic};
use policy_compiler::manifest::{self, Input};
use policy_compiler::model::{Cluster, Direction, Family, ObjectName, Pod, PodsToNode, Protocol};

/// A line of expectation.
struct Expectation<'t> {
    from: &'t str,
    to: &'t str,
    traffic: Traffic,
    family: Option<Family>,
    denying: Vec<&'t str>,
}

impl<'t> Expectation<'t> {
    /// Reads `line`; `None` for what is no expectation.
    fn parse(line: &'t str) -> Option<Self> {
        let words: Vec<_> = line.strip_prefix("#   ")?.split_whitespace().collect();
        let [from, "->", to, port, rest @ ..] = words.as_slice() else { panic!("cannot read `{line}`") };
        let family = Family::BOTH.into_iter().find(|family| rest.first() == Some(&&*family.to_string()));
        let denying = match &rest[usize::from(family.is_some())..] {
            ["allow"] => vec![],
            ["deny", directions @ ..] if !directions.is_empty() => directions.to_vec(),
            _ => panic!("no verdict in `{line}`"),
        };
        Some(Self { from, to, traffic: traffic(port), family, denying })
    }
}

fn traffic(port: &str) -> Traffic {
    match port.split_once('/') {
        _ if port == "icmp" => Traffic::Other,
        Some((number, protocol)) => Traffic::Port(protocol.parse().unwrap(), number.parse().unwrap()),
        None => Traffic::Port(Protocol::Tcp, port.parse().unwrap()),
    }
}

fn party<'a>(cluster: &'a Cluster, judge: &Judge<'a>, name: &str) -> Party<'a> {
    if let Ok(address) = name.parse() {
        return judge.party(Endpoint::Address(address));
    }
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let name = ObjectName::new(namespace, name);
    let pod = cluster.pods().get(&name).unwrap_or_else(|| panic!("there is no pod {name}"));
    judge.party(Endpoint::Pod(pod))
}

/// What a rule misses is nothing exactly if the rule is among those that allow.
fn check_misses<'a>(
    judge: &Judge<'a>,
    direction: Direction,
    connection: &Connection<'a>,
    ruling: &Ruling<'a>,
) {
    let Decision::Isolated { by, allowed_by } = &ruling.decision else { return };
    for policy in by {
        for (index, rule) in policy.rules(direction).unwrap().iter().enumerate() {
            let rule = PolicyRule { policy, index, rule };
            let miss = judge.miss(direction, rule, connection);
            assert_eq!(miss.is_none(), allowed_by.contains(&rule), "{connection:?} {rule:?}: {miss:?}");
        }
    }
}

/// Every line of the file that the judge sees otherwise.
fn disagreements(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let cluster = manifest::read(&[Input::Path(file.to_owned())]).unwrap().cluster;
    let choice = text.lines().find_map(|line| line.strip_prefix("# pods-to-node: "));
    let judge = Judge::new(&cluster)
        .with_pods_to_node(choice.map_or_else(PodsToNode::default, |choice| choice.parse().unwrap()));
    let expected = text.lines().filter_map(|line| Some((line, Expectation::parse(line)?)));
    let mut disagreements = Vec::new();
    let mut count = 0;
    for (line, Expectation { from, to, traffic, family, denying }) in expected {
        let (from, to) = (party(&cluster, &judge, from), party(&cluster, &judge, to));
        let families: Vec<_> = match family {
            Some(_) => vec![family],
            None => from.families_with(&to).to_vec(),
        };
        for family in families {
            let connection = Connection { from, to, family, traffic, through_service: false };
            let verdict = judge.verdict(&connection);
            let denies = |direction: &Direction| !verdict.ruling(*direction).allowed();
            let found: Vec<_> = Direction::BOTH.into_iter().filter(denies).map(Direction::as_str).collect();
            if found != denying {
                disagreements.push(format!("{}: {line}: denied by {found:?}", file.display()));
            }
            let ranges = judge.allowed_traffic(&from, &to, family);
            assert_eq!(
                ranges.iter().any(|range| range.contains(traffic)),
                found.is_empty(),
                "{line}: {ranges:?}"
            );
            for direction in Direction::BOTH {
                assert_eq!(judge.allows(direction, &connection), !denies(&direction), "{line}");
                check_misses(&judge, direction, &connection, verdict.ruling(direction));
            }
        }
        count += 1;
    }
    assert!(count > 0, "{} expects nothing", file.display());
    disagreements
}

#[test]
fn the_judge_sees_every_connection_as_specified() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/semantics");
    let files = manifest::files(&folder).unwrap();
    assert!(!files.is_empty());
    let disagreements: Vec<_> = files.iter().flat_map(|file| disagreements(file)).collect();
    assert!(disagreements.is_empty(), "{}", disagreements.join("\n"));
}

/// Which of some connections are allowed, in each family.
fn verdicts(judge: &Judge<'_>, from: &Pod, to: &Pod) -> Vec<(Option<Family>, Traffic, bool)> {
    let (from, to) = (judge.party(Endpoint::Pod(from)), judge.party(Endpoint::Pod(to)));
    let traffic = ["80", "81", "443", "8080", "53/UDP", "icmp"].map(traffic);
    let families = from.families_with(&to).iter();
    families
        .flat_map(|&family| traffic.map(|traffic| (family, traffic)))
        .map(|(family, traffic)| {
            let connection = Connection { from, to, family, traffic, through_service: false };
            (family, traffic, judge.verdict(&connection).allowed())
        })
        .collect()
}

#[test]
fn pods_of_one_kind_are_judged_alike() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/semantics");
    for file in manifest::files(&folder).unwrap() {
        let mut cluster = manifest::read(&[Input::Path(file.clone())]).unwrap().cluster;
        let pods: Vec<_> = cluster.pods().values().cloned().collect();
        for pod in pods {
            let name = ObjectName::new(pod.name.namespace.clone(), format!("{}-twin", pod.name.name));
            cluster.insert_pod(Pod { name, ..pod });
        }
        let judge = Judge::new(&cluster);
        let kinds = judge.kinds();
        let members = || cluster.pods().values().filter_map(|pod| Some((pod, *kinds.get(&pod.name)?)));
        let mut known = HashMap::new();
        for (from, source) in members() {
            for (to, destination) in members().filter(|(to, _)| to.name != from.name) {
                let verdicts = verdicts(&judge, from, to);
                let first = known.entry((source, destination)).or_insert_with(|| verdicts.clone());
                assert_eq!(*first, verdicts, "{}: {} -> {}", file.display(), from.name, to.name);
            }
        }
        let twins = members().filter(|(pod, _)| pod.name.name.ends_with("-twin"));
        for (twin, kind) in twins {
            let name = twin.name.name.trim_end_matches("-twin");
            let pod = ObjectName::new(twin.name.namespace.clone(), name);
            assert_eq!(kinds.get(&pod), Some(&kind), "{}: {pod}", file.display());
        }
    }
}
