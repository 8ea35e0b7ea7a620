//! What is sent: staged for a turn, and kept only for connections that do not take it.

use hashbrown::HashMap;

use super::member::{Member, Phase};
use super::{Crowd, Part};
use crate::id::ConnId;
use crate::io::{Dial, Out};
use crate::swarm::limits::Reason;
use crate::swarm::peer::Client;
use crate::swarm::tally::Count;

/// Bytes that are staged before they are flushed, though the turn goes on.
const STAGED_BYTES_MAX: usize = 256 * 1024;

/// Outgoing bytes.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// All that was staged since the last flush, one send after the other.
    pub(super) bytes: Vec<u8>,
    sends: Vec<Send>,
    /// What connections did not take.
    backlogs: HashMap<u32, Vec<u8>>,
}

/// A send since the last flush: the bytes from `from` to `to`.
#[derive(Clone, Copy, Debug)]
struct Send {
    id: ConnId,
    from: usize,
    to: usize,
}

impl Outgoing {
    pub(super) fn forget(&mut self, index: u32) {
        self.backlogs.remove(&index);
    }
}

impl<B: Dial> Crowd<B> {
    /// Sends what was staged behind `from` on one connection, unless it has said good-bye. Settings are acknowledged before
    /// the server's welcome is complete.
    pub(super) fn post(&mut self, index: u32, from: usize) {
        let Some(member) = self.members.get(index as usize) else { return };
        if matches!(member.phase, Phase::Open | Phase::Greeting) {
            self.tally.add(Count::BytesSent, self.outgoing.bytes.len().saturating_sub(from) as u64);
            self.put(index, from);
        } else {
            self.outgoing.bytes.truncate(from);
        }
    }

    /// The same for what has been counted.
    fn put(&mut self, index: u32, mut from: usize) {
        let Some(member) = self.members.get_mut(index as usize) else { return };
        if from >= self.outgoing.bytes.len() {
            return;
        }
        if member.has(Member::BACKLOG) {
            let bytes = self.outgoing.bytes.drain(from..);
            self.outgoing.backlogs.entry(index).or_default().extend(bytes);
            self.check_backlog(index);
            return;
        }
        if member.has(Member::SENT) {
            self.flush_before(from);
            from = 0;
            // What was sent before may not have been taken whole.
            if self.members[index as usize].has(Member::BACKLOG) {
                return self.put(index, from);
            }
        }
        let member = &mut self.members[index as usize];
        member.set(Member::SENT);
        let (id, to) = (member.id(index), self.outgoing.bytes.len());
        let tag = u32::try_from(self.outgoing.sends.len()).unwrap_or(u32::MAX);
        self.outgoing.sends.push(Send { id, from, to });
        self.backend.send(id, Out::Bytes(&self.outgoing.bytes[from..to]), tag);
        if to >= STAGED_BYTES_MAX {
            self.flush();
        }
    }

    /// Makes sure that all that was staged is sent, or waits for room.
    pub(in crate::swarm) fn flush(&mut self) {
        self.flush_before(self.outgoing.bytes.len());
    }

    /// The same, but the bytes from `end` on are still being staged: they are then the first ones.
    fn flush_before(&mut self, end: usize) {
        self.backend.flush();
        while let Some(short) = self.backend.next_short() {
            let Some(send) = self.outgoing.sends.get(short.tag as usize).copied() else { continue };
            match short.sent {
                Ok(taken) => self.hold_back(send, taken),
                Err(kind) => self.broken.push((send.id, Reason::of(kind))),
            }
        }
        for send in self.outgoing.sends.drain(..) {
            if let Some(member) = self.members.get_mut(send.id.index() as usize) {
                member.clear(Member::SENT);
            }
        }
        self.outgoing.bytes.drain(..end);
    }

    fn hold_back(&mut self, send: Send, taken: usize) {
        let index = send.id.index();
        let Some(member) = self.members.get_mut(index as usize).filter(|member| member.id(index) == send.id) else {
            return;
        };
        let rest = &self.outgoing.bytes[(send.from + taken).min(send.to)..send.to];
        if !rest.is_empty() {
            member.set(Member::BACKLOG);
            self.outgoing.backlogs.entry(index).or_default().extend_from_slice(rest);
            self.backend.want_writable(send.id);
            self.check_backlog(index);
        }
    }

    fn check_backlog(&mut self, index: u32) {
        if self.outgoing.backlogs.get(&index).is_some_and(|backlog| backlog.len() > self.manner.backlog_bytes_max) {
            self.broken.push((self.members[index as usize].id(index), Reason::Stuck));
        }
    }

    /// There is room: what was held back goes out.
    pub(super) fn catch_up(&mut self, index: u32) {
        let Some(member) = self.members.get_mut(index as usize) else { return };
        member.clear(Member::BACKLOG);
        let Some(backlog) = self.outgoing.backlogs.remove(&index) else { return };
        let from = self.outgoing.bytes.len();
        self.outgoing.bytes.extend_from_slice(&backlog);
        self.put(index, from);
    }

    /// Lets `write` stage bytes for a connection that is open, and sends them. False when it is not, or still has more
    /// to send than it takes.
    pub(in crate::swarm) fn send(
        &mut self,
        index: u32,
        write: impl FnOnce(&mut Member, &mut Client, &mut Vec<u8>),
    ) -> bool {
        let Some(member) = self.members.get_mut(index as usize) else { return false };
        if member.phase != Phase::Open || member.holds_back() || member.has(Member::PAUSED) {
            return false;
        }
        let from = self.outgoing.bytes.len();
        let client = &mut self.manner.routes[member.role as usize].client;
        write(member, client, &mut self.outgoing.bytes);
        self.post(index, from);
        true
    }

    /// Ends those whose sends have failed.
    pub(super) fn end_broken(&mut self, part: &mut impl Part) {
        while let Some((id, reason)) = self.broken.pop() {
            self.end(id, reason, part);
        }
    }
}
