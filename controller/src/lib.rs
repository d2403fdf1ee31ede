//! What the podfence agent is made of.
#![deny(unsafe_code)]

pub mod agent;
mod allowance;
mod counters;
mod cutter;
mod datapath;
mod denials;
mod enforcer;
mod health;
pub mod kernel;
mod metrics;
mod netlink;
mod source;
pub mod status;
