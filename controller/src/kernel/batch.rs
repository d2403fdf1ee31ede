//! A transaction as the messages of one netlink batch.

use std::collections::BTreeMap;
use std::ops::Range;

use nftnl::nftnl_sys::libc;
use nftnl::{ChainType, MsgType, NlMsg, Policy, ProtoFamily};
use policy_compiler::ruleset::{
    ChainId, Element, ElementKey, Hook, Operation, Rule, SetId, SetKind, TABLE, TableFamily, Transaction,
};

use super::element::{RawElement, raw};
use super::error::{Error, Unfit, chain_of, describe, describe_element, is_lasting};
use super::expression::expressions;
use super::set::Declaration;
use super::sys::{Desk, Name, TableName};
use super::{protocol_family, sys, uapi};
use podfence_cni::netlink::{self, Attributes, Header, Message};

/// Where the generation stands in the first message: behind three headers.
const GENERATION: Range<usize> = 24..28;

/// A batch: BEGIN, the messages of the operations, END.
pub(super) struct Batch<'a> {
    transactions: &'a [Transaction],
    sets: Sets<'a>,
    desk: Desk,
    bytes: Vec<u8>,
    first_sequence: u32,
    messages: Vec<Sent>,
}

/// A message of the batch, at the index that its sequence number gives.
struct Sent {
    start: usize,
    /// The operation that it is of; `None` for BEGIN and END.
    operation: Option<Index>,
}

/// The index of a transaction, and of an operation in it.
type Index = (usize, usize);

/// The kinds of the sets of both tables.
pub(super) type Kinds = BTreeMap<(TableFamily, SetId), SetKind>;

/// The kinds of the sets at some point of a batch.
struct Sets<'a> {
    before: &'a Kinds,
    added: Kinds,
}

impl Sets<'_> {
    fn kind(&self, table: TableFamily, set: &SetId) -> Option<SetKind> {
        let key = (table, set.clone());
        self.added.get(&key).or_else(|| self.before.get(&key)).copied()
    }
}

/// The kernel's answer to one message of a batch.
pub(super) struct Reply {
    /// The index of the message.
    pub(super) message: usize,
    /// 0 for an acknowledgement.
    pub(super) errno: i32,
    explanation: Option<String>,
    /// Where the attribute at fault begins, counted from the beginning of the message.
    offset: Option<usize>,
}

impl<'a> Batch<'a> {
    /// Encodes transactions on tables that have `sets` before; one that is to be owned gets `flags`.
    pub(super) fn encode(
        transactions: &'a [Transaction],
        sets: &'a Kinds,
        flags: u32,
        first_sequence: u32,
    ) -> Result<Self, Error> {
        let mut batch = Self {
            transactions,
            sets: Sets { before: sets, added: Kinds::new() },
            desk: Desk::new(),
            bytes: Vec::new(),
            first_sequence,
            messages: Vec::new(),
        };
        batch.frame(uapi::NFNL_MSG_BATCH_BEGIN, &[(uapi::NFNL_BATCH_GENID, &[0; 4])]);
        for (outer, transaction) in transactions.iter().enumerate() {
            let table = Target::new(transaction.table, flags)
                .map_err(unfit(transaction.table, &Operation::AddTable))?;
            for (index, operation) in transaction.operations.iter().enumerate() {
                batch
                    .operation((outer, index), operation, &table)
                    .map_err(unfit(transaction.table, operation))?;
            }
        }
        batch.frame(uapi::NFNL_MSG_BATCH_END, &[]);
        batch.acknowledge();
        Ok(batch)
    }

