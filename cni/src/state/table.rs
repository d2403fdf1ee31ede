//! The table as the messages that make it: what the kernel lists, put into the order in which it takes it back, without
//! what it adds itself (handles, counts) and without what time takes away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::file::host;
use super::packed::Packed;
use super::{Error, Header, RESTORED_CHAIN, SavedPod, State, TABLE, Timestamp, restored_set};
use crate::netlink::numbers::{
    NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETSET, NFT_MSG_GETSETELEM, NFT_MSG_GETTABLE,
    NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE, NFT_RETURN,
    NFT_SET_ELEM_INTERVAL_END, NFT_SET_TIMEOUT, NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST, NFTA_ANY_TABLE,
    NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE, NFTA_DATA_VALUE, NFTA_EXPR_NAME,
    NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA, NFTA_SET_DATA_LEN, NFTA_SET_DATA_TYPE,
    NFTA_SET_DESC, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_FLAGS, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_KEY_END,
    NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_USERDATA, NFTA_SET_FLAGS,
    NFTA_SET_GC_INTERVAL, NFTA_SET_ID, NFTA_SET_KEY_LEN, NFTA_SET_KEY_TYPE, NFTA_SET_NAME, NFTA_SET_POLICY,
    NFTA_SET_USERDATA, NFTA_TABLE_FLAGS, NLM_F_APPEND, NLM_F_CREATE,
};
use crate::netlink::ruleset::{self, Expression, Family, Table, bytes_of, element};
use crate::netlink::{
    self, Attributes, Batch, Nftables, Question, messages, write_attribute, write_nested, zero_terminated,
};

/// How often the table is read anew because the ruleset changes meanwhile.
const READS: u32 = 4;

/// How much longer each pause between these is than the last.
const PAUSE: Duration = Duration::from_millis(5);

/// How long a piece of the messages becomes, bytes, before the next one begins.
const PIECE: usize = 1 << 16;

/// The sets of pods whose doors are unknown, without the family. They exist with `--require-doors`.
const WITHOUT_DOOR: &str = "without_door";

const SET: [u16; 10] = [
    NFTA_SET_NAME,
    NFTA_SET_FLAGS,
    NFTA_SET_KEY_TYPE,
    NFTA_SET_KEY_LEN,
    NFTA_SET_DATA_TYPE,
    NFTA_SET_DATA_LEN,
    NFTA_SET_POLICY,
    NFTA_SET_DESC,
    NFTA_SET_GC_INTERVAL,
    NFTA_SET_USERDATA,
];
const CHAIN: [u16; 4] = [NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE];
const ELEMENT: [u16; 5] = [
    NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_KEY_END,
    NFTA_SET_ELEM_DATA,
    NFTA_SET_ELEM_FLAGS,
    NFTA_SET_ELEM_USERDATA,
];

/// A set or map.
#[derive(Debug, Clone, Default)]
pub(super) struct Set {
    /// `NFT_SET_…`
    pub(super) flags: u32,
    /// nft's number of the type of its keys.
    pub(super) key_type: u32,
    /// Its attributes but the name of the table.
    declaration: Vec<u8>,
    /// The attributes of each element.
    pub(super) elements: Packed,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Listed {
    flags: u32,
    pub(super) sets: BTreeMap<String, Set>,
    chains: BTreeMap<String, Chain>,
}

#[derive(Debug, Default)]
struct Chain {
    /// Its attributes but the name of the table.
    declaration: Vec<u8>,
    /// The attributes of each rule but the names of table and chain.
    rules: Vec<Vec<u8>>,
}

impl State {
    /// What the kernel enforces now on this node, which has these pods.
    ///
    /// # Errors
    ///
    /// If there is no table, or it does not hold still.
    pub fn of_kernel(node: &str, pods: Vec<SavedPod>) -> Result<Self, Error> {
        let nftables = &mut Nftables::open()?;
        let mut table = read(nftables)?.1.ok_or(Error::NoTable)?;
        if table.is_restored() {
            return Err(Error::NoTable);
        }
        table.forget_doors(&pods);
        let saved = Timestamp::now();
        let header = Header {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: node.to_owned(),
            host: host(),
            saved,
            time: saved.to_string(),
            policies: table.digest(),
            pods,
        };
        Ok(Self { header, messages: table.write() })
    }

