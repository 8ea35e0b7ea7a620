//! How fast connections may send: so many messages and bytes a second each.
//!
//! What has come is counted when it has been taken; what was too much is paid for in time. Meanwhile the connection is not
//! read, and its own sends wait in the kernels, or it is closed, as [`OverRate`] says. There is no timer for it but the
//! one that each connection has, and nothing is kept where nothing is bounded.

use std::time::Duration;

use super::Shard;
use super::connection::Flags;
use super::core::Core;
use super::opening::Fed;
use crate::close::CloseReason;
use crate::config::OverRate;
use crate::id::ConnId;
use crate::io::Backend;
use crate::rate::Rate;
use crate::rule::Limit;
use crate::wheel::Tick;

/// What a connection has sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl std::iter::Sum for Spent {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            messages: sum.messages + one.messages,
            bytes: sum.bytes + one.bytes,
        })
    }
}

/// What is kept by index.
#[derive(Clone, Copy, Debug, Default)]
struct Paced {
    messages: Rate,
    bytes: Rate,
    /// Whose it is.
    generation: u32,
    /// Until when it is not read.
    until: Option<Tick>,
}

/// The pace of a shard's connections, by index in its table.
#[derive(Debug, Default)]
pub(super) struct Paces {
    of: Vec<Paced>,
}

impl Paces {
    fn get(&self, id: ConnId) -> Option<&Paced> {
        self.of.get(id.index() as usize).filter(|paced| paced.generation == id.generation())
    }

    fn get_mut(&mut self, id: ConnId) -> Option<&mut Paced> {
        self.of.get_mut(id.index() as usize).filter(|paced| paced.generation == id.generation())
    }

    /// That of a connection, made when it has none.
    fn of(&mut self, id: ConnId) -> &mut Paced {
        let at = id.index() as usize;
        if at >= self.of.len() {
            self.of.resize(at + 1, Paced::default());
        }
        let paced = &mut self.of[at];
        if paced.generation != id.generation() {
            *paced = Paced { generation: id.generation(), ..Paced::default() };
        }
        paced
    }
}

impl Core {
    /// Counts what a connection has sent, and says in `fed` what comes of it when that was too much.
    pub(super) fn charge(&mut self, id: ConnId, sent: Spent, fed: &mut Fed) {
        if self.flag(id, Flags::BORNE) {
            // What bears it pays, for all its streams together.
            self.said = [self.said, sent].into_iter().sum();
            return;
        }
        let Some((owed, limit)) = self.spend(id, sent).filter(|_| fed.close.is_none()) else { return };
        self.metrics.strike(limit);
        match self.limits.message_rate_policy {
            OverRate::Wait => fed.owed = Some(self.after(owed)),
            OverRate::Close => {
                fed.close = Some((CloseReason::Policy, format!("it sends more than limits.{} allows", limit.label())));
            }
        }
    }

    /// The same of what it has published with requests: those are under way and have an answer, and the next ones wait.
    pub(super) fn charge_requests(&mut self, id: ConnId, sent: Spent, fed: &mut Fed) {
        if sent.messages == 0 {
            return;
        }
        if let Some((owed, limit)) = self.spend(id, sent).filter(|_| fed.close.is_none()) {
            self.metrics.strike(limit);
            fed.owed = Some(self.after(owed));
        }
    }

    /// Begins to count what streams send.
    pub(super) fn begin_charging_streams(&mut self) {
        (self.posted, self.said) = (Spent::default(), Spent::default());
    }

    /// Counts what the streams of a connection have sent since. It is all that connection's: a client may open a stream for each
    /// message.
    pub(super) fn charge_streams(&mut self, bearer: ConnId, fed: &mut Fed) {
        let (posted, said) = (std::mem::take(&mut self.posted), std::mem::take(&mut self.said));
        if said.bytes > 0 {
            self.charge(bearer, said, fed);
        }
        self.charge_requests(bearer, posted, fed);
    }

    /// How long a connection has to wait for what it has sent, and for which limit.
    fn spend(&mut self, id: ConnId, sent: Spent) -> Option<(Duration, Limit)> {
        let (message_rate, bytes_rate) = (self.limits.message_rate, self.limits.message_bytes_rate);
        if message_rate == 0 && bytes_rate == 0 {
            return None;
        }
        let (now, paced) = (self.now, self.paces.of(id));
        let (mut owed, mut limit) = (Duration::ZERO, Limit::MessageRate);
        if message_rate > 0 {
            owed = paced.messages.spend(now, sent.messages, u64::from(message_rate));
        }
        if bytes_rate > 0 {
            let of_bytes = paced.bytes.spend(now, sent.bytes, bytes_rate as u64);
            if of_bytes > owed {
                (owed, limit) = (of_bytes, Limit::MessageBytesRate);
            }
        }
        (!owed.is_zero()).then_some((owed, limit))
    }

    /// Until when a connection is not read for what it has sent already.
    pub(super) fn paced_until(&self, id: ConnId) -> Option<Tick> {
        self.paces.get(id)?.until
    }

    /// Lets a connection go on whose time has come; else sees to it that its timer fires then.
    pub(super) fn follow_pace(&mut self, id: ConnId) {
        let Some(until) = self.paced_until(id) else { return };
        if until > self.tick {
            return self.arm_by(id, until);
        }
        self.paces.get_mut(id).into_iter().for_each(|paced| paced.until = None);
        self.resumable.push_back(id);
    }
}

impl<B: Backend> Shard<B> {
    /// Has the connection that bears a stream pay for what that has sent while it was not the one that was read.
    pub(super) fn charge_bearer(&mut self, bearer: ConnId) {
        let mut fed = Fed::default();
        self.core.charge_streams(bearer, &mut fed);
        if let Some((reason, detail)) = fed.close {
            self.begin_close(bearer, reason, &detail);
        }
        if let Some(until) = fed.owed {
            self.pace_until(bearer, until);
        }
    }

    /// Does not read a connection until this tick.
    pub(super) fn pace_until(&mut self, id: ConnId, until: Tick) {
        let core = &mut self.core;
        let Some(connection) = core.table.get_mut(id) else { return };
        if connection.flags.has(Flags::CLOSING) {
            return;
        }
        let was_read = !connection.flags.has(Flags::PAUSED);
        connection.flags.set(Flags::PAUSED);
        core.paces.of(id).until = Some(until);
        core.arm_by(id, until);
        if was_read {
            core.metrics.reading_paused_total.add(1);
            self.pause(id);
        }
    }
}
