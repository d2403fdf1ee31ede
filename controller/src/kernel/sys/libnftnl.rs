//! libnftnl's objects for rules, sets and elements.
//!
//! The crate `nftnl` has tables and chains, which are used as they are; its sets know neither intervals nor
//! maps, and its rules no registers but the first and no comment of nft's full length.

use std::alloc::{Layout, handle_alloc_error};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_void};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use nftnl::nftnl_sys::{self as nft, libc};
use nftnl::{MsgType, NlMsg};
use policy_compiler::ruleset::{NAME_MAX, Transient, Verdict};

use crate::kernel::element::{RawElement, user_data};
use crate::kernel::error::Unfit;
use crate::kernel::expression::Expression;
use crate::kernel::set::Declaration;
use crate::kernel::uapi;

/// Room for the largest message there is, in which libnftnl writes one.
pub(in crate::kernel) struct Desk(Vec<u32>);

impl Desk {
    pub(in crate::kernel) fn new() -> Self {
        Self(vec![0; nftnl::nft_nlmsg_maxsize() as usize / size_of::<u32>() + 1])
    }

    /// Writes a message, in the place of the one before.
    pub(in crate::kernel) fn write(&mut self, message: &impl NlMsg, kind: MsgType, sequence: u32) -> &[u8] {
        let start = self.0.as_mut_ptr();
        // SAFETY: there is room for the largest message there is, aligned as a message's header is, which is
        // what `write` asks for. A message begins with its length (`nlmsg_len`), which is within that room, and
        // no byte of the room is uninitialised.
        unsafe {
            message.write(start.cast(), sequence, kind);
            std::slice::from_raw_parts(start.cast::<u8>(), start.read() as usize)
        }
    }
}

/// A name that fits into a message.
pub(in crate::kernel) struct Name(CString);

impl Name {
    pub(in crate::kernel) fn new(name: &str) -> Result<Self, Unfit> {
        if name.len() > NAME_MAX {
            return Err(Unfit::LongName(name.to_owned()));
        }
        CString::new(name).map(Self).map_err(|_| Unfit::ZeroByte)
    }
}

impl AsRef<CStr> for Name {
    fn as_ref(&self) -> &CStr {
        &self.0
    }
}

/// The table that an object is in.
pub(in crate::kernel) struct TableName {
    pub(in crate::kernel) name: Name,
    /// `NFPROTO_…`
    pub(in crate::kernel) family: u8,
}

/// Ends the program like a failed allocation of Rust's own, for that is what happened.
fn allocated<T>(object: *mut T) -> NonNull<T> {
    NonNull::new(object).unwrap_or_else(|| handle_alloc_error(Layout::new::<c_void>()))
}

/// # Safety
///
/// `buffer` must have room for a message's headers.
unsafe fn header(buffer: *mut c_void, kind: i32, family: u8, sequence: u32) -> *mut libc::nlmsghdr {
    // SAFETY: as the caller promises.
    unsafe { nft::nftnl_nlmsg_build_hdr(buffer.cast(), kind as u16, family.into(), 0, sequence) }
}

/// How many expressions a rule may have (`NFT_RULE_MAXEXPRS`). Each takes less than 400 bytes, most of it for a
/// name, so that the rule fits into an attribute of 64 KiB.
const LONGEST_RULE: usize = 128;

/// A rule that is to be appended to a chain, or that stands for all rules of a chain.
pub(in crate::kernel) struct Rule {
    object: NonNull<nft::nftnl_rule>,
    family: u8,
}

impl Rule {
    pub(in crate::kernel) fn new(
        table: &TableName,
        chain: &Name,
        expressions: &[Expression],
        comment: Option<&str>,
    ) -> Result<Self, Unfit> {
        if expressions.len() > LONGEST_RULE {
            return Err(Unfit::LongRule);
        }
        // SAFETY: allocates, and takes nothing.
        let rule = Self { object: allocated(unsafe { nft::nftnl_rule_alloc() }), family: table.family };
        let this = rule.object.as_ptr();
        // SAFETY: the rule is alive, the names end with a zero byte, and libnftnl copies them.
        unsafe {
            nft::nftnl_rule_set_str(this, nft::NFTNL_RULE_TABLE as u16, table.name.0.as_ptr());
            nft::nftnl_rule_set_str(this, nft::NFTNL_RULE_CHAIN as u16, chain.0.as_ptr());
        }
        for expression in expressions {
            let instruction = Instruction::of(expression)?;
            let instruction = ManuallyDrop::new(instruction);
            // SAFETY: both are alive; from here on the rule owns the expression and frees it.
            unsafe { nft::nftnl_rule_add_expr(this, instruction.0.as_ptr()) };
        }
        if comment.is_some() {
            let data = user_data(comment, false)?;
            let (start, length) = (data.as_ptr().cast(), data.len() as u32);
            // SAFETY: the rule is alive, `data` has `length` bytes, and libnftnl copies them.
            unsafe { nft::nftnl_rule_set_data(this, nft::NFTNL_RULE_USERDATA as u16, start, length) };
        }
        Ok(rule)
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        // SAFETY: the rule is alive and nobody else has it.
        unsafe { nft::nftnl_rule_free(self.object.as_ptr()) };
    }
}

