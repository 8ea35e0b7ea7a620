//! What the backend brings: connections, bytes, endings.

use std::io::ErrorKind;

use super::Shard;
use super::connection::Flags;
use super::core::Core;
use super::entrance::Entrance;
use super::gate::token_in;
use super::opening::Fed;
use super::pace::Pace;
use super::paces::Spent;
use crate::app::{Context, Effect, Subject};
use crate::close::CloseReason;
use crate::codec::grpc::Encoding;
use crate::id::{ConnId, ListenerId};
use crate::io::{Accepted, Backend, Completion, Lease};
use crate::metrics::ShardMetrics;
use crate::rule::Limit;
use crate::session::{Env, Event, Flow, Protocol, Violation, grpc, tcp, websocket};
use crate::time::{Clock, Stamp};

impl<B: Backend> Shard<B> {
    pub(super) fn ingress(&mut self, pace: &mut Pace<'_, impl Clock>) {
        self.resume_all(pace);
        while !self.core.is_staging_full() && pace.more() {
            match self.backend.next() {
                Some(completion) => self.complete(completion),
                None => {
                    self.core.listened = self.core.tick;
                    return;
                }
            }
            self.pay(pace);
        }
        // While publications have to wait for others there is no hurry.
        self.core.unfinished |= !(self.core.is_staging_full() && self.core.blocked);
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Received(id, lease) => self.received(id, lease),
            Completion::Accepted(accepted) => self.accepted(accepted),
            Completion::Proxied(id, header) => self.proxied(id, header),
            Completion::Writable(id) => self.core.writable(id),
            Completion::PeerClosed(id) => self.peer_closed(id),
            Completion::Failed(id, kind) => self.failed(id, kind),
            Completion::Closed(id) => self.core.reap(id),
            Completion::AcceptFailed(listener, kind) => self.core.accept_failed(listener, kind),
        }
    }

    fn accepted(&mut self, accepted: Accepted) {
        if self.core.phase == super::Phase::Ending {
            return self.refuse(accepted);
        }
        let proxied = self.core.entrances.get(usize::from(accepted.listener.0)).is_some_and(|it| it.proxied);
        if proxied && !self.core.trusts(&accepted) {
            return self.refuse(accepted);
        }
        let id = match self.core.admit(&accepted) {
            Ok(id) => id,
            Err(limit) => return self.shed(accepted, limit),
        };
        self.attach(accepted, id);
        // Behind a proxy it opens when the client is known.
        if !proxied {
            self.open_bound(id);
        }
    }

    pub(super) fn open_bound(&mut self, id: ConnId) {
        self.begin_output(id);
        let fed = self.core.open_bound(id);
        self.after_feed(id, fed);
        self.core.hand_out_late_leave(id);
    }

    pub(super) fn attach(&mut self, accepted: Accepted, id: ConnId) {
        self.backend.attach(accepted, id);
        self.core.owed += 1;
    }

    fn received(&mut self, id: ConnId, lease: Lease) {
        self.begin_output(id);
        let core = &mut self.core;
        let bytes = self.backend.bytes(&lease);
        core.metrics.bytes_received_total.add(bytes.len() as u64);
        if let Some(tracer) = &mut core.tracer {
            tracer.bytes("received", id, bytes.len());
        }
        let fed = core.feed(id, bytes);
        if fed.pressed {
            core.hold(id, &bytes[fed.consumed..]);
        }
        let more = lease.more;
        self.backend.release(lease);
        self.after_feed(id, fed);
        if !more {
            // Now, while this connection's lines are in the cache.
            self.uncork();
        }
    }

    /// Carries out what came of received bytes.
    pub(super) fn after_feed(&mut self, id: ConnId, fed: Fed) {
        let asked = self.core.apply_effects(id);
        let waiting = self.core.table.get(id).is_some_and(|connection| connection.outbox.is_some());
        self.write(id);
        self.after_streams();
        if waiting && let Some(outbox) = self.core.outbox(id) {
            outbox.control_replies += fed.control_replies;
        }
        match (fed.close, asked) {
            (Some((reason, detail)), _) => self.begin_close(id, reason, &detail),
            (None, Some(reason)) => self.begin_close(id, reason, "the application asked for it"),
            (None, None) => {}
        }
        if self.core.flag(id, Flags::CLOSING) {
            self.core.closing.push_back(id);
            return;
        }
        if fed.stalled {
            self.stall(id);
        }
        if waiting || fed.pressed {
            self.press(id);
        }
        if let Some(until) = fed.owed {
            self.pace_until(id, until);
        }
    }

    /// Stops reading a publisher until the mailboxes have room.
    pub(super) fn stall(&mut self, id: ConnId) {
        let Some(connection) = self.core.table.get_mut(id) else { return };
        if !connection.flags.has(Flags::STALLED) {
            connection.flags.set(Flags::STALLED);
            self.core.metrics.publisher_paused_total.add(1);
            self.core.stalled.push_back(id);
            self.pause(id);
        }
    }

    /// Goes on with those who waited for room and have it now.
    fn resume_all(&mut self, pace: &mut Pace<'_, impl Clock>) {
        for _ in 0..self.core.resumable.len() {
            if self.core.is_staging_full() || !pace.more() {
                break;
            }
            let Some(id) = self.core.resumable.pop_front() else { break };
            if self.core.paced_until(id).is_some() {
                // Its time comes, and then it is here again.
                continue;
            }
            self.core.unflag(id, Flags::PAUSED);
            self.resume(id);
        }
        for _ in 0..self.core.stalled.len() {
            if self.core.blocked || self.core.is_staging_full() || !pace.more() {
                break;
            }
            let Some(id) = self.core.stalled.pop_front() else { break };
            self.core.unflag(id, Flags::STALLED);
            self.resume(id);
        }
    }

    fn resume(&mut self, id: ConnId) {
        let Some(connection) = self.core.table.get_mut(id) else { return };
        if connection.flags.has(Flags::WAITING) {
            // It goes on when it has its answer.
            connection.flags.set(Flags::PAUSED);
        }
        if !connection.is_read() || connection.flags.has(Flags::CLOSING) {
            return;
        }
        if connection.flags.has(Flags::OPEN) {
            // Nobody listened to it: its time to give a sign of life begins again.
            connection.hear(self.core.tick);
        }
        let is_borne = connection.flags.has(Flags::BORNE);
        let mut held = self.core.take_held(id);
        // Of a stream the end may have come as well.
        if !held.is_empty() || is_borne {
            self.begin_output(id);
            let fed = self.core.feed(id, &mut held);
            if fed.pressed {
                self.core.hold(id, &held[fed.consumed..]);
            }
            let consumed = fed.consumed;
            self.after_feed(id, fed);
            self.core.credit(id, consumed);
        }
        if is_borne {
            return;
        }
        let Some(connection) = self.core.table.get(id) else { return };
        if !connection.is_read() || connection.flags.has(Flags::CLOSING) {
            return;
        }
        if connection.flags.has(Flags::PEER_DONE) {
            if !connection.is_transferring() {
                self.begin_close(id, CloseReason::PeerClosed, "");
            }
        } else {
            self.backend.resume(id);
        }
    }

    fn peer_closed(&mut self, id: ConnId) {
        let Some(connection) = self.core.table.get_mut(id) else { return };
        connection.flags.set(Flags::PEER_DONE);
        let held = connection.outbox.as_ref().is_some_and(|outbox| !outbox.held.is_empty());
        if connection.flags.has(Flags::CLOSING) {
            self.core.closing.push_back(id);
        } else if matches!(connection.protocol, Protocol::Poll | Protocol::Http2)
            || !(held || connection.flags.has(Flags::WAITING) || connection.is_transferring())
        {
            self.begin_close(id, CloseReason::PeerClosed, "");
        }
    }

    fn failed(&mut self, id: ConnId, kind: ErrorKind) {
        self.core.set(id, Flags::BROKEN);
        self.begin_close(id, CloseReason::TransportError, &kind.to_string());
    }
}

