//! Connections that stay open: both ends send without a pause, as long as anything comes through.

use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, SocketType, bind, connect, getsockname, ipproto, recv, send};

use crate::endpoint::Endpoint;
use crate::flow::{family, open_socket};
use crate::probe::Protocol;
use crate::raw::{Association, behind_header};

/// The pause between two messages of an end.
const INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// The longest that a step of opening may take.
const STEP: Duration = Duration::from_secs(5);

const MESSAGE: &[u8] = b"still here";

/// Servers listen on ports that no other stream has.
static NEXT_PORT: AtomicU16 = AtomicU16::new(20_000);
static NEXT_TAG: AtomicU32 = AtomicU32::new(1);

/// An open connection. It is closed when dropped.
#[derive(Debug)]
pub struct Stream {
    name: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What came through on a stream, in both directions together.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    /// Messages; with TCP, readings of at least one.
    pub messages: u64,
    /// When the last one came.
    pub last: Instant,
    /// The longest time between two of them, at either end.
    pub longest_gap: Duration,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// At the client and at the server.
    heard: [Mutex<Heard>; 2],
}

impl Shared {
    fn heard(&self, end: usize) -> MutexGuard<'_, Heard> {
        self.heard[end].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Opens a connection between two endpoints, to the server's address of a family.
    ///
    /// # Errors
    /// It does not come about.
    pub fn open(client: &Endpoint, server: &Endpoint, ipv4: bool, protocol: Protocol) -> Result<Self> {
        let address = if ipv4 { server.ipv4() } else { server.ipv6() };
        let at = SocketAddr::new(address, new_port());
        Self::open_through(client, server, at, at, protocol)
    }

