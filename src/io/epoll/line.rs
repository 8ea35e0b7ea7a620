//! The line of connections that have something to be served: those who say little come before those who send much.
//!
//! A read of 64 KiB and the answer to it take some 50 µs, and a hundred of them 5 ms, which whoever has 64 bytes would
//! spend in line. So whoever's last read brought much stands in a line of its own, of which a few are served between two
//! looks at what else has come. (As fq_codel does for packets, RFC 8290 section 4.1: queues with little go first, and
//! one that gets a quantum too much goes to the end of the others.) Those get on in each turn, so nobody starves them.

use std::collections::VecDeque;

use crate::id::ConnId;
use crate::io::{BULK_BYTES_MIN, BULK_READS_MAX};

/// Places in line that are kept when nobody is in it.
const KEPT: usize = 4096;

/// Both lines. Each connection is in one of them at most; those that were closed meanwhile are passed over.
#[derive(Debug, Default)]
pub(super) struct Line {
    few: VecDeque<ConnId>,
    /// How many of `few` have their turn before the next wait.
    turns: usize,
    bulk: VecDeque<ConnId>,
    /// The same of `bulk`.
    bulk_turns: usize,
    /// One bit for each index: whether the last read brought much.
    sends_much: Vec<u64>,
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.few.is_empty() && self.bulk.is_empty()
    }

    /// A turn begins.
    pub(super) fn begin(&mut self) {
        for line in [&mut self.few, &mut self.bulk] {
            if line.is_empty() {
                // A crowd may have been in it.
                line.shrink_to(KEPT);
            }
        }
        self.turns = self.few.len();
        self.bulk_turns = self.bulk.len().min(BULK_READS_MAX);
    }

    pub(super) fn push(&mut self, id: ConnId) {
        if self.has_much(id) { self.bulk.push_back(id) } else { self.few.push_back(id) }
    }

    /// Who is to be served now.
    pub(super) fn first(&self) -> Option<ConnId> {
        if self.turns > 0 {
            return self.few.front().copied();
        }
        self.bulk.front().copied().filter(|_| self.bulk_turns > 0)
    }

    /// The first has had its turn, and leaves the line.
    pub(super) fn pass(&mut self) {
        if self.turns > 0 {
            self.turns -= 1;
            self.few.pop_front();
        } else {
            self.bulk_turns = self.bulk_turns.saturating_sub(1);
            self.bulk.pop_front();
        }
    }

    /// Notes how much a read has brought. Whether that was much.
    pub(super) fn note(&mut self, id: ConnId, bytes: usize) -> bool {
        let is_much = bytes >= BULK_BYTES_MIN;
        if is_much != self.has_much(id) {
            self.set(id, is_much);
        }
        is_much
    }

    /// A connection is new: its index says nothing about it.
    pub(super) fn forget(&mut self, id: ConnId) {
        if self.has_much(id) {
            self.set(id, false);
        }
    }

    /// Bytes that have been touched for it.
    pub(super) const fn memory(&self) -> usize {
        self.sends_much.len() * size_of::<u64>()
    }

    fn has_much(&self, id: ConnId) -> bool {
        self.sends_much.get(id.index() as usize / 64).is_some_and(|word| word >> (id.index() % 64) & 1 != 0)
    }

    fn set(&mut self, id: ConnId, is_much: bool) {
        let (word, bit) = (id.index() as usize / 64, 1 << (id.index() % 64));
        if word >= self.sends_much.len() {
            self.sends_much.resize(word + 1, 0);
        }
        if is_much { self.sends_much[word] |= bit } else { self.sends_much[word] &= !bit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(index: u32) -> ConnId {
        ConnId::new(index, 0)
    }

    /// Serves all whose turn it is.
    fn turn(line: &mut Line) -> Vec<u32> {
        line.begin();
        let mut served = Vec::new();
        while let Some(id) = line.first() {
            served.push(id.index());
            line.pass();
        }
        served
    }

    #[test]
    fn who_says_little_does_not_wait_for_who_sends_much() {
        let mut line = Line::default();
        (0..100).for_each(|index| assert!(line.note(id(index), 60_000)));
        (0..100).for_each(|index| line.push(id(index)));
        assert!(!line.note(id(100), 66));
        line.push(id(100));
        let first = turn(&mut line);
        assert_eq!(first[..2], [100, 0], "the one with little comes first");
        assert_eq!(first.len(), 1 + BULK_READS_MAX, "and of the others a few");
        line.push(id(100));
        let second = turn(&mut line);
        assert_eq!(second[0], 100);
        assert_eq!(second[1] as usize, BULK_READS_MAX, "the next ones of the others");
    }

    #[test]
    fn who_sends_little_again_stands_with_the_others_again() {
        let mut line = Line::default();
        line.note(id(70), 60_000);
        line.note(id(70), 66);
        (0..20).for_each(|index| assert!(line.note(id(index), 60_000)));
        (0..20).for_each(|index| line.push(id(index)));
        line.push(id(70));
        assert_eq!(turn(&mut line)[0], 70);
        line.note(id(71), 60_000);
        line.forget(id(71));
        line.push(id(71));
        assert_eq!(turn(&mut line)[0], 71, "a new connection is not what its index was");
    }
}
