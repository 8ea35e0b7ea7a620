//! What received bytes say: which protocol looks at them, and what its messages lead to.

use super::connection::Flags;
use super::core::Core;
use super::gate::token_in;
use super::opening::Fed;
use super::paces::Spent;
use crate::app::{Context, Effect, Subject};
use crate::close::CloseReason;
use crate::codec::grpc::Encoding;
use crate::id::ConnId;
use crate::metrics::ShardMetrics;
use crate::rule::Limit;
use crate::session::{Env, Event, Flow, Protocol, Violation, grpc, tcp, websocket};

impl Core {
    /// Answers of one connection's that are written before the kernel is given them.
    const OUT_BYTES_MAX: usize = 128 * 1024;
    /// Effects of one connection's handler calls that are collected before they are carried out.
    const EFFECTS_MAX: usize = 256;
    /// Bytes of messages that handlers are given of what one connection has sent before the others have their turn. It is
    /// what was compressed that becomes so many: they may be a thousand times what came.
    const HANDED_BYTES_MAX: usize = 128 * 1024;
    /// Signatures that are checked of what one connection has sent, likewise.
    const CHECKS_MAX: u32 = 16;

    /// Notes that a connection lives.
    pub(super) fn hear(&mut self, id: ConnId) {
        if let Some(connection) = self.table.get_mut(id) {
            connection.hear(self.tick);
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

    /// Begins to look at what one connection has sent.
    pub(super) fn begin_looking(&mut self) {
        self.handed = 0;
        self.gate.checks = 0;
    }

    /// Whether what one connection has sent was so much work that the others have their turn before its rest.
    pub(super) const fn has_looked_long(&self) -> bool {
        self.handed > Self::HANDED_BYTES_MAX || self.gate.checks > Self::CHECKS_MAX
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
        let handed = &mut self.handed;
        let (mut fed, mut messages, mut answers) = (Fed::default(), 0_u64, 0_u64);
        let queued = connection.outbox.as_ref().map_or(0, |outbox| outbox.control_replies);
        let on_event = |event: Event<'_>| {
            match event {
                Event::Message(_, payload) if listening && renews && token_in(payload).is_some() => {
                    effects.extend(token_in(payload).map(|token| Effect::Renew(token.into(), 0)));
                }
                Event::Message(kind, payload) if listening => {
                    messages += 1;
                    *handed += payload.len();
                    tracer.iter_mut().for_each(|tracer| tracer.message(id, kind, payload.len()));
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
                || *handed > Self::HANDED_BYTES_MAX
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