// SAFETY: its names, its comment and the number of its expressions are limited, so that it fits into a message.
unsafe impl NlMsg for Rule {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, kind: MsgType) {
        let kind = match kind {
            MsgType::Add => libc::NFT_MSG_NEWRULE,
            MsgType::Del => libc::NFT_MSG_DELRULE,
        };
        // SAFETY: the caller promises room for the largest message.
        unsafe {
            let header = header(buffer, kind, self.family, sequence);
            nft::nftnl_rule_nlmsg_build_payload(header, self.object.as_ptr());
        }
    }
}

/// An expression that belongs to no rule yet.
struct Instruction(NonNull<nft::nftnl_expr>);

impl Drop for Instruction {
    fn drop(&mut self) {
        // SAFETY: the expression is alive and nobody else has it.
        unsafe { nft::nftnl_expr_free(self.0.as_ptr()) };
    }
}

impl Instruction {
    fn new(name: &CStr) -> Self {
        // SAFETY: the name ends with a zero byte; libnftnl compares it with those that it knows.
        Self(allocated(unsafe { nft::nftnl_expr_alloc(name.as_ptr()) }))
    }

    /// The attribute must be one that holds a number of 32 bits.
    fn number(self, attribute: u32, value: u32) -> Self {
        // SAFETY: the expression is alive; libnftnl copies four bytes, as many as the attribute has.
        unsafe { nft::nftnl_expr_set_u32(self.0.as_ptr(), attribute as u16, value) };
        self
    }

    /// The attribute must be one that holds a number of 64 bits.
    fn number64(self, attribute: u32, value: u64) -> Self {
        // SAFETY: the expression is alive; libnftnl copies eight bytes, as many as the attribute has.
        unsafe { nft::nftnl_expr_set_u64(self.0.as_ptr(), attribute as u16, value) };
        self
    }

    /// The attribute must be one that holds a number of 16 bits.
    fn number16(self, attribute: u32, value: u16) -> Self {
        // SAFETY: the expression is alive; libnftnl copies two bytes, as many as the attribute has.
        unsafe { nft::nftnl_expr_set_u16(self.0.as_ptr(), attribute as u16, value) };
        self
    }

    /// The attribute must be one that holds up to 64 bytes of data.
    fn bytes(self, attribute: u32, value: &[u8]) -> Self {
        let (start, length) = (value.as_ptr().cast(), value.len() as u32);
        // SAFETY: the expression is alive, `value` has `length` bytes; libnftnl copies what fits.
        unsafe { nft::nftnl_expr_set(self.0.as_ptr(), attribute as u16, start, length) };
        self
    }

    /// The attribute must be one that holds a name.
    fn text(self, attribute: u32, value: &str) -> Result<Self, Unfit> {
        let value = Name::new(value)?;
        // SAFETY: the expression is alive, the text ends with a zero byte, and libnftnl copies it.
        unsafe { nft::nftnl_expr_set_str(self.0.as_ptr(), attribute as u16, value.0.as_ptr()) };
        Ok(self)
    }