impl Core {
    /// Answers of one connection's that are written before the kernel is given them.
    const OUT_BYTES_MAX: usize = 128 * 1024;
    /// Effects of one connection's handler calls that are collected before they are carried out.
    const EFFECTS_MAX: usize = 256;

    /// Gives a connection its place.
    ///
    /// # Errors
    /// The limit that is in its way.
    fn admit(&mut self, accepted: &Accepted) -> Result<ConnId, Limit> {
        let entrance = self.entrances.get(usize::from(accepted.listener.0));
        // A proxy is not counted, but the client that it speaks for, when that is known.
        let counted = accepted.peer.filter(|_| entrance.is_none_or(|entrance| !entrance.proxied));
        if let Some(entrance) = entrance.filter(|entrance| !entrance.proxied && !entrance.is_unix()) {
            self.log.came(counted.is_some(), &entrance.url);
        }
        // Its address comes first: one that sends too many must not use up the rate that all have together.
        let marks = self.count_in(counted)?;
        self.control.admit(self.now, &self.limits).inspect_err(|_| self.uncount(counted, marks))?;
        let protocol = entrance.map(Entrance::protocol);
        let id = protocol.and_then(|protocol| self.table.insert(accepted.listener, protocol, self.tick));
        let Some(id) = id else {
            self.control.release();
            self.uncount(counted, marks);
            return Err(Limit::ConnectionsMax);
        };
        self.peers.set(id.index(), accepted.peer, marks);
        if let Some(connection) = self.table.get_mut(id) {
            connection.set_arrived(Stamp::of(self.now));
            self.metrics.speaks(None, Some(connection.protocol.counted()));
        }
        self.metrics.accepted_total.add(1);
        self.metrics.connections.add(1);
        let deadline = self.after(self.limits.handshake_timeout);
        self.arm(id, deadline);
        Ok(id)
    }

