//! Rules as the kernel has them: the statements of a rule, each broken down into what the machine of
//! `nf_tables` does with its registers. The breaking down is nft's (1.0.6), instruction by instruction, so
//! that nft reads the statements back.

mod parse;

use std::net::IpAddr;

use policy_compiler::model::{Family, LinkAddress};
use policy_compiler::ruleset::{
    ANSWER_LIFETIME, EtherType, Fields, FrameMatch, LOG_BURST, LOG_GROUP, LOG_RATE, LOG_SNAP_LENGTH, SetId,
    Statement, TableFamily, Verdict, dhcp_ports,
};

use super::uapi;
pub(super) use parse::{parse, verdict};

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
        set: SetId,
        verdict: bool,
    },
    /// Puts the key into a set for a time, anew if it is there.
    Expect {
        register: u32,
        set: SetId,
        milliseconds: u64,
    },
    /// Ends the rule unless fewer packets than this have come: `rate` in `unit` seconds, after `burst` at once.
    Limit {
        rate: u64,
        unit: u64,
        burst: u32,
    },
    /// Copies the beginning of the packet to the reader of an NFLOG group.
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

/// `NF_CT_STATE_BIT` of established and related connections; `NF_CT_STATE_INVALID_BIT` and
/// `NF_CT_STATE_UNTRACKED_BIT`.
const ESTABLISHED_OR_RELATED: u32 = (1 << 1) | (1 << 2);
const INVALID_OR_UNTRACKED: u32 = 1 | (1 << 6);

/// Where the addresses and the type stand in the header of Ethernet.
const LINK_DESTINATION: u32 = 0;
const LINK_SOURCE: u32 = 6;
const LINK_TYPE: u32 = 12;

/// Where the source stands in the header of IPv4 (RFC 791, section 3.1).
const IPV4_SOURCE: u32 = 12;

/// Where the sender's addresses stand in an ARP packet for IPv4 over Ethernet (RFC 826).
const ARP_LINK_SOURCE: u32 = 8;
const ARP_SOURCE: u32 = 14;

/// Where the target stands in a neighbour solicitation or advertisement (RFC 4861, sections 4.3 and 4.4).
const NEIGHBOUR_TARGET: u32 = 8;

/// Where the flags stand in a TCP header, and FIN, SYN, RST and ACK among them (RFC 9293, section 3.1).
const TCP_FLAGS: u32 = 13;
const TCP_SYN: u8 = 0x02;
const TCP_FIN_SYN_RST_ACK: u8 = 0x17;

/// Where the type of the first chunk stands in an SCTP packet, and INIT (RFC 9260, section 3.2).
const SCTP_FIRST_CHUNK: u32 = 12;
const SCTP_INIT: u8 = 1;

/// The instructions of a rule in a table. `intervals` says whether a set is one of intervals.
pub(super) fn expressions(
    table: TableFamily,
    statements: &[Statement],
    intervals: impl Fn(&SetId) -> bool,
) -> Vec<Expression> {
    let mut encoder =
        Encoder { table, expressions: Vec::new(), ethernet: false, network: None, transport: None };
    for statement in statements {
        match statement {
            Statement::EstablishedOrRelated => encoder.conntrack_state(ESTABLISHED_OR_RELATED),
            Statement::InvalidOrUntracked => encoder.conntrack_state(INVALID_OR_UNTRACKED),
            Statement::Icmp6(first, last) => encoder.icmp6(*first, *last),
            Statement::OfFamily(family) => encoder.require(*family),
            Statement::Transport(number) => encoder.require_protocol(*number),
            Statement::Dhcp(family) => encoder.dhcp(*family),
            Statement::SourceIsLocal => encoder.is_local(FIB_SOURCE),
            Statement::DestinationIsLocal => encoder.is_local(FIB_DESTINATION),
            Statement::InputDevice(device) => encoder.input_device(device),
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
            Statement::Frame(frame) => encoder.frame(*frame),
            Statement::ExpectAnswer(set) => encoder.expect_answer(set),
            Statement::Counter => encoder.push(Expression::Counter),
            Statement::Verdict(verdict) => encoder.push(Expression::Verdict(verdict.clone())),
        }
    }
    encoder.expressions
}

