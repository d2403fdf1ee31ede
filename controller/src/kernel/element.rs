//! Elements of sets as the kernel has them: bytes of a key, and for an interval of addresses two elements,
//! one where it begins and one just behind it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use policy_compiler::model::{Family, Protocol};
use policy_compiler::ruleset::{COMMENT_MAX, ChainId, Element, ElementKey, KeyType, SetKind, Tuple, Verdict};

use super::error::Unfit;
use super::expression::verdict;
use super::uapi;
use podfence_cni::netlink::{Attributes, text};

/// The bytes of a key. Each part of a concatenation begins at a multiple of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    bytes: [u8; 44],
    length: usize,
}

impl Key {
    const EMPTY: Self = Self { bytes: [0; 44], length: 0 };

    /// The key with a further part; none of podfence's has more bytes than a tuple of IPv6.
    fn and(mut self, part: &[u8]) -> Self {
        if let Some(place) = self.bytes.get_mut(self.length..self.length + part.len()) {
            place.copy_from_slice(part);
            self.length += part.len().next_multiple_of(4);
        }
        self
    }

    fn and_address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.and(&address.octets()),
            IpAddr::V6(address) => self.and(&address.octets()),
        }
    }

    fn address(address: IpAddr) -> Self {
        Self::EMPTY.and_address(address)
    }

    fn protocol_port(protocol: Protocol, port: u16) -> Self {
        Self::EMPTY.and_protocol_port(protocol, port)
    }

    fn and_protocol_port(self, protocol: Protocol, port: u16) -> Self {
        self.and(&[protocol.number()]).and(&port.to_be_bytes())
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// What the kernel takes for one element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawElement<'a> {
    pub(super) key: Key,
    /// The last member of an interval of concatenations.
    pub(super) last: Option<Key>,
    /// Whether this is where an interval of addresses ends: the first address that is not in it.
    pub(super) end: bool,
    /// Whether this interval of addresses has no such end, because it reaches the last address of all.
    pub(super) open: bool,
    pub(super) target: Option<&'a ChainId>,
    pub(super) comment: Option<&'a str>,
    pub(super) lifetime: Option<Duration>,
}

/// The one or two elements that the kernel takes for one.
pub(super) fn raw(
    interval: bool,
    key: ElementKey,
    element: &Element,
) -> impl Iterator<Item = RawElement<'_>> {
    let (first, last, end) = match key {
        ElementKey::Address(address) => (Key::address(address), None, None),
        ElementKey::AddressPair(source, destination) => {
            (Key::address(source).and_address(destination), None, None)
        }
        ElementKey::AddressRange(first, last) => (Key::address(first), None, successor(last)),
        ElementKey::ProtocolPort(protocol, first, last) => {
            let last = interval.then(|| Key::protocol_port(protocol, last));
            (Key::protocol_port(protocol, first), last, None)
        }
        ElementKey::Tuple(Tuple { source, destination, protocol, source_port, destination_port }) => {
            let ends = Key::address(source).and_address(destination);
            let key = ends.and_protocol_port(protocol, source_port).and(&destination_port.to_be_bytes());
            (key, None, None)
        }
    };
    let start = RawElement {
        key: first,
        last,
        end: false,
        open: matches!(key, ElementKey::AddressRange(..)) && end.is_none(),
        target: element.target.as_ref(),
        comment: element.comment.as_deref(),
        lifetime: key.lifetime(),
    };
    let end = end.map(|address| RawElement {
        key: Key::address(address),
        last: None,
        end: true,
        open: false,
        target: None,
        comment: None,
        lifetime: None,
    });
    std::iter::once(start).chain(end)
}

/// An element as it was read, not yet put together with the end of its interval.
#[derive(Debug)]
pub(super) struct ListedElement {
    key: Vec<u8>,
    last: Option<Vec<u8>>,
    end: bool,
    element: Element,
}

impl ListedElement {
    /// What distinguishes the element from others, in an order in which the end of an interval comes before the
    /// beginning of the next, which may be at the same address.
    fn place(&self) -> (&[u8], Option<&[u8]>, bool) {
        (&self.key, self.last.as_deref(), !self.end)
    }

    /// Reads an element of a set; `None` where it says anything that podfence never says.
    pub(super) fn parse(attributes: Attributes<'_>) -> Option<Self> {
        let mut listed = Self { key: Vec::new(), last: None, end: false, element: Element::BARE };
        for attribute in attributes.iter() {
            let nested = Attributes(attribute.value);
            let bytes = || nested.get(uapi::NFTA_DATA_VALUE).map(<[u8]>::to_vec);
            match attribute.kind {
                uapi::NFTA_SET_ELEM_KEY => listed.key = bytes()?,
                uapi::NFTA_SET_ELEM_KEY_END => listed.last = Some(bytes()?),
                uapi::NFTA_SET_ELEM_FLAGS => {
                    let flags = attributes.number(uapi::NFTA_SET_ELEM_FLAGS)?;
                    if flags & !uapi::NFT_SET_ELEM_INTERVAL_END != 0 {
                        return None;
                    }
                    listed.end = flags != 0;
                }
                uapi::NFTA_SET_ELEM_DATA => {
                    let Verdict::Goto(chain) = verdict(nested)? else { return None };
                    listed.element.target = Some(chain);
                }
                uapi::NFTA_SET_ELEM_USERDATA => listed.element.comment = comment(attribute.value),
                uapi::NFTA_SET_ELEM_PAD => {}
                _ => return None,
            }
        }
        (!listed.key.is_empty()).then_some(listed)
    }
}

