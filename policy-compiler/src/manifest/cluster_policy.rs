//! `policy.networking.k8s.io ClusterNetworkPolicy`, with the validation of its CRD (network-policy-api v0.3.0).
//!
//! Fields of the experimental channel are read too. What cannot be read never widens what is allowed: a rule whose peers
//! or protocols cannot is [closed](TierRule::closed), one whose action cannot denies, and where anything else cannot, the
//! rules of the policy are [in doubt](ClusterNetworkPolicy::in_doubt).

use std::sync::Arc;

use super::addresses::canonical_block;
use super::fields::{Field, Mapping, Read};
use super::labels::label_selector;
use super::names::is_port_name;
use super::policy::metadata;
use super::ports::port_number;
use super::quoted::quoted;
use super::tree::Value;
use crate::model::{
    Action, ClusterNetworkPolicy, Direction, IpBlock, LabelSelector, NamespaceScope, Peer, PodPeer,
    PortMatch, PortRange, Priority, Protocol, Tier, TierRule,
};

/// The most entries that a list has.
const MAX_ITEMS: usize = 25;

/// The most characters that a rule's name has.
const MAX_NAME: usize = 100;

pub(super) fn cluster_network_policy(object: &Mapping<'_>, name: Arc<str>) -> ClusterNetworkPolicy {
    let known = object.only(&["apiVersion", "kind", "metadata", "spec", "status"]);
    let metadata = metadata(object);
    let mut policy = ClusterNetworkPolicy::unreadable(name);
    policy.origin = Some(object.field().origin());
    let spec = object.required("spec").and_then(|field| read_spec(&field.mapping()?, &mut policy));
    match (known, metadata, spec) {
        (Ok(()), Ok(audited), Ok(())) => ClusterNetworkPolicy { audited, ..policy },
        _ => policy.in_doubt(),
    }
}

/// Reads `spec` into a policy; fails where something besides the rules cannot be read.
fn read_spec(spec: &Mapping<'_>, policy: &mut ClusterNetworkPolicy) -> Read<()> {
    let known = spec.only(&["tier", "priority", "subject", "ingress", "egress"]);
    let complete = without_null(spec.field());
    policy.ingress = rules(spec, Direction::Ingress);
    policy.egress = rules(spec, Direction::Egress);
    let tier = spec.required("tier").and_then(|field| one_of(&field, Tier::ALL, Tier::as_str));
    let priority = spec.required("priority").and_then(|field| priority(&field));
    let subject = spec.required("subject").and_then(|field| subject(&field));
    if let Ok(subject) = &subject {
        policy.subject = subject.clone();
    }
    (policy.tier, policy.priority) = (tier?, priority?);
    subject.and(known).and(complete)
}

/// Reports every `null` that is not as if it were not there: the API server refuses one in a list, and drops a label
/// whose value is one, so that the selector selects more.
fn without_null(field: &Field<'_>) -> Read<()> {
    let not_null = |field: &Field<'_>, message: &str| {
        if field.node().is_null() { Err(field.problem(message)) } else { without_null(field) }
    };
    match &field.node().value {
        Value::Mapping(_) => {
            let object = field.mapping()?;
            let read = object.entries().map(|(key, value)| match &value.node().value {
                Value::Mapping(_) if key == "matchLabels" => {
                    let labels = value.mapping()?;
                    let message = "is empty: the API server drops the label, and selects more; write \"\"";
                    labels.entries().map(|(_, value)| not_null(&value, message)).fold(Ok(()), Read::and)
                }
                _ => without_null(&value),
            });
            read.fold(Ok(()), Read::and)
        }
        Value::Sequence(_) => {
            let items = field.items(|item| not_null(item, "is empty: the API server refuses that here"))?;
            items.into_iter().fold(Ok(()), Read::and)
        }
        _ => Ok(()),
    }
}

/// One of the values that the API knows by these names.
fn one_of<T: Copy, const COUNT: usize>(
    field: &Field<'_>,
    values: [T; COUNT],
    name: fn(T) -> &'static str,
) -> Read<T> {
    let text = field.text()?;
    values.into_iter().find(|value| name(*value) == text).ok_or_else(|| {
        let names = values.map(name).join(", ");
        field.problem(format!("{} is unknown: use one of {names}", quoted(text)))
    })
}

fn priority(field: &Field<'_>) -> Read<Priority> {
    const PRIORITY: &str = "a number from 0 to 1000";
    let number = field.integer(PRIORITY)?;
    u16::try_from(number)
        .ok()
        .and_then(Priority::new)
        .ok_or_else(|| field.problem(format!("{number} is no priority: use {PRIORITY}")))
}