    fn accept_failed(&mut self, listener: ListenerId, kind: ErrorKind) {
        self.metrics.accept_failures_total.add(1);
        let url = self.entrances.get(usize::from(listener.0)).map_or("?", |entrance| entrance.url.as_str());
        let what = format_args!("cannot accept at {url}: {kind}; `holdline doctor` tells which limit that is");
        self.log.event(self.now, &self.metrics, what);
    }

    fn writable(&mut self, id: ConnId) {
        if let Some(outbox) = self.table.get_mut(id).and_then(|connection| connection.outbox.as_deref_mut()) {
            outbox.waits = false;
            if outbox.is_empty() {
                self.outbox_done(id);
            } else {
                self.mark_dirty(id);
            }
        }
    }

    fn unflag(&mut self, id: ConnId, flag: Flags) {
        if let Some(connection) = self.table.get_mut(id) {
            connection.flags.clear(flag);
        }
    }

    /// Notes that a connection lives.
    pub(super) fn hear(&mut self, id: ConnId) {
        if let Some(connection) = self.table.get_mut(id) {
            connection.hear(self.tick);
        }
    }

    /// Keeps received bytes until the answers to those before them have left.
    pub(super) fn hold(&mut self, id: ConnId, bytes: &[u8]) {
        if !bytes.is_empty()
            && let Some(outbox) = self.outbox(id)
        {
            outbox.held.extend_from_slice(bytes);
            self.count_queued(0, bytes.len());
        }
    }

