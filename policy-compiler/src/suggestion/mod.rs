//! The smallest policies that let denied connections through, judged before anybody applies them.
//!
//! A suggestion says what else it does: a policy that opens a port of one pod may open that of another with the same
//! labels, and isolates every pod that it selects.

mod effects;
mod selector;

pub use effects::Opened;

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use crate::explain::{Effect, TierRule};
use crate::judge::{Connection, Decision, Judge, Party, Traffic, TrafficRange};
use crate::model::{
    Cluster, Direction, Family, IpBlock, LabelSelector, NAMESPACE_NAME_LABEL, NamespaceScope, NetworkPolicy,
    ObjectName, Peer, Pod, PodPeer, PortMatch, Rule, Tier,
};
use effects::{Change, isolates};
use selector::selector_of;

/// The longest `metadata.name` (RFC 1123 subdomain).
const NAME_MAX: usize = 253;

/// A denied connection that is to be allowed.
#[derive(Debug, Clone)]
pub struct Denied<'a> {
    /// The connection.
    pub connection: Connection<'a>,
    /// The only family in which it is denied; `None` where it is in all of them.
    pub family: Option<Family>,
    /// The block that is to be allowed, if one end is an address that stands for all of it.
    pub block: Option<IpNet>,
}

/// What would let denied connections through.
#[derive(Debug, Clone, Default)]
pub struct Suggestion<'a> {
    /// The policies to apply, all of them together.
    pub policies: Vec<NetworkPolicy>,
    /// The places in `policies` of those that each of the denied connections needs; none where there is an obstacle.
    pub needed: Vec<Vec<usize>>,
    /// Why no policy can be suggested for some of the connections.
    pub obstacles: Vec<Obstacle>,
    /// What the policies allow that was not asked for and was denied before.
    pub opens: Vec<Opened>,
    /// The pods that a policy isolates for the first time in a direction: what no rule allows is denied them from then
    /// on. Nothing else is denied that was allowed.
    pub isolates: Vec<(Direction, &'a Pod)>,
}

/// Why no policy can be suggested.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Obstacle {
    /// Only the empty selector would select the pod, and it selects the whole namespace.
    #[error("give {0} a label first: without one, a policy could only name every pod of namespace {ns}", ns = .0.namespace)]
    NoLabels(ObjectName),
    /// No selector matches a pod in its node's network, and it has no address.
    #[error("{0} is in its node's network and has no address, so that no peer can name it")]
    NoAddress(ObjectName),
    /// A rule of the tier Admin denies it, before any NetworkPolicy is asked.
    #[error("{rule}{place}, and no NetworkPolicy can undo that", rule = .0, place = in_brackets(.0.origin.as_deref()))]
    Admin(Box<TierRule>),
    /// Policies do not decide about it alone.
    #[error("no policy for {0} would be enough")]
    NotEnough(String),
}

/// ` (file:line)`
fn in_brackets(origin: Option<&str>) -> String {
    origin.map(|origin| format!(" ({origin})")).unwrap_or_default()
}

