//! Pods that come back with other addresses.

use std::net::IpAddr;
use std::path::Path;

use super::table::{Listed, Set, holder, key, read};
use super::{Error, State, TABLE, restored_set};
use crate::netlink::numbers::{
    NFT_SET_INTERVAL, NFT_SET_MAP, NFT_SET_TIMEOUT, NFTA_DATA_VALUE, NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_USERDATA, TYPE_BITS,
};
use crate::netlink::ruleset::{Family, Table, bytes_of, comment_of};
use crate::netlink::{self, Attributes, Batch, Nftables, write_attribute, write_nested};
use crate::protocol::PodReference;

/// How often a change is tried anew because others change the ruleset meanwhile.
const TRIES: usize = 20;

/// Gives a pod of the saved state the addresses that it has now, in the restored table: it is isolated, and a peer of
/// others, as it was when the state was saved. Whoever has had the address since is no more. Then the addresses can be
/// [opened](crate::closed::open), if they were closed.
///
/// # Errors
///
/// If that cannot be said or done; then nothing has changed, and the addresses are to be [closed](crate::closed::close).
pub fn readdress(
    path: &Path,
    node: Option<&str>,
    pod: &PodReference,
    addresses: &[IpAddr],
) -> Result<(), Error> {
    let missing = || Error::Missing(path.display().to_string());
    let state = State::read(path, node)?.ok_or_else(missing)?;
    let same = |saved: &PodReference| {
        let uids = (saved.uid.as_ref(), pod.uid.as_ref());
        (&saved.namespace, &saved.name) == (&pod.namespace, &pod.name)
            && (uids.0.is_none() || uids.1.is_none() || uids.0 == uids.1)
    };
    let saved = state.header.pods.iter().find(|saved| same(&saved.pod));
    let saved = saved.ok_or_else(|| Error::UnknownPod(pod.to_string()))?;
    let table = state.table();
    let moves = Family::BOTH.map(|family| Move::of(family, &saved.pod, &saved.addresses, addresses));
    let moves: Vec<_> = moves.into_iter().collect::<Result<_, _>>()?;
    moves.iter().try_for_each(|it| it.check_blocks(&table))?;
    let nftables = &mut Nftables::open()?;
    for _ in 0..TRIES {
        let (generation, now) = read(nftables)?;
        let now = now.filter(Listed::is_restored).ok_or(Error::NotRestored)?;
        let batch = plan(&moves, &pod.to_string(), &table, &now);
        if batch.is_empty() {
            return Ok(());
        }
        match nftables.commit(&batch, Some(generation)) {
            Err(netlink::Error::Changed) => {}
            outcome => return Ok(outcome?),
        }
    }
    Err(netlink::Error::Changed.into())
}

/// From an address to another one in a family.
struct Move {
    family: Family,
    old: Option<IpAddr>,
    new: Option<IpAddr>,
}

impl Move {
    fn of(family: Family, pod: &PodReference, saved: &[IpAddr], now: &[IpAddr]) -> Result<Self, Error> {
        let of_family = |all: &[IpAddr]| -> Vec<IpAddr> {
            all.iter().copied().filter(|address| Family::of(*address) == family).collect()
        };
        let (old, new) = (of_family(saved), of_family(now));
        match (old.as_slice(), new.as_slice()) {
            ([], []) => Ok(Self { family, old: None, new: None }),
            ([old], []) => Ok(Self { family, old: Some(*old), new: None }),
            ([old], [new]) => Ok(Self { family, old: Some(*old), new: Some(*new) }),
            // Several in one family that are the same as before need nothing.
            (old, new) if old == new => Ok(Self { family, old: None, new: None }),
            (old, new) => Err(Error::Addresses {
                pod: pod.to_string(),
                address: new.iter().chain(old).copied().next().unwrap_or([0, 0, 0, 0].into()),
                known: if saved.is_empty() {
                    "none".to_owned()
                } else {
                    saved.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                },
            }),
        }
    }

