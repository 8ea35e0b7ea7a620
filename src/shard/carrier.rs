//! Connections of HTTP/2, as the bearers of their streams.
//!
//! A stream is an entry of the table like a connection: it has a route, subscriptions, a queue and a timer of its own, and
//! all that is done with connections is done with it. Only its bytes come from and go to another entry, its carrier, in
//! DATA frames. What comes is looked at here, what goes in `pump`.
//!
//! ```text
//!   socket <-> carrier (frames, windows) <-> stream (request, events, call)
//!                                        <-> stream
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use super::borne::Borne;
use super::connection::{Connection, Flags};
use super::core::Core;
use super::http::Answer;
use super::opening::Fed;
use super::timers::Due;
use super::unloading::{Unload, Unloading};
use crate::app::router::News;
use crate::close::CloseReason;
use crate::codec::http2::{ErrorCode, StreamId, response};
use crate::id::ConnId;
use crate::rule::Limit;
use crate::session::http2::{Event, Http2, Violation};
use crate::session::{Env, Partial, Protocol};
use crate::wheel::{Tick, jitter};

/// What a connection of HTTP/2 has beside others.
#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) http2: Http2,
    /// Streams that have something to send and wait until what is queued here has left.
    pub(super) waiting: VecDeque<ConnId>,
    /// The peer opens no more streams.
    pub(super) leaving: bool,
    /// Since when it has been asked to open no more streams: until then at the latest it must have heard that.
    pub(super) warned: Option<Tick>,
    /// How far its streams have ended, once it ends.
    pub(super) unloading: Option<Unloading>,
    /// Which stream goes first when the connection's window has grown.
    turn: usize,
}

impl Carrier {
    /// The response of a stream has ended: if the request has not, its rest is of no use (RFC 9113 section 8.1).
    pub(super) fn dismiss(&mut self, stream: StreamId, out: &mut Vec<u8>) {
        if !self.http2.peer_ended(stream) {
            self.http2.reset(stream, ErrorCode::NoError, out);
        }
    }
}

/// What came of a stream's bytes and must be carried out when its carrier's have all been looked at.
#[derive(Debug)]
pub(super) struct Aftermath {
    pub(super) id: ConnId,
    pub(super) fed: Fed,
    pub(super) asked: Option<(CloseReason, &'static str)>,
}

/// How far a stream has looked at its bytes.
struct Done {
    consumed: usize,
    /// The rest is to be looked at later.
    pressed: bool,
}

impl Core {
    /// Time that a client has to hear that it should open no more streams.
    const WARNING_TIME: Duration = Duration::from_secs(2);
    /// How many bytes of a message are as much work as a frame.
    const FRAME_BYTES: usize = 96;
    /// The same of waking a stream.
    const WAKING_BYTES: usize = 512;
    /// The same of a request.
    const REQUEST_BYTES: usize = 8 * 1024;

    /// Makes a connection one of HTTP/2, whose preface has come.
    pub(super) fn begin_http2(&mut self, id: ConnId) {
        let http2 = *Http2::begin(&self.limits, self.tick, &mut self.out);
        self.metrics.handshakes_total.add(1);
        self.metrics.http2_connections.add(1);
        self.note_handshake(id);
        self.speak(id, Protocol::Http2);
        let Some(connection) = self.table.get_mut(id) else { return };
        connection.heard = self.tick;
        let carrier =
            Carrier { http2, waiting: VecDeque::new(), leaving: false, warned: None, unloading: None, turn: 0 };
        connection.extra.get_or_insert_default().carrier = Some(Box::new(carrier));
        self.arm_due(id);
    }

    /// Takes a carrier out of its entry, so that it and the streams can be worked on together. [`Core::put_carrier`] must
    /// follow.
    pub(super) fn take_carrier(&mut self, id: ConnId) -> Option<Box<Carrier>> {
        self.table.get_mut(id)?.extra.as_deref_mut()?.carrier.take()
    }

    pub(super) fn put_carrier(&mut self, id: ConnId, carrier: Box<Carrier>) {
        if let Some(extra) = self.table.get_mut(id).and_then(|connection| connection.extra.as_deref_mut()) {
            extra.carrier = Some(carrier);
        }
    }

    /// Looks at received bytes of a connection of HTTP/2.
    pub(super) fn feed_http2(&mut self, id: ConnId, bytes: &mut [u8]) -> Fed {
        let Some(mut carrier) = self.take_carrier(id) else { return Fed::all(bytes) };
        self.begin_charging_streams();
        let mut fed = self.feed_frames_of(id, &mut carrier, bytes);
        self.charge_streams(id, &mut fed);
        self.put_carrier(id, carrier);
        self.note_unfinished_frame(id);
        self.note_unfinished(id, fed)
    }