    /// Opens a connection to `asked`, which leads to `at`, where the server listens.
    ///
    /// # Errors
    /// It does not come about.
    pub fn open_through(
        client: &Endpoint,
        server: &Endpoint,
        asked: SocketAddr,
        at: SocketAddr,
        protocol: Protocol,
    ) -> Result<Self> {
        let name = format!("{} -> {} {asked} {protocol}", client.name(), server.name());
        let ends = match protocol {
            Protocol::Tcp => tcp(client, server, asked, at),
            Protocol::Udp => udp(client, server, asked, at),
            Protocol::Sctp => sctp(client, server, asked, at),
            Protocol::Icmp => bail!("ICMP has no streams"),
        };
        let ends = ends.with_context(|| format!("{name} does not come about"))?;
        let now = Heard { messages: 0, last: Instant::now(), longest_gap: Duration::ZERO };
        let heard = [Mutex::new(now), Mutex::new(now)];
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), heard });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().spawn(move || of_thread.run(&ends))?;
        Ok(Self { name, shared, thread: Some(thread) })
    }

    /// What has come through at both ends together: the fewer messages, the later last one.
    pub fn heard(&self) -> Heard {
        let (client, server) = (*self.shared.heard(0), *self.shared.heard(1));
        Heard {
            messages: client.messages.min(server.messages),
            last: client.last.max(server.last),
            longest_gap: client.longest_gap.max(server.longest_gap),
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// A port that no stream's server has had.
pub fn new_port() -> u16 {
    NEXT_PORT.fetch_add(1, Ordering::Relaxed)
}

/// One end of a stream: a socket that is connected to the other.
struct End {
    socket: OwnedFd,
    /// With SCTP, which has no sockets here, what is behind the IP header is made by hand.
    association: Option<Association>,
    ipv4: bool,
}

impl Shared {
    /// Sends and listens at both ends until told to stop.
    fn run(&self, ends: &[End; 2]) {
        while !self.stop.load(Ordering::Relaxed) {
            for (index, end) in ends.iter().enumerate() {
                // Where nothing comes through, buffers fill and routers say so.
                let _ = end.send();
                while end.hears() {
                    let (now, mut heard) = (Instant::now(), self.heard(index));
                    heard.longest_gap = heard.longest_gap.max(now - heard.last);
                    heard.last = now;
                    heard.messages += 1;
                }
            }
            let _ = poll(&mut [], Some(&INTERVAL));
        }
    }
}

impl End {
    fn new(socket: impl Into<OwnedFd>, at: SocketAddr) -> Self {
        Self { socket: socket.into(), association: None, ipv4: at.is_ipv4() }
    }

    fn send(&self) -> Result<()> {
        let message = self.association.as_ref().map(Association::data);
        send(&self.socket, message.as_deref().unwrap_or(MESSAGE), SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }

    /// Whether there was a message.
    fn hears(&self) -> bool {
        let mut buffer = [0; 2048];
        // A message of somebody else's comes to raw sockets as well.
        while let Ok((length, _)) = recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
            let message = behind_header(&buffer[..length], self.ipv4);
            match &self.association {
                None => return length > 0,
                Some(association) if association.is_data(message) => return true,
                Some(_) => {}
            }
        }
        false
    }
}

fn tcp(client: &Endpoint, server: &Endpoint, asked: SocketAddr, at: SocketAddr) -> Result<[End; 2]> {
    let listener = server.namespace().run(|| Ok(TcpListener::bind(at)?))?;
    let connection = client.namespace().run(|| Ok(TcpStream::connect_timeout(&asked, STEP)?))?;
    let (accepted, _) = listener.accept()?;
    Ok([connection, accepted].map(|socket| End::new(socket, at)))
}

fn udp(client: &Endpoint, server: &Endpoint, asked: SocketAddr, at: SocketAddr) -> Result<[End; 2]> {
    let listening = server.namespace().run(|| Ok(UdpSocket::bind(at)?))?;
    let any: SocketAddr = if at.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let connected = client.namespace().run(|| {
        let socket = UdpSocket::bind(any)?;
        socket.connect(asked)?;
        Ok(socket)
    })?;
    connected.send(MESSAGE)?;
    listening.set_read_timeout(Some(STEP))?;
    let (_, opener) = listening.recv_from(&mut [0; 64])?;
    listening.connect(opener)?;
    Ok([connected, listening].map(|socket| End::new(socket, at)))
}

fn sctp(client: &Endpoint, server: &Endpoint, asked: SocketAddr, at: SocketAddr) -> Result<[End; 2]> {
    let raw = |endpoint: &Endpoint, at: Option<IpAddr>, to: IpAddr| {
        endpoint.namespace().run(|| {
            let socket = open_socket(family(to), SocketType::RAW, ipproto::SCTP)?;
            at.map_or(Ok(()), |at| bind(&socket, &SocketAddr::new(at, 0)))?;
            connect(&socket, &SocketAddr::new(to, 0))?;
            Ok(socket)
        })
    };
    let opening = raw(client, None, asked.ip())?;
    let opener = SocketAddr::try_from(getsockname(&opening)?)?;
    let listening = raw(server, Some(at.ip()), opener.ip())?;
    let port = new_port();
    let tag = NEXT_TAG.fetch_add(1, Ordering::Relaxed);
    let ipv4 = at.is_ipv4();
    let end = |socket, from, to| End { socket, association: Some(Association { from, to, tag }), ipv4 };
    let ends = [end(opening, port, asked.port()), end(listening, at.port(), port)];
    for (step, handshake) in Association::HANDSHAKE.into_iter().enumerate() {
        let [speaker, listener] = if step % 2 == 0 { [&ends[0], &ends[1]] } else { [&ends[1], &ends[0]] };
        let association = speaker.association.as_ref().context("it was made above")?;
        send(&speaker.socket, &association.chunk(handshake), SendFlags::empty())?;
        wait_readable(listener.socket.as_fd())?;
    }
    Ok(ends)
}

fn wait_readable(socket: BorrowedFd<'_>) -> Result<()> {
    let bound = Timespec::try_from(STEP)?;
    let ready = poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::IN)], Some(&bound))?;
    ensure!(ready == 1, "nothing came within {STEP:?}");
    while recv(socket, &mut [0; 2048], RecvFlags::DONTWAIT).is_ok() {}
    Ok(())
}
