//! The podfence agent.
fn main() {}
