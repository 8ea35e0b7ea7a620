//! Endings: the application is told, the peer is told, what is queued goes out, and only then does the socket go.

use super::Shard;
use super::connection::Flags;
use super::control::{Control, Phase};
use super::core::Core;
use super::gate::error_text;
use super::pace::Pace;
use super::streams::RETRY_MS;
use crate::app::{Context, Effect};
use crate::close::CloseReason;
use crate::codec::http1::response::{Reply, write_error};
use crate::codec::http1::stream::{self, LAST_CHUNK};
use crate::codec::http2::ErrorCode;
use crate::codec::sse;
use crate::id::ConnId;
use crate::io::{Backend, Ending};
use crate::rule::AuthRefusal;
use crate::session::{Protocol, websocket};
use crate::time::Clock;

impl<B: Backend> Shard<B> {
    /// What the end of a connection takes, counted in small sends.
    pub(super) const CLOSE_WEIGHT: usize = 3;

    /// Begins to end a connection. Does nothing when its end has begun already.
    pub(super) fn begin_close(&mut self, id: ConnId, reason: CloseReason, detail: &str) {
        let Some(connection) = self.core.table.get_mut(id) else { return };
        if connection.flags.has(Flags::BORNE) {
            return self.close_stream(id, reason, detail);
        }
        if connection.flags.has(Flags::CLOSING) {
            // A broken transport overtakes a polite good-bye.
            if connection.flags.has(Flags::BROKEN) {
                self.end(id, Ending::Reset);
            }
            return;
        }
        connection.flags.set(Flags::CLOSING);
        connection.extra.iter_mut().for_each(|extra| extra.transfer = None);
        let is_carrier = connection.protocol == Protocol::Http2;
        // A peer of HTTP/2 must be heard while its streams end: it opens the windows for what they still have to say.
        let deaf = !is_polite(reason) || !(connection.protocol == Protocol::WebSocket || is_carrier);
        if deaf {
            connection.flags.set(Flags::DEAF);
            let partial = connection.partial.take();
            partial.into_iter().for_each(|partial| self.core.partials.give(partial));
        }
        let mut held = self.core.take_held(id);
        let broken = self.core.flag(id, Flags::BROKEN);
        self.core.report(id, reason, detail);
        self.core.leave(id, reason);
        if broken {
            self.core.begin_unloading(id, reason);
            self.end(id, Ending::Reset);
            return;
        }
        if reason == CloseReason::SlowConsumer {
            self.core.clear_queue(id);
        }
        self.begin_output(id);
        if self.core.flag(id, Flags::BROKEN) {
            // Sending others' frames to make room has shown that there is nobody to take leave of.
            return;
        }
        self.core.farewell(id, reason, detail);
        self.write(id);
        self.core.begin_unloading(id, reason);
        self.core.closing.push_back(id);
        let close_timeout = self.core.limits.close_timeout;
        let is_shed = self.core.flag(id, Flags::SHED);
        let deadline = self.core.after(if is_shed { close_timeout.min(Control::SHED_TIME) } else { close_timeout });
        self.core.arm(id, deadline);
        if self.core.flag(id, Flags::PAUSED) || self.core.flag(id, Flags::STALLED) {
            self.backend.resume(id);
        }
        if !deaf && !held.is_empty() {
            // The peer's own good-bye may be in it.
            let fed = self.core.feed(id, &mut held);
            self.after_feed(id, fed);
        }
    }

    /// Looks at closing connections whose queue has become empty or whose peer has answered.
    pub(super) fn take_closing_further(&mut self, pace: &mut Pace<'_, impl Clock>) {
        for _ in 0..self.core.closing.len() {
            if !pace.more() {
                break;
            }
            let Some(id) = self.core.closing.pop_front() else { break };
            self.close_further(id);
            self.pay(pace);
        }
    }

    fn close_further(&mut self, id: ConnId) {
        let Some(connection) = self.core.table.get_mut(id) else { return };
        let flags = connection.flags;
        let bears = connection.carrier().is_some_and(|one| one.http2.streams() > 0 || one.unloading.is_some());
        if flags.has(Flags::ENDED) || flags.has(Flags::BORNE) || connection.outbox.is_some() || bears {
            return;
        }
        let websocket = connection.protocol == Protocol::WebSocket;
        let agreed = websocket && connection.websocket.close_received() && connection.websocket.close_sent();
        if agreed || flags.has(Flags::PEER_DONE) || flags.has(Flags::AT_ONCE) {
            self.end(id, Ending::Graceful);
        } else if (flags.has(Flags::DEAF) || !websocket) && !flags.has(Flags::SHUT) {
            // The peer may still be sending. Closing now would reset the connection and could lose our last words.
            self.core.set(id, Flags::SHUT);
            self.core.owed += Self::CLOSE_WEIGHT;
            self.backend.shutdown(id);
        }
    }

