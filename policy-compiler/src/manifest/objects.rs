//! From a document to the objects in it.

use super::fields::{Field, Mapping, Read, Reported};
use super::kinds::{Kind, Type, is_known_or_policy, is_known_version, is_policy_kind, qualified};
use super::names::closest;
use super::pods::template;
use super::quoted::quoted;
use super::resources::read_resource;
use super::tree::{Entry, Node, Value};
use super::{Object, PassedOver, PassedOverKind, Reading, Unread, WorkloadKind};

/// `apiVersion` and `kind`, where a list says it for its items.
#[derive(Clone, Copy, Default)]
struct ItemType<'a> {
    api_version: Option<&'a str>,
    kind: Option<&'a str>,
}

/// What an object turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    List,
    Single,
}

/// Adds the objects of a document to what was read before. Returns whether it is a list, so that what was read of its
/// items before counts.
pub(super) fn read_document(root: &Field<'_>, reading: &mut Reading) -> bool {
    if is_object(root.node()) {
        return read_object(root, ItemType::default(), reading) == Ok(Form::List);
    }
    let policies = policies_inside(root.node());
    if policies > 0 && matches!(root.node().value, Value::Sequence(_)) {
        let message = "a list of objects is no manifest: put them under `items` of a `kind: List`";
        root.problem(message);
    } else {
        let kind = PassedOverKind::Foreign;
        reading.passed_over.push(PassedOver { origin: root.origin(), kind, policies });
    }
    false
}

/// Whether a document is a Kubernetes object, or was meant to be one. Files of other programs have a `kind` or an
/// `apiVersion` too.
fn is_object(document: &Node) -> bool {
    let has = |key| document.get(key).is_some();
    let get = |key| document.get(key).filter(|node| !node.is_null());
    match (get("apiVersion"), get("kind")) {
        (Some(_), Some(_)) => true,
        (None, None) => false,
        (None, Some(kind)) => {
            kind.text().is_some_and(|kind| is_known_or_policy(kind) || (kind == "List" && has("items")))
        }
        // A dump that was cut off has no `kind` behind its `items`.
        (Some(version), None) => {
            version.text().is_some_and(is_known_version) && (has("metadata") || has("items"))
        }
    }
}

fn read_object(field: &Field<'_>, item: ItemType<'_>, reading: &mut Reading) -> Read<Form> {
    let object = field.mapping()?;
    let api_version = type_field(&object, "apiVersion", item.api_version);
    let kind_name = type_field(&object, "kind", item.kind);
    let (api_version, kind_name) = (api_version?, kind_name?);
    if let Some(item_kind) = kind_name.strip_suffix("List")
        && (item_kind.is_empty() || object.get_or_null("items").is_some())
    {
        let item = match item_kind {
            "" => ItemType::default(),
            _ => ItemType { api_version: Some(&api_version), kind: Some(item_kind) },
        };
        let read = object.list("items", |object| {
            let _ = read_object(object, item, reading);
        });
        return read.map(|_| Form::List);
    }
    let kind = match Type::of(&api_version, &kind_name) {
        Type::Read(kind) => kind,
        Type::WrongVersion(kind) => {
            object.get("apiVersion").as_ref().unwrap_or(field).problem(kind.wrong_version(&api_version));
            kind
        }
        Type::WrongKind(kind) => {
            misspelt(&object, &kind_name, &api_version, kind.as_str());
            kind
        }
        Type::Other => {
            let kind = WorkloadKind::other(&api_version, &kind_name);
            if closest(&kind_name, ["List"]).is_some() && object.get_or_null("items").is_some() {
                return Err(misspelt(&object, &kind_name, &api_version, "List"));
            }
            if template(&object, &kind).is_none() {
                reading.unread.push(unread(&api_version, &kind_name, &object));
                return Ok(Form::Single);
            }
            Kind::Workload(kind)
        }
    };
    read_known(&kind, &object, reading).map(|()| Form::Single)
}

