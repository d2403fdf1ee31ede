//! Many short byte strings in one piece of memory: tens of thousands of elements, which an agent reads now and then and which
//! are to leave nothing behind in its memory.

use std::cmp::Ordering;
use std::ops::Range;

/// Byte strings, one behind the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
}

impl Packed {
    /// Adds one at the end.
    pub(super) fn push(&mut self, element: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(element);
        self.places.push(start..self.bytes.len());
    }

    /// All of them, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.places.iter().map(|place| self.at(place))
    }

    /// Sorts them, and says whether two are in the same place.
    pub(super) fn sort_by(&mut self, compare: impl Fn(&[u8], &[u8]) -> Ordering) -> bool {
        let mut places = std::mem::take(&mut self.places);
        places.sort_by(|one, other| compare(self.at(one), self.at(other)));
        self.places = places;
        self.iter().zip(self.iter().skip(1)).any(|(one, next)| compare(one, next).is_eq())
    }

    fn at(&self, place: &Range<usize>) -> &[u8] {
        self.bytes.get(place.clone()).unwrap_or_default()
    }
}