impl<'a> Suggestion<'a> {
    /// Suggests policies that together let all of `denied` through, as far as policies can.
    pub fn new(judge: &Judge<'a>, denied: &[Denied<'a>]) -> Self {
        let mut drafts = Vec::new();
        let mut obstacles = BTreeSet::new();
        let mut needed: Vec<Vec<usize>> = Vec::new();
        for denied in denied {
            let wanted = Draft::all_for(judge, denied).unwrap_or_else(|obstacle| {
                obstacles.insert(obstacle);
                Vec::new()
            });
            needed.push(wanted.into_iter().map(|draft| draft.put_into(&mut drafts)).collect());
        }
        let (drafts, places) = with_peers_together(drafts);
        for index in needed.iter_mut().flatten() {
            *index = places.get(*index).copied().unwrap_or_default();
        }
        let mut names: BTreeSet<_> = judge.cluster().policies().keys().cloned().collect();
        let policies: Vec<_> = drafts.into_iter().map(|draft| draft.into_policy(&mut names)).collect();
        let mut suggestion = Self { policies, needed, ..Self::default() };
        suggestion.judge(judge, denied, &mut obstacles);
        suggestion.obstacles = obstacles.into_iter().collect();
        suggestion
    }

    /// Finds out what the policies do, and drops them all if they do not do what they are for.
    fn judge(&mut self, judge: &Judge<'a>, denied: &[Denied<'a>], obstacles: &mut BTreeSet<Obstacle>) {
        let mut cluster = judge.cluster().clone();
        self.policies.iter().for_each(|policy| cluster.insert_policy(policy.clone()));
        let after = judge.of_cluster(&cluster);
        let still_denied: Vec<_> = denied
            .iter()
            .zip(&self.needed)
            .filter(|(denied, needed)| {
                !needed.is_empty() && !after.verdict(&after.translate(&denied.connection)).allowed()
            })
            .map(|(denied, _)| denied)
            .collect();
        if !still_denied.is_empty() {
            let connections = still_denied.iter().map(|denied| &denied.connection);
            obstacles.extend(connections.map(|it| Obstacle::NotEnough(format!("{} → {}", it.from, it.to))));
            self.policies.clear();
            self.needed.iter_mut().for_each(Vec::clear);
            return;
        }
        self.isolates = isolates(judge, &self.policies);
        self.opens = Change::new(judge, &after, denied).opens(&self.policies);
    }
}

/// A policy that is not yet named: one rule for one direction.
#[derive(Debug)]
struct Draft {
    direction: Direction,
    namespace: Arc<str>,
    subjects: LabelSelector,
    peers: Vec<Peer>,
    /// Everything where one of them is [`TrafficRange::Other`], which no policy can name.
    traffic: BTreeSet<TrafficRange>,
    /// The subject and its peer.
    ends: [String; 2],
}

impl Draft {
    /// The policies that a connection needs: one for each direction that denies it.
    fn all_for<'a>(judge: &Judge<'a>, denied: &Denied<'a>) -> Result<Vec<Self>, Obstacle> {
        let denying =
            Direction::BOTH.into_iter().filter(|direction| !judge.allows(*direction, &denied.connection));
        let drafts = denying.filter_map(|direction| {
            let connection = judge.deciding(direction, &denied.connection);
            let (subject, other) = connection.subject_and_peer(direction);
            let subject = subject.pod()?;
            if let Decision::Denied(rule) = judge.ruling(direction, &connection).decision
                && rule.policy.tier == Tier::Admin
            {
                let rule = Box::new(TierRule::new(&rule, direction, Effect::Deny));
                return Some(Err(Obstacle::Admin(rule)));
            }
            Some(Self::new(judge.cluster(), direction, subject, other, denied))
        });
        drafts.collect()
    }

    fn new(
        cluster: &Cluster,
        direction: Direction,
        subject: &Pod,
        other: &Party<'_>,
        denied: &Denied<'_>,
    ) -> Result<Self, Obstacle> {
        let other_name = match (denied.block, other.pod()) {
            (Some(block), _) => block.to_string(),
            (None, Some(pod)) => pod.name.name.to_string(),
            (None, None) => other.to_string(),
        };
        Ok(Self {
            direction,
            namespace: subject.name.namespace.clone(),
            subjects: selector_of(cluster, subject)?,
            peers: peers(cluster, subject, other, denied)?,
            traffic: BTreeSet::from([denied.connection.traffic.into()]),
            ends: [subject.name.name.to_string(), other_name],
        })
    }

    /// Adds the draft to those there are, to one of the same pods and peers if there is one. Its place.
    fn put_into(self, drafts: &mut Vec<Self>) -> usize {
        let same = |draft: &Self| {
            let key = |draft: &Self| (draft.direction, draft.namespace.clone(), draft.subjects.clone());
            key(draft) == key(&self) && draft.peers == self.peers
        };
        if let Some((index, draft)) = drafts.iter_mut().enumerate().find(|(_, draft)| same(draft)) {
            draft.traffic.extend(self.traffic);
            return index;
        }
        drafts.push(self);
        drafts.len() - 1
    }

    fn into_policy(self, taken: &mut BTreeSet<ObjectName>) -> NetworkPolicy {
        let name = unused_name(&self, taken);
        let range = |traffic: &TrafficRange| match traffic {
            TrafficRange::Ports(protocol, ports) => Some(PortMatch::Range(*protocol, *ports)),
            TrafficRange::Other => None,
        };
        let rule =
            Rule { peers: Some(self.peers), ports: self.traffic.iter().map(range).collect(), origin: None };
        let rules = |direction| (self.direction == direction).then(|| vec![rule.clone()]);
        NetworkPolicy {
            name,
            subjects: self.subjects,
            ingress: rules(Direction::Ingress),
            egress: rules(Direction::Egress),
            audited: false,
            origin: None,
        }
    }
}