    /// A digest of what it enforces, and for which pods, whenever that was.
    pub fn digest(&self) -> String {
        let mut digest = Sha256::new();
        self.messages.iter().for_each(|piece| digest.update(piece));
        for SavedPod { pod, addresses } in &self.header.pods {
            digest.update(format!("{pod} {:?} {addresses:?}\n", pod.uid));
        }
        hexadecimal(&digest.finalize())
    }

    /// The messages that make the table with the mark of a restored one; if it is `owned`, as one that a process can
    /// own, if it was that when it was saved.
    pub(super) fn restoring(&self, owned: bool) -> Vec<u8> {
        let listed = Listed::of(&self.messages);
        // Whoever sends the messages owns the table for that moment.
        let persistent = listed.flags & NFT_TABLE_F_PERSIST;
        let flags = if owned && persistent != 0 { NFT_TABLE_F_OWNER | persistent } else { 0 };
        let mut batch = Batch::default();
        Table(TABLE).create(&mut batch, flags);
        listed.write_content(&mut batch, |_| ());
        self.mark(&mut batch, listed.sets.len());
        batch.into_messages()
    }

    fn mark(&self, batch: &mut Batch, sets: usize) {
        let table = Table(TABLE);
        let comment = self.header.saved.to_string();
        table.add_chain(batch, RESTORED_CHAIN, None);
        table.add_rule(batch, RESTORED_CHAIN, &[Expression::Verdict(NFT_RETURN)], Some(&comment));
        let first = u32::try_from(sets).unwrap_or_default() + 1;
        for (id, family) in (first..).zip(Family::BOTH) {
            let set = restored_set(family);
            table.add_set(batch, &set, family, false, id);
            let mut held = BTreeMap::new();
            for pod in &self.header.pods {
                let of_family = pod.addresses.iter().filter(|address| Family::of(**address) == family);
                // Of several pods that show one address none is it for sure.
                of_family.for_each(|address| _ = held.entry(*address).or_insert(&pod.pod));
            }
            let held = held.into_iter().map(|(address, pod)| holder(address, &pod.to_string()));
            table.add_elements(batch, &set, held);
        }
    }

    /// The table that is saved.
    pub(super) fn table(&self) -> Listed {
        Listed::of(&self.messages)
    }
}

/// The element that says who has an address in a restored table.
pub(super) fn holder(address: IpAddr, pod: &str) -> Vec<u8> {
    element(&bytes_of(address), Some(pod))
}

/// Reads the table, and says of which generation of the ruleset it is.
pub(super) fn read(nftables: &mut Nftables) -> Result<(u32, Option<Listed>), netlink::Error> {
    for pause in 0..READS {
        thread::sleep(PAUSE * pause);
        let before = nftables.generation()?;
        match read_once(nftables) {
            Ok(table) if nftables.generation()? == before => return Ok((before, table)),
            Ok(_) | Err(netlink::Error::Changed) => {}
            Err(error) => return Err(error),
        }
    }
    Err(netlink::Error::Changed)
}

fn read_once(nftables: &mut Nftables) -> Result<Option<Listed>, netlink::Error> {
    let table = (NFTA_ANY_TABLE, TABLE);
    let names = &[table];
    let mut listed = Listed::default();
    let question = Question { kind: NFT_MSG_GETTABLE, all: false, names };
    let exists = nftables.ask(&question, |message| {
        listed.flags = message.attributes().number(NFTA_TABLE_FLAGS).unwrap_or_default();
    })?;
    if !exists {
        return Ok(None);
    }
    for kind in [NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETSET] {
        let question = Question { kind, all: true, names };
        nftables.ask(&question, |message| {
            let attributes = message.attributes();
            // The kernel lists the chains of all tables.
            if attributes.text(NFTA_ANY_TABLE) == Some(TABLE) {
                listed.take(message.kind, attributes);
            }
        })?;
    }
    for (name, set) in listed.sets.iter_mut().filter(|(_, set)| set.flags & NFT_SET_TIMEOUT == 0) {
        let names = &[table, (NFTA_SET_ELEM_LIST_SET, name)];
        let question = Question { kind: NFT_MSG_GETSETELEM, all: true, names };
        nftables.ask(&question, |message| set.take(message.attributes()))?;
        // While the kernel grows a hash table it loses its place in it: for every element that it leaves out, it
        // repeats another.
        if set.sort() {
            return Err(netlink::Error::Changed);
        }
    }
    Ok(Some(listed))
}

impl Listed {
    /// The table that messages make.
    fn of(written: &[Vec<u8>]) -> Self {
        let mut listed = Self::default();
        for message in written.iter().flat_map(|piece| messages(piece)) {
            let attributes = message.attributes();
            match message.kind {
                NFT_MSG_NEWTABLE => {
                    listed.flags = attributes.number(NFTA_TABLE_FLAGS).unwrap_or_default();
                }
                NFT_MSG_NEWSETELEM => {
                    let set = attributes.text(NFTA_SET_ELEM_LIST_SET);
                    if let Some(set) = set.and_then(|set| listed.sets.get_mut(set)) {
                        set.take(attributes);
                    }
                }
                kind => listed.take(kind, attributes),
            }
        }
        listed
    }