/// `ClusterNetworkPolicySubject`
fn subject(field: &Field<'_>) -> Read<PodPeer> {
    let subject = field.mapping()?;
    match exactly_one(&subject, &["namespaces", "pods"])? {
        ("namespaces", selector) => namespaces(&selector),
        (_, selectors) => pods(&selectors),
    }
}

/// Every pod of the namespaces that a selector chooses.
fn namespaces(field: &Field<'_>) -> Read<PodPeer> {
    let namespaces = NamespaceScope::Matching(label_selector(field)?);
    Ok(PodPeer { namespaces, pods: LabelSelector::everything() })
}

/// `NamespacedPod`
fn pods(field: &Field<'_>) -> Read<PodPeer> {
    let selectors = field.mapping()?;
    let known = selectors.only(&["namespaceSelector", "podSelector"]);
    let namespaces = selectors.optional("namespaceSelector", label_selector);
    let pods = selectors.required("podSelector").and_then(|field| label_selector(&field));
    known?;
    Ok(PodPeer { namespaces: NamespaceScope::Matching(namespaces?.unwrap_or_default()), pods: pods? })
}

/// The only field of an object, one of these.
fn exactly_one<'m>(object: &'m Mapping<'_>, known: &[&str]) -> Read<(&'m str, Field<'m>)> {
    object.only(known)?;
    let mut entries = object.entries().filter(|(_, value)| !value.node().is_null());
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry),
        (None, _) => Err(object.field().problem(format!("is empty: give {}", known.join(" or ")))),
        (Some(_), Some(_)) => {
            Err(object.field().problem(format!("give one of {}, not several", known.join(", "))))
        }
    }
}

/// Reads a list of at most [`MAX_ITEMS`] entries. Those that are too many are reported and count.
fn items<T>(field: &Field<'_>, read: impl FnMut(&Field<'_>) -> T) -> Read<Vec<T>> {
    let items = field.items(read)?;
    if items.len() > MAX_ITEMS {
        field.problem(format!("has {} entries: the API server takes at most {MAX_ITEMS}", items.len()));
    }
    Ok(items)
}

/// Reads every entry of a list that has one to [`MAX_ITEMS`] of them.
fn some_items<T>(field: &Field<'_>, read: impl FnMut(&Field<'_>) -> Read<T>) -> Read<Vec<T>> {
    let items = items(field, read)?;
    if items.is_empty() {
        return Err(field.problem("is empty: give at least one entry"));
    }
    items.into_iter().collect()
}

/// The texts of a list that has none twice (`x-kubernetes-list-type: set`).
fn distinct<T>(field: &Field<'_>, read: impl Fn(&Field<'_>) -> Read<T>) -> Read<Vec<T>> {
    let mut texts = Vec::new();
    some_items(field, |item| {
        let text = item.text()?;
        if texts.contains(&text.to_owned()) {
            item.problem(format!("{} is already there: keep one of them", quoted(text)));
        }
        texts.push(text.to_owned());
        read(item)
    })
}

/// The rules of a direction. Where there is no list, any rule may have been meant.
fn rules(spec: &Mapping<'_>, direction: Direction) -> Vec<TierRule> {
    let rules = spec.optional(direction.as_str(), |field| items(field, |rule| read_rule(rule, direction)));
    rules.map_or_else(|_| vec![TierRule::deny_all()], Option::unwrap_or_default)
}

/// `ClusterNetworkPolicyIngressRule` or `ClusterNetworkPolicyEgressRule`
fn read_rule(field: &Field<'_>, direction: Direction) -> TierRule {
    let mut read = TierRule::deny_all();
    read.rule.origin = Some(field.origin());
    let Ok(rule) = field.mapping() else { return read };
    read.name = rule.optional("name", rule_name).ok().flatten();
    let action = rule.required("action").and_then(|field| one_of(&field, Action::ALL, Action::as_str));
    read.action = action.unwrap_or(Action::Deny);
    match read_covered(&rule, direction) {
        Ok((peers, ports)) => {
            let by_domain = peers.iter().any(|peer| matches!(peer, Peer::Domains(_)));
            read.rule.peers = Some(peers);
            read.rule.ports = ports;
            if by_domain && read.action != Action::Accept {
                let action = read.action;
                field.warn(format!("domainNames are for Accept rules: this {action} rule denies everything"));
                return read.closed();
            }
            read
        }
        Err(_) => read.closed(),
    }
}

