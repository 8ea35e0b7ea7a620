//! From an accepted socket to an open connection: the HTTP request or the first frame that says which route it takes.

use super::connection::Flags;
use super::core::Core;
use super::entrance::Kind;
use super::ingress::reasoned;
use super::shedding::write_shed;
use crate::app::files::Transfer;
use crate::app::router::{Fault, Request};
use crate::app::site::{Body, PageRequest, Site};
use crate::app::{Context, Refusal, RouteId, Router, Subject};
use crate::close::CloseReason;
use crate::codec::http1::head::Head;
use crate::codec::http1::response::{Reply, write_error, write_prepared};
use crate::id::ConnId;
use crate::message::Wire;
use crate::rule::Rule;
use crate::session::http::{self, UpgradePolicy};
use crate::session::{Encoder, Env, Event, Flow, Protocol, tcp, websocket};

/// What came of received bytes.
#[derive(Debug, Default)]
pub(super) struct Fed {
    /// Bytes that are done with.
    pub(super) consumed: usize,
    /// The rest must wait.
    pub(super) pressed: bool,
    /// It published while no publications can go out.
    pub(super) stalled: bool,
    /// Pongs among the answers.
    pub(super) control_replies: u32,
    /// The peer said good-bye, with this code.
    pub(super) good_bye: Option<Option<u16>>,
    /// The connection must end, and why.
    pub(super) close: Option<(CloseReason, String)>,
}

impl Fed {
    pub(super) fn all(bytes: &[u8]) -> Self {
        Self { consumed: bytes.len(), ..Self::default() }
    }

    fn closed(bytes: &[u8], reason: CloseReason, detail: String) -> Self {
        Self { close: Some((reason, detail)), ..Self::all(bytes) }
    }
}

/// A connection that a handler has taken.
struct Opened {
    route: RouteId,
    state: u32,
    websocket: websocket::State,
}

/// What a request came to; the answer has been written.
enum Answer {
    /// It is a WebSocket now.
    Opened(Opened),
    /// More requests may follow.
    KeepAlive,
    /// It was the last one.
    Last,
    /// It was refused.
    Refused(CloseReason, String),
    /// A file follows; what comes behind the request waits for its end.
    File(Box<Transfer>),
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
        self.opened(id, Protocol::Http, Opened { route, state, websocket: websocket::State::default() });
        Ok(())
    }

    /// Notes that a handler has taken the connection.
    fn opened(&mut self, id: ConnId, protocol: Protocol, opened: Opened) {
        self.metrics.handshakes_total.add(1);
        if let Some(connection) = self.table.get_mut(id) {
            connection.flags.clear(Flags::NAMELESS);
            connection.flags.set(Flags::OPEN);
            connection.route = opened.route;
            connection.state = opened.state;
            connection.websocket = opened.websocket;
            if protocol == Protocol::WebSocket {
                connection.protocol = protocol;
            }
        }
        self.arm_open(id);
    }

    /// Answers requests until one of them makes the connection something else.
    pub(super) fn feed_http(&mut self, id: ConnId, bytes: &mut [u8]) -> Fed {
        let mut consumed = 0;
        while consumed < bytes.len() {
            let (used, answer) = match self.request(id, &bytes[consumed..]) {
                Ok((used, Some(answer))) => (used, answer),
                Ok((_, None)) => return Fed::all(bytes),
                Err(violation) => {
                    violation.write(&mut self.out);
                    self.metrics.http_errors_total.add(1);
                    let (reason, detail) = reasoned(&violation, &self.metrics);
                    return Fed::closed(bytes, reason, detail);
                }
            };
            consumed += used;
            self.metrics.http_requests_total.add(1);
            match answer {
                Answer::KeepAlive => {
                    // The next request has its own time.
                    if let Some(connection) = self.table.get_mut(id) {
                        connection.heard = self.tick;
                        connection.state = connection.state.saturating_add(1);
                    }
                    let deadline = self.after(self.limits.handshake_timeout);
                    self.arm(id, deadline);
                    if self.output().len() > self.limits.queue_bytes_max / 4 && consumed < bytes.len() {
                        return Fed { consumed, pressed: true, ..Fed::default() };
                    }
                }
                Answer::File(transfer) => {
                    self.begin_transfer(id, transfer);
                    return Fed { consumed, pressed: consumed < bytes.len(), ..Fed::default() };
                }
                Answer::Last => return Fed::closed(bytes, CloseReason::Normal, String::new()),
                Answer::Refused(reason, detail) => {
                    self.metrics.http_errors_total.add(1);
                    return Fed::closed(bytes, reason, detail);
                }
                Answer::Opened(opened) => {
                    self.opened(id, Protocol::WebSocket, opened);
                    return Fed { consumed, ..Fed::default() };
                }
            }
        }
        Fed::all(bytes)
    }

    fn request(&mut self, id: ConnId, bytes: &[u8]) -> Result<(usize, Option<Answer>), http::Violation> {
        let Some(connection) = self.table.get_mut(id) else { return Ok((bytes.len(), None)) };
        let is_shed = connection.flags.has(Flags::SHED);
        let entrance = self.entrances.get(usize::from(connection.listener().0));
        let Some(Kind::Http { policy, site, routes }) = entrance.map(|entrance| &entrance.kind) else {
            return Ok((bytes.len(), None));
        };
        let mut env = Env { limits: &self.limits, tools: &mut self.tools, partials: &mut self.partials };
        let subject = Subject {
            id,
            shard: self.id,
            now: self.now,
            protocol: Protocol::WebSocket,
            encoder: Encoder { wire: Wire::WebSocket, window_bits: 0 },
            topic: None,
        };
        let (router, deflater, topic_bytes_max) = (&mut self.router, &mut self.deflater, self.limits.topic_bytes_max);
        let (out, effects, metrics) = (&mut self.out, &mut self.effects, &self.metrics);
        let progress = http::receive(&mut connection.partial, bytes, &mut env, |head| {
            if is_shed {
                write_shed(id, out);
                return Ok(Answer::Refused(CloseReason::TryAgainLater, String::new()));
            }
            let found = if *routes { router.find(head.path()) } else { None };
            let start = out.len();
            let Some((route, param)) = found else { return page(head, &**site, out) };
            let (websocket, encoder) = switch(head, policy, out)?;
            let request = Request { path: head.path(), query: head.raw_query(), param, topic_bytes_max };
            let subject = Subject { encoder, ..subject };
            let opened = open(router, route, &request, &mut Context::new(subject, deflater, out, effects));
            Ok(match opened {
                Ok(state) => Answer::Opened(Opened { route, state, websocket }),
                Err(fault) => {
                    effects.clear();
                    out.truncate(start);
                    refuse(&fault, out);
                    let (reason, detail) = fault_reason(fault, metrics);
                    Answer::Refused(reason, detail)
                }
            })
        })?;
        Ok((progress.consumed, progress.outcome.transpose()?))
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        if reply.keep_alive { Self::KeepAlive } else { Self::Last }
    }
}

