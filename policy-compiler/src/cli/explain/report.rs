//! The facts of an explanation, as `-o json` prints them.

use policy_compiler::explain::{Side, Word};
use policy_compiler::judge::{Judge, TrafficRange};
use policy_compiler::model::Pod;
use policy_compiler::suggestion::Suggestion;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::policy::manifest;
use super::question::Answer;

/// The whole answer.
#[derive(Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) heading: Heading,
    /// Denied if one of the connections is.
    pub(super) verdict: Word,
    /// How the question was understood, where that may surprise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
    /// What the question comes to: one for each backend of a Service, each port, each part of a block that is treated
    /// alike, and each family where they disagree.
    pub(super) connections: Vec<Explained>,
    /// What the suggested policies do besides, all of them together.
    #[serde(skip_serializing_if = "Effects::is_empty")]
    pub(super) effects: Effects,
    /// Why no policy is suggested for some connections.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) obstacles: Vec<String>,
}

/// The question.
#[derive(Serialize)]
pub(super) struct Heading {
    /// Who connects, as it was asked.
    pub(super) from: String,
    /// Who is connected to, as it was asked.
    pub(super) to: String,
    /// The port, as it was asked, with its protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<String>,
}

/// One connection, or all with traffic in a range.
#[derive(Serialize)]
pub(super) struct Explained {
    pub(super) from: String,
    pub(super) to: String,
    #[serde(flatten)]
    pub(super) traffic: Carried,
    /// Set where the families disagree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) family: Option<String>,
    /// The workload that has both ends.
    #[serde(rename = "replicasOf", skip_serializing_if = "Option::is_none")]
    pub(super) replicas_of: Option<String>,
    pub(super) verdict: Word,
    pub(super) egress: Side,
    pub(super) ingress: Side,
    /// NetworkPolicies, one for each direction that denies, which together would let the connection through.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) suggestions: Vec<Value>,
    /// What is said for people, but for the names of the ends.
    #[serde(skip)]
    pub(super) without_names: String,
}

/// What policies do besides letting the connections through.
#[derive(Default, Serialize)]
pub(super) struct Effects {
    /// What they allow that was denied.
    pub(super) opens: Vec<Opened>,
    /// The pods that no policy isolated in a direction, and which they isolate.
    pub(super) isolates: Vec<Isolated>,
}

#[derive(Serialize)]
pub(super) struct Opened {
    pub(super) from: String,
    pub(super) to: String,
    #[serde(flatten)]
    pub(super) traffic: Carried,
}

#[derive(Serialize)]
pub(super) struct Isolated {
    pub(super) pod: String,
    pub(super) direction: &'static str,
}

impl Report {
    /// The answers to a question; with policies for those that are denied if it `suggests` any.
    pub(super) fn new<'a>(
        heading: Heading,
        notes: Vec<String>,
        judge: &Judge<'a>,
        answers: &[Answer<'a>],
        suggests: bool,
    ) -> Self {
        let mut report = Self {
            heading,
            verdict: Word::of(answers.iter().all(Answer::allowed)),
            notes,
            connections: answers.iter().map(Explained::new).collect(),
            effects: Effects::default(),
            obstacles: Vec::new(),
        };
        if suggests {
            report.suggest(judge, answers);
        } else if !report.verdict.allows() {
            report.obstacles.push("say by --port what it is to allow".to_owned());
        }
        report
    }

    fn suggest<'a>(&mut self, judge: &Judge<'a>, answers: &[Answer<'a>]) {
        let connections = self.connections.iter_mut().zip(answers);
        let (denied, explained): (Vec<_>, Vec<_>) = connections
            .filter(|(_, answer)| !answer.allowed())
            .map(|(explained, answer)| (answer.denied(), explained))
            .unzip();
        let suggestion = Suggestion::new(judge, &denied);
        let manifests: Vec<_> = suggestion.policies.iter().map(manifest).collect();
        for (explained, needed) in explained.into_iter().zip(&suggestion.needed) {
            explained.suggestions =
                needed.iter().filter_map(|index| manifests.get(*index).cloned()).collect();
        }
        self.obstacles = suggestion.obstacles.iter().map(ToString::to_string).collect();
        self.effects = Effects::new(suggestion);
    }
}

impl Explained {
    fn new(answer: &Answer<'_>) -> Self {
        let [from, to] = answer.names();
        Self {
            from,
            to,
            traffic: Carried(answer.traffic),
            family: answer.family.map(|family| family.to_string()),
            replicas_of: answer.replicas_of().map(replicas),
            verdict: Word::of(answer.allowed()),
            egress: answer.egress.clone(),
            ingress: answer.ingress.clone(),
            suggestions: Vec::new(),
            without_names: answer.without_names(),
        }
    }
}

/// `Deployment shop/web`
fn replicas(pod: &Pod) -> String {
    format!("{} {}", pod.workload.as_deref().unwrap_or("Pod"), pod.name)
}

impl Effects {
    fn new(suggestion: Suggestion<'_>) -> Self {
        let opens = suggestion.opens.into_iter();
        let isolates = suggestion.isolates.into_iter();
        Self {
            opens: opens
                .map(|it| Opened { from: it.from, to: it.to, traffic: Carried(it.traffic) })
                .collect(),
            isolates: isolates
                .map(|(direction, pod)| Isolated { pod: pod.name.to_string(), direction: direction.as_str() })
                .collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.opens.is_empty() && self.isolates.is_empty()
    }
}

/// `port` and `protocol`, `endPort` where it is more than one port; `other` has no port.
#[derive(Clone, Copy)]
pub(super) struct Carried(pub(super) TrafficRange);

impl Serialize for Carried {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Facts {
            #[serde(skip_serializing_if = "Option::is_none")]
            port: Option<u16>,
            #[serde(skip_serializing_if = "Option::is_none")]
            end_port: Option<u16>,
            protocol: &'static str,
        }
        let facts = match self.0 {
            TrafficRange::Ports(protocol, ports) => Facts {
                port: Some(ports.first().get()),
                end_port: Some(ports.last().get()).filter(|last| *last != ports.first().get()),
                protocol: protocol.as_str(),
            },
            TrafficRange::Other => Facts { port: None, end_port: None, protocol: "other" },
        };
        facts.serialize(serializer)
    }
}
