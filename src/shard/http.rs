//! The way of HTTP/1.1 from received bytes to a whole request, and back to keep-alive: one request after the other, each
//! in its time. What requests mean is in `requests`.
//!
//! ```text
//!   head ----------> body ----------> answer -------> idle (keep-alive) ---> head
//!   handshake_       body_timeout,      |    \            keep_alive_timeout
//!   timeout          body_rate_min      |     \
//!                                       v      +--> WebSocket, end
//!                                    WAITING, until another shard has answered
//! ```

use super::Shard;
use super::addresses::Marks;
use super::connection::{Connection, Flags};
use super::core::Core;
use super::entrance::Kind;
use super::feed::reasoned;
use super::gate::Admission;
use super::opening::{Fed, Opened};
use super::requests::{Requests, Task};
use super::visits::Visit;
use crate::app::files::Transfer;
use crate::close::CloseReason;
use crate::codec::http1::date::Date;
use crate::codec::http1::response::{Reply, Version, write_error};
use crate::config::Limits;
use crate::id::ConnId;
use crate::io::Backend;
use crate::rule::Limit;
use crate::session::grpc;
use crate::session::http::{self, Progress};
use crate::session::{Env, Partial, Protocol};
use crate::wheel::Tick;

/// What a request came to. But for [`Answer::Waits`] the answer has been written.
pub(super) enum Answer {
    /// It is a WebSocket now, or a response that goes on and on.
    Opened(Opened),
    /// It waits for a message, until this tick at the latest.
    Polls(Opened, Tick, Later),
    /// The connection is one of HTTP/2.
    Http2,
    /// It is a gRPC call.
    Called(Opened, grpc::Call),
    /// More requests may follow.
    KeepAlive,
    /// It was the last one.
    Last,
    /// It was refused, and is the last one.
    Refused(CloseReason, String),
    /// A file follows; what comes behind the request waits for its end.
    File(Box<Transfer>),
    /// The answer comes later, see [`Core::answered`], when this has been done.
    Waits(Later, Task),
}

impl From<Reply<'_>> for Answer {
    fn from(reply: Reply<'_>) -> Self {
        if reply.keep_alive { Self::KeepAlive } else { Self::Last }
    }
}

/// How an answer that comes later has to be: what a [`Reply`] says, without its date.
#[derive(Debug, Default)]
pub(super) struct Later {
    pub(super) keep_alive: bool,
    head_only: bool,
    version: Version,
    origin: Option<Box<[u8]>>,
    credentials: bool,
    /// What the log hears of the request then.
    pub(super) visit: Option<Box<Visit>>,
}

impl Later {
    /// Keeps what this says.
    pub(super) fn of(reply: Reply<'_>) -> Self {
        let Reply { keep_alive, version, head_only, origin, credentials, .. } = reply;
        Self { keep_alive, version, head_only, origin: origin.map(Into::into), credentials, visit: None }
    }

    /// What it says, at this date.
    pub(super) fn reply(&self, date: Date) -> Reply<'_> {
        let Self { keep_alive, version, head_only, credentials, .. } = *self;
        Reply { keep_alive, version, head_only, date, origin: self.origin.as_deref(), credentials }
    }
}

impl Core {
    /// Time that another shard has for its part of an answer.
    const ANSWER_TIME: std::time::Duration = std::time::Duration::from_secs(30);

