//! A question, and the answers to all that it comes to.

use ipnet::IpNet;
use policy_compiler::explain::Side;
use policy_compiler::judge::{AddressRange, Connection, Endpoint, Judge, Party, TrafficRange};
use policy_compiler::model::{Direction, Family, Pod};
use policy_compiler::suggestion::Denied;

use super::target::{Asked, Place, Target};

/// So many names or blocks are listed before the rest is counted.
const SHOWN: usize = 4;

/// Two ends, and what is asked about them.
#[derive(Debug, Clone)]
pub(crate) struct Question<'a> {
    from: Party<'a>,
    to: Party<'a>,
    asked: Asked,
    /// Whether a Service led to the destination.
    through_service: bool,
    /// What one of the ends stands for, if it is one address of a block.
    part: Option<Part>,
}

/// The part of a block that is treated alike.
#[derive(Debug, Clone)]
struct Part {
    /// Whether it is the end that connects.
    connects: bool,
    name: String,
    block: IpNet,
}

/// What the policies say of a connection, or of all with traffic in a range.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) traffic: TrafficRange,
    /// Set where the families disagree.
    pub(crate) family: Option<Family>,
    pub(crate) egress: Side,
    pub(crate) ingress: Side,
    connection: Connection<'a>,
    part: Option<Part>,
}

impl<'a> Question<'a> {
    /// The question about two ends.
    pub(crate) fn between(from: Party<'a>, to: Party<'a>, asked: Asked) -> Self {
        Self { from, to, asked, through_service: false, part: None }
    }

    /// The questions about each part of a block that is treated alike, or the one about two ends that are no blocks.
    pub(super) fn all(judge: &Judge<'a>, from: Place<'a>, target: &Target<'a>) -> Vec<Self> {
        let about = |from, to, part| Self {
            from,
            to,
            asked: target.asked.clone(),
            through_service: target.through_service,
            part,
        };
        match (from, target.to) {
            (Place::Party(from), Place::Party(to)) => vec![about(from, to, None)],
            (Place::Block(block), Place::Party(to)) => {
                let about = |from, name| about(from, to, Some(Part { connects: true, name, block }));
                Self::of_block(judge, block, about)
            }
            (Place::Party(from), Place::Block(block)) => {
                let about = |to, name| about(from, to, Some(Part { connects: false, name, block }));
                Self::of_block(judge, block, about)
            }
            (Place::Block(_), Place::Block(_)) => Vec::new(),
        }
    }

    /// The questions about a block: one for all addresses outside the cluster that get the same answers, one for all
    /// pods that do, and one for the pod that is the other end too.
    fn of_block(judge: &Judge<'a>, block: IpNet, about: impl Fn(Party<'a>, String) -> Self) -> Vec<Self> {
        let mut keys = Vec::new();
        let mut alike: Vec<Alike<'a>> = Vec::new();
        for range in judge.address_parts(block) {
            let end = judge.party(Endpoint::Address(range.first));
            let question = about(end, String::new());
            let key = (end.pod().is_some(), question.is_about_one_pod(), question.verdicts(judge));
            let place = keys.iter().position(|other| *other == key).unwrap_or(keys.len());
            if place == alike.len() {
                keys.push(key);
                alike.push(Alike { end, ranges: Vec::new(), pods: Vec::new() });
            }
            if let Some(part) = alike.get_mut(place) {
                part.ranges.push(range);
                part.pods.extend(end.pod());
            }
        }
        alike.iter().enumerate().map(|(index, part)| about(part.end, name(block, &alike, index))).collect()
    }

    /// Whether both ends are the same pod or workload.
    pub(super) fn is_about_one_pod(&self) -> bool {
        self.from.pod().zip(self.to.pod()).is_some_and(|(from, to)| from.name == to.name)
    }

    fn parts(&self, judge: &Judge<'a>) -> Vec<TrafficRange> {
        match &self.asked {
            Asked::Everything => judge.traffic_parts(&self.from, &self.to),
            Asked::Only(parts) => parts.clone(),
        }
    }

    /// The connections with some traffic: one for each family if their verdicts differ in a direction, or else one.
    fn connections(&self, judge: &Judge<'a>, traffic: TrafficRange) -> Vec<Connection<'a>> {
        let Self { from, to, through_service, .. } = *self;
        let traffic = traffic.example();
        let connection = |&family| Connection { from, to, family, traffic, through_service };
        let mut connections: Vec<_> = from.families_with(&to).iter().map(connection).collect();
        connections.dedup_by_key(|connection| verdict(judge, connection));
        connections
    }

    fn verdicts(&self, judge: &Judge<'a>) -> Vec<(TrafficRange, [bool; 2])> {
        let verdicts = self.parts(judge).into_iter().flat_map(|traffic| {
            let connections = self.connections(judge, traffic).into_iter();
            connections.map(move |connection| (traffic, verdict(judge, &connection)))
        });
        verdicts.collect()
    }

    /// The answers, what follows upon another and is treated alike in one.
    pub(crate) fn answers(&self, judge: &Judge<'a>) -> Vec<Answer<'a>> {
        let mut answers: Vec<Answer<'a>> = Vec::new();
        for traffic in self.parts(judge) {
            let connections = self.connections(judge, traffic);
            let disagree = connections.len() > 1;
            for connection in connections {
                let [egress, ingress] =
                    Direction::BOTH.map(|direction| Side::new(judge, direction, &connection));
                let family = connection.family.filter(|_| disagree);
                let part = self.part.clone();
                let answer = Answer { traffic, family, egress, ingress, connection, part };
                let joined = answers.iter_mut().filter(|before| before.says_the_same(&answer));
                match joined.last().and_then(|before| Some((before.traffic.joined(traffic)?, before))) {
                    Some((joined, before)) => before.traffic = joined,
                    None => answers.push(answer),
                }
            }
        }
        answers
    }
}

fn verdict<'a>(judge: &Judge<'a>, connection: &Connection<'a>) -> [bool; 2] {
    Direction::BOTH.map(|direction| judge.allows(direction, connection))
}

