//! What the podfence agent is made of.

pub mod agent;
mod enforcer;
mod health;
pub mod kernel;
mod metrics;
mod source;
pub mod status;
