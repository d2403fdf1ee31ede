//! Trying connections: what is asked, and what came of it.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::endpoint::Endpoint;
use crate::flow::Flows;
use crate::namespace::in_thread;
use crate::privilege::raise_file_limit;

/// How long a round of probes waits after the last sign of life before it calls the silent ones lost.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

/// A probe without an answer is tried once more, so that a packet lost to a busy machine denies nothing.
const ROUNDS: usize = 2;

/// The most probes under way at once.
const WINDOW: u64 = 4000;

/// What a probe speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// A connection with one exchange of data.
    Tcp,
    /// A datagram and its echo.
    Udp,
    /// INIT and INIT ACK.
    Sctp,
    /// Echo request and reply, of ICMP or `ICMPv6`; the port means nothing.
    Icmp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Sctp, Self::Icmp];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
        })
    }
}

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An answer of the listener came back.
    Allowed,
    /// The host was reached and said that nobody listens there. No policy stood in the way.
    Refused,
    /// Nothing came back, or a router said that there is no way.
    Denied,
}

/// What came of a probe, and who answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What came of it.
    pub outcome: Outcome,
    /// The name of the endpoint that answered, where the protocol can carry one (not ICMP).
    pub server: Option<String>,
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, server: None }
    }
}

/// One connection to try: always a new flow with a source port of its own.
#[derive(Debug, Clone)]
pub struct Probe {
    pub(crate) from: Endpoint,
    pub(crate) source: Option<IpAddr>,
    pub(crate) sender: Option<Endpoint>,
    pub(crate) to: IpAddr,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

impl Probe {
    /// A connection from an endpoint, from the address that its routes prefer.
    pub fn new(from: &Endpoint, to: IpAddr, port: u16, protocol: Protocol) -> Self {
        Self { from: from.clone(), source: None, sender: None, to, port, protocol }
    }

    /// The same from one particular address of the endpoint.
    #[must_use]
    pub fn from_address(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The same, but `sender` (a node) sends the first packet from its own stack, under the endpoint's address:
    /// it takes the hook `output` and never `forward`, as with IPVS and transparent proxies. Answers go to the
    /// endpoint, which judges them.
    #[must_use]
    pub fn sent_by(self, sender: &Endpoint) -> Self {
        Self { sender: Some(sender.clone()), ..self }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} {}/{}", self.from.name(), self.to, self.port, self.protocol)
    }
}

/// Tries many connections at once; the answers are in the order of the probes. Costs about [`QUIET`] for each
/// round in which something stays without an answer.
///
/// # Errors
/// A probe could not be sent at all (no such namespace or address, too many open files).
pub(crate) fn probe(probes: &[Probe]) -> Result<Vec<Reply>> {
    let window = usize::try_from(WINDOW.min(raise_file_limit() / 4))?;
    ensure!(window > 0, "the limit of open files is too low to try connections");
    in_thread(|| {
        let mut replies: Vec<Option<Reply>> = vec![None; probes.len()];
        for _ in 0..ROUNDS {
            let mut unanswered: Vec<_> =
                probes.iter().zip(&mut replies).filter(|(_, reply)| reply.is_none()).collect();
            for portion in unanswered.chunks_mut(window) {
                round(portion)?;
            }
        }
        Ok(replies.into_iter().map(|reply| reply.unwrap_or(Outcome::Denied.into())).collect())
    })
}

/// Tries each of the probes once and fills in the replies that come.
fn round(probes: &mut [(&Probe, &mut Option<Reply>)]) -> Result<()> {
    let mut flows = Flows::new()?;
    let mut last_sign = Instant::now();
    for (index, (probe, _)) in probes.iter().enumerate() {
        flows.open(probe, index)?;
        last_sign = Instant::now();
    }
    while !flows.is_empty() {
        let replies = flows.wait(QUIET.saturating_sub(last_sign.elapsed()))?;
        if replies.is_empty() && last_sign.elapsed() >= QUIET {
            break;
        }
        for (index, reply) in replies {
            last_sign = Instant::now();
            if let Some((_, place)) = probes.get_mut(index) {
                **place = Some(reply);
            }
        }
    }
    Ok(())
}
