//! Why a packet was dropped: a line in the log for every connection that is denied, and a notice for whoever tells
//! the pod.
//!
//! A rule that drops tells the kernel's packet log first, as often as its limit allows. A thread of its own reads
//! that, and explains what is new ([`tally`]). The objects belong to the enforcer; it hands out the few that decide
//! about the two addresses, and they are judged here.

mod explanation;
mod flow;
mod tally;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use policy_compiler::model::{Cluster, Direction, ObjectName, PodsToNode};
use policy_compiler::ruleset::{LOG_GROUP, LogPrefix};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing::warn;

use crate::enforcer::{Message, chain};
use crate::kernel::{self, PacketLog};
use crate::metrics::Metrics;
use explanation::Explanation;
pub(crate) use flow::Flow;
use tally::{Tally, Treatment};

/// How long to wait before the packet log is tried again, as while another agent still reads it.
const RETRY: Duration = Duration::from_secs(1);

/// How often what is only counted is looked through.
const SWEEP: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Packets that are alike but for the port that they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Denial {
    /// What became of them, in which direction.
    pub(crate) prefix: LogPrefix,
    /// Where they go.
    pub(crate) flow: Flow,
}

impl Denial {
    /// The address of the end that is isolated.
    fn subject(&self) -> IpAddr {
        match self.prefix.direction {
            Direction::Egress => self.flow.source,
            Direction::Ingress => self.flow.destination,
        }
    }
}

/// What a pod should be told.
#[derive(Debug)]
pub(crate) struct Notice {
    /// The pod that is isolated.
    pub(crate) pod: ObjectName,
    /// What is the same when it happens again.
    pub(crate) denial: Denial,
    /// How many packets there were.
    pub(crate) packets: u64,
    /// In a sentence.
    pub(crate) message: String,
}

/// Asks the enforcer for what decides about two addresses.
#[derive(Debug)]
pub(crate) struct Question {
    /// The addresses.
    pub(crate) ends: [IpAddr; 2],
    /// Takes the objects. To drop it is to say that they are not known yet.
    pub(crate) answer: Sender<Cluster>,
}

/// Reads the packet log and explains it.
pub(crate) struct Explainer {
    enforcer: Sender<Message>,
    notices: tokio::sync::mpsc::Sender<Notice>,
    metrics: Arc<Metrics>,
    pods_to_node: PodsToNode,
    tally: Tally,
    swept: Instant,
}

/// Nobody is left to ask.
struct Ended;

impl Explainer {
    /// Asks by `enforcer`. What is told to pods goes into `notices`, as far as there is room.
    pub(crate) fn new(
        enforcer: Sender<Message>,
        notices: tokio::sync::mpsc::Sender<Notice>,
        metrics: Arc<Metrics>,
        pods_to_node: PodsToNode,
    ) -> Self {
        let now = Instant::now();
        Self { enforcer, notices, metrics, pods_to_node, tally: Tally::new(now), swept: now }
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
            let lost = log.read(|prefix, packet| news.extend(self.news(prefix, packet, now)))?;
            if lost {
                self.metrics.denials_lost();
            }
            if now.saturating_duration_since(self.swept) >= Duration::from_secs(1) {
                self.swept = now;
                news.extend(self.tally.due(now));
            }
            for (denial, packets) in news {
                if let Err(ended) = self.tell(denial, packets) {
                    return Ok(ended);
                }
            }
        }
    }

    /// What is to be told of a packet, and of how many.
    fn news(&mut self, prefix: &str, packet: &[u8], now: Instant) -> Option<(Denial, u64)> {
        // Others may use the group too.
        let denial = Denial { prefix: prefix.parse().ok()?, flow: Flow::of(packet)? };
        match self.tally.note(denial, now) {
            Treatment::Tell => return Some((denial, 1)),
            Treatment::Count => {}
            Treatment::Omit => self.metrics.denial_unexplained(),
        }
        None
    }

    fn tell(&self, denial: Denial, packets: u64) -> Result<(), Ended> {
        let (answer, objects) = mpsc::channel();
        let ends = [denial.flow.source, denial.flow.destination];
        self.enforcer.send(Message::Explain(Question { ends, answer })).map_err(|_| Ended)?;
        let explanation = match objects.recv() {
            Ok(cluster) => Explanation::of(&denial, &cluster, self.pods_to_node),
            Err(_) => Explanation::unknown(),
        };
        explanation.log(&denial, packets);
        if let Some(pod) = explanation.subject(&denial) {
            let message = explanation.sentence(&denial);
            // Where nobody tells pods, or many are told already, the log has it.
            let _ = self.notices.try_send(Notice { pod: pod.clone(), denial, packets, message });
        }
        Ok(())
    }
}
