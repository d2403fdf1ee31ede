//! Why a packet was dropped: a line in the log for every connection that is denied, and a notice that becomes
//! an Event on the pod.
//!
//! A rule that drops copies packets to the kernel's packet log first, as often as its limit allows. A thread of its own reads
//! that, and explains what is new ([`tally`]). The objects belong to the enforcer; it hands out the few that decide
//! about the two addresses, and they are judged here.

mod explanation;
mod flow;
mod tally;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use policy_compiler::model::{Cluster, Direction, ObjectName, PodsToNode};
use policy_compiler::ruleset::{LOG_GROUP, LogEvent, LogPrefix};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing::warn;

use crate::error::chain;
use crate::kernel::{self, LoggedPacket, PacketLog};
use crate::metrics::Metrics;
use explanation::Explanation;
pub(crate) use flow::Flow;
use tally::{Tally, Treatment};

/// How long to wait before the packet log is tried again, as while another agent still reads it.
const RETRY: Duration = Duration::from_secs(1);

/// How often what is only counted is looked through.
const SWEEP: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Packets that are alike but for the port that they come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Denial {
    /// What became of them, and why.
    pub(crate) prefix: LogPrefix,
    /// Where they go; `None` where they are no IP.
    pub(crate) flow: Option<Flow>,
    /// The index of the device at which they were dropped; `None` where that was on the way through the node.
    pub(crate) device: Option<u32>,
}

/// Whom a denial is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    /// The pod behind a device.
    Device(u32),
    /// The pod that has an address.
    Address(IpAddr),
    Unknown,
}

impl Denial {
    fn of(packet: &LoggedPacket<'_>) -> Option<Self> {
        // Others may use the group too.
        let prefix = packet.prefix.parse().ok()?;
        let flow = Flow::of(packet.beginning);
        let denial = Self { prefix, flow, device: packet.device };
        (flow.is_some() || denial.direction().is_none()).then_some(denial)
    }

    /// The direction in which the packets were judged; `None` where they are not what their sender may send.
    pub(crate) fn direction(&self) -> Option<Direction> {
        match self.prefix {
            LogPrefix::Judged { direction, .. } | LogPrefix::Tier { direction, .. } => Some(direction),
            LogPrefix::Spoofed(_) => None,
        }
    }

    /// Whether the packets passed, because what denies them is in audit mode.
    pub(crate) fn is_audited(&self) -> bool {
        matches!(
            self.prefix,
            LogPrefix::Judged { event: LogEvent::Audited, .. } | LogPrefix::Tier { audited: true, .. }
        )
    }

    fn subject(&self) -> Subject {
        match (self.device, self.direction(), self.flow) {
            (Some(device), ..) => Subject::Device(device),
            (None, Some(Direction::Ingress), Some(flow)) => Subject::Address(flow.destination),
            (None, _, Some(flow)) => Subject::Address(flow.source),
            (None, _, None) => Subject::Unknown,
        }
    }
}

/// What becomes an Event on a pod.
#[derive(Debug)]
pub(crate) struct Notice {
    /// The pod that it is about.
    pub(crate) pod: ObjectName,
    /// What is the same when it happens again.
    pub(crate) about: About,
    /// How many packets there were.
    pub(crate) packets: u64,
    /// In a sentence.
    pub(crate) message: String,
}

/// What a notice is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum About {
    /// Packets are dropped, or would be.
    Denial(Denial),
    /// The pod's door is unknown.
    NoDoor,
}

/// What decides about packets.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// The objects.
    pub(crate) cluster: Cluster,
    /// The pods at the ends, where something else than the cluster's objects says so: the pod behind the device, and
    /// one that has a link-local address.
    pub(crate) ends: [Option<ObjectName>; 2],
    /// The device at which they were dropped.
    pub(crate) device: Option<Arc<str>>,
}

/// The findings, or `None` where the objects are not known yet.
pub(crate) type Answer = Result<Option<Findings>, Ended>;

/// The agent ends: nobody is left to ask.
#[derive(Debug)]
pub(crate) struct Ended;

/// Reads the packet log and explains it.
pub(crate) struct Explainer<A> {
    ask: A,
    notices: tokio::sync::mpsc::Sender<Notice>,
    metrics: Arc<Metrics>,
    pods_to_node: PodsToNode,
    tally: Tally,
    swept: Instant,
}

impl<A: Fn(Denial) -> Answer> Explainer<A> {
    /// Asks by `ask` what decides about packets. What becomes Events goes into `notices`, as far as there is room.
    pub(crate) fn new(
        ask: A,
        notices: tokio::sync::mpsc::Sender<Notice>,
        metrics: Arc<Metrics>,
        pods_to_node: PodsToNode,
    ) -> Self {
        let now = Instant::now();
        Self { ask, notices, metrics, pods_to_node, tally: Tally::new(now), swept: now }
    }

    /// Explains until the agent ends.
    pub(crate) fn run(mut self) {
        let mut failure = String::new();
        loop {
            let error = match PacketLog::open(LOG_GROUP) {
                Ok(log) => {
                    failure.clear();
                    match self.follow(log) {
                        Ok(Ended) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            let error = chain(&error);
            if error != failure {
                warn!(error, "denials are not explained; they are counted all the same");
                failure = error;
            }
            thread::sleep(RETRY);
        }
    }

    fn follow(&mut self, mut log: PacketLog) -> Result<Ended, kernel::Error> {
        loop {
            let timeout = (!self.tally.is_empty()).then_some(&SWEEP);
            match poll(&mut [PollFd::new(&log, PollFlags::IN)], timeout) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    return Err(kernel::Error::Socket { action: "wait for", source: io::Error::from(error) });
                }
            }
            let now = Instant::now();
            let mut news = Vec::new();
            let lost = log.read(|packet| news.extend(self.news(packet, now)))?;
            if lost {
                self.metrics.denials_lost();
            }
            if now.saturating_duration_since(self.swept) >= Duration::from_secs(1) {
                self.swept = now;
                news.extend(self.tally.due(now));
            }
            for (denial, packets) in news {
                if let Err(ended) = self.report(denial, packets) {
                    return Ok(ended);
                }
            }
        }
    }

    /// What is to be logged of a packet, and of how many.
    fn news(&mut self, packet: &LoggedPacket<'_>, now: Instant) -> Option<(Denial, u64)> {
        let denial = Denial::of(packet)?;
        match self.tally.note(&denial, now) {
            Treatment::Log => return Some((denial, 1)),
            Treatment::Count => {}
            Treatment::Omit => self.metrics.denial_unexplained(),
        }
        None
    }

    fn report(&self, denial: Denial, packets: u64) -> Result<(), Ended> {
        let explanation = match (self.ask)(denial.clone())? {
            Some(findings) => Explanation::of(&denial, findings, self.pods_to_node),
            None => Explanation::unknown(&denial),
        };
        explanation.log(&denial, packets);
        if let Some(pod) = explanation.subject(&denial) {
            let message = explanation.sentence(&denial);
            // Where there are no Events, or many wait already, the log has it.
            let _ = self.notices.try_send(Notice {
                pod: pod.clone(),
                about: About::Denial(denial),
                packets,
                message,
            });
        }
        Ok(())
    }
}
