//! The messages of small rulesets of the family `inet`.

use std::net::IpAddr;

use super::message::{write_attribute, write_nested, zero_terminated};
use super::nftables::Batch;
use super::numbers::{
    NFT_MSG_DELSETELEM, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE, NFT_SET_ELEM_INTERVAL_END, NFT_SET_INTERVAL, NFTA_ANY_TABLE,
    NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_TYPE, NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_EXPR_DATA,
    NFTA_EXPR_NAME, NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY, NFTA_LIST_ELEM, NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA, NFTA_SET_ELEM_FLAGS, NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_USERDATA, NFTA_SET_FLAGS, NFTA_SET_ID,
    NFTA_SET_KEY_LEN, NFTA_SET_KEY_TYPE, NFTA_SET_NAME, NFTA_TABLE_FLAGS, NFTA_VERDICT_CODE, NLM_F_APPEND,
    NLM_F_CREATE, NLM_F_EXCL, TYPE_IP6ADDR, TYPE_IPADDR, UDATA_COMMENT,
};

/// The elements of one message together have at most so many bytes: the kernel takes 64 KiB.
const LONGEST_LIST: usize = 1 << 15;

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// As names of sets end.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }

    /// nft's number of the type of its addresses.
    pub(crate) fn key_type(self) -> u32 {
        match self {
            Self::Ipv4 => TYPE_IPADDR,
            Self::Ipv6 => TYPE_IP6ADDR,
        }
    }

    /// The bytes of an address.
    pub(crate) fn length(self) -> usize {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 => 16,
        }
    }
}

/// An address as keys have it.
pub(crate) fn bytes_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The address that a key is.
pub(crate) fn address_of(key: &[u8]) -> Option<IpAddr> {
    let ipv4 = <[u8; 4]>::try_from(key).map(IpAddr::from);
    ipv4.or_else(|_| <[u8; 16]>::try_from(key).map(IpAddr::from)).ok()
}

/// An instruction of a rule.
#[derive(Debug, Clone)]
pub(crate) enum Expression {
    /// Continues if this part of the packet is in a set.
    InSet {
        base: u32,
        offset: u32,
        length: u32,
        set: String,
    },
    /// Continues if this metadata (`NFT_META_…`) is the byte.
    MetaIs(u32, u8),
    /// Continues if the first byte of the transport header is in the range.
    TransportStarts(std::ops::RangeInclusive<u8>),
    /// Continues if the source is an address of the node.
    FromNode,
    Counter,
    Verdict(u32),
}

impl Expression {
    fn write(&self, buffer: &mut Vec<u8>) {
        const REGISTER: u32 = 1;
        const EQUAL: u32 = 0;
        const AT_MOST: u32 = 3;
        const AT_LEAST: u32 = 5;
        /// `RTN_LOCAL`
        const LOCAL: u32 = 2;
        let load = |buffer: &mut Vec<u8>, base: u32, offset: u32, length: u32| {
            let fields = [(1, REGISTER), (2, base), (3, offset), (4, length)];
            expression(buffer, "payload", |data| numbers(data, &fields));
        };
        let compare = |buffer: &mut Vec<u8>, operator: u32, value: &[u8]| {
            expression(buffer, "cmp", |data| {
                numbers(data, &[(1, REGISTER), (2, operator)]);
                write_nested(data, 3, |data| write_attribute(data, NFTA_DATA_VALUE, value));
            });
        };
        match self {
            Self::InSet { base, offset, length, set } => {
                load(buffer, *base, *offset, *length);
                expression(buffer, "lookup", |data| {
                    write_attribute(data, 1, &zero_terminated(set));
                    numbers(data, &[(2, REGISTER)]);
                });
            }
            Self::MetaIs(key, value) => {
                expression(buffer, "meta", |data| numbers(data, &[(1, REGISTER), (2, *key)]));
                compare(buffer, EQUAL, &[*value]);
            }
            Self::TransportStarts(range) => {
                load(buffer, 2, 0, 1);
                compare(buffer, AT_LEAST, &[*range.start()]);
                compare(buffer, AT_MOST, &[*range.end()]);
            }
            Self::FromNode => {
                // The type of the route that the source would have.
                expression(buffer, "fib", |data| numbers(data, &[(1, REGISTER), (2, 3), (3, 1)]));
                compare(buffer, EQUAL, &LOCAL.to_ne_bytes());
            }
            Self::Counter => expression(buffer, "counter", |_| ()),
            Self::Verdict(verdict) => expression(buffer, "immediate", |data| {
                numbers(data, &[(1, 0)]);
                write_nested(data, 2, |data| {
                    write_nested(data, NFTA_DATA_VERDICT, |data| {
                        numbers(data, &[(NFTA_VERDICT_CODE, *verdict)]);
                    });
                });
            }),
        }
    }
}

