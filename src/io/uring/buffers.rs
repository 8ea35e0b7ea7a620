//! Memory that the kernel reads and writes: scratch buffers for single receives, a ring of buffers for multishot
//! receives, and the arena that holds bytes to send until they are submitted.
//!
//! All of it is mapped once, never moves, and is dropped after the rings (see the order of fields in `Uring`).

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::id::ConnId;
use crate::io::Lease;
use crate::io::sys::Region;

/// The bit in [`Lease::buffer`] that tells a ring's buffer from a scratch buffer.
const OF_RING: u32 = 1 << 31;

/// Buffers that whoever is readable receives into, shared by all rings.
#[derive(Debug)]
pub(super) struct Scratch {
    memory: Region,
    /// Used last, first: its lines are in the cache.
    free: Vec<u32>,
    owners: Vec<ConnId>,
}

impl Scratch {
    /// Enough that one submission receives from many connections, 1 MiB in all, touched as needed.
    pub(super) const COUNT: u32 = 32;
    /// Bytes in each.
    pub(super) const BYTES: u32 = 64 * 1024;

    pub(super) fn new() -> io::Result<Self> {
        let memory = Region::new(Self::COUNT as usize * Self::BYTES as usize)?;
        let owners = vec![ConnId::new(0, 0); Self::COUNT as usize];
        Ok(Self { memory, free: (0..Self::COUNT).rev().collect(), owners })
    }

    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    #[cfg(test)]
    pub(super) fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Takes a free buffer for `id`.
    pub(super) fn take(&mut self, id: ConnId) -> Option<(u32, *mut u8)> {
        let buffer = self.free.pop()?;
        self.owners[buffer as usize] = id;
        Some((buffer, self.memory.at((buffer * Self::BYTES) as usize, Self::BYTES as usize)))
    }

    /// For whom this buffer was taken.
    pub(super) fn owner(&self, buffer: u32) -> ConnId {
        self.owners[buffer as usize]
    }

    pub(super) fn give(&mut self, buffer: u32) {
        debug_assert!(!self.free.contains(&buffer), "a buffer is given back once");
        self.free.push(buffer);
    }

    fn at(&self, buffer: u32, start: u32, len: u32) -> *mut u8 {
        assert!(start + len <= Self::BYTES, "inside its buffer");
        self.memory.at((buffer * Self::BYTES + start) as usize, len as usize)
    }
}

/// A group of buffers from which the kernel takes one for each multishot receive (`io_uring_register_buf_ring`).
#[derive(Debug)]
pub(super) struct BufferRing {
    entries: Region,
    memory: Region,
    tail: u16,
}

impl BufferRing {
    /// Buffers, a power of two: a turn's worth of small messages. 512 KiB for each ring that has busy connections.
    pub(super) const COUNT: u16 = 256;
    /// Bytes in each.
    pub(super) const BYTES: u32 = 2048;
    /// The only group of its ring.
    pub(super) const GROUP: u16 = 0;

    /// Fills a ring that is to be registered.
    pub(super) fn new() -> io::Result<Self> {
        let count = usize::from(Self::COUNT);
        let entries = Region::new(count * size_of::<BufRingEntry>())?;
        let mut ring = Self { entries, memory: Region::new(count * Self::BYTES as usize)?, tail: 0 };
        (0..Self::COUNT).for_each(|buffer| ring.give(buffer));
        Ok(ring)
    }

    /// Where the kernel finds it.
    pub(super) fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    /// Gives a buffer (back) to the kernel.
    pub(super) fn give(&mut self, buffer: u16) {
        let at = usize::from(self.tail % Self::COUNT) * size_of::<BufRingEntry>();
        let address = self.at(buffer, 0, Self::BYTES) as u64;
        let entry = self.entries.at(at, size_of::<BufRingEntry>()).cast::<BufRingEntry>();
        // SAFETY: inside the region and aligned (pages, entries of 16 bytes); this entry lies between tail and head, so
        // the kernel does not look at it before the tail below says so. The region is zeroed, thus initialized.
        unsafe {
            (*entry).set_addr(address);
            (*entry).set_len(Self::BYTES);
            (*entry).set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the base points to a whole initialized ring; its tail is two aligned bytes that the kernel only reads.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr().cast()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn at(&self, buffer: u16, start: u32, len: u32) -> *mut u8 {
        assert!(start + len <= Self::BYTES, "inside its buffer");
        self.memory.at((u32::from(buffer) * Self::BYTES + start) as usize, len as usize)
    }
}

/// Where bytes that nobody wants go: they are discarded in the kernel, so no page of it is ever touched.
#[derive(Debug)]
pub(super) struct Sink(Region);

impl Sink {
    /// More than a receive queue holds by default (`net.ipv4.tcp_rmem`: 6 MiB).
    const BYTES: u32 = 8 * 1024 * 1024;

    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Region::new(Self::BYTES as usize)?))
    }

    pub(super) fn whole(&self) -> (*mut u8, u32) {
        (self.0.as_ptr(), Self::BYTES)
    }
}