    fn of(expression: &Expression) -> Result<Self, Unfit> {
        Ok(match expression {
            Expression::Meta { key, register } => Self::new(c"meta")
                .number(nft::NFTNL_EXPR_META_KEY, *key)
                .number(nft::NFTNL_EXPR_META_DREG, *register),
            Expression::Payload { base, offset, length, register } => Self::new(c"payload")
                .number(nft::NFTNL_EXPR_PAYLOAD_DREG, *register)
                .number(nft::NFTNL_EXPR_PAYLOAD_BASE, *base)
                .number(nft::NFTNL_EXPR_PAYLOAD_OFFSET, *offset)
                .number(nft::NFTNL_EXPR_PAYLOAD_LEN, *length),
            Expression::Conntrack { key, register } => Self::new(c"ct")
                .number(nft::NFTNL_EXPR_CT_KEY, *key)
                .number(nft::NFTNL_EXPR_CT_DREG, *register),
            Expression::Fib { result, flags, register } => Self::new(c"fib")
                .number(nft::NFTNL_EXPR_FIB_RESULT, *result)
                .number(nft::NFTNL_EXPR_FIB_FLAGS, *flags)
                .number(nft::NFTNL_EXPR_FIB_DREG, *register),
            Expression::Bitwise { register, mask, xor } => Self::new(c"bitwise")
                .number(nft::NFTNL_EXPR_BITWISE_SREG, *register)
                .number(nft::NFTNL_EXPR_BITWISE_DREG, *register)
                .number(nft::NFTNL_EXPR_BITWISE_LEN, mask.len() as u32)
                .bytes(nft::NFTNL_EXPR_BITWISE_MASK, mask)
                .bytes(nft::NFTNL_EXPR_BITWISE_XOR, xor),
            Expression::Byteorder { register, operation, length, size } => Self::new(c"byteorder")
                .number(nft::NFTNL_EXPR_BYTEORDER_SREG, *register)
                .number(nft::NFTNL_EXPR_BYTEORDER_DREG, *register)
                .number(nft::NFTNL_EXPR_BYTEORDER_OP, *operation)
                .number(nft::NFTNL_EXPR_BYTEORDER_LEN, *length)
                .number(nft::NFTNL_EXPR_BYTEORDER_SIZE, *size),
            Expression::Compare { register, operation, value } => Self::new(c"cmp")
                .number(nft::NFTNL_EXPR_CMP_SREG, *register)
                .number(nft::NFTNL_EXPR_CMP_OP, *operation)
                .bytes(nft::NFTNL_EXPR_CMP_DATA, value),
            Expression::Lookup { register, set, verdict } => {
                let lookup = Self::new(c"lookup")
                    .number(nft::NFTNL_EXPR_LOOKUP_SREG, *register)
                    .text(nft::NFTNL_EXPR_LOOKUP_SET, set.name())?;
                if *verdict {
                    lookup.number(nft::NFTNL_EXPR_LOOKUP_DREG, uapi::NFT_REG_VERDICT)
                } else {
                    lookup
                }
            }
            Expression::Expect { register, set, milliseconds } => Self::new(c"dynset")
                .number(nft::NFTNL_EXPR_DYNSET_SREG_KEY, *register)
                .number(nft::NFTNL_EXPR_DYNSET_OP, uapi::NFT_DYNSET_OP_UPDATE)
                .number64(nft::NFTNL_EXPR_DYNSET_TIMEOUT, *milliseconds)
                .text(nft::NFTNL_EXPR_DYNSET_SET_NAME, set.name())?,
            Expression::Limit { rate, unit, burst } => Self::new(c"limit")
                .number64(nft::NFTNL_EXPR_LIMIT_RATE, *rate)
                .number64(nft::NFTNL_EXPR_LIMIT_UNIT, *unit)
                .number(nft::NFTNL_EXPR_LIMIT_BURST, *burst),
            Expression::Log { prefix, group, snap_length } => Self::new(c"log")
                .text(nft::NFTNL_EXPR_LOG_PREFIX, prefix)?
                .number16(nft::NFTNL_EXPR_LOG_GROUP, *group)
                .number(nft::NFTNL_EXPR_LOG_SNAPLEN, *snap_length),
            Expression::Counter => Self::new(c"counter"),
            Expression::Verdict(verdict) => Self::verdict(verdict)?,
        })
    }

    fn verdict(verdict: &Verdict) -> Result<Self, Unfit> {
        let (code, chain) = match verdict {
            Verdict::Accept => (uapi::NF_ACCEPT, None),
            Verdict::Drop => (uapi::NF_DROP, None),
            Verdict::Return => (uapi::NFT_RETURN, None),
            Verdict::Jump(chain) => (uapi::NFT_JUMP, Some(chain)),
            Verdict::Goto(chain) => (uapi::NFT_GOTO, Some(chain)),
        };
        let immediate = Self::new(c"immediate")
            .number(nft::NFTNL_EXPR_IMM_DREG, uapi::NFT_REG_VERDICT)
            .number(nft::NFTNL_EXPR_IMM_VERDICT, code);
        match chain {
            Some(chain) => immediate.text(nft::NFTNL_EXPR_IMM_CHAIN, chain.name()),
            None => Ok(immediate),
        }
    }
}

