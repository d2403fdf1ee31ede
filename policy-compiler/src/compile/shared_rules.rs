//! Rules, and parts of them, that many chains have.

use crate::model::{Direction, Family};
use crate::ruleset::{Fields, LogEvent, LogPrefix, Rule, SetRole, Statement, Verdict};

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

/// What happens to packets whose peer is in a set of its family.
pub(super) fn with_peers(direction: Direction, set: fn(Family) -> SetRole, then: &Statement) -> [Rule; 2] {
    Family::BOTH.map(|family| {
        let is_peer = Statement::InSet(peer_field(direction, family), set(family).into());
        Rule::new([is_peer, then.clone()])
    })
}

/// Logs some of the packets that come here.
pub(super) fn log(direction: Direction, event: LogEvent) -> Rule {
    Rule::new([Statement::WithinLogRate, Statement::Log(LogPrefix::Judged { direction, event })])
}