/// The comment in the user data of a rule or an element.
pub(super) fn comment(mut user_data: &[u8]) -> Option<Arc<str>> {
    while let [kind, length, rest @ ..] = user_data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == uapi::UDATA_COMMENT {
            return text(value).map(Arc::from);
        }
        user_data = rest.get(value.len()..)?;
    }
    None
}

/// User data with a comment, as nft writes it.
pub(super) fn user_data(comment: Option<&str>, open: bool) -> Result<Vec<u8>, Unfit> {
    let mut user_data = Vec::new();
    if let Some(comment) = comment {
        let length = u8::try_from(comment.len() + 1).ok().filter(|_| comment.len() <= COMMENT_MAX);
        user_data.extend([uapi::UDATA_COMMENT, length.ok_or(Unfit::LongComment)?]);
        user_data.extend(comment.as_bytes());
        user_data.push(0);
    }
    if open {
        user_data.extend([uapi::UDATA_ELEMENT_FLAGS, 4]);
        user_data.extend(uapi::UDATA_ELEMENT_OPEN.to_ne_bytes());
    }
    Ok(user_data)
}

/// Puts a list of elements in order, and says whether it has one of them twice.
pub(super) fn sort(listed: &mut [ListedElement]) -> bool {
    listed.sort_unstable_by(|one, other| one.place().cmp(&other.place()));
    listed.windows(2).any(|pair| matches!(pair, [one, next] if one.place() == next.place()))
}

/// Puts the listed elements of a set, which are in order, together; `None` if one is not of the set's kind.
pub(super) fn assemble(kind: SetKind, listed: Vec<ListedElement>) -> Option<BTreeMap<ElementKey, Element>> {
    match kind {
        SetKind { key: KeyType::Address(family), interval: true, .. } => intervals(family, listed),
        _ => listed.into_iter().map(|listed| single(kind, listed)).collect(),
    }
}

fn single(kind: SetKind, listed: ListedElement) -> Option<(ElementKey, Element)> {
    let (key, last) = (&*listed.key, listed.last.as_deref());
    let key = match kind.key {
        KeyType::Address(family) => ElementKey::Address(address(family, key)?),
        KeyType::AddressPair(family) => {
            let (source, destination) = key.split_at_checked(key.len() / 2)?;
            ElementKey::AddressPair(address(family, source)?, address(family, destination)?)
        }
        KeyType::ProtocolPort => {
            let (protocol, first) = protocol_port(key)?;
            let (last_protocol, last) = last.map_or(Some((protocol, first)), protocol_port)?;
            if protocol != last_protocol {
                return None;
            }
            ElementKey::ProtocolPort(protocol, first, last)
        }
        // No part of the ruleset.
        KeyType::Tuple(_) | KeyType::Answer => return None,
    };
    Some((key, listed.element))
}

/// Reads the key of [`KeyType::Tuple`]; `None` if it is of another type.
pub(super) fn tuple(family: Family, key: &[u8]) -> Option<Tuple> {
    let length = match family {
        Family::Ipv4 => 4,
        Family::Ipv6 => 16,
    };
    let (source, rest) = key.split_at_checked(length)?;
    let (destination, rest) = rest.split_at_checked(length)?;
    let (protocol, source_port) = protocol_port(rest)?;
    let [.., high, low, _, _] = *rest.get(..12)? else { return None };
    Some(Tuple {
        source: address(family, source)?,
        destination: address(family, destination)?,
        protocol,
        source_port,
        destination_port: u16::from_be_bytes([high, low]),
    })
}

fn intervals(family: Family, listed: Vec<ListedElement>) -> Option<BTreeMap<ElementKey, Element>> {
    let mut elements = BTreeMap::new();
    let mut listed = listed.into_iter().peekable();
    // nft may begin with an end at the address zero, of an interval that is not there.
    listed.next_if(|element| element.end && element.key.iter().all(|byte| *byte == 0));
    while let Some(start) = listed.next() {
        let last = match listed.next_if(|element| element.end) {
            Some(end) => predecessor(address(family, &end.key)?)?,
            None if listed.peek().is_none() => highest(family),
            None => return None,
        };
        if start.end {
            return None;
        }
        elements.insert(ElementKey::AddressRange(address(family, &start.key)?, last), start.element);
    }
    Some(elements)
}

fn address(family: Family, key: &[u8]) -> Option<IpAddr> {
    Some(match family {
        Family::Ipv4 => IpAddr::from(<[u8; 4]>::try_from(key).ok()?),
        Family::Ipv6 => IpAddr::from(<[u8; 16]>::try_from(key).ok()?),
    })
}

fn protocol_port(key: &[u8]) -> Option<(Protocol, u16)> {
    let [number, _, _, _, high, low, ..] = *key else { return None };
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)?;
    Some((protocol, u16::from_be_bytes([high, low])))
}

fn highest(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::from([u8::MAX; 4]),
        Family::Ipv6 => IpAddr::from([u8::MAX; 16]),
    }
}

/// The next address, if there is one.
fn successor(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => IpAddr::V4(address.to_bits().checked_add(1)?.into()),
        IpAddr::V6(address) => IpAddr::V6(address.to_bits().checked_add(1)?.into()),
    })
}

/// The address before, if there is one.
fn predecessor(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => IpAddr::V4(address.to_bits().checked_sub(1)?.into()),
        IpAddr::V6(address) => IpAddr::V6(address.to_bits().checked_sub(1)?.into()),
    })
}