    /// Notes since when a frame, or a head in several, has not been whole.
    fn note_unfinished_frame(&mut self, id: ConnId) {
        let tick = self.tick;
        let partial = self.table.get_mut(id).and_then(|connection| connection.partial.as_deref_mut());
        let Some(partial) = partial.filter(|partial| partial.http.began == Tick(0)) else { return };
        partial.http.began = tick;
        let deadline = self.after(self.limits.handshake_timeout);
        self.arm_by(id, deadline);
    }

    fn feed_frames_of(&mut self, id: ConnId, carrier: &mut Carrier, bytes: &mut [u8]) -> Fed {
        let (mut consumed, all) = (0, bytes.len());
        while consumed < all {
            let Some(connection) = self.table.get_mut(id) else { break };
            let mut env = Env { limits: &self.limits, tools: &mut self.tools, partials: &mut self.partials };
            let rest = &mut bytes[consumed..];
            let found = carrier.http2.receive(&mut connection.partial, rest, self.tick, &mut env, &mut self.out);
            let event = match found {
                Ok((used, event)) => {
                    consumed += used;
                    event
                }
                Err(violation) => return self.violated(id, carrier, violation, all),
            };
            self.handed += Self::FRAME_BYTES;
            match event {
                Some(event) => self.take_event(id, carrier, event),
                None if consumed == all => break,
                None => self.handed += Self::FRAME_BYTES * Http2::FRAMES_IN_A_ROW,
            }
            let is_much = self.output().len() > self.limits.queue_bytes_max / 4 || self.has_looked_long();
            if is_much && consumed < all {
                return Fed { consumed, pressed: true, ..Fed::default() };
            }
        }
        if carrier.leaving && carrier.http2.streams() == 0 {
            self.doomed.push((id, CloseReason::Normal, ""));
        }
        Fed { consumed: all, ..Fed::default() }
    }

    /// The peer broke the rules of the connection.
    fn violated(&mut self, id: ConnId, carrier: &mut Carrier, violation: Violation, consumed: usize) -> Fed {
        carrier.http2.go_away(violation.code(), &violation.to_string(), &mut self.out);
        self.set(id, Flags::DEAF);
        let (reason, detail) = super::feed::reasoned(&violation, &self.metrics);
        Fed { consumed, close: Some((reason, detail)), ..Fed::default() }
    }

    fn take_event(&mut self, id: ConnId, carrier: &mut Carrier, event: Event<'_>) {
        match event {
            Event::Request { stream, head, ends } => self.take_stream_request(id, carrier, stream, head, ends),
            Event::Data { stream, name, bytes, ends } => {
                let length = bytes.len();
                let done = self.feed_stream(carrier, name, stream, bytes, ends);
                carrier.http2.consumed(stream, done.min(length), &mut self.out);
            }
            Event::Ends { stream, name } => {
                self.feed_stream(carrier, name, stream, &mut [], true);
            }
            Event::Reset { name, code, rule } => {
                rule.into_iter().for_each(|rule| self.metrics.count_violation(rule));
                self.stream_lost(name, code);
            }
            Event::Refused(rule) => self.metrics.count_violation(rule),
            Event::Window(Some(name)) => {
                self.handed += Self::WAKING_BYTES;
                self.window_grew(name);
            }
            Event::Window(None) => {
                let mut names: Vec<_> = carrier.http2.names().collect();
                // Where each update is used up by the first streams, all are the first ones in turn.
                carrier.turn = carrier.turn.wrapping_add(1);
                let first = carrier.turn % names.len().max(1);
                names.rotate_left(first);
                self.handed += names.len() * Self::WAKING_BYTES;
                names.into_iter().for_each(|name| self.window_grew(name));
            }
            Event::Pong => {}
            Event::Heard => self.doomed.push((id, CloseReason::GoingAway, "")),
            Event::GoAway => carrier.leaving = true,
        }
    }

