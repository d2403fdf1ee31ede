//! The facts of an explanation, as `-o json` prints them.

use policy_compiler::explain::{Side, Word};
use policy_compiler::judge::{Connection, Judge, Party, Traffic};
use policy_compiler::model::{Direction, PortNumber, Protocol};
use serde::Serialize;
use serde_json::Value;

use super::suggestion::suggest;

/// The whole answer.
#[derive(Serialize)]
pub(super) struct Report {
    /// Who connects, as it was asked.
    pub(super) from: String,
    /// Who is connected to, as it was asked.
    pub(super) to: String,
    /// The port, as it was asked, with its protocol.
    pub(super) port: String,
    /// Denied if one of the connections is.
    pub(super) verdict: Word,
    /// What the question comes to: one for each backend of a Service, each number of a port's name, and
    /// each family where they disagree.
    pub(super) connections: Vec<Explained>,
}

/// One connection.
#[derive(Serialize)]
pub(super) struct Explained {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) port: u16,
    pub(super) protocol: &'static str,
    /// Set where the families disagree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) family: Option<String>,
    pub(super) verdict: Word,
    pub(super) egress: Side,
    pub(super) ingress: Side,
    /// NetworkPolicies, one for each direction that denies, which together would let the connection through.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) suggestions: Vec<Value>,
}

/// A connection to explain, in all families.
pub(super) struct Question<'a> {
    pub(super) from: Party<'a>,
    pub(super) to: Party<'a>,
    pub(super) protocol: Protocol,
    pub(super) port: PortNumber,
}

impl<'a> Question<'a> {
    /// The explanation; one for each family if their verdicts differ in a direction.
    pub(super) fn explain(&self, judge: &Judge<'a>) -> Vec<Explained> {
        let Self { from, to, protocol, port } = *self;
        let traffic = Traffic::Port(protocol, port);
        let connections =
            from.families_with(&to).iter().map(|&family| Connection { from, to, family, traffic });
        let allows = |connection: &Connection<'a>| {
            Direction::BOTH.map(|direction| judge.allows(direction, connection))
        };
        let mut distinct: Vec<_> = connections.collect();
        distinct.dedup_by_key(|connection| allows(connection));
        let disagree = distinct.len() > 1;
        distinct
            .iter()
            .map(|connection| {
                let family = connection.family.filter(|_| disagree);
                let [egress, ingress] =
                    Direction::BOTH.map(|direction| Side::new(judge, direction, connection));
                let denying = [(Direction::Egress, &egress), (Direction::Ingress, &ingress)]
                    .into_iter()
                    .filter(|(_, side)| !side.verdict.allows());
                Explained {
                    from: from.to_string(),
                    to: to.to_string(),
                    port: port.get(),
                    protocol: protocol.as_str(),
                    family: family.map(|family| family.to_string()),
                    verdict: Word::of(egress.verdict.allows() && ingress.verdict.allows()),
                    suggestions: denying
                        .filter_map(|(direction, _)| {
                            suggest(direction, &judge.deciding(direction, connection), family)
                        })
                        .collect(),
                    egress,
                    ingress,
                }
            })
            .collect()
    }
}
