//! The way down: what is sent is sealed, and what the kernel does not take waits.

use std::io::ErrorKind;
use std::mem;
use std::time::Instant;

use super::record::Fault;
use super::session::{Session, Stage};
use super::{Tls, drop_pending};
use crate::id::ConnId;
use crate::io::{Backend, Completion, Ending, Out, Short};
use crate::metrics::ShardMetrics;

/// Marks the tag of a send that was sealed: those of shards are numbers of sends in a batch.
const SEALED: u32 = 1 << 31;

/// Where the bytes of a send lie.
#[derive(Clone, Copy)]
enum Place {
    /// In the batch's memory, from here to there.
    Batch(usize, usize),
    /// In the session: so many of the bytes that are pending.
    Pending(usize),
}

/// A send that was given to the inner backend.
struct Send {
    id: ConnId,
    place: Place,
    /// The shard's tag, and how much of its text was sealed where that was not all of it.
    asked: Option<(u32, Option<usize>)>,
}

/// Sends since the last flush.
#[derive(Default)]
pub(super) struct Batch {
    /// Never 0 while anything is in it, see [`Session::batch`].
    number: u32,
    sends: Vec<Send>,
    /// What they send.
    bytes: Vec<u8>,
}

impl Batch {
    /// Memory that is kept from one batch to the next.
    const KEPT_BYTES: usize = 512 * 1024;

    pub(super) const fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    /// What is sealed is put here.
    pub(super) const fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(super) const fn memory(&self) -> usize {
        self.bytes.capacity() + self.sends.capacity() * size_of::<Send>()
    }

    fn number(&mut self) -> u32 {
        self.number = self.number.max(1);
        self.number
    }
}

impl<B: Backend> Tls<B> {
    /// Text of one send that is sealed at once.
    const SLICE: usize = 64 * 1024;
    /// Likewise, when the peer takes less than it is sent.
    const SLICE_OF_SLOW: usize = 16 * 1024;
    /// Rounds of one flush: a send, what has become pending meanwhile, an end.
    const ROUNDS_MAX: usize = 4;

    /// Seals what a shard sends.
    pub(super) fn seal(&mut self, id: ConnId, text: &[u8], tag: u32) {
        debug_assert!(tag & SEALED == 0);
        let Some(session) = self.sessions.get_mut(id) else { return };
        let refused = match &session.stage {
            _ if session.has(Session::DEAD | Session::NOTIFIED) => Some(Err(ErrorKind::BrokenPipe)),
            Stage::Broken => Some(Err(ErrorKind::BrokenPipe)),
            Stage::Dialled | Stage::Silent | Stage::Greeting(_) | Stage::Away(_) => Some(Ok(0)),
            Stage::Open(_) => session.has(Session::BLOCKED).then_some(Ok(0)),
        };
        if let Some(sent) = refused {
            return self.shorts.push_back(Short { tag, sent });
        }
        let most = if session.has(Session::SLOW) { Self::SLICE_OF_SLOW } else { Self::SLICE };
        let slice = text.len().min(most);
        let start = self.batch.bytes.len();
        let Stage::Open(traffic) = &mut session.stage else { return };
        if let Err(fault) = traffic.seal(&mut self.ready, &text[..slice], &mut self.batch.bytes) {
            self.batch.bytes.truncate(start);
            return self.spent(id, tag, fault);
        }
        self.give(id, start, Some((tag, (slice < text.len()).then_some(slice))));
    }

    /// Data cannot be sealed any more: with TLS 1.2 an AES key wears out, and there is no other. The peer is told that this is
    /// the end, and may come again.
    fn spent(&mut self, id: ConnId, tag: u32, fault: Fault) {
        self.shorts.push_back(Short { tag, sent: Err(ErrorKind::BrokenPipe) });
        self.say_goodbye(id);
        if let Some(session) = self.sessions.get_mut(id) {
            session.stage = Stage::Broken;
        }
        if self.may_log() {
            tracing::info!(connection = %id.of(self.shard), %fault, "TLS ended: the client has to connect again");
        }
    }

