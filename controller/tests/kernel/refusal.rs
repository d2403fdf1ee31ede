//! Transactions that the kernel refuses: they change nothing, and the error names the object at fault.

use controller::kernel::{Error, Unfit};
use policy_compiler::model::{Family, Protocol};
use policy_compiler::ruleset::{
    ChainId, Element, ElementKey, Fields, Hook, Operation, Rule, SetId, Statement, TableFamily, Transaction,
};

use crate::rulesets::{
    V4, accept, address, commented, goto, in_set, jump, plain, ports, range, set_kind, small, verdict_map,
};
use crate::support::{in_namespace, kernel_with, listing, present};

fn add_elements(set: &str, elements: impl IntoIterator<Item = (ElementKey, Element)>) -> Operation {
    Operation::AddElements(SetId::read(set), elements.into_iter().collect())
}

fn delete_elements(set: &str, elements: impl IntoIterator<Item = (ElementKey, Element)>) -> Operation {
    Operation::DeleteElements(SetId::read(set), elements.into_iter().collect())
}

fn add_rule(chain: &str, statements: impl Into<Vec<Statement>>) -> Operation {
    Operation::AddRule(ChainId::read(chain), Rule::new(statements))
}

fn add_chain(name: &str) -> Operation {
    Operation::AddChain(ChainId::read(name), None)
}

fn many() -> impl Iterator<Item = (ElementKey, Element)> {
    (0..5_000u32)
        .map(|index| (ElementKey::Address(std::net::Ipv4Addr::from(0x0b00_0000 + index).into()), plain()))
}

/// Each operation that cannot be, how the error names it and the reason it gives.
fn refused() -> Vec<(Operation, String, &'static str)> {
    let source = Fields::Source(Family::Ipv4);
    let delete_chain = |name: &str| Operation::DeleteChain(ChainId::read(name));
    let rule = |operation: Operation, text: &str, reason| {
        (operation, format!("add rule `{text}` to chain group_1"), reason)
    };
    let other = |operation, description: &str, reason| (operation, description.to_owned(), reason);
    vec![
        rule(
            add_rule("group_1", [in_set(source, "no_such"), accept()]),
            "ip saddr @no_such accept",
            "No such file",
        ),
        rule(add_rule("group_1", [verdict_map(source, "peers")]), "ip saddr vmap @peers", "Invalid argument"),
        rule(add_rule("group_1", [jump("no_such")]), "jump no_such", "No such file"),
        rule(add_rule("group_1", [jump("group_1")]), "jump group_1", "Too many links"),
        other(add_rule("no_such", [accept()]), "add rule `accept` to chain no_such", "No such file"),
        other(add_chain("group_1"), "add chain group_1", "File exists"),
        other(delete_chain("no_such"), "delete chain no_such", "No such file"),
        other(delete_chain("group_1"), "delete chain group_1", "Device or resource busy"),
        other(Operation::FlushChain(ChainId::read("no_such")), "flush chain no_such", "No such file"),
        other(
            Operation::AddSet(SetId::read("peers"), set_kind(V4, false, false)),
            "add set peers",
            "File exists",
        ),
        other(Operation::DeleteSet(SetId::read("peers")), "delete set peers", "Device or resource busy"),
        other(Operation::DeleteSet(SetId::read("no_such")), "delete set no_such", "No such file"),
        other(
            add_elements("peers", [(address("10.0.0.3"), plain()), (address("10.0.0.2"), plain())]),
            "add element 10.0.0.2 to set peers",
            "File exists",
        ),
        other(
            add_elements("peers", many().chain([(address("10.0.0.2"), plain())]).chain(many())),
            "add element 10.0.0.2 to set peers",
            "File exists",
        ),
        other(
            add_elements("isolated_in4", [(address("10.0.0.9"), goto("no_such"))]),
            "add element 10.0.0.9 to set isolated_in4",
            "No such file",
        ),
        other(
            add_elements("isolated_in4", [(address("10.0.0.1"), goto("rule_1"))]),
            "add element 10.0.0.1 to set isolated_in4",
            "File exists",
        ),
        other(
            add_elements(
                "blocks",
                [(range("1.0.0.0", "1.0.0.255"), plain()), (range("192.168.3.0", "192.168.3.255"), plain())],
            ),
            "add element 192.168.3.0-192.168.3.255 to set blocks",
            "File exists",
        ),
        other(
            add_elements("ports", [(ports(Protocol::Tcp, 85, 100), goto("rule_1"))]),
            "add element tcp . 85-100 to set ports",
            "File exists",
        ),
        other(
            delete_elements("peers", [(address("10.0.0.2"), plain()), (address("10.0.0.3"), plain())]),
            "delete element 10.0.0.3 of set peers",
            "No such file",
        ),
    ]
}

