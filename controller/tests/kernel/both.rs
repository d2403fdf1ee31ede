//! Both tables at once: what is applied is applied to both or to none, and others are kept away from both.

use controller::kernel::{Error, Kernel};
use policy_compiler::ruleset::{ChainId, Operation, Ruleset, TableFamily, Transaction};

use crate::rulesets::{raise_devices, small, small_at_device};
use crate::support::{
    are_present, end, in_namespace, ip, kernel_with_all, listing, nft, replace_all, take_over_all, tamper,
    try_nft,
};
use crate::tampering::check_repairs;

/// What nft is told to do to the table at devices.
const TAMPERING: &[&str] = &[
    "insert rule netdev podfence forward accept",
    "flush chain netdev podfence group_1",
    "flush chain netdev podfence rule_1; add rule netdev podfence rule_1 counter drop",
    "flush chain netdev podfence forward; \
     add rule netdev podfence forward @ll,48,64 0x244000001020800 accept; \
     add rule netdev podfence forward ip daddr vmap @isolated_in4",
    "add element netdev podfence peers { 10.6.6.6 }",
    "delete element netdev podfence isolated_in4 { 10.0.0.1 }",
    "add chain netdev podfence foreign { type filter hook egress device v1 priority 0; policy drop; }",
    "add chain netdev podfence forward { policy drop; }",
    "delete chain netdev podfence forward; \
     add chain netdev podfence forward { type filter hook ingress device far0 priority 0; }; \
     add rule netdev podfence forward @ll,48,64 0x244000001020806 accept; \
     add rule netdev podfence forward ip daddr vmap @isolated_in4",
    "delete chain netdev podfence forward; \
     add chain netdev podfence forward { type filter hook egress device v1 priority 0; }; \
     add rule netdev podfence forward @ll,48,64 0x244000001020806 accept; \
     add rule netdev podfence forward ip daddr vmap @isolated_in4",
    "delete chain netdev podfence forward; \
     add chain netdev podfence forward { type filter hook ingress devices = { v1, far0 } priority 0; }; \
     add rule netdev podfence forward @ll,48,64 0x244000001020806 accept; \
     add rule netdev podfence forward ip daddr vmap @isolated_in4",
    "flush table netdev podfence",
    "delete table netdev podfence",
    "flush ruleset",
];

/// A test with the small rulesets of both tables.
fn with_both(test: impl FnOnce([&Ruleset; 2]) + Send) {
    in_namespace(|| {
        raise_devices();
        test([&small(), &small_at_device()]);
    });
}

fn empty(table: TableFamily) -> Ruleset {
    Ruleset { table, ..Ruleset::default() }
}

#[test]
fn a_refusal_in_either_table_keeps_both_as_they_were() {
    with_both(|rulesets| {
        let mut kernel = kernel_with_all(&rulesets);
        let before = listing();
        for at_fault in 0..2 {
            let mut transactions = rulesets.map(|old| Transaction::between(old, &empty(old.table)));
            let missing = ChainId::read("no_such");
            transactions[at_fault].operations.push(Operation::DeleteChain(missing));
            let error = kernel.apply_all(&transactions).unwrap_err();
            assert!(error.to_string().contains("delete chain no_such"), "{error}");
            assert_eq!(listing(), before);
        }
        assert!(are_present(&mut kernel, &rulesets));
        let transactions = rulesets.map(|old| Transaction::between(old, &empty(old.table)));
        kernel.apply_all(&transactions).unwrap();
        let empty = TableFamily::BOTH.map(empty);
        assert!(are_present(&mut kernel, &empty.each_ref()));
    });
}

#[test]
fn a_device_that_is_not_there_is_named_and_changes_nothing() {
    with_both(|rulesets| {
        ip("link delete v1");
        let mut kernel = Kernel::open().unwrap();
        let Err(error) = kernel.apply_all(&replace_all(&rulesets)) else {
            // Since Linux 6.16 a chain waits for its device.
            return assert!(are_present(&mut kernel, &rulesets));
        };
        assert_eq!(error.to_string(), "the kernel refuses to add chain forward");
        assert_eq!(nft(&["list", "tables"], ""), "");
    });
}

#[test]
fn both_tables_are_deleted() {
    with_both(|rulesets| {
        let mut kernel = kernel_with_all(&rulesets);
        assert!(kernel.delete_tables().unwrap());
        assert_eq!(nft(&["list", "tables"], ""), "");
        for ruleset in rulesets {
            kernel.apply(&Transaction::replace(ruleset)).unwrap();
            assert!(kernel.delete_tables().unwrap());
            assert_eq!(nft(&["list", "tables"], ""), "");
        }
        assert!(!kernel.delete_tables().unwrap());
    });
}

#[test]
fn what_others_do_to_the_table_at_devices_is_noticed_and_repaired() {
    with_both(|rulesets| check_repairs(&rulesets, TAMPERING));
}

#[test]
fn a_transaction_that_was_planned_before_the_other_table_changed_is_not_applied() {
    with_both(|rulesets| {
        end(kernel_with_all(&rulesets));
        let mut kernel = Kernel::open().unwrap();
        kernel.read_all().unwrap();
        tamper("flush chain netdev podfence group_1");
        let tampered = listing();
        let transactions = rulesets.map(|old| Transaction::between(old, &empty(old.table)));
        let error = kernel.apply_all(&transactions).unwrap_err();
        assert!(matches!(error, Error::Changed), "{error:?}");
        assert_eq!(listing(), tampered);
    });
}

#[test]
fn both_tables_have_one_owner_and_outlive_it() {
    with_both(|rulesets| {
        let first = kernel_with_all(&rulesets);
        let before = listing();
        for command in TAMPERING.iter().filter(|command| **command != "flush ruleset") {
            let errors = try_nft(&["-f", "-"], command).expect_err(command);
            assert!(errors.contains("Operation not permitted"), "{command}: {errors}");
        }
        nft(&["flush", "ruleset"], "");
        assert_eq!(listing(), before);
        let mut second = Kernel::open().unwrap();
        let error = take_over_all(&mut second, &rulesets).unwrap_err();
        assert!(matches!(error, Error::Owned), "{error:?}");
        assert!(matches!(second.delete_tables(), Err(Error::Owned)));
        end(first);
        let before = second.read_all().unwrap();
        take_over_all(&mut second, &rulesets).unwrap();
        assert_eq!(second.read_all().unwrap(), before, "handles included");
        assert!(try_nft(&["-f", "-"], "delete table netdev podfence").is_err());
    });
}
