//! What Kubernetes NetworkPolicies mean, and the nftables ruleset that enforces them on a node.
#![forbid(unsafe_code)]

pub mod compile;
pub mod explain;
pub mod judge;
pub mod manifest;
pub mod model;
pub mod ruleset;
pub mod suggestion;
