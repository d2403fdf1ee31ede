//! The two ends of a connection.

use std::fmt;
use std::net::IpAddr;

use super::number_set::Member;
use crate::model::{Family, Pod};

/// One end of a connection as a question names it.
#[derive(Debug, Clone, Copy)]
pub enum Endpoint<'a> {
    /// A pod of the cluster, with all of its addresses.
    Pod(&'a Pod),
    /// An address. One that belongs to a pod stands for that pod in this address's family; one that several pods show
    /// may do what each of them may.
    Address(IpAddr),
}

/// One end of a connection, looked up ([`Judge::party`](super::Judge::party)).
#[derive(Debug, Clone, Copy)]
pub struct Party<'a> {
    pub(super) pod: Option<&'a Pod>,
    pub(super) member: Option<Member>,
    pub(super) address: Option<IpAddr>,
    /// Whether other pods show the address too.
    pub(super) shared: bool,
}

impl<'a> Party<'a> {
    /// The pod at this end; `None` for an address that belongs to none, and for a finished pod whose addresses others
    /// have. Of several pods that show the address it is the one that most likely has it.
    pub fn pod(&self) -> Option<&'a Pod> {
        self.pod
    }

    /// Whether the end is an address that several pods show.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// The addresses by which blocks know this end: the one that was named, or all of the pod's.
    pub fn addresses(&self) -> &[IpAddr] {
        match self.pod {
            Some(pod) if self.address.is_none() => &pod.addresses,
            _ => self.address.as_slice(),
        }
    }

    /// Whether the end is a pod that has no address yet.
    pub(super) fn lacks_address(&self) -> bool {
        self.pod.is_some() && self.addresses().is_empty()
    }

    pub(super) fn addresses_of(&self, family: Family) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses().iter().copied().filter(move |address| Family::of(*address) == family)
    }

    /// The families to judge a connection between these ends in: those in which both have an address, where
    /// an end without any address goes along with the other. A single `None` where that leaves none.
    pub fn families_with(&self, other: &Party<'_>) -> &'static [Option<Family>] {
        let ends = [self, other];
        if ends.iter().all(|end| end.addresses().is_empty()) {
            return &[None];
        }
        let joins =
            |end: &Party<'_>, family| end.addresses().is_empty() || end.addresses_of(family).next().is_some();
        match Family::BOTH.map(|family| ends.iter().all(|end| joins(end, family))) {
            [true, true] => &[Some(Family::Ipv4), Some(Family::Ipv6)],
            [true, false] => &[Some(Family::Ipv4)],
            [false, true] => &[Some(Family::Ipv6)],
            [false, false] => &[None],
        }
    }
}

/// The pod's name, or else the address.
impl fmt::Display for Party<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pod, self.addresses()) {
            (Some(pod), _) => pod.name.fmt(f),
            (None, [address, ..]) => address.fmt(f),
            (None, []) => f.write_str("nobody"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectName;

    fn pod(addresses: &[&str]) -> Pod {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Pod { addresses, ..Pod::new(ObjectName::new("default", "pod")) }
    }

    #[test]
    fn families_are_those_that_both_ends_have_or_go_along_with() {
        let (ipv4, ipv6) = (Some(Family::Ipv4), Some(Family::Ipv6));
        let [none, only_ipv4, only_ipv6, dual] =
            [&[][..], &["10.0.0.1"], &["fd00::1"], &["fd00::1", "10.0.0.1"]].map(pod);
        let cases: [(_, _, &[_]); 10] = [
            (&dual, &dual, &[ipv4, ipv6]),
            (&dual, &only_ipv4, &[ipv4]),
            (&dual, &only_ipv6, &[ipv6]),
            (&dual, &none, &[ipv4, ipv6]),
            (&only_ipv4, &only_ipv4, &[ipv4]),
            (&only_ipv4, &only_ipv6, &[None]),
            (&only_ipv4, &none, &[ipv4]),
            (&only_ipv6, &only_ipv6, &[ipv6]),
            (&only_ipv6, &none, &[ipv6]),
            (&none, &none, &[None]),
        ];
        for (one, other, families) in cases {
            let [one, other] =
                [one, other].map(|pod| Party { pod: Some(pod), member: None, address: None, shared: false });
            assert_eq!(one.families_with(&other), families, "{one:?} {other:?}");
            assert_eq!(other.families_with(&one), families, "{other:?} {one:?}");
        }
    }
}
