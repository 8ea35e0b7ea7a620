//! Packets that were read and wait for their turn.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;

/// Where the addresses and ports of both sides lie in a packet whose IPv4 header has no options.
const PARTIES: Range<usize> = 12..24;

/// A batch of packets, each in a place of its own behind the device's prefix.
#[derive(Debug)]
pub(super) struct Inbox {
    places: Box<[u8]>,
    place_bytes: usize,
    prefix: usize,
    /// Length of each packet of the batch, with its prefix.
    lens: Vec<usize>,
    /// How many of them are done with.
    taken: usize,
}

impl Inbox {
    /// Packets of a batch at most. Their places are used again and again, so they stay in the processor's cache.
    pub(super) const PACKETS: usize = 256;

    /// Places for packets of up to `mtu` bytes behind a prefix.
    pub(super) fn new(mtu: u16, prefix: usize) -> Self {
        let place_bytes = (prefix + usize::from(mtu)).next_multiple_of(64);
        let places = vec![0; place_bytes * Self::PACKETS].into_boxed_slice();
        Self { places, place_bytes, prefix, lens: Vec::with_capacity(Self::PACKETS), taken: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.taken == self.lens.len()
    }

    /// Packets of the batch, done with or not.
    pub(super) const fn len(&self) -> usize {
        self.lens.len()
    }

    /// Whether the batch takes no more.
    pub(super) const fn is_full(&self) -> bool {
        self.lens.len() == Self::PACKETS
    }

    /// Begins a new batch. Call it when this one is empty.
    pub(super) fn restart(&mut self) {
        debug_assert!(self.is_empty(), "packets would be lost");
        self.lens.clear();
        self.taken = 0;
    }

    /// Reads one packet into the batch, which is not full. `false`: there is none.
    pub(super) fn read(&mut self, mut from: impl Read) -> io::Result<bool> {
        let start = self.lens.len() * self.place_bytes;
        match from.read(&mut self.places[start..][..self.place_bytes]) {
            Ok(len) => self.lens.push(len),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Takes back what was read last.
    pub(super) fn pop(&mut self) -> Option<&[u8]> {
        let len = self.lens.pop()?;
        let start = self.lens.len() * self.place_bytes;
        Some(&self.places[start..][..len])
    }

    /// Puts a packet into the batch, which is not full.
    pub(super) fn push(&mut self, packet: &[u8]) {
        let start = self.lens.len() * self.place_bytes;
        let len = packet.len().min(self.place_bytes);
        self.places[start..][..len].copy_from_slice(&packet[..len]);
        self.lens.push(len);
    }

    /// The next packet of the batch: its place, and the packet without its prefix.
    pub(super) fn take(&mut self) -> Option<(usize, &[u8])> {
        let place = self.taken;
        let len = *self.lens.get(place)?;
        self.taken += 1;
        Some((place, self.places[place * self.place_bytes..][..len].get(self.prefix..).unwrap_or_default()))
    }

    /// Whether the packet behind the one that was taken last has the same sender and receiver.
    pub(super) fn is_followed(&self) -> bool {
        let parties = |place: usize| {
            let len = *self.lens.get(place)?;
            self.places[place * self.place_bytes..][..len].get(self.prefix..)?.get(PARTIES)
        };
        self.taken > 0 && parties(self.taken).is_some_and(|next| parties(self.taken - 1) == Some(next))
    }

    /// Part of a packet, counted without its prefix.
    ///
    /// # Panics
    /// When there is no such place, or the packet is shorter.
    pub(super) fn part(&mut self, place: usize, part: Range<usize>) -> &mut [u8] {
        &mut self.places[place * self.place_bytes + self.prefix..][part]
    }
}
