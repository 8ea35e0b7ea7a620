//! What happens when nothing happens: deadlines of handshakes, heartbeats, idle and stalled connections, and the drain.
//!
//! A connection has one timer, set to the earliest of its deadlines or earlier. Signs of life are only noted; when the
//! timer fires, the deadlines are looked at and the timer is set again.

use std::time::Duration;

use super::Shard;
use super::connection::{Connection, Extra, Flags};
use super::control::Phase;
use super::core::{Core, Drain};
use super::pace::{Pace, Part};
use crate::app::router::News;
use crate::app::{Code, Status};
use crate::close::CloseReason;
use crate::id::ConnId;
use crate::io::{Backend, Ending};
use crate::rule::Limit;
use crate::session::{self, Protocol};
use crate::time::Clock;
use crate::wheel::{Tick, jitter};

/// What a connection's deadlines ask for.
pub(super) enum Due {
    /// Nothing before this tick.
    Later(Tick),
    /// Nothing ever.
    Never,
    /// Ask for a sign of life.
    Heartbeat,
    /// Answer a poll, whose time is over.
    Answer,
    /// Ask for no more streams on it.
    Warn,
    /// Close it.
    Close(CloseReason),
    /// End a request that has not come within this limit.
    Request(Limit),
    /// End a call whose time is over.
    Expired,
    /// Tell it that its token has expired.
    Renewal,
}

impl<B: Backend> Shard<B> {
    /// The timers' part of a turn. Messages come first: while some are handed out, heartbeats wait for up to the time
    /// that clients have to answer them. With a million clients a broadcast takes seconds, and the heartbeats that come due
    /// meanwhile would take a third of each.
    pub(super) fn timers_part(&self) -> Part {
        let core = &self.core;
        let patience = core.wheel.ticks_in(core.limits.heartbeat_timeout);
        let may_wait = !core.fan_outs.is_empty() && core.wheel.behind(core.tick) < patience;
        if may_wait { Part::TIMERS_ASIDE } else { Part::TIMERS }
    }

    pub(super) fn timers(&mut self, pace: &mut Pace<'_, impl Clock>) {
        while pace.more()
            && let Some(id) = self.core.next_evicted()
        {
            self.begin_close(id, CloseReason::TryAgainLater, "no room for the topic");
            self.pay(pace);
        }
        self.core.hand_out_leaves(pace);
        self.core.hurry_all(pace);
        self.core.review_all(pace);
        while pace.more() {
            let core = &mut self.core;
            let Some(index) = core.wheel.pop(&mut core.table, core.tick) else { return };
            if let Some((id, _)) = core.table.at(index) {
                self.timer(id);
                self.pay(pace);
            }
        }
        self.core.unfinished = true;
    }

    fn timer(&mut self, id: ConnId) {
        let Some(connection) = self.core.table.get(id) else { return };
        let is_shed = connection.flags.has(Flags::SHED);
        if connection.flags.has(Flags::CLOSING) {
            if self.core.bears_requests(id) {
                // They have their own time, and an answer that ends this one's.
                let deadline = self.core.after(self.core.limits.close_timeout);
                return self.core.arm(id, deadline);
            }
            if !is_shed {
                self.core.metrics.strike(Limit::CloseTimeout);
            }
            if !self.core.fail_call(id) {
                self.end(id, Ending::Reset);
            }
            return;
        }
        if is_shed {
            return self.shed_now(id);
        }
        self.deadlines(id);
        self.core.follow_pace(id);
    }

    /// Does what has come due of an open connection, and sets its timer again.
    fn deadlines(&mut self, id: ConnId) {
        let Some(connection) = self.core.table.get(id) else { return };
        match self.core.due(id, connection) {
            Due::Never => {}
            Due::Later(tick) => self.core.arm(id, tick),
            // It may have answered long ago: we do not look. That we send to it, or wait for others, has its own bounds.
            Due::Heartbeat | Due::Close(CloseReason::HeartbeatTimeout) if !connection.is_read() => {
                self.core.hear(id);
                self.core.arm_next(id);
            }
            Due::Request(limit) => {
                let is_waiting = connection.flags.has(Flags::WAITING);
                if connection.is_read() || is_waiting {
                    self.request_timeout(id, limit);
                } else {
                    self.core.prolong_request(id);
                    self.core.arm_next(id);
                }
            }
            Due::Renewal => {
                self.core.tell_expiry(id);
                self.core.arm_next(id);
            }
            Due::Close(CloseReason::AuthExpired) => {
                let cause = self.core.admission_cause(id);
                self.begin_close(id, CloseReason::AuthExpired, cause.message());
            }
            Due::Close(reason) => {
                limit_of(reason).into_iter().for_each(|limit| self.core.metrics.strike(limit));
                self.begin_close(id, reason, "deadline passed");
            }
            Due::Heartbeat => {
                self.heartbeat(id);
                self.core.arm_next(id);
            }
            Due::Warn => self.warn(id),
            Due::Answer => self.core.answer_poll(id),
            Due::Expired => {
                self.core.expire_call(id);
                self.begin_close(id, CloseReason::Normal, "the call's time is over");
            }
        }
    }

