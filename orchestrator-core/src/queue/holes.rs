//! A set of small numbers that can tell how many members are below a number: a bitmap, with a Fenwick tree over its words.

const WORD: usize = u64::BITS as usize;

/// The set. It grows with its largest member; nothing is stored for numbers above it, so a lane without cancellations
/// pays nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Holes {
    words: Vec<u64>,
    /// `tree[i]` is the number of members in the words `i + 1 - lowbit(i + 1) ..= i`.
    tree: Vec<u32>,
}

impl Holes {
    /// Adds a number.
    pub(super) fn mark(&mut self, number: usize) {
        let (word, bit) = (number / WORD, 1_u64 << (number % WORD));
        while self.words.len() <= word {
            self.grow();
        }
        if self.words[word] & bit == 0 {
            self.words[word] |= bit;
            self.add(word, 1);
        }
    }

    /// Takes a number out.
    pub(super) fn clear(&mut self, number: usize) {
        let (word, bit) = (number / WORD, 1_u64 << (number % WORD));
        if self.words.get(word).is_some_and(|members| members & bit != 0) {
            self.words[word] &= !bit;
            self.add(word, u32::MAX);
        }
    }

    /// Members below a number.
    pub(super) fn before(&self, number: usize) -> usize {
        let word = number / WORD;
        let whole = self.sum(word.min(self.words.len()));
        let part = self.words.get(word).map_or(0, |members| (members & ((1 << (number % WORD)) - 1)).count_ones());
        whole as usize + part as usize
    }

    /// Appends an empty word: its tree node covers words that exist already.
    fn grow(&mut self) {
        self.words.push(0);
        let node = self.words.len();
        let covered = self.sum(node - 1) - self.sum(node - (node & node.wrapping_neg()));
        self.tree.push(covered);
    }

    /// Members in the first `count` words.
    fn sum(&self, mut count: usize) -> u32 {
        let mut sum = 0;
        while count > 0 {
            sum += self.tree[count - 1];
            count &= count - 1;
        }
        sum
    }

    /// Adds to the count of a word; `u32::MAX` takes one away, since the sums wrap.
    fn add(&mut self, word: usize, amount: u32) {
        let mut node = word + 1;
        while node <= self.tree.len() {
            self.tree[node - 1] = self.tree[node - 1].wrapping_add(amount);
            node += node & node.wrapping_neg();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Holes;

    proptest! {
        /// Counts are those of a plain set, whatever the order in which it grows.
        #[test]
        fn counts_are_those_of_a_set(steps in prop::collection::vec((0_usize..2_000, prop::bool::weighted(0.7)), 0..80)) {
            let (mut holes, mut set) = (Holes::default(), BTreeSet::new());
            for (number, mark) in steps {
                if mark {
                    holes.mark(number);
                    set.insert(number);
                } else {
                    holes.clear(number);
                    set.remove(&number);
                }
                for below in (0..2_200).step_by(61) {
                    prop_assert_eq!(holes.before(below), set.range(..below).count());
                }
            }
        }
    }
}
