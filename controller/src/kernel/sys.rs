//! What needs `unsafe`: libnftnl's objects for rules, sets and elements, of which the crate `nftnl` has
//! only some, and socket options. Everything that leaves this module is safe to use.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "libnftnl takes the numbers of attributes in 16 bits and lengths, here of at most some hundred bytes, in 32"
)]

use std::alloc::{Layout, handle_alloc_error};
use std::cell::Cell;
use std::ffi::{CStr, CString, NulError, c_void};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use mnl::mnl_sys;
use nftnl::nftnl_sys::{self as nft, libc};
use nftnl::{MsgType, NlMsg};
use policy_compiler::ruleset::Verdict;

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::element::{RawElement, user_data};
use super::expression::Expression;
use super::set::Declaration;
use super::uapi;

/// Appends a message to a buffer.
pub(super) fn append(buffer: &mut Vec<u8>, message: &impl NlMsg, kind: MsgType, sequence: u32) {
    let start = buffer.len();
    buffer.reserve(nftnl::nft_nlmsg_maxsize() as usize);
    let spare = buffer.spare_capacity_mut().as_mut_ptr();
    // SAFETY: `reserve` made room for the largest message there is, which is what `write` asks for. A
    // message starts with its length (`nlmsg_len`), and that many bytes have been written when it returns.
    unsafe {
        message.write(spare.cast(), sequence, kind);
        let length = spare.cast::<u32>().read_unaligned();
        buffer.set_len(start + length as usize);
    }
}

/// Ends the program like a failed allocation of Rust's own, for that is what happened.
fn allocated<T>(object: *mut T) -> NonNull<T> {
    NonNull::new(object).unwrap_or_else(|| handle_alloc_error(Layout::new::<c_void>()))
}

/// # Safety
///
/// `buffer` must have room for a message's headers.
unsafe fn header(buffer: *mut c_void, kind: i32, sequence: u32) -> *mut libc::nlmsghdr {
    let family: u16 = uapi::NFPROTO_INET.into();
    // SAFETY: as the caller promises.
    unsafe { nft::nftnl_nlmsg_build_hdr(buffer.cast(), kind as u16, family, 0, sequence) }
}

/// A rule that is to be appended to a chain.
pub(super) struct Rule(NonNull<nft::nftnl_rule>);

impl Rule {
    pub(super) fn new(
        table: &CStr,
        chain: &CStr,
        expressions: &[Expression],
        comment: Option<&str>,
    ) -> Result<Self, NulError> {
        // SAFETY: allocates, and takes nothing.
        let rule = Self(allocated(unsafe { nft::nftnl_rule_alloc() }));
        let this = rule.0.as_ptr();
        // SAFETY: the rule is alive, the names end with a zero byte, and libnftnl copies them.
        unsafe {
            nft::nftnl_rule_set_str(this, nft::NFTNL_RULE_TABLE as u16, table.as_ptr());
            nft::nftnl_rule_set_str(this, nft::NFTNL_RULE_CHAIN as u16, chain.as_ptr());
        }
        for expression in expressions {
            let instruction = Instruction::of(expression)?;
            let instruction = ManuallyDrop::new(instruction);
            // SAFETY: both are alive; from here on the rule owns the expression and frees it.
            unsafe { nft::nftnl_rule_add_expr(this, instruction.0.as_ptr()) };
        }
        if comment.is_some() {
            let data = user_data(comment, false);
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
        unsafe { nft::nftnl_rule_free(self.0.as_ptr()) };
    }
}

// SAFETY: a rule of podfence (a dozen expressions, names of 255 bytes) is far smaller than the largest message.
unsafe impl NlMsg for Rule {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, kind: MsgType) {
        let kind = match kind {
            MsgType::Add => libc::NFT_MSG_NEWRULE,
            MsgType::Del => libc::NFT_MSG_DELRULE,
        };
        // SAFETY: the caller promises room for the largest message.
        unsafe { nft::nftnl_rule_nlmsg_build_payload(header(buffer, kind, sequence), self.0.as_ptr()) };
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

