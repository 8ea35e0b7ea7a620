//! From an accepted socket to an open connection: the first frame of raw TCP that says which route it takes, and what is
//! common to all. HTTP's way is in `http` and `requests`.

use super::connection::Flags;
use super::core::Core;
use super::entrance::Kind;
use super::feed::reasoned;
use super::gate::{error_text, forbidden};
use crate::app::router::{Fault, Request};
use crate::app::{Context, RouteId, parameters};
use crate::close::CloseReason;
use crate::codec::json;
use crate::id::ConnId;
use crate::message::Kind as MessageKind;
use crate::metrics::Counter;
use crate::rule::{AuthRefusal, Limit, Rule};
use crate::session::{Env, Event, Flow, Protocol, encode_message, tcp, websocket};
use crate::wheel::Tick;

/// What came of received bytes.
#[derive(Debug, Default)]
pub(super) struct Fed {
    /// Bytes that are done with.
    pub(super) consumed: usize,
    /// The rest must wait.
    pub(super) pressed: bool,
    /// It published while no publications can go out.
    pub(super) stalled: bool,
    /// The client waits to be told that its body is wanted.
    pub(super) expects: bool,
    /// Pongs among the answers.
    pub(super) control_replies: u32,
    /// It has sent so much that it is not read until then.
    pub(super) owed: Option<Tick>,
    /// The peer said good-bye, with this code.
    pub(super) good_bye: Option<Option<u16>>,
    /// The connection must end, and why.
    pub(super) close: Option<(CloseReason, String)>,
}

impl Fed {
    pub(super) fn all(bytes: &[u8]) -> Self {
        Self { consumed: bytes.len(), ..Self::default() }
    }

    pub(super) fn closed(bytes: &[u8], reason: CloseReason, detail: String) -> Self {
        Self { close: Some((reason, detail)), ..Self::all(bytes) }
    }
}

/// A connection that a handler has taken.
pub(super) struct Opened {
    pub(super) route: RouteId,
    pub(super) state: u32,
    pub(super) websocket: websocket::State,
    /// What the connection speaks from now on.
    pub(super) protocol: Protocol,
}

impl Core {
    /// Opens a raw TCP connection that needs no first frame.
    pub(super) fn open_bound(&mut self, id: ConnId) -> Fed {
        let Some(connection) = self.table.get(id) else { return Fed::default() };
        let nameless = match self.entrances.get(usize::from(connection.listener().0)).map(|entrance| &entrance.kind) {
            Some(Kind::Tcp { opening, .. }) => opening.needs_first_frame() || self.live.access.is_on(),
            _ => return Fed::default(),
        };
        if nameless {
            self.set(id, Flags::NAMELESS);
            return Fed::default();
        }
        self.open_raw(id, &[]).map_or_else(|refusal| Fed::closed(&[], refusal.0, refusal.1), |()| Fed::default())
    }

    /// Takes a raw TCP connection's first frame, then its messages.
    pub(super) fn feed_first_frame(&mut self, id: ConnId, bytes: &mut [u8]) -> Fed {
        let Some(connection) = self.table.get_mut(id) else { return Fed::all(bytes) };
        let mut env = Env { limits: &self.limits, tools: &mut self.tools, partials: &mut self.partials };
        let mut first = None;
        let result = tcp::receive(connection.protocol, &mut connection.partial, bytes, &mut env, |event| match event {
            Event::Message(_, payload) => {
                first = Some(payload.to_vec());
                Flow::Stop
            }
            _ => Flow::Continue,
        });
        let consumed = match result {
            Ok(consumed) => consumed,
            Err(violation) => {
                let (reason, detail) = reasoned(&violation, &self.metrics);
                return Fed::closed(bytes, reason, detail);
            }
        };
        let Some(first) = first else { return Fed::all(bytes) };
        if self.awaits_token(id) {
            if let Err(cause) = self.take_auth_frame(id, &first) {
                return self.refuse_frame(id, bytes, cause);
            }
            if self.needs_first_frame(id) {
                let fed = self.feed_first_frame(id, &mut bytes[consumed..]);
                return Fed { consumed: consumed + fed.consumed, ..fed };
            }
        }
        if let Err((reason, detail)) = self.open_raw(id, &first) {
            return Fed::closed(bytes, reason, detail);
        }
        // What the handler wished for when it opened comes before what it wishes for when messages come.
        if let Some((reason, why)) = self.apply_effects(id) {
            return Fed::closed(bytes, reason, why.into());
        }
        let fed = self.feed_frames(id, &mut bytes[consumed..]);
        Fed { consumed: consumed + fed.consumed, ..fed }
    }

