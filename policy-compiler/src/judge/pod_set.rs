//! Sets of pods.

/// A pod's number among those that selectors can match.
pub(super) type Member = usize;

/// A set of [`Member`]s, one bit for each.
#[derive(Debug, Clone, Default)]
pub(super) struct PodSet(Vec<u64>);

impl PodSet {
    pub(super) fn contains(&self, member: Member) -> bool {
        self.0.get(member / 64).is_some_and(|word| word >> (member % 64) & 1 == 1)
    }
}

impl Extend<Member> for PodSet {
    fn extend<T: IntoIterator<Item = Member>>(&mut self, members: T) {
        for member in members {
            if self.0.len() <= member / 64 {
                self.0.resize(member / 64 + 1, 0);
            }
            if let Some(word) = self.0.get_mut(member / 64) {
                *word |= 1 << (member % 64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PodSet;

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        let put = [0, 1, 63, 64, 96, 127, 128, 1000];
        let mut set = PodSet::default();
        assert!(!set.contains(0));
        set.extend(put.into_iter().rev());
        let found: Vec<_> = (0..2000).filter(|member| set.contains(*member)).collect();
        assert_eq!(found, put);
    }
}