    /// Takes in a chain, a rule or a set.
    fn take(&mut self, kind: u16, attributes: Attributes<'_>) {
        match kind {
            NFT_MSG_NEWCHAIN => {
                let Some(name) = attributes.text(NFTA_CHAIN_NAME) else { return };
                self.chains.entry(name.to_owned()).or_default().declaration = chosen(attributes, &CHAIN);
            }
            NFT_MSG_NEWRULE => {
                let Some(chain) = attributes.text(NFTA_RULE_CHAIN) else { return };
                self.chains.entry(chain.to_owned()).or_default().rules.push(rule(attributes));
            }
            NFT_MSG_NEWSET => {
                let Some(name) = attributes.text(NFTA_SET_NAME) else { return };
                let number = |kind| attributes.number(kind).unwrap_or_default();
                let set = Set {
                    flags: number(NFTA_SET_FLAGS),
                    key_type: number(NFTA_SET_KEY_TYPE),
                    declaration: chosen(attributes, &SET),
                    elements: Packed::default(),
                };
                self.sets.insert(name.to_owned(), set);
            }
            _ => {}
        }
    }

    /// Whether the table has the mark of a restored one.
    pub(super) fn is_restored(&self) -> bool {
        self.chains.contains_key(RESTORED_CHAIN)
    }

    /// With `--require-doors`, a pod whose door is unknown is closed. When a node boots, no door is known.
    fn forget_doors(&mut self, pods: &[SavedPod]) {
        for family in Family::BOTH {
            let Some(set) = self.sets.get_mut(&format!("{WITHOUT_DOOR}_{}", family.suffix())) else {
                continue;
            };
            let known: BTreeSet<_> =
                set.elements.iter().filter_map(|it| key(it).map(<[u8]>::to_vec)).collect();
            let addresses: BTreeSet<_> = pods.iter().flat_map(|pod| &pod.addresses).collect();
            let of_family = addresses.into_iter().filter(|address| Family::of(**address) == family);
            let keys = of_family.map(|address| bytes_of(*address)).filter(|key| !known.contains(key));
            keys.for_each(|key| set.elements.push(&element(&key, None)));
            set.sort();
        }
    }

    /// Of chains and rules.
    fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for (name, chain) in &self.chains {
            digest.update(name);
            digest.update(&chain.declaration);
            chain.rules.iter().for_each(|rule| digest.update(rule));
        }
        hexadecimal(&digest.finalize())
    }