    /// Makes the batch one that the kernel refuses (`ERESTART`) unless the ruleset is of this generation.
    pub(super) fn set_generation(&mut self, generation: u32) {
        if let Some(place) = self.bytes.get_mut(GENERATION) {
            place.copy_from_slice(&generation.to_be_bytes());
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many messages the batch has, and so how many sequence numbers it takes.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The messages that the kernel was asked to acknowledge.
    pub(super) fn acknowledged(&self) -> [usize; 2] {
        let last = self.messages.iter().rposition(|sent| sent.operation.is_some());
        [1, last.unwrap_or_default()]
    }

    /// Takes END away: the kernel then examines the messages, as `nft --check` has it do, and undoes them.
    pub(super) fn without_end(mut self) -> Self {
        if let Some(end) = self.messages.pop() {
            self.bytes.truncate(end.start);
        }
        self
    }

    fn next(&mut self, operation: Option<Index>) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a batch of 2³² messages does not fit into memory"
        )]
        let sequence = self.first_sequence.wrapping_add(self.messages.len() as u32);
        self.messages.push(Sent { start: self.bytes.len(), operation });
        sequence
    }

    fn frame(&mut self, kind: u16, attributes: &[(u16, &[u8])]) {
        let header = Header {
            kind,
            flags: uapi::NLM_F_REQUEST,
            sequence: self.next(None),
            structure: &netlink::netfilter(uapi::AF_UNSPEC, uapi::NFNL_SUBSYS_NFTABLES),
        };
        netlink::write(&mut self.bytes, &header, attributes);
    }

    /// Appends a message of an operation. `flags` are those besides `NLM_F_REQUEST`.
    fn push(&mut self, operation: Index, message: &impl NlMsg, kind: MsgType, flags: u16) {
        let (start, sequence) = (self.bytes.len(), self.next(Some(operation)));
        self.bytes.extend_from_slice(self.desk.write(message, kind, sequence));
        netlink::set_flags(&mut self.bytes, start, uapi::NLM_F_REQUEST | flags);
    }

    /// An acknowledgement of each message would overflow the receive buffer.
    fn acknowledge(&mut self) {
        for message in self.acknowledged() {
            if let Some(sent) = self.messages.get(message) {
                netlink::add_flags(&mut self.bytes, sent.start, uapi::NLM_F_ACK);
            }
        }
    }

    fn operation(&mut self, index: Index, operation: &'a Operation, target: &Target) -> Result<(), Unfit> {
        const NEW: u16 = uapi::NLM_F_CREATE | uapi::NLM_F_EXCL;
        let Target { family, name, table, flags } = target;
        match operation {
            Operation::AddTable => self.new_table(index, *family, None),
            Operation::OwnTable => self.new_table(index, *family, Some(*flags)),
            Operation::DeleteTable => self.push(index, table, MsgType::Del, 0),
            Operation::AddSet(set, kind) => {
                // Unique in the batch, which is all that the kernel asks for.
                #[expect(clippy::cast_possible_truncation, reason = "as in `next`")]
                let id = self.messages.len() as u32;
                let message = sys::Set::declared(name, &Name::new(set.name())?, &Declaration::of(*kind), id);
                self.push(index, &message, MsgType::Add, NEW);
                self.sets.added.insert((*family, set.clone()), *kind);
            }
            Operation::DeleteSet(set) => {
                let message = sys::Set::named(name, &Name::new(set.name())?);
                self.push(index, &message, MsgType::Del, 0);
            }
            Operation::AddChain(chain, hook) => {
                self.push(index, &new_chain(table, chain, hook.as_ref())?, MsgType::Add, NEW);
            }
            Operation::DeleteChain(chain) => {
                self.push(index, &new_chain(table, chain, None)?, MsgType::Del, 0);
            }
            Operation::AddRule(chain, rule) => {
                let message = self.rule(target, chain, rule)?;
                self.push(index, &message, MsgType::Add, uapi::NLM_F_CREATE | uapi::NLM_F_APPEND);
            }
            Operation::FlushChain(chain) => {
                // A rule without a handle stands for all rules of its chain.
                let message = sys::Rule::new(name, &Name::new(chain.name())?, &[], None)?;
                self.push(index, &message, MsgType::Del, 0);
            }
            Operation::AddElements(set, elements) => {
                let transient = self.sets.kind(*family, set).is_some_and(|kind| kind.transient().is_some());
                // One that is already there is as good as new: its time begins anew.
                let flags = if transient { uapi::NLM_F_CREATE } else { NEW };
                self.elements(index, target, (set, elements), MsgType::Add, flags)?;
            }
            Operation::DeleteElements(set, elements) => {
                self.elements(index, target, (set, elements), MsgType::Del, 0)?;
            }
        }
        Ok(())
    }

    fn new_table(&mut self, operation: Index, family: TableFamily, flags: Option<u32>) {
        let sequence = self.next(Some(operation));
        write_table(&mut self.bytes, sequence, (family, TABLE), flags);
    }

    fn rule(&self, target: &Target, chain: &ChainId, rule: &Rule) -> Result<sys::Rule, Unfit> {
        let intervals = |set: &SetId| self.sets.kind(target.family, set).is_some_and(|kind| kind.interval);
        let expressions = expressions(target.family, &rule.statements, intervals);
        sys::Rule::new(&target.name, &Name::new(chain.name())?, &expressions, rule.comment.as_deref())
    }

    fn elements(
        &mut self,
        index: Index,
        target: &Target,
        (set, elements): (&SetId, &[(ElementKey, Element)]),
        kind: MsgType,
        flags: u16,
    ) -> Result<(), Unfit> {
        let interval = self.sets.kind(target.family, set).ok_or(Unfit::UnknownSet)?.interval;
        let raw = raw_elements(interval, elements).map(|(_, raw)| raw);
        let elements = sys::Elements::new(&target.name, &Name::new(set.name())?, raw)?;
        while elements.more() {
            self.push(index, &elements, kind, flags);
        }
        Ok(())
    }

    /// Reads an answer, if the message is one to this batch.
    pub(super) fn reply(&self, message: &Message<'_>) -> Option<Reply> {
        let index = message.sequence.wrapping_sub(self.first_sequence) as usize;
        let errno = message.errno().filter(|_| index < self.messages.len())?;
        // Behind the error number stands the header of the message at fault.
        let attributes =
            Attributes(message.payload.get(size_of::<i32>() + netlink::HEADER..).unwrap_or_default());
        Some(Reply {
            message: index,
            errno,
            explanation: attributes.text(uapi::NLMSGERR_ATTR_MSG).map(str::to_owned),
            offset: attributes
                .get(uapi::NLMSGERR_ATTR_OFFS)
                .and_then(|value| netlink::native_u32(value, 0))
                .map(|offset| offset as usize),
        })
    }

    /// The error that a refusal means to the caller.
    pub(super) fn refusal(&self, reply: Reply) -> Error {
        // A right that is missing is missed at BEGIN.
        if reply.errno == libc::EPERM && self.operation_of(reply.message).is_some() {
            return Error::Owned;
        }
        let operation = self.operation_of(reply.message).map(|(_, _, operation)| operation);
        let lasting = is_lasting(reply.errno, operation);
        let (operation, chain) = match self.operation_of(reply.message) {
            Some((_, table, operation)) => self
                .element_at_fault(&reply)
                .unwrap_or_else(|| (describe(table, operation), chain_of(operation))),
            None => ("commit the transaction".to_owned(), None),
        };
        Error::Refused {
            operation,
            chain,
            lasting,
            message: reply.explanation,
            source: std::io::Error::from_raw_os_error(reply.errno),
        }
    }

    fn operation_of(&self, message: usize) -> Option<(Index, TableFamily, &'a Operation)> {
        let index @ (outer, inner) = self.messages.get(message)?.operation?;
        let transaction = self.transactions.get(outer)?;
        Some((index, transaction.table, transaction.operations.get(inner)?))
    }

    /// What was to be done with the one element that the kernel points at, and to which chain it leads.
    fn element_at_fault(&self, reply: &Reply) -> Option<(String, Option<ChainId>)> {
        let (index, table, operation) = self.operation_of(reply.message)?;
        let (Operation::AddElements(set, elements) | Operation::DeleteElements(set, elements)) = operation
        else {
            return None;
        };
        let offset = reply.offset?;
        let within = self.listed(reply.message).position(|element| element.contains(&offset))?;
        let earlier =
            (0..reply.message).filter(|message| self.operation_of(*message).is_some_and(|of| of.0 == index));
        let before: usize = earlier.map(|message| self.listed(message).count()).sum();
        let interval = self.sets.kind(table, set)?.interval;
        let (key, _) = raw_elements(interval, elements).nth(before + within)?;
        let target = elements.iter().find(|(other, _)| other == key).and_then(|(_, it)| it.target.clone());
        Some((describe_element(set, *key, matches!(operation, Operation::AddElements(..))), target))
    }

    /// Where in a message the elements that it lists stand.
    fn listed(&self, message: usize) -> impl Iterator<Item = Range<usize>> {
        let start = self.messages.get(message).map_or(self.bytes.len(), |sent| sent.start);
        let bytes = self.bytes.get(start..).unwrap_or_default();
        let message = netlink::messages(bytes).next();
        let elements =
            message.and_then(|message| message.attributes().nested(uapi::NFTA_SET_ELEM_LIST_ELEMENTS));
        elements.into_iter().flat_map(Attributes::iter).map(|element| {
            let value = element.value.as_ptr().addr() - bytes.as_ptr().addr();
            value - netlink::ATTRIBUTE_HEADER..value + element.value.len()
        })
    }
}

