//! Receiving: the two ways a connection waits for bytes, and the step from one to the other.
//!
//! ```text
//!            attach               3 small receives since the last quieten
//!              |                  +-------------------------------------+
//!              v                  |                                     v
//!   +--> multishot poll -> readable -> receive into scratch --+   multishot receive
//!   |    (256 B in the kernel)        (one per turn, in line) |   (864 B, a group of buffers)
//!   |                                                         |         |
//!   +-------------------- nothing left -----------------------+   quieten, pause, no buffers, a buffer filled
//!   +-------------------------------------------------------------------+
//! ```
//!
//! The multishot receive was an experiment. Echo of 64-byte messages over loopback, CPU of the server's thread per
//! message, medians of 9 interleaved runs (Linux 6.18, 2 cores), beside the smallest loop that does the same work with
//! a multishot receive, a group of buffers and one system call per batch:
//!
//! | connections, in flight | bare loop | multishot receive | poll and receive |
//! |---|---|---|---|
//! | 64, 1 | 3.08 µs | 3.11 µs (1.01) | 3.14 µs (1.02) |
//! | 64, 16 | 0.191 µs | 0.195 µs (1.02) | 0.194 µs (1.02) |
//! | 64, 16 KiB | 0.069 µs | 0.059 µs (0.86) | 0.021 µs (0.30) |
//! | 1, 1 | 30.6 µs | 31.6 µs (1.03) | 32.1 µs (1.05) |
//!
//! So it wins by one or two hundredths where messages are small and come one at a time, and loses where much comes at
//! once, because its buffers are small (16 KiB ones mend that only in part: 0.026 µs). Hence only small receives count
//! as busy, and a receive that fills its buffer goes back to the poll.
//!
//! A poll completes like an edge: after it, receives follow until one leaves the socket empty. Completions of a ring
//! come in the order in which things happened, and a new multishot receive or poll looks at the socket before it
//! waits, so neither bytes nor their order are lost on the way over.

use std::io;

use super::buffers::{BufferRing, Lent, Scratch};
use super::request::{self, Done, Kind};
use super::table::{
    BULK, CLOSING, DIAL, ENDED, HUNG_UP, MULTI, OUTSTANDING, PAUSED, POLL, POLL_OUT, QUEUED, READABLE, RECV,
};
use super::{Completion, Uring};
use crate::id::ConnId;
use crate::io::BULK_BYTES_MIN;

/// Receives of up to this many bytes are better off with a multishot receive.
const SMALL_BYTES_MAX: u32 = 1536;

/// What a number is called. The limits on descriptors have no name of their own in the standard library.
fn kind_of(errno: i32) -> io::ErrorKind {
    match errno {
        libc::EMFILE | libc::ENFILE => io::ErrorKind::QuotaExceeded,
        libc::ENOBUFS => io::ErrorKind::OutOfMemory,
        errno => io::Error::from_raw_os_error(errno).kind(),
    }
}

impl Uring {
    /// Arms what the connection should wait with and does not; the last step of a close.
    pub(super) fn settle(&mut self, id: ConnId) {
        let promote_after = self.promote_after;
        let Some(entry) = self.table.get(id) else { return };
        if entry.has(CLOSING) {
            if !entry.has(OUTSTANDING) {
                self.table.vacate(id);
                self.done.push_back(Completion::Closed(id));
            }
            return;
        }
        if entry.has(ENDED | MULTI | DIAL) {
            return;
        }
        let (ring, slot) = (entry.ring(), entry.slot());
        let busy = entry.busy() >= promote_after && !entry.has(PAUSED | RECV);
        if busy && self.rings[ring].with_buffers().is_err() {
            // No memory for it, which costs some speed and nothing else.
            self.promote_after = u32::MAX;
            return self.settle(id);
        }
        if busy {
            entry.set(MULTI);
            entry.clear(READABLE);
            let polled = entry.has(POLL);
            if polled {
                self.push(ring, &request::cancel(Kind::Poll, Kind::CancelPoll, id));
            }
            self.push(ring, &request::recv_multi(slot, BufferRing::GROUP, id));
        } else if !entry.has(POLL) {
            entry.set(POLL);
            self.push(ring, &request::poll(slot, id));
        }
    }

