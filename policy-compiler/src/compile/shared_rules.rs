//! Rules, and parts of them, that many chains have.

use crate::model::{Direction, Family};
use crate::ruleset::{Fields, LogPrefix, Rule, Statement, Verdict};

/// The field that holds the subject's address in a direction.
pub(super) fn subject_field(direction: Direction, family: Family) -> Fields {
    match direction {
        Direction::Ingress => Fields::Destination(family),
        Direction::Egress => Fields::Source(family),
    }
}

pub(super) fn peer_field(direction: Direction, family: Family) -> Fields {
    match direction {
        Direction::Ingress => Fields::Source(family),
        Direction::Egress => Fields::Destination(family),
    }
}

/// What keeps a link alive, and passes whatever the policies say.
pub(super) const LINK_UPKEEP: [Statement; 4] = [
    Statement::NEIGHBOUR_DISCOVERY,
    Statement::LISTENER_DISCOVERY,
    Statement::LISTENER_REPORT,
    Statement::GROUP_MANAGEMENT,
];

/// A rule of what a packet or frame must be, and a verdict.
pub(super) fn rule<M: Into<Statement>, const LENGTH: usize>(matches: [M; LENGTH], verdict: Verdict) -> Rule {
    let matches = matches.into_iter().map(Into::into);
    Rule::new(matches.chain([Statement::Verdict(verdict)]).collect::<Vec<_>>())
}

/// A verdict on everything.
pub(super) fn go(verdict: Verdict) -> Rule {
    Rule::new([Statement::Verdict(verdict)])
}

/// Logs some of the packets that come here.
pub(super) fn log(prefix: LogPrefix) -> Rule {
    Rule::new([Statement::WithinLogRate, Statement::Log(prefix)])
}
