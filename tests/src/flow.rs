//! Connections under way: sockets that wait for their answers, without a thread for each.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, getsockname, ipproto, recv,
    send, sendto, socket_with, sockopt,
};

use crate::probe::{Outcome, Probe, Protocol, Reply};
use crate::raw::{Answer, Opening, behind_header};

/// Source ports go round through these, so that a port is used again as late as possible and no probe is taken
/// for a part of an earlier flow.
const SOURCE_PORTS: std::ops::Range<u16> = 10_000..65_000;

/// How many ports are tried before an endpoint counts as out of ports.
const PORT_TRIES: usize = 64;

/// Longest answer: a token or a header and a name.
const BUFFER: usize = 2048;

/// Connections under way, each known by a key of the caller's.
pub(crate) struct Flows<Key> {
    epoll: OwnedFd,
    open: HashMap<u64, (Key, Flow)>,
    decided: Vec<(Key, Reply)>,
}

impl<Key> Flows<Key> {
    pub(crate) fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot make an epoll instance")?;
        Ok(Self { epoll, open: HashMap::new(), decided: Vec::new() })
    }

    /// Sends the first packet of a probe, and returns the number by which [`close`](Self::close) knows it. Moves
    /// the calling thread into the probe's namespace.
    pub(crate) fn open(&mut self, probe: &Probe, key: Key) -> Result<u64> {
        match Flow::open(probe).with_context(|| format!("cannot try {probe}"))? {
            Ok(flow) => {
                let events = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
                let token = flow.opening.token;
                epoll::add(&self.epoll, &flow.socket, epoll::EventData::new_u64(token), events)?;
                self.open.insert(token, (key, flow));
                Ok(token)
            }
            Err(outcome) => {
                self.decided.push((key, outcome.into()));
                Ok(0)
            }
        }
    }

    /// Waits for replies, and returns those that have come; none if the time has passed without one.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<Vec<(Key, Reply)>> {
        let mut decided = std::mem::take(&mut self.decided);
        let timeout = if decided.is_empty() { timeout } else { Duration::ZERO };
        let mut events = Vec::with_capacity(256);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::try_from(timeout)?)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for answers"),
        }
        for event in events {
            let token = event.data.u64();
            let reply = self.open.get_mut(&token).and_then(|(_, flow)| flow.advance());
            if let Some(reply) = reply
                && let Some((key, _)) = self.open.remove(&token)
            {
                decided.push((key, reply));
            }
        }
        Ok(decided)
    }

    /// Gives up a flow; its key, if it was still without an answer.
    pub(crate) fn close(&mut self, token: u64) -> Option<Key> {
        self.open.remove(&token).map(|(key, _)| key)
    }

    /// Whether no flow waits for an answer.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.decided.is_empty()
    }
}

struct Flow {
    socket: OwnedFd,
    opening: Opening,
    exchange: Exchange,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Exchange {
    /// A stream that is being connected and has not sent its token yet.
    Connecting,
    /// The token is sent; its echo and the server's name are to come.
    Echo,
    /// A raw socket that sees every packet from the destination.
    Raw,
}

impl Flow {
    /// The inner error is an outcome that is known at once.
    fn open(probe: &Probe) -> Result<Result<Self, Outcome>, Errno> {
        match Self::try_open(probe) {
            Ok(flow) => Ok(Ok(flow)),
            Err(error) => outcome(error).map(Err).ok_or(error),
        }
    }