    /// The messages that make it, in pieces that a process gives back when it has done with them.
    fn write(&self) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let mut batch = Batch::default();
        Table(TABLE).create(&mut batch, self.flags);
        self.write_content(&mut batch, |batch| {
            if batch.len() >= PIECE {
                pieces.push(std::mem::take(batch).into_messages());
            }
        });
        pieces.push(batch.into_messages());
        pieces
    }

    /// What rules refer to comes before them; elements come before the rules, because the kernel examines those again
    /// whenever a map that they refer to changes.
    /// `done` gets the batch when a part of it is complete.
    fn write_content(&self, batch: &mut Batch, mut done: impl FnMut(&mut Batch)) {
        let mut table = Vec::new();
        write_attribute(&mut table, NFTA_ANY_TABLE, &zero_terminated(TABLE));
        for chain in self.chains.values() {
            batch.push(NFT_MSG_NEWCHAIN, NLM_F_CREATE, &[table.as_slice(), &chain.declaration].concat());
        }
        for (id, set) in (1u32..).zip(self.sets.values()) {
            let mut attributes = [table.as_slice(), &set.declaration].concat();
            write_attribute(&mut attributes, NFTA_SET_ID, &id.to_be_bytes());
            batch.push(NFT_MSG_NEWSET, NLM_F_CREATE, &attributes);
        }
        for (name, set) in &self.sets {
            Table(TABLE).add_elements(batch, name, set.elements.iter());
            done(batch);
        }
        for (name, chain) in &self.chains {
            for rule in &chain.rules {
                let mut attributes = table.clone();
                write_attribute(&mut attributes, NFTA_RULE_CHAIN, &zero_terminated(name));
                attributes.extend(rule);
                batch.push(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &attributes);
            }
            done(batch);
        }
    }
}

impl Set {
    /// Takes in a list of elements.
    fn take(&mut self, attributes: Attributes<'_>) {
        let elements = attributes.nested(NFTA_SET_ELEM_LIST_ELEMENTS);
        let elements = elements.into_iter().flat_map(Attributes::iter);
        elements.for_each(|element| self.elements.push(&chosen(Attributes(element.value), &ELEMENT)));
    }

    /// Sorts the elements as the kernel takes those of intervals: where one begins at the end of another, the end
    /// comes first. Says whether one is there twice.
    fn sort(&mut self) -> bool {
        self.elements
            .sort_by(|one, other| key(one).cmp(&key(other)).then_with(|| is_end(other).cmp(&is_end(one))))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The key of an element.
pub(super) fn key(element: &[u8]) -> Option<&[u8]> {
    Attributes(element).nested(NFTA_SET_ELEM_KEY)?.get(NFTA_DATA_VALUE)
}

/// Whether an interval ends before the element's key.
fn is_end(element: &[u8]) -> bool {
    let flags = Attributes(element).number(NFTA_SET_ELEM_FLAGS).unwrap_or_default();
    flags & NFT_SET_ELEM_INTERVAL_END != 0
}

/// The attributes of some types.
fn chosen(attributes: Attributes<'_>, kinds: &[u16]) -> Vec<u8> {
    let mut chosen = Vec::new();
    for attribute in attributes.iter().filter(|attribute| kinds.contains(&attribute.kind)) {
        write_attribute(&mut chosen, attribute.kind, attribute.value);
    }
    chosen
}

/// The instructions and the comment of a rule. Its counter begins anew.
fn rule(attributes: Attributes<'_>) -> Vec<u8> {
    let mut rule = Vec::new();
    let expressions = attributes.nested(NFTA_RULE_EXPRESSIONS).into_iter().flat_map(Attributes::iter);
    write_nested(&mut rule, NFTA_RULE_EXPRESSIONS, |written| {
        for expression in expressions {
            if Attributes(expression.value).text(NFTA_EXPR_NAME) == Some("counter") {
                ruleset::expression(written, "counter", |_| ());
            } else {
                write_attribute(written, expression.kind, expression.value);
            }
        }
    });
    if let Some(comment) = attributes.get(NFTA_RULE_USERDATA) {
        write_attribute(&mut rule, NFTA_RULE_USERDATA, comment);
    }
    rule
}
