//! Sets whose elements are no part of the ruleset.

use controller::kernel::Error;
use policy_compiler::compile::{self, compile};
use policy_compiler::model::{Cluster, Protocol};
use policy_compiler::ruleset::{Ruleset, Transaction, Tuple};

use crate::rulesets::ip;
use crate::support::{in_namespace, kernel_with, kernel_with_orphan, listing, nft, present};

/// Connection `number` of many between two addresses.
fn connection(number: u32, protocol: Protocol) -> Tuple {
    let [high, low, first, last] = number.to_be_bytes();
    Tuple {
        source: ip("10.0.0.1"),
        destination: ip("10.0.0.2"),
        protocol,
        source_port: u16::from_be_bytes([high, low]),
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
            "fd00::1 . fd00::2 . tcp . 0 . 7 timeout 3h expires",
            "fd00::2 . fd00::1 . tcp . 7 . 0 timeout 3h expires",
            "10.0.0.2 . 10.0.0.1 . udp . 1 . 0 timeout 10m expires",
            "10.0.0.1 . 10.0.0.2 . sctp . 0 . 2 timeout 3h expires",
            "10.0.0.2 . 10.0.0.1 . sctp . 2 . 0 timeout 3h expires",
        ] {
            assert!(listing.contains(element), "{element} is not in {listing}");
        }
    });
}

#[test]
fn a_connection_that_is_cut_again_has_all_its_time_again() {
    in_namespace(|| {
        let mut kernel = kernel_with_orphan(&ruleset());
        let again = "10.0.0.2 . 10.0.0.1 . udp . 1 . 0";
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
        kernel.apply(&compile::cut((0..1 << 17).map(|number| connection(number, Protocol::Udp)))).unwrap();
        let error = kernel.apply(&compile::cut([connection(1 << 17, Protocol::Udp)])).unwrap_err();
        let Error::Refused { operation, .. } = &error else { panic!("{error:?}") };
        assert_eq!(operation, "add element 10.0.0.2 . 10.0.0.1 . udp . 0 . 2 to set cut_ipv4");
        kernel.apply(&compile::cut([connection(1, Protocol::Udp)])).unwrap();
    });
}