    /// Whether a connection says with a frame of its own what it opens.
    fn needs_first_frame(&self, id: ConnId) -> bool {
        let listener = self.table.get(id).map(|connection| usize::from(connection.listener().0));
        let entrance = listener.and_then(|listener| self.entrances.get(listener));
        matches!(entrance.map(|entrance| &entrance.kind), Some(Kind::Tcp { opening, .. }) if opening.needs_first_frame())
    }

    /// Says in a frame why a raw TCP connection is refused, and ends it.
    fn refuse_frame(&mut self, id: ConnId, bytes: &[u8], cause: AuthRefusal) -> Fed {
        self.metrics.count_refused(cause);
        self.write_refusal(id, &error_text(cause));
        Fed::closed(bytes, CloseReason::Policy, cause.message().to_owned())
    }

    fn write_refusal(&mut self, id: ConnId, text: &str) {
        if let Some(connection) = self.table.get(id) {
            let encoder = connection.encoder();
            encode_message(encoder, MessageKind::Text, text.as_bytes(), &mut self.deflater, &mut self.out);
        }
    }

    fn open_raw(&mut self, id: ConnId, first_frame: &[u8]) -> Result<(), (CloseReason, String)> {
        let Some(connection) = self.table.get(id) else { return Ok(()) };
        let Some(entrance) = self.entrances.get(usize::from(connection.listener().0)) else { return Ok(()) };
        let Kind::Tcp { opening, .. } = &entrance.kind else { return Ok(()) };
        let target =
            opening.target(first_frame, self.limits.topic_bytes_max).map_err(|bad| reasoned(&bad, &self.metrics))?;
        let (route, request) = target
            .find(&self.router, self.limits.topic_bytes_max)
            .ok_or_else(|| (CloseReason::Policy, "no such route".to_owned()))?;
        let grant = connection.grant().cloned();
        let request = Request { user: grant.as_ref().and_then(|grant| grant.user.as_deref()), ..request };
        let subject = self.subject(id, connection, None, grant.as_deref());
        let mut context = Context::new(subject, &mut self.deflater, &mut self.out, &mut self.effects);
        let state = self.router.open(route, &request, &mut context).map_err(|fault| {
            self.effects.clear();
            fault_reason(fault, &self.metrics)
        })?;
        if let Some(refusal) = forbidden(&self.effects, grant.as_deref()) {
            self.router.forget(route, state);
            self.effects.clear();
            let mut text = Vec::new();
            json::write_error(refusal.code, &refusal.message, &mut text);
            self.write_refusal(id, &String::from_utf8_lossy(text.trim_ascii_end()));
            self.metrics.count_refused(grant.map_or(AuthRefusal::Forbidden, |grant| grant.refusal()));
            return Err((CloseReason::Policy, refusal.message));
        }
        let protocol = self.table.get(id).map_or(Protocol::Line, |connection| connection.protocol);
        self.opened(id, Opened { route, state, websocket: websocket::State::default(), protocol });
        Ok(())
    }

    /// What counts the connections of a protocol that is one way of HTTP.
    pub(super) fn stream_gauge(&self, protocol: Protocol) -> Option<&Counter> {
        match protocol {
            Protocol::Sse | Protocol::SseMany => Some(&self.metrics.event_streams),
            Protocol::JsonStream | Protocol::JsonLines => Some(&self.metrics.line_streams),
            Protocol::Poll => Some(&self.metrics.polls),
            Protocol::Grpc => Some(&self.metrics.grpc_calls),
            _ => None,
        }
    }

    /// Notes that a handler has taken the connection.
    pub(super) fn opened(&mut self, id: ConnId, opened: Opened) {
        self.shaken(id);
        self.metrics.handshakes_total.add(1);
        self.note_handshake(id);
        self.speak(id, opened.protocol);
        self.stream_gauge(opened.protocol).into_iter().for_each(|gauge| gauge.add(1));
        if let Some(connection) = self.table.get_mut(id) {
            connection.flags.clear(Flags::NAMELESS);
            connection.flags.set(Flags::OPEN);
            connection.route = opened.route;
            connection.state = opened.state;
            connection.websocket = opened.websocket;
        }
        self.begin_admission(id);
        self.arm_open(id);
        self.hook_connected(id);
    }
}

/// How a connection ends that no handler takes, and what the log says.
pub(super) fn fault_reason(fault: Fault, metrics: &crate::metrics::ShardMetrics) -> (CloseReason, String) {
    match fault {
        Fault::Refused(refusal) => {
            if refusal.code == Rule::TopicTooLong.label() {
                metrics.count_violation(Rule::TopicTooLong);
            } else if refusal.code == parameters::TOO_MANY_TOPICS {
                metrics.strike(Limit::SubscriptionsMax);
            }
            (CloseReason::BadHandshake, refusal.to_string())
        }
        Fault::Panicked => {
            metrics.handler_panics_total.add(1);
            (CloseReason::Internal, "the handler panicked".to_owned())
        }
    }
}
