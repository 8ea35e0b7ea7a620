//! Streams of HTTP/2, as entries that another connection bears: their requests, and their ends. What they send is framed
//! in `pump`.

use super::Shard;
use super::carrier::{Aftermath, Carrier, goes_on};
use super::closing::{error_of, is_polite};
use super::connection::Flags;
use super::core::Core;
use super::feed::reasoned;
use super::http::{Answer, Later};
use super::opening::Fed;
use crate::app::router::News;
use crate::app::{Code, Status};
use crate::close::CloseReason;
use crate::codec::grpc::Encoding;
use crate::codec::grpc::status::status_fields;
use crate::codec::http2::{ErrorCode, StreamId, response};
use crate::id::ConnId;
use crate::io::Backend;
use crate::session::http::stream::Progress;
use crate::session::http::{self, Version};
use crate::session::{Partial, Protocol, grpc};
use crate::wheel::Tick;

/// What a stream has beside other entries.
#[derive(Debug)]
pub(super) struct Borne {
    /// The connection that bears it.
    pub(super) carrier: ConnId,
    /// Its number there.
    pub(super) stream: StreamId,
    /// When a call must have ended.
    pub(super) deadline: Option<Tick>,
    /// How a call ends.
    pub(super) status: Option<Box<Status>>,
    /// When the client may call again, in milliseconds, where the server has to end the call.
    retry_ms: Option<u64>,
    /// The head of the response has been sent.
    pub(super) begun: bool,
    /// The handler of a call knows that its client has said all.
    finished: bool,
    /// All of the response has been written: it ends when nothing is queued.
    pub(super) ending: bool,
    /// How a call's messages are compressed that say they are.
    pub(super) encoding: Encoding,
}

impl Borne {
    pub(super) const fn new(carrier: ConnId, stream: StreamId) -> Self {
        Self {
            carrier,
            stream,
            deadline: None,
            status: None,
            retry_ms: None,
            begun: false,
            finished: false,
            ending: false,
            encoding: Encoding::Identity,
        }
    }
}

impl<B: Backend> Shard<B> {
    /// Carries out what came of streams' bytes.
    pub(super) fn after_streams(&mut self) {
        while let Some(Aftermath { id, fed, asked }) = self.core.aftermaths.pop() {
            match (fed.close, asked) {
                (Some((reason, detail)), _) => self.begin_close(id, reason, &detail),
                (None, Some((reason, why))) => self.begin_close(id, reason, why),
                (None, None) => {
                    if fed.stalled {
                        self.stall(id);
                    }
                    if let Some(outbox) = self.core.table.get_mut(id).and_then(|one| one.outbox.as_deref_mut()) {
                        outbox.control_replies += fed.control_replies;
                    }
                    self.press(id);
                }
            }
        }
    }

    /// Begins to end a stream.
    pub(super) fn close_stream(&mut self, id: ConnId, reason: CloseReason, detail: &str) {
        let Some(connection) = self.core.table.get_mut(id) else { return };
        let is_broken = connection.flags.has(Flags::BROKEN);
        if connection.flags.has(Flags::CLOSING) || connection.is_answered() {
            if is_broken {
                self.core.abort_stream(id, ErrorCode::Cancel);
            } else if reason == CloseReason::SlowConsumer {
                self.core.report(id, reason, detail);
                self.core.abort_stream(id, ErrorCode::Cancel);
            }
            return;
        }
        connection.flags.set(Flags::CLOSING);
        connection.flags.set(Flags::DEAF);
        // What would have gone on must not look whole (RFC 9113 section 8.1), and what may have been carried out not as if it
        // could be sent again.
        let has_no_end = connection.protocol == Protocol::JsonLines;
        let has_no_head = connection.borne().is_some_and(|borne| !borne.begun);
        let is_cut = connection.is_transferring() || ((has_no_end || has_no_head) && !is_polite(reason));
        connection.extra.iter_mut().for_each(|extra| extra.transfer = None);
        let partial = connection.partial.take();
        partial.into_iter().for_each(|partial| self.core.partials.give(partial));
        let held = self.core.take_held(id);
        self.core.credit(id, held.len());
        self.core.report(id, reason, detail);
        self.core.leave(id, reason);
        if is_broken || is_cut {
            let code = if is_broken { ErrorCode::EnhanceYourCalm } else { error_of(reason) };
            return self.core.abort_stream(id, if code == ErrorCode::NoError { ErrorCode::Cancel } else { code });
        }
        if reason == CloseReason::SlowConsumer {
            self.core.clear_queue(id);
        }
        self.begin_output(id);
        self.core.farewell_stream(id, reason, detail);
        self.write(id);
        self.core.say_last(id);
    }
}

