//! Sets whose elements are no part of the ruleset.

use controller::kernel::{Error, Kernel, count_elements, list_tuples};
use policy_compiler::compile::{self, barred, compile};
use policy_compiler::model::{Cluster, Family, Protocol};
use policy_compiler::ruleset::{Ruleset, Transaction, Tuple};

use crate::rulesets::ip;
use crate::support::{in_namespace, kernel_with, kernel_with_orphan, listing, nft, present, take_over};

/// Connection `number` of many between two addresses.
fn connection(number: u32, protocol: Protocol) -> Tuple {
    let [high, low, first, last] = number.to_be_bytes();
    Tuple {
        source: ip("10.0.0.1"),
        destination: ip("10.0.0.2"),
        protocol,
        // One of those that clients have.
        source_port: u16::from_be_bytes([high, low]) | 1 << 15,
        destination_port: u16::from_be_bytes([first, last]),
    }
}

fn ruleset() -> Ruleset {
    compile(&Cluster::new(), None)
}

#[test]
fn connections_that_were_cut_are_no_part_of_what_is_read_and_survive_what_is_repaired() {
    in_namespace(|| {
        let ruleset = ruleset();
        let mut kernel = kernel_with_orphan(&ruleset);
        let ipv6 =
            Tuple { source: ip("fd00::1"), destination: ip("fd00::2"), ..connection(7, Protocol::Tcp) };
        let cut = [ipv6, connection(1, Protocol::Udp), connection(2, Protocol::Sctp)];
        kernel.apply(&compile::cut(cut)).unwrap();
        nft(&["flush", "chain", "inet", "podfence", "ingress"], "");
        let found = present(&mut kernel, &ruleset);
        kernel.apply(&Transaction::between(&found, &ruleset)).unwrap();
        assert_eq!(present(&mut kernel, &ruleset), ruleset);
        let listing = listing();
        for element in [
            "fd00::2 . fd00::1 . tcp . 7 . 32768 timeout 2h30m expires",
            "10.0.0.2 . 10.0.0.1 . udp . 1 . 32768 timeout 10m expires",
            "10.0.0.2 . 10.0.0.1 . sctp . 2 . 32768 timeout 2h30m expires",
        ] {
            assert!(listing.contains(element), "{element} is not in {listing}");
        }
    });
}

#[test]
fn a_connection_that_is_cut_again_has_all_its_time_again() {
    in_namespace(|| {
        let mut kernel = kernel_with_orphan(&ruleset());
        let again = "10.0.0.2 . 10.0.0.1 . udp . 1 . 32768";
        let short = format!("add element inet podfence cut_ipv4 {{ {again} timeout 10m expires 1m }}");
        nft(&["-f", "-"], &short);
        kernel.read().unwrap();
        kernel.apply(&compile::cut([connection(1, Protocol::Udp)])).unwrap();
        let listing = listing();
        let expires = |time| listing.contains(&format!("{again} timeout 10m expires {time}"));
        assert!(expires("10m") || expires("9m"), "{listing}");
    });
}

#[test]
fn a_full_set_refuses_and_keeps_what_it_has() {
    in_namespace(|| {
        let mut kernel = kernel_with(&ruleset());
        kernel.apply(&compile::cut((0..1 << 18).map(|number| connection(number, Protocol::Tcp)))).unwrap();
        assert_eq!(count_elements(&barred(Family::Ipv4)).unwrap(), Some(1 << 18));
        let error = kernel.apply(&compile::cut([connection(1 << 18, Protocol::Tcp)])).unwrap_err();
        let Error::Refused { operation, .. } = &error else { panic!("{error:?}") };
        assert_eq!(operation, "add element 10.0.0.2 . 10.0.0.1 . tcp . 0 . 32772 to set cut_ipv4");
        kernel.apply(&compile::cut([connection(1, Protocol::Tcp)])).unwrap();
    });
}

/// A table of an agent that declared the sets smaller.
#[test]
fn what_was_cut_before_is_listed_however_the_set_was_declared() {
    in_namespace(|| {
        let smaller = ruleset().to_string().replace("size 262144", "size 131072");
        let v4 = "10.0.0.2 . 10.0.0.1 . udp . 1 . 32768";
        let v6 = "fd00::2 . fd00::1 . sctp . 7 . 9";
        let cut = [("cut_ipv4", v4), ("cut_ipv6", v6)];
        let elements: String = cut
            .map(|(set, element)| format!("add element inet podfence {set} {{ {element} timeout 10m }}\n"))
            .concat();
        nft(&["-f", "-"], &(smaller + &elements));
        let listed = Family::BOTH.map(|family| list_tuples(family, &barred(family)).unwrap());
        let ipv6 = Tuple {
            source: ip("fd00::2"),
            destination: ip("fd00::1"),
            protocol: Protocol::Sctp,
            source_port: 7,
            destination_port: 9,
        };
        assert_eq!(listed, [vec![connection(1, Protocol::Udp).reversed()], vec![ipv6]]);
        assert_eq!(count_elements(&barred(Family::Ipv4)).unwrap(), Some(1));

        // The sets cannot stay, so the table is replaced.
        let (mut kernel, expected) = (Kernel::open().unwrap(), ruleset());
        assert_ne!(present(&mut kernel, &expected).sets, expected.sets);
        take_over(&mut kernel, &expected).unwrap();
        assert_eq!(present(&mut kernel, &expected), expected);
        assert_eq!(count_elements(&barred(Family::Ipv4)).unwrap(), Some(0));
    });
}
