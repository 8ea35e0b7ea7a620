//! What a handler is given with each call: whom it speaks for, and what it can wish for.

use super::{Effect, Refusal, Status, Subscribe};
use crate::access::Grant;
use crate::close::CloseReason;
use crate::codec::trace::Trace;
use crate::codec::websocket::deflate::Deflater;
use crate::hub::presence::MemberId;
use crate::id::{ConnId, ShardId};
use crate::message::{Kind, Message, Publisher, Topic};
use crate::session::{self, Encoder, Protocol};
use crate::time::Instant;

/// What a handler can see and do during one call.
pub struct Context<'a> {
    id: ConnId,
    shard: ShardId,
    now: Instant,
    protocol: Protocol,
    encoder: Encoder,
    topic: Option<&'a Topic>,
    is_draining: bool,
    grant: Option<&'a Grant>,
    deflater: &'a mut Deflater,
    out: &'a mut Vec<u8>,
    effects: &'a mut Vec<Effect>,
    /// Messages that were sent.
    sent: u64,
}

/// The connection that a [`Context`] speaks for.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its id.
    pub id: ConnId,
    /// Its shard.
    pub shard: ShardId,
    /// The turn's time.
    pub now: Instant,
    /// Its protocol.
    pub protocol: Protocol,
    /// How to encode for it.
    pub encoder: Encoder,
    /// The topic that it subscribed to first.
    pub topic: Option<&'a Topic>,
    /// The server drains.
    pub is_draining: bool,
    /// What it may do; `None`: everything.
    pub grant: Option<&'a Grant>,
}

impl<'a> Context<'a> {
    /// A context that writes frames to `out` and wishes to `effects`.
    pub fn new(
        subject: Subject<'a>,
        deflater: &'a mut Deflater,
        out: &'a mut Vec<u8>,
        effects: &'a mut Vec<Effect>,
    ) -> Self {
        let Subject { id, shard, now, protocol, encoder, topic, is_draining, grant } = subject;
        Self { id, shard, now, protocol, encoder, topic, is_draining, grant, deflater, out, effects, sent: 0 }
    }

    /// The connection, unique within its shard while it lives.
    #[must_use]
    pub const fn id(&self) -> ConnId {
        self.id
    }

    /// The shard that it lives on.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// The time of this turn.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Whether the server drains: it takes nobody in, and all have to go.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// What it speaks.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Who the client is, as its token says.
    #[must_use]
    pub fn user(&self) -> Option<&'a str> {
        self.grant?.user.as_deref()
    }

    /// What the client may do; `None`: everything, nobody was asked.
    #[must_use]
    pub const fn grant(&self) -> Option<&'a Grant> {
        self.grant
    }

    /// Whether this client may read a topic. The shard refuses what it may not, and ends the connection where it has no other
    /// way to say so: whoever subscribes when a message asks for it does best to ask here first.
    ///
    /// # Errors
    /// When it may not.
    pub fn may_subscribe(&mut self, topic: &Topic) -> Result<(), Refusal> {
        let Some(grant) = self.grant.filter(|grant| !grant.may_subscribe(topic.as_str())) else { return Ok(()) };
        let cause = grant.refusal();
        self.effects.push(Effect::Refused(cause));
        Err(Refusal { status: cause.status(), code: cause.code(), message: cause.message().to_owned() })
    }

    /// Shows a new token for this connection; [`Handler::renewed`](super::Handler::renewed) is told what became of it, with
    /// this number.
    pub fn renew(&mut self, token: &[u8], number: u32) {
        self.effects.push(Effect::Renew(token.into(), number));
    }

    /// The topic that this connection subscribed to first, if it has one.
    #[must_use]
    pub const fn topic(&self) -> Option<&'a Topic> {
        self.topic
    }

    /// Sends a message to this connection.
    pub fn send(&mut self, kind: Kind, payload: &[u8]) {
        self.sent += 1;
        session::encode_message(self.encoder, kind, payload, self.deflater, self.out);
    }

    /// How many messages were sent so far.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends text to this connection.
    pub fn send_text(&mut self, text: &str) {
        self.send(Kind::Text, text.as_bytes());
    }

    /// Joins a topic.
    pub fn subscribe(&mut self, topic: Topic, how: Subscribe) {
        self.effects.push(Effect::Subscribe(topic, how));
    }

    /// Leaves a topic.
    pub fn unsubscribe(&mut self, topic: Topic) {
        self.effects.push(Effect::Unsubscribe(topic));
    }

    /// Sends what this client has said to all subscribers of a topic. The payload is copied here, once for all of them. Where
    /// the topic's rule does not let it publish, or not so much, its connection is closed with [`CloseReason::Policy`].
    pub fn publish(&mut self, topic: Topic, kind: Kind, payload: &[u8]) {
        let message = self.message(topic, kind, payload);
        self.effects.push(Effect::Publish(message));
    }

    /// The same for what the application says about its client, that it has come for one: where the client may not publish,
    /// nobody hears it, and nothing else happens.
    pub fn announce(&mut self, topic: Topic, kind: Kind, payload: &[u8]) {
        let message = self.message(topic, kind, payload);
        self.effects.push(Effect::Announce(message));
    }

    fn message(&self, topic: Topic, kind: Kind, payload: &[u8]) -> Message {
        let publisher = Publisher { shard: self.shard, connection: self.id };
        Message::new(topic, kind, payload, Some(publisher))
    }

    /// [`Context::publish`], and [`Handler::published`](super::Handler::published) is told what became of it, with this
    /// number. A message whose idempotency key is that of one in the topic's history is the same message: it is not
    /// published twice.
    pub fn publish_for(&mut self, topic: Topic, kind: Kind, payload: &[u8], number: u32, key: Option<&str>) {
        self.publish_traced(topic, kind, payload, number, key, None);
    }

    /// The same for a message that belongs to a trace, which its subscribers are told where their format has room.
    pub fn publish_traced(
        &mut self,
        topic: Topic,
        kind: Kind,
        payload: &[u8],
        number: u32,
        key: Option<&str>,
        trace: Option<Trace<'_>>,
    ) {
        let publisher = Publisher { shard: self.shard, connection: self.id };
        let message = Message::traced(topic, kind, payload, Some(publisher), trace);
        self.effects.push(Effect::PublishFor(message, number, key.map(Box::from)));
    }

    /// Asks who is in a topic: those behind `after`, `limit` at most. [`Handler::presence`](super::Handler::presence) is told.
    /// Only for calls, and whoever does it asks [`Context::may_subscribe`] before.
    pub fn ask_presence(&mut self, topic: Topic, after: Option<MemberId>, limit: usize) {
        self.effects.push(Effect::Presence(topic, after, limit));
    }

    /// Ends this call with a status, after what was sent before. On what is no gRPC call it is [`Context::close`].
    pub fn end(&mut self, status: Status) {
        self.effects.push(Effect::End(status));
    }

    /// Ends this connection, after what was sent before.
    pub fn close(&mut self, reason: CloseReason) {
        self.effects.push(Effect::Close(reason));
    }
}
