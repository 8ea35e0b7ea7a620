//! Sending: what connections want sent becomes at most one send per connection and batch, and what the kernel does not
//! take waits in an outbox.

use super::Shard;
use super::connection::{Connection, Flags};
use super::core::{Core, Send, Sent};
use super::pace::Pace;
use crate::buf::Next;
use crate::close::CloseReason;
use crate::id::ConnId;
use crate::io::{Backend, Out, Short};
use crate::rule::Limit;
use crate::time::Clock;

impl<B: Backend> Shard<B> {
    /// What the backend may owe at most, in small sends: 4 µs each, or 20 among a million cold sockets whose peers are on
    /// this machine. At most a millisecond; a system call more for so many sends costs a hundredth of them.
    pub(super) const OWED_MAX: usize = 48;
    /// Bytes of connections' own frames in one batch.
    const OUT_BYTES_MAX: usize = 256 * 1024;
    /// Frames of one connection that are sent from where they were written; more goes through its outbox.
    const STRAIGHT_BYTES_MAX: usize = 64 * 1024;
    /// Batches that one turn sends from outboxes before it looks at its input again.
    const ROUNDS_MAX: usize = 4;

    /// Makes `id` the connection at hand: what the core writes from here on is for it.
    pub(super) fn begin_output(&mut self, id: ConnId) {
        if self.core.corked != Some(id) {
            self.uncork();
            self.core.out_start = self.core.out.len();
        }
        self.core.begin_looking();
    }

    /// Sends what the core has written for the connection at hand, but not at once: bytes of one connection often come
    /// in several pieces, and the answers to all of them are sent as one.
    pub(super) fn write(&mut self, id: ConnId) {
        if self.core.output().is_empty() {
            return;
        }
        if self.core.flag(id, Flags::BORNE) {
            return self.core.take_output_of_stream(id);
        }
        self.core.corked = Some(id);
        if self.core.output().len() >= Self::STRAIGHT_BYTES_MAX {
            self.uncork();
        }
    }

    /// Gives the frames of the connection at hand to the backend, or puts them in its outbox.
    pub(super) fn uncork(&mut self) {
        let core = &mut self.core;
        let Some(id) = core.corked.take() else { return };
        let (start, end) = (core.out_start, core.out.len());
        core.out_start = end;
        core.metrics.bytes_sent_total.add((end - start) as u64);
        if let Some(tracer) = &mut core.tracer {
            tracer.bytes("sent", id, end - start);
        }
        let Some(connection) = core.table.get_mut(id) else { return };
        let straight =
            connection.outbox.is_none() && connection.batch != core.batch && end - start <= Self::STRAIGHT_BYTES_MAX;
        if !straight {
            core.queue_output(id, start);
            return;
        }
        connection.batch = core.batch;
        let tag = u32::try_from(core.sends.len()).unwrap_or(u32::MAX);
        core.sends.push(Send { id, what: Sent::Bytes { start, end } });
        core.owed += weight_of(end - start);
        self.backend.send(id, Out::Bytes(&core.out[start..end]), tag);
        if core.owed >= Self::OWED_MAX || end >= Self::OUT_BYTES_MAX {
            self.flush_sends();
        }
    }

    /// Has the backend do what it owes, when that is enough to be worth a system call. Whoever calls this must be able to
    /// bear that connections begin to close.
    pub(super) fn pay(&mut self, pace: &mut Pace<'_, impl Clock>) {
        if self.core.owed >= Self::OWED_MAX {
            self.flush_sends();
            pace.look();
        }
    }

    /// Sends from the outboxes, and takes closing connections further.
    pub(super) fn egress(&mut self, pace: &mut Pace<'_, impl Clock>) {
        for _ in 0..Self::ROUNDS_MAX {
            if self.core.sends.is_empty() {
                // Numbers come round: a connection may have its last send in a batch with this number, long ago.
                self.core.next_batch();
            }
            for _ in 0..self.core.dirty.len() {
                if !pace.more() {
                    break;
                }
                let Some(id) = self.core.dirty.pop_front() else { break };
                self.send_from_outbox(id);
            }
            self.flush_sends();
            self.take_closing_further(pace);
            if pace.is_over() || (self.core.dirty.is_empty() && self.core.sends.is_empty()) {
                break;
            }
        }
        // What is owed belongs to this turn: the next wait should be one.
        self.flush_sends();
    }