impl Core {
    /// Takes a request's head.
    pub(super) fn begin_request(&mut self, id: ConnId, head: Box<Partial>, ends: bool) -> Fed {
        if ends {
            self.set(id, Flags::PEER_DONE);
        }
        let result =
            self.with_requests(id, |partial, env, requests| http::stream::begin(partial, head, ends, env, requests));
        self.take_progress(id, result)
    }

    /// Takes more of a request's body, if it is not whole.
    pub(super) fn feed_body(&mut self, id: ConnId, bytes: &[u8]) -> Fed {
        let Some(connection) = self.table.get(id) else { return Fed::all(bytes) };
        let ends = connection.flags.has(Flags::PEER_DONE);
        if connection.partial.is_none() {
            return Fed::all(bytes);
        }
        let result =
            self.with_requests(id, |partial, env, requests| http::stream::go_on(partial, bytes, ends, env, requests));
        Fed { consumed: bytes.len(), ..self.take_progress(id, result) }
    }

    fn take_progress(&mut self, id: ConnId, result: Option<Result<Progress<Answer>, (http::Violation, Later)>>) -> Fed {
        match result {
            None => Fed::default(),
            Some(Ok(Progress { outcome: None, expects })) => {
                self.note_body(id);
                let fed = Fed { expects, ..Fed::default() };
                self.note_unfinished(id, fed)
            }
            Some(Ok(Progress { outcome: Some(answer), .. })) => {
                self.metrics.http_requests_total.add(1);
                self.take_answer_of_stream(id, answer)
            }
            Some(Err((violation, later))) => {
                violation.write(later.reply(self.date), &mut self.out);
                self.metrics.http_requests_total.add(1);
                self.metrics.http_errors_total.add(1);
                reasoned(&violation, &self.metrics);
                self.answer_is_whole(id);
                Fed::default()
            }
        }
    }

    fn take_answer_of_stream(&mut self, id: ConnId, answer: Answer) -> Fed {
        if !goes_on(&answer) {
            if let Answer::Refused(..) = &answer {
                self.metrics.http_errors_total.add(1);
            }
            self.answer_is_whole(id);
            return Fed::default();
        }
        match answer {
            Answer::File(transfer) => self.begin_transfer(id, transfer),
            Answer::Waits(later, task) => {
                self.wait(id, later);
                let sent = task.sent();
                self.begin_task(id, task);
                // A request has a stream of its own: what it sends is counted for the connection.
                self.posted = [self.posted, sent].into_iter().sum();
                return Fed { stalled: self.blocked, ..Fed::default() };
            }
            Answer::Polls(opened, until, later) => {
                self.wait(id, later);
                self.begin_poll(id, until);
                self.opened(id, opened);
            }
            Answer::Opened(opened) => self.opened(id, opened),
            Answer::Called(opened, call) => {
                self.opened(id, opened);
                self.begin_call(id, &call);
                if self.flag(id, Flags::PEER_DONE) {
                    return self.finish_call(id);
                }
            }
            Answer::Http2 | Answer::KeepAlive | Answer::Last | Answer::Refused(..) => {}
        }
        Fed::default()
    }

