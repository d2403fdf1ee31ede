//! `networking.k8s.io/v1 NetworkPolicy`
//!
//! A part that cannot be read never widens what the rest allows: an unreadable peer, port or rule matches
//! nothing, and where it is not clear which directions are isolated, both are. An unreadable `podSelector`
//! selects the whole namespace, and the rules are left out, for they would admit traffic to pods that the
//! policy was never meant for. An unknown field may be any of these, misspelt: so the policy isolates both
//! directions and has no rules.

use super::addresses;
use super::annotations::is_audited;
use super::fields::{Field, Mapping, Read};
use super::labels::label_selector;
use super::ports::{port_number, port_or_name, protocol};
use super::quoted::quoted;
use crate::model::{
    Direction, IpBlock, LabelSelector, NamespaceScope, NetworkPolicy, ObjectName, Peer, PodPeer, PortMatch,
    PortRange, Rule, TargetPort,
};

/// The fields of `meta/v1 ObjectMeta`, with one that old API servers wrote.
const METADATA_FIELDS: [&str; 16] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "ownerReferences",
    "finalizers",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
    "clusterName",
];

/// The directions that a policy isolates.
struct Isolates {
    ingress: bool,
    egress: bool,
}

pub(super) fn network_policy(object: &Mapping<'_>, name: ObjectName) -> NetworkPolicy {
    let mut policy = NetworkPolicy {
        name,
        subjects: LabelSelector::everything(),
        ingress: Some(Vec::new()),
        egress: None,
        audited: false,
        origin: Some(object.field().origin()),
    };
    let known = object.only(&["apiVersion", "kind", "metadata", "spec", "status"]);
    let metadata = metadata(object);
    policy.audited = metadata.unwrap_or_default();
    let spec = object.optional("spec", |field| read_spec(&field.mapping()?, &mut policy));
    if known.and(metadata).is_err() || spec.is_err() {
        policy.ingress = Some(Vec::new());
        policy.egress = Some(Vec::new());
    }
    policy
}

/// Whether `metadata` asks for audit mode; fails where there are unknown fields.
pub(super) fn metadata(object: &Mapping<'_>) -> Read<bool> {
    let audited = object.optional("metadata", |field| {
        let metadata = field.mapping()?;
        metadata.only(&METADATA_FIELDS).map(|()| is_audited(&metadata))
    });
    Ok(audited?.unwrap_or_default())
}

/// Reads `NetworkPolicySpec` into a policy; fails where there are unknown fields.
fn read_spec(spec: &Mapping<'_>, policy: &mut NetworkPolicy) -> Read<()> {
    let known = spec.only(&["podSelector", "policyTypes", "ingress", "egress"]);
    let subjects = spec.optional("podSelector", label_selector);
    let ingress = spec.list("ingress", |field| rule(field, Direction::Ingress));
    let egress = spec.list("egress", |field| rule(field, Direction::Egress));
    let isolates = match policy_types(spec) {
        Ok(Some(isolates)) => isolates,
        Ok(None) => {
            Isolates { ingress: true, egress: egress.as_ref().map_or(true, |rules| !rules.is_empty()) }
        }
        Err(_) => Isolates { ingress: true, egress: true },
    };
    policy.ingress = isolates.ingress.then(|| ingress.unwrap_or_default());
    policy.egress = isolates.egress.then(|| egress.unwrap_or_default());
    match subjects {
        Ok(subjects) => policy.subjects = subjects.unwrap_or_default(),
        Err(_) => [&mut policy.ingress, &mut policy.egress].into_iter().flatten().for_each(Vec::clear),
    }
    known
}

/// `policyTypes`; `None` where it is left to its default.
fn policy_types(spec: &Mapping<'_>) -> Read<Option<Isolates>> {
    let types: Vec<Direction> =
        spec.list("policyTypes", policy_type)?.into_iter().collect::<Read<Vec<_>>>()?;
    if types.is_empty() {
        return Ok(None);
    }
    if types.len() > 2
        && let Some(field) = spec.get("policyTypes")
    {
        return Err(field.problem("more than two entries: there are only Ingress and Egress"));
    }
    Ok(Some(Isolates {
        ingress: types.contains(&Direction::Ingress),
        egress: types.contains(&Direction::Egress),
    }))
}

