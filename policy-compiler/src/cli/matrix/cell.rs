//! What a cell says about a pair, or about many that are alike.

use std::fmt::Display;

use policy_compiler::judge::TrafficRange;
use policy_compiler::model::{Family, PortRange, Protocol};

use super::answers::{Answer, Row};
use crate::cli::args::Only;

/// A cell lists so many ports before it counts the rest.
const PORTS_SHOWN: usize = 3;

/// What a cell says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Cell {
    /// A pod and itself.
    Itself,
    /// `--only` leaves it out.
    LeftOut,
    /// Nothing is asked.
    NotAsked,
    /// All that is asked is allowed.
    Allowed,
    /// Nothing of it is.
    Denied,
    /// Only these ports are.
    Partly(String),
}

impl Cell {
    pub(super) fn new(answer: &Answer, only: Option<Only>) -> Self {
        let cell = match answer {
            Answer::Rows(rows) => of_rows(rows),
            Answer::Exact(allowed) => of_exact(allowed),
        };
        match (only, &cell) {
            (None, _)
            | (Some(Only::Allowed), Self::Allowed)
            | (Some(Only::Denied), Self::Denied)
            | (Some(_), Self::Partly(_)) => cell,
            (Some(_), _) => Self::LeftOut,
        }
    }

    /// The cell's text.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Itself => "=",
            Self::LeftOut => "",
            Self::NotAsked => "·",
            Self::Allowed => "✓",
            Self::Denied => "✗",
            Self::Partly(ports) => ports,
        }
    }

    /// Whether it says nothing of what was wanted.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Itself | Self::LeftOut)
    }
}

fn of_rows(rows: &[Row]) -> Cell {
    let allowed: Vec<_> = rows.iter().filter(|row| row.allowed()).collect();
    if rows.is_empty() {
        Cell::NotAsked
    } else if allowed.len() == rows.len() {
        Cell::Allowed
    } else if allowed.is_empty() {
        Cell::Denied
    } else {
        Cell::Partly(list(allowed.into_iter().map(|row| (row.traffic.into(), row.family))))
    }
}

fn of_exact(allowed: &[(TrafficRange, Option<Family>)]) -> Cell {
    let whole = Protocol::ALL.map(TrafficRange::every_port).into_iter().chain([TrafficRange::Other]);
    if allowed.is_empty() {
        Cell::Denied
    } else if allowed.iter().copied().eq(whole.map(|range| (range, None))) {
        Cell::Allowed
    } else {
        Cell::Partly(list(allowed.iter().copied()))
    }
}

fn list(allowed: impl ExactSizeIterator<Item = (TrafficRange, Option<Family>)>) -> String {
    let more = allowed.len().saturating_sub(PORTS_SHOWN);
    let shown = allowed.take(PORTS_SHOWN).map(|(traffic, family)| {
        let family = family.map(|family| format!(" {family}")).unwrap_or_default();
        format!("{}{family}", short(traffic))
    });
    let more = (more > 0).then(|| format!("+{more}"));
    shown.chain(more).collect::<Vec<_>>().join(",")
}

/// `80`, `8000-8999`, `53/UDP`, `TCP` for all of its ports, `ICMP`
fn short(traffic: TrafficRange) -> String {
    let of_protocol = |port: &dyn Display, protocol| match protocol {
        Protocol::Tcp => port.to_string(),
        other => format!("{port}/{other}"),
    };
    match traffic {
        TrafficRange::Other => "ICMP".to_owned(),
        TrafficRange::Ports(protocol, _) if traffic == TrafficRange::every_port(protocol) => {
            protocol.to_string()
        }
        TrafficRange::Ports(protocol, ports) if ports == PortRange::single(ports.first()) => {
            of_protocol(&ports.first(), protocol)
        }
        TrafficRange::Ports(protocol, ports) => {
            of_protocol(&format_args!("{}-{}", ports.first(), ports.last()), protocol)
        }
    }
}
