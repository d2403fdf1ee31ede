//! Addresses that are closed until the agent enforces the policies of their pods.
//!
//! They are in a table of their own, `inet podfence_closed`, because the agent owns the other one, and because nobody
//! knows what that one will be. What comes from them or goes to them is dropped, as strict start does: what the node
//! itself sends passes, and so does neighbour discovery. The table is there only as long as something is closed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use rustix::io::Errno;

use crate::netlink::numbers::{
    NF_ACCEPT, NF_DROP, NF_INET_FORWARD, NF_INET_LOCAL_OUT, NFPROTO_IPV4, NFPROTO_IPV6, NFT_MSG_GETSETELEM,
    NFTA_ANY_TABLE, NFTA_DATA_VALUE, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET,
};
use crate::netlink::ruleset::{Expression, Family, Table, address_of, bytes_of, element, end_before};
use crate::netlink::{Attributes, Batch, Error, Nftables, Question};

/// The name of the table.
pub const TABLE: &str = "podfence_closed";

/// How often something is tried anew because others change the table meanwhile.
const TRIES: usize = 20;

const COMMENT: &str = "closed until the agent enforces the policies of the pod";

/// Closes addresses. Those that are closed already stay so.
///
/// # Errors
///
/// If the kernel refuses; then nothing is closed that was not.
pub fn close(addresses: &[IpAddr]) -> Result<(), Error> {
    add(|batch| {
        for family in Family::BOTH {
            let of_family = addresses.iter().filter(|address| Family::of(**address) == family);
            let elements: Vec<_> = of_family.map(|address| element(&bytes_of(*address), None)).collect();
            Table(TABLE).add_elements(batch, &addresses_set(family), &elements);
        }
    })
}

/// Closes the ranges that pods get their addresses from, in place of those that were closed before.
///
/// # Errors
///
/// If the kernel refuses; then nothing has changed.
pub fn close_ranges(ranges: &[IpNet]) -> Result<(), Error> {
    let ranges = IpNet::aggregate(&ranges.to_vec());
    add(|batch| {
        for family in Family::BOTH {
            let set = ranges_set(family);
            let of_family = ranges.iter().filter(|range| Family::of(range.addr()) == family);
            let elements: Vec<_> = of_family.flat_map(interval).collect();
            Table(TABLE).flush_set(batch, &set);
            Table(TABLE).add_elements(batch, &set, &elements);
        }
    })
}

/// Opens addresses. Those that are not closed stay as they are.
///
/// # Errors
///
/// If the kernel refuses; then nothing has been opened.
pub fn open(addresses: &[IpAddr]) -> Result<(), Error> {
    remove(|closed| closed.addresses.retain(|address| !addresses.contains(address)))
}

/// Opens all ranges. Addresses that are closed one by one stay closed.
///
/// # Errors
///
/// As [`open`].
pub fn open_ranges() -> Result<(), Error> {
    remove(|closed| closed.has_ranges = false)
}

/// Opens everything.
///
/// # Errors
///
/// As [`open`].
pub fn open_all() -> Result<(), Error> {
    remove(|closed| *closed = Closed::default())
}

/// The addresses that are closed one by one.
///
/// # Errors
///
/// If the kernel does not say.
pub fn addresses() -> Result<Vec<IpAddr>, Error> {
    let nftables = &mut Nftables::open()?;
    Ok(Closed::read(nftables)?.map(|closed| closed.addresses.into_iter().collect()).unwrap_or_default())
}

/// What is closed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Closed {
    addresses: BTreeSet<IpAddr>,
    has_ranges: bool,
}

impl Closed {
    /// `None` if there is no table.
    fn read(nftables: &mut Nftables) -> Result<Option<Self>, Error> {
        if !nftables.has_table(TABLE)? {
            return Ok(None);
        }
        let mut closed = Self::default();
        for family in Family::BOTH {
            closed.addresses.extend(list(nftables, &addresses_set(family))?);
            closed.has_ranges |= !list(nftables, &ranges_set(family))?.is_empty();
        }
        Ok(Some(closed))
    }
}

/// The keys of the elements of a set.
fn list(nftables: &mut Nftables, set: &str) -> Result<Vec<IpAddr>, Error> {
    let names = &[(NFTA_ANY_TABLE, TABLE), (NFTA_SET_ELEM_LIST_SET, set)];
    let question = Question { kind: NFT_MSG_GETSETELEM, all: true, names };
    let mut keys = Vec::new();
    nftables.ask(&question, |message| {
        let elements = message.attributes().nested(NFTA_SET_ELEM_LIST_ELEMENTS);
        let elements = elements.into_iter().flat_map(Attributes::iter).map(|it| Attributes(it.value));
        keys.extend(
            elements
                .filter_map(|element| address_of(element.nested(NFTA_SET_ELEM_KEY)?.get(NFTA_DATA_VALUE)?)),
        );
    })?;
    Ok(keys)
}

