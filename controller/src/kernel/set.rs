//! Declarations of sets as the kernel has them.

use std::time::Duration;

use policy_compiler::model::Family;
use policy_compiler::ruleset::{KeyType, SetKind, Transient};

use super::uapi;
use podfence_cni::netlink::Attributes;

/// What a set is declared with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Declaration {
    /// `NFT_SET_…`
    pub(super) flags: u32,
    /// nft's number of the type of the keys.
    pub(super) key_type: u32,
    /// In bytes.
    pub(super) key_length: u32,
    /// The lengths of the parts of a concatenation, in bytes.
    pub(super) fields: &'static [u8],
    /// Of a set whose elements are no part of the ruleset.
    pub(super) transient: Option<Transient>,
}

impl Declaration {
    pub(super) fn of(kind: SetKind) -> Self {
        let tuple = |address| {
            let (protocol, port) = (uapi::TYPE_INET_PROTOCOL, uapi::TYPE_INET_SERVICE);
            concatenated(&[address, address, protocol, port, port])
        };
        let (key_type, key_length, fields): (_, _, &[u8]) = match kind.key {
            KeyType::Address(Family::Ipv4) => (uapi::TYPE_IPADDR, 4, &[]),
            KeyType::Address(Family::Ipv6) => (uapi::TYPE_IP6ADDR, 16, &[]),
            KeyType::AddressPair(Family::Ipv4) => (concatenated(&[uapi::TYPE_IPADDR; 2]), 8, &[4, 4]),
            KeyType::AddressPair(Family::Ipv6) => (concatenated(&[uapi::TYPE_IP6ADDR; 2]), 32, &[16, 16]),
            KeyType::ProtocolPort => {
                (concatenated(&[uapi::TYPE_INET_PROTOCOL, uapi::TYPE_INET_SERVICE]), 8, &[1, 2])
            }
            KeyType::Tuple(Family::Ipv4) => (tuple(uapi::TYPE_IPADDR), 20, &[4, 4, 1, 2, 2]),
            KeyType::Tuple(Family::Ipv6) | KeyType::Answer => {
                (tuple(uapi::TYPE_IP6ADDR), 44, &[16, 16, 1, 2, 2])
            }
        };
        let transient = kind.transient();
        let mut flags = 0;
        if let Some(Transient { dynamic, .. }) = transient {
            flags |= uapi::NFT_SET_TIMEOUT | if dynamic { uapi::NFT_SET_EVAL } else { 0 };
        }
        if kind.verdicts {
            flags |= uapi::NFT_SET_MAP;
        }
        if kind.interval {
            flags |= uapi::NFT_SET_INTERVAL;
            if !fields.is_empty() {
                flags |= uapi::NFT_SET_CONCAT;
            }
        }
        Self { flags, key_type, key_length, fields, transient }
    }
}

/// nft's number of the concatenation of some types.
fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |number, next| (number << uapi::TYPE_BITS) | next)
}

/// Reads the declaration of a set; `None` where it says anything that podfence never says.
pub(super) fn parse(attributes: Attributes<'_>) -> Option<SetKind> {
    const FOREIGN: [u16; 3] = [uapi::NFTA_SET_TIMEOUT, uapi::NFTA_SET_EXPR, uapi::NFTA_SET_EXPRESSIONS];
    if FOREIGN.into_iter().any(|kind| attributes.get(kind).is_some()) {
        return None;
    }
    let size = attributes.nested(uapi::NFTA_SET_DESC).and_then(|desc| desc.number(uapi::NFTA_SET_DESC_SIZE));
    let interval = attributes.number(uapi::NFTA_SET_GC_INTERVAL);
    let flags = attributes.number(uapi::NFTA_SET_FLAGS).unwrap_or_default();
    let transient = size.zip(interval).map(|(size, interval)| Transient {
        size,
        collected_every: Duration::from_millis(interval.into()),
        dynamic: flags & uapi::NFT_SET_EVAL != 0,
    });
    if transient.is_none() && size.or(interval).is_some() {
        return None;
    }
    let key_type = attributes.number(uapi::NFTA_SET_KEY_TYPE)?;
    let verdicts = flags & uapi::NFT_SET_MAP != 0;
    if verdicts && attributes.number(uapi::NFTA_SET_DATA_TYPE)? != uapi::NFT_DATA_VERDICT {
        return None;
    }
    let kind = |key| SetKind { key, interval: flags & uapi::NFT_SET_INTERVAL != 0, verdicts };
    let keys = Family::BOTH
        .map(|family| [KeyType::Address(family), KeyType::AddressPair(family), KeyType::Tuple(family)]);
    keys.into_iter().flatten().chain([KeyType::ProtocolPort, KeyType::Answer]).map(kind).find(|kind| {
        let declaration = Declaration::of(*kind);
        (declaration.flags, declaration.key_type, declaration.transient) == (flags, key_type, transient)
    })
}
