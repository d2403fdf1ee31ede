//! What needs `unsafe`: libnftnl's objects, of which the crate `nftnl` has only some, socket options, and the allocator.
//! Everything that leaves this module is safe to use.
#![expect(unsafe_code, reason = "this is where C is spoken to")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "libnftnl takes the numbers of attributes in 16 bits, and lengths, here of some hundred bytes, in 32"
)]

mod libnftnl;
mod memory;
mod socket;

pub(super) use libnftnl::{Desk, Elements, Name, Rule, Set, TableName};
pub(crate) use memory::give_back_memory;
pub(crate) use socket::check_strictly;
pub(super) use socket::{Received, Socket};
