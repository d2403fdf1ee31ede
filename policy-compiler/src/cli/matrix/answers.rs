//! The answers: what the judge says of each pair.

use std::collections::HashMap;

use policy_compiler::judge::{Connection, Judge, Traffic, TrafficRange};
use policy_compiler::model::{Direction, Family};

use super::end::{Asked, End};

/// What the judge says of a pair.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    /// One row for each connection asked for, two where the families disagree about it.
    Rows(Vec<Row>),
    /// All that is allowed; of each family by itself where they disagree.
    Exact(Vec<(TrafficRange, Option<Family>)>),
}

/// The answer for one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub(super) traffic: Traffic,
    pub(super) egress: bool,
    pub(super) ingress: bool,
    /// Set where the families disagree, so that each has a row.
    pub(super) family: Option<Family>,
}

impl Row {
    pub(super) fn allowed(self) -> bool {
        self.egress && self.ingress
    }
}

/// The place of an answer among the different ones.
pub(super) type AnswerIndex = usize;

/// Judges pairs, and remembers what it said: most pairs are like others.
pub(super) struct Answers<'a> {
    judge: &'a Judge<'a>,
    different: Vec<Answer>,
    indexes: HashMap<Answer, AnswerIndex>,
    /// For each kind of source and each of destination; [`UNKNOWN`] where it has not been asked for.
    by_kinds: Vec<u32>,
    kinds: usize,
}

/// In the place of an answer that is not known yet.
const UNKNOWN: u32 = u32::MAX;

impl<'a> Answers<'a> {
    /// The answers for pairs of these ends.
    pub(super) fn new(judge: &'a Judge<'a>, ends: &[End<'a>]) -> Self {
        let kinds = ends.iter().filter_map(|end| end.kind).max().map_or(0, |last| last + 1);
        let by_kinds = vec![UNKNOWN; kinds * kinds];
        Self { judge, different: Vec::new(), indexes: HashMap::new(), by_kinds, kinds }
    }

    /// The different answers so far.
    pub(super) fn different(&self) -> &[Answer] {
        &self.different
    }

    /// The answer for a pair, as a place in [`Self::different`].
    pub(super) fn index_of(&mut self, from: &End<'a>, to: &End<'a>) -> AnswerIndex {
        let kinds = from.kind.zip(to.kind).filter(|_| !from.is_itself(to));
        let place = kinds.map(|(from, to)| from * self.kinds + to);
        if let Some(known) =
            place.and_then(|place| self.by_kinds.get(place)).filter(|known| **known != UNKNOWN)
        {
            return *known as AnswerIndex;
        }
        let answer = self.judged(from, to);
        let index = self.indexes.get(&answer).copied().unwrap_or_else(|| {
            self.different.push(answer.clone());
            self.indexes.insert(answer, self.different.len() - 1);
            self.different.len() - 1
        });
        if let Some(known) = place.and_then(|place| self.by_kinds.get_mut(place)) {
            *known = u32::try_from(index).unwrap_or(UNKNOWN);
        }
        index
    }

    /// Outside addresses are not paired with one another.
    fn judged(&self, from: &End<'a>, to: &End<'a>) -> Answer {
        if from.pod.is_none() && to.pod.is_none() {
            return Answer::Rows(Vec::new());
        }
        match &to.asked {
            Asked::Traffic(traffic) => {
                Answer::Rows(traffic.iter().flat_map(|traffic| self.rows(from, to, *traffic)).collect())
            }
            Asked::Everything => Answer::Exact(self.exact(from, to)),
        }
    }

    fn rows(&self, from: &End<'a>, to: &End<'a>, traffic: Traffic) -> Vec<Row> {
        let (from, to) = (from.party, to.party);
        let families = from.families_with(&to);
        let row = |&family: &Option<Family>| {
            let connection = Connection { from, to, family, traffic, through_service: false };
            let [egress, ingress] =
                Direction::BOTH.map(|direction| self.judge.allows(direction, &connection));
            Row { traffic, egress, ingress, family }
        };
        let mut rows: Vec<_> = families.iter().map(row).collect();
        rows.dedup_by_key(|row| (row.egress, row.ingress));
        if let [row] = rows.as_mut_slice() {
            row.family = None;
        }
        rows
    }

    fn exact(&self, from: &End<'a>, to: &End<'a>) -> Vec<(TrafficRange, Option<Family>)> {
        let (from, to) = (from.party, to.party);
        let families = from.families_with(&to);
        let allowed = |&family| self.judge.allowed_traffic(&from, &to, family);
        let mut by_family: Vec<_> = families.iter().map(|family| (*family, allowed(family))).collect();
        by_family.dedup_by(|(_, one), (_, other)| one == other);
        let disagree = by_family.len() > 1;
        let of_family = |(family, ranges): (Option<Family>, Vec<TrafficRange>)| {
            ranges.into_iter().map(move |range| (range, family.filter(|_| disagree)))
        };
        by_family.into_iter().flat_map(of_family).collect()
    }
}
