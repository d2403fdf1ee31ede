//! What the agent logs of a connection: an explanation on one line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use policy_compiler::explain::Side;
use policy_compiler::judge::{Connection, Endpoint, Judge, Traffic};
use policy_compiler::manifest::{self, Input};
use policy_compiler::model::{Direction, Family, Protocol};

#[test]
fn tier_policy_and_rule_are_named() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/tiers.yaml");
    let cluster = manifest::read(&[Input::Path(file)]).unwrap().cluster;
    let judge = Judge::new(&cluster);
    for (direction, [from, to], port, words, denying) in [
        (
            Direction::Ingress,
            ["10.0.0.4", "10.0.0.1"],
            9100,
            "an Admin policy denies this; Admin policy guard (priority 10) ingress[0] \"probes\" would allow it, but does not \
             cover it (from[0]: namespace lab has team=lab (needs team=ops)); Admin policy guard (priority 10) ingress[1] \
             would pass it on, but does not cover it (from[0]: namespace lab has team=lab (needs team=shop)); Admin policy \
             guard (priority 10) ingress[2] \"no strangers\" denies it",
            vec!["guard"],
        ),
        (
            Direction::Ingress,
            ["10.0.0.2", "10.0.0.1"],
            443,
            "a policy isolates shop/api, and no rule covers this; Admin policy guard (priority 10) ingress[1] passes it on to \
             the next tier; shop/api ingress[0] (ports: only 8080/TCP)",
            vec!["shop/api"],
        ),
        (
            Direction::Ingress,
            ["10.0.0.2", "10.0.0.4"],
            443,
            "a Baseline policy denies this; Baseline policy default (priority 500) ingress[0] denies it",
            vec!["default"],
        ),
        (
            Direction::Egress,
            ["10.0.0.3", "203.0.113.9"],
            443,
            "no policy isolates ops/probe for egress, and no ClusterNetworkPolicy decides about this: it would be denied, but \
             for the audit of trial; Admin policy trial (priority 20) egress[0] would deny it, but for audit mode",
            vec!["trial"],
        ),
    ] {
        let [from, to] = [from, to].map(|address| judge.party(Endpoint::Address(address.parse().unwrap())));
        let traffic = Traffic::Port(Protocol::Tcp, port.try_into().unwrap());
        let family = Some(Family::Ipv4);
        let connection = Connection { from, to, family, traffic, through_service: true };
        let side = Side::new(&judge, direction, &connection);
        assert_eq!(side.to_string(), words);
        assert_eq!(side.denying().collect::<Vec<_>>(), denying, "{words}");
    }
}
