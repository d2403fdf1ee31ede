//! The memory that the allocator keeps.

use nftnl::nftnl_sys::libc;

/// Gives the kernel back what was freed. The allocator keeps as much as it once had in its largest pieces, which an agent
/// needs only while it reads a whole table or a whole list.
pub(crate) fn give_back_memory() {
    // SAFETY: it takes a number, and any thread may call it at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