    fn send_from_outbox(&mut self, id: ConnId) {
        if self.core.owed >= Self::OWED_MAX {
            self.flush_sends();
        }
        let core = &mut self.core;
        let Some(connection) = core.table.get_mut(id) else { return };
        let Some(outbox) = connection.outbox.as_deref_mut() else { return };
        if connection.batch == core.batch {
            core.dirty.push_back(id);
            return;
        }
        outbox.listed = false;
        if outbox.waits || outbox.is_empty() {
            return;
        }
        if connection.flags.has(Flags::BORNE) {
            return self.core.pump(id);
        }
        connection.batch = core.batch;
        let tag = u32::try_from(core.sends.len()).unwrap_or(u32::MAX);
        let next = outbox.next(&mut core.gather);
        core.sends.push(Send { id, what: Sent::Outbox { bytes: next.len() } });
        core.owed += weight_of(next.len());
        match next {
            Next::Bytes(bytes) => self.backend.send(id, Out::Bytes(bytes), tag),
            Next::Shared(image) => self.backend.send(id, Out::Shared(&image.bytes, image.start, image.end), tag),
        }
    }

    /// Runs the batch and keeps what was not taken.
    pub(super) fn flush_sends(&mut self) {
        self.uncork();
        if self.core.owed == 0 {
            return;
        }
        self.core.owed = 0;
        self.backend.flush();
        if self.core.sends.is_empty() {
            return;
        }
        while let Some(Short { tag, sent }) = self.backend.next_short() {
            let Some(send) = self.core.sends.get_mut(tag as usize) else { continue };
            let (id, what) = (send.id, std::mem::replace(&mut send.what, Sent::Done));
            self.core.metrics.short_sends_total.add(1);
            if self.core.flag(id, Flags::ENDED) {
                if let Sent::Share { index } = what {
                    self.core.take_back(id, index, sent.unwrap_or(0));
                }
                continue;
            }
            match sent {
                Ok(taken) => {
                    self.core.keep_rest(id, what, taken);
                    self.backend.want_writable(id);
                    self.press(id);
                }
                Err(_) => {
                    if let Sent::Share { index } = what {
                        self.core.take_back(id, index, 0);
                    }
                    self.core.broken.push(id);
                }
            }
        }
        self.core.finish_batch();
        while let Some(id) = self.core.broken.pop() {
            self.core.set(id, Flags::BROKEN);
            self.begin_close(id, CloseReason::TransportError, "send failed");
        }
    }

    /// Stops reading a connection whose answers are not read, at the latest when its queue is a quarter full. When the
    /// process has no room left, whoever has more than a fair share of it goes, at once: a good-bye would wait behind
    /// all that is queued.
    pub(super) fn press(&mut self, id: ConnId) {
        let high = self.core.limits.queue_bytes_max / 4;
        let control_replies_max = self.core.limits.control_replies_max;
        let (spent, share) = (self.core.is_queue_budget_spent(), self.core.queue_share());
        let Some(connection) = self.core.table.get_mut(id) else { return };
        let transferring = connection.is_transferring();
        let Some(outbox) = connection.outbox.as_deref() else { return };
        if spent && outbox.own_bytes() > share && !connection.flags.has(Flags::CLOSING) {
            connection.flags.set(Flags::BROKEN);
            self.core.metrics.strike(Limit::QueueBytesTotalMax);
            self.begin_close(id, CloseReason::SlowConsumer, "no room left in the queues of the process");
            return;
        }
        let over =
            spent || outbox.cost() > high || outbox.control_replies > control_replies_max || !outbox.held.is_empty();
        if over && !connection.flags.has(Flags::PAUSED) && !connection.flags.has(Flags::CLOSING) {
            connection.flags.set(Flags::PAUSED);
            if outbox.control_replies > control_replies_max {
                self.core.metrics.strike(Limit::ControlRepliesMax);
            }
            if outbox.is_empty() && !transferring {
                // Nothing will be sent whose end would resume it: what is held is looked at in the next turn.
                self.core.resumable.push_back(id);
            }
            self.core.metrics.reading_paused_total.add(1);
            self.pause(id);
        }
    }

    /// Leaves what comes for a connection in the kernel for a while. A stream's peer stops by itself when its window is used
    /// up.
    pub(super) fn pause(&mut self, id: ConnId) {
        if !self.core.flag(id, Flags::BORNE) {
            self.backend.pause(id);
        }
    }
}

/// How much a send of so many bytes takes, counted in small ones.
pub(super) const fn weight_of(bytes: usize) -> usize {
    1 + bytes / (16 * 1024)
}

impl Core {
    /// Room for a batch's frames that is kept from one batch to the next.
    const OUT_KEPT_BYTES: usize = 512 * 1024;

    /// Puts an outbox on the list of those to be sent in this turn.
    pub(super) fn mark_dirty(&mut self, id: ConnId) {
        let Some(outbox) = self.table.get_mut(id).and_then(|connection| connection.outbox.as_deref_mut()) else {
            return;
        };
        if !outbox.listed && !outbox.waits && !outbox.is_empty() {
            outbox.listed = true;
            self.dirty.push_back(id);
        }
    }

