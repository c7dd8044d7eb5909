//! A set of atoms of one dimension, as bits.

use std::hash::Hash;

const WORD_BITS: usize = 64;

/// A set of numbers below a length that both sides of an operation share.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Bits(Box<[u64]>);

impl Bits {
    /// Nothing.
    pub(crate) fn empty(length: usize) -> Self {
        Self(vec![0; length.div_ceil(WORD_BITS)].into())
    }

    /// Every number below `length`.
    pub(crate) fn full(length: usize) -> Self {
        Self::of(length, 0..length)
    }

    /// One number.
    pub(crate) fn single(length: usize, number: usize) -> Self {
        Self::of(length, [number])
    }

    /// These numbers; what is not below `length` is left out.
    pub(crate) fn of(length: usize, numbers: impl IntoIterator<Item = usize>) -> Self {
        let mut bits = Self::empty(length);
        for number in numbers {
            bits.insert(number);
        }
        bits
    }

    pub(crate) fn insert(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / WORD_BITS) {
            *word |= 1 << (number % WORD_BITS);
        }
    }

    pub(crate) fn contains(&self, number: usize) -> bool {
        self.0
            .get(number / WORD_BITS)
            .is_some_and(|word| word >> (number % WORD_BITS) & 1 == 1)
    }

    pub(crate) fn and(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    pub(crate) fn or(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    pub(crate) fn minus(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    fn zip(&self, other: &Self, join: impl Fn(u64, u64) -> u64) -> Self {
        Self(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(a, b)| join(*a, *b))
                .collect(),
        )
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(crate) fn intersects(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    pub(crate) fn is_subset(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a & !b == 0)
    }

    pub(crate) fn count(&self) -> usize {
        self.iter().count()
    }

    /// The numbers, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            (0..WORD_BITS)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| index * WORD_BITS + bit)
        })
    }

    pub(crate) fn first(&self) -> Option<usize> {
        self.iter().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_more_than_a_word_keep_their_numbers() {
        let a = Bits::of(130, [0, 64, 129, 200]);
        assert_eq!(a.iter().collect::<Vec<_>>(), [0, 64, 129]);
        let rest = Bits::full(130).minus(&a);
        assert_eq!((rest.count(), rest.contains(64)), (127, false));
        assert!(!rest.intersects(&a) && a.is_subset(&Bits::full(130)));
        assert_eq!(rest.or(&a), Bits::full(130));
        assert!(rest.and(&a).is_empty());
    }
}
