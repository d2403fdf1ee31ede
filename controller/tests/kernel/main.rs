//! The data plane against the real kernel, with nft as a witness. Every test has its own network namespace.

mod rulesets;
mod support;

use support::{in_namespace, instructions, kernel_with, listing, nft, present};

#[test]
fn nft_lists_what_was_applied_as_if_it_had_loaded_the_text() {
    let ruleset = rulesets::everything();
    let loaded = in_namespace(|| {
        nft(&["-f", "-"], &ruleset.to_string());
        (listing(), instructions())
    });
    in_namespace(|| {
        kernel_with(&ruleset);
        assert_eq!(listing(), loaded.0);
        assert_eq!(instructions(), loaded.1);
        let listed = nft(&["list", "ruleset"], "");
        nft(&["flush", "ruleset"], "");
        nft(&["-f", "-"], &listed);
        assert_eq!(listing(), loaded.0);
    });
}

#[test]
fn what_is_read_is_what_was_applied_or_loaded_by_nft() {
    let ruleset = rulesets::everything();
    in_namespace(|| assert_eq!(present(&mut kernel_with(&ruleset), &ruleset), ruleset));
    in_namespace(|| {
        nft(&["-f", "-"], &ruleset.to_string());
        assert_eq!(present(&mut controller::kernel::Kernel::open().unwrap(), &ruleset), ruleset);
    });
}