/// Writes a page, or that there is none.
fn page(head: &Head<'_>, site: &dyn Site, out: &mut Vec<u8>) -> Result<Answer, http::Violation> {
    http::refuse_body(head)?;
    let reply = head.reply();
    let Some(page) = site.get(&PageRequest::of(head)) else {
        write_error(404, "not_found", "there is nothing at this path", &[], reply, out);
        return Ok(reply.into());
    };
    write_prepared(page.status, &page.fields, page.body.len(), reply, out);
    match page.body {
        Body::Bytes(bytes) if !reply.head_only => out.extend_from_slice(&bytes),
        Body::File(slice) if !reply.head_only => {
            return Ok(Answer::File(Box::new(Transfer::new(slice, !reply.keep_alive))));
        }
        Body::Bytes(_) | Body::File(_) => {}
    }
    Ok(reply.into())
}

/// Writes the answer that turns the connection into a WebSocket.
fn switch(
    head: &Head<'_>,
    policy: &UpgradePolicy,
    out: &mut Vec<u8>,
) -> Result<(websocket::State, Encoder), http::Violation> {
    let upgrade = http::upgrade(head, policy)?;
    http::write_switching_protocols(&upgrade, out);
    let window_bits = upgrade.deflate.map_or(0, |agreement| agreement.window_bits);
    let wire = if window_bits == 15 { Wire::WebSocketDeflate } else { Wire::WebSocket };
    Ok((websocket::State::open(window_bits), Encoder { wire, window_bits }))
}

fn open(router: &mut Router, route: RouteId, request: &Request<'_>, context: &mut Context<'_>) -> Result<u32, Fault> {
    router.open(route, request, context)
}

/// Writes why there is no connection.
fn refuse(fault: &Fault, out: &mut Vec<u8>) {
    match fault {
        Fault::Refused(Refusal { status, code, message }) => {
            write_error(*status, code, message, &[], Reply::LAST, out);
        }
        Fault::Panicked => write_error(500, "internal", "the handler failed", &[], Reply::LAST, out),
    }
}

fn fault_reason(fault: Fault, metrics: &crate::metrics::ShardMetrics) -> (CloseReason, String) {
    match fault {
        Fault::Refused(refusal) => {
            if refusal.code == Rule::TopicTooLong.label() {
                metrics.count_violation(Rule::TopicTooLong);
            }
            (CloseReason::BadHandshake, refusal.to_string())
        }
        Fault::Panicked => {
            metrics.handler_panics_total.add(1);
            (CloseReason::Internal, "the handler panicked".to_owned())
        }
    }
}