/// Appends an instruction with what `write` appends.
pub(crate) fn expression(buffer: &mut Vec<u8>, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
    write_nested(buffer, NFTA_LIST_ELEM, |buffer| {
        write_attribute(buffer, NFTA_EXPR_NAME, &zero_terminated(name));
        write_nested(buffer, NFTA_EXPR_DATA, write);
    });
}

/// Appends numbers as attributes.
fn numbers(buffer: &mut Vec<u8>, numbers: &[(u16, u32)]) {
    for (kind, number) in numbers {
        write_attribute(buffer, *kind, &number.to_be_bytes());
    }
}

/// A table whose messages go into a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table<'a>(pub(crate) &'a str);

impl Table<'_> {
    /// The table, which must not exist yet.
    pub(crate) fn create(self, batch: &mut Batch, flags: u32) {
        let mut attributes = self.named(&[]);
        numbers(&mut attributes, &[(NFTA_TABLE_FLAGS, flags)]);
        batch.push(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, &attributes);
    }

    /// The end of the table with all that is in it.
    pub(crate) fn delete(self, batch: &mut Batch) {
        batch.push(NFT_MSG_DELTABLE, 0, &self.named(&[]));
    }

    /// A chain, called by a hook (`NF_INET_…`) with the priority `filter`, or by none.
    pub(crate) fn add_chain(self, batch: &mut Batch, name: &str, hook: Option<u32>) {
        let mut attributes = self.named(&[(NFTA_CHAIN_NAME, name)]);
        if let Some(hook) = hook {
            write_nested(&mut attributes, NFTA_CHAIN_HOOK, |data| {
                numbers(data, &[(NFTA_HOOK_HOOKNUM, hook), (NFTA_HOOK_PRIORITY, 0)]);
            });
            write_attribute(&mut attributes, NFTA_CHAIN_TYPE, &zero_terminated("filter"));
        }
        batch.push(NFT_MSG_NEWCHAIN, NLM_F_CREATE, &attributes);
    }

    /// A rule at the end of a chain.
    pub(crate) fn add_rule(
        self,
        batch: &mut Batch,
        chain: &str,
        expressions: &[Expression],
        comment: Option<&str>,
    ) {
        let mut attributes = self.named(&[(NFTA_RULE_CHAIN, chain)]);
        write_nested(&mut attributes, NFTA_RULE_EXPRESSIONS, |data| {
            for expression in expressions {
                expression.write(data);
            }
        });
        if let Some(comment) = comment {
            write_attribute(&mut attributes, NFTA_RULE_USERDATA, &user_data(comment));
        }
        batch.push(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &attributes);
    }

    /// A set of addresses, or of intervals of them. Its `id` is to be unique in the batch.
    pub(crate) fn add_set(self, batch: &mut Batch, name: &str, family: Family, interval: bool, id: u32) {
        let mut attributes = self.named(&[(NFTA_SET_NAME, name)]);
        let flags = if interval { NFT_SET_INTERVAL } else { 0 };
        let length = if family == Family::Ipv4 { 4 } else { 16 };
        let declaration = [
            (NFTA_SET_FLAGS, flags),
            (NFTA_SET_KEY_TYPE, family.key_type()),
            (NFTA_SET_KEY_LEN, length),
            (NFTA_SET_ID, id),
        ];
        numbers(&mut attributes, &declaration);
        batch.push(NFT_MSG_NEWSET, NLM_F_CREATE, &attributes);
    }

    /// Elements of a set, each as [`element`] makes it. One that is there already stays.
    pub(crate) fn add_elements<E: AsRef<[u8]>>(
        self,
        batch: &mut Batch,
        set: &str,
        elements: impl IntoIterator<Item = E>,
    ) {
        self.elements(batch, (NFT_MSG_NEWSETELEM, NLM_F_CREATE), set, elements);
    }

    /// The end of elements, which must be there.
    pub(crate) fn delete_elements<E: AsRef<[u8]>>(
        self,
        batch: &mut Batch,
        set: &str,
        elements: impl IntoIterator<Item = E>,
    ) {
        self.elements(batch, (NFT_MSG_DELSETELEM, 0), set, elements);
    }

    /// The end of all elements of a set.
    pub(crate) fn flush_set(self, batch: &mut Batch, set: &str) {
        batch.push(NFT_MSG_DELSETELEM, 0, &self.named(&[(NFTA_SET_ELEM_LIST_SET, set)]));
    }

    fn elements<E: AsRef<[u8]>>(
        self,
        batch: &mut Batch,
        (kind, flags): (u16, u16),
        set: &str,
        elements: impl IntoIterator<Item = E>,
    ) {
        let mut rest = elements.into_iter().peekable();
        while rest.peek().is_some() {
            let mut list = Vec::new();
            while let Some(element) = rest.next_if(|_| list.len() < LONGEST_LIST) {
                write_attribute(&mut list, NFTA_LIST_ELEM, element.as_ref());
            }
            let mut attributes = self.named(&[(NFTA_SET_ELEM_LIST_SET, set)]);
            write_attribute(&mut attributes, NFTA_SET_ELEM_LIST_ELEMENTS, &list);
            batch.push(kind, flags, &attributes);
        }
    }

    /// Attributes that begin with the table's name and others.
    fn named(self, names: &[(u16, &str)]) -> Vec<u8> {
        let mut attributes = Vec::new();
        for (kind, name) in std::iter::once(&(NFTA_ANY_TABLE, self.0)).chain(names) {
            write_attribute(&mut attributes, *kind, &zero_terminated(name));
        }
        attributes
    }
}

