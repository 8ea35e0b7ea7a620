//! The dynamic table (RFC 7541 section 2.3.2): the fields that a peer wants to name by an index later on.

use std::collections::VecDeque;

/// What each entry costs beside its bytes (section 4.1).
pub(super) const ENTRY_OVERHEAD: usize = 32;

/// Entries, the newest last, and their bytes behind each other: `bytes[start..]` holds them without a gap. Entries that are
/// dropped only move `start`; the bytes move down when there is no room behind them, all of them at most: 4 KiB.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
    start: usize,
    /// How many bytes have been moved out below `bytes`, ever. It wraps, as entries' places do.
    base: u32,
    /// The size by section 4.1.
    size: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u32,
    name_bytes: u16,
    value_bytes: u16,
}

impl Entry {
    const fn bytes(self) -> usize {
        self.name_bytes as usize + self.value_bytes as usize
    }
}

impl Table {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What it keeps in memory.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.entries.capacity() * size_of::<Entry>() + self.bytes.capacity()
    }

    /// The name and value of an entry; the newest is 0.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let entry = self.entries.get(self.entries.len().checked_sub(index + 1)?)?;
        let at = entry.at.wrapping_sub(self.base) as usize;
        Some(self.bytes.get(at..at + entry.bytes())?.split_at(usize::from(entry.name_bytes)))
    }

    /// Drops the oldest entries until the others have no more than `limit`.
    pub(super) fn shrink(&mut self, limit: usize) {
        while self.size > limit {
            let Some(entry) = self.entries.pop_front() else { return };
            self.size -= entry.bytes() + ENTRY_OVERHEAD;
            self.start += entry.bytes();
        }
    }

    /// Adds an entry and drops old ones to make room for it. One that is larger than the limit leaves the table empty
    /// (section 4.4).
    pub(super) fn add(&mut self, name: &[u8], value: &[u8], limit: usize) {
        let bytes = name.len() + value.len();
        let Some(left) = limit.checked_sub(bytes + ENTRY_OVERHEAD) else { return self.shrink(0) };
        let (Ok(name_bytes), Ok(value_bytes)) = (u16::try_from(name.len()), u16::try_from(value.len())) else {
            return self.shrink(0);
        };
        self.shrink(left);
        self.make_room(bytes);
        #[allow(clippy::cast_possible_truncation, reason = "it wraps, and differences are below 2^17")]
        let at = self.base.wrapping_add(self.bytes.len() as u32);
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.entries.push_back(Entry { at, name_bytes, value_bytes });
        self.size += bytes + ENTRY_OVERHEAD;
    }

    /// Makes room for so many bytes behind the others: where dropped ones were, and only then by growing, to just enough,
    /// since most tables get their few entries at once and stay as they are.
    fn make_room(&mut self, bytes: usize) {
        if self.bytes.capacity() - self.bytes.len() >= bytes {
            return;
        }
        self.bytes.drain(..self.start);
        #[allow(clippy::cast_possible_truncation, reason = "at most the limit, which is below 2^16")]
        let moved = self.start as u32;
        self.base = self.base.wrapping_add(moved);
        self.start = 0;
        if self.bytes.capacity() - self.bytes.len() < bytes {
            self.bytes.reserve_exact(bytes.next_multiple_of(64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_entry_is_the_first() {
        let mut table = Table::default();
        table.add(b"a", b"1", 4096);
        table.add(b"bb", b"", 4096);
        assert_eq!(table.get(0), Some((&b"bb"[..], &b""[..])));
        assert_eq!(table.get(1), Some((&b"a"[..], &b"1"[..])));
        assert_eq!(table.get(2), None);
        assert_eq!(table.get(usize::MAX - 1), None);
        assert_eq!(table.size, 34 + 34);
    }

    #[test]
    fn entries_go_oldest_first_when_there_is_no_room() {
        // Section 4.4.
        let mut table = Table::default();
        for (name, value) in [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")] {
            table.add(name, value, 34 * 2);
        }
        assert_eq!(table.get(1), Some((&b"b"[..], &b"2"[..])));
        assert_eq!(table.get(2), None);
        table.add(&[b'x'; 40], b"", 68);
        assert!(table.is_empty() && table.size == 0, "it is larger than the table: that becomes empty");
    }

    #[test]
    fn it_is_as_a_list_of_pairs_and_its_memory_is_bounded() {
        let (mut table, mut model) = (Table::default(), VecDeque::<(Vec<u8>, Vec<u8>)>::new());
        let mut random = crate::codec::websocket::fuzz::random::Random(7);
        for _ in 0..20_000 {
            let (name, value) = (random.bytes(40), random.bytes(200));
            table.add(&name, &value, 1024);
            model.push_front((name, value));
            let size = |model: &VecDeque<(Vec<u8>, Vec<u8>)>| -> usize {
                model.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
            };
            while size(&model) > 1024 {
                model.pop_back();
            }
            assert_eq!(table.size, size(&model));
            assert!(table.memory() <= 1024 + 512 + 256, "{}", table.memory());
            for (index, (name, value)) in model.iter().enumerate() {
                assert_eq!(table.get(index), Some((&name[..], &value[..])));
            }
            assert_eq!(table.get(model.len()), None);
        }
    }
}