/// Reports a kind that the API server does not know.
fn misspelt(object: &Mapping<'_>, kind: &str, api_version: &str, meant: &str) -> Reported {
    let message = format!("there is no {} in {}: did you mean {meant}?", quoted(kind), quoted(api_version));
    object.get("kind").as_ref().unwrap_or(object.field()).problem(message)
}

/// Reads an object of a kind that is read. One with placeholders is a template: what is not filled in yet is passed
/// over, unless it is a policy.
fn read_known(kind: &Kind, object: &Mapping<'_>, reading: &mut Reading) -> Read<()> {
    let field = object.field();
    let read = read_resource(kind, object);
    for (placeholder, problem) in field.take_placeholders() {
        if !kind.is_policy() {
            let kind = PassedOverKind::Template(placeholder);
            reading.passed_over.push(PassedOver { origin: field.origin(), kind, policies: 0 });
            return Ok(());
        }
        field.report(problem);
    }
    let namespace = object.peek(&["metadata", "namespace"]).and_then(Node::text).unwrap_or_default();
    let in_default = namespace.is_empty() && kind.is_namespaced();
    reading.objects.push(Object { origin: field.origin(), resource: read?, in_default });
    Ok(())
}

fn type_field(object: &Mapping<'_>, key: &str, default: Option<&str>) -> Read<String> {
    match (object.get(key), default) {
        (None, Some(default)) => Ok(default.to_owned()),
        _ => Ok(object.required(key)?.text()?.to_owned()),
    }
}

/// What is kept of an object that is not read. Nothing that is wrong in it matters.
fn unread(api_version: &str, kind: &str, object: &Mapping<'_>) -> Unread {
    let text = |key| Some(object.peek(&["metadata", key])?.text()?.into());
    let is_policy = is_policy_kind(kind);
    Unread {
        kind: qualified(api_version, kind),
        namespace: text("namespace"),
        name: text("name").or_else(|| text("generateName")),
        origin: object.field().origin(),
        is_policy,
        policies_inside: if is_policy {
            0
        } else {
            let node = object.field().node();
            policies_inside(node) + node.get("spec").map_or(0, policy_fields)
        },
    }
}

/// How many fields of a specification hold the rules of a policy, as `clusterNetworkPolicy` of Antrea's `ResourceExport`.
fn policy_fields(spec: &Node) -> usize {
    let has_rules =
        |node: &Node, key| matches!(node.get(key).map(|node| &node.value), Some(Value::Sequence(_)));
    let Value::Mapping(entries) = &spec.value else { return 0 };
    let is_policy = |entry: &&Entry| {
        entry.key.to_lowercase().ends_with("networkpolicy")
            && ["ingress", "egress"].into_iter().any(|key| has_rules(&entry.value, key))
    };
    entries.iter().filter(is_policy).count()
}

/// How many policies, of whatever engine, are written inside a value that is none itself: in a template, in another
/// policy that makes them, as text.
fn policies_inside(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(scalar) => text_policies(&scalar.text),
        Value::Sequence(items) => items.iter().map(policies_inside).sum(),
        Value::Mapping(entries) => {
            let has = |key| node.get(key).is_some();
            let is_policy = |kind: &Node| kind.text().is_some_and(is_policy_kind);
            if has("apiVersion") && (has("spec") || has("data")) && node.get("kind").is_some_and(is_policy) {
                return 1;
            }
            entries.iter().map(|entry| policies_inside(&entry.value)).sum()
        }
        Value::Repeated { .. } | Value::HandedOn => 0,
    }
}

/// The policies in a manifest that stands in a string.
fn text_policies(text: &str) -> usize {
    if !text.contains(Kind::NetworkPolicy.api_version()) {
        return 0;
    }
    let is_policy = |line: &&str| matches!(line.trim(), "kind: NetworkPolicy" | "kind: ClusterNetworkPolicy");
    text.lines().filter(is_policy).count()
}