/// A set that is to be declared, or deleted.
pub(in crate::kernel) struct Set {
    object: NonNull<nft::nftnl_set>,
    family: u8,
}

impl Set {
    /// A set that is only named.
    pub(in crate::kernel) fn named(table: &TableName, name: &Name) -> Self {
        // SAFETY: allocates, and takes nothing.
        let set = Self { object: allocated(unsafe { nft::nftnl_set_alloc() }), family: table.family };
        let this = set.object.as_ptr();
        // SAFETY: the set is alive, the names end with a zero byte, and libnftnl copies them.
        unsafe {
            nft::nftnl_set_set_str(this, nft::NFTNL_SET_TABLE as u16, table.name.0.as_ptr());
            nft::nftnl_set_set_str(this, nft::NFTNL_SET_NAME as u16, name.0.as_ptr());
        }
        set
    }

    /// A set with all that the kernel wants to know of a new one. `id` is unique in its transaction.
    pub(in crate::kernel) fn declared(
        table: &TableName,
        name: &Name,
        declaration: &Declaration,
        id: u32,
    ) -> Self {
        let set = Self::named(table, name)
            .number(nft::NFTNL_SET_FLAGS, declaration.flags)
            .number(nft::NFTNL_SET_KEY_TYPE, declaration.key_type)
            .number(nft::NFTNL_SET_KEY_LEN, declaration.key_length)
            .number(nft::NFTNL_SET_ID, id);
        let set = match declaration.transient {
            Some(Transient { size, collected_every, .. }) => set
                .number(nft::NFTNL_SET_DESC_SIZE, size)
                .number(nft::NFTNL_SET_GC_INTERVAL, collected_every.as_millis() as u32),
            None => set,
        };
        if declaration.flags & uapi::NFT_SET_CONCAT != 0 {
            let fields: &[u8] = declaration.fields;
            let (start, length) = (fields.as_ptr().cast(), fields.len() as u32);
            // SAFETY: the set is alive; libnftnl copies `length` bytes, of the 16 that it has room for.
            unsafe {
                nft::nftnl_set_set_data(
                    set.object.as_ptr(),
                    nft::NFTNL_SET_DESC_CONCAT as u16,
                    start,
                    length,
                );
            }
        }
        if declaration.flags & uapi::NFT_SET_MAP == 0 {
            return set;
        }
        set.number(nft::NFTNL_SET_DATA_TYPE, uapi::NFT_DATA_VERDICT).number(nft::NFTNL_SET_DATA_LEN, 0)
    }

    /// The attribute must be one that holds a number of 32 bits.
    fn number(self, attribute: u32, value: u32) -> Self {
        // SAFETY: the set is alive; libnftnl copies four bytes, as many as the attribute has.
        unsafe { nft::nftnl_set_set_u32(self.object.as_ptr(), attribute as u16, value) };
        self
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        // SAFETY: the set is alive and nobody else has it. Its elements go with it.
        unsafe { nft::nftnl_set_free(self.object.as_ptr()) };
    }
}

// SAFETY: a set's declaration is two names and a few numbers.
unsafe impl NlMsg for Set {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, kind: MsgType) {
        let kind = match kind {
            MsgType::Add => libc::NFT_MSG_NEWSET,
            MsgType::Del => libc::NFT_MSG_DELSET,
        };
        // SAFETY: the caller promises room for the largest message.
        unsafe {
            let header = header(buffer, kind, self.family, sequence);
            nft::nftnl_set_nlmsg_build_payload(header, self.object.as_ptr());
        }
    }
}

/// Elements that are to be added to a set or taken out of it: as many messages as it takes, for one holds at
/// most 64 KiB of them.
pub(in crate::kernel) struct Elements {
    /// What the iterator walks.
    set: Set,
    iterator: NonNull<nft::nftnl_set_elems_iter>,
    more: Cell<bool>,
}

impl Elements {
    pub(in crate::kernel) fn new<'a>(
        table: &TableName,
        set: &Name,
        elements: impl Iterator<Item = RawElement<'a>>,
    ) -> Result<Self, Unfit> {
        let set = Set::named(table, set);
        let mut more = false;
        for element in elements {
            let element = ManuallyDrop::new(SetElement::of(&element)?);
            // SAFETY: both are alive; from here on the set owns the element and frees it.
            unsafe { nft::nftnl_set_elem_add(set.object.as_ptr(), element.0.as_ptr()) };
            more = true;
        }
        // SAFETY: the set is alive, outlives the iterator (see `drop`) and does not change any more.
        let iterator = allocated(unsafe { nft::nftnl_set_elems_iter_create(set.object.as_ptr()) });
        Ok(Self { set, iterator, more: Cell::new(more) })
    }

    /// Whether there are elements that no message has yet.
    pub(in crate::kernel) fn more(&self) -> bool {
        self.more.get()
    }
}