/// The attributes of an element.
pub(crate) fn element(key: &[u8], comment: Option<&str>) -> Vec<u8> {
    let mut attributes = Vec::new();
    write_nested(&mut attributes, NFTA_SET_ELEM_KEY, |data| write_attribute(data, NFTA_DATA_VALUE, key));
    if let Some(comment) = comment {
        write_attribute(&mut attributes, NFTA_SET_ELEM_USERDATA, &user_data(comment));
    }
    attributes
}

/// The attributes of the element that ends an interval before this key.
pub(crate) fn end_before(key: &[u8]) -> Vec<u8> {
    let mut attributes = element(key, None);
    numbers(&mut attributes, &[(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END)]);
    attributes
}

/// A comment as nft keeps it: a sort, a length, a zero-terminated text. It is cut off behind 127 bytes.
fn user_data(comment: &str) -> Vec<u8> {
    const LONGEST: usize = 127;
    let end = (0..=comment.len().min(LONGEST)).rev().find(|end| comment.is_char_boundary(*end));
    let comment = zero_terminated(comment.get(..end.unwrap_or_default()).unwrap_or_default());
    let length = u8::try_from(comment.len()).unwrap_or_default();
    [&[UDATA_COMMENT, length], comment.as_slice()].concat()
}

/// The comment in user data.
pub(crate) fn comment_of(mut user_data: &[u8]) -> Option<&str> {
    while let [sort, length, rest @ ..] = user_data {
        let (value, next) = rest.split_at_checked(usize::from(*length))?;
        if *sort == UDATA_COMMENT {
            return super::message::text(value);
        }
        user_data = next;
    }
    None
}
