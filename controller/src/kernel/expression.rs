//! Rules as the kernel has them: the statements of a rule, each broken down into what the machine of
//! `nf_tables` does with its registers. The breaking down is nft's (1.0.6), instruction by instruction, so
//! that nft reads the statements back.

use policy_compiler::model::Family;
use policy_compiler::ruleset::{
    ChainName, Fields, LOG_BURST, LOG_GROUP, LOG_RATE, LOG_SNAP_LENGTH, SetName, Statement, Verdict,
    dhcp_ports,
};

use super::uapi;
use crate::netlink::Attributes;

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// Loads something about the packet.
    Meta {
        key: u32,
        register: u32,
    },
    /// Loads bytes of a header.
    Payload {
        base: u32,
        offset: u32,
        length: u32,
        register: u32,
    },
    /// Loads something about the connection.
    Conntrack {
        key: u32,
        register: u32,
    },
    /// Loads what the routing tables say.
    Fib {
        result: u32,
        flags: u32,
        register: u32,
    },
    /// Keeps the bits of `mask` and turns those of `xor`.
    Bitwise {
        register: u32,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Changes the byte order of so many bytes, in words of `size`.
    Byteorder {
        register: u32,
        operation: u32,
        length: u32,
        size: u32,
    },
    /// Ends the rule unless the comparison holds.
    Compare {
        register: u32,
        operation: u32,
        value: Vec<u8>,
    },
    /// Ends the rule unless the set has the key; `verdict` is whether the map's verdict is then taken.
    Lookup {
        register: u32,
        set: SetName,
        verdict: bool,
    },
    /// Ends the rule unless fewer packets than this have come: `rate` in `unit` seconds, after `burst` at once.
    Limit {
        rate: u64,
        unit: u64,
        burst: u32,
    },
    /// Tells the reader of an NFLOG group of the packet.
    Log {
        prefix: String,
        group: u16,
        snap_length: u32,
    },
    Counter,
    Verdict(Verdict),
}

/// The register that nft uses for a key.
const FIRST: u32 = register(0);

/// The register that begins so many words of four bytes behind the first: the parts of a concatenation follow
/// one another. What begins at a multiple of four words goes by the name of the register of 16 bytes.
const fn register(word: u32) -> u32 {
    if word.is_multiple_of(4) { uapi::NFT_REG_1 + word / 4 } else { uapi::NFT_REG32_00 + word }
}

/// How many words of four bytes an address has.
const fn words(family: Family) -> u32 {
    match family {
        Family::Ipv4 => 1,
        Family::Ipv6 => 4,
    }
}

/// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_SADDR`, `NFTA_FIB_F_DADDR` and `RTN_LOCAL`.
const FIB_RESULT_ADDRESS_TYPE: u32 = 3;
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const ADDRESS_TYPE_LOCAL: u32 = 2;

/// `NF_CT_STATE_BIT` of established and related connections.
const ESTABLISHED_OR_RELATED: u32 = (1 << 1) | (1 << 2);

/// The types of router solicitation to redirect (RFC 4861, section 4).
const NEIGHBOUR_DISCOVERY: (u8, u8) = (133, 137);

/// The types of listener query to done (RFC 2710, section 3.1), and of the report that has replaced one of them
/// (RFC 3810, section 5.2).
const LISTENER_DISCOVERY: (u8, u8) = (130, 132);
const LISTENER_REPORT: u8 = 143;

/// Where the flags stand in a TCP header, and FIN, SYN, RST and ACK among them (RFC 9293, section 3.1).
const TCP_FLAGS: u32 = 13;
const TCP_SYN: u8 = 0x02;
const TCP_FIN_SYN_RST_ACK: u8 = 0x17;

/// Where the type of the first chunk stands in an SCTP packet, and INIT (RFC 9260, section 3.2).
const SCTP_FIRST_CHUNK: u32 = 12;
const SCTP_INIT: u8 = 1;

/// The instructions of a rule. `intervals` tells whether a set is one of intervals.
pub(super) fn expressions(statements: &[Statement], intervals: impl Fn(&SetName) -> bool) -> Vec<Expression> {
    let mut encoder = Encoder { expressions: Vec::new(), family: None };
    for statement in statements {
        match statement {
            Statement::EstablishedOrRelated => encoder.established_or_related(),
            Statement::NeighbourDiscovery => encoder.icmpv6_types(NEIGHBOUR_DISCOVERY),
            Statement::ListenerDiscovery => encoder.icmpv6_types(LISTENER_DISCOVERY),
            Statement::ListenerReport => encoder.icmpv6_type(LISTENER_REPORT),
            Statement::GroupManagement => encoder.require_protocol(uapi::IPPROTO_IGMP),
            Statement::Dhcp(family) => encoder.dhcp(*family),
            Statement::SourceIsLocal => encoder.is_local(FIB_SOURCE),
            Statement::DestinationIsLocal => encoder.is_local(FIB_DESTINATION),
            Statement::TcpSyn => encoder.tcp_syn(),
            Statement::SctpInit => encoder.sctp_init(),
            Statement::InSet(fields, set) => encoder.look_up(*fields, set, false, intervals(set)),
            Statement::VerdictMap(fields, map) => encoder.look_up(*fields, map, true, intervals(map)),
            Statement::WithinLogRate => {
                encoder.push(Expression::Limit { rate: LOG_RATE, unit: 1, burst: LOG_BURST });
            }
            Statement::Log(prefix) => encoder.push(Expression::Log {
                prefix: prefix.to_string(),
                group: LOG_GROUP,
                snap_length: LOG_SNAP_LENGTH,
            }),
            Statement::Counter => encoder.push(Expression::Counter),
            Statement::Verdict(verdict) => encoder.push(Expression::Verdict(verdict.clone())),
        }
    }
    encoder.expressions
}

