//! From an accepted socket to an open connection: the first frame of raw TCP that says which route it takes, and what is
//! common to all. HTTP's way is in `http` and `requests`.

use super::connection::Flags;
use super::core::Core;
use super::entrance::Kind;
use super::ingress::reasoned;
use crate::app::router::Fault;
use crate::app::{Context, RouteId, parameters};
use crate::close::CloseReason;
use crate::id::ConnId;
use crate::metrics::Counter;
use crate::rule::{Limit, Rule};
use crate::session::{Env, Event, Flow, Protocol, tcp, websocket};
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
            Some(Kind::Tcp { opening, .. }) => opening.needs_first_frame(),
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
        if let Err((reason, detail)) = self.open_raw(id, &first) {
            return Fed::closed(bytes, reason, detail);
        }
        // What the handler wished for when it opened comes before what it wishes for when messages come.
        if let Some(reason) = self.apply_effects(id) {
            return Fed::closed(bytes, reason, "the application asked for it".into());
        }
        let fed = self.feed_frames(id, &mut bytes[consumed..]);
        Fed { consumed: consumed + fed.consumed, ..fed }
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
        let subject = self.subject(id, connection, None);
        let mut context = Context::new(subject, &mut self.deflater, &mut self.out, &mut self.effects);
        let state = self.router.open(route, &request, &mut context).map_err(|fault| {
            self.effects.clear();
            fault_reason(fault, &self.metrics)
        })?;
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
        self.arm_open(id);
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