    fn try_open(probe: &Probe) -> Result<Self, Errno> {
        probe
            .from
            .namespace()
            .enter()
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))?;
        let to = SocketAddr::new(probe.to, probe.port);
        let (kind, exchange) = match (probe.protocol, &probe.sender) {
            (Protocol::Tcp, None) => (SocketType::STREAM, Exchange::Connecting),
            (Protocol::Udp, _) => (SocketType::DGRAM, Exchange::Echo),
            _ => (SocketType::RAW, Exchange::Raw),
        };
        let number = match probe.protocol {
            Protocol::Tcp => ipproto::TCP,
            Protocol::Udp => ipproto::UDP,
            Protocol::Sctp => ipproto::SCTP,
            Protocol::Icmp if to.is_ipv4() => ipproto::ICMP,
            Protocol::Icmp => ipproto::ICMPV6,
        };
        let socket = open_socket(family(probe.to), kind, number)?;
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let token = bind_new_port(&socket, probe.source.unwrap_or(any), kind)?;
        if kind == SocketType::STREAM {
            // Closing then sends RST, and leaves neither TIME_WAIT here nor an old entry in conntrack.
            sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        }
        // A raw socket takes no port in its address.
        let peer = if kind == SocketType::RAW { SocketAddr::new(probe.to, 0) } else { to };
        match connect(&socket, &peer) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let local = SocketAddr::try_from(getsockname(&socket)?)?;
        let from = SocketAddr::new(local.ip(), source_port(token));
        let opening = Opening { protocol: probe.protocol, from, to, token };
        match (&probe.sender, exchange) {
            (_, Exchange::Connecting) => {}
            (Some(sender), _) => {
                sender
                    .namespace()
                    .enter()
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))?;
                let raw = open_socket(family(probe.to), SocketType::RAW, ipproto::RAW)?;
                sendto(&raw, &opening.packet(), SendFlags::empty(), &SocketAddr::new(probe.to, 0))?;
            }
            (None, Exchange::Echo) => drop(send(&socket, &token.to_be_bytes(), SendFlags::empty())?),
            (None, Exchange::Raw) => drop(send(&socket, &opening.segment(), SendFlags::empty())?),
        }
        Ok(Self { socket, opening, exchange })
    }

    /// Goes on after the socket became ready. `None`: nothing is decided yet.
    fn advance(&mut self) -> Option<Reply> {
        let token = self.opening.token.to_be_bytes();
        if self.exchange == Exchange::Connecting {
            match send(&self.socket, &token, SendFlags::NOSIGNAL) {
                Ok(_) => self.exchange = Exchange::Echo,
                Err(Errno::AGAIN | Errno::NOTCONN | Errno::INTR) => return None,
                Err(error) => return Some(outcome(error).unwrap_or(Outcome::Denied).into()),
            }
        }
        loop {
            let mut buffer = [MaybeUninit::uninit(); BUFFER];
            let data = match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok(((data, _), _)) => &*data,
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => continue,
                Err(error) => return Some(outcome(error).unwrap_or(Outcome::Denied).into()),
            };
            if self.exchange == Exchange::Raw {
                match self.opening.answer(behind_header(data, self.opening.to.is_ipv4())) {
                    Some(Answer::Accepted(server)) => {
                        return Some(Reply { outcome: Outcome::Allowed, server });
                    }
                    Some(Answer::Refused) => return Some(Outcome::Refused.into()),
                    None => {}
                }
            } else if let Some(name) = data.strip_prefix(&token) {
                let server = Some(String::from_utf8_lossy(name).into_owned());
                return Some(Reply { outcome: Outcome::Allowed, server });
            } else if self.opening.protocol == Protocol::Tcp {
                // The end of the stream, or somebody who does not echo.
                return Some(Outcome::Refused.into());
            }
        }
    }
}

/// What an error on the way means for the probe; `None` if it is this machine's own trouble.
fn outcome(error: Errno) -> Option<Outcome> {
    match error {
        // RST, port unreachable, protocol unreachable (ICMP, ICMPv6).
        Errno::CONNREFUSED | Errno::CONNRESET | Errno::PIPE | Errno::NOPROTOOPT | Errno::PROTO => {
            Some(Outcome::Refused)
        }
        // Unreachable host or net, prohibited, dropped on the way out.
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::ACCESS | Errno::PERM | Errno::TIMEDOUT => {
            Some(Outcome::Denied)
        }
        _ => None,
    }
}

/// Binds the socket to a source port that was not used lately, and returns the token that stands for it. A raw
/// socket has no port of its own.
fn bind_new_port(socket: impl AsFd, source: IpAddr, kind: SocketType) -> Result<u64, Errno> {
    static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);
    let mut result = Err(Errno::ADDRINUSE);
    for _ in 0..PORT_TRIES {
        let token = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed);
        let port = if kind == SocketType::RAW { 0 } else { source_port(token) };
        result = bind(&socket, &SocketAddr::new(source, port)).map(|()| token);
        if result != Err(Errno::ADDRINUSE) {
            break;
        }
    }
    result
}

/// The source port that goes with a token.
fn source_port(token: u64) -> u16 {
    let offset = token % u64::from(SOURCE_PORTS.end - SOURCE_PORTS.start);
    SOURCE_PORTS.start + u16::try_from(offset).unwrap_or(0)
}

/// A socket that does not block.
pub(crate) fn open_socket(
    family: AddressFamily,
    kind: SocketType,
    protocol: rustix::net::Protocol,
) -> Result<OwnedFd, Errno> {
    socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, Some(protocol))
}

/// The address family of an address.
pub(crate) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}
