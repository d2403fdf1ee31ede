//! Netlink messages and their attributes, read and written byte by byte (`linux/netlink.h`,
//! `linux/netfilter/nfnetlink.h`).

/// The length of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// Where `nlmsg_flags` stands.
const FLAGS: usize = 6;
/// The length of `struct nlattr`.
pub const ATTRIBUTE_HEADER: usize = 4;

// libc has them as c_int.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// `NLA_TYPE_MASK`: what is left of an attribute's type without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const TYPE_MASK: u16 = 0x3fff;

/// A message as it was received.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// `nlmsg_type`
    pub kind: u16,
    /// `nlmsg_flags`
    pub flags: u16,
    /// `nlmsg_seq`
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes behind the structure of `length` bytes that messages of this kind begin with.
    pub fn attributes_behind(&self, length: usize) -> Attributes<'a> {
        Attributes(self.payload.get(length..).unwrap_or_default())
    }

    /// The attributes of a netfilter message.
    pub fn attributes(&self) -> Attributes<'a> {
        self.attributes_behind(size_of_val(&netfilter(0, 0)))
    }

    /// What an error, an acknowledgement or the end of a list says: an error number, or 0; `None` for a
    /// message of another kind.
    pub fn errno(&self) -> Option<i32> {
        match self.kind {
            NLMSG_ERROR | NLMSG_DONE => {
                Some(native_u32(self.payload, 0).unwrap_or_default().cast_signed().wrapping_neg())
            }
            _ => None,
        }
    }

    /// `nfgen_family`, and 0 where there is none.
    pub fn family(&self) -> u8 {
        self.payload.first().copied().unwrap_or_default()
    }
}

/// The messages in a datagram, up to the first that is cut off.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = native_u32(datagram, 0)? as usize;
        let message = Message {
            kind: native_u16(datagram, 4)?,
            flags: native_u16(datagram, FLAGS)?,
            sequence: native_u32(datagram, 8)?,
            payload: datagram.get(HEADER..length)?,
        };
        datagram = datagram.get(align(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The type of the message that begins here, whole or not.
pub(super) fn kind(bytes: &[u8]) -> Option<u16> {
    native_u16(bytes, 4)
}

/// A list of attributes.
#[derive(Clone, Copy, Default)]
pub struct Attributes<'a>(pub &'a [u8]);

/// One attribute.
#[derive(Clone, Copy)]
pub struct Attribute<'a> {
    /// `nla_type` without its flags.
    pub kind: u16,
    /// What follows the attribute's header.
    pub value: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes, up to the first that is cut off.
    pub fn iter(mut self) -> impl Iterator<Item = Attribute<'a>> {
        std::iter::from_fn(move || {
            let length = usize::from(native_u16(self.0, 0)?);
            let attribute = Attribute {
                kind: native_u16(self.0, 2)? & TYPE_MASK,
                value: self.0.get(ATTRIBUTE_HEADER..length)?,
            };
            self.0 = self.0.get(align(length)..).unwrap_or_default();
            Some(attribute)
        })
    }

    /// The value of the attribute of a type.
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|attribute| attribute.kind == kind).map(|attribute| attribute.value)
    }

    /// The attributes in the attribute of a type.
    pub fn nested(self, kind: u16) -> Option<Self> {
        self.get(kind).map(Self)
    }

    /// A number of 32 bits.
    pub fn number(self, kind: u16) -> Option<u32> {
        self.get(kind).and_then(network_u32)
    }

    /// A number of 64 bits.
    pub fn number64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A zero-terminated string.
    pub fn text(self, kind: u16) -> Option<&'a str> {
        self.get(kind).and_then(text)
    }
}

/// A number in network byte order, as `nf_tables` has them.
pub fn network_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// A string up to its zero byte.
pub fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.split(|byte| *byte == 0).next()?).ok()
}

/// A number in the byte order of the machine, as headers have them.
pub fn native_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn native_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A name as it stands in an attribute.
pub fn zero_terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// What a message that is written here says besides its attributes.
pub struct Header<'a> {
    /// `nlmsg_type`
    pub kind: u16,
    /// `nlmsg_flags`
    pub flags: u16,
    /// `nlmsg_seq`
    pub sequence: u32,
    /// The structure that messages of this kind begin with.
    pub structure: &'a [u8],
}