struct Encoder {
    expressions: Vec<Expression>,
    /// The family that the packet is known to have at this point of the rule.
    family: Option<Family>,
}

impl Encoder {
    fn push(&mut self, expression: Expression) {
        self.expressions.push(expression);
    }

    fn established_or_related(&mut self) {
        self.push(Expression::Conntrack { key: uapi::NFT_CT_STATE, register: FIRST });
        self.push(Expression::Bitwise {
            register: FIRST,
            mask: ESTABLISHED_OR_RELATED.to_ne_bytes().to_vec(),
            xor: vec![0; 4],
        });
        self.compare(uapi::NFT_CMP_NEQ, &[0; 4]);
    }

    fn icmpv6_types(&mut self, (first, last): (u8, u8)) {
        self.load_icmpv6_type();
        self.compare(uapi::NFT_CMP_GTE, &[first]);
        self.compare(uapi::NFT_CMP_LTE, &[last]);
    }

    fn icmpv6_type(&mut self, number: u8) {
        self.load_icmpv6_type();
        self.compare(uapi::NFT_CMP_EQ, &[number]);
    }

    fn load_icmpv6_type(&mut self) {
        self.require(Family::Ipv6);
        self.require_protocol(uapi::IPPROTO_ICMPV6);
        self.payload(uapi::NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, FIRST);
    }

    /// Both ports at once, as nft has them where they stand side by side.
    fn dhcp(&mut self, family: Family) {
        let (client, server) = dhcp_ports(family);
        self.require_protocol(uapi::IPPROTO_UDP);
        self.payload(uapi::NFT_PAYLOAD_TRANSPORT_HEADER, 0, 4, FIRST);
        self.compare(uapi::NFT_CMP_EQ, &[client.to_be_bytes(), server.to_be_bytes()].concat());
    }

    fn is_local(&mut self, flags: u32) {
        self.push(Expression::Fib { result: FIB_RESULT_ADDRESS_TYPE, flags, register: FIRST });
        self.compare(uapi::NFT_CMP_EQ, &ADDRESS_TYPE_LOCAL.to_ne_bytes());
    }

    fn tcp_syn(&mut self) {
        self.require_protocol(uapi::IPPROTO_TCP);
        self.payload(uapi::NFT_PAYLOAD_TRANSPORT_HEADER, TCP_FLAGS, 1, FIRST);
        self.push(Expression::Bitwise { register: FIRST, mask: vec![TCP_FIN_SYN_RST_ACK], xor: vec![0] });
        self.compare(uapi::NFT_CMP_EQ, &[TCP_SYN]);
    }

    fn sctp_init(&mut self) {
        self.require_protocol(uapi::IPPROTO_SCTP);
        self.payload(uapi::NFT_PAYLOAD_TRANSPORT_HEADER, SCTP_FIRST_CHUNK, 1, FIRST);
        self.compare(uapi::NFT_CMP_EQ, &[SCTP_INIT]);
    }

    fn look_up(&mut self, fields: Fields, set: &SetName, verdict: bool, intervals: bool) {
        match fields {
            Fields::Source(family) => self.address(family, Side::Source, FIRST),
            Fields::Destination(family) => self.address(family, Side::Destination, FIRST),
            Fields::SourceAndDestination(family) => {
                self.address(family, Side::Source, FIRST);
                self.address(family, Side::Destination, register(words(family)));
            }
            Fields::ProtocolAndPort => {
                self.meta(uapi::NFT_META_L4PROTO, FIRST);
                if intervals {
                    // Changes nothing (no word of two bytes is in one byte), but nft 1.0.6 has it.
                    self.push(Expression::Byteorder {
                        register: FIRST,
                        operation: uapi::NFT_BYTEORDER_HTON,
                        length: 1,
                        size: 2,
                    });
                }
                self.payload(uapi::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, register(1));
            }
            Fields::Tuple(family) => {
                let behind = 2 * words(family);
                self.address(family, Side::Source, FIRST);
                self.address(family, Side::Destination, register(words(family)));
                self.meta(uapi::NFT_META_L4PROTO, register(behind));
                self.payload(uapi::NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, register(behind + 1));
                self.payload(uapi::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, register(behind + 2));
            }
        }
        self.push(Expression::Lookup { register: FIRST, set: set.clone(), verdict });
    }