    /// Ends a connection: at once, or when the streams that it bears have gone.
    pub(super) fn end(&mut self, id: ConnId, ending: Ending) {
        if self.core.flag(id, Flags::BORNE) {
            return self.core.abort_stream(id, ErrorCode::Cancel);
        }
        if !self.goes_after_streams(id) {
            self.finish(id, ending);
        }
    }

    /// Tells the backend to end a connection, once.
    pub(super) fn finish(&mut self, id: ConnId, ending: Ending) {
        let Some(connection) = self.core.table.get_mut(id) else { return };
        if !connection.flags.has(Flags::ENDED) {
            connection.flags.set(Flags::ENDED);
            self.core.wheel.disarm(&mut self.core.table, id.index());
            self.core.drop_outbox(id);
            self.core.owed += Self::CLOSE_WEIGHT;
            self.backend.close(id, ending);
        }
    }
}

/// Whether a WebSocket is still listened to after such a close, for the peer's own good-bye.
pub(super) const fn is_polite(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::Normal
            | CloseReason::GoingAway
            | CloseReason::IdleTimeout
            | CloseReason::TryAgainLater
            | CloseReason::AuthExpired
            | CloseReason::Kicked
            | CloseReason::Unsupported
    )
}

/// What GOAWAY says of such a close.
pub(super) const fn error_of(reason: CloseReason) -> ErrorCode {
    match reason {
        CloseReason::ProtocolError => ErrorCode::ProtocolError,
        CloseReason::HandshakeTimeout => ErrorCode::SettingsTimeout,
        CloseReason::Internal => ErrorCode::InternalError,
        CloseReason::SlowConsumer | CloseReason::Policy => ErrorCode::EnhanceYourCalm,
        _ => ErrorCode::NoError,
    }
}

/// Says to a request that it cannot be answered now, and when it could be.
fn write_unavailable(after_ms: u64, reply: Reply<'_>, out: &mut Vec<u8>) {
    let seconds = after_ms.div_ceil(1000).max(1).to_string();
    let message = "the server cannot answer now; try again later";
    write_error(503, "try_again_later", message, &[("Retry-After", &seconds)], reply, out);
}

impl Core {
    /// Takes a connection out of its topics and tells its application.
    pub(super) fn leave(&mut self, id: ConnId, reason: CloseReason) {
        let Some(connection) = self.table.get_mut(id) else { return };
        if !connection.flags.has(Flags::OPEN) {
            return;
        }
        connection.flags.clear(Flags::OPEN);
        let (route, state, protocol) = (connection.route, connection.state, connection.protocol);
        let topic = self.members.name(connection.membership.topic).cloned();
        self.stream_gauge(protocol).into_iter().for_each(|gauge| gauge.sub(1));
        self.leave_all_topics(id);
        let Some(connection) = self.table.get(id) else { return };
        let grant = connection.grant().cloned();
        let subject = self.subject(id, connection, topic.as_ref(), grant.as_deref());
        let mut context = Context::new(subject, &mut self.deflater, &mut self.nowhere, &mut self.effects);
        if self.router.close(route, state, reason, &mut context).is_err() {
            self.metrics.handler_panics_total.add(1);
        }
        self.nowhere.clear();
        // Subscriptions and closes of a connection that has ended have no meaning; publications have.
        self.effects.retain(Effect::publishes);
        self.apply_effects(id);
        self.hook_disconnected(id, reason);
    }

    /// What a peer is told of the log's words about its end: nothing where they only say that an application wished it.
    pub(super) fn told(detail: &str) -> Option<&str> {
        Some(detail).filter(|detail| !detail.is_empty() && *detail != Self::ASKED_FOR)
    }

    /// Writes the protocol's good-bye.
    pub(super) fn farewell(&mut self, id: ConnId, reason: CloseReason, detail: &str) {
        let spread_ms = self.retry_after_ms(id);
        let Some(connection) = self.table.get_mut(id) else { return };
        if reason == CloseReason::HeartbeatTimeout {
            connection.flags.set(Flags::AT_ONCE);
        }
        if connection.protocol.is_http() {
            return self.farewell_http(id, reason, spread_ms);
        }
        if let Some(carrier) = self.table.get_mut(id).and_then(|connection| connection.carrier()) {
            if reason == CloseReason::PeerClosed {
                return;
            }
            let debug =
                if reason == CloseReason::GoingAway { format!("retry after {spread_ms} ms") } else { String::new() };
            return carrier.http2.go_away(error_of(reason), &debug, &mut self.out);
        }
        let Some(connection) = self.table.get_mut(id) else { return };
        if connection.protocol != Protocol::WebSocket || connection.websocket.close_sent() {
            return;
        }
        let Some(code) = reason.code() else { return };
        connection.websocket.set_close_sent();
        if let Some(parting) = self.orders.parting.as_ref().filter(|_| reason == CloseReason::Kicked) {
            return websocket::encode_close(Some(parting.code), &parting.reason, &mut self.out);
        }
        if reason == CloseReason::GoingAway {
            websocket::encode_close(Some(code), &format!("retry after {spread_ms} ms"), &mut self.out);
        } else {
            // Of many rules it is one: which, only the words say.
            let told = Self::told(detail).filter(|_| reason == CloseReason::Policy);
            websocket::encode_close(Some(code), told.unwrap_or(reason.label()), &mut self.out);
        }
    }

