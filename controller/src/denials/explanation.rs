//! A denial in words.

use std::collections::BTreeSet;
use std::net::IpAddr;

use policy_compiler::explain::Side;
use policy_compiler::judge::{Connection, Endpoint, Judge};
use policy_compiler::model::{Cluster, Direction, Family, ObjectName, Pod, PodsToNode};
use policy_compiler::ruleset::LogEvent;
use tracing::{info, warn};

use super::{Denial, Flow};

/// Who the ends are, and what the policies say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Explanation {
    source: Option<ObjectName>,
    destination: Option<ObjectName>,
    /// The policies that isolate in a direction that denies.
    policies: BTreeSet<String>,
    words: String,
}

impl Explanation {
    /// Judges the connection by the policies in `cluster`, which holds all that decide about it.
    pub(super) fn of(denial: &Denial, cluster: &Cluster, pods_to_node: PodsToNode) -> Self {
        let Flow { source, destination, .. } = denial.flow;
        let judge = Judge::new(cluster).with_pods_to_node(pods_to_node);
        let [from, to] = [source, destination].map(|end| judge.party(Endpoint::Address(end)));
        let name = |pod: &Pod| pod.name.clone();
        let (source, destination) = (from.pod().map(name), to.pod().map(name));
        if denial.prefix.event == LogEvent::StrictStart {
            let words = format!(
                "strict start: no known pod has {}, an address of this node's pod ranges",
                denial.subject()
            );
            return Self { source, destination, policies: BTreeSet::new(), words };
        }
        let family = Some(Family::of(denial.flow.source));
        let connection = Connection { from, to, family, traffic: denial.flow.traffic() };
        let side = |direction| Side::new(&judge, direction, &connection);
        let decided = side(denial.prefix.direction);
        let other = side(match denial.prefix.direction {
            Direction::Egress => Direction::Ingress,
            Direction::Ingress => Direction::Egress,
        });
        let objects = |side: &Side| side.audited || !side.verdict.allows();
        let as_it_was = objects(&decided) && decided.audited == (denial.prefix.event == LogEvent::Audited);
        let mut words = if as_it_was {
            decided.to_string()
        } else {
            format!("the policies have changed since: {decided}")
        };
        if !other.verdict.allows() {
            words = format!("{words}. {} is denied too: {other}", other.direction());
        }
        let denying = [decided, other].into_iter().filter(objects);
        let policies = denying.flat_map(|side| side.policies).map(|policy| policy.name).collect();
        Self { source, destination, policies, words }
    }

    /// Where there is nothing to judge by.
    pub(super) fn unknown() -> Self {
        let words = "an agent before this one has programmed it; the policies are not known yet".to_owned();
        Self { source: None, destination: None, policies: BTreeSet::new(), words }
    }

    /// The pod that is isolated.
    pub(super) fn subject(&self, denial: &Denial) -> Option<&ObjectName> {
        match denial.prefix.direction {
            Direction::Egress => self.source.as_ref(),
            Direction::Ingress => self.destination.as_ref(),
        }
    }

    /// Writes a line into the log.
    pub(super) fn log(&self, denial: &Denial, packets: u64) {
        let Flow { source, destination, transport, port } = denial.flow;
        let name = |pod: &Option<ObjectName>| pod.as_ref().map(ToString::to_string);
        let policies = self.policies.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        macro_rules! line {
            ($level:ident, $message:literal) => {
                $level!(
                    target: "podfence::denied",
                    direction = denial.prefix.direction.as_str(),
                    %source,
                    source_pod = name(&self.source),
                    %destination,
                    destination_pod = name(&self.destination),
                    protocol = %transport,
                    port,
                    policies,
                    explanation = self.words,
                    packets,
                    $message
                )
            };
        }
        match denial.prefix.event {
            LogEvent::Denied | LogEvent::StrictStart => line!(warn, "denied"),
            LogEvent::Audited => line!(info, "audited"),
        }
    }

    /// The connection and the words.
    pub(super) fn sentence(&self, denial: &Denial) -> String {
        let Flow { source, destination, transport, port } = denial.flow;
        let end = |pod: &Option<ObjectName>, address: IpAddr| {
            pod.as_ref().map_or_else(|| address.to_string(), |pod| format!("{pod} ({address})"))
        };
        let port = port.map(|port| format!("{port}/")).unwrap_or_default();
        let (source, destination) = (end(&self.source, source), end(&self.destination, destination));
        let verdict = match denial.prefix.event {
            LogEvent::Denied | LogEvent::StrictStart => "denied",
            LogEvent::Audited => "audited",
        };
        format!("{source} → {destination} {port}{transport} {verdict}: {}", self.words)
    }
}