    /// Tells a connection of HTTP/2 that it will have to go.
    fn warn(&mut self, id: ConnId) {
        self.begin_output(id);
        // What was sent for others meanwhile may have shown that its transport is broken.
        if !self.core.flag(id, Flags::CLOSING) {
            self.core.warn(id);
            self.write(id);
            self.core.arm_next(id);
        }
    }

    fn heartbeat(&mut self, id: ConnId) {
        self.begin_output(id);
        let core = &mut self.core;
        let Some(connection) = core.table.get_mut(id) else { return };
        if connection.flags.has(Flags::CLOSING) {
            // What was sent for others meanwhile has shown that its transport is broken.
            return;
        }
        if !connection.protocol.is_stream() {
            connection.flags.set(Flags::PINGED);
        }
        connection.heard = core.tick;
        let is_borne = connection.flags.has(Flags::BORNE);
        if connection.protocol == Protocol::Http2 {
            core.ping(id);
        } else {
            session::encode_heartbeat(connection.encoder().wire, &mut core.out);
        }
        core.metrics.heartbeats_sent_total.add(1);
        if !is_borne {
            self.backend.quieten(id);
        }
        self.write(id);
    }
}

/// The limit behind a deadline that closes a connection for this reason.
const fn limit_of(reason: CloseReason) -> Option<Limit> {
    match reason {
        CloseReason::SlowConsumer => Some(Limit::QueueStallTimeout),
        CloseReason::IdleTimeout => Some(Limit::IdleTimeout),
        CloseReason::HeartbeatTimeout => Some(Limit::HeartbeatTimeout),
        _ => None,
    }
}

impl Core {
    /// Connections that are given their time to leave in one step: some microseconds.
    const LEAVES_PER_STEP: u32 = 64;
    /// Time to begin a request, or to say anything at all, that a connection has in a drain, from its arrival.
    const NEWCOMER_TIME: Duration = Duration::from_secs(1);

    fn due(&self, id: ConnId, connection: &Connection) -> Due {
        if connection.protocol == Protocol::Http2 {
            return self.carrier_due(id, connection);
        }
        let (flags, limits, now) = (connection.flags, &self.limits, self.tick);
        let ticks = |duration: Duration| self.wheel.ticks_in(duration);
        let mut next = None;
        let mut passed = |due: Tick| {
            next = Some(next.map_or(due, |next: Tick| next.min(due)));
            now >= due
        };
        if let Some(until) = self.paced_until(id) {
            // What comes of it is done by `follow_pace`.
            passed(until);
        }
        let borne = connection.extra.as_deref().and_then(|extra| extra.borne.as_deref());
        if let Some(deadline) = borne.and_then(|borne| borne.deadline)
            && passed(deadline)
        {
            return Due::Expired;
        }
        // A file on its way has the time that its outbox has; the next request's begins behind it.
        if !flags.has(Flags::OPEN) && !connection.is_transferring() && !connection.is_answered() {
            let (deadline, limit) = self.request_due(connection);
            if passed(deadline) {
                return Due::Request(limit);
            }
        }
        if let Some(outbox) = &connection.outbox
            && outbox.waits
            && passed(outbox.progress.later(ticks(limits.queue_stall_timeout)))
        {
            return Due::Close(CloseReason::SlowConsumer);
        }
        if let Some(leave) = self.leave_of(id, connection)
            && passed(leave)
        {
            return Due::Close(CloseReason::GoingAway);
        }
        if let Some(extra) = &connection.extra
            && flags.has(Flags::OPEN)
            && !limits.idle_timeout.is_zero()
            && !connection.protocol.is_http()
            && passed(extra.spoke.max(self.idle_since).later(ticks(limits.idle_timeout)))
        {
            return Due::Close(CloseReason::IdleTimeout);
        }
        let is_poll = connection.extra.as_deref().is_some_and(|extra| extra.poll().is_some());
        if flags.has(Flags::OPEN)
            && !is_poll
            && let Some(due) = self.admission_due(connection, &mut passed)
        {
            return due;
        }
        if let Some(poll) = connection.extra.as_deref().and_then(Extra::poll) {
            let leave = self.drain.filter(|_| flags.has(Flags::DRAINING)).map(|drain| drain.leave(id));
            let until = leave.map_or(poll.until, |leave| leave.min(poll.until));
            let until = Self::admission_ends(connection).map_or(until, |ends| ends.min(until));
            // An owner that has not answered yet is waited for: only then the answer says where it stands.
            let until = if self.is_poll_awaiting(id) { until.max(now.later(1)) } else { until };
            if passed(until) {
                return Due::Answer;
            }
        } else if flags.has(Flags::OPEN)
            && !limits.heartbeat_interval.is_zero()
            && connection.protocol != Protocol::Grpc
        {
            let interval = jitter(ticks(limits.heartbeat_interval), id.index());
            if flags.has(Flags::PINGED) {
                let mut deadline = connection.heard.later(ticks(limits.heartbeat_timeout));
                if self.listened < deadline {
                    // Its answer may be among what has come and is not read yet. A shard that has too much to do must not
                    // take that for its clients' silence: they would all come back at once.
                    deadline = deadline.max(now.later(1));
                }
                if passed(deadline) {
                    return Due::Close(CloseReason::HeartbeatTimeout);
                }
                // It may answer at once, and an answer does not touch the timer: where the interval is shorter than the
                // timeout, the timer has to look earlier.
                passed(now.later(interval.max(1)));
            } else if passed(connection.heard.later(interval)) {
                return Due::Heartbeat;
            }
        }
        next.map_or(Due::Never, Due::Later)
    }

