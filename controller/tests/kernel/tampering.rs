//! What others do to the ruleset while nobody owns it: it is noticed, and repaired; what podfence does itself is not noticed.

use controller::kernel::{Error, Kernel, Watch};
use policy_compiler::ruleset::{Ruleset, Transaction};

use crate::rulesets::small;
use crate::support::{
    are_present, end, in_namespace, kernel_with, kernel_with_all, kernel_with_orphan, listing, present,
    take_over_all, tamper,
};

/// What nft is told to do to the small ruleset.
const TAMPERING: &[&str] = &[
    "insert rule inet podfence forward accept",
    "add rule inet podfence rule_1 meta mark 7 accept",
    "flush chain inet podfence group_1",
    "flush chain inet podfence group_1; add rule inet podfence group_1 counter drop comment \"denied\"",
    "flush chain inet podfence rule_1; add rule inet podfence rule_1 counter accept comment \"no such comment\"",
    "flush chain inet podfence rule_1; add rule inet podfence rule_1 counter accept; add rule inet podfence rule_1 accept",
    "flush chain inet podfence forward; \
     add rule inet podfence forward ct state established accept; \
     add rule inet podfence forward ip daddr vmap @isolated_in4",
    "flush chain inet podfence forward; \
     add rule inet podfence forward ct state established,related accept; \
     add rule inet podfence forward ip saddr vmap @isolated_in4",
    "flush chain inet podfence group_1; \
     add rule inet podfence group_1 ip saddr != @peers meta l4proto . th dport vmap @ports; \
     add rule inet podfence group_1 ip saddr @blocks accept; \
     add rule inet podfence group_1 counter drop comment \"denied\"",
    "flush chain inet podfence rule_1; add rule inet podfence rule_1 counter drop",
    "add element inet podfence peers { 10.6.6.6 }",
    "delete element inet podfence peers { 10.0.0.2 }",
    "delete element inet podfence peers { 10.0.0.2 }; add element inet podfence peers { 10.0.0.2 comment \"a word\" }",
    "delete element inet podfence isolated_in4 { 10.0.0.1 }; \
     add element inet podfence isolated_in4 { 10.0.0.1 : goto rule_1 }",
    "delete element inet podfence isolated_in4 { 10.0.0.1 }; add element inet podfence isolated_in4 { 10.0.0.1 : accept }",
    "delete element inet podfence isolated_in4 { 10.0.0.1 }; \
     add element inet podfence isolated_in4 { 10.0.0.1 : jump group_1 }",
    "add element inet podfence blocks { 1.0.0.0/8 }",
    "add element inet podfence blocks { 255.255.255.0/24 }",
    "delete element inet podfence blocks { 192.168.0.0/16 }; add element inet podfence blocks { 192.168.0.0/17 }",
    "flush set inet podfence blocks",
    "add element inet podfence ports { udp . 1-1000 : goto rule_1 }",
    "add element inet podfence ports { icmp . 1-1000 : goto rule_1 }",
    "add element inet podfence ports { 6-17 . 2000 : goto rule_1 }",
    "flush map inet podfence ports",
    "add chain inet podfence foreign; add rule inet podfence foreign meta mark 7 drop",
    "add chain inet podfence foreign { type filter hook input priority 5; policy drop; }",
    "add chain inet podfence foreign { type nat hook postrouting priority srcnat; }",
    "add chain inet podfence forward { policy drop; }",
    "delete chain inet podfence forward; \
     add chain inet podfence forward { type filter hook forward priority 10; }; \
     add rule inet podfence forward ct state established,related accept; \
     add rule inet podfence forward ip daddr vmap @isolated_in4",
    "add set inet podfence foreign { type ipv4_addr; flags timeout; elements = { 10.0.0.1 timeout 1h } }",
    "add set inet podfence foreign { type ifname; elements = { \"eth0\" } }; \
     insert rule inet podfence forward iifname @foreign drop",
    "add map inet podfence foreign { type ipv4_addr : mark; elements = { 10.0.0.1 : 7 } }; \
     insert rule inet podfence group_1 meta mark set ip saddr map @foreign",
    "add map inet podfence foreign { type mark : verdict; elements = { 7 : jump rule_1 } }; \
     insert rule inet podfence group_1 meta mark vmap @foreign",
    "insert rule inet podfence forward ip saddr { 10.0.0.1, 10.0.0.2 } drop",
    "flush chain inet podfence group_1; delete set inet podfence peers; \
     add set inet podfence peers { type ipv6_addr; }",
    "flush chain inet podfence group_1; delete set inet podfence peers; \
     add set inet podfence peers { type ipv4_addr; size 16; elements = { 10.0.0.2 } }; \
     add rule inet podfence group_1 ip saddr @peers meta l4proto . th dport vmap @ports; \
     add rule inet podfence group_1 ip saddr @blocks accept; \
     add rule inet podfence group_1 counter drop comment \"denied\"",
    "insert rule inet podfence forward meta mark 7 jump { ip saddr @peers jump rule_1; }",
    "insert rule inet podfence group_1 ip saddr vmap { 10.0.0.1 : jump rule_1, 10.0.0.2 : drop }",
    "flush table inet podfence",
    "delete table inet podfence",
    "flush ruleset",
];

