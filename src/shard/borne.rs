//! Streams of HTTP/2, as entries that another connection bears: their requests, and the way of what they send.
//!
//! ```text
//!   response head --------------------------------------------> carrier's queue
//!   body --> own queue --> as far as the windows reach, framed --> carrier's queue
//!                  \---> nothing left, all said: END_STREAM or trailers, and the entry goes
//! ```
//!
//! What a stream writes while its carrier's bytes are looked at is framed where it lies, without a queue, if the windows
//! allow it. A queue is bounded like any other; what a slow reader misses is its route's to say.

use super::Shard;
use super::carrier::{Aftermath, Carrier, goes_on};
use super::connection::Flags;
use super::core::Core;
use super::http::{Answer, Later};
use super::ingress::reasoned;
use super::opening::Fed;
use crate::app::router::News;
use crate::app::{Code, Status};
use crate::buf::Next;
use crate::close::CloseReason;
use crate::codec::grpc::Encoding;
use crate::codec::grpc::status::status_fields;
use crate::codec::http2::frame::{self, HEADER_BYTES};
use crate::codec::http2::{ErrorCode, StreamId, response};
use crate::id::ConnId;
use crate::io::Backend;
use crate::message::Image;
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
    /// The head of the response has been sent.
    begun: bool,
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
            begun: false,
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
                (None, Some(reason)) => self.begin_close(id, reason, ""),
                (None, None) => {
                    if fed.stalled {
                        self.stall(id);
                    }
                    if fed.pressed {
                        self.press(id);
                    }
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
                self.core.release_stream(id);
            } else if reason == CloseReason::SlowConsumer {
                self.core.report(id, reason, detail);
                self.core.abort_stream(id, ErrorCode::Cancel);
            }
            return;
        }
        connection.flags.set(Flags::CLOSING);
        connection.flags.set(Flags::DEAF);
        connection.extra.iter_mut().for_each(|extra| extra.transfer = None);
        let partial = connection.partial.take();
        partial.into_iter().for_each(|partial| self.core.partials.give(partial));
        let held = self.core.take_held(id);
        self.core.credit(id, held.len());
        self.core.report(id, reason, detail);
        self.core.leave(id, reason);
        if is_broken {
            return self.core.release_stream(id);
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
    /// Room that is left for a DATA frame's header.
    pub(super) const HOLE_BYTES: usize = HEADER_BYTES;
    /// What may be queued for a carrier before its streams wait.
    const CARRIER_BYTES_MAX: usize = 64 * 1024;
    /// Parts of shared images up to this size are copied beside their frame's header.
    const COPY_BYTES_MAX: usize = 4 * 1024;

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
                self.begin_task(id, task);
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
        if let Err(violation) = grpc::end(&mut connection.partial, &mut self.partials) {
            let status = Box::new(violation.status());
            connection.borne().into_iter().for_each(|borne| borne.status = Some(status.clone()));
            return Fed { close: Some(reasoned(&violation, &self.metrics)), ..Fed::default() };
        }
        let Some(connection) = self.table.get(id) else { return Fed::default() };
        let (route, state) = (connection.route, connection.state);
        let topic = self.members.name(connection.membership.topic).cloned();
        let subject = self.subject(id, connection, topic.as_ref());
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

    /// Makes frames of what a stream has written at the end of `out`, behind a hole at `mark`.
    pub(super) fn frame_output(&mut self, carrier: &mut Carrier, id: ConnId, stream: StreamId, mark: usize) {
        let body = mark + Self::HOLE_BYTES;
        let Some(connection) = self.table.get_mut(id) else { return self.out.truncate(mark) };
        let is_queued = connection.outbox.is_some();
        let is_call = connection.protocol == Protocol::Grpc;
        let Some(borne) = connection.borne() else { return self.out.truncate(mark) };
        let head = if borne.begun { 0 } else { head_bytes(&self.out[body..]) };
        borne.begun |= head > 0;
        let ending = borne.ending;
        // The head goes before the hole.
        let ended = head > 0 && self.out[body + 4] & frame::flag::END_STREAM != 0;
        self.out.copy_within(body..body + head, mark);
        let (hole, length) = (mark + head, self.out.len() - body - head);
        if ended {
            carrier.http2.ended(stream);
            self.out.truncate(hole);
            self.request_is_of_no_use(carrier, stream);
            return self.forget_stream(id);
        }
        if length > 0 && (is_queued || length > carrier.http2.room(stream)) {
            let rest = self.out.split_off(body + head);
            self.out.truncate(hole);
            self.queue_body(id, &rest);
            return;
        }
        let ends = ending && !is_call && !is_queued;
        if length == 0 && !ends {
            self.out.truncate(hole);
            if ending && !is_queued {
                self.end_call(carrier, id, stream);
            }
            return;
        }
        let header = carrier.http2.data(stream, length, ends);
        self.out[hole..hole + HEADER_BYTES].copy_from_slice(&header);
        if ends {
            self.request_is_of_no_use(carrier, stream);
            self.forget_stream(id);
        } else if ending {
            self.end_call(carrier, id, stream);
        }
    }

    /// Ends a call whose messages have all been framed.
    fn end_call(&mut self, carrier: &mut Carrier, id: ConnId, stream: StreamId) {
        let mut frames = std::mem::take(&mut self.out);
        self.write_end(carrier, id, stream, &mut frames);
        self.out = frames;
        self.forget_stream(id);
    }

    /// The response has ended: if the request has not, its rest is of no use (RFC 9113 section 8.1).
    fn request_is_of_no_use(&mut self, carrier: &mut Carrier, stream: StreamId) {
        if !carrier.http2.peer_ended(stream) {
            carrier.http2.reset(stream, ErrorCode::NoError, &mut self.out);
        }
    }

    /// Takes what was written for a stream at the end of `out`, where it is the entry at hand.
    pub(super) fn take_output_of_stream(&mut self, id: ConnId) {
        let start = self.out_start;
        let output = self.out.split_off(start);
        self.deliver_output(id, &output);
    }

    /// Sends what a stream has written: the head of its response at once, what follows through its queue.
    pub(super) fn deliver_output(&mut self, id: ConnId, output: &[u8]) {
        let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) else { return };
        let head = if borne.begun { 0 } else { head_bytes(output) };
        let (carrier, stream) = (borne.carrier, borne.stream);
        let (head, body) = output.split_at(head);
        if !head.is_empty() {
            borne.begun = true;
            self.write_own(carrier, |own| own.extend_from_slice(head));
            if head[4] & frame::flag::END_STREAM != 0 {
                let Some(mut bearer) = self.take_carrier(carrier) else { return };
                bearer.http2.ended(stream);
                let mut frames = Vec::new();
                if !bearer.http2.peer_ended(stream) {
                    bearer.http2.reset(stream, ErrorCode::NoError, &mut frames);
                }
                self.put_carrier(carrier, bearer);
                self.say(carrier, &frames);
                return self.release_stream(id);
            }
        }
        self.queue_body(id, body);
    }

    fn queue_body(&mut self, id: ConnId, body: &[u8]) {
        if body.is_empty() {
            return;
        }
        let Some(outbox) = self.outbox(id) else { return };
        let before = outbox.memory();
        outbox.push_own(body);
        let after = outbox.memory();
        self.count_queued(before, after);
        self.mark_dirty(id);
    }

    /// Frames what is queued for a stream, as far as the windows and its carrier's queue have room.
    pub(super) fn pump(&mut self, id: ConnId) {
        let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) else { return };
        let (carrier, stream) = (borne.carrier, borne.stream);
        let Some(mut bearer) = self.take_carrier(carrier) else { return };
        let is_done = self.pump_into(id, stream, carrier, &mut bearer);
        self.put_carrier(carrier, bearer);
        if is_done {
            self.outbox_done(id);
        }
    }

    /// Returns whether nothing is queued any more.
    fn pump_into(&mut self, id: ConnId, stream: StreamId, carrier: ConnId, bearer: &mut Carrier) -> bool {
        let mut gather = std::mem::take(&mut self.gather);
        let is_done = loop {
            let queued =
                self.table.get(carrier).and_then(|one| one.outbox.as_deref()).map_or(0, crate::buf::Outbox::cost);
            let (tick, stall) = (self.tick, self.after(self.limits.queue_stall_timeout));
            let Some(outbox) = self.table.get_mut(id).and_then(|connection| connection.outbox.as_deref_mut()) else {
                break false;
            };
            if outbox.is_empty() {
                break true;
            }
            let room = bearer.http2.room(stream);
            if queued >= Self::CARRIER_BYTES_MAX || room == 0 {
                outbox.waits = true;
                if room > 0 && !bearer.waiting.contains(&id) {
                    bearer.waiting.push_back(id);
                }
                self.arm_by(id, stall);
                break false;
            }
            let before = outbox.memory();
            let next = outbox.next_within(&mut gather, room);
            let length = next.len().min(room);
            let header = bearer.http2.data(stream, length, false);
            let image = match &next {
                Next::Shared(image) if length > Self::COPY_BYTES_MAX => {
                    Some(Image { end: image.start + length, ..(*image).clone() })
                }
                _ => None,
            };
            let copied = match next {
                _ if image.is_some() => &[][..],
                Next::Bytes(bytes) => &bytes[..length],
                Next::Shared(image) => &image.as_slice()[..length],
            };
            let mut frame = std::mem::take(&mut self.line);
            frame.clear();
            frame.extend_from_slice(&header);
            frame.extend_from_slice(copied);
            outbox.advance(length);
            outbox.progress = tick;
            let after = outbox.memory();
            self.count_queued(before, after);
            self.write_own(carrier, |own| own.extend_from_slice(&frame));
            if let Some(image) = image {
                self.queue_image(carrier, image);
            }
            self.line = frame;
        };
        self.gather = gather;
        is_done
    }

    fn queue_image(&mut self, id: ConnId, image: Image) {
        let Some(outbox) = self.outbox(id) else { return };
        let before = outbox.memory();
        outbox.push_shared(image, 0);
        let after = outbox.memory();
        self.count_queued(before, after);
        self.mark_dirty(id);
    }

    /// A window has grown for a stream that may wait for it.
    pub(super) fn window_grew(&mut self, id: ConnId) {
        if let Some(outbox) = self.table.get_mut(id).and_then(|connection| connection.outbox.as_deref_mut()) {
            outbox.waits = false;
            self.mark_dirty(id);
        }
    }

    /// What was queued for a carrier has left: streams that waited for that can go on.
    pub(super) fn carrier_has_room(&mut self, id: ConnId) {
        let Some(connection) = self.table.get_mut(id) else { return };
        let queued = connection.outbox.as_deref().map_or(0, crate::buf::Outbox::cost);
        let Some(carrier) = connection.carrier() else { return };
        if carrier.waiting.is_empty() || queued > Self::CARRIER_BYTES_MAX / 2 {
            return;
        }
        let waiting = std::mem::take(&mut carrier.waiting);
        waiting.into_iter().for_each(|stream| self.window_grew(stream));
    }

    /// Bytes of a stream that were held are done with: the peer may send more.
    pub(super) fn credit(&mut self, id: ConnId, bytes: usize) {
        let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) else { return };
        let (carrier, stream) = (borne.carrier, borne.stream);
        if bytes == 0 {
            return;
        }
        let Some(mut bearer) = self.take_carrier(carrier) else { return };
        let mut frames = Vec::new();
        bearer.http2.consumed(stream, bytes, &mut frames);
        self.put_carrier(carrier, bearer);
        self.say(carrier, &frames);
    }

    /// Ends a stream for which nothing is queued: END_STREAM, trailers, or a reset where no response has begun.
    pub(super) fn end_stream(&mut self, id: ConnId) {
        let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) else { return };
        let (carrier, stream) = (borne.carrier, borne.stream);
        let Some(mut bearer) = self.take_carrier(carrier) else { return };
        let mut frames = Vec::new();
        self.write_end(&mut bearer, id, stream, &mut frames);
        self.put_carrier(carrier, bearer);
        self.say(carrier, &frames);
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
            response::write_trailers(stream, trailers(code, message.as_deref()), out);
            bearer.http2.ended(stream);
        } else {
            out.extend_from_slice(&bearer.http2.data(stream, 0, true));
        }
        if !bearer.http2.peer_ended(stream) {
            bearer.http2.reset(stream, ErrorCode::NoError, out);
        }
    }

    /// Resets a stream, whatever is queued for it.
    pub(super) fn abort_stream(&mut self, id: ConnId, code: ErrorCode) {
        let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) else { return };
        let (carrier, stream) = (borne.carrier, borne.stream);
        if let Some(mut bearer) = self.take_carrier(carrier) {
            let mut frames = Vec::new();
            bearer.http2.reset(stream, code, &mut frames);
            self.put_carrier(carrier, bearer);
            self.say(carrier, &frames);
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
        if connection.flags.has(Flags::CLOSING) {
            self.closing.push_back(carrier);
        } else if let Some(carried) = connection.carrier()
            && carried.http2.streams() == 0
        {
            let is_leaving = carried.leaving;
            connection.hear(tick);
            if is_leaving {
                self.doomed.push((carrier, CloseReason::Normal, ""));
            }
        }
    }

    /// A stream's entry goes.
    fn forget_stream(&mut self, id: ConnId) {
        // Its handler has been told, or is told now.
        self.leave(id, CloseReason::Normal);
        self.wheel.disarm(&mut self.table, id.index());
        self.drop_outbox(id);
        if let Some(connection) = self.table.remove(id) {
            connection.partial.into_iter().for_each(|partial| self.partials.give(partial));
            self.streams -= 1;
            self.metrics.http2_streams.sub(1);
        }
    }

    /// Writes a stream's good-bye, and notes how it ends.
    fn farewell_stream(&mut self, id: ConnId, reason: CloseReason, detail: &str) {
        let Some(connection) = self.table.get_mut(id) else { return };
        if connection.protocol != Protocol::Grpc {
            return self.farewell(id, reason);
        }
        let Some(carrier) = connection.borne().filter(|borne| borne.status.is_none()).map(|borne| borne.carrier) else {
            return;
        };
        let status = Status::from(reason);
        let message = match reason {
            CloseReason::GoingAway => {
                format!("{}; retry after {} ms", status.message, self.retry_after_ms(carrier)).into()
            }
            // What the log says of these is the server's own business.
            CloseReason::IdleTimeout | CloseReason::HeartbeatTimeout | CloseReason::SlowConsumer => status.message,
            _ if detail.is_empty() => status.message,
            _ => detail.to_owned().into(),
        };
        if let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) {
            borne.status = Some(Box::new(Status { message, ..status }));
        }
    }
}

/// The fields that end a call.
pub(super) fn trailers<'s>(code: &'s str, message: Option<&'s str>) -> impl Iterator<Item = (&'s [u8], &'s [u8])> {
    let message = message.map(|message| (&b"grpc-message"[..], message.as_bytes()));
    [(&b"grpc-status"[..], code.as_bytes())].into_iter().chain(message)
}

/// Bytes of the HEADERS frame at the start of a response.
fn head_bytes(response: &[u8]) -> usize {
    response.first_chunk().map_or(0, |header| {
        let header = frame::Header::parse(header);
        debug_assert!(header.kind == frame::kind::HEADERS, "a response begins with its head");
        HEADER_BYTES + header.length as usize
    })
}