    /// Sets the timer to the next deadline of a connection that stays. That may be due already: where two were, the second is
    /// looked at next.
    fn arm_next(&mut self, id: ConnId) {
        if self.table.get(id).is_some_and(|connection| !connection.flags.has(Flags::CLOSING)) {
            self.arm_due(id);
        }
    }

    /// Sets the timer of a connection that has just opened.
    pub(super) fn arm_open(&mut self, id: ConnId) {
        if !self.limits.idle_timeout.is_zero()
            && let Some(connection) = self.table.get_mut(id)
        {
            connection.extra.get_or_insert_default().spoke = self.tick;
        }
        // The handshake was a sign of life, however long ago the connection came.
        if let Some(connection) = self.table.get_mut(id) {
            connection.heard = self.tick;
        }
        self.arm_due(id);
    }

    /// Sets the timer to the earliest deadline, sooner or later than it was.
    pub(super) fn arm_due(&mut self, id: ConnId) {
        if let Some(connection) = self.table.get(id) {
            match self.due(id, connection) {
                Due::Later(tick) => self.arm(id, tick),
                Due::Never => self.wheel.disarm(&mut self.table, id.index()),
                // Due already, in a drain for one: the timer fires at once.
                Due::Heartbeat
                | Due::Answer
                | Due::Warn
                | Due::Close(_)
                | Due::Request(_)
                | Due::Expired
                | Due::Renewal => {
                    self.arm(id, self.tick);
                }
            }
        }
    }

    /// Drops what is too old of the topics owned here.
    pub(super) fn forget(&mut self, pace: &mut Pace<'_, impl Clock>) {
        let done = self.topics.expire(self.tick, || pace.more());
        self.tell_resets();
        self.unfinished |= !done;
        let counts = self.topics.counts();
        self.metrics.topics_owned.set(self.topics.len() as u64);
        self.metrics.history_messages.set(counts.messages as u64);
        self.metrics.history_bytes.set(counts.bytes as u64);
        self.metrics.history_expired_total.set(counts.expired);
        self.metrics.history_evicted_total.set(counts.evicted);
        self.metrics.topics_forgotten_total.set(counts.forgotten);
    }

    /// Follows the server's phase; whether the drain has just begun.
    pub(super) fn follow_phase(&mut self) -> bool {
        let phase = self.control.phase();
        let begins = phase != self.phase && phase == Phase::Draining;
        self.phase = phase;
        if begins {
            let ticks = self.wheel.ticks_in(self.control.drain_period());
            let index_end = self.table.index_end();
            let shuts = Some(self.after(self.control.grace()));
            self.drain = Some(Drain { began: self.tick, ticks, shuts, shut: None, cursor: 0, index_end });
        }
        begins
    }

    /// Takes over what becomes of publications.
    pub(super) fn follow_publishing(&mut self) {
        self.publishing = self.control.publishing();
    }

    /// Whether the time has come to close the listeners, once.
    pub(super) fn shuts_now(&mut self) -> bool {
        let now = self.tick;
        self.drain.as_mut().is_some_and(|drain| drain.shuts.take_if(|shuts| *shuts <= now).is_some())
    }

