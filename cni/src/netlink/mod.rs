//! Netlink without a C library: messages read and written byte by byte, and a socket to the kernel's `nf_tables`.

mod message;
mod nftables;
pub(crate) mod numbers;
pub(crate) mod ruleset;

pub use message::{
    ATTRIBUTE_HEADER, Attribute, Attributes, HEADER, Header, Message, add_flags, messages, native_u32,
    netfilter, network_u32, set_flags, text, write, write_attribute, write_attributes, write_message,
    write_nested, zero_terminated,
};
pub use nftables::Error;
pub(crate) use nftables::{Batch, Nftables, Question};
