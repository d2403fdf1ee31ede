//! Sending frames as they are, and seeing everything that reaches a namespace.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, bind, socket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};

use crate::endpoint::Endpoint;
use crate::frame::Frame;
use crate::namespace::Namespace;
use crate::probe::QUIET;
use crate::server::RECEIVE_BUFFER;

/// What stands in front of every token, so that it is found in any packet.
const MARK: &[u8] = b"podfence";

/// A try of which nothing arrived is made once more, so that a packet lost to a busy machine hides nothing.
const ROUNDS: usize = 2;

/// Longest frame that is looked into, bytes.
const BUFFER: usize = 4096;

/// What tells a packet from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// One that no packet has had.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// What the packet carries.
    pub fn bytes(self) -> Vec<u8> {
        [MARK, &self.0.to_be_bytes()].concat()
    }

    /// A source port that goes with it: below those that the kernel and other probes choose.
    pub fn port(self) -> u16 {
        2_000 + u16::try_from(self.0 % 8_000).unwrap_or(0)
    }

    /// The token where there is room for four bytes.
    pub(crate) fn tag(self) -> [u8; 4] {
        let [.., a, b, c, d] = self.0.to_be_bytes();
        [a, b, c, d]
    }

    /// The token in a frame, whatever stands around it.
    fn find(frame: &[u8]) -> Option<Self> {
        let place = frame.windows(MARK.len()).position(|window| window == MARK)?;
        let number = frame.get(place + MARK.len()..)?.first_chunk()?;
        Some(Self(u64::from_be_bytes(*number)))
    }
}

impl Default for Token {
    fn default() -> Self {
        Self::new()
    }
}

/// A device by which frames are sent as they are, behind the back of its namespace's own stack.
#[derive(Debug, Clone)]
pub struct Wire(Arc<File>);

impl Wire {
    /// Opens a device of a namespace.
    ///
    /// # Errors
    /// There is no such device.
    pub fn open(namespace: &Namespace, device: &str) -> Result<Self> {
        let socket = namespace.run(|| {
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
            let mut devices = getifaddrs()?.filter(|found| found.interface_name == device);
            let link = devices.find_map(|found| found.address?.as_link_addr().copied());
            bind(socket.as_raw_fd(), &link.with_context(|| format!("there is no device {device}"))?)?;
            Ok(socket)
        })?;
        Ok(Self(Arc::new(socket.into())))
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The device is down or gone.
    pub fn send(&self, frame: &Frame) -> Result<()> {
        Ok((&*self.0).write_all(frame.bytes())?)
    }
}

/// Sees every frame that comes into a namespace or goes out of it, on any device, whatever its stack makes of it.
struct Tap(OwnedFd);

impl Tap {
    fn open(namespace: &Namespace) -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = namespace
            .run(|| Ok(socket(AddressFamily::Packet, SockType::Raw, flags, Some(SockProtocol::EthAll))?))?;
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
        }
        Ok(Self(socket))
    }

    /// The tokens in the frames that were seen since the last call.
    fn collect(&self, seen: &mut HashSet<Token>) -> Result<()> {
        let mut buffer = [0; BUFFER];
        loop {
            match recv(&self.0, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => seen.extend(buffer.get(..length).and_then(Token::find)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot read what a namespace sees"),
            }
        }
    }
}

type Send = Box<dyn Fn(Token) -> Result<()>>;

/// Something sent that carries a token, and who may or must see it.
pub struct Try {
    name: String,
    witness: Endpoint,
    send: Send,
}

impl Try {
    /// A try that sends by whatever means.
    pub fn new(
        name: impl Into<String>,
        witness: &Endpoint,
        send: impl Fn(Token) -> Result<()> + 'static,
    ) -> Self {
        Self { name: name.into(), witness: witness.clone(), send: Box::new(send) }
    }

    /// A try that sends frames as they are.
    pub fn frames<Frames: IntoIterator<Item = Frame>>(
        name: impl Into<String>,
        witness: &Endpoint,
        wire: &Wire,
        frames: impl Fn(Token) -> Frames + 'static,
    ) -> Self {
        let wire = wire.clone();
        Self::new(name, witness, move |token| {
            frames(token).into_iter().try_for_each(|frame| wire.send(&frame))
        })
    }

    /// The same, with something done before each time.
    #[must_use]
    pub fn after(self, first: impl Fn() -> Result<()> + 'static) -> Self {
        let Self { name, witness, send } = self;
        let send = move |token| {
            first()?;
            send(token)
        };
        Self { name, witness, send: Box::new(send) }
    }

    /// What is tried.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Try {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Try").field(&self.name).finish()
    }
}

/// Makes all tries at once, and says of each whether anything with its token was seen in the namespace of its
/// witness. What stays unseen is tried twice, 300 ms each time.
///
/// # Errors
/// Something could not be sent at all.
pub fn arrivals(tries: &[Try]) -> Result<Vec<bool>> {
    let mut taps: Vec<(&Endpoint, Tap)> = Vec::new();
    for Try { witness, .. } in tries {
        if taps.iter().all(|(known, _)| known.name() != witness.name()) {
            taps.push((witness, Tap::open(witness.namespace())?));
        }
    }
    let mut arrived = vec![false; tries.len()];
    for _ in 0..ROUNDS {
        let missing = tries.iter().zip(&mut arrived).filter(|(_, arrived)| !**arrived);
        let mut sent = Vec::new();
        for (one, arrived) in missing {
            let token = Token::new();
            (one.send)(token).with_context(|| format!("cannot try: {}", one.name))?;
            sent.push((one.witness.name(), token, arrived));
        }
        wait_for_arrivals(&taps, &mut sent)?;
    }
    Ok(arrived)
}

/// Looks at the taps until everything has arrived, or nothing has for a while.
fn wait_for_arrivals(taps: &[(&Endpoint, Tap)], sent: &mut [(&str, Token, &mut bool)]) -> Result<()> {
    let mut last = Instant::now();
    while last.elapsed() < QUIET && sent.iter().any(|(_, _, arrived)| !**arrived) {
        let mut ready: Vec<_> = taps.iter().map(|(_, tap)| PollFd::new(&tap.0, PollFlags::IN)).collect();
        poll(&mut ready, Some(&Timespec::try_from(QUIET.saturating_sub(last.elapsed()))?))?;
        for (witness, tap) in taps {
            let mut seen = HashSet::new();
            tap.collect(&mut seen)?;
            for (name, token, arrived) in sent.iter_mut() {
                if *name == witness.name() && !**arrived && seen.contains(token) {
                    **arrived = true;
                    last = Instant::now();
                }
            }
        }
    }
    Ok(())
}
