//! Declarations of sets as the kernel has them.

use policy_compiler::model::Family;
use policy_compiler::ruleset::{KeyType, SetKind};

use super::uapi;
use crate::netlink::Attributes;

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
}

impl Declaration {
    pub(super) fn of(kind: SetKind) -> Self {
        let pair = |of: u32, and: u32| (of << uapi::TYPE_BITS) | and;
        let (key_type, key_length, fields): (_, _, &[u8]) = match kind.key {
            KeyType::Address(Family::Ipv4) => (uapi::TYPE_IPADDR, 4, &[]),
            KeyType::Address(Family::Ipv6) => (uapi::TYPE_IP6ADDR, 16, &[]),
            KeyType::AddressPair(Family::Ipv4) => (pair(uapi::TYPE_IPADDR, uapi::TYPE_IPADDR), 8, &[4, 4]),
            KeyType::AddressPair(Family::Ipv6) => {
                (pair(uapi::TYPE_IP6ADDR, uapi::TYPE_IP6ADDR), 32, &[16, 16])
            }
            KeyType::ProtocolPort => (pair(uapi::TYPE_INET_PROTOCOL, uapi::TYPE_INET_SERVICE), 8, &[1, 2]),
        };
        let mut flags = 0;
        if kind.verdicts {
            flags |= uapi::NFT_SET_MAP;
        }
        if kind.interval {
            flags |= uapi::NFT_SET_INTERVAL;
            if !fields.is_empty() {
                flags |= uapi::NFT_SET_CONCAT;
            }
        }
        Self { flags, key_type, key_length, fields }
    }
}

/// Reads the declaration of a set; `None` where it says anything that podfence never says.
pub(super) fn parse(attributes: Attributes<'_>) -> Option<SetKind> {
    const FOREIGN: [u16; 4] =
        [uapi::NFTA_SET_TIMEOUT, uapi::NFTA_SET_GC_INTERVAL, uapi::NFTA_SET_EXPR, uapi::NFTA_SET_EXPRESSIONS];
    let sized = attributes
        .nested(uapi::NFTA_SET_DESC)
        .is_some_and(|desc| desc.get(uapi::NFTA_SET_DESC_SIZE).is_some());
    if sized || FOREIGN.into_iter().any(|kind| attributes.get(kind).is_some()) {
        return None;
    }
    let flags = attributes.number(uapi::NFTA_SET_FLAGS).unwrap_or_default();
    let key_type = attributes.number(uapi::NFTA_SET_KEY_TYPE)?;
    let verdicts = flags & uapi::NFT_SET_MAP != 0;
    if verdicts && attributes.number(uapi::NFTA_SET_DATA_TYPE)? != uapi::NFT_DATA_VERDICT {
        return None;
    }
    let kind = |key| SetKind { key, interval: flags & uapi::NFT_SET_INTERVAL != 0, verdicts };
    let keys =
        [Family::Ipv4, Family::Ipv6].map(|family| [KeyType::Address(family), KeyType::AddressPair(family)]);
    keys.into_iter().flatten().chain([KeyType::ProtocolPort]).map(kind).find(|kind| {
        let declaration = Declaration::of(*kind);
        (declaration.flags, declaration.key_type) == (flags, key_type)
    })
}