    /// Takes a request in: its stream has an entry from here on.
    fn take_stream_request(
        &mut self,
        id: ConnId,
        carrier: &mut Carrier,
        stream: StreamId,
        head: Box<Partial>,
        ends: bool,
    ) {
        let Some(name) = self.admit_stream(id, stream) else {
            self.partials.give(head);
            return carrier.http2.reset(stream, ErrorCode::RefusedStream, &mut self.out);
        };
        carrier.http2.name(stream, name);
        self.handed += Self::REQUEST_BYTES;
        self.metrics.http2_streams.add(1);
        self.metrics.http2_streams_opened_total.add(1);
        if carrier.http2.streams() == 1 {
            self.arm_heartbeat_of(id);
        }
        self.on_stream(carrier, name, stream, |core| core.begin_request(name, head, ends));
    }

    /// An entry for a stream, if there is room.
    fn admit_stream(&mut self, carrier: ConnId, stream: StreamId) -> Option<ConnId> {
        let connection = self.table.get(carrier).filter(|one| !one.flags.has(Flags::CLOSING))?;
        let listener = connection.listener();
        if self.streams >= Self::streams_max(&self.limits) {
            self.metrics.strike(Limit::Http2StreamsMax);
            return None;
        }
        let name = self.table.insert(listener, Protocol::Http, self.tick)?;
        self.metrics.speaks(None, Some(Protocol::Http.counted()));
        self.streams += 1;
        let connection = self.table.get_mut(name)?;
        connection.flags.set(Flags::BORNE);
        connection.extra.get_or_insert_default().borne = Some(Box::new(Borne::new(carrier, stream)));
        Some(name)
    }

    /// Hands bytes of a stream's to it. Returns how many of them are done with; what is not is held.
    fn feed_stream(
        &mut self,
        carrier: &mut Carrier,
        name: ConnId,
        stream: StreamId,
        bytes: &mut [u8],
        ends: bool,
    ) -> usize {
        let Some(connection) = self.table.get_mut(name) else { return bytes.len() };
        if ends {
            connection.flags.set(Flags::PEER_DONE);
        }
        let done = self.on_stream(carrier, name, stream, |core| core.feed(name, bytes));
        if done.pressed {
            self.hold(name, &bytes[done.consumed..]);
        }
        done.consumed
    }

    /// Has something done with a stream that it may answer: what is written meanwhile is its response.
    fn on_stream(
        &mut self,
        carrier: &mut Carrier,
        id: ConnId,
        stream: StreamId,
        work: impl FnOnce(&mut Self) -> Fed,
    ) -> Done {
        let (outer, mark) = (self.out_start, self.out.len());
        self.out.extend_from_slice(&[0; Self::HOLE_BYTES]);
        self.out_start = mark + Self::HOLE_BYTES;
        let fed = work(self);
        let asked = self.apply_effects(id);
        self.out_start = outer;
        self.frame_output(carrier, id, stream, mark);
        let is_over = fed.close.is_some() || asked.is_some();
        let done = Done { consumed: fed.consumed, pressed: fed.pressed && !is_over };
        if fed.expects {
            response::write_head(stream, 100, std::iter::empty(), false, &mut self.out);
        }
        if is_over {
            // Until that is carried out nothing more of it is looked at.
            self.set(id, Flags::DEAF);
        }
        let is_queued = self.table.get(id).is_some_and(|connection| connection.outbox.is_some());
        if is_over || fed.stalled || fed.pressed || is_queued {
            self.aftermaths.push(Aftermath { id, fed, asked });
        }
        done
    }

    /// A stream is gone with its record: the peer reset it, or broke a rule on it.
    fn stream_lost(&mut self, id: ConnId, code: ErrorCode) {
        self.set(id, Flags::BROKEN);
        self.set(id, Flags::DEAF);
        let reason = match code {
            ErrorCode::NoError | ErrorCode::Cancel | ErrorCode::RefusedStream => CloseReason::PeerClosed,
            ErrorCode::InternalError | ErrorCode::ConnectError => CloseReason::TransportError,
            _ => CloseReason::ProtocolError,
        };
        self.unloading.push_back(Unload::Stream(id, reason));
    }

