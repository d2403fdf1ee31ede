//! The dry-run compiler.
fn main() {}
