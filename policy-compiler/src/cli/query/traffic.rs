//! `--port`

use std::fmt;
use std::str::FromStr;

use super::port::{BadPort, PortQuery};

/// What `--port` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TrafficQuery {
    /// One port, by number or name.
    Port(PortQuery),
    /// ICMP and every other protocol that no policy can name.
    Other,
    /// Everything.
    All,
}

impl FromStr for TrafficQuery {
    type Err = BadPort;

    /// A port that is called `icmp` is written with its protocol.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "icmp" | "other" => Ok(Self::Other),
            "all" => Ok(Self::All),
            _ => text.parse().map(Self::Port),
        }
    }
}

impl fmt::Display for TrafficQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => port.fmt(f),
            Self::Other => f.write_str("icmp"),
            Self::All => f.write_str("all"),
        }
    }
}
