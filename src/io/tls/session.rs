//! What is kept of a connection that speaks TLS.

use std::mem;

use super::handshake::Handshake;
use super::traffic::Traffic;
use crate::id::ConnId;

/// How far a connection has come.
pub(super) enum Stage {
    /// It was dialled and does not stand yet.
    Dialled,
    /// Nothing was received.
    Silent,
    /// The handshake is under way, or is to begin with what has been received.
    Greeting(Option<Box<Handshake>>),
    /// A step of the handshake is being taken elsewhere, with so many bytes.
    Away(u32),
    /// Both sides have their keys.
    Open(Box<Traffic>),
    /// There is nothing to be said any more, but what is pending.
    Broken,
}

/// What is kept of a connection. While it is idle, both buffers are empty and have no memory.
pub(super) struct Session {
    pub(super) id: ConnId,
    /// HTTP is spoken inside.
    pub(super) http: bool,
    /// Which of the servers that are asked over TLS was dialled, from 1; 0 for one that was accepted.
    pub(super) asks: u8,
    pub(super) stage: Stage,
    flags: u16,
    /// The batch of its last send.
    pub(super) batch: u32,
    /// Bytes that its handshake was last counted with.
    pub(super) weight: u32,
    /// Received: records that are not whole yet.
    pub(super) input: Vec<u8>,
    /// Sealed, and not taken by the kernel.
    pub(super) pending: Vec<u8>,
}

// Beside it an idle connection has its keys, two of 72 bytes, and what makes new ones.
const _: () = assert!(size_of::<Session>() <= 96);

impl Session {
    /// In line for a step of its handshake, or away for one: it is not read meanwhile.
    pub(super) const QUEUED: u16 = 1;
    /// The shard does not want to receive.
    pub(super) const PAUSED: u16 = 1 << 1;
    /// The kernel took less than all, and has not told of room since.
    pub(super) const BLOCKED: u16 = 1 << 2;
    /// The last send was short: what waits here is kept small.
    pub(super) const SLOW: u16 = 1 << 3;
    /// The shard waits for room.
    pub(super) const WANTS_ROOM: u16 = 1 << 4;
    /// In the list of those that have more to do after a flush.
    pub(super) const LISTED: u16 = 1 << 5;
    /// The peer's end was told.
    pub(super) const ENDED: u16 = 1 << 6;
    /// The peer ended the transport within the handshake.
    pub(super) const CUT: u16 = 1 << 7;
    /// Our good-bye has been said.
    pub(super) const NOTIFIED: u16 = 1 << 8;
    /// The shard says nothing more: the transport follows once all has left.
    pub(super) const SHUT: u16 = 1 << 9;
    /// The shard has closed it: the transport follows once all has left.
    pub(super) const CLOSING: u16 = 1 << 10;
    /// The transport has been closed.
    pub(super) const CLOSED: u16 = 1 << 11;
    /// The transport does not work any more.
    pub(super) const DEAD: u16 = 1 << 12;
    /// That it failed was told.
    pub(super) const FAILED: u16 = 1 << 13;
    /// In line of those whose farewell may not take for ever.
    pub(super) const LINGERS: u16 = 1 << 14;
    /// Its handshake has waited for the peer: it is in the list of those.
    pub(super) const HALF: u16 = 1 << 15;

    pub(super) fn new(id: ConnId, http: bool) -> Self {
        let stage = Stage::Silent;
        Self { id, http, asks: 0, stage, flags: 0, batch: 0, weight: 0, input: Vec::new(), pending: Vec::new() }
    }

    /// One that is dialled.
    pub(super) fn dialled(id: ConnId, asks: u8) -> Self {
        Self { asks, stage: Stage::Dialled, ..Self::new(id, false) }
    }

    /// Whether any of these flags is set.
    pub(super) const fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    pub(super) const fn set(&mut self, flags: u16) {
        self.flags |= flags;
    }

    /// Clears them, and says whether any was set.
    pub(super) const fn take(&mut self, flags: u16) -> bool {
        let was = self.has(flags);
        self.flags &= !flags;
        was
    }

    /// Bytes that its handshake keeps, about: nothing once it is done.
    pub(super) fn handshake_bytes(&self) -> u32 {
        let state = match self.stage {
            Stage::Greeting(Some(_)) => Handshake::BYTES,
            Stage::Dialled | Stage::Silent | Stage::Greeting(None) => 0,
            Stage::Away(bytes) => bytes as usize,
            Stage::Open(_) | Stage::Broken => return 0,
        };
        u32::try_from(state + self.input.capacity()).unwrap_or(u32::MAX)
    }

    pub(super) const fn is_greeting(&self) -> bool {
        matches!(self.stage, Stage::Dialled | Stage::Silent | Stage::Greeting(_) | Stage::Away(_))
    }
}

/// All sessions, by the index in the ids: eight bytes for each connection, whether it speaks TLS or not, and none in a
/// server without TLS.
#[derive(Default)]
pub(super) struct Table {
    places: Vec<Option<Box<Session>>>,
    /// How many there are.
    sessions: usize,
}

impl Table {
    pub(super) fn insert(&mut self, session: Session) {
        let index = session.id.index() as usize;
        if index >= self.places.len() {
            self.places.resize_with(index + 1, || None);
        }
        let before = self.places[index].replace(Box::new(session));
        self.sessions += usize::from(before.is_none());
    }

    /// The connection of that name, if it speaks TLS.
    #[inline]
    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Session> {
        self.places.get_mut(id.index() as usize)?.as_deref_mut().filter(|session| session.id == id)
    }

    /// Bytes of the table and of its sessions, as if all were idle: with their keys, and no buffer.
    pub(super) const fn memory(&self) -> usize {
        let each = size_of::<Session>() + size_of::<Traffic>() + Traffic::RENEWAL_BYTES;
        self.places.capacity() * size_of::<Option<Box<Session>>>() + self.sessions * each
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Box<Session>> {
        self.get_mut(id)?;
        self.sessions -= 1;
        self.places.get_mut(id.index() as usize).and_then(mem::take)
    }
}
