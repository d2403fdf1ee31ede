//! What the podfence agent is made of.

pub mod kernel;
