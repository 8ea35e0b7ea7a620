//! A handler's surroundings in a test: it is called as a shard would call it, and what it wishes is told in words.

use super::{Context, Effect, Handler, NotPublished, Published, Refusal, Request, Subject};
use crate::access::Grant;
use crate::close::CloseReason;
use crate::codec::websocket::deflate::Deflater;
use crate::hub::Start;
use crate::id::{ConnId, ShardId};
use crate::message::{Kind, Topic, Wire};
use crate::session::{Encoder, Protocol};
use crate::time::Instant;

/// One connection without a shard.
pub(crate) struct Bench {
    encoder: Encoder,
    topic: Option<Topic>,
    /// The server drains.
    pub(crate) is_draining: bool,
    /// What the client may do.
    pub(crate) grant: Option<Grant>,
    deflater: Deflater,
    effects: Vec<Effect>,
    /// What was sent to the connection.
    pub(crate) out: Vec<u8>,
}

impl Bench {
    pub(crate) fn new(wire: Wire) -> Self {
        let encoder = Encoder { wire, window_bits: 0 };
        let (effects, out) = (Vec::new(), Vec::new());
        Self { encoder, topic: None, is_draining: false, grant: None, deflater: Deflater::default(), effects, out }
    }

    /// Calls with a context.
    pub(crate) fn call<T>(&mut self, call: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let protocol = match self.encoder.wire {
            Wire::WebSocket | Wire::WebSocketDeflate | Wire::WebSocketJson => Protocol::WebSocket,
            Wire::Line => Protocol::Line,
            Wire::Length => Protocol::Length,
            Wire::Sse => Protocol::Sse,
            Wire::SseMany => Protocol::SseMany,
            Wire::JsonStream => Protocol::JsonStream,
            Wire::Json => Protocol::Poll,
            Wire::JsonLines => Protocol::JsonLines,
            Wire::Grpc => Protocol::Grpc,
        };
        let subject = Subject {
            id: ConnId::new(7, 1),
            shard: ShardId(2),
            now: Instant::from_millis(1000),
            protocol,
            encoder: self.encoder,
            topic: self.topic.as_ref(),
            is_draining: self.is_draining,
            grant: self.grant.as_ref(),
        };
        call(&mut Context::new(subject, &mut self.deflater, &mut self.out, &mut self.effects))
    }

    /// The shard has carried out the first subscription.
    pub(crate) fn join(&mut self, topic: &str) {
        self.topic = Topic::parse(topic.as_bytes(), Topic::BYTES_MAX).ok();
    }

    pub(crate) fn open<H: Handler>(
        &mut self,
        handler: &mut H,
        state: &mut H::State,
        path: &str,
        query: &str,
        param: &str,
    ) -> Result<(), Refusal> {
        self.open_request(handler, state, &Request { path, query, param, ..Request::default() })
    }

    pub(crate) fn open_request<H: Handler>(
        &mut self,
        handler: &mut H,
        state: &mut H::State,
        request: &Request<'_>,
    ) -> Result<(), Refusal> {
        self.call(|context| handler.open(state, request, context))
    }

    pub(crate) fn message<H: Handler>(&mut self, handler: &mut H, state: &mut H::State, kind: Kind, payload: &[u8]) {
        self.call(|context| handler.message(state, kind, payload, context));
    }

    pub(crate) fn finish<H: Handler>(&mut self, handler: &mut H, state: &mut H::State) {
        self.call(|context| handler.finish(state, context));
    }

    pub(crate) fn leave<H: Handler>(&mut self, handler: &mut H, state: &mut H::State) {
        self.call(|context| handler.leave(state, context));
    }

    pub(crate) fn published<H: Handler>(
        &mut self,
        handler: &mut H,
        state: &mut H::State,
        number: u32,
        outcome: Result<Published, NotPublished>,
    ) {
        self.call(|context| handler.published(state, number, outcome, context));
    }

    pub(crate) fn close<H: Handler>(&mut self, handler: &mut H, state: &mut H::State, reason: CloseReason) {
        self.call(|context| handler.close(state, reason, context));
    }

    /// What was wished for since the last call.
    pub(crate) fn effects(&mut self) -> Vec<String> {
        let words = |effect: Effect| match effect {
            Effect::Subscribe(topic, how) => {
                let group = how.group.map_or(String::new(), |group| format!(" group={}", group.as_str()));
                let start = match how.start {
                    Start::Now => String::new(),
                    Start::Since(cursor) => format!(" since={cursor}"),
                    Start::Last(count) => format!(" history={count}"),
                };
                let watch = if how.watch { " watch" } else { "" };
                let who = how.who.map_or_else(String::new, |who| {
                    let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().unwrap_or("-").to_owned();
                    format!(" as {} {}", text(&who.member), text(&who.name))
                });
                format!("subscribe {topic} echo={}{group}{start}{watch}{who}", how.echo)
            }
            Effect::Unsubscribe(topic) => format!("unsubscribe {topic}"),
            Effect::Publish(message) | Effect::Announce(message) => {
                let text = String::from_utf8_lossy(message.payload());
                format!("publish {} {:?} {text}", message.topic, message.kind())
            }
            Effect::Renew(token, number) => format!("renew {number} {}", String::from_utf8_lossy(&token)),
            Effect::Presence(topic, after, limit) => {
                format!("presence {topic} {} {limit}", after.map_or_else(String::new, |id| id.write()))
            }
            Effect::Refused(cause) => format!("refused {}", cause.label()),
            Effect::Close(reason) => format!("close {reason}"),
            Effect::End(status) => format!("end {:?} {}", status.code, status.message),
            Effect::PublishFor(message, number, key) => {
                let text = String::from_utf8_lossy(message.payload()).into_owned();
                let trace =
                    message.trace().map_or_else(String::new, |trace| format!(" {} {}", trace.parent, trace.state));
                format!("publish {number} {} {text} {key:?}{trace}", message.topic)
            }
        };
        self.effects.drain(..).map(words).collect()
    }
}