/// Adds to the table, which is made if it is missing.
fn add(elements: impl Fn(&mut Batch)) -> Result<(), Error> {
    let nftables = &mut Nftables::open()?;
    for _ in 0..TRIES {
        let mut batch = Batch::default();
        create(&mut batch);
        elements(&mut batch);
        match nftables.commit(&batch, None) {
            Err(error) if error.is(Errno::EXIST) => {}
            Err(Error::Changed) => continue,
            outcome => return outcome,
        }
        let mut batch = Batch::default();
        elements(&mut batch);
        if batch.is_empty() {
            return Ok(());
        }
        match nftables.commit(&batch, None) {
            // Somebody has opened the last of what was closed, and the table is gone.
            Err(error) if error.is(Errno::NOENT) => {}
            Err(Error::Changed) => {}
            outcome => return outcome,
        }
    }
    Err(Error::Changed)
}

/// Brings the table from what is closed to what `change` leaves of that.
fn remove(change: impl Fn(&mut Closed)) -> Result<(), Error> {
    let nftables = &mut Nftables::open()?;
    for _ in 0..TRIES {
        let generation = nftables.generation()?;
        let before = match Closed::read(nftables) {
            Ok(None) => return Ok(()),
            Ok(Some(closed)) => closed,
            Err(Error::Changed) => continue,
            Err(error) => return Err(error),
        };
        let mut after = before.clone();
        change(&mut after);
        let batch = difference(&before, &after);
        if batch.is_empty() {
            return Ok(());
        }
        match nftables.commit(&batch, Some(generation)) {
            Err(Error::Changed) => {}
            outcome => return outcome,
        }
    }
    Err(Error::Changed)
}

/// Takes away what is closed no more, and the table with the last of it.
fn difference(before: &Closed, after: &Closed) -> Batch {
    let mut batch = Batch::default();
    if *after == Closed::default() {
        Table(TABLE).delete(&mut batch);
        return batch;
    }
    for family in Family::BOTH {
        let gone = before.addresses.difference(&after.addresses);
        let gone = gone.filter(|address| Family::of(**address) == family);
        let gone: Vec<_> = gone.map(|address| element(&bytes_of(*address), None)).collect();
        Table(TABLE).delete_elements(&mut batch, &addresses_set(family), &gone);
        if before.has_ranges && !after.has_ranges {
            Table(TABLE).flush_set(&mut batch, &ranges_set(family));
        }
    }
    batch
}

/// The table with its sets, still empty, and its chains.
fn create(batch: &mut Batch) {
    let table = Table(TABLE);
    table.create(batch, 0);
    for (id, family) in (1..).step_by(2).zip(Family::BOTH) {
        table.add_set(batch, &addresses_set(family), family, false, id);
        table.add_set(batch, &ranges_set(family), family, true, id + 1);
    }
    for (chain, hook) in [("forward", NF_INET_FORWARD), ("output", NF_INET_LOCAL_OUT)] {
        table.add_chain(batch, chain, Some(hook));
        if hook == NF_INET_LOCAL_OUT {
            table.add_rule(batch, chain, &[Expression::FromNode, Expression::Verdict(NF_ACCEPT)], None);
        }
        table.add_rule(batch, chain, &neighbour_discovery(), None);
        for family in Family::BOTH {
            for set in [addresses_set(family), ranges_set(family)] {
                for is_source in [true, false] {
                    table.add_rule(batch, chain, &drop_of(family, is_source, &set), Some(COMMENT));
                }
            }
        }
    }
}

fn neighbour_discovery() -> [Expression; 3] {
    const NFT_META_L4PROTO: u32 = 16;
    const ICMPV6: u8 = 58;
    [
        Expression::MetaIs(NFT_META_L4PROTO, ICMPV6),
        Expression::TransportStarts(133..=137),
        Expression::Verdict(NF_ACCEPT),
    ]
}

/// Drops packets whose source or destination is in a set.
fn drop_of(family: Family, is_source: bool, set: &str) -> [Expression; 4] {
    const NFT_META_NFPROTO: u32 = 15;
    const NETWORK_HEADER: u32 = 1;
    let (protocol, length, source) = match family {
        Family::Ipv4 => (NFPROTO_IPV4, 4, 12),
        Family::Ipv6 => (NFPROTO_IPV6, 16, 8),
    };
    let offset = if is_source { source } else { source + length };
    [
        Expression::MetaIs(NFT_META_NFPROTO, protocol),
        Expression::InSet { base: NETWORK_HEADER, offset, length, set: set.to_owned() },
        Expression::Counter,
        Expression::Verdict(NF_DROP),
    ]
}

/// The elements of a range: its first address, and the one behind its last if there is one.
fn interval(range: &IpNet) -> impl Iterator<Item = Vec<u8>> + use<> {
    let behind = match range.broadcast() {
        IpAddr::V4(last) => u32::from(last).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(last) => u128::from(last).checked_add(1).map(|next| IpAddr::V6(next.into())),
    };
    let start = element(&bytes_of(range.network()), None);
    std::iter::once(start).chain(behind.map(|behind| end_before(&bytes_of(behind))))
}

fn addresses_set(family: Family) -> String {
    format!("closed_{}", family.suffix())
}

fn ranges_set(family: Family) -> String {
    format!("ranges_{}", family.suffix())
}