    /// Gives what has been sealed behind `start` to the inner backend, if this connection has sent nothing in this batch;
    /// else it waits for the end of the batch.
    pub(super) fn give(&mut self, id: ConnId, start: usize, asked: Option<(u32, Option<usize>)>) {
        let end = self.batch.bytes.len();
        let Some(session) = self.sessions.get_mut(id).filter(|_| start < end) else { return };
        let number = self.batch.number();
        if session.batch != number && session.pending.is_empty() && !session.has(Session::BLOCKED) {
            session.batch = number;
            self.send_inner(id, Place::Batch(start, end), asked);
            return;
        }
        session.pending.extend_from_slice(&self.batch.bytes[start..end]);
        self.metrics.tls_pending_bytes.add((end - start) as u64);
        self.batch.bytes.truncate(start);
        if let Some((tag, Some(taken))) = asked {
            self.shorts.push_back(Short { tag, sent: Ok(taken) });
        }
        self.list(id);
    }

    /// Sends bytes that are none of a shard's.
    pub(super) fn give_own(&mut self, id: ConnId, bytes: &[u8]) {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(bytes);
        self.give(id, start, None);
    }

    fn send_inner(&mut self, id: ConnId, place: Place, asked: Option<(u32, Option<usize>)>) {
        let tag = SEALED | u32::try_from(self.batch.sends.len()).unwrap_or(0);
        self.batch.sends.push(Send { id, place, asked });
        let bytes = match place {
            Place::Batch(start, end) => &self.batch.bytes[start..end],
            Place::Pending(len) => self.sessions.get_mut(id).map_or(&[][..], |session| &session.pending[..len]),
        };
        self.inner.send(id, Out::Bytes(bytes), tag);
    }

    /// Has a connection looked at after the next flush.
    pub(super) fn list(&mut self, id: ConnId) {
        if let Some(session) = self.sessions.get_mut(id)
            && !session.has(Session::LISTED)
        {
            session.set(Session::LISTED);
            self.after.push_back(id);
        }
    }

    /// Seals a `close_notify`, once.
    pub(super) fn say_goodbye(&mut self, id: ConnId) {
        let start = self.batch.bytes.len();
        if let Some(session) = self.sessions.get_mut(id)
            && !session.has(Session::NOTIFIED | Session::DEAD)
            && let Stage::Open(traffic) = &mut session.stage
        {
            traffic.seal_close(&mut self.ready, &mut self.batch.bytes);
            session.set(Session::NOTIFIED);
        }
        self.give(id, start, None);
    }

