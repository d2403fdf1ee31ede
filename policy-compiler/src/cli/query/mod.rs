//! What people ask about, as it is written: parsed where the flags are, before any object is read.

mod end;
pub(crate) mod kind;
mod port;
mod selection;
mod traffic;

pub(crate) use end::{EndQuery, Written};
pub(crate) use port::PortQuery;
pub(crate) use selection::Selection;
pub(crate) use traffic::TrafficQuery;