/// Which buffer a lease is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lent {
    Scratch(u32),
    OfRing { ring: usize, buffer: u16 },
}

impl Lent {
    /// A lease of the first `len` bytes, with `more` behind them or not.
    pub(super) fn lease(self, len: u32, more: bool) -> Lease {
        let buffer = match self {
            Self::Scratch(buffer) => buffer,
            Self::OfRing { ring, buffer } => OF_RING | u32::try_from(ring).unwrap_or(0) << 16 | u32::from(buffer),
        };
        Lease { buffer, start: 0, len, more }
    }

    pub(super) fn of(lease: &Lease) -> Self {
        if lease.buffer & OF_RING == 0 {
            return Self::Scratch(lease.buffer);
        }
        let ring = (lease.buffer & !OF_RING) >> 16;
        Self::OfRing { ring: ring as usize, buffer: (lease.buffer & 0xffff) as u16 }
    }
}

/// The bytes of a lease of a scratch buffer.
pub(super) fn scratch_bytes<'a>(scratch: &'a mut Scratch, buffer: u32, lease: &Lease) -> &'a mut [u8] {
    let start = scratch.at(buffer, lease.start, lease.len);
    // SAFETY: inside the region (checked), initialized (mapped as zeros), and ours alone: the receive into this buffer
    // has completed and no other starts before the lease is released, which needs the borrow to be over.
    unsafe { std::slice::from_raw_parts_mut(start, lease.len as usize) }
}

/// The bytes of a lease of a ring's buffer.
pub(super) fn ring_bytes<'a>(ring: &'a mut BufferRing, buffer: u16, lease: &Lease) -> &'a mut [u8] {
    let start = ring.at(buffer, lease.start, lease.len);
    // SAFETY: as above; the kernel has taken this buffer out of the group and gets it back with `give` only.
    unsafe { std::slice::from_raw_parts_mut(start, lease.len as usize) }
}

/// Bytes that wait for the next submission.
#[derive(Debug)]
pub(super) struct Arena {
    memory: Region,
    used: usize,
}

impl Arena {
    /// Stays in a core's second-level cache.
    pub(super) const BYTES: usize = 256 * 1024;

    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { memory: Region::new(Self::BYTES)?, used: 0 })
    }

    /// Copies `bytes` in, unless there is no room.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Option<*const u8> {
        if bytes.len() > Self::BYTES - self.used {
            return None;
        }
        let start = self.memory.at(self.used, bytes.len());
        // SAFETY: the target is inside the region (checked) and in nobody's hands: it lies behind all that was put in
        // since the last submission. The source is borrowed from the caller, who cannot reach the region.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
        self.used += bytes.len();
        Some(start)
    }

    /// All of it was submitted, and so is with the kernel no longer.
    pub(super) const fn reset(&mut self) {
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_lease_names_its_buffer() {
        for lent in [Lent::Scratch(63), Lent::OfRing { ring: 4094, buffer: 255 }, Lent::OfRing { ring: 0, buffer: 0 }] {
            assert_eq!(Lent::of(&lent.lease(1, false)), lent);
        }
    }

    #[test]
    fn the_arena_takes_what_fits() {
        let mut arena = Arena::new().unwrap();
        assert!(arena.put(&vec![1; Arena::BYTES - 1]).is_some());
        assert!(arena.put(&[1, 2]).is_none());
        assert!(arena.put(&[1]).is_some());
        arena.reset();
        assert!(arena.put(&[1, 2]).is_some());
    }

    #[test]
    fn scratch_buffers_run_out_and_come_back() {
        let mut scratch = Scratch::new().unwrap();
        let id = ConnId::new(1, 1);
        let taken: Vec<_> = std::iter::from_fn(|| scratch.take(id)).collect();
        assert_eq!((taken.len(), scratch.has_free()), (Scratch::COUNT as usize, false));
        scratch.give(taken[5].0);
        assert_eq!(scratch.take(id).map(|(buffer, _)| buffer), Some(taken[5].0));
        assert_eq!(scratch.owner(taken[5].0), id);
    }
}
