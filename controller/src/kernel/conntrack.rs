//! The connections that the kernel tracks (`nf_conntrack_netlink`, `linux/netfilter/nfnetlink_conntrack.h`).

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use nftnl::nftnl_sys::libc;
use policy_compiler::model::{Family, Protocol};
use policy_compiler::ruleset::{Packet, Tuple};

use super::error::Error;
use super::sys::{Received, Socket};
use super::{BUFFER, uapi};
use podfence_cni::netlink::{self, Attributes, Header, Message, messages};

/// `NFNL_SUBSYS_CTNETLINK` with `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = 0x0101;
const DELETE: u16 = 0x0102;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_PROTOINFO: u16 = 4;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
/// With `NLA_F_NESTED`, on which the kernel insists here.
const CTA_FILTER: u16 = 0x8000 | 0x19;

const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;

const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
/// `TCP_CONNTRACK_TIME_WAIT` and `TCP_CONNTRACK_CLOSE`.
const TCP_OVER: [u8; 2] = [7, 8];

/// Which fields of the tuples count (from Linux 5.8).
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_FILTER_F_CTA_IP_SRC: u32 = 1;

/// Which connections are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All of a family.
    All(Family),
    /// Those that this address has opened. There is no such choice with IPv6: there the kernel takes the filter
    /// for its opposite (tried on 6.18).
    From(Ipv4Addr),
    /// Those to this address, after destination NAT.
    To(Ipv4Addr),
}

/// A connection that the kernel tracks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The packet that opened it, as the node forwarded or took it.
    pub opening: Packet,
    /// What its packets carry that go the way of the first; `None` if it has no ports, or if it is TCP and over.
    pub tuple: Option<Tuple>,
    /// The message that makes the kernel forget it. Without its tuple the kernel would forget all.
    deletion: Box<[u8]>,
}

/// How many connections are deleted with one message: the kernel's answers, at worst one for each, fit into the
/// receive buffer.
const DELETIONS: usize = 100;

/// Hands to `each` the connections of which `wanted` says yes, given who opened them and who was asked, until
/// `each` fails. Returns how many were listed, wanted or not.
///
/// More may be listed than asked for: a kernel before 5.8 lists all of the family. What comes or goes meanwhile may be missed,
/// or come twice.
///
/// # Errors
///
/// [`Error::Socket`]; [`Error::Refused`] without `CAP_NET_ADMIN` or where the kernel cannot list connections;
/// [`Error::Malformed`]; and those of `each`.
pub fn list_connections<E: From<Error>>(
    which: Which,
    wanted: impl Fn(IpAddr, IpAddr) -> bool,
    mut each: impl FnMut(Connection) -> Result<(), E>,
) -> Result<usize, E> {
    const ABOUT: &str = "connections";
    let (socket, mut buffer) = (Socket::open(0).map_err(Error::socket("open"))?, vec![0; BUFFER]);
    socket.send(&which.request()).map_err(Error::socket("write to"))?;
    let (mut listed, mut complete) = (0, false);
    // Whenever a call returns, the kernel has the next part of the answer ready.
    loop {
        let datagram = match socket.receive(&mut buffer).map_err(Error::socket("read"))? {
            Received::Datagram(datagram) => datagram,
            Received::Overrun => return Err(Error::Malformed(ABOUT).into()),
            Received::Nothing => break,
        };
        for message in messages(datagram) {
            match message.errno() {
                None => {
                    listed += 1;
                    if let Some(ends) = Ends::of(&message)
                        && wanted(ends.opener.address, ends.asked.address)
                    {
                        each(ends.connection(&message))?;
                    }
                }
                Some(0) => complete = true,
                Some(errno) => return Err(refused("list connections", errno).into()),
            }
        }
    }
    if complete { Ok(listed) } else { Err(Error::Malformed(ABOUT).into()) }
}

/// Makes the kernel forget connections, and returns how many of them it still knew.
///
/// # Errors
///
/// [`Error::Socket`], or the first [`Error::Refused`] of some; the others are forgotten all the same.
pub fn forget_connections(connections: &[Connection]) -> Result<usize, Error> {
    let (socket, mut buffer) = (Socket::open(0).map_err(Error::socket("open"))?, vec![0; BUFFER]);
    socket.explain_errors().map_err(Error::socket("configure"))?;
    let (mut forgotten, mut refusal) = (connections.len(), None);
    for some in connections.chunks(DELETIONS) {
        let deletions: Vec<u8> = some.iter().flat_map(|connection| &connection.deletion).copied().collect();
        socket.send(&deletions).map_err(Error::socket("write to"))?;
        // Only failures are answered, and when the request is sent, all of them have been.
        while let Received::Datagram(datagram) = socket.receive(&mut buffer).map_err(Error::socket("read"))? {
            for errno in messages(datagram).filter_map(|message| message.errno()) {
                forgotten -= 1;
                if errno != libc::ENOENT {
                    refusal.get_or_insert(errno);
                }
            }
        }
    }
    refusal.map_or(Ok(forgotten), |errno| Err(refused("delete connections", errno)))
}