    /// Answers requests until one of them makes the connection something else, or has to wait.
    pub(super) fn feed_http(&mut self, id: ConnId, bytes: &mut [u8]) -> Fed {
        let mut consumed = 0;
        while consumed < bytes.len() {
            let Progress { consumed: used, outcome, expects } = match self.request(id, &mut bytes[consumed..]) {
                Ok(progress) => progress,
                Err((violation, later)) => {
                    violation.write(later.reply(self.date), &mut self.out);
                    self.metrics.http_errors_total.add(1);
                    let (reason, detail) = reasoned(&violation, &self.metrics);
                    return Fed::closed(bytes, reason, detail);
                }
            };
            consumed += used;
            let Some(answer) = outcome else {
                if expects {
                    self.out.extend_from_slice(http::CONTINUE);
                }
                return Fed::all(bytes);
            };
            self.metrics.http_requests_total.add(1);
            self.shaken(id);
            match answer {
                Answer::KeepAlive => {
                    self.next_request(id);
                    if self.output().len() > self.limits.queue_bytes_max / 4 && consumed < bytes.len() {
                        return Fed { consumed, pressed: true, ..Fed::default() };
                    }
                }
                Answer::File(transfer) => {
                    self.begin_transfer(id, transfer);
                    return Fed { consumed, pressed: consumed < bytes.len(), ..Fed::default() };
                }
                Answer::Http2 => {
                    self.begin_http2(id);
                    let fed = self.feed_http2(id, &mut bytes[consumed..]);
                    return Fed { consumed: consumed + fed.consumed, ..fed };
                }
                // Calls have a stream of their own.
                Answer::Called(..) | Answer::Last => return Fed::closed(bytes, CloseReason::Normal, String::new()),
                Answer::Refused(reason, detail) => {
                    self.metrics.http_errors_total.add(1);
                    return Fed::closed(bytes, reason, detail);
                }
                Answer::Waits(later, task) => {
                    self.wait(id, later);
                    let sent = task.sent();
                    self.begin_task(id, task);
                    let (stalled, pressed) = (self.blocked, consumed < bytes.len());
                    let mut fed = Fed { consumed, stalled, pressed, ..Fed::default() };
                    self.charge_requests(id, sent, &mut fed);
                    return fed;
                }
                Answer::Polls(opened, until, later) => {
                    self.wait(id, later);
                    self.begin_poll(id, until);
                    self.opened(id, opened);
                    return Fed { consumed, pressed: consumed < bytes.len(), ..Fed::default() };
                }
                Answer::Opened(opened) => {
                    let goes_on = !opened.protocol.is_stream();
                    self.opened(id, opened);
                    return if goes_on { Fed { consumed, ..Fed::default() } } else { Fed::all(bytes) };
                }
            }
        }
        Fed::all(bytes)
    }

    /// Looks for one request, and answers it.
    fn request(&mut self, id: ConnId, bytes: &mut [u8]) -> Result<Progress<Answer>, (http::Violation, Later)> {
        let nothing = Progress { consumed: bytes.len(), outcome: None, expects: false };
        let Some(connection) = self.table.get(id) else { return Ok(nothing) };
        let before = connection.partial.as_ref().map(|partial| partial.http.body_start());
        let result = self.with_requests(id, |partial, env, requests| http::receive(partial, bytes, env, requests));
        let Some(progress) = result else { return Ok(nothing) };
        let progress = progress?;
        if let Some(connection) = self.table.get_mut(id) {
            connection.note_unfinished_request(before, self.tick);
        }
        if let Some(connection) = self.table.get(id)
            && connection.partial.is_some()
        {
            let (deadline, _) = self.request_due(connection);
            self.arm_by(id, deadline);
        }
        Ok(progress)
    }