/// A batch that asks whether the kernel knows the family and the flags of a table, and changes nothing: without END it
/// is undone. The answer comes to the message with the number `sequence`.
pub(super) fn table_trial(sequence: u32, family: TableFamily, flags: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let begin = Header {
        kind: uapi::NFNL_MSG_BATCH_BEGIN,
        flags: uapi::NLM_F_REQUEST,
        sequence: sequence.wrapping_sub(1),
        structure: &netlink::netfilter(uapi::AF_UNSPEC, uapi::NFNL_SUBSYS_NFTABLES),
    };
    netlink::write(&mut bytes, &begin, &[]);
    let start = bytes.len();
    write_table(&mut bytes, sequence, (family, "podfence-trial"), Some(flags));
    netlink::add_flags(&mut bytes, start, uapi::NLM_F_ACK);
    bytes
}

/// Appends a message that creates a table, or gives the one that exists these flags. (libnftnl's crate gives
/// every table its flags, none, which a table that has an owner refuses.)
fn write_table(buffer: &mut Vec<u8>, sequence: u32, (family, name): (TableFamily, &str), flags: Option<u32>) {
    let header = Header {
        kind: uapi::NFT_MSG_NEWTABLE,
        flags: uapi::NLM_F_REQUEST | uapi::NLM_F_CREATE,
        sequence,
        structure: &netlink::netfilter(protocol_family(family), 0),
    };
    let name = netlink::zero_terminated(name);
    let flags = flags.map(u32::to_be_bytes);
    let mut attributes: Vec<(u16, &[u8])> = vec![(uapi::NFTA_ANY_TABLE, &name)];
    attributes.extend(flags.as_ref().map(|flags| (uapi::NFTA_TABLE_FLAGS, &flags[..])));
    netlink::write(buffer, &header, &attributes);
}

