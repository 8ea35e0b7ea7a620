//! A route that is read: as a WebSocket, as a stream of events or lines, by a long poll, or by a question to a topic's owner.

use super::{Requests, Task, challenge_of};
use crate::app::router::{Fault, Request};
use crate::app::{Context, Refusal, RouteId, parameters};
use crate::message::{Topic, Wire};
use crate::session::http::{self, Head, Reply, Version, Violation, write_error, write_head};
use crate::session::{Encoder, Protocol, websocket};
use crate::shard::admitting::user_of;
use crate::shard::answers::{JSON_LINES, NO_STORE};
use crate::shard::http::{Answer, Later};
use crate::shard::mail::About;
use crate::shard::opening::{Opened, fault_reason};
use crate::shard::wishes::{Asks, Reading, asks, reading};

/// What a route offers that can be read as a stream, to those who ask for nothing of it.
const ELSE: &str = ", for events with Accept: text/event-stream, or for lines of JSON with ?stream=1";

/// The same where there are long polls too.
const ELSE_POLLS: &str =
    ", for events with Accept: text/event-stream, for lines of JSON with ?stream=1, or for a long poll with ?wait=30s";

impl Requests<'_> {
    /// Reads a route, in the transport that the request asks for.
    pub(super) fn read(
        &mut self,
        head: &Head<'_>,
        route: RouteId,
        param: &str,
        reply: Reply<'_>,
    ) -> Result<Answer, Violation> {
        if self.operators_only
            && let Err(refusal) = self.site.lets_in(head.host())
        {
            return Ok(self.refuse(&refusal, reply));
        }
        let offers = self.offers(route);
        let reading = match reading(head, offers, self.limits) {
            Ok(reading) => reading,
            Err(refusal) => return Ok(self.refuse(&refusal, reply)),
        };
        match reading {
            None if offers.queries && asks(param).is_some() => Ok(self.ask(head, param, reply)),
            None if offers.batches => Err(Violation::MethodNotAllowed(self.methods(head))),
            None if offers.streams => Err(Violation::UpgradeRequired(if offers.polls { ELSE_POLLS } else { ELSE })),
            None | Some(Reading::WebSocket) => self.open(head, route, param, Reading::WebSocket, reply),
            Some(_) if !head.is_modern() && reading == Some(Reading::Lines) => {
                let message = "a stream in chunks needs HTTP/1.1".to_owned();
                Ok(self.refuse(&Refusal { status: 505, code: "bad_version", message }, reply))
            }
            Some(reading) => self.open(head, route, param, reading, reply),
        }
    }

    /// Asks a topic's owner for its state or its history.
    fn ask(&mut self, head: &Head<'_>, param: &str, reply: Reply<'_>) -> Answer {
        let query = head.query();
        let Some((name, asks)) = asks(param) else { return reply.into() };
        let question = Topic::parse(name.as_bytes(), self.limits.topic_bytes_max)
            .map_err(Refusal::from)
            .and_then(|topic| self.may_read(topic))
            .and_then(|topic| {
                let about = match asks {
                    Asks::Info => About::Info,
                    Asks::History => parameters::page(&query).map(|(since, limit)| About::Page { since, limit })?,
                    Asks::Presence => {
                        parameters::members(&query).map(|(after, limit)| About::Presence(after, limit))?
                    }
                };
                Ok((topic, about))
            });
        match question {
            Ok((topic, about)) => Answer::Waits(Later::of(reply), Task::Ask(topic, about)),
            Err(refusal) => self.refuse(&refusal, reply),
        }
    }

    /// Makes of the connection what the request asks for.
    fn open(
        &mut self,
        head: &Head<'_>,
        route: RouteId,
        param: &str,
        reading: Reading,
        reply: Reply<'_>,
    ) -> Result<Answer, Violation> {
        let start = self.out.len();
        if reading == Reading::WebSocket {
            match parameters::is_set(&head.query(), "renew") {
                Ok(renews) => self.renews = renews,
                Err(refusal) => return Ok(self.refuse(&refusal, reply)),
            }
        }
        let (websocket, encoder, protocol) = match reading {
            Reading::WebSocket => match self.switch(head)? {
                Ok((websocket, encoder)) => (websocket, encoder, Protocol::WebSocket),
                Err(refusal) => return Ok(self.refuse(&refusal, reply)),
            },
            Reading::Events => (websocket::State::default(), bare(Wire::Sse), Protocol::Sse),
            Reading::Lines if self.version.is_some() => {
                (websocket::State::default(), bare(Wire::JsonLines), Protocol::JsonLines)
            }
            Reading::Lines => (websocket::State::default(), bare(Wire::JsonStream), Protocol::JsonStream),
            Reading::Poll(_) => (websocket::State::default(), bare(Wire::Json), Protocol::Poll),
        };
        if protocol.is_stream() {
            write_stream_head(protocol, reply, self.out);
            if reply.head_only {
                return Ok(Answer::Last);
            }
        }
        let grant = self.grant.clone();
        let request = Request { user: user_of(&grant), ..self.request(head, param) };
        let subject = self.subject(protocol, encoder, grant.as_deref());
        let mut context = Context::new(subject, self.deflater, self.out, self.effects);
        let opened = self.router.open(route, &request, &mut context);
        let fault = match opened.and_then(|state| self.allowed(route, state)) {
            Ok(state) => {
                let opened = Opened { route, state, websocket, protocol };
                let Reading::Poll(wait) = reading else { return Ok(Answer::Opened(opened)) };
                return Ok(Answer::Polls(opened, self.wheel.tick_of(self.now + wait), Later::of(reply)));
            }
            Err(fault) => fault,
        };
        self.effects.clear();
        self.out.truncate(start);
        refuse(&fault, reply, self.out);
        let (reason, detail) = fault_reason(fault, self.metrics);
        Ok(Answer::Refused(reason, detail))
    }

    /// Writes the answer that turns the connection into a WebSocket.
    fn switch(&mut self, head: &Head<'_>) -> Result<Result<(websocket::State, Encoder), Refusal>, Violation> {
        let upgrade = match self.version {
            Some(_) => http::upgrade_stream(head, self.policy)?,
            None => http::upgrade(head, self.policy)?,
        };
        let is_json = match head.query().get("format").as_deref() {
            None | Some("" | "payload") => false,
            Some("json") => true,
            Some(_) => {
                let message = "format is json, or payload for bare messages".to_owned();
                return Ok(Err(Refusal { status: 400, code: "bad_parameter", message }));
            }
        };
        match self.version {
            Some(Version::Http2(stream)) => http::write_accepted(stream, &upgrade, self.out),
            _ => http::write_switching_protocols(&upgrade, self.out),
        }
        let window_bits = upgrade.deflate.map_or(0, |agreement| agreement.window_bits);
        let state = websocket::State::open(window_bits);
        Ok(Ok(if is_json {
            (state.as_json(), Encoder { wire: Wire::WebSocketJson, window_bits })
        } else {
            let wire = if window_bits == 15 { Wire::WebSocketDeflate } else { Wire::WebSocket };
            (state, Encoder { wire, window_bits })
        }))
    }
}