    /// Takes a busy connection back to a poll.
    pub(super) fn demote(&mut self, id: ConnId) {
        let Some(entry) = self.table.open(id) else { return };
        entry.rest();
        if entry.has(MULTI) {
            let ring = entry.ring();
            self.push(ring, &request::cancel(Kind::Multi, Kind::CancelMulti, id));
        }
    }

    /// Puts a readable connection in the line for a buffer.
    pub(super) fn enqueue(&mut self, id: ConnId) {
        let Some(entry) = self.table.open(id) else { return };
        if entry.has(READABLE) && !entry.has(QUEUED | RECV | MULTI | PAUSED | ENDED) {
            entry.set(QUEUED);
            if entry.has(BULK) { self.bulk.push_back(id) } else { self.ready.push_back(id) }
        }
    }

    /// Starts receives for those in the line, as long as there are buffers.
    pub(super) fn service(&mut self) {
        self.dial_again();
        self.cancel_again();
        while self.scratch.has_free() {
            let Some((id, is_bulk)) = self.next_in_line() else { return };
            let Some(entry) = self.table.open(id) else { continue };
            entry.clear(QUEUED);
            if !entry.has(READABLE) || entry.has(RECV | MULTI | PAUSED | ENDED) {
                continue;
            }
            self.bulk_turns -= usize::from(is_bulk);
            entry.clear(READABLE);
            entry.set(RECV);
            let (ring, slot) = (entry.ring(), entry.slot());
            if let Some((buffer, start)) = self.scratch.take(id) {
                self.push(ring, &request::recv(slot, start, Scratch::BYTES, buffer));
            }
        }
    }

    /// Who has a buffer next, and whether it sends much. Of those a few come between two waits: what they bring takes long,
    /// and nobody with little should stand behind all of it. They get on in each turn, so nobody starves them.
    fn next_in_line(&mut self) -> Option<(ConnId, bool)> {
        let few = self.ready.pop_front().map(|id| (id, false));
        few.or_else(|| (self.bulk_turns > 0).then(|| self.bulk.pop_front()).flatten().map(|id| (id, true)))
    }

    /// Whether somebody is in line who may be served before the next wait.
    pub(super) fn has_turns(&self) -> bool {
        !self.ready.is_empty() || self.bulk_turns > 0 && !self.bulk.is_empty()
    }

    pub(super) fn on_poll(&mut self, done: &Done) {
        let id = done.id();
        let Some(entry) = self.table.get(id) else { return };
        if !done.more() {
            entry.clear(POLL);
        }
        match done.errno() {
            0 => {
                entry.set(if done.hung_up() { READABLE | HUNG_UP } else { READABLE });
                self.enqueue(id);
            }
            libc::ECANCELED => {}
            errno => self.fail(id, errno),
        }
        if !done.more() {
            self.settle(id);
        }
    }

    pub(super) fn on_recv(&mut self, done: &Done) {
        let Some(buffer) = u32::try_from(done.about).ok().filter(|&buffer| buffer < Scratch::COUNT) else { return };
        let id = self.scratch.owner(buffer);
        if let Some(entry) = self.table.get(id) {
            entry.clear(RECV);
            // A reset behind the bytes leaves the socket "empty"; an end does not.
            if done.nonempty() || done.result > 0 && entry.has(HUNG_UP) {
                entry.set(READABLE);
            }
        }
        self.received(id, Lent::Scratch(buffer), done);
        self.settle(id);
        self.enqueue(id);
    }

