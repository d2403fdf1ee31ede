//! `metadata.annotations`

use super::fields::Mapping;
use crate::model::{AUDIT_ANNOTATION, asks_for_audit};

/// Whether an object's `metadata` asks for audit mode. What cannot be read does not.
pub(super) fn is_audited(metadata: &Mapping<'_>) -> bool {
    let audit = metadata.optional("annotations", |annotations| {
        annotations.mapping()?.optional(AUDIT_ANNOTATION, |value| value.text().map(asks_for_audit))
    });
    audit.ok().flatten().flatten().unwrap_or(false)
}
