//! The rest of a connection's life: room to send, pauses, half close, and the end.

use super::accept::place;
use super::request::{self, Done, Kind};
use super::table::{CLOSE, CLOSING, DIAL, ENDED, MULTI, NO_SLOT, PAUSED, POLL, POLL_OUT, SHUTDOWN};
use super::{Completion, Ending, Uring};
use crate::id::ConnId;

impl Uring {
    pub(super) fn poll_out(&mut self, id: ConnId) {
        // A dial ends with word of room anyway.
        let Some(entry) = self.table.open(id).filter(|entry| !entry.has(POLL_OUT | DIAL)) else { return };
        entry.set(POLL_OUT);
        let (ring, slot) = (entry.ring(), entry.slot());
        self.push(ring, &request::poll_out(slot, id));
    }

    /// Errors count as room too: the next send tells what is wrong.
    pub(super) fn on_poll_out(&mut self, done: &Done) {
        let id = done.id();
        let Some(entry) = self.table.get(id) else { return };
        entry.clear(POLL_OUT);
        if entry.has(CLOSING) {
            return self.settle(id);
        }
        self.done.push_back(Completion::Writable(id));
    }

    pub(super) fn pause_receive(&mut self, id: ConnId) {
        let Some(entry) = self.table.open(id) else { return };
        entry.set(PAUSED);
        self.demote(id);
    }

    pub(super) fn resume_receive(&mut self, id: ConnId) {
        let Some(entry) = self.table.open(id) else { return };
        entry.clear(PAUSED);
        self.settle(id);
        self.enqueue(id);
    }

    pub(super) fn shutdown_send(&mut self, id: ConnId) {
        let Some(entry) = self.table.open(id).filter(|entry| !entry.has(SHUTDOWN)) else { return };
        entry.set(SHUTDOWN);
        let (ring, slot) = (entry.ring(), entry.slot());
        self.push(ring, &request::shutdown(slot, id));
    }

    /// Closes what could not be closed before.
    pub(super) fn on_shutdown(&mut self, done: &Done) {
        let id = done.id();
        let Some(entry) = self.table.get(id) else { return };
        entry.clear(SHUTDOWN);
        if entry.has(CLOSING) {
            self.close_slot(id);
        }
    }

    /// Cancels what is out and closes the descriptor. The socket itself ends when the last request lets go of it.
    pub(super) fn begin_close(&mut self, id: ConnId, ending: Ending) {
        let Some(entry) = self.table.open(id) else { return };
        entry.set(CLOSING | CLOSE);
        let entry = *entry;
        let (ring, slot) = (entry.ring(), entry.slot());
        let outstanding = [
            (POLL, Kind::Poll, Kind::CancelPoll),
            (MULTI, Kind::Multi, Kind::CancelMulti),
            (POLL_OUT, Kind::PollOut, Kind::CancelPollOut),
            (DIAL, Kind::Dial, Kind::CancelDial),
        ];
        for (flag, kind, cancel) in outstanding {
            if entry.has(flag) {
                self.push(ring, &request::cancel(kind, cancel, id));
            }
        }
        if ending == Ending::Reset {
            self.push(ring, &request::no_linger(slot));
        }
        self.close_slot(id);
    }

    /// Closes the descriptor of a closing connection, or leaves that to the completion of what must come before.
    pub(super) fn close_slot(&mut self, id: ConnId) {
        let Some(entry) = self.table.get(id).copied() else { return };
        // The kernel runs a shutdown on a thread of its own, and only there looks at who has the slot; a link of a
        // chain looks when its turn comes: it must not be the next connection.
        if entry.has(SHUTDOWN | DIAL) {
            return;
        }
        let (ring, slot) = (entry.ring(), entry.slot());
        // The kernel answers unread bytes with a reset, which can overtake what was sent.
        if !entry.has(ENDED) {
            let (start, len) = self.sink.whole();
            self.push(ring, &request::discard(slot, start, len));
        }
        self.push(ring, &request::close(slot, id));
    }

    pub(super) fn on_close(&mut self, ring: usize, done: &Done) {
        let Some(entry) = self.table.get(done.id()) else { return };
        entry.clear(CLOSE);
        let slot = entry.slot();
        if slot != NO_SLOT {
            self.freed(ring, slot);
        }
        self.settle(done.id());
    }

    /// Resets a connection that has no id.
    pub(super) fn refuse_socket(&mut self, socket: u64) {
        let (ring, slot) = place(socket);
        self.push(ring, &request::no_linger(slot));
        self.push(ring, &request::refuse(slot));
    }
}