fn policy_type(field: &Field<'_>) -> Read<Direction> {
    match field.text()? {
        "Ingress" => Ok(Direction::Ingress),
        "Egress" => Ok(Direction::Egress),
        other => Err(field.problem(format!("{} is no policy type: use Ingress or Egress", quoted(other)))),
    }
}

/// `NetworkPolicyIngressRule` or `NetworkPolicyEgressRule`
fn rule(field: &Field<'_>, direction: Direction) -> Rule {
    let origin = Some(field.origin());
    let peers_key = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let read = || {
        let rule = field.mapping()?;
        let known = rule.only(&[peers_key, "ports"]);
        let peers = rule.list(peers_key, peer);
        let ports = rule.list("ports", port);
        known?;
        Ok((restriction(peers), restriction(ports)))
    };
    let (peers, ports): (_, _) = Read::unwrap_or(read(), (Some(Vec::new()), Some(Vec::new())));
    Rule { peers, ports, origin }
}

/// What a list restricts a rule to: nothing where the list is empty, else its readable entries.
fn restriction<T>(list: Read<Vec<Read<T>>>) -> Option<Vec<T>> {
    match list {
        Ok(entries) if entries.is_empty() => None,
        Ok(entries) => Some(entries.into_iter().flatten().collect()),
        Err(_) => Some(Vec::new()),
    }
}

/// `NetworkPolicyPeer`
fn peer(field: &Field<'_>) -> Read<Peer> {
    let peer = field.mapping()?;
    let known = peer.only(&["podSelector", "namespaceSelector", "ipBlock"]);
    let pods = peer.optional("podSelector", label_selector);
    let namespaces = peer.optional("namespaceSelector", label_selector);
    let block = peer.optional("ipBlock", ip_block);
    known?;
    match (pods?, namespaces?, block?) {
        (None, None, Some(block)) => Ok(Peer::Block(block)),
        (_, _, Some(_)) => {
            Err(field.problem("ipBlock cannot stand beside a selector: make it a peer of its own"))
        }
        (None, None, None) => {
            Err(field.problem("names no peer: give podSelector, namespaceSelector or ipBlock"))
        }
        (pods, namespaces, None) => Ok(Peer::Pods(PodPeer {
            namespaces: namespaces.map_or(NamespaceScope::Own, NamespaceScope::Matching),
            pods: pods.unwrap_or_default(),
        })),
    }
}

/// `IPBlock`
fn ip_block(field: &Field<'_>) -> Read<IpBlock> {
    let block = field.mapping()?;
    let known = block.only(&["cidr", "except"]);
    let cidr = block.required("cidr").and_then(|field| addresses::block(&field));
    let except = block.list("except", |field| {
        let hole = addresses::block(field)?;
        match cidr {
            Ok(cidr) if !cidr.contains(&hole) || cidr == hole => {
                Err(field.problem(format!("{hole} must lie inside cidr {cidr} and be smaller")))
            }
            _ => Ok(hole),
        }
    });
    known?;
    Ok(IpBlock { cidr: cidr?, except: except?.into_iter().collect::<Read<_>>()? })
}

/// `NetworkPolicyPort`
fn port(field: &Field<'_>) -> Read<PortMatch> {
    let entry = field.mapping()?;
    let known = entry.only(&["protocol", "port", "endPort"]);
    let protocol = protocol(&entry);
    let first = entry.optional("port", port_or_name);
    let end_field = entry.get("endPort");
    let last = end_field.as_ref().map(|field| port_number(field).map(|number| (field, number))).transpose();
    known?;
    let protocol = protocol?;
    match (first?, last?) {
        (None, None) => Ok(PortMatch::All(protocol)),
        (Some(TargetPort::Number(port)), None) => Ok(PortMatch::Range(protocol, PortRange::single(port))),
        (Some(TargetPort::Name(name)), None) => Ok(PortMatch::Named(protocol, name)),
        (Some(TargetPort::Number(first)), Some((end, last))) => PortRange::new(first, last)
            .map(|range| PortMatch::Range(protocol, range))
            .ok_or_else(|| end.problem(format!("{last} lies below port {first}"))),
        (Some(TargetPort::Name(_)), Some((end, _))) => {
            Err(end.problem("needs a numeric port: a named port has no range"))
        }
        (None, Some((end, _))) => Err(end.problem("needs a port to start from")),
    }
}
