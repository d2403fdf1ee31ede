//! Label selectors as `kubectl --selector` writes them.

use std::collections::BTreeSet;

use super::labels::{KEY_SYNTAX, VALUE_SYNTAX};
use super::names::{is_label_key, is_label_value};
use crate::model::{LabelSelector, Operator, Requirement};

/// Why a text is no label selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A key that the API would not take.
    #[error("`{0}` {KEY_SYNTAX}")]
    Key(String),
    /// A value that the API would not take.
    #[error("`{0}` {VALUE_SYNTAX}")]
    Value(String),
    /// Something else.
    #[error(
        "`{0}` is no requirement: write key=value, key!=value, key in (a,b), key notin (a,b), key or !key, \
         with commas between"
    )]
    Requirement(String),
}

/// Reads a selector such as `env=prod,tier in (web,api),!legacy`.
///
/// # Errors
///
/// The first part that cannot be read. An empty text is an error too: whoever means everything can say so.
pub fn label_selector(text: &str) -> Result<LabelSelector, SelectorError> {
    let mut depth = 0_usize;
    let parts = text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    Ok(LabelSelector { requirements: parts.map(|part| requirement(part.trim())).collect::<Result<_, _>>()? })
}

fn requirement(text: &str) -> Result<Requirement, SelectorError> {
    let no_requirement = || SelectorError::Requirement(text.to_owned());
    if text.is_empty() {
        return Err(no_requirement());
    }
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Requirement { key: key_of(key)?, operator: Operator::DoesNotExist });
    }
    if let Some((before, list)) = text.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(no_requirement)?;
        let values = list.split(',').map(value_of).collect::<Result<BTreeSet<_>, _>>()?;
        let (key, operator) = before.trim().split_once(char::is_whitespace).ok_or_else(no_requirement)?;
        let operator = match operator.trim() {
            "in" => Operator::In(values),
            "notin" => Operator::NotIn(values),
            _ => return Err(no_requirement()),
        };
        return Ok(Requirement { key: key_of(key)?, operator });
    }
    let (key, operator) = match (text.split_once("!="), text.split_once('=')) {
        (Some((key, value)), _) => (key, Operator::NotIn([value_of(value)?].into())),
        (None, Some((key, value))) => {
            (key, Operator::In([value_of(value.strip_prefix('=').unwrap_or(value))?].into()))
        }
        (None, None) => (text, Operator::Exists),
    };
    Ok(Requirement { key: key_of(key)?, operator })
}

fn key_of(text: &str) -> Result<String, SelectorError> {
    let key = text.trim();
    if is_label_key(key) { Ok(key.to_owned()) } else { Err(SelectorError::Key(key.to_owned())) }
}

fn value_of(text: &str) -> Result<String, SelectorError> {
    let value = text.trim();
    if is_label_value(value) { Ok(value.to_owned()) } else { Err(SelectorError::Value(value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn selectors_are_read_as_kubectl_reads_them() {
        let cases: [(&str, &[(&str, Operator)]); 8] = [
            ("env=prod", &[("env", Operator::In(set(&["prod"])))]),
            (" env == prod ", &[("env", Operator::In(set(&["prod"])))]),
            ("env=", &[("env", Operator::In(set(&[""])))]),
            ("env!=prod", &[("env", Operator::NotIn(set(&["prod"])))]),
            ("env in (prod, test)", &[("env", Operator::In(set(&["prod", "test"])))]),
            ("example.com/env notin (prod)", &[("example.com/env", Operator::NotIn(set(&["prod"])))]),
            ("kubernetes.io/metadata.name", &[("kubernetes.io/metadata.name", Operator::Exists)]),
            (
                "a in (x,y),!b,c",
                &[
                    ("a", Operator::In(set(&["x", "y"]))),
                    ("b", Operator::DoesNotExist),
                    ("c", Operator::Exists),
                ],
            ),
        ];
        for (text, expected) in cases {
            let expected = expected
                .iter()
                .map(|(key, operator)| Requirement { key: (*key).to_owned(), operator: operator.clone() });
            assert_eq!(label_selector(text).unwrap().requirements, expected.collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        let requirement = |text: &str| SelectorError::Requirement(text.to_owned());
        let cases = [
            ("", requirement("")),
            ("a,,b", requirement("")),
            ("a in (x", requirement("a in (x")),
            ("a among (x)", requirement("a among (x)")),
            ("in (x)", requirement("in (x)")),
            ("a b", SelectorError::Key("a b".to_owned())),
            ("=x", SelectorError::Key(String::new())),
            ("a=x y", SelectorError::Value("x y".to_owned())),
        ];
        for (text, error) in cases {
            assert_eq!(label_selector(text), Err(error), "{text}");
        }
    }
}