    /// Looks at received bytes. Answers are left in `out`, wishes in `effects`.
    pub(super) fn feed(&mut self, id: ConnId, bytes: &mut [u8]) -> Fed {
        let Some(connection) = self.table.get_mut(id) else { return Fed::all(bytes) };
        // Until a handshake is complete its time runs, whatever comes.
        if connection.flags.has(Flags::OPEN) || connection.protocol == Protocol::Http2 {
            connection.hear(self.tick);
        }
        if connection.flags.has(Flags::DEAF) {
            return Fed::all(bytes);
        }
        let is_held = connection.outbox.as_deref().is_some_and(|outbox| !outbox.held.is_empty());
        let is_answering = connection.flags.has(Flags::WAITING) || connection.is_transferring();
        if connection.flags.has(Flags::BORNE) {
            if is_answering || connection.is_answered() {
                // The rest of a request whose answer is under way: it is nothing, and its window is not opened again.
                return Fed::default();
            }
            if !connection.is_read() {
                // The kernel keeps nothing of it for us, as it does of a connection that is not read.
                return Fed { pressed: true, ..Fed::default() };
            }
        }
        if is_held || is_answering {
            return Fed { pressed: true, ..Fed::default() };
        }
        match connection.protocol {
            Protocol::Http2 => self.feed_http2(id, bytes),
            Protocol::Http if connection.flags.has(Flags::BORNE) => self.feed_body(id, bytes),
            Protocol::Grpc => self.feed_call(id, bytes),
            Protocol::WebSocket if connection.flags.has(Flags::BORNE) => self.feed_call(id, bytes),
            Protocol::Http => {
                let fed = self.feed_http(id, bytes);
                self.note_unfinished(id, fed)
            }
            // The response has no end: what comes behind its request is not answered.
            protocol if protocol.is_stream() => Fed::all(bytes),
            _ if connection.flags.has(Flags::NAMELESS) => {
                let fed = self.feed_first_frame(id, bytes);
                self.note_unfinished(id, fed)
            }
            _ => self.feed_frames(id, bytes),
        }
    }

    /// Counts what is kept of an unfinished message. When the process has no room left, whoever keeps more than a fair
    /// share of it must go.
    pub(super) fn note_unfinished(&mut self, id: ConnId, mut fed: Fed) -> Fed {
        let (spent, share) = (self.is_queue_budget_spent(), self.queue_share());
        let Some(connection) = self.table.get_mut(id) else { return fed };
        let Some(partial) = connection.partial.as_deref_mut() else { return fed };
        if self.partials.note(partial) && spent && partial.buf.len() > share {
            connection.flags.set(Flags::DEAF);
            self.metrics.strike(Limit::QueueBytesTotalMax);
            connection.partial.take().into_iter().for_each(|partial| self.partials.give(partial));
            let detail = "no room left for unfinished messages".to_owned();
            fed.close = fed.close.or(Some((CloseReason::TryAgainLater, detail)));
        }
        fed
    }

    /// Looks for the messages of a call, or of a WebSocket on a stream, and its end.
    fn feed_call(&mut self, id: ConnId, bytes: &mut [u8]) -> Fed {
        let fed = self.feed_frames(id, bytes);
        let goes_on = fed.close.is_some() || fed.pressed || fed.consumed < bytes.len();
        if goes_on || !self.flag(id, Flags::PEER_DONE) {
            return fed;
        }
        if self.table.get(id).is_some_and(|connection| connection.protocol == Protocol::WebSocket) {
            return Fed { close: Some((CloseReason::PeerClosed, String::new())), ..fed };
        }
        let end = self.finish_call(id);
        Fed { close: end.close, ..fed }
    }