/// How messages are encoded where nothing is compressed.
const fn bare(wire: Wire) -> Encoder {
    Encoder { wire, window_bits: 0 }
}

/// Appends the head of a response that goes on and on. Events end with the connection, as HTTP/1.0 has it too; lines are
/// chunks.
fn write_stream_head(protocol: Protocol, reply: Reply<'_>, out: &mut Vec<u8>) {
    let is_lines = matches!(protocol, Protocol::JsonStream | Protocol::JsonLines);
    let content_type = if is_lines { JSON_LINES } else { "text/event-stream" };
    let fields = [
        ("Content-Type", content_type),
        NO_STORE,
        // A proxy of this kind must hand on what comes at once.
        ("X-Accel-Buffering", "no"),
        ("Transfer-Encoding", "chunked"),
    ];
    let fields = if is_lines { &fields[..] } else { &fields[..3] };
    write_head(200, fields, Reply { keep_alive: false, ..reply }, out);
}

/// Writes why there is no connection, the last answer of it.
fn refuse(fault: &Fault, reply: Reply<'_>, out: &mut Vec<u8>) {
    let reply = Reply { keep_alive: false, ..reply };
    match fault {
        Fault::Refused(Refusal { status, code, message }) => {
            write_error(*status, code, message, challenge_of(*status), reply, out);
        }
        Fault::Panicked => write_error(500, "internal", "the handler failed", &[], reply, out),
    }
}