struct Encoder {
    table: TableFamily,
    expressions: Vec<Expression>,
    /// Whether the device is known to be an Ethernet device at this point of the rule.
    ethernet: bool,
    /// The protocol that the frame is known to carry.
    network: Option<EtherType>,
    /// The protocol that the IP packet is known to carry.
    transport: Option<u8>,
}

impl Encoder {
    fn push(&mut self, expression: Expression) {
        self.expressions.push(expression);
    }

    fn conntrack_state(&mut self, states: u32) {
        self.push(Expression::Conntrack { key: uapi::NFT_CT_STATE, register: FIRST });
        self.push(Expression::Bitwise {
            register: FIRST,
            mask: states.to_ne_bytes().to_vec(),
            xor: vec![0; 4],
        });
        self.compare(uapi::NFT_CMP_NEQ, &[0; 4]);
    }

    fn icmp6(&mut self, first: u8, last: u8) {
        self.require(Family::Ipv6);
        self.require_protocol(uapi::IPPROTO_ICMPV6);
        self.payload(uapi::NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, FIRST);
        if first == last {
            self.compare(uapi::NFT_CMP_EQ, &[first]);
        } else {
            self.compare(uapi::NFT_CMP_GTE, &[first]);
            self.compare(uapi::NFT_CMP_LTE, &[last]);
        }
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

    fn input_device(&mut self, device: &str) {
        self.meta(uapi::NFT_META_IIFNAME, FIRST);
        let mut name = device.as_bytes().to_vec();
        name.resize(uapi::IFNAMSIZ, 0);
        self.compare(uapi::NFT_CMP_EQ, &name);
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

    fn look_up(&mut self, fields: Fields, set: &SetId, verdict: bool, intervals: bool) {
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
            Fields::ArpSource => self.arp_source(),
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
            (Family::Ipv4, Side::Source) => (IPV4_SOURCE, 4),
            (Family::Ipv4, Side::Destination) => (16, 4),
            (Family::Ipv6, Side::Source) => (8, 16),
            (Family::Ipv6, Side::Destination) => (24, 16),
        };
        self.payload(uapi::NFT_PAYLOAD_NETWORK_HEADER, offset, length, register);
    }

    fn require(&mut self, family: Family) {
        self.require_network(match family {
            Family::Ipv4 => EtherType::Ipv4,
            Family::Ipv6 => EtherType::Ipv6,
        });
    }

    fn require_network(&mut self, kind: EtherType) {
        if self.network.replace(kind) == Some(kind) {
            return;
        }
        match (self.table, kind) {
            (TableFamily::Inet, EtherType::Ipv6) => self.require_family(uapi::NFPROTO_IPV6),
            (TableFamily::Inet, _) => self.require_family(uapi::NFPROTO_IPV4),
            (TableFamily::Netdev, kind) => {
                self.meta(uapi::NFT_META_PROTOCOL, FIRST);
                self.compare(uapi::NFT_CMP_EQ, &kind.number().to_be_bytes());
            }
        }
    }

    fn require_family(&mut self, number: u8) {
        self.meta(uapi::NFT_META_NFPROTO, FIRST);
        self.compare(uapi::NFT_CMP_EQ, &[number]);
    }

    fn require_protocol(&mut self, number: u8) {
        if self.transport.replace(number) != Some(number) {
            self.meta(uapi::NFT_META_L4PROTO, FIRST);
            self.compare(uapi::NFT_CMP_EQ, &[number]);
        }
    }

    /// What nft puts before a look at the header of Ethernet.
    fn require_ethernet(&mut self) {
        if !std::mem::replace(&mut self.ethernet, true) {
            self.meta(uapi::NFT_META_IIFTYPE, FIRST);
            self.compare(uapi::NFT_CMP_EQ, &uapi::ARPHRD_ETHER.to_ne_bytes());
        }
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

/// What rules ask of frames.
impl Encoder {
    fn frame(&mut self, frame: FrameMatch) {
        match frame {
            FrameMatch::Header(LinkAddress(from), kind) => {
                self.payload(uapi::NFT_PAYLOAD_LL_HEADER, LINK_SOURCE, 8, FIRST);
                self.compare(uapi::NFT_CMP_EQ, &[&from[..], &kind.number().to_be_bytes()].concat());
            }
            FrameMatch::Type(kind) => {
                self.payload(uapi::NFT_PAYLOAD_LL_HEADER, LINK_TYPE, 2, FIRST);
                self.compare(uapi::NFT_CMP_EQ, &kind.number().to_be_bytes());
            }
            FrameMatch::Protocol(kind) => self.require_network(kind),
            FrameMatch::From(address) => self.link_address(LINK_SOURCE, uapi::NFT_CMP_EQ, address),
            FrameMatch::NotFrom(address) => self.link_address(LINK_SOURCE, uapi::NFT_CMP_NEQ, address),
            FrameMatch::NotTo(address) => self.link_address(LINK_DESTINATION, uapi::NFT_CMP_NEQ, address),
            FrameMatch::Unicast => {
                self.require_ethernet();
                self.payload(uapi::NFT_PAYLOAD_LL_HEADER, LINK_DESTINATION, 6, FIRST);
                let (mask, xor) = (vec![1, 0, 0, 0, 0, 0], vec![0; 6]);
                self.push(Expression::Bitwise { register: FIRST, mask, xor });
                self.compare(uapi::NFT_CMP_EQ, &[0; 6]);
            }
            FrameMatch::Source(address) => self.address_is(Side::Source, address),
            FrameMatch::SourceOfIpv4(address) => {
                self.payload(uapi::NFT_PAYLOAD_NETWORK_HEADER, IPV4_SOURCE, 4, FIRST);
                self.compare(uapi::NFT_CMP_EQ, &address.octets());
            }
            FrameMatch::Destination(address) => self.address_is(Side::Destination, address),
            FrameMatch::ArpSource(address) => {
                self.arp_source();
                self.compare(uapi::NFT_CMP_EQ, &address.octets());
            }
            FrameMatch::NotArpFrom(LinkAddress(address)) => {
                self.require_network(EtherType::Arp);
                self.payload(uapi::NFT_PAYLOAD_NETWORK_HEADER, ARP_LINK_SOURCE, 6, FIRST);
                self.compare(uapi::NFT_CMP_NEQ, &address);
            }
            FrameMatch::UdpTo(port) => {
                self.require_protocol(uapi::IPPROTO_UDP);
                self.payload(uapi::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, FIRST);
                self.compare(uapi::NFT_CMP_EQ, &port.get().to_be_bytes());
            }
            FrameMatch::Neighbour(kind, target) => {
                self.icmp6(kind, kind);
                self.payload(uapi::NFT_PAYLOAD_TRANSPORT_HEADER, NEIGHBOUR_TARGET, 16, FIRST);
                self.compare(uapi::NFT_CMP_EQ, &target.octets());
            }
        }
    }

    fn expect_answer(&mut self, set: &SetId) {
        let (family, words) = (Family::Ipv6, words(Family::Ipv6));
        self.address(family, Side::Destination, FIRST);
        self.address(family, Side::Source, register(words));
        self.meta(uapi::NFT_META_L4PROTO, register(2 * words));
        self.payload(uapi::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, register(2 * words + 1));
        self.payload(uapi::NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, register(2 * words + 2));
        let milliseconds = ANSWER_LIFETIME.as_secs() * 1000;
        self.push(Expression::Expect { register: FIRST, set: set.clone(), milliseconds });
    }

    fn link_address(&mut self, offset: u32, operation: u32, LinkAddress(address): LinkAddress) {
        self.require_ethernet();
        self.payload(uapi::NFT_PAYLOAD_LL_HEADER, offset, 6, FIRST);
        self.compare(operation, &address);
    }

    fn address_is(&mut self, side: Side, address: IpAddr) {
        self.address(Family::of(address), side, FIRST);
        match address {
            IpAddr::V4(address) => self.compare(uapi::NFT_CMP_EQ, &address.octets()),
            IpAddr::V6(address) => self.compare(uapi::NFT_CMP_EQ, &address.octets()),
        }
    }

    fn arp_source(&mut self) {
        self.require_network(EtherType::Arp);
        self.payload(uapi::NFT_PAYLOAD_NETWORK_HEADER, ARP_SOURCE, 4, FIRST);
    }
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}