impl Drop for Elements {
    fn drop(&mut self) {
        // SAFETY: the iterator is alive and nobody else has it; the set, a field, is dropped later.
        unsafe { nft::nftnl_set_elems_iter_destroy(self.iterator.as_ptr()) };
    }
}

// SAFETY: libnftnl ends the message when the list of elements is about to be longer than an attribute can be.
unsafe impl NlMsg for Elements {
    /// Writes the next message.
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, kind: MsgType) {
        let kind = match kind {
            MsgType::Add => libc::NFT_MSG_NEWSETELEM,
            MsgType::Del => libc::NFT_MSG_DELSETELEM,
        };
        // SAFETY: the caller promises room for the largest message; set and iterator are alive.
        let more = unsafe {
            let header = header(buffer, kind, self.set.family, sequence);
            nft::nftnl_set_elems_nlmsg_build_payload_iter(header, self.iterator.as_ptr())
        };
        self.more.set(more > 0);
    }
}

/// An element that belongs to no set yet.
struct SetElement(NonNull<nft::nftnl_set_elem>);

impl SetElement {
    fn of(raw: &RawElement<'_>) -> Result<Self, Unfit> {
        // SAFETY: allocates, and takes nothing.
        let mut element = Self(allocated(unsafe { nft::nftnl_set_elem_alloc() }));
        element.bytes(nft::NFTNL_SET_ELEM_KEY, raw.key.as_slice());
        if let Some(last) = raw.last {
            element.bytes(nft::NFTNL_SET_ELEM_KEY_END, last.as_slice());
        }
        if raw.end {
            element.number(nft::NFTNL_SET_ELEM_FLAGS, uapi::NFT_SET_ELEM_INTERVAL_END);
        }
        if let Some(chain) = raw.target {
            let chain = Name::new(chain.name())?;
            element.number(nft::NFTNL_SET_ELEM_VERDICT, uapi::NFT_GOTO);
            // SAFETY: the element is alive, the name ends with a zero byte, and libnftnl copies it.
            unsafe {
                nft::nftnl_set_elem_set_str(
                    element.0.as_ptr(),
                    nft::NFTNL_SET_ELEM_CHAIN as u16,
                    chain.0.as_ptr(),
                );
            }
        }
        if let Some(lifetime) = raw.lifetime {
            let milliseconds = lifetime.as_millis() as u64;
            // The second is what makes the kernel (from 6.12) begin anew with an element that is already there.
            element.number64(nft::NFTNL_SET_ELEM_TIMEOUT, milliseconds);
            element.number64(nft::NFTNL_SET_ELEM_EXPIRATION, milliseconds);
        }
        let user_data = user_data(raw.comment, raw.open)?;
        if !user_data.is_empty() {
            element.bytes(nft::NFTNL_SET_ELEM_USERDATA, &user_data);
        }
        Ok(element)
    }

    /// The attribute must be one that holds a number of 32 bits.
    fn number(&mut self, attribute: u32, value: u32) {
        // SAFETY: the element is alive; libnftnl copies four bytes, as many as the attribute has.
        unsafe { nft::nftnl_set_elem_set_u32(self.0.as_ptr(), attribute as u16, value) };
    }

    /// The attribute must be one that holds a number of 64 bits.
    fn number64(&mut self, attribute: u32, value: u64) {
        // SAFETY: the element is alive; libnftnl copies eight bytes, as many as the attribute has.
        unsafe { nft::nftnl_set_elem_set_u64(self.0.as_ptr(), attribute as u16, value) };
    }

    /// The attribute must be one that holds data of any length; a key has at most 64 bytes.
    fn bytes(&mut self, attribute: u32, value: &[u8]) {
        let (start, length) = (value.as_ptr().cast(), value.len() as u32);
        // SAFETY: the element is alive, `value` has `length` bytes; libnftnl copies what fits.
        unsafe { nft::nftnl_set_elem_set(self.0.as_ptr(), attribute as u16, start, length) };
    }
}

impl Drop for SetElement {
    fn drop(&mut self) {
        // SAFETY: the element is alive and nobody else has it.
        unsafe { nft::nftnl_set_elem_free(self.0.as_ptr()) };
    }
}
