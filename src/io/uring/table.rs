//! What the backend keeps per connection: eight bytes.
//!
//! ```text
//! place   ring, 12 bits | slot in that ring's table of direct descriptors, 20 bits
//! state   generation, low 16 bits | flags, 16 bits
//! ```
//!
//! The generation is a second check: an index is used again only after the last completion of its old connection has
//! returned, so a completion never meets a stranger.

use crate::id::ConnId;

/// A multishot poll for POLLIN is out.
pub(super) const POLL: u32 = 1;
/// A multishot receive is out.
pub(super) const MULTI: u32 = 1 << 1;
/// A receive into a scratch buffer is out.
pub(super) const RECV: u32 = 1 << 2;
/// A one-shot poll for POLLOUT is out.
pub(super) const POLL_OUT: u32 = 1 << 3;
/// The close of the descriptor is out.
pub(super) const CLOSE: u32 = 1 << 4;
/// Requests whose completions are awaited.
pub(super) const OUTSTANDING: u32 = POLL | MULTI | RECV | POLL_OUT | CLOSE | SHUTDOWN | DIAL;
/// Bytes (or an end) wait in the socket.
pub(super) const READABLE: u32 = 1 << 5;
/// It stands in the line for a scratch buffer.
pub(super) const QUEUED: u32 = 1 << 6;
/// The engine wants nothing from it.
pub(super) const PAUSED: u32 = 1 << 7;
/// The peer has ended its direction, or the transport failed: nothing more is received.
pub(super) const ENDED: u32 = 1 << 8;
/// The engine has closed it.
pub(super) const CLOSING: u32 = 1 << 9;
/// A poll has seen an end or an error behind the bytes: read on until it shows.
pub(super) const HUNG_UP: u32 = 1 << 10;
/// A shutdown of the sending side is out.
pub(super) const SHUTDOWN: u32 = 1 << 11;
/// Receives since it was last quiet, 0 to 3.
const BUSY: u32 = 0b11 << BUSY_SHIFT;
const BUSY_SHIFT: u32 = 12;
/// It is being opened: a chain of requests is out, or waits to be tried again.
pub(super) const DIAL: u32 = 1 << 14;

/// Its last receive brought much.
pub(super) const BULK: u32 = 1 << 15;

const FLAG_BITS: u32 = 16;
const SLOT_BITS: u32 = 20;
const GENERATION_MASK: u32 = (1 << (32 - FLAG_BITS)) - 1;
const VACANT: u32 = u32::MAX;

/// Rings at most: the place that is all ones means "vacant".
pub(super) const RINGS_MAX: usize = (1 << (32 - SLOT_BITS)) - 1;
/// A slot that no ring has: every request for it fails. For connections that found no place.
pub(super) const NO_SLOT: u32 = (1 << SLOT_BITS) - 1;
/// Slots of one ring at most.
pub(super) const SLOTS_MAX: u32 = NO_SLOT;

/// One connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    place: u32,
    state: u32,
}

const _: () = assert!(size_of::<Entry>() == 8, "the budget is 8 bytes of user memory per connection");

impl Entry {
    /// Index of its ring.
    pub(super) const fn ring(self) -> usize {
        (self.place >> SLOT_BITS) as usize
    }

    /// Its slot there.
    pub(super) const fn slot(self) -> u32 {
        self.place & NO_SLOT
    }

    /// Whether any of `flags` is set.
    pub(super) const fn has(self, flags: u32) -> bool {
        self.state & flags != 0
    }

    pub(super) const fn set(&mut self, flags: u32) {
        self.state |= flags;
    }

    pub(super) const fn clear(&mut self, flags: u32) {
        self.state &= !flags;
    }

    /// Receives since it was last quiet, at most 3.
    pub(super) const fn busy(self) -> u32 {
        (self.state & BUSY) >> BUSY_SHIFT
    }

    /// Counts a receive.
    pub(super) const fn work(&mut self) {
        if self.busy() < 3 {
            self.state += 1 << BUSY_SHIFT;
        }
    }

    /// Forgets the receives.
    pub(super) const fn rest(&mut self) {
        self.state &= !BUSY;
    }
}

/// All connections by the index of their id. Memory is touched up to the highest index that was in use.
#[derive(Debug)]
pub(super) struct Table(Vec<Entry>);

impl Table {
    pub(super) fn new(connections_max: usize) -> Self {
        Self(Vec::with_capacity(connections_max))
    }

    /// Bytes that have been touched.
    pub(super) const fn memory(&self) -> usize {
        self.0.len() * size_of::<Entry>()
    }

    /// Takes a connection in.
    pub(super) fn attach(&mut self, id: ConnId, ring: u32, slot: u32) {
        let index = id.index() as usize;
        if index >= self.0.len() {
            self.0.resize(index + 1, Entry { place: VACANT, state: 0 });
        }
        debug_assert!(self.0[index].place == VACANT, "{id} takes the place of one that is not closed");
        self.0[index] = Entry { place: ring << SLOT_BITS | slot, state: id.generation() << FLAG_BITS };
    }

    /// The connection, unless it is gone.
    pub(super) fn get(&mut self, id: ConnId) -> Option<&mut Entry> {
        let entry = self.0.get_mut(id.index() as usize)?;
        let same = entry.state >> FLAG_BITS == id.generation() & GENERATION_MASK;
        (same && entry.place != VACANT).then_some(entry)
    }

    /// The connection, unless it is gone or closing.
    pub(super) fn open(&mut self, id: ConnId) -> Option<&mut Entry> {
        self.get(id).filter(|entry| !entry.has(CLOSING))
    }

    /// Forgets a connection.
    pub(super) fn vacate(&mut self, id: ConnId) {
        if let Some(entry) = self.get(id) {
            entry.place = VACANT;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn an_entry_keeps_its_place_its_generation_and_its_flags_apart() {
        let mut table = Table::new(4);
        let id = ConnId::new(3, 0xff_ffff);
        table.attach(id, 4094, SLOTS_MAX - 1);
        let entry = table.get(id).unwrap();
        assert_eq!((entry.ring(), entry.slot(), entry.has(!0 >> 17)), (4094, SLOTS_MAX - 1, false));
        (0..5).for_each(|_| entry.work());
        entry.set(CLOSING | POLL);
        assert_eq!((entry.busy(), entry.has(OUTSTANDING), entry.has(PAUSED)), (3, true, false));
        entry.rest();
        entry.clear(POLL);
        assert_eq!((entry.busy(), entry.has(OUTSTANDING)), (0, false));
        assert!(table.open(id).is_none() && table.get(ConnId::new(3, 1)).is_none());
        table.vacate(id);
        assert!(table.get(id).is_none() && table.get(ConnId::new(0, 0)).is_none());
    }
}