    /// Ends a response that goes on and on, or answers a request that waits: come back later.
    fn farewell_http(&mut self, id: ConnId, reason: CloseReason, spread_ms: u64) {
        if reason == CloseReason::Kicked && self.write_parting(id) {
            return;
        }
        let Some(connection) = self.table.get_mut(id) else { return };
        let cause = connection.extra.as_deref().map_or(AuthRefusal::Expired, |extra| extra.admission.cause());
        let polite = is_polite(reason);
        let is_over = matches!(reason, CloseReason::GoingAway | CloseReason::IdleTimeout);
        match connection.protocol {
            Protocol::Sse | Protocol::SseMany if polite => {
                if reason == CloseReason::AuthExpired {
                    sse::write_event("expired", &mut self.out);
                    sse::write_data(error_text(cause).as_bytes(), &mut self.out);
                }
                let retry_ms = if reason == CloseReason::GoingAway { spread_ms } else { RETRY_MS };
                sse::write_start(retry_ms, None, &mut self.out);
            }
            Protocol::JsonStream | Protocol::JsonLines if polite => {
                let is_chunked = connection.protocol == Protocol::JsonStream;
                if reason == CloseReason::GoingAway {
                    stream::write_retry(spread_ms, is_chunked, &mut self.out);
                }
                if is_chunked {
                    self.out.extend_from_slice(LAST_CHUNK);
                }
            }
            // Nothing of it is under way: no need to wait for clients that keep connections in a pool and look at them seldom.
            Protocol::Http if is_over && connection.is_between_requests() => connection.flags.set(Flags::AT_ONCE),
            _ => {
                let is_later = matches!(reason, CloseReason::GoingAway | CloseReason::TryAgainLater);
                if is_later && connection.flags.has(Flags::WAITING) {
                    let version = self.version_of(id);
                    write_unavailable(spread_ms, Reply { version, ..Reply::last(self.date) }, &mut self.out);
                }
            }
        }
    }

    /// Takes the bytes that wait for the answers before them; an outbox that has nothing else goes.
    pub(super) fn take_held(&mut self, id: ConnId) -> Vec<u8> {
        let outbox = self.table.get_mut(id).and_then(|connection| connection.outbox.as_deref_mut());
        let Some(outbox) = outbox else { return Vec::new() };
        let before = outbox.memory();
        let held = std::mem::take(&mut outbox.held);
        let (after, is_empty) = (outbox.memory(), outbox.is_empty());
        self.count_queued(before, after);
        if is_empty {
            self.drop_outbox(id);
        }
        held
    }

    pub(super) fn clear_queue(&mut self, id: ConnId) {
        let Some(outbox) = self.table.get_mut(id).and_then(|connection| connection.outbox.as_deref_mut()) else {
            return;
        };
        let before = outbox.memory();
        let dropped = outbox.drop_all();
        let (after, is_empty) = (outbox.memory(), outbox.is_empty());
        self.metrics.deliveries_dropped_total.add(dropped);
        self.count_queued(before, after);
        if is_empty {
            self.drop_outbox(id);
        }
    }

    /// The last completion of a connection has returned: nothing of it is left.
    pub(super) fn reap(&mut self, id: ConnId) {
        if self.table.get(id).is_none() {
            return;
        }
        if self.table.get(id).is_some_and(|connection| connection.protocol == Protocol::Http2) {
            self.metrics.http2_connections.sub(1);
        }
        self.wheel.disarm(&mut self.table, id.index());
        self.drop_outbox(id);
        if let Some(connection) = self.table.remove(id) {
            self.count_out(id.index());
            connection.partial.into_iter().for_each(|partial| self.partials.give(partial));
            if connection.flags.has(Flags::SHED) {
                self.control.release_shed();
                return;
            }
            self.metrics.connections.sub(1);
            self.metrics.speaks(Some(connection.protocol.counted()), None);
            if self.control.release() && self.phase != Phase::Running {
                // The others wait for nothing else any more.
                self.mail.ring_all();
            }
        }
    }
}
