//! The syntax of names (`k8s.io/apimachinery/pkg/util/validation`).

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::model::Origin;

/// The text is no name of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a namespace: at most 63 lower-case letters, digits and `-`, no `-` at the ends")]
pub struct InvalidNamespace(String);

/// Reads the name of a namespace.
///
/// # Errors
/// The API server would not take the name.
pub fn namespace_name(text: &str) -> Result<Arc<str>, InvalidNamespace> {
    if is_dns_label(text) { Ok(text.into()) } else { Err(InvalidNamespace(text.to_owned())) }
}

/// RFC 1123 label: a namespace, a Service.
pub(super) fn is_dns_label(text: &str) -> bool {
    text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && starts_and_ends_alphanumeric(text)
}

/// RFC 1123 subdomain: every other object.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| {
            part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && starts_and_ends_alphanumeric(part)
        })
}

/// Looser than every name that the API takes, and still harmless wherever names are written.
pub(super) fn is_plain_name(text: &str) -> bool {
    text.len() <= 253 && is_qualified_text(text)
}

/// A label's key: a name with an optional DNS subdomain and a slash before it.
pub(super) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_qualified(name),
        None => is_qualified(text),
    }
}

/// A label's value.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified(text)
}

/// IANA service name (RFC 6335, 5.1), as the API wants it: in lower case.
pub(super) fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.contains("--")
        && starts_and_ends_alphanumeric(text)
}

fn is_qualified(text: &str) -> bool {
    text.len() <= 63 && is_qualified_text(text)
}

fn is_qualified_text(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && starts_and_ends_alphanumeric(text)
}

fn starts_and_ends_alphanumeric(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(alphanumeric) && text.ends_with(alphanumeric)
}

/// What was probably meant: at most two letters differ or are swapped, but not most of them.
pub(super) fn closest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let written = written.to_lowercase();
    let distances = known.into_iter().filter(|_| written.len() <= 40).map(|known| {
        let distance = strsim::osa_distance(&written, &known.to_lowercase());
        (distance, known)
    });
    let close = distances.filter(|(distance, known)| *distance <= 2 && distance * 2 <= known.len());
    close.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// A name as the API server makes it of `metadata.generateName`: with five letters and digits behind it. They are a
/// function of the place, so that they are the same each time, and in each copy of a directory.
pub(super) fn generated_name(prefix: &str, place: &Origin) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let file = Path::new(&*place.file).file_name().unwrap_or_default();
    let digest = Sha256::digest(format!("{}:{}", file.to_string_lossy(), place.line));
    let suffix = digest.iter().take(5).filter_map(|byte| ALPHABET.get(usize::from(*byte) % ALPHABET.len()));
    prefix.chars().chain(suffix.map(|letter| char::from(*letter))).collect()
}
