//! `metadata.annotations`

use ipnet::IpNet;

use super::addresses::allowed_sources;
use super::fields::Mapping;
use super::quoted::quoted;
use crate::model::{ALLOWED_SOURCES_ANNOTATION, AUDIT_ANNOTATION, asks_for_audit};

/// Whether an object's `metadata` asks for audit mode. What cannot be read does not.
pub(super) fn is_audited(metadata: &Mapping<'_>) -> bool {
    let audit = metadata.optional("annotations", |annotations| {
        annotations.mapping()?.optional(AUDIT_ANNOTATION, |value| value.text().map(asks_for_audit))
    });
    audit.ok().flatten().flatten().unwrap_or(false)
}

/// The sources that a namespace's `metadata` allows its pods. What cannot be read allows nothing.
pub(super) fn sources(metadata: &Mapping<'_>) -> Vec<IpNet> {
    let sources = metadata.optional("annotations", |annotations| {
        annotations.mapping()?.optional(ALLOWED_SOURCES_ANNOTATION, |value| {
            let (sources, unread) = allowed_sources(value.text()?);
            for part in unread {
                value.warn(format!("{} is neither an address nor a block: it allows nothing", quoted(&part)));
            }
            Ok(sources)
        })
    });
    sources.ok().flatten().flatten().unwrap_or_default()
}