#[test]
fn a_refused_transaction_changes_nothing_and_names_the_object() {
    in_namespace(|| {
        let ruleset = small();
        let mut kernel = kernel_with(&ruleset);
        let before = listing();
        for (operation, description, reason) in refused() {
            let operations = vec![add_chain("good_1"), operation, add_chain("good_2")];
            let transaction = Transaction { table: TableFamily::Inet, operations };
            let checked = kernel.check_all(std::slice::from_ref(&transaction)).unwrap_err();
            let error = kernel.apply(&transaction).unwrap_err();
            assert_eq!(checked.to_string(), error.to_string());
            assert!(error.is_lasting(), "{description}");
            let Error::Refused { operation, source, .. } = &error else { panic!("{description}: {error:?}") };
            assert_eq!(*operation, description);
            assert!(source.to_string().contains(reason), "{description}: {source}");
            assert_eq!(error.to_string().lines().count(), 1);
            assert_eq!(listing(), before, "{description}");
        }
        assert_eq!(present(&mut kernel, &ruleset), ruleset);
    });
}

#[test]
fn the_first_of_more_refusals_than_can_be_received_is_named() {
    in_namespace(|| {
        let mut kernel = kernel_with(&small());
        let missing = (0..20_000).map(|index| add_rule(&format!("no_such_{index}"), [accept()]));
        let error = kernel
            .apply(&Transaction { table: TableFamily::Inet, operations: missing.collect() })
            .unwrap_err();
        let Error::Refused { operation, .. } = error else { panic!("{error:?}") };
        assert_eq!(operation, "add rule `accept` to chain no_such_0");
        kernel.apply(&Transaction { table: TableFamily::Inet, operations: vec![add_chain("good")] }).unwrap();
    });
}

#[test]
fn what_no_message_can_say_is_refused_before_the_kernel_is_asked() {
    let long = "n".repeat(256);
    let cases = [
        (
            add_elements("no_such", [(address("10.0.0.1"), plain())]),
            "add elements to set no_such".to_owned(),
            Unfit::UnknownSet,
        ),
        (add_chain(&long), format!("add chain {long}"), Unfit::LongName(long.clone())),
        (
            add_rule("group_1", [jump(&long)]),
            format!("add rule `jump {long}` to chain group_1"),
            Unfit::LongName(long.clone()),
        ),
        (
            add_elements("isolated_in4", [(address("10.0.0.9"), goto(&long))]),
            "add elements to set isolated_in4".to_owned(),
            Unfit::LongName(long.clone()),
        ),
        (add_chain("a\0b"), "add chain a\0b".to_owned(), Unfit::ZeroByte),
        (
            add_elements("peers", [(address("10.0.0.9"), commented(plain(), &"c".repeat(129)))]),
            "add elements to set peers".to_owned(),
            Unfit::LongComment,
        ),
        (
            add_rule("rule_1", vec![Statement::Counter; 129]),
            format!("add rule `{}` to chain rule_1", ["counter"; 129].join(" ")),
            Unfit::LongRule,
        ),
    ];
    in_namespace(|| {
        let mut kernel = kernel_with(&small());
        let before = listing();
        for (operation, description, reason) in cases {
            let error = kernel
                .apply(&Transaction {
                    table: TableFamily::Inet,
                    operations: vec![add_chain("good"), operation],
                })
                .unwrap_err();
            let Error::Unfit { operation, source, .. } = &error else { panic!("{description}: {error:?}") };
            assert_eq!((operation, source), (&description, &reason));
        }
        assert_eq!(listing(), before);
    });
}

#[test]
fn the_longest_rule_is_taken() {
    in_namespace(|| {
        let longest = add_rule("rule_1", vec![Statement::Counter; 127]);
        kernel_with(&small())
            .apply(&Transaction { table: TableFamily::Inet, operations: vec![longest] })
            .unwrap();
    });
}

#[test]
fn what_is_only_checked_changes_nothing() {
    in_namespace(|| {
        let ruleset = small();
        let mut kernel = kernel_with(&ruleset);
        let before = listing();
        let operations = vec![add_chain("good"), add_rule("good", [accept()])];
        let transaction = Transaction { table: TableFamily::Inet, operations };
        for _ in 0..2 {
            kernel.check_all(std::slice::from_ref(&transaction)).unwrap();
        }
        assert_eq!(listing(), before);
        kernel.apply(&transaction).unwrap();
        kernel.check_all(std::slice::from_ref(&transaction)).unwrap_err();
    });
}

/// The chain that an error names is what leads to the policy at fault; a device that is gone is nobody's fault.
#[test]
fn a_refusal_says_which_chain_it_is_about_and_whether_it_lasts() {
    let at_device = || Operation::AddChain(ChainId::read("door"), Some(Hook::Ingress("lo".into())));
    let elements = [(address("10.0.0.8"), goto("rule_1")), (address("10.0.0.9"), goto("no_such"))];
    let cases = [
        (TableFamily::Inet, vec![add_rule("group_1", [jump("no_such")])], Some("group_1"), true),
        (TableFamily::Inet, vec![add_elements("isolated_in4", elements)], Some("no_such"), true),
        (TableFamily::Inet, vec![add_elements("peers", [(address("10.0.0.2"), plain())])], None, true),
        (TableFamily::Netdev, vec![Operation::AddTable, at_device(), at_device()], Some("door"), false),
    ];
    in_namespace(|| {
        let mut kernel = kernel_with(&small());
        for (table, operations, chain, lasting) in cases {
            let error = kernel.check_all(&[Transaction { table, operations }]).unwrap_err();
            assert_eq!(error.chain().map(ChainId::name), chain, "{error}");
            assert_eq!(error.is_lasting(), lasting, "{error}");
        }
    });
}
