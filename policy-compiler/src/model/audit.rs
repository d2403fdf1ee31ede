//! Audit mode: what would be denied is logged and passes.

/// The annotation that puts a policy, or all policies of a namespace, into audit mode.
pub const AUDIT_ANNOTATION: &str = "podfence.io/audit";

/// Whether a value of [`AUDIT_ANNOTATION`] says so. Everything but `true` enforces.
pub fn asks_for_audit(value: &str) -> bool {
    value == "true"
}
