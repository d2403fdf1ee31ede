//! The table has one owner at a time, and outlives it.

use controller::kernel::{Chain, Counter, Error, Kernel};
use policy_compiler::ruleset::{Ruleset, Transaction};

use crate::rulesets::small;
use crate::support::{
    end, in_namespace, kernel_with, kernel_with_orphan, listing, nft, present, take_over, tamper, try_nft,
};

/// What of the small ruleset another process might change.
const EDITS: &[&str] = &[
    "add element inet podfence peers { 10.6.6.6 }",
    "delete element inet podfence peers { 10.0.0.2 }",
    "insert rule inet podfence forward accept",
    "flush chain inet podfence group_1",
    "add chain inet podfence foreign",
    "add table inet podfence { flags dormant; }",
    "flush table inet podfence",
    "delete table inet podfence",
];

#[track_caller]
fn nobody_else_can_edit() {
    let before = listing();
    for edit in EDITS {
        let errors = try_nft(&["-f", "-"], edit).expect_err(edit);
        assert!(errors.contains("Operation not permitted"), "{edit}: {errors}");
    }
    nft(&["add", "table", "inet", "other"], "");
    nft(&["flush", "ruleset"], "");
    assert_eq!(nft(&["list", "tables"], "").trim(), "table inet podfence");
    assert_eq!(listing(), before);
}

#[test]
fn while_its_owner_lives_nobody_else_changes_the_table() {
    in_namespace(|| {
        let ruleset = small();
        let mut kernel = kernel_with(&ruleset);
        nobody_else_can_edit();
        kernel.apply(&Transaction::between(&ruleset, &Ruleset::default())).unwrap();
        assert_eq!(present(&mut kernel, &ruleset), Ruleset::default());
    });
}

#[test]
fn a_second_owner_waits_until_the_first_has_ended() {
    in_namespace(|| {
        let ruleset = small();
        let first = kernel_with(&ruleset);
        let mut second = Kernel::open().unwrap();
        let before = listing();
        for _ in 0..2 {
            let error = take_over(&mut second, &ruleset).unwrap_err();
            assert!(matches!(error, Error::Owned), "{error:?}");
            let error = second.apply(&Transaction::replace(&Ruleset::default())).unwrap_err();
            assert!(matches!(error, Error::Owned), "{error:?}");
            assert!(matches!(second.delete_tables(), Err(Error::Owned)));
            assert_eq!(listing(), before);
        }
        end(first);
        take_over(&mut second, &ruleset).unwrap();
        assert_eq!(listing(), before);
        nobody_else_can_edit();
    });
}

#[test]
fn a_table_whose_owner_has_ended_stays_and_is_taken_over_as_it_is() {
    in_namespace(|| {
        let ruleset = small();
        let mut kernel = kernel_with_orphan(&ruleset);
        tamper(
            "flush chain inet podfence rule_1; \
             add rule inet podfence rule_1 counter packets 3 bytes 180 accept",
        );
        let before = kernel.read().unwrap().unwrap();
        assert_eq!(before.as_ruleset(&ruleset), ruleset);
        take_over(&mut kernel, &ruleset).unwrap();
        let after = kernel.read().unwrap().unwrap();
        assert_eq!(after, before, "handles and counters included");
        let counted = after.chains.values().map(Chain::counter).max_by_key(|counter| counter.packets);
        assert_eq!(counted, Some(Counter { packets: 3, bytes: 180 }));
        nobody_else_can_edit();
        // What is one's own already can be adopted again.
        take_over(&mut kernel, &ruleset).unwrap();
        assert_eq!(kernel.read().unwrap().unwrap(), before);
    });
}

#[test]
fn a_table_that_was_not_made_to_be_owned_is_replaced_in_one_transaction() {
    for edit in ["", "add table inet podfence { flags dormant; }"] {
        in_namespace(|| {
            let ruleset = small();
            nft(&["-f", "-"], &ruleset.to_string());
            tamper(edit);
            let mut kernel = Kernel::open().unwrap();
            let table = kernel.read().unwrap().unwrap();
            assert!(!table.adoptable);
            assert_eq!(table.as_ruleset(&ruleset) == ruleset, edit.is_empty());
            let error = kernel.apply(&Transaction::adopt(&ruleset, &ruleset)).unwrap_err();
            assert_eq!(error.to_string(), "the kernel refuses to own table inet podfence");
            take_over(&mut kernel, &ruleset).unwrap();
            assert_eq!(present(&mut kernel, &ruleset), ruleset);
            nobody_else_can_edit();
        });
    }
}

#[test]
fn an_orphan_is_deleted_by_whoever_wants_to() {
    in_namespace(|| {
        assert!(kernel_with_orphan(&small()).delete_tables().unwrap());
        assert_eq!(nft(&["list", "tables"], ""), "");
    });
}