    /// Notes whether connections may still come in.
    pub(super) fn note_listening(&mut self, is_listening: bool) {
        let is_shut = self.drain.is_some_and(|drain| drain.shuts.is_none());
        if self.listening && is_shut && !is_listening {
            self.listening = false;
            self.drain.iter_mut().for_each(|drain| drain.shut = Some(self.tick));
            if self.control.listens_no_more() && self.control.connections() == 0 {
                self.mail.ring_all();
            }
        }
    }

    /// Lets a connection that comes in a drain leave in its turn.
    pub(super) fn hand_out_late_leave(&mut self, id: ConnId) {
        if self.drain.is_some() {
            self.set(id, Flags::DRAINING);
            self.arm_due(id);
        }
    }

    /// Gives connections their time to leave, spread over the drain's period.
    fn hand_out_leaves(&mut self, pace: &mut Pace<'_, impl Clock>) {
        let Some(mut drain) = self.drain.filter(|drain| drain.cursor < drain.index_end) else { return };
        while drain.cursor < drain.index_end && pace.more() {
            let end = drain.index_end.min(drain.cursor + Self::LEAVES_PER_STEP);
            (drain.cursor..end).for_each(|index| self.hand_out_leave(index, &drain));
            drain.cursor = end;
        }
        self.unfinished |= drain.cursor < drain.index_end;
        self.drain = Some(drain);
    }

    fn hand_out_leave(&mut self, index: u32, drain: &Drain) {
        let Some((id, connection)) = self.table.at(index) else { return };
        if connection.flags.has(Flags::CLOSING) {
            return;
        }
        // Streams leave with what bears them, but who watches the server's health hears of it now.
        if connection.flags.has(Flags::BORNE) {
            return self.tell_handler(id, News::Leave);
        }
        connection.flags.set(Flags::DRAINING);
        connection.extra.iter_mut().for_each(|extra| extra.answer_last());
        self.arm_by(id, drain.leave(id));
    }

    /// When the drain asks a connection to leave. A request that is under way is answered first, it has its own time; and
    /// who has just come has a moment to send one, or to say what it has to where nothing could tell it to come again.
    pub(super) fn leave_of(&self, id: ConnId, connection: &Connection) -> Option<Tick> {
        let drain = self.drain.filter(|_| connection.flags.has(Flags::DRAINING))?;
        let leave = drain.leave(id);
        if connection.flags.has(Flags::WAITING) || connection.is_transferring() {
            return None;
        }
        let after = |tick: Tick| Some(leave.max(tick.later(self.wheel.ticks_in(Self::NEWCOMER_TIME))));
        let asks = connection.protocol == Protocol::Http && !connection.flags.has(Flags::OPEN);
        match (asks, connection.partial.is_some(), connection.state) {
            (true, true, _) => None,
            (true, false, 0) => after(connection.heard),
            // Whoever goes on to speak is no newcomer for long.
            _ if connection.protocol.is_raw() => after(connection.heard.min(drain.shut.unwrap_or(self.tick))),
            _ => Some(leave),
        }
    }

    /// A call has not ended in the time that its client gave it.
    fn expire_call(&mut self, id: ConnId) {
        if let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) {
            borne.deadline = None;
            borne.status = Some(Box::new(Status::new(Code::DeadlineExceeded, "the call's time is over")));
        }
    }

    /// When a connection that is asked to go may come back: clients are spread over the drain's period once more.
    pub(super) fn retry_after_ms(&self, id: ConnId) -> u64 {
        let period = self.drain.map_or(0, |drain| u64::from(drain.ticks)) * 100;
        spread(u64::from(id.index()) ^ 0x5eed, period.min(u64::from(u32::MAX)) + 1)
    }
}

impl Drain {
    /// When this connection is asked to leave.
    fn leave(&self, id: ConnId) -> Tick {
        let offset = spread(u64::from(id.index()), u64::from(self.ticks) + 1);
        self.began.later(u32::try_from(offset).unwrap_or(u32::MAX))
    }
}

/// Spreads keys evenly over `0..bound`, of at most 2^32 (Fibonacci hashing, Knuth, TAOCP 6.4).
pub(super) fn spread(key: u64, bound: u64) -> u64 {
    let hash = key.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (hash * bound) >> 32
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn a_spread_is_even_and_in_bounds() {
        let mut counts = [0; 10];
        (0..10_000).for_each(|key| counts[usize::try_from(spread(key, 10)).expect("below ten")] += 1);
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }
}