    /// The attribute must be one that holds up to 64 bytes of data.
    fn bytes(self, attribute: u32, value: &[u8]) -> Self {
        let (start, length) = (value.as_ptr().cast(), value.len() as u32);
        // SAFETY: the expression is alive, `value` has `length` bytes; libnftnl copies what fits.
        unsafe { nft::nftnl_expr_set(self.0.as_ptr(), attribute as u16, start, length) };
        self
    }

    /// The attribute must be one that holds a name.
    fn text(self, attribute: u32, value: &str) -> Result<Self, NulError> {
        let value = CString::new(value)?;
        // SAFETY: the expression is alive, the text ends with a zero byte, and libnftnl copies it.
        unsafe { nft::nftnl_expr_set_str(self.0.as_ptr(), attribute as u16, value.as_ptr()) };
        Ok(self)
    }

    fn of(expression: &Expression) -> Result<Self, NulError> {
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
                    .text(nft::NFTNL_EXPR_LOOKUP_SET, set.as_str())?;
                if *verdict {
                    lookup.number(nft::NFTNL_EXPR_LOOKUP_DREG, uapi::NFT_REG_VERDICT)
                } else {
                    lookup
                }
            }
            Expression::Counter => Self::new(c"counter"),
            Expression::Verdict(verdict) => Self::verdict(verdict)?,
        })
    }

    fn verdict(verdict: &Verdict) -> Result<Self, NulError> {
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
            Some(chain) => immediate.text(nft::NFTNL_EXPR_IMM_CHAIN, chain.as_str()),
            None => Ok(immediate),
        }
    }
}

/// A set that is to be declared, or deleted.
pub(super) struct Set(NonNull<nft::nftnl_set>);

impl Set {
    /// A set that is only named.
    pub(super) fn named(table: &CStr, name: &CStr) -> Self {
        // SAFETY: allocates, and takes nothing.
        let set = Self(allocated(unsafe { nft::nftnl_set_alloc() }));
        // SAFETY: the set is alive, the names end with a zero byte, and libnftnl copies them.
        unsafe {
            nft::nftnl_set_set_str(set.0.as_ptr(), nft::NFTNL_SET_TABLE as u16, table.as_ptr());
            nft::nftnl_set_set_str(set.0.as_ptr(), nft::NFTNL_SET_NAME as u16, name.as_ptr());
        }
        set
    }

    /// A set with all that the kernel wants to know of a new one. `id` is unique in its transaction.
    pub(super) fn declared(table: &CStr, name: &CStr, declaration: &Declaration, id: u32) -> Self {
        let set = Self::named(table, name)
            .number(nft::NFTNL_SET_FLAGS, declaration.flags)
            .number(nft::NFTNL_SET_KEY_TYPE, declaration.key_type)
            .number(nft::NFTNL_SET_KEY_LEN, declaration.key_length)
            .number(nft::NFTNL_SET_ID, id);
        if declaration.flags & uapi::NFT_SET_CONCAT != 0 {
            let fields: &[u8] = declaration.fields;
            let (start, length) = (fields.as_ptr().cast(), fields.len() as u32);
            // SAFETY: the set is alive; libnftnl copies `length` bytes, of the 16 that it has room for.
            unsafe {
                nft::nftnl_set_set_data(set.0.as_ptr(), nft::NFTNL_SET_DESC_CONCAT as u16, start, length);
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
        unsafe { nft::nftnl_set_set_u32(self.0.as_ptr(), attribute as u16, value) };
        self
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        // SAFETY: the set is alive and nobody else has it. Its elements go with it.
        unsafe { nft::nftnl_set_free(self.0.as_ptr()) };
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
        unsafe { nft::nftnl_set_nlmsg_build_payload(header(buffer, kind, sequence), self.0.as_ptr()) };
    }
}

/// Elements that are to be added to a set or taken out of it: as many messages as it takes, for one holds at
/// most 64 KiB of them.
pub(super) struct Elements {
    /// What the iterator walks.
    _set: Set,
    iterator: NonNull<nft::nftnl_set_elems_iter>,
    more: Cell<bool>,
}

impl Elements {
    pub(super) fn new<'a>(
        table: &CStr,
        set: &CStr,
        elements: impl Iterator<Item = RawElement<'a>>,
    ) -> Result<Self, NulError> {
        let set = Set::named(table, set);
        let mut more = false;
        for element in elements {
            let element = ManuallyDrop::new(SetElement::of(&element)?);
            // SAFETY: both are alive; from here on the set owns the element and frees it.
            unsafe { nft::nftnl_set_elem_add(set.0.as_ptr(), element.0.as_ptr()) };
            more = true;
        }
        // SAFETY: the set is alive, outlives the iterator (see `drop`) and does not change any more.
        let iterator = allocated(unsafe { nft::nftnl_set_elems_iter_create(set.0.as_ptr()) });
        Ok(Self { _set: set, iterator, more: Cell::new(more) })
    }

    /// Whether there are elements that no message has yet.
    pub(super) fn more(&self) -> bool {
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
            let header = header(buffer, kind, sequence);
            nft::nftnl_set_elems_nlmsg_build_payload_iter(header, self.iterator.as_ptr())
        };
        self.more.set(more > 0);
    }
}

