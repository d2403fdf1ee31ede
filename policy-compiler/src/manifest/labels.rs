//! Labels and label selectors.

use std::collections::BTreeSet;

use super::fields::{Field, Read};
use super::names::{is_label_key, is_label_value};
use super::quoted::quoted;
use crate::model::{LabelSelector, Labels, Operator, Requirement};

pub(super) const KEY_SYNTAX: &str = "is no label key: at most 63 letters, digits, `-`, `_` and `.`, a letter or digit at \
                          both ends, and perhaps a DNS name and `/` before them";
pub(super) const VALUE_SYNTAX: &str = "is no label value: at most 63 letters, digits, `-`, `_` and `.`, a letter or digit \
                            at both ends";

/// `metadata.labels` or `spec.selector` of a Service, without what is no string. Nothing matches by a label
/// that breaks the API's syntax unless a selector breaks it too, so that is only a warning.
pub(super) fn labels(field: &Field<'_>) -> Labels {
    let Ok(mapping) = field.mapping() else { return Labels::new() };
    let label = |(key, value): (&str, Field<'_>)| {
        let text = value.text().ok()?;
        if !is_label_key(key) {
            value.warn(format!("{} {KEY_SYNTAX}", quoted(key)));
        }
        if !is_label_value(text) {
            value.warn(format!("{} {VALUE_SYNTAX}", quoted(text)));
        }
        Some((key.to_owned(), text.to_owned()))
    };
    mapping.entries().filter_map(label).collect()
}

/// `meta/v1 LabelSelector`
pub(super) fn label_selector(field: &Field<'_>) -> Read<LabelSelector> {
    let selector = field.mapping()?;
    let known = selector.only(&["matchLabels", "matchExpressions"]);
    let labels = selector.optional("matchLabels", match_labels);
    let expressions = selector.list("matchExpressions", requirement);
    known?;
    let mut requirements = labels?.unwrap_or_default();
    for expression in expressions? {
        requirements.push(expression?);
    }
    Ok(LabelSelector { requirements })
}

fn match_labels(field: &Field<'_>) -> Read<Vec<Requirement>> {
    let labels = field.mapping()?;
    let requirements: Vec<_> = labels
        .entries()
        .map(|(key, field)| {
            let key = label_key(&field, key);
            let value = label_value(&field);
            Ok(Requirement { key: key?, operator: Operator::In(BTreeSet::from([value?])) })
        })
        .collect();
    requirements.into_iter().collect()
}

/// `meta/v1 LabelSelectorRequirement`
fn requirement(field: &Field<'_>) -> Read<Requirement> {
    let requirement = field.mapping()?;
    let known = requirement.only(&["key", "operator", "values"]);
    let key = requirement.required("key").and_then(|field| label_key(&field, field.text()?));
    let values = requirement.list("values", label_value);
    let name = requirement.required("operator").and_then(|field| Ok((field, field.text()?)));
    let (operator_field, name) = name?;
    let values = || -> Read<BTreeSet<String>> { values?.into_iter().collect() };
    let operator = match name {
        "In" | "NotIn" => {
            let values = values()?;
            if values.is_empty() {
                return Err(field.problem(format!("operator {name} needs at least one entry in `values`")));
            }
            if name == "In" { Operator::In(values) } else { Operator::NotIn(values) }
        }
        "Exists" | "DoesNotExist" => {
            if !values()?.is_empty() {
                return Err(field.problem(format!("operator {name} takes no `values`")));
            }
            if name == "Exists" { Operator::Exists } else { Operator::DoesNotExist }
        }
        _ => {
            let name = quoted(name);
            return Err(operator_field
                .problem(format!("{name} is no operator: use In, NotIn, Exists or DoesNotExist")));
        }
    };
    known?;
    Ok(Requirement { key: key?, operator })
}

fn label_key(field: &Field<'_>, key: &str) -> Read<String> {
    if is_label_key(key) {
        Ok(key.to_owned())
    } else {
        Err(field.problem(format!("{} {KEY_SYNTAX}", quoted(key))))
    }
}

fn label_value(field: &Field<'_>) -> Read<String> {
    let text = field.text()?;
    if is_label_value(text) {
        Ok(text.to_owned())
    } else {
        Err(field.problem(format!("{} {VALUE_SYNTAX}", quoted(text))))
    }
}
