//! Which slots of one level hold timers: a ring of 1024 bits in two layers, so that the next occupied slot is found in a
//! few instructions, however far it is.

use super::place::SLOTS;

/// Bits of a word.
const WORD: u32 = u64::BITS;

/// Words of a ring, one bit each in the summary.
const WORDS: u32 = SLOTS / WORD;

/// A ring of [`SLOTS`] bits. Every position is taken modulo [`SLOTS`].
#[derive(Debug, Default)]
pub(super) struct Bitmap {
    /// Which words are not zero.
    summary: u16,
    words: [u64; WORDS as usize],
}

const _: () = assert!(WORDS == u16::BITS, "the summary has one bit for each word");

impl Bitmap {
    /// Whether no bit is set.
    pub(super) const fn is_empty(&self) -> bool {
        self.summary == 0
    }

    /// Sets a bit.
    pub(super) fn set(&mut self, at: u32) {
        let (word, bit) = split(at);
        self.words[word] |= 1 << bit;
        self.summary |= 1 << word;
    }

    /// Clears a bit.
    pub(super) fn clear(&mut self, at: u32) {
        let (word, bit) = split(at);
        self.words[word] &= !(1 << bit);
        if self.words[word] == 0 {
            self.summary &= !(1 << word);
        }
    }

    /// How far it is from `from`, onwards and around the ring, to the first bit that is set: 0 when it is `from` itself.
    pub(super) fn distance(&self, from: u32) -> Option<u32> {
        let (word, bit) = split(from);
        let here = self.words[word] >> bit;
        if here != 0 {
            return Some(here.trailing_zeros());
        }
        // The last of the 16 words looked at is the first one again, of which only the bits before `from` are left.
        let first = (from / WORD + 1) % WORDS;
        let later = self.summary.rotate_right(first);
        if later == 0 {
            return None;
        }
        let found = (first + later.trailing_zeros()) % WORDS;
        let at = found * WORD + self.words[found as usize].trailing_zeros();
        Some(at.wrapping_sub(from) % SLOTS)
    }
}

const fn split(at: u32) -> (usize, u32) {
    let at = at % SLOTS;
    ((at / WORD) as usize, at % WORD)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn naive_distance(set: &BTreeSet<u32>, from: u32) -> Option<u32> {
        (0..SLOTS).find(|far| set.contains(&((from + far) % SLOTS)))
    }

    #[test]
    fn a_single_bit_is_found_from_everywhere() {
        for at in [0, 1, 63, 64, 65, 511, 960, 1023] {
            let mut bits = Bitmap::default();
            bits.set(at);
            for from in 0..SLOTS {
                assert_eq!(bits.distance(from), Some((at + SLOTS - from) % SLOTS), "{at} from {from}");
            }
            bits.clear(at);
            assert!(bits.is_empty());
            assert_eq!(bits.distance(at), None);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(changes in prop::collection::vec((any::<bool>(), 0..SLOTS, 0..SLOTS), 1..200)) {
            let (mut bits, mut set) = (Bitmap::default(), BTreeSet::new());
            for (put, at, from) in changes {
                if put {
                    bits.set(at);
                    set.insert(at);
                } else {
                    bits.clear(at);
                    set.remove(&at);
                }
                prop_assert_eq!(bits.is_empty(), set.is_empty());
                prop_assert_eq!(bits.distance(from), naive_distance(&set, from));
                prop_assert_eq!(bits.distance(at), naive_distance(&set, at));
            }
        }
    }
}