    /// Moves what was written for the connection at hand to its outbox, if it is this one: something is to follow there.
    pub(super) fn uncork_to_outbox(&mut self, id: ConnId) {
        if self.corked == Some(id) {
            self.corked = None;
            let start = self.out_start;
            self.metrics.bytes_sent_total.add((self.out.len() - start) as u64);
            self.queue_output(id, start);
        }
    }

    /// Moves the frames at the end of `out`, from `start` on, to a connection's outbox.
    fn queue_output(&mut self, id: ConnId, start: usize) {
        let out = std::mem::take(&mut self.out);
        if let Some(outbox) = self.outbox(id) {
            let before = outbox.memory();
            outbox.push_own(&out[start..]);
            let after = outbox.memory();
            self.count_queued(before, after);
            self.mark_dirty(id);
        }
        self.out = out;
        self.out.truncate(start);
        self.out_start = start;
    }

    /// Keeps what the kernel did not take of a send.
    fn keep_rest(&mut self, id: ConnId, what: Sent, taken: usize) {
        let bytes = std::mem::take(&mut self.out);
        let image = match what {
            Sent::Image { index, .. } => self.send_images.get(index).cloned(),
            _ => None,
        };
        let (tick, stall) = (self.tick, self.after(self.limits.queue_stall_timeout));
        if let Sent::Share { index } = what {
            self.take_back(id, index, taken);
        }
        if let Some(outbox) = self.outbox(id) {
            let before = outbox.memory();
            match (what, image) {
                (Sent::Bytes { start, end }, _) => outbox.put_back_own(&bytes[start + taken..end]),
                (Sent::Image { messages, .. }, Some(mut image)) => {
                    image.start += taken;
                    outbox.put_back_shared(image, messages);
                }
                (Sent::Outbox { .. }, _) => outbox.advance(taken),
                (Sent::Image { .. } | Sent::Share { .. } | Sent::Done, _) => {}
            }
            if taken > 0 {
                outbox.progress = tick;
            }
            outbox.waits = true;
            let (after, depth) = (outbox.memory(), outbox.bytes());
            self.count_queued(before, after);
            self.tops.deep(id, depth);
            // A closing connection has its deadline.
            if !self.flag(id, Flags::CLOSING) {
                self.arm_by(id, stall);
            }
        }
        self.out = bytes;
    }

    /// All sends of the batch that are not marked as done were taken whole.
    fn finish_batch(&mut self) {
        let mut sends = std::mem::take(&mut self.sends);
        for send in sends.drain(..) {
            if let Sent::Outbox { bytes } = send.what {
                self.outbox_sent(send.id, bytes);
            }
        }
        self.sends = sends;
        self.out.clear();
        self.out.shrink_to(Self::OUT_KEPT_BYTES);
        self.out_start = 0;
        self.send_images.clear();
        for share in self.shares.drain(..) {
            // What was not taken has been taken out.
            self.metrics.deliveries_total.add(share.messages.len() as u64);
            self.metrics.count_sent(share.protocol.counted(), share.messages.len() as u64);
            share.messages.iter().for_each(|message| self.latencies.delivery(message.taken));
        }
        self.next_batch();
    }

    pub(super) fn next_batch(&mut self) {
        self.batch = self.batch.wrapping_add(1).max(1);
    }

    fn outbox_sent(&mut self, id: ConnId, bytes: usize) {
        let tick = self.tick;
        let Some(outbox) = self.outbox(id) else { return };
        let before = outbox.memory();
        outbox.advance(bytes);
        outbox.progress = tick;
        let (after, is_empty) = (outbox.memory(), outbox.is_empty());
        self.count_queued(before, after);
        if is_empty {
            self.outbox_done(id);
        } else {
            self.mark_dirty(id);
        }
        self.carrier_has_room(id);
    }

    /// An outbox is empty: it goes, unless received bytes are held in it.
    pub(super) fn outbox_done(&mut self, id: ConnId) {
        let Some(connection) = self.table.get_mut(id) else { return };
        if connection.flags.has(Flags::CLOSING) {
            self.closing.push_back(id);
        } else if connection.is_transferring() {
            self.list_transfer(id);
        } else if connection.flags.has(Flags::PAUSED) {
            self.resumable.push_back(id);
        }
        let Some(connection) = self.table.get_mut(id) else { return };
        let held = connection.outbox.as_ref().is_some_and(|outbox| !outbox.held.is_empty());
        if held {
            if let Some(outbox) = connection.outbox.as_deref_mut() {
                outbox.control_replies = 0;
            }
        } else {
            self.drop_outbox(id);
        }
        if self.table.get(id).is_some_and(Connection::is_answered) {
            return self.end_stream(id);
        }
        self.ready_for_shares(id);
    }
}