fn refused(operation: &str, errno: i32) -> Error {
    let source = io::Error::from_raw_os_error(errno);
    Error::Refused { operation: operation.to_owned(), chain: None, lasting: false, message: None, source }
}

impl Which {
    fn request(self) -> Vec<u8> {
        let (address, tuple, flags) = match self {
            Self::All(Family::Ipv4) => return request(GET, uapi::NLM_F_DUMP, uapi::NFPROTO_IPV4, &[]),
            Self::All(Family::Ipv6) => return request(GET, uapi::NLM_F_DUMP, uapi::NFPROTO_IPV6, &[]),
            Self::From(address) => (address, CTA_TUPLE_ORIG, [CTA_FILTER_F_CTA_IP_SRC, 0]),
            Self::To(address) => (address, CTA_TUPLE_REPLY, [0, CTA_FILTER_F_CTA_IP_SRC]),
        };
        let ip = nested(&[(CTA_IP_V4_SRC, &address.octets())]);
        let [original, reply] = flags.map(u32::to_ne_bytes);
        let filter = nested(&[(CTA_FILTER_ORIG_FLAGS, &original), (CTA_FILTER_REPLY_FLAGS, &reply)]);
        let attributes: &[(u16, &[u8])] = &[(tuple, &nested(&[(CTA_TUPLE_IP, &ip)])), (CTA_FILTER, &filter)];
        request(GET, uapi::NLM_F_DUMP, uapi::NFPROTO_IPV4, attributes)
    }
}

fn request(kind: u16, flags: u16, family: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let structure = netlink::netfilter(family, 0);
    let header = Header { kind, flags: uapi::NLM_F_REQUEST | flags, sequence: 0, structure: &structure };
    let mut request = Vec::new();
    netlink::write(&mut request, &header, attributes);
    request
}

fn nested(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut content = Vec::new();
    netlink::write_attributes(&mut content, attributes);
    content
}

/// Who opened a connection, and who was asked, as they are on the node's way from the one to the other.
struct Ends {
    opener: Sender,
    asked: Sender,
}

/// The sender of a direction's packets.
struct Sender {
    address: IpAddr,
    protocol: u8,
    port: Option<u16>,
}

impl Sender {
    fn of(tuple: Attributes<'_>) -> Option<Self> {
        let (ip, transport) = (tuple.nested(CTA_TUPLE_IP)?, tuple.nested(CTA_TUPLE_PROTO)?);
        let address = match (ip.get(CTA_IP_V4_SRC), ip.get(CTA_IP_V6_SRC)) {
            (Some(ipv4), _) => IpAddr::from(<[u8; 4]>::try_from(ipv4).ok()?),
            (None, ipv6) => IpAddr::from(<[u8; 16]>::try_from(ipv6?).ok()?),
        };
        let port = transport.get(CTA_PROTO_SRC_PORT).and_then(|port| port.try_into().ok());
        let protocol = transport.get(CTA_PROTO_NUM)?.first().copied()?;
        Some(Self { address, protocol, port: port.map(u16::from_be_bytes) })
    }
}

impl Ends {
    fn of(message: &Message<'_>) -> Option<Self> {
        let attributes = message.attributes();
        let sender = |tuple| attributes.nested(tuple).and_then(Sender::of);
        // Source NAT comes after the packet is judged, so the receiver of the answers is not asked for.
        Some(Self { opener: sender(CTA_TUPLE_ORIG)?, asked: sender(CTA_TUPLE_REPLY)? })
    }

    fn connection(&self, message: &Message<'_>) -> Connection {
        let Self { opener, asked } = self;
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == opener.protocol);
        let (source, destination) = (opener.address, asked.address);
        let tuple = match (protocol, opener.port, asked.port) {
            (Some(protocol), Some(source_port), Some(destination_port)) => {
                Some(Tuple { source, destination, protocol, source_port, destination_port })
            }
            _ => None,
        };
        let port = tuple.map(|tuple| (tuple.protocol, tuple.destination_port));
        Connection {
            opening: Packet { source, destination, port },
            tuple: tuple.filter(|_| !is_over(message.attributes())),
            deletion: deletion(message),
        }
    }
}

/// Whether both ends of a TCP connection have closed it.
fn is_over(entry: Attributes<'_>) -> bool {
    let tcp = entry.nested(CTA_PROTOINFO).and_then(|info| info.nested(CTA_PROTOINFO_TCP));
    let state = tcp.and_then(|tcp| tcp.get(CTA_PROTOINFO_TCP_STATE));
    state.and_then(|state| state.first()).is_some_and(|state| TCP_OVER.contains(state))
}

/// The message that deletes the entry which a message lists.
fn deletion(listed: &Message<'_>) -> Box<[u8]> {
    let attributes = listed.attributes();
    let known_by = [CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE];
    let known_by = known_by.map(|kind| attributes.get(kind).map(|value| (kind, value)));
    let known_by: Vec<_> = known_by.into_iter().flatten().collect();
    request(DELETE, 0, listed.family(), &known_by).into()
}