/// The error of an operation that no message can say.
fn unfit(table: TableFamily, operation: &Operation) -> impl FnOnce(Unfit) -> Error {
    move |source| Error::Unfit { operation: describe(table, operation), chain: chain_of(operation), source }
}

/// The elements as the kernel takes them, each with the key that it is of.
fn raw_elements(
    interval: bool,
    elements: &[(ElementKey, Element)],
) -> impl Iterator<Item = (&ElementKey, RawElement<'_>)> {
    elements.iter().flat_map(move |(key, element)| raw(interval, *key, element).map(move |raw| (key, raw)))
}

/// A table: its name, what libnftnl has of it, and the flags that libnftnl cannot give it.
struct Target {
    family: TableFamily,
    name: TableName,
    table: nftnl::Table,
    flags: u32,
}

impl Target {
    fn new(family: TableFamily, flags: u32) -> Result<Self, Unfit> {
        let name = Name::new(TABLE)?;
        let of_libnftnl = match family {
            TableFamily::Inet => ProtoFamily::Inet,
            TableFamily::Netdev => ProtoFamily::NetDev,
        };
        let table = nftnl::Table::new(name.as_ref(), of_libnftnl);
        Ok(Self { family, name: TableName { name, family: protocol_family(family) }, table, flags })
    }
}

fn new_chain<'t>(
    table: &'t nftnl::Table,
    name: &ChainId,
    hook: Option<&Hook>,
) -> Result<nftnl::Chain<'t>, Unfit> {
    let mut chain = nftnl::Chain::new(Name::new(name.name())?, table);
    if let Some(hook) = hook {
        // The hooks of a device have the numbers of the first two of IP.
        let number = match hook {
            Hook::Ingress(_) => nftnl::Hook::PreRouting,
            Hook::Input | Hook::Egress(_) => nftnl::Hook::In,
            Hook::Forward => nftnl::Hook::Forward,
            Hook::Output => nftnl::Hook::Out,
        };
        chain.set_hook(number, hook.priority());
        if let Some(device) = hook.device() {
            chain.set_device(Name::new(device)?);
        }
        chain.set_type(ChainType::Filter);
        chain.set_policy(Policy::Accept);
    }
    Ok(chain)
}