    /// Has `work` done with what answers a connection's requests. An error comes with how its answer has to be.
    pub(super) fn with_requests<T>(
        &mut self,
        id: ConnId,
        work: impl FnOnce(&mut Option<Box<Partial>>, &mut Env<'_>, &mut Requests<'_>) -> Result<T, http::Violation>,
    ) -> Option<Result<T, (http::Violation, Later)>> {
        let version = self.version_of(id);
        let limited = if self.limits.request_rate_per_address > 0 { self.limited(self.peer(id)) } else { None };
        let connection = self.table.get_mut(id)?;
        let is_borne = connection.flags.has(Flags::BORNE);
        let entrance = self.entrances.get(usize::from(connection.listener().0));
        let Some(Kind::Http { site, routes }) = entrance.map(|entrance| &entrance.kind) else { return None };
        let mut env = Env { limits: &self.limits, tools: &mut self.tools, partials: &mut self.partials };
        let mut requests = Requests {
            id,
            shard: self.id,
            now: self.now,
            date: self.date,
            is_draining: self.drain.is_some(),
            is_shed: connection.flags.has(Flags::SHED),
            is_crowded: self.peers.marks(id.index()).has(Marks::CROWDED),
            limited,
            addresses: self.control.addresses(),
            is_first: connection.state == 0 && !is_borne,
            is_last: !is_borne && connection.state.saturating_add(1) >= self.limits.keep_alive_requests_max,
            version: if is_borne { Some(version) } else { None },
            policy: &self.live.policy,
            access: &self.live.access,
            operators_only: self.live.operators_only,
            gate: &mut self.gate,
            control: &self.control,
            unix_ms: self.unix_ms,
            verified: None,
            grant: None,
            renews: false,
            site: &**site,
            routes: *routes,
            limits: &self.limits,
            wheel: &self.wheel,
            router: &mut self.router,
            deflater: &mut self.deflater,
            out: &mut self.out,
            effects: &mut self.effects,
            metrics: &self.metrics,
            later: Later { version, ..Later::default() },
            visit: None,
            logs_visits: self.live.access_rate > 0,
        };
        let result = work(&mut connection.partial, &mut env, &mut requests);
        let (grant, renews) = (requests.grant.take(), requests.renews);
        if grant.is_some() || renews {
            connection.extra.get_or_insert_default().admission = Admission::new(grant, renews);
        } else if let Some(extra) = &mut connection.extra {
            // What an earlier request on it showed is not this one's.
            extra.admission = Admission::default();
        }
        let (later, visit) = (requests.later, requests.visit.take());
        if let Some(visit) = visit {
            let status = result.as_ref().err().map(|violation| violation.status()).or(visit.status);
            if let Some(status) = status {
                self.log_visit(id, &visit, status);
            }
        }
        Some(result.map_err(|violation| (violation, later)))
    }

    /// The next request has its own time.
    pub(super) fn next_request(&mut self, id: ConnId) {
        if let Some(connection) = self.table.get_mut(id) {
            connection.heard = self.tick;
            connection.state = connection.state.saturating_add(1);
        }
        self.arm_due(id);
    }

    /// Notes that the answer to a request comes later. Until then what the connection sends is held.
    pub(super) fn wait(&mut self, id: ConnId, later: Later) {
        if let Some(connection) = self.table.get_mut(id) {
            connection.flags.set(Flags::WAITING);
            connection.heard = self.tick;
            connection.extra.get_or_insert_default().waiting().later = later;
        }
        self.arm_due(id);
    }

    /// Notes that a request which waited has its answer: what came behind it is looked at again.
    pub(super) fn answered(&mut self, id: ConnId) {
        let Some(connection) = self.table.get_mut(id) else { return };
        if !connection.flags.has(Flags::WAITING) {
            return;
        }
        connection.flags.clear(Flags::WAITING);
        if connection.flags.has(Flags::CLOSING) {
            return;
        }
        let is_held = connection.outbox.as_ref().is_some_and(|outbox| !outbox.held.is_empty());
        if is_held || connection.flags.has(Flags::PAUSED) || connection.flags.has(Flags::PEER_DONE) {
            self.resumable.push_back(id);
        }
        self.next_request(id);
    }