    /// The shard has done with a connection.
    pub(super) fn close_session(&mut self, id: ConnId, ending: Ending) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if session.has(Session::CLOSING) {
            return;
        }
        session.set(Session::CLOSING);
        session.input = Vec::new();
        if matches!(session.stage, Stage::Greeting(_) | Stage::Away(_)) {
            session.stage = Stage::Silent;
            self.weigh(id);
        }
        let Some(session) = self.sessions.get_mut(id) else { return };
        // A broken connection's peer is told why, though the shard has nothing to say.
        let has_words = ending == Ending::Graceful || matches!(session.stage, Stage::Broken);
        if session.has(Session::DEAD) || !has_words {
            session.set(Session::CLOSED);
            drop_pending(session, &self.metrics);
            return self.inner.close(id, if has_words { ending } else { Ending::Reset });
        }
        self.say_goodbye(id);
        self.list(id);
    }

    /// Flushes, until nothing is left that could be sent.
    pub(super) fn flush_all(&mut self) {
        for _ in 0..Self::ROUNDS_MAX {
            self.flush_batch();
            if self.after.is_empty() {
                break;
            }
            for _ in 0..self.after.len() {
                let Some(id) = self.after.pop_front() else { break };
                self.go_on(id);
            }
        }
    }

    fn flush_batch(&mut self) {
        self.inner.flush();
        let mut sends = mem::take(&mut self.batch.sends);
        while let Some(short) = self.inner.next_short() {
            if short.tag & SEALED == 0 {
                self.shorts.push_back(short);
                continue;
            }
            let index = (short.tag & !SEALED) as usize;
            if let Some(send) = sends.get_mut(index) {
                let asked = send.asked.take();
                let (id, place) = (send.id, mem::replace(&mut send.place, Place::Batch(0, 0)));
                self.short(id, place, asked, short.sent);
            }
        }
        for Send { id, place, asked } in sends.drain(..) {
            if let Some((tag, Some(taken))) = asked {
                self.shorts.push_back(Short { tag, sent: Ok(taken) });
            }
            let Some(session) = self.sessions.get_mut(id) else { continue };
            if session.has(Session::BLOCKED | Session::DEAD) {
                continue;
            }
            session.take(Session::SLOW);
            if let Place::Pending(len) = place {
                take_pending(session, len, &self.metrics);
            }
            if session.has(Session::WANTS_ROOM | Session::SHUT | Session::CLOSING) || !session.pending.is_empty() {
                self.list(id);
            }
        }
        self.batch.sends = sends;
        self.batch.bytes.clear();
        self.batch.bytes.shrink_to(Batch::KEPT_BYTES);
        self.batch.number = self.batch.number.wrapping_add(1).max(1);
    }

    /// The kernel took less than all: what was sealed stays sealed, and waits.
    fn short(&mut self, id: ConnId, place: Place, asked: Option<(u32, Option<usize>)>, sent: Result<usize, ErrorKind>) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let taken = match sent {
            Ok(taken) => taken,
            Err(kind) => {
                session.set(Session::DEAD);
                drop_pending(session, &self.metrics);
                match asked {
                    Some((tag, _)) => self.shorts.push_back(Short { tag, sent: Err(kind) }),
                    None => self.broken(id, kind),
                }
                return;
            }
        };
        if let Some((tag, Some(taken))) = asked {
            self.shorts.push_back(Short { tag, sent: Ok(taken) });
        }
        let before = session.pending.len();
        match place {
            Place::Pending(_) => drop(session.pending.drain(..taken.min(before))),
            Place::Batch(start, end) => {
                let rest = &self.batch.bytes[(start + taken).min(end)..end];
                let mut pending = Vec::with_capacity(rest.len() + before);
                pending.extend_from_slice(rest);
                pending.append(&mut session.pending);
                session.pending = pending;
            }
        }
        self.metrics.tls_pending_bytes.add(session.pending.len() as u64);
        self.metrics.tls_pending_bytes.sub(before as u64);
        session.set(Session::BLOCKED | Session::SLOW);
        // Whoever closes waits for room, and not for ever.
        let closing = session.has(Session::CLOSING);
        self.inner.want_writable(id);
        if closing {
            self.list(id);
        }
    }

    /// The transport broke, and no send of the shard's has told it.
    fn broken(&mut self, id: ConnId, kind: ErrorKind) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if session.has(Session::CLOSING) {
            self.sever(id);
        } else if !session.has(Session::FAILED) {
            session.set(Session::FAILED);
            self.done.push_back(Completion::Failed(id, kind));
        }
    }

    /// What a connection has to do when its sends have run.
    fn go_on(&mut self, id: ConnId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.take(Session::LISTED);
        if session.has(Session::BLOCKED | Session::CLOSED) {
            // The first ends with room, the second with the connection. Whoever closes has a while to make room.
            if session.has(Session::CLOSING) && !session.has(Session::CLOSED | Session::LINGERS) {
                session.set(Session::LINGERS);
                self.lingering.push_back((Instant::now() + Self::LINGER, id));
            }
            return;
        }
        if session.has(Session::DEAD) {
            return self.sever(id);
        }
        if !session.pending.is_empty() {
            session.batch = self.batch.number();
            let len = session.pending.len();
            self.send_inner(id, Place::Pending(len), None);
        } else if session.has(Session::CLOSING) {
            session.set(Session::CLOSED);
            self.inner.close(id, Ending::Graceful);
        } else {
            // A handshake goes on first: without it there is no good-bye.
            if !session.is_greeting() && session.take(Session::SHUT) {
                self.inner.shutdown(id);
            }
            if !session.is_greeting() && session.take(Session::WANTS_ROOM) {
                self.done.push_back(Completion::Writable(id));
            }
        }
    }

    /// The kernel has room again: what is pending goes first.
    pub(super) fn room(&mut self, id: ConnId) -> Option<Completion> {
        let session = self.sessions.get_mut(id)?;
        if matches!(session.stage, Stage::Dialled) {
            return self.stands(id);
        }
        if session.take(Session::BLOCKED) {
            self.list(id);
            // Now, so that the answer to it is the next thing that the shard hears of.
            if self.batch.is_empty() {
                self.flush_all();
            }
        }
        None
    }
}

/// Forgets what was taken of what is pending, and its memory with the last of it.
fn take_pending(session: &mut Session, len: usize, metrics: &ShardMetrics) {
    if len >= session.pending.len() {
        return drop_pending(session, metrics);
    }
    session.pending.drain(..len);
    metrics.tls_pending_bytes.sub(len as u64);
}
