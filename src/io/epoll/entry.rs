//! What the backend remembers of each connection.

use std::net::TcpStream;

use crate::id::ConnId;

/// One connection: its socket, its generation and its flags.
#[derive(Debug, Default)]
pub(super) struct Entry {
    stream: Option<TcpStream>,
    /// Generation in the upper 24 bits, flags in the lower eight.
    word: u32,
}

// 4 for the descriptor (whose -1 is `None`), 4 for the word: eight entries on one cache line.
const _: () = assert!(size_of::<Entry>() == 8);

impl Entry {
    /// The shard does not want to receive.
    pub(super) const PAUSED: u32 = 1;
    /// There was an edge, and what it told of has not been read to the end.
    pub(super) const READABLE: u32 = 1 << 1;
    /// The peer will send no more, or the socket has an error: read until that shows.
    pub(super) const HUNG_UP: u32 = 1 << 2;
    /// The end was reported, nothing is read any more.
    pub(super) const ENDED: u32 = 1 << 3;
    /// The last send was short, and no room has been seen since.
    pub(super) const BLOCKED: u32 = 1 << 4;
    /// The shard waits for room.
    pub(super) const WANTS_ROOM: u32 = 1 << 5;
    /// Room makes an edge.
    pub(super) const WATCHED_FOR_ROOM: u32 = 1 << 6;
    /// In line to be served.
    pub(super) const QUEUED: u32 = 1 << 7;

    const FLAGS: u32 = 0xff;

    pub(super) const fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref()
    }

    /// Whether any of these flags is set.
    pub(super) const fn has(&self, flags: u32) -> bool {
        self.word & flags != 0
    }

    pub(super) const fn set(&mut self, flags: u32) {
        self.word |= flags & Self::FLAGS;
    }

    pub(super) const fn clear(&mut self, flags: u32) {
        self.word &= !(flags & Self::FLAGS);
    }

    /// Whether there is something to read that the shard wants.
    pub(super) const fn wants_read(&self) -> bool {
        self.word & (Self::READABLE | Self::PAUSED | Self::ENDED) == Self::READABLE
    }

    /// Whether there is anything to tell the shard.
    pub(super) const fn has_work(&self) -> bool {
        self.wants_read() || self.word & (Self::WANTS_ROOM | Self::BLOCKED) == Self::WANTS_ROOM
    }

    const fn is_of(&self, id: ConnId) -> bool {
        self.stream.is_some() && self.word >> 8 == id.generation()
    }
}

/// All entries, by the index in the ids. Reserved at once, touched one by one: ids come from a slab, which fills from
/// below.
#[derive(Debug)]
pub(super) struct Table {
    entries: Vec<Entry>,
}

impl Table {
    pub(super) fn with_capacity(connections_max: usize) -> Self {
        Self { entries: Vec::with_capacity(connections_max) }
    }

    /// Bytes that have been touched.
    pub(super) const fn memory(&self) -> usize {
        self.entries.len() * size_of::<Entry>()
    }

    /// The connection of that name; `None` when it is closed, even if its index has a new owner.
    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Entry> {
        self.entries.get_mut(id.index() as usize).filter(|entry| entry.is_of(id))
    }

    /// Names a socket. Whatever had the index before is closed.
    pub(super) fn insert(&mut self, id: ConnId, stream: TcpStream) -> &mut Entry {
        let index = id.index() as usize;
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, Entry::default);
        }
        let entry = &mut self.entries[index];
        debug_assert!(entry.stream.is_none(), "{id} comes before its index was free");
        *entry = Entry { stream: Some(stream), word: id.generation() << 8 };
        entry
    }

    /// Takes a connection out, and says whether its end was reported.
    pub(super) fn remove(&mut self, id: ConnId) -> Option<(TcpStream, bool)> {
        let entry = self.get_mut(id)?;
        let ended = entry.has(Entry::ENDED);
        entry.stream.take().map(|stream| (stream, ended))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot get a socket has failed")]

    use std::net::TcpListener;

    use super::*;

    fn socket() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    }

    #[test]
    fn flags_leave_the_generation_alone() {
        let mut table = Table::with_capacity(4);
        let id = ConnId::new(2, 0xff_ffff);
        let entry = table.insert(id, socket());
        entry.set(u32::MAX);
        assert!(table.get_mut(id).unwrap().has(Entry::QUEUED));
        table.get_mut(id).unwrap().clear(u32::MAX);
        assert!(!table.get_mut(id).unwrap().has(u32::from(u8::MAX)));
        assert!(table.get_mut(ConnId::new(2, 0)).is_none());
    }

    #[test]
    fn an_old_name_does_not_reach_the_new_owner_of_its_index() {
        let mut table = Table::with_capacity(1);
        table.insert(ConnId::new(0, 1), socket()).set(Entry::ENDED);
        assert!(table.remove(ConnId::new(0, 1)).unwrap().1);
        assert!(table.remove(ConnId::new(0, 1)).is_none());
        table.insert(ConnId::new(0, 2), socket());
        assert!(table.get_mut(ConnId::new(0, 1)).is_none());
        assert!(!table.get_mut(ConnId::new(0, 2)).unwrap().has(Entry::ENDED));
    }
}