    /// The deadline of a connection that no handler has taken yet, and the limit that it is.
    pub(super) fn request_due(&self, connection: &Connection) -> (Tick, Limit) {
        let limits = &self.limits;
        let after = |tick: Tick, duration| tick.later(self.wheel.ticks_in(duration));
        if connection.flags.has(Flags::WAITING) {
            return (after(connection.heard, Self::ANSWER_TIME), Limit::HandshakeTimeout);
        }
        let partial = connection.partial.as_deref();
        if let Some(partial) = partial
            && let Some(start) = partial.http.body_start()
        {
            let stalled = (after(partial.http.heard, limits.body_timeout), Limit::BodyTimeout);
            let received = partial.buf.len().saturating_sub(start) as u64;
            let Some(seconds) = received.checked_div(limits.body_rate_min as u64) else { return stalled };
            let time = std::time::Duration::from_secs(seconds).max(Limits::BODY_GRACE);
            let slow = (after(partial.http.began, time), Limit::BodyRateMin);
            return if slow.0 < stalled.0 { slow } else { stalled };
        }
        if connection.protocol == Protocol::Http && partial.is_none() && connection.state > 0 {
            return (after(connection.heard, limits.keep_alive_timeout), Limit::KeepAliveTimeout);
        }
        (after(connection.heard, limits.handshake_timeout), Limit::HandshakeTimeout)
    }

    /// Notes that something of a body has come on a stream, and sees to it that the rest must come in time.
    pub(super) fn note_body(&mut self, id: ConnId) {
        let tick = self.tick;
        let Some(connection) = self.table.get_mut(id) else { return };
        let before =
            connection.timer.is_armed().then(|| connection.partial.as_ref().and_then(|one| one.http.body_start()));
        connection.note_unfinished_request(before, tick);
        if let Some(connection) = self.table.get(id) {
            let (deadline, _) = self.request_due(connection);
            self.arm_by(id, deadline);
        }
    }

    /// Gives a request its time anew: it was not looked at.
    pub(super) fn prolong_request(&mut self, id: ConnId) {
        if let Some(connection) = self.table.get_mut(id) {
            connection.heard = self.tick;
            if let Some(partial) = &mut connection.partial {
                (partial.http.began, partial.http.heard) = (self.tick, self.tick);
            }
        }
    }
}

impl Connection {
    /// Notes since when it has been sending a request. `before`: what was unfinished, and where its body began.
    fn note_unfinished_request(&mut self, before: Option<Option<usize>>, now: Tick) {
        let Some(partial) = self.partial.as_deref_mut() else { return };
        if before.is_none() && self.state > 0 {
            self.heard = now;
        }
        if partial.http.body_start().is_some() {
            partial.http.heard = now;
            if !matches!(before, Some(Some(_))) {
                partial.http.began = now;
            }
        }
    }
}

impl<B: Backend> Shard<B> {
    /// A request did not come in its time, or nothing that counts as a handshake.
    pub(super) fn request_timeout(&mut self, id: ConnId, limit: Limit) {
        let Some(connection) = self.core.table.get(id) else { return };
        let is_http = connection.protocol == Protocol::Http;
        if connection.flags.has(Flags::WAITING) {
            return self.begin_close(id, CloseReason::TryAgainLater, "another shard did not answer in time");
        }
        self.core.metrics.strike(limit);
        let (message, detail) = match limit {
            // It is merely done.
            Limit::KeepAliveTimeout => return self.begin_close(id, CloseReason::IdleTimeout, ""),
            Limit::BodyTimeout => ("the request's body stopped coming", "no more of a body in time"),
            Limit::BodyRateMin => ("the request's body comes too slowly", "a body came too slowly"),
            _ => ("no complete request came in time", "no complete handshake in time"),
        };
        if is_http {
            self.last_words(id, 408, "request_timeout", message, &[]);
        }
        self.begin_close(id, CloseReason::HandshakeTimeout, detail);
    }

    fn last_words(&mut self, id: ConnId, status: u16, code: &str, message: &str, extra: &[(&str, &str)]) {
        self.begin_output(id);
        let reply = Reply { version: self.core.version_of(id), ..Reply::last(self.core.date) };
        write_error(status, code, message, extra, reply, &mut self.core.out);
        self.write(id);
    }
}

#[cfg(test)]
mod tests;