fn rule_name(field: &Field<'_>) -> Read<Arc<str>> {
    let name = field.text()?;
    let length = name.chars().count();
    if length > MAX_NAME {
        field.problem(format!("has {length} characters: the API server takes at most {MAX_NAME}"));
    }
    Ok(name.into())
}

/// The peers and ports of a rule.
fn read_covered(rule: &Mapping<'_>, direction: Direction) -> Read<(Vec<Peer>, Option<Vec<PortMatch>>)> {
    let peers_key = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let known = rule.only(&["name", "action", peers_key, "protocols"]);
    let peers =
        rule.required(peers_key).and_then(|field| some_items(&field, |field| read_peers(field, direction)));
    let ports = rule.optional("protocols", |field| some_items(field, read_ports));
    known?;
    let peers: Vec<_> = peers?.into_iter().flatten().collect();
    let ports: Option<Vec<_>> = ports?.map(|ports| ports.into_iter().flatten().collect());
    let has_names = ports.iter().flatten().any(|port| matches!(port, PortMatch::Named(..)));
    if has_names && peers.iter().any(|peer| !matches!(peer, Peer::Pods(_))) {
        let message = "destinationNamedPort cannot stand beside networks, nodes or domainNames, which have no \
                       named ports: make two rules of it";
        return Err(rule.field().problem(message));
    }
    Ok((peers, ports))
}

/// `ClusterNetworkPolicyIngressPeer` or `ClusterNetworkPolicyEgressPeer`
fn read_peers(field: &Field<'_>, direction: Direction) -> Read<Vec<Peer>> {
    let known: &[_] = match direction {
        Direction::Ingress => &["namespaces", "pods"],
        Direction::Egress => &["namespaces", "pods", "networks", "nodes", "domainNames"],
    };
    let peer = field.mapping()?;
    let (key, value) = exactly_one(&peer, known)?;
    Ok(match key {
        "namespaces" => vec![Peer::Pods(namespaces(&value)?)],
        "pods" => vec![Peer::Pods(pods(&value)?)],
        "nodes" => vec![Peer::Nodes(label_selector(&value)?)],
        "networks" => {
            let blocks = distinct(&value, canonical_block)?.into_iter();
            blocks.map(|cidr| Peer::Block(IpBlock { cidr, except: Vec::new() })).collect()
        }
        _ => {
            let domains = distinct(&value, domain_name)?;
            value.warn("domain names are not resolved: this peer matches nothing");
            vec![Peer::Domains(domains)]
        }
    })
}

/// `DomainName`: at least two labels, and perhaps `*.` before and `.` behind them.
fn domain_name(field: &Field<'_>) -> Read<String> {
    let text = field.text()?;
    let labels = text.strip_prefix("*.").unwrap_or(text);
    let labels = labels.strip_suffix('.').unwrap_or(labels);
    let is_label = |label: &str| {
        label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            && label.starts_with(|c: char| c.is_ascii_alphanumeric())
            && label.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    if labels.contains('.') && labels.split('.').all(is_label) {
        Ok(text.to_owned())
    } else {
        Err(field.problem(format!("{} is no domain name: write one such as www.example.com", quoted(text))))
    }
}

/// `ClusterNetworkPolicyProtocol`
fn read_ports(field: &Field<'_>) -> Read<Vec<PortMatch>> {
    let entry = field.mapping()?;
    let (key, value) = exactly_one(&entry, &["tcp", "udp", "sctp", "destinationNamedPort"])?;
    let protocol = match key {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => {
            let name = value.text()?;
            if !is_port_name(name) {
                value.warn(format!("no container port can be named {}: it matches nothing", quoted(name)));
            }
            return Ok(Protocol::ALL.map(|protocol| PortMatch::Named(protocol, name.to_owned())).into());
        }
    };
    let destination = value.mapping()?;
    let (_, port) = exactly_one(&destination, &["destinationPort"])?;
    Ok(vec![PortMatch::Range(protocol, port_range(&port)?)])
}

/// `Port`
fn port_range(field: &Field<'_>) -> Read<PortRange> {
    let port = field.mapping()?;
    match exactly_one(&port, &["number", "range"])? {
        ("number", number) => port_number(&number).map(PortRange::single),
        (_, range) => {
            let ends = range.mapping()?;
            let known = ends.only(&["start", "end"]);
            let start = ends.required("start").and_then(|field| port_number(&field));
            let end = ends.required("end").and_then(|field| port_number(&field));
            known?;
            let (start, end) = (start?, end?);
            PortRange::new(start, end)
                .filter(|_| start < end)
                .ok_or_else(|| range.problem(format!("end {end} must lie above start {start}")))
        }
    }
}
