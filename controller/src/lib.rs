//! What the podfence agent is made of.
#![deny(unsafe_code)]

pub mod agent;
mod counters;
mod cutter;
mod datapath;
mod denials;
pub mod doors;
mod enforcer;
mod error;
mod events;
mod health;
mod http;
pub mod kernel;
mod message;
mod metrics;
mod source;
pub mod status;
mod token_bucket;