/// `struct nfgenmsg`, with which netfilter's messages begin.
pub fn netfilter(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Appends a message whose attributes are few and short.
pub fn write(buffer: &mut Vec<u8>, header: &Header<'_>, attributes: &[(u16, &[u8])]) {
    let mut written = Vec::new();
    write_attributes(&mut written, attributes);
    write_message(buffer, header, &written);
}

/// Appends a message with attributes that are written already.
pub fn write_message(buffer: &mut Vec<u8>, header: &Header<'_>, attributes: &[u8]) {
    let start = buffer.len();
    buffer.extend([0; 4]);
    buffer.extend(header.kind.to_ne_bytes());
    buffer.extend(header.flags.to_ne_bytes());
    buffer.extend(header.sequence.to_ne_bytes());
    buffer.extend([0; 4]);
    buffer.extend(header.structure);
    buffer.extend(attributes);
    #[expect(clippy::cast_possible_truncation, reason = "no caller writes 4 GiB")]
    let length = (buffer.len() - start) as u32;
    if let Some(field) = buffer.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_ne_bytes());
    }
}

/// Appends attributes, each of less than 64 KiB.
pub fn write_attributes(buffer: &mut Vec<u8>, attributes: &[(u16, &[u8])]) {
    for (kind, value) in attributes {
        write_attribute(buffer, *kind, value);
    }
}

/// Appends an attribute of less than 64 KiB, at a place that is aligned.
pub fn write_attribute(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    #[expect(clippy::cast_possible_truncation, reason = "as the documentation asks for")]
    let length = (ATTRIBUTE_HEADER + value.len()) as u16;
    buffer.extend(length.to_ne_bytes());
    buffer.extend(kind.to_ne_bytes());
    buffer.extend(value);
    buffer.resize(align(buffer.len()), 0);
}

/// Appends an attribute whose value is the attributes that `write` appends.
pub fn write_nested(buffer: &mut Vec<u8>, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
    let mut nested = Vec::new();
    write(&mut nested);
    write_attribute(buffer, kind, &nested);
}

/// Replaces the flags of the message that begins at `start`.
pub fn set_flags(buffer: &mut [u8], start: usize, flags: u16) {
    if let Some(field) = buffer.get_mut(start + FLAGS..start + FLAGS + 2) {
        field.copy_from_slice(&flags.to_ne_bytes());
    }
}

/// Adds flags to those of the message that begins at `start`.
pub fn add_flags(buffer: &mut [u8], start: usize, flags: u16) {
    let present = native_u16(buffer, start + FLAGS).unwrap_or_default();
    set_flags(buffer, start, present | flags);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Vec<u8> {
        let header = Header { kind: 0xa01, flags: 5, sequence: 7, structure: &netfilter(1, 10) };
        let mut buffer = Vec::new();
        write(&mut buffer, &header, &[(1, b"name\0"), (2, &7u32.to_be_bytes())]);
        buffer
    }

    #[test]
    fn what_is_written_is_read() {
        let mut buffer = request();
        buffer.extend(request());
        assert_eq!(messages(&buffer).count(), 2);
        let message = messages(&buffer).next().unwrap();
        assert_eq!((message.kind, message.flags, message.sequence, message.family()), (0xa01, 5, 7, 1));
        assert_eq!(message.attributes().text(1), Some("name"));
        assert_eq!(message.attributes().number(2), Some(7));
        assert_eq!(message.attributes().get(3), None);
    }

    #[test]
    fn whatever_is_cut_off_or_mangled_ends_the_reading() {
        let whole = request();
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).count(), 0);
        }
        for position in 0..whole.len() {
            for byte in 0..=u8::MAX {
                let mut mangled = whole.clone();
                mangled[position] = byte;
                let attributes = messages(&mangled).flat_map(|message| message.attributes().iter());
                assert!(attributes.count() <= whole.len());
            }
        }
    }
}