    /// A pod in a block has the block in what it is to others: nothing says what it would be without.
    fn check_blocks(&self, table: &Listed) -> Result<(), Error> {
        let (Some(old), Some(new)) = (self.old, self.new) else { return Ok(()) };
        let parted = table.sets.values().any(|set| {
            let blocks = NFT_SET_INTERVAL | NFT_SET_MAP;
            set.flags & blocks == blocks
                && set.key_type == self.family.key_type()
                && piece(set, old) != piece(set, new)
        });
        if parted { Err(Error::Blocks { old, new }) } else { Ok(()) }
    }
}

/// In which of the pieces between the bounds of a map's intervals an address lies: how many bounds are before it.
fn piece(set: &Set, address: IpAddr) -> usize {
    let address = bytes_of(address);
    let is_before = |element: &&[u8]| key(element).is_some_and(|bound| bound <= address.as_slice());
    set.elements.iter().filter(is_before).count()
}

/// What leads from the table as it is `now` to one in which the pod has the addresses.
fn plan(moves: &[Move], pod: &str, saved: &Listed, now: &Listed) -> Batch {
    let mut batch = Batch::default();
    for Move { family, old, new } in moves {
        let holder_set = restored_set(*family);
        let held_by = |address: &IpAddr| {
            let key_of = bytes_of(*address);
            let elements = now.sets.get(&holder_set).into_iter().flat_map(|set| set.elements.iter());
            let mut held = elements.filter(|element| key(element) == Some(key_of.as_slice()));
            held.next().and_then(|element| comment_of(Attributes(element).get(NFTA_SET_ELEM_USERDATA)?))
        };
        if old == new && new.is_none_or(|new| held_by(&new) == Some(pod)) {
            continue;
        }
        // The old address may be another pod's by now.
        let left = old.filter(|old| held_by(old) == Some(pod));
        let gone: Vec<_> = left.iter().chain(new).map(|address| bytes_of(*address)).collect();
        for (name, set) in &now.sets {
            Table(TABLE).delete_elements(&mut batch, name, parts_of(set, *family, &gone));
        }
        let (Some(old), Some(new)) = (old, new) else { continue };
        let (from, to) = (bytes_of(*old), bytes_of(*new));
        for (name, set) in &saved.sets {
            let elements = parts_of(set, *family, std::slice::from_ref(&from));
            Table(TABLE).add_elements(&mut batch, name, elements.map(|element| moved(element, &from, &to)));
        }
        Table(TABLE).add_elements(&mut batch, &holder_set, [holder(*new, pod)]);
    }
    batch
}

/// The elements of a set of addresses, or of pairs of them, that have one of these in their keys.
fn parts_of<'a>(set: &'a Set, family: Family, addresses: &[Vec<u8>]) -> impl Iterator<Item = &'a [u8]> {
    let address = family.key_type();
    let fits = [address, address << TYPE_BITS | address].contains(&set.key_type)
        && set.flags & (NFT_SET_INTERVAL | NFT_SET_TIMEOUT) == 0;
    set.elements.iter().filter(move |element| {
        let mut parts = key(element).unwrap_or_default().chunks(family.length());
        fits && parts.any(|part| addresses.iter().any(|address| address == part))
    })
}

/// An element with one address in the place of another.
fn moved(element: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut moved = Vec::new();
    for attribute in Attributes(element).iter() {
        if attribute.kind == NFTA_SET_ELEM_KEY {
            let parts = key(element).unwrap_or_default().chunks(from.len());
            let key: Vec<_> = parts.flat_map(|part| if part == from { to } else { part }).copied().collect();
            write_nested(&mut moved, attribute.kind, |data| write_attribute(data, NFTA_DATA_VALUE, &key));
        } else {
            write_attribute(&mut moved, attribute.kind, attribute.value);
        }
    }
    moved
}