    fn address(&mut self, family: Family, side: Side, register: u32) {
        self.require(family);
        let (offset, length) = match (family, side) {
            (Family::Ipv4, Side::Source) => (12, 4),
            (Family::Ipv4, Side::Destination) => (16, 4),
            (Family::Ipv6, Side::Source) => (8, 16),
            (Family::Ipv6, Side::Destination) => (24, 16),
        };
        self.payload(uapi::NFT_PAYLOAD_NETWORK_HEADER, offset, length, register);
    }

    fn require(&mut self, family: Family) {
        if self.family.replace(family) != Some(family) {
            self.meta(uapi::NFT_META_NFPROTO, FIRST);
            let number = match family {
                Family::Ipv4 => uapi::NFPROTO_IPV4,
                Family::Ipv6 => uapi::NFPROTO_IPV6,
            };
            self.compare(uapi::NFT_CMP_EQ, &[number]);
        }
    }

    fn require_protocol(&mut self, number: u8) {
        self.meta(uapi::NFT_META_L4PROTO, FIRST);
        self.compare(uapi::NFT_CMP_EQ, &[number]);
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.push(Expression::Meta { key, register });
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) {
        self.push(Expression::Payload { base, offset, length, register });
    }

    fn compare(&mut self, operation: u32, value: &[u8]) {
        self.push(Expression::Compare { register: FIRST, operation, value: value.to_vec() });
    }
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// Reads an instruction as the kernel lists it (`NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`); `None` where it says
/// anything that podfence never says.
pub(super) fn parse(name: &str, attributes: Attributes<'_>) -> Option<Expression> {
    let number = |kind| attributes.number(kind);
    // Of a register that is read and written in place.
    let in_place = |source, destination| {
        let register = number(source)?;
        (number(destination)? == register).then_some(register)
    };
    let (highest, expression) = match name {
        "meta" => (2, Expression::Meta { register: number(1)?, key: number(2)? }),
        "payload" => {
            let (base, offset, length) = (number(2)?, number(3)?, number(4)?);
            (4, Expression::Payload { register: number(1)?, base, offset, length })
        }
        "ct" => (2, Expression::Conntrack { register: number(1)?, key: number(2)? }),
        "fib" => (3, Expression::Fib { register: number(1)?, result: number(2)?, flags: number(3)? }),
        "bitwise" if number(6).unwrap_or(0) == 0 => {
            let (mask, xor) = (value(attributes, 4)?, value(attributes, 5)?);
            (6, Expression::Bitwise { register: in_place(1, 2)?, mask, xor })
        }
        "byteorder" => {
            let (operation, length, size) = (number(3)?, number(4)?, number(5)?);
            (5, Expression::Byteorder { register: in_place(1, 2)?, operation, length, size })
        }
        "cmp" => {
            let value = value(attributes, 3)?;
            (3, Expression::Compare { register: number(1)?, operation: number(2)?, value })
        }
        "lookup" if number(5).unwrap_or(0) == 0 => {
            let (set, destination) = (SetName::new(attributes.text(1)?), number(3));
            let verdict = destination == Some(uapi::NFT_REG_VERDICT);
            if destination.is_some() && !verdict {
                return None;
            }
            (5, Expression::Lookup { register: number(2)?, set, verdict })
        }
        // By packets (type 0) and not inverted (no flags).
        "limit" if number(4)? == 0 && number(5).unwrap_or(0) == 0 => {
            let (rate, unit) = (attributes.number64(1)?, attributes.number64(2)?);
            (6, Expression::Limit { rate, unit, burst: number(3)? })
        }
        "log" => {
            let group = u16::from_be_bytes(attributes.get(1)?.try_into().ok()?);
            (3, Expression::Log { prefix: attributes.text(2)?.to_owned(), group, snap_length: number(3)? })
        }
        "counter" => (3, Expression::Counter),
        "immediate" if number(1)? == uapi::NFT_REG_VERDICT => {
            (2, Expression::Verdict(verdict(attributes.nested(2)?)?))
        }
        _ => return None,
    };
    attributes.iter().all(|attribute| attribute.kind <= highest).then_some(expression)
}

fn value(attributes: Attributes<'_>, kind: u16) -> Option<Vec<u8>> {
    attributes.nested(kind)?.get(uapi::NFTA_DATA_VALUE).map(<[u8]>::to_vec)
}

/// A verdict as it stands in `NFTA_IMMEDIATE_DATA` and in `NFTA_SET_ELEM_DATA`.
pub(super) fn verdict(data: Attributes<'_>) -> Option<Verdict> {
    let verdict = data.nested(uapi::NFTA_DATA_VERDICT)?;
    let chain = || verdict.text(uapi::NFTA_VERDICT_CHAIN).map(ChainName::new);
    Some(match verdict.number(uapi::NFTA_VERDICT_CODE)? {
        uapi::NF_ACCEPT => Verdict::Accept,
        uapi::NF_DROP => Verdict::Drop,
        uapi::NFT_RETURN => Verdict::Return,
        uapi::NFT_JUMP => Verdict::Jump(chain()?),
        uapi::NFT_GOTO => Verdict::Goto(chain()?),
        _ => return None,
    })
}
