//! Plain topics: what is said to the other nodes, and what they say.

use std::rc::Rc;

use async_nats::{HeaderMap, Message as NatsMessage, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::desk::{Seat, Shared};
use crate::cluster::envelope::{Envelope, HEADER};
use crate::cluster::names::Use;
use crate::cluster::port::{Follow, Inbound, Said, WHISPER_MAX};
use crate::message::{Message, Topic};
use crate::metrics::ClusterDropped;

/// A message's headers.
pub(super) fn headers(envelope: &Envelope<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HEADER, envelope.write());
    headers
}

/// What a message's headers say of it, if they are ours.
pub(super) fn envelope(headers: Option<&HeaderMap>) -> Option<Envelope<'_>> {
    Envelope::read(headers?.get(HEADER)?.as_str())
}

impl Shared {
    /// Says a message of a plain topic, or how many there were.
    pub(super) async fn say(&self, topic: &Topic, message: Option<&Message>, said: Said) {
        if !self.is_up() {
            return self.metrics.drop_one(ClusterDropped::Away);
        }
        let envelope =
            message.map_or(Envelope::bare(self.node, Some(said)), |one| Envelope::of(self.node, one, Some(said)));
        let envelope = Envelope { publisher: None, ..envelope };
        let payload = message.map_or_else(Bytes::new, |message| Bytes::copy_from_slice(message.payload()));
        self.metrics.said(payload.len());
        let subject = self.settings.names.subject(Use::Plain, topic);
        if let Err(why) = self.unless_away(self.client.publish_with_headers(subject, headers(&envelope), payload)).await
        {
            self.metrics.drop_one(why);
        }
    }

    /// Tells the other nodes something of a topic.
    pub(super) async fn whisper(&self, topic: &Topic, bytes: Box<[u8]>) {
        let envelope = Envelope::bare(self.node, None);
        let subject = self.settings.names.subject(Use::Whisper, topic);
        if self.is_up() {
            let publish = self.client.publish_with_headers(subject, headers(&envelope), Bytes::from(bytes));
            let _ = self.unless_away(publish).await;
        }
    }

    /// Hears a plain topic until it is dropped.
    pub(super) async fn follow_plain(self: Rc<Self>, seat: Rc<Seat>, follow: Follow, topic: Topic, whispers: bool) {
        let mut link = self.link.clone();
        let subject = self.settings.names.subject(Use::Plain, &topic);
        let (Ok(mut said), Some(mut whispered)) =
            (self.client.subscribe(subject).await, self.whispers(&topic, whispers).await)
        else {
            return self.metrics.drop_one(ClusterDropped::Refused);
        };
        let mut seen = *link.borrow_and_update();
        if seen.is_up {
            self.settling.settle().await;
        }
        seat.post(Inbound::Following(follow)).await;
        loop {
            tokio::select! {
                biased;
                changed = link.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = *link.borrow_and_update();
                    if now.is_up && (now.number, now.slow) != (seen.number, seen.slow) {
                        // What was said meanwhile nobody knows; what is said from now on is heard behind this.
                        seen = now;
                        seat.post(Inbound::Lost(follow, None)).await;
                    }
                }
                next = said.next() => match next {
                    Some(next) => self.hear(&seat, follow, &topic, &next).await,
                    None => return,
                },
                next = whispered.next() => match next {
                    Some(next) => self.hear_whisper(&seat, follow, next).await,
                    None => return,
                },
            }
        }
    }

    async fn hear(&self, seat: &Seat, follow: Follow, topic: &Topic, heard: &NatsMessage) {
        self.metrics.heard(heard.payload.len());
        let envelope = envelope(heard.headers.as_ref()).filter(|envelope| envelope.node != self.node);
        let Some(envelope) = envelope else { return self.metrics.drop_one(ClusterDropped::Foreign) };
        let Some(said) = envelope.said else { return self.metrics.drop_one(ClusterDropped::Foreign) };
        let message = envelope.message(self.node, topic, &heard.payload);
        let node = envelope.node;
        seat.post(Inbound::Heard { follow, node, said, message }).await;
    }

    pub(super) async fn hear_whisper(&self, seat: &Seat, follow: Follow, heard: NatsMessage) {
        let node = envelope(heard.headers.as_ref()).map(|envelope| envelope.node);
        let node = node.filter(|&node| node != self.node && heard.payload.len() <= WHISPER_MAX);
        // Nobody is told of members of a node that is not known, or has left: they would stay for ever.
        if let Some(node) = node
            && self.meet(node).await.is_some()
        {
            seat.post(Inbound::Whispered(follow, node, heard.payload.as_ref().into())).await;
        }
    }

    /// Subscribes to what nodes tell each other of a topic, where that is wanted.
    pub(super) async fn whispers(&self, topic: &Topic, are_wanted: bool) -> Option<Whispers> {
        if !are_wanted {
            return Some(Whispers(None));
        }
        let subscriber = self.client.subscribe(self.settings.names.subject(Use::Whisper, topic)).await;
        subscriber.ok().map(|subscriber| Whispers(Some(subscriber)))
    }
}

/// What nodes tell each other of a topic. A subscription takes some 6 KiB: without need there is none.
pub(super) struct Whispers(Option<Subscriber>);

impl Whispers {
    /// The next one; never, where none are wanted.
    pub(super) async fn next(&mut self) -> Option<NatsMessage> {
        match &mut self.0 {
            Some(subscriber) => subscriber.next().await,
            None => std::future::pending().await,
        }
    }
}
