//! What the CNI plugin `podfence-cni` and the agent have in common.
//!
//! The plugin runs behind the one that gave a pod its interface. It reports the pod's [sandbox](protocol::Sandbox) to the
//! agent over a Unix socket and waits until the kernel has it. What the agent has been told is kept in
//! [records](records::Records), so that the next agent knows it, and a plugin that finds no agent can delete it.
//!
//! Without an agent the plugin helps itself: it restores what the node [enforced last](state), gives a pod of that state
//! its new addresses, and [closes](closed) those of which nothing is known.
//! [`installation`] puts the plugin into the node's CNI configuration, and takes it out again.
#![forbid(unsafe_code)]

pub mod closed;
pub mod installation;
pub mod netlink;
pub mod protocol;
pub mod records;
pub mod settings;
pub mod state;
pub mod version;
