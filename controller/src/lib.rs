//! What the podfence agent is made of.
#![deny(unsafe_code)]

pub mod agent;
mod boot;
mod cluster_policies;
mod counters;
mod cutter;
mod datapath;
mod denials;
pub mod doors;
mod enforcer;
mod error;
mod events;
mod health;
mod heard;
mod http;
pub mod kernel;
mod message;
mod metrics;
mod node_addresses;
pub mod plugin;
mod refusals;
mod sandboxes;
mod source;
pub mod status;
pub mod threads;
mod token_bucket;