    /// Looks for messages.
    pub(super) fn feed_frames(&mut self, id: ConnId, bytes: &mut [u8]) -> Fed {
        let (blocked, control_replies_max) = (self.blocked, self.limits.control_replies_max);
        let Some(connection) = self.table.get_mut(id) else { return Fed::all(bytes) };
        let (route, state, protocol) = (connection.route, connection.state, connection.protocol);
        let listening = connection.flags.has(Flags::OPEN);
        let grant = connection.grant().cloned();
        let subject = Subject {
            id,
            shard: self.id,
            now: self.now,
            protocol,
            encoder: connection.encoder(),
            topic: self.members.name(connection.membership.topic),
            is_draining: self.drain.is_some(),
            grant: grant.as_deref(),
        };
        let renews = connection.extra.as_deref().is_some_and(|extra| extra.admission.renews);
        let mut env = Env { limits: &self.limits, tools: &mut self.tools, partials: &mut self.partials };
        let (deflater, out, effects, router) = (&mut self.deflater, &mut self.out, &mut self.effects, &mut self.router);
        let (out_start, metrics, tracer) = (self.out_start, &self.metrics, &mut self.tracer);
        let (mut fed, mut messages, mut answers) = (Fed::default(), 0_u64, 0_u64);
        let queued = connection.outbox.as_ref().map_or(0, |outbox| outbox.control_replies);
        let on_event = |event: Event<'_>| {
            match event {
                Event::Message(_, payload) if listening && renews && token_in(payload).is_some() => {
                    effects.extend(token_in(payload).map(|token| Effect::Renew(token.into(), 0)));
                }
                Event::Message(kind, payload) if listening => {
                    messages += 1;
                    if let Some(tracer) = tracer {
                        tracer.message(id, kind, payload.len());
                    }
                    let mut context = Context::new(subject, deflater, out, effects);
                    let result = router.message(route, state, kind, payload, &mut context);
                    answers += context.sent();
                    if result.is_err() {
                        metrics.handler_panics_total.add(1);
                        fed.close = Some((CloseReason::Internal, "the handler panicked".into()));
                        return Flow::Stop;
                    }
                }
                Event::Ping(payload) if listening => {
                    websocket::encode_pong(payload, out);
                    fed.control_replies += 1;
                }
                Event::Close(code) => {
                    fed.good_bye = Some(code);
                    return Flow::Stop;
                }
                _ => return Flow::Continue,
            }
            if let Some(last) = effects.last() {
                fed.stalled |= blocked && last.publishes();
                if matches!(last, Effect::Close(_) | Effect::End(_)) {
                    return Flow::Stop;
                }
            }
            fed.pressed = fed.stalled
                || out.len() - out_start > Self::OUT_BYTES_MAX
                || effects.len() > Self::EFFECTS_MAX
                || (queued > 0 && queued + fed.control_replies > control_replies_max);
            if fed.pressed { Flow::Stop } else { Flow::Continue }
        };
        let result = match protocol {
            Protocol::WebSocket => {
                let (state, partial) = (&mut connection.websocket, &mut connection.partial);
                websocket::receive(state, partial, bytes, &mut env, on_event).map_err(|v| reasoned(&v, metrics))
            }
            Protocol::Grpc => {
                let encoding = connection.borne().map_or(Encoding::Identity, |borne| borne.encoding);
                let result = grpc::receive(&mut connection.partial, bytes, encoding, &mut env, on_event);
                result.map_err(|violation| {
                    let status = Box::new(violation.status());
                    connection.borne().into_iter().for_each(|borne| borne.status = Some(status.clone()));
                    reasoned(&violation, metrics)
                })
            }
            _ => tcp::receive(protocol, &mut connection.partial, bytes, &mut env, on_event)
                .map_err(|v| reasoned(&v, metrics)),
        };
        self.metrics.count_received(protocol.counted(), messages);
        self.metrics.count_sent(protocol.counted(), answers);
        if messages > 0
            && let Some(extra) = connection.extra.as_deref_mut()
        {
            extra.spoke = self.tick;
        }
        match result {
            Ok(consumed) => fed.consumed = consumed,
            Err(violation) => fed.close = fed.close.or(Some(violation)),
        }
        if fed.consumed == bytes.len() {
            fed.pressed = false;
        }
        let is_unfinished = connection.partial.is_some();
        if listening {
            self.charge(id, Spent { messages, bytes: fed.consumed as u64 }, &mut fed);
        }
        let fed = self.part_if_asked(id, fed);
        if is_unfinished { self.note_unfinished(id, fed) } else { fed }
    }

    /// Answers a good-bye, where one came.
    fn part_if_asked(&mut self, id: ConnId, fed: Fed) -> Fed {
        let Some(code) = fed.good_bye else { return fed };
        self.say_good_bye(id, code);
        Fed { close: fed.close.or(Some((CloseReason::Normal, String::new()))), ..fed }
    }

    /// Answers the peer's close frame with our own, unless ours was first.
    fn say_good_bye(&mut self, id: ConnId, code: Option<u16>) {
        let Some(connection) = self.table.get_mut(id) else { return };
        if !connection.websocket.close_sent() {
            connection.websocket.set_close_sent();
            websocket::encode_close(code, "", &mut self.out);
        }
    }
}

/// Counts a violation. How it ends its connection, and what the log says.
pub(super) fn reasoned(violation: &impl Violation, metrics: &ShardMetrics) -> (CloseReason, String) {
    metrics.count_violation(violation.rule());
    (violation.reason(), violation.to_string())
}
