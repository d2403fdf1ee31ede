//! Transactions far larger than a page, a message, an attribute and the default send buffer.

use std::net::Ipv4Addr;

use controller::kernel::Watch;
use policy_compiler::ruleset::{ElementKey, Ruleset, SetId, Transaction};

use crate::rulesets::{V4, chain, commented, goto, plain, ruleset, set, set_kind};
use crate::support::{in_namespace, kernel_with, meanwhile, present, tamper};

/// So many addresses in a map.
fn addresses(count: u32) -> Ruleset {
    let addresses = (0..count).map(|index| {
        let key = ElementKey::Address(Ipv4Addr::from(0x0a00_0000 + index).into());
        (key, commented(goto("group"), "a-namespace/a-pod-with-a-name-of-some-length"))
    });
    ruleset([("addresses", set(set_kind(V4, false, true), addresses))], [("group", chain([]))])
}

/// So many addresses in a map, and so many intervals, each with a gap behind it.
fn large(count: u32) -> Ruleset {
    let intervals = (0..count).map(|index| {
        let (first, last) = (Ipv4Addr::from(index * 4), Ipv4Addr::from(index * 4 + 2));
        (ElementKey::AddressRange(first.into(), last.into()), plain())
    });
    let mut large = addresses(count);
    large.sets.insert(SetId::read("intervals"), set(set_kind(V4, true, false), intervals));
    large
}

#[test]
fn fifty_thousand_elements_come_and_go_in_one_transaction() {
    in_namespace(|| {
        let large = large(50_000);
        let mut empty = large.clone();
        empty.sets.values_mut().for_each(|set| set.elements.clear());
        let mut kernel = kernel_with(&empty);
        let mut watch = Watch::open(&kernel).unwrap();
        kernel.apply(&Transaction::between(&empty, &large)).unwrap();
        assert_eq!(present(&mut kernel, &large), large);
        kernel.apply(&Transaction::between(&large, &empty)).unwrap();
        assert_eq!(present(&mut kernel, &empty), empty);
        assert!(!watch.changed().unwrap(), "the own changes woke the watch");
    });
}

#[test]
fn a_set_is_read_whole_while_the_kernel_still_grows_its_hash_table() {
    in_namespace(|| {
        // A table of 2¹⁵ buckets grows when it is three quarters full.
        let (before, after) = (addresses(24_500), addresses(24_700));
        let mut kernel = kernel_with(&before);
        for _ in 0..20 {
            kernel.apply(&Transaction::replace(&before)).unwrap();
            kernel.apply(&Transaction::between(&before, &after)).unwrap();
            assert!(present(&mut kernel, &after) == after);
        }
    });
}

#[test]
fn a_large_table_is_read_and_changed_while_others_change_theirs_without_pause() {
    in_namespace(|| {
        let (large, small) = (large(20_000), large(10_000));
        let mut kernel = kernel_with(&large);
        let others = || tamper("add table inet other; add chain inet other c; delete table inet other");
        meanwhile(others, || {
            for ruleset in [&large, &small, &large, &small] {
                let table = kernel.read().unwrap().unwrap();
                let transaction = Transaction::between(&table.as_ruleset(ruleset), ruleset);
                others();
                kernel.apply(&transaction).unwrap();
            }
        });
        assert_eq!(present(&mut kernel, &small), small);
    });
}