/// The same drafts, in one what differs in nothing but the peers; and the places of those that were given.
fn with_peers_together(drafts: Vec<Draft>) -> (Vec<Draft>, Vec<usize>) {
    let mut together: Vec<Draft> = Vec::new();
    let mut places = Vec::new();
    for draft in drafts {
        let key = |it: &Draft| (it.direction, it.namespace.clone(), it.subjects.clone(), it.traffic.clone());
        let place = together.iter().position(|other| key(other) == key(&draft)).unwrap_or(together.len());
        match together.get_mut(place) {
            Some(other) => other.peers.extend(draft.peers),
            None => together.push(draft),
        }
        places.push(place);
    }
    (together, places)
}

/// The peers of a rule that cover `other`.
fn peers(
    cluster: &Cluster,
    subject: &Pod,
    other: &Party<'_>,
    denied: &Denied<'_>,
) -> Result<Vec<Peer>, Obstacle> {
    let block = |cidr| Peer::Block(IpBlock { cidr, except: Vec::new() });
    if let Some(cidr) = denied.block {
        return Ok(vec![block(cidr)]);
    }
    if let Some(pod) = other.pod().filter(|pod| pod.selectable()) {
        let namespaces = if pod.name.namespace == subject.name.namespace {
            NamespaceScope::Own
        } else {
            NamespaceScope::Matching(LabelSelector::equal([(NAMESPACE_NAME_LABEL, &*pod.name.namespace)]))
        };
        return Ok(vec![Peer::Pods(PodPeer { namespaces, pods: selector_of(cluster, pod)? })]);
    }
    let addresses = other.addresses().iter();
    let addresses = addresses.filter(|address| denied.family.is_none_or(|of| Family::of(**address) == of));
    let blocks: Vec<_> = addresses.map(|address| block(IpNet::from(*address))).collect();
    match other.pod() {
        Some(pod) if blocks.is_empty() => Err(Obstacle::NoAddress(pod.name.clone())),
        _ => Ok(blocks),
    }
}

/// A name that says what the policy allows, and that no other policy has.
fn unused_name(draft: &Draft, taken: &mut BTreeSet<ObjectName>) -> ObjectName {
    let [subject, other] = draft.ends.each_ref().map(|end| as_name(end));
    let word = match draft.direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    let mut name = format!("allow-{subject}-{word}-{other}");
    let single = draft.traffic.first().filter(|_| draft.traffic.len() == 1);
    name.truncate(NAME_MAX - "-65535-999".len());
    if let Some(Traffic::Port(_, port)) = single.map(|traffic| traffic.example()) {
        name = format!("{}-{port}", name.trim_end_matches(['-', '.']));
    }
    let mut candidate = ObjectName::new(draft.namespace.clone(), &*name);
    let mut number = 1_usize;
    while !taken.insert(candidate.clone()) {
        number += 1;
        candidate.name = format!("{name}-{number}").into();
    }
    candidate
}

/// What is left of a text where only a name's characters stay (RFC 1123).
fn as_name(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    text.chars().map(plain).collect::<String>().trim_matches(['-', '.']).to_owned()
}
