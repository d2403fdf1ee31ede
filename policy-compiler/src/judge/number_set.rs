//! Sets of small numbers.

use std::iter;

/// A pod's number among those that selectors can match.
pub(super) type Member = usize;

/// A set of numbers, one bit for each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct NumberSet(Vec<u64>);

impl NumberSet {
    pub(super) fn insert(&mut self, number: usize) {
        if self.0.len() <= number / 64 {
            self.0.resize(number / 64 + 1, 0);
        }
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    pub(super) fn contains(&self, number: usize) -> bool {
        self.word(number / 64) >> (number % 64) & 1 == 1
    }

    /// The numbers in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(index, word)| bits(index, *word))
    }

    /// The numbers that are in one of two other sets too, in ascending order.
    pub(super) fn in_either<'s>(
        &'s self,
        one: &'s Self,
        other: &'s Self,
    ) -> impl Iterator<Item = usize> + 's {
        let common =
            move |(index, word): (usize, &u64)| bits(index, word & (one.word(index) | other.word(index)));
        self.0.iter().enumerate().flat_map(common)
    }

    fn word(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or_default()
    }
}

/// The numbers of a word's bits.
fn bits(index: usize, mut word: u64) -> impl Iterator<Item = usize> {
    iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(index * 64 + bit)
    })
}

impl Extend<usize> for NumberSet {
    fn extend<T: IntoIterator<Item = usize>>(&mut self, numbers: T) {
        numbers.into_iter().for_each(|number| self.insert(number));
    }
}

impl FromIterator<usize> for NumberSet {
    fn from_iter<T: IntoIterator<Item = usize>>(numbers: T) -> Self {
        let mut set = Self::default();
        set.extend(numbers);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::NumberSet;

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        let put = [0, 1, 63, 64, 96, 127, 128, 1000];
        assert!(!NumberSet::default().contains(0));
        let set: NumberSet = put.into_iter().rev().collect();
        let found: Vec<_> = (0..2000).filter(|number| set.contains(*number)).collect();
        assert_eq!(found, put);
        assert_eq!(set.iter().collect::<Vec<_>>(), put);
        let [one, other] = [[1, 2, 96], [0, 64, 5000]].map(|numbers| numbers.into_iter().collect());
        assert_eq!(set.in_either(&one, &other).collect::<Vec<_>>(), [0, 1, 64, 96]);
    }
}
