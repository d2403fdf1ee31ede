//! All that may pass between two ends, with no port asked for.

use super::{Connection, Judge, Party, TrafficRange};
use crate::model::{Direction, Family};

impl<'a> Judge<'a> {
    /// Everything that is allowed from one end to another in one of their [families](Party::families_with): disjoint
    /// ranges in ascending order that do not touch.
    pub fn allowed_traffic(
        &self,
        from: &Party<'a>,
        to: &Party<'a>,
        family: Option<Family>,
    ) -> Vec<TrafficRange> {
        let allowed = |part: &TrafficRange| {
            let traffic = part.example();
            let connection = Connection { from: *from, to: *to, family, traffic, through_service: false };
            Direction::BOTH.into_iter().all(|direction| self.allows(direction, &connection))
        };
        let mut ranges: Vec<TrafficRange> = Vec::new();
        for part in self.traffic_parts(from, to).into_iter().filter(allowed) {
            match ranges.last().and_then(|last| last.joined(part)) {
                Some(joined) => {
                    ranges.pop();
                    ranges.push(joined);
                }
                None => ranges.push(part),
            }
        }
        ranges
    }
}
