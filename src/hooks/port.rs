//! From a shard to the thread that tells: a bounded queue for each shard, and what found no room in it.
//!
//! A shard never waits: [`ShardEnd::tell`] takes an event or counts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{Counts, Event};
use crate::config::HookKind;
use crate::mailbox::{self, Doorbell, Receiver, Sender};

/// Events of one shard that may be on their way: a megabyte.
pub const QUEUED_MAX: usize = 8192;
/// Bytes of messages that they may keep.
pub const QUEUED_BYTES_MAX: usize = 8 << 20;

/// What both ends know.
#[derive(Debug, Default)]
struct Shared {
    /// Events that found no room, or may have happened, by kind.
    missed: [AtomicU64; HookKind::ALL.len()],
    /// Bytes of messages on their way.
    bytes: AtomicUsize,
}

/// A shard's end.
#[derive(Debug)]
pub struct ShardEnd {
    events: Sender<Event>,
    shared: Arc<Shared>,
    /// Something was told since the last ring.
    unrung: bool,
}

impl ShardEnd {
    /// Tells an event, or counts it where there is no room.
    pub fn tell(&mut self, event: Event) {
        let (kind, bytes, is_told) = (event.kind(), event.memory(), event.is_told());
        let has_room = bytes == 0 || self.take_room(bytes);
        self.unrung = true;
        if has_room && self.events.try_send(event).is_ok() {
            return;
        }
        if has_room {
            self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        if is_told {
            self.miss(kind);
        }
    }

    /// Counts an event of which nobody knows whether it has happened.
    pub fn miss(&mut self, kind: HookKind) {
        self.unrung = true;
        self.shared.missed[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn take_room(&self, bytes: usize) -> bool {
        let before = self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        // One message may always go, however long it is.
        let has_room = before == 0 || before + bytes <= QUEUED_BYTES_MAX;
        if !has_room {
            self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        has_room
    }

    /// Wakes the thread if something was told. To be called at the end of a turn.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.unrung) {
            self.events.ring();
        }
    }
}

/// The thread's end of one shard.
#[derive(Debug)]
pub struct ThreadEnd {
    events: Receiver<Event>,
    shared: Arc<Shared>,
}

impl ThreadEnd {
    /// The oldest event. Its message's room is free again.
    pub fn take(&mut self) -> Option<Event> {
        let event = self.events.try_recv()?;
        self.shared.bytes.fetch_sub(event.memory(), Ordering::Relaxed);
        Some(event)
    }

    /// Whether there is none, nor one that found no room. One that is being told may count already.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.shared.missed.iter().all(|events| events.load(Ordering::Relaxed) == 0)
    }

    /// What was counted instead of told since the last call.
    pub fn take_missed(&mut self) -> Counts {
        let mut counts = Counts::default();
        for kind in HookKind::ALL {
            counts.add(kind, self.shared.missed[kind as usize].swap(0, Ordering::Relaxed));
        }
        counts
    }
}

/// Two ends. The thread's doorbell is rung by what is told.
#[must_use]
pub fn pair(thread: Arc<Doorbell>) -> (ShardEnd, ThreadEnd) {
    let (events, told) = mailbox::channel(QUEUED_MAX, thread);
    let shared = Arc::<Shared>::default();
    (ShardEnd { events, shared: Arc::clone(&shared), unrung: false }, ThreadEnd { events: told, shared })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::hooks::What;
    use crate::hooks::testing::{message, occupied};

    #[test]
    fn what_finds_no_room_is_counted_and_nobody_waits() {
        let (mut shard, mut thread) = pair(Arc::default());
        (0..QUEUED_MAX + 3).for_each(|_| shard.tell(occupied("t")));
        shard.flush();
        let taken = std::iter::from_fn(|| thread.take()).count();
        assert!(!thread.is_empty(), "what is missed is to be told too");
        let missed = thread.take_missed();
        assert_eq!((taken, missed.of(HookKind::Occupied), missed.total()), (QUEUED_MAX, 3, 3));
        assert!(thread.is_empty() && thread.take_missed().is_empty(), "it is told once");
        shard.tell(occupied("t"));
        assert!(thread.take().is_some() && thread.take().is_none());
    }

    #[test]
    fn messages_have_room_of_their_own() {
        let (mut shard, mut thread) = pair(Arc::default());
        let long = vec![b'x'; QUEUED_BYTES_MAX / 3];
        let mut publish =
            |payload: &[u8]| shard.tell(Event { time_ms: 0, what: What::Published(message("t", payload), 0, None) });
        (0..4).for_each(|_| publish(&long));
        publish(b"short");
        assert_eq!(std::iter::from_fn(|| thread.take()).count(), 3);
        assert_eq!(thread.take_missed().of(HookKind::Publish), 2);
        // All of it is free again, and one may be longer than that.
        publish(&vec![b'x'; QUEUED_BYTES_MAX * 2]);
        assert!(thread.take().is_some());
        assert_eq!(thread.shared.bytes.load(Ordering::Relaxed), 0);
    }
}