#[test]
fn tampering_is_noticed_and_repaired_and_the_repair_is_not_noticed() {
    in_namespace(|| check_repairs(&[&small()], TAMPERING));
}

/// Checks that whatever nft is told to do to the rulesets is noticed and repaired, and the repair not noticed.
#[track_caller]
pub(crate) fn check_repairs(rulesets: &[&Ruleset], commands: &[&str]) {
    end(kernel_with_all(rulesets));
    let right = listing();
    for command in commands {
        let mut kernel = Kernel::open().unwrap();
        let mut watch = Watch::open(&kernel).unwrap();
        tamper(command);
        assert!(watch.changed().unwrap(), "unnoticed: {command}");
        assert!(!are_present(&mut kernel, rulesets), "not seen: {command}");
        take_over_all(&mut kernel, rulesets).unwrap();
        assert!(are_present(&mut kernel, rulesets), "not repaired: {command}");
        assert_eq!(listing(), right, "not repaired as nft sees it: {command}");
        assert!(!watch.changed().unwrap(), "the repair woke the watch: {command}");
        end(kernel);
    }
}

#[test]
fn other_tables_are_nobodys_business() {
    in_namespace(|| {
        let ruleset = small();
        let mut kernel = kernel_with(&ruleset);
        let mut watch = Watch::open(&kernel).unwrap();
        for command in [
            "add table inet other",
            "add table ip podfence",
            "add chain inet other c",
            "delete table inet other",
        ] {
            tamper(command);
            assert!(!watch.changed().unwrap(), "{command}");
            // The transaction was planned before the other table changed, and is still right.
            kernel.apply(&Transaction::replace(&ruleset)).unwrap();
        }
        assert_eq!(present(&mut kernel, &ruleset), ruleset);
    });
}

#[test]
fn a_flood_of_changes_counts_as_a_change() {
    in_namespace(|| {
        let kernel = kernel_with(&small());
        let mut watch = Watch::open(&kernel).unwrap();
        let chains = (0..4_000).map(|index| format!("add chain ip other chain_{index}\n"));
        tamper(&format!("add table ip other\n{}", chains.collect::<String>()));
        assert!(watch.changed().unwrap());
        assert!(!watch.changed().unwrap());
    });
}

#[test]
fn a_transaction_that_was_planned_before_somebody_elses_change_is_not_applied() {
    in_namespace(|| {
        let ruleset = small();
        let mut kernel = kernel_with_orphan(&ruleset);
        let transaction = Transaction::between(&ruleset, &Ruleset::default());
        tamper("add element inet podfence peers { 10.6.6.6 }");
        let tampered = listing();
        for _ in 0..2 {
            let error = kernel.apply(&transaction).unwrap_err();
            assert!(matches!(error, Error::Changed), "{error:?}");
            assert_eq!(listing(), tampered);
            // Another's change elsewhere does not make the plan any better.
            tamper("add table ip other");
        }
        kernel.read().unwrap();
        kernel.apply(&transaction).unwrap();
        assert_eq!(present(&mut kernel, &Ruleset::default()), Ruleset::default());
    });
}

#[test]
fn two_writers_do_not_overwrite_each_other() {
    in_namespace(|| {
        let (ruleset, empty) = (small(), Ruleset::default());
        let mut one = kernel_with_orphan(&ruleset);
        let mut other = Kernel::open().unwrap();
        other.read().unwrap();
        one.apply(&Transaction::between(&ruleset, &empty)).unwrap();
        let error = other.apply(&Transaction::between(&ruleset, &empty)).unwrap_err();
        assert!(matches!(error, Error::Changed), "{error:?}");
    });
}
