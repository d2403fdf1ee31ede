//! What the machine must give before a lab can be raised.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::namespace::Namespace;

/// Whether a lab can be raised here; if not, one sentence that says what is missing and what to do.
///
/// # Errors
/// There are no network namespaces, no iproute2 or no `nf_tables`.
pub fn available() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(examine).clone()
}

fn examine() -> Result<(), String> {
    let namespace = Namespace::new().map_err(|error| {
        format!(
            "the lab needs network namespaces ({error:#}): run it as root, or under tests/run-privileged where \
             the kernel allows user namespaces"
        )
    })?;
    namespace
        .ip("link set lo up\nlink add veth0 type veth peer name veth1\nlink add bridge0 type bridge\n")
        .map_err(|error| format!("the lab needs iproute2 (`ip`) and veth and bridge devices: {error:#}"))?;
    namespace
        .feed("nft", &["list", "tables"], "")
        .map_err(|error| format!("the lab needs nftables (`nft`) and a kernel with nf_tables: {error:#}"))?;
    Ok(())
}

/// Lets this process open as many files as its hard limit allows, and returns how many those are: every
/// connection under way is one.
pub(crate) fn raise_file_limit() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // A limit that cannot be raised leaves the one that was: probes then go in smaller portions.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
