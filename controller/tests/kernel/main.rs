//! The data plane against the real kernel, with nft as a witness. Every test has its own network namespace.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod both;
mod conntrack;
mod doors;
mod ownership;
mod refusal;
mod rulesets;
mod size;
mod support;
mod tampering;
mod transient;
mod walk;

use controller::kernel::Kernel;
use policy_compiler::ruleset::{Ruleset, Transaction};
use rulesets::raise_devices;
use support::{end, in_namespace, instructions, kernel_with, listing, loadable_listing, nft, present};

/// Everything that the tables can have.
fn everything() -> [Ruleset; 2] {
    [rulesets::everything(), rulesets::everything_at_devices()]
}

#[test]
fn nft_lists_what_was_applied_as_if_it_had_loaded_the_text() {
    for ruleset in everything() {
        let loaded = in_namespace(|| {
            raise_devices();
            nft(&["-f", "-"], &ruleset.to_string());
            (listing(), instructions())
        });
        in_namespace(|| {
            raise_devices();
            end(kernel_with(&ruleset));
            assert_eq!(listing(), loaded.0);
            assert_eq!(instructions(), loaded.1);
            let listed = loadable_listing();
            nft(&["flush", "ruleset"], "");
            nft(&["-f", "-"], &listed);
            assert_eq!(listing(), loaded.0);
            assert_eq!(present(&mut Kernel::open().unwrap(), &ruleset), ruleset);
        });
    }
}

#[test]
fn what_is_read_is_what_was_applied_or_loaded_by_nft() {
    for ruleset in everything() {
        in_namespace(|| {
            raise_devices();
            assert_eq!(present(&mut kernel_with(&ruleset), &ruleset), ruleset);
        });
        in_namespace(|| {
            raise_devices();
            nft(&["-f", "-"], &ruleset.to_string());
            assert_eq!(present(&mut Kernel::open().unwrap(), &ruleset), ruleset);
        });
    }
}

#[test]
fn a_table_that_is_not_there_reads_as_none_and_is_made_by_a_replacement() {
    in_namespace(|| {
        let ruleset = rulesets::small();
        let mut kernel = Kernel::open().unwrap();
        assert!(kernel.read().unwrap().is_none());
        assert!(!kernel.delete_tables().unwrap());
        kernel.apply(&Transaction::replace(&ruleset)).unwrap();
        assert_eq!(present(&mut kernel, &ruleset), ruleset);
        assert!(kernel.delete_tables().unwrap());
        assert!(kernel.read().unwrap().is_none());
    });
}

#[test]
fn counters_are_read_with_the_rule_that_counts() {
    in_namespace(|| {
        let counted =
            rulesets::small().to_string().replace("counter drop", "counter packets 3 bytes 180 drop");
        nft(&["-f", "-"], &counted);
        let table = Kernel::open().unwrap().read().unwrap().unwrap();
        let chain = table.chains.iter().find(|(name, _)| name.name() == "group_1").unwrap().1;
        let denied = chain.rules.last().unwrap();
        assert_eq!(denied.comment.as_deref(), Some("denied"));
        assert_eq!(denied.counter, Some(chain.counter()));
        assert_eq!((chain.counter().packets, chain.counter().bytes), (3, 180));
        assert_eq!(table.as_ruleset(&rulesets::small()), rulesets::small());
    });
}
