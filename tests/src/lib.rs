//! The lab.
pub mod interpreter;
pub mod random;
