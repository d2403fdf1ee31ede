//! What the podfence agent is made of.
#![deny(unsafe_code)]

pub mod agent;
mod allowance;
mod counters;
mod cutter;
mod datapath;
mod denials;
pub mod doors;
mod enforcer;
mod health;
pub mod kernel;
mod metrics;
mod netlink;
mod refusals;
mod rtnetlink;
mod source;
pub mod status;