    /// When a connection of HTTP/2 must be looked at next, and what is due.
    pub(super) fn carrier_due(&self, id: ConnId, connection: &Connection) -> Due {
        let (limits, now) = (&self.limits, self.tick);
        let ticks = |duration: Duration| self.wheel.ticks_in(duration);
        let carrier = connection.extra.as_deref().and_then(|extra| extra.carrier.as_deref());
        let Some(carrier) = carrier else { return Due::Never };
        let mut next: Option<Tick> = None;
        let mut passed = |due: Tick| {
            next = Some(next.map_or(due, |next: Tick| next.min(due)));
            now >= due
        };
        // While it is not read it may have said long ago what is missed here: then its queue's time runs.
        let is_read = connection.is_read();
        if is_read
            && let Some(due) = carrier.http2.settings_due()
            && passed(due)
        {
            return Due::Request(Limit::Http2SettingsTimeout);
        }
        if is_read
            && let Some(partial) = &connection.partial
            && passed(partial.http.began.later(ticks(limits.handshake_timeout)))
        {
            return Due::Request(Limit::HandshakeTimeout);
        }
        if let Some(outbox) = &connection.outbox
            && outbox.waits
            && passed(outbox.progress.later(ticks(limits.queue_stall_timeout)))
        {
            return Due::Close(CloseReason::SlowConsumer);
        }
        if let Some(leave) = self.leave_of(id, connection) {
            match carrier.warned {
                None if passed(leave) => return Due::Warn,
                Some(until) if passed(until) => return Due::Close(CloseReason::GoingAway),
                _ => {}
            }
        }
        let interval = jitter(ticks(limits.heartbeat_interval), id.index());
        if carrier.http2.streams() == 0 {
            if passed(connection.heard.later(ticks(limits.keep_alive_timeout))) {
                return Due::Close(CloseReason::IdleTimeout);
            }
        } else if connection.flags.has(Flags::PINGED) {
            let mut deadline = connection.heard.later(ticks(limits.heartbeat_timeout));
            if self.listened < deadline {
                deadline = deadline.max(now.later(1));
            }
            if passed(deadline) {
                return Due::Close(CloseReason::HeartbeatTimeout);
            }
            passed(now.later(interval.max(1)));
        } else if limits.heartbeat_interval.is_zero() {
            // Its streams may have ended by then.
            passed(now.later(ticks(limits.keep_alive_timeout).max(1)));
        } else if passed(connection.heard.later(interval)) {
            return Due::Heartbeat;
        }
        next.map_or(Due::Never, Due::Later)
    }

    /// Sees to it that a connection which has streams now is asked for a sign of life in time.
    fn arm_heartbeat_of(&mut self, id: ConnId) {
        if !self.limits.heartbeat_interval.is_zero() {
            let interval = jitter(self.wheel.ticks_in(self.limits.heartbeat_interval), id.index());
            self.arm_by(id, self.tick.later(interval.max(1)));
        }
    }

    /// Asks a client to open no more streams: the first step of its leave (RFC 9113 section 6.8).
    pub(super) fn warn(&mut self, id: ConnId) {
        let until = self.after(self.limits.close_timeout.min(Self::WARNING_TIME));
        let debug = format!("retry after {} ms", self.retry_after_ms(id));
        let Self { table, out, .. } = self;
        if let Some(carrier) = table.get_mut(id).and_then(|connection| connection.carrier()) {
            carrier.warned = Some(until);
            carrier.http2.warn(&debug, out);
        }
    }

    /// Writes a PING.
    pub(super) fn ping(&mut self, id: ConnId) {
        let Self { table, out, .. } = self;
        if let Some(carrier) = table.get_mut(id).and_then(|connection| connection.carrier()) {
            carrier.http2.write_ping(out);
        }
    }

    /// Tells the handler of a stream what has happened, outside of received bytes: what it answers is queued.
    pub(super) fn tell_handler(&mut self, id: ConnId, news: News<'_>) {
        let Some(connection) = self.table.get(id).filter(|connection| connection.flags.has(Flags::OPEN)) else {
            return;
        };
        let (route, state) = (connection.route, connection.state);
        let topic = self.members.name(connection.membership.topic).cloned();
        let grant = connection.grant().cloned();
        let subject = self.subject(id, connection, topic.as_ref(), grant.as_deref());
        let mut room = std::mem::take(&mut self.line);
        room.clear();
        let mut context = crate::app::Context::new(subject, &mut self.deflater, &mut room, &mut self.effects);
        let told = self.router.tell(route, state, news, &mut context);
        self.say(id, &room);
        self.line = room;
        if told.is_err() {
            self.metrics.handler_panics_total.add(1);
            self.effects.clear();
            self.doomed.push((id, CloseReason::Internal, "the handler panicked"));
        } else if let Some((reason, why)) = self.apply_effects(id) {
            self.doomed.push((id, reason, why));
        }
    }
}

/// What an answer to a stream's request comes to.
pub(super) fn goes_on(answer: &Answer) -> bool {
    !matches!(answer, Answer::KeepAlive | Answer::Last | Answer::Refused(..))
}
