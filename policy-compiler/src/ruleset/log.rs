//! What rules tell the agent of packets (`log … group`).

use std::fmt;
use std::str::FromStr;

use crate::model::Direction;

/// The NFLOG group to which packets are told.
///
/// A group has one reader in each network namespace. What other programs take by default are small numbers: 0
/// (ulogd, tcpdump), 1 and 2 (Calico), 100 (kube-router).
pub const LOG_GROUP: u16 = 9555;

/// How many bytes of a packet are told: the headers of IP, its usual extensions and the ports.
pub const LOG_SNAP_LENGTH: u32 = 128;

/// How many packets each rule tells of in a second.
pub const LOG_RATE: u64 = 50;

/// How many it tells of at once after a silence.
pub const LOG_BURST: u32 = 100;

/// What is said of a packet (`log prefix`), as `podfence ingress denied`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPrefix {
    /// In which direction the packet was judged.
    pub direction: Direction,
    /// What became of it.
    pub event: LogEvent,
}

/// What becomes of packets that are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogEvent {
    /// Dropped: policies isolate the pod, and no rule covers the packet.
    Denied,
    /// It passes, but would be dropped if the policies that isolate the pod were not in audit mode.
    Audited,
    /// Dropped by strict start: no known pod has the address.
    StrictStart,
}

impl LogEvent {
    const ALL: [Self; 3] = [Self::Denied, Self::Audited, Self::StrictStart];

    fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Audited => "audited",
            Self::StrictStart => "strict-start",
        }
    }
}

impl fmt::Display for LogPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "podfence {} {}", self.direction, self.event.as_str())
    }
}

/// The text is no prefix of podfence's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no prefix of podfence's rules")]
pub struct ForeignPrefix(String);

impl FromStr for LogPrefix {
    type Err = ForeignPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let prefixes = Direction::BOTH
            .into_iter()
            .flat_map(|direction| LogEvent::ALL.into_iter().map(move |event| Self { direction, event }));
        prefixes
            .into_iter()
            .find(|prefix| prefix.to_string() == text)
            .ok_or_else(|| ForeignPrefix(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_read_as_it_was_written() {
        for direction in Direction::BOTH {
            for event in LogEvent::ALL {
                let prefix = LogPrefix { direction, event };
                assert_eq!(prefix.to_string().parse(), Ok(prefix));
            }
        }
        for foreign in ["", "podfence", "podfence ingress", "podfence ingress denied "] {
            assert_eq!(foreign.parse::<LogPrefix>(), Err(ForeignPrefix(foreign.to_owned())));
        }
    }
}