    pub(super) fn on_multi(&mut self, ring: usize, done: &Done) {
        let id = done.id();
        if let Some(entry) = self.table.get(id).filter(|_| !done.more()) {
            entry.clear(MULTI);
            if done.errno() == libc::ENOBUFS {
                // Everybody's buffers are lent; go on in the line for a scratch buffer.
                entry.rest();
            }
        }
        match done.buffer() {
            Some(buffer) => self.received(id, Lent::OfRing { ring, buffer }, done),
            None if done.result == 0 => self.ended(id),
            None => match done.errno() {
                libc::ENOBUFS | libc::ECANCELED | libc::EAGAIN | libc::EINTR => {}
                errno => self.fail(id, errno),
            },
        }
        if !done.more() {
            self.settle(id);
        }
    }

    /// A receive has completed with this buffer: it is lent on or given back.
    fn received(&mut self, id: ConnId, lent: Lent, done: &Done) {
        let entry = self.table.open(id).filter(|entry| !entry.has(ENDED));
        if let Some(entry) = entry.filter(|_| done.result > 0) {
            let len = done.result.unsigned_abs();
            if len as usize >= BULK_BYTES_MIN {
                entry.set(BULK)
            } else {
                entry.clear(BULK)
            }
            if len <= SMALL_BYTES_MAX {
                entry.work()
            } else {
                entry.rest()
            }
            self.done.push_back(Completion::Received(id, lent.lease(len, done.nonempty())));
            if matches!(lent, Lent::OfRing { .. }) && len == BufferRing::BYTES {
                self.demote(id);
            }
            return;
        }
        self.give(lent);
        match done.errno() {
            0 if done.result == 0 => self.ended(id),
            0 | libc::EAGAIN | libc::EINTR | libc::ECANCELED | libc::ENOBUFS => {}
            errno => self.fail(id, errno),
        }
    }

    /// Gives a buffer back.
    pub(super) fn give(&mut self, lent: Lent) {
        match lent {
            Lent::Scratch(buffer) => self.scratch.give(buffer),
            Lent::OfRing { ring, buffer } => {
                if let Some(buffers) = self.rings.get_mut(ring).and_then(|ring| ring.buffers.as_mut()) {
                    buffers.give(buffer);
                }
            }
        }
    }

    fn ended(&mut self, id: ConnId) {
        if let Some(entry) = self.table.open(id).filter(|entry| !entry.has(ENDED)) {
            entry.set(ENDED);
            self.done.push_back(Completion::PeerClosed(id));
        }
    }

    pub(super) fn fail(&mut self, id: ConnId, errno: i32) {
        if let Some(entry) = self.table.open(id).filter(|entry| !entry.has(ENDED)) {
            entry.set(ENDED);
            self.done.push_back(Completion::Failed(id, kind_of(errno)));
        }
    }

    /// Cancels again what was not found: either the last completion is on its way, or the request was between two waits.
    /// Not from within a completion: both need the kernel's deferred work, which runs between two looks at completions
    /// only, and where thousands are cancelled, each look would find the failures of the cancellations that the one
    /// before it has queued.
    fn cancel_again(&mut self) {
        for (cancel, id) in std::mem::take(&mut self.missed) {
            match cancel {
                Kind::CancelPoll => self.cancel_unless_over(id, POLL, Kind::Poll, cancel),
                Kind::CancelMulti => self.cancel_unless_over(id, MULTI, Kind::Multi, cancel),
                Kind::CancelPollOut => self.cancel_unless_over(id, POLL_OUT, Kind::PollOut, cancel),
                Kind::CancelDial => self.cancel_unless_over(id, DIAL, Kind::Dial, cancel),
                _ => {}
            }
        }
    }

    fn cancel_unless_over(&mut self, id: ConnId, flag: u32, kind: Kind, cancel: Kind) {
        let Some(entry) = self.table.get(id).filter(|entry| entry.has(flag)) else { return };
        let wanted = match flag {
            POLL => !entry.has(CLOSING | MULTI),
            MULTI => !entry.has(CLOSING | PAUSED) && entry.busy() >= self.promote_after,
            _ => !entry.has(CLOSING),
        };
        if !wanted {
            let ring = entry.ring();
            self.push(ring, &request::cancel(kind, cancel, id));
        }
    }
}