/// An element that belongs to no set yet.
struct SetElement(NonNull<nft::nftnl_set_elem>);

impl SetElement {
    fn of(raw: &RawElement<'_>) -> Result<Self, NulError> {
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
            let chain = CString::new(chain.as_str())?;
            element.number(nft::NFTNL_SET_ELEM_VERDICT, uapi::NFT_GOTO);
            // SAFETY: the element is alive, the name ends with a zero byte, and libnftnl copies it.
            unsafe {
                nft::nftnl_set_elem_set_str(
                    element.0.as_ptr(),
                    nft::NFTNL_SET_ELEM_CHAIN as u16,
                    chain.as_ptr(),
                );
            }
        }
        let user_data = user_data(raw.comment, raw.open);
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

/// What there was to receive.
pub(super) enum Received<'a> {
    Datagram(&'a [u8]),
    /// Something that is lost, because there was no room for it.
    Overrun,
    Nothing,
}

/// A netlink socket of netfilter, in the network namespace of the thread that opens it.
pub(super) struct Socket(mnl::Socket);

// SAFETY: libmnl's socket is a descriptor and an address, tied to no thread.
unsafe impl Send for Socket {}

impl Socket {
    /// Opens a socket that hears what is said to `groups`, a mask.
    pub(super) fn open(groups: u32) -> io::Result<Self> {
        let socket = mnl::Socket::open(mnl::Bus::Netfilter)?;
        socket.bind(groups, mnl_sys::MNL_SOCKET_AUTOPID)?;
        let socket = Self(socket);
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        Ok(socket)
    }

    /// Asks for errors that say which attribute is at fault, and that do not repeat the whole message.
    pub(super) fn explain_errors(&self) -> io::Result<()> {
        let on: libc::c_int = 1;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            // SAFETY: the socket is open, and `on` outlives the call, which reads it.
            let result = unsafe {
                mnl_sys::mnl_socket_setsockopt(
                    self.0.as_raw_socket(),
                    option,
                    (&raw const on).cast_mut().cast(),
                    size_of_val(&on) as libc::socklen_t,
                )
            };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// Lets nothing through to this socket that another one, `port`, has caused.
    pub(super) fn ignore(&self, port: u32) -> io::Result<()> {
        const PORT_OFFSET: u32 = 12;
        let instruction =
            |code: u32, jump_false, k| libc::sock_filter { code: code as u16, jt: 0, jf: jump_false, k };
        let mut program = [
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, PORT_OFFSET),
            // Words are loaded in network byte order, the port is in the machine's.
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, port.to_be()),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0),
            instruction(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
        ];
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the descriptor is open, and the program outlives the call, which copies it.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of_val(&program) as libc::socklen_t,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The number by which the kernel knows this socket (`nlmsg_pid`).
    pub(super) fn port(&self) -> u32 {
        self.0.portid()
    }

    /// Sends the bytes in one `sendmsg`.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.send(bytes).map(drop)
    }

    /// Takes the next datagram that is there, and does not wait for one.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
        loop {
            let received = rustix::net::recv(self, &mut *buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC);
            return match received {
                Ok((_, length)) => Ok(buffer.get(..length).map_or(Received::Overrun, Received::Datagram)),
                Err(Errno::AGAIN) => Ok(Received::Nothing),
                Err(Errno::NOBUFS) => Ok(Received::Overrun),
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the socket lives, and so longer than the borrow.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
