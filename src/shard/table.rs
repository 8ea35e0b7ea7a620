//! The connections of a shard.

use slab::Slab;

use super::connection::{Connection, HOT_BYTES};
use crate::id::{ConnId, ListenerId};
use crate::session::Protocol;
use crate::wheel::{Store, Tick, Timer};

/// A slab of hot entries: connections, and streams beside them. The size for all connections is reserved at the start and
/// touched only as it is used.
#[derive(Debug)]
pub(super) struct Table {
    slots: Slab<Connection>,
    entries_max: usize,
    /// The generation of the next connection. One counter serves all slots: a slot is used again only after its last
    /// completion, so two of its connections can have the same generation only 2^24 connections apart.
    generation: u32,
    /// Indexes have been below this.
    index_end: u32,
}

impl Table {
    /// Room for so many is reserved; for more, up to `entries_max`, the slab grows, which for one of this size is the
    /// kernel's work and copies nothing (`mremap`).
    pub(super) fn new(reserved: usize, entries_max: usize) -> Self {
        Self { slots: Slab::with_capacity(reserved), entries_max, generation: 0, index_end: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes that have been touched.
    pub(super) const fn memory(&self) -> usize {
        self.index_end as usize * HOT_BYTES
    }

    /// Indexes are below this.
    pub(super) const fn index_end(&self) -> u32 {
        self.index_end
    }

    /// A slot for a new entry; `None` when there are as many as there may be.
    pub(super) fn insert(&mut self, listener: ListenerId, protocol: Protocol, now: Tick) -> Option<ConnId> {
        if self.slots.len() >= self.entries_max {
            return None;
        }
        self.generation = (self.generation + 1) & ((1 << ConnId::GENERATION_BITS) - 1);
        let index = self.slots.insert(Connection::new(self.generation, listener, protocol, now));
        let index = index_of(index);
        self.index_end = self.index_end.max(index + 1);
        Some(ConnId::new(index, self.generation))
    }

    /// All entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnId, &Connection)> {
        self.slots.iter().map(|(index, connection)| (ConnId::new(index_of(index), connection.generation()), connection))
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Connection> {
        self.get(id)?;
        self.slots.try_remove(id.index() as usize)
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Connection> {
        self.slots.get(id.index() as usize).filter(|connection| connection.generation() == id.generation())
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.slots.get_mut(id.index() as usize).filter(|connection| connection.generation() == id.generation())
    }

    /// The connection at an index, whichever it is.
    pub(super) fn at(&mut self, index: u32) -> Option<(ConnId, &mut Connection)> {
        let connection = self.slots.get_mut(index as usize)?;
        Some((ConnId::new(index, connection.generation()), connection))
    }
}

impl Store for Table {
    fn timer(&mut self, key: u32) -> &mut Timer {
        &mut self.slots[key as usize].timer
    }
}

fn index_of(index: usize) -> u32 {
    u32::try_from(index).expect("a table is far smaller than 2^32 slots")
}