impl<'a> Answer<'a> {
    pub(crate) fn allowed(&self) -> bool {
        self.egress.verdict.allows() && self.ingress.verdict.allows()
    }

    /// The names of the ends.
    pub(super) fn names(&self) -> [String; 2] {
        let Connection { from, to, .. } = &self.connection;
        let name = |end: &Party<'_>, connects| match &self.part {
            Some(part) if part.connects == connects => part.name.clone(),
            _ => end.to_string(),
        };
        [name(from, true), name(to, false)]
    }

    /// The workload between two of whose pods it is.
    pub(super) fn replicas_of(&self) -> Option<&'a Pod> {
        let pod = self.connection.from.pod().filter(|pod| pod.workload.is_some())?;
        self.connection.to.pod().filter(|to| to.name == pod.name)
    }

    /// What is said for people, but for the names and addresses of the ends: replicas have it in common.
    pub(super) fn without_names(&self) -> String {
        let Connection { from, to, .. } = &self.connection;
        let mut text = format!("{} {} {:?}", self.egress, self.ingress, self.family);
        for (end, placeholder) in [(from, "from"), (to, "to")] {
            text = text.replace(&end.to_string(), placeholder);
            if let Some(pod) = end.pod() {
                text = text.replace(&format!("pod {} ", pod.name.name), placeholder);
            }
            for address in end.addresses() {
                text = text.replace(&address.to_string(), placeholder);
            }
        }
        text
    }

    /// What a policy would have to allow.
    pub(super) fn denied(&self) -> Denied<'a> {
        let block = self.part.as_ref().map(|part| part.block);
        Denied { connection: self.connection, family: self.family, block }
    }

    /// Whether another answer differs in nothing but the traffic.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.names() == other.names()
            && self.family == other.family
            && self.egress == other.egress
            && self.ingress == other.ingress
    }
}

/// Addresses of a block that get the same answers: all of pods, or all outside the cluster.
struct Alike<'a> {
    /// One that stands for all.
    end: Party<'a>,
    ranges: Vec<AddressRange>,
    pods: Vec<&'a Pod>,
}

impl Alike<'_> {
    fn blocks(&self) -> Vec<IpNet> {
        self.ranges.iter().flat_map(|range| range.blocks()).collect()
    }
}

/// What one of the parts of a block is called: by its pods; or by its addresses, those of pods apart, or what is left of
/// the block without the others, whichever is less to read.
fn name(block: IpNet, parts: &[Alike<'_>], index: usize) -> String {
    let Some(part) = parts.get(index) else { return block.to_string() };
    if !part.pods.is_empty() {
        return format!("{} in {block}", few(part.pods.iter().map(|pod| pod.name.to_string())));
    }
    let others = parts.iter().enumerate().filter(|(other, part)| *other != index && part.pods.is_empty());
    let others = IpNet::aggregate(&others.flat_map(|(_, part)| part.blocks()).collect());
    let blocks = IpNet::aggregate(&part.blocks());
    let addresses = match others.len() {
        0 => block.to_string(),
        fewer if fewer < blocks.len() => {
            format!("{block} except {}", few(others.iter().map(IpNet::to_string)))
        }
        _ => few(blocks.iter().map(IpNet::to_string)),
    };
    let has_pods = parts.iter().any(|part| !part.pods.is_empty());
    if has_pods { format!("{addresses} (pods apart)") } else { addresses }
}

/// A list that does not become too long.
fn few(items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(SHOWN);
    let mut shown: Vec<_> = items.take(SHOWN).collect();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}
