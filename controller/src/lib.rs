//! What the podfence agent is made of.
#![deny(unsafe_code)]

pub mod agent;
mod cutter;
mod enforcer;
mod health;
pub mod kernel;
mod metrics;
mod source;
pub mod status;