    /// Notes what a call's head says beside the method.
    fn begin_call(&mut self, id: ConnId, call: &grpc::Call) {
        let deadline = call.timeout.map(|timeout| self.after(timeout));
        if let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) {
            borne.deadline = deadline;
            borne.encoding = call.encoding;
        }
        if let Some(deadline) = deadline {
            self.arm_by(id, deadline);
        }
    }

    /// The client of a call has said all.
    pub(super) fn finish_call(&mut self, id: ConnId) -> Fed {
        let Some(connection) = self.table.get_mut(id) else { return Fed::default() };
        if connection.borne().is_none_or(|borne| std::mem::replace(&mut borne.finished, true)) {
            return Fed::default();
        }
        if let Err(violation) = grpc::end(&mut connection.partial, &mut self.partials) {
            let status = Box::new(violation.status());
            connection.borne().into_iter().for_each(|borne| borne.status = Some(status.clone()));
            return Fed { close: Some(reasoned(&violation, &self.metrics)), ..Fed::default() };
        }
        let Some(connection) = self.table.get(id) else { return Fed::default() };
        let (route, state) = (connection.route, connection.state);
        let topic = self.members.name(connection.membership.topic).cloned();
        let grant = connection.grant().cloned();
        let subject = self.subject(id, connection, topic.as_ref(), grant.as_deref());
        let mut context = crate::app::Context::new(subject, &mut self.deflater, &mut self.out, &mut self.effects);
        if self.router.tell(route, state, News::Finish, &mut context).is_err() {
            self.metrics.handler_panics_total.add(1);
            return Fed { close: Some((CloseReason::Internal, "the handler panicked".into())), ..Fed::default() };
        }
        Fed::default()
    }

    /// The version of a stream's answers; of others HTTP/1.1.
    pub(super) fn version_of(&self, id: ConnId) -> Version {
        let extra = self.table.get(id).and_then(|connection| connection.extra.as_deref());
        let borne = extra.and_then(|extra| extra.borne.as_deref());
        borne.map_or(Version::Http11, |borne| Version::Http2(borne.stream))
    }

    /// Notes that a response has been written whole.
    fn answer_is_whole(&mut self, id: ConnId) {
        if let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) {
            borne.ending = true;
        }
    }

    /// The same outside of received bytes: it ends when what is queued has left.
    pub(super) fn say_last(&mut self, id: ConnId) {
        self.answer_is_whole(id);
        self.set(id, Flags::DEAF);
        let Some(connection) = self.table.get_mut(id) else { return };
        connection.flags.clear(Flags::WAITING);
        if connection.outbox.is_none() {
            return self.end_stream(id);
        }
        let deadline = self.after(self.limits.queue_stall_timeout);
        self.arm(id, deadline);
    }

    /// Bytes of a stream that were held are done with: the peer may send more.
    pub(super) fn credit(&mut self, id: ConnId, bytes: usize) {
        let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) else { return };
        let stream = borne.stream;
        if bytes > 0 {
            self.through_carrier(id, |_, bearer, frames| bearer.http2.consumed(stream, bytes, frames));
        }
    }

    /// Has something done with what bears a stream, and sends the frames that come of it.
    pub(super) fn through_carrier(&mut self, id: ConnId, work: impl FnOnce(&mut Self, &mut Carrier, &mut Vec<u8>)) {
        let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) else { return };
        let carrier = borne.carrier;
        let Some(mut bearer) = self.take_carrier(carrier) else { return };
        let mut frames = Vec::new();
        work(self, &mut bearer, &mut frames);
        self.put_carrier(carrier, bearer);
        self.say(carrier, &frames);
    }

    /// Ends a stream for which nothing is queued: END_STREAM, trailers, or a reset where no response has begun.
    pub(super) fn end_stream(&mut self, id: ConnId) {
        let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) else { return };
        let stream = borne.stream;
        self.through_carrier(id, |core, bearer, frames| core.write_end(bearer, id, stream, frames));
        self.release_stream(id);
    }

    /// Ends a call that has failed, whatever is left of its messages, if the entry is one: trailers need no window (RFC 9113
    /// section 6.9), so whoever does not read hears why all the same.
    pub(super) fn fail_call(&mut self, id: ConnId) -> bool {
        let borne = self.table.get_mut(id).and_then(|connection| connection.borne());
        let is_failed = borne.and_then(|borne| borne.status.as_deref()).is_some_and(|status| status.code != Code::Ok);
        if is_failed {
            self.end_stream(id);
        }
        is_failed
    }

    fn write_end(&mut self, bearer: &mut Carrier, id: ConnId, stream: StreamId, out: &mut Vec<u8>) {
        let Some(connection) = self.table.get_mut(id) else { return };
        let is_call = connection.protocol == Protocol::Grpc;
        let Some(borne) = connection.borne() else { return };
        if !borne.begun {
            let code = if borne.ending { ErrorCode::RefusedStream } else { ErrorCode::Cancel };
            return bearer.http2.reset(stream, code, out);
        }
        if is_call {
            let status = borne.status.take().map_or(Status::OK, |status| *status);
            let (code, message) = status_fields(&status);
            let retry = borne.retry_ms.map(|millis| millis.to_string());
            let retry = retry.as_ref().map(|millis| (&b"grpc-retry-pushback-ms"[..], millis.as_bytes()));
            response::write_trailers(stream, trailers(code, message.as_deref()).chain(retry), out);
            bearer.http2.ended(stream);
        } else {
            out.extend_from_slice(&bearer.http2.data(stream, 0, true));
        }
        bearer.dismiss(stream, out);
    }

    /// Resets a stream, whatever is queued for it. Its peer is told, unless that did it or is heard no more.
    pub(super) fn abort_stream(&mut self, id: ConnId, code: ErrorCode) {
        let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) else { return };
        let (carrier, stream) = (borne.carrier, borne.stream);
        if let Some(mut bearer) = self.take_carrier(carrier) {
            let mut frames = Vec::new();
            bearer.http2.reset(stream, code, &mut frames);
            self.put_carrier(carrier, bearer);
            if !self.flag(carrier, Flags::DEAF) && !self.flag(carrier, Flags::BROKEN) {
                self.say(carrier, &frames);
            }
        }
        self.release_stream(id);
    }

    /// A stream's entry goes, and its carrier is looked at, which may have waited for that.
    pub(super) fn release_stream(&mut self, id: ConnId) {
        let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) else { return };
        let carrier = borne.carrier;
        self.forget_stream(id);
        let tick = self.tick;
        let Some(connection) = self.table.get_mut(carrier) else { return };
        let is_closing = connection.flags.has(Flags::CLOSING);
        let Some(carried) = connection.carrier().filter(|carried| carried.http2.streams() == 0) else { return };
        let is_leaving = carried.leaving;
        if is_closing {
            self.closing.push_back(carrier);
        } else {
            connection.hear(tick);
            if is_leaving {
                self.doomed.push((carrier, CloseReason::Normal, ""));
            }
        }
    }

    /// A stream's entry goes.
    pub(super) fn forget_stream(&mut self, id: ConnId) {
        // Its handler has been told, or is told now.
        self.leave(id, CloseReason::Normal);
        self.wheel.disarm(&mut self.table, id.index());
        self.drop_outbox(id);
        if let Some(connection) = self.table.remove(id) {
            connection.partial.into_iter().for_each(|partial| self.partials.give(partial));
            self.streams -= 1;
            self.metrics.http2_streams.sub(1);
            self.metrics.speaks(Some(connection.protocol.counted()), None);
        }
    }

    /// Writes a stream's good-bye, and notes how it ends.
    fn farewell_stream(&mut self, id: ConnId, reason: CloseReason, detail: &str) {
        let Some(connection) = self.table.get_mut(id) else { return };
        if connection.protocol != Protocol::Grpc {
            return self.farewell(id, reason, detail);
        }
        let Some(carrier) = connection.borne().filter(|borne| borne.status.is_none()).map(|borne| borne.carrier) else {
            return;
        };
        let status = Status::from(reason);
        let retry_ms = (reason == CloseReason::GoingAway).then(|| self.retry_after_ms(carrier));
        let message = match (retry_ms, reason) {
            (Some(millis), _) => format!("{}; retry after {millis} ms", status.message).into(),
            // What the log says of these is the server's own business.
            (_, CloseReason::IdleTimeout | CloseReason::HeartbeatTimeout | CloseReason::SlowConsumer) => status.message,
            _ => Self::told(detail).map_or(status.message, |told| told.to_owned().into()),
        };
        if let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) {
            borne.status = Some(Box::new(Status { message, ..status }));
            borne.retry_ms = retry_ms;
        }
    }
}

/// The fields that end a call.
pub(super) fn trailers<'s>(code: &'s str, message: Option<&'s str>) -> impl Iterator<Item = (&'s [u8], &'s [u8])> {
    let message = message.map(|message| (&b"grpc-message"[..], message.as_bytes()));
    [(&b"grpc-status"[..], code.as_bytes())].into_iter().chain(message)
}

#[cfg(test)]
mod tests;
