//! Where a subscriber begins: what the topic's owner says of the past, and the live stream behind it.
//!
//! ```text
//!   subscriber's shard                       owner
//!   joins, and takes nothing yet
//!        Interest, Ask(Past) ------------->  messages up to an offset
//!        <------- live messages until then,  Answer(Past), live messages after it
//!   sends the past, takes what comes after
//! ```
//!
//! Both ways are queues, so the answer parts the live messages at exactly the place where the past ends. A stream of
//! several topics first asks for the places of all, since each of its events says where it stands in every one of them.

use std::fmt;

use hashbrown::HashSet;

use super::connection::{Flags, Membership};
use super::core::Core;
use super::mail::{About, Question, Request};
use crate::app::Subscribe;
use crate::buf::Outbox;
use crate::close::CloseReason;
use crate::codec::{json, sse};
use crate::hub::Start;
use crate::hub::topics::Past;
use crate::id::ConnId;
use crate::message::{Cursor, Image, Message, Offset, Publisher, Topic, Wire};
use crate::rule::Limit;
use crate::session::{self, Protocol};

/// After how many milliseconds a reader of events comes again that has lost its stream.
pub(super) const RETRY_MS: u64 = 3000;

/// What is kept of a response that is about several topics, or that waits for a message.
#[derive(Debug, Default)]
pub(super) struct Several {
    pub(super) topics: Vec<Topic>,
    /// How each is subscribed to.
    pub(super) how: Vec<Subscribe>,
    /// Up to where it has been told of each; `None` while the owner has not said it, and in a queue group, which has no past.
    pub(super) cursors: Vec<Option<Cursor>>,
    /// Owners that have not answered yet.
    pub(super) awaited: usize,
    /// Whether the topics have been subscribed to.
    pub(super) is_live: bool,
}

/// The places in all topics: `1:2,3:4`.
pub(super) struct Places<'a>(pub(super) &'a [Cursor]);

impl fmt::Display for Places<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, cursor) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{cursor}")?;
        }
        Ok(())
    }
}

impl Several {
    pub(super) fn new(wishes: Vec<(Topic, Subscribe)>) -> Self {
        let (topics, how): (Vec<_>, Vec<_>) = wishes.into_iter().unzip();
        let known = |how: &Subscribe| if let Start::Since(cursor) = how.start { Some(cursor) } else { None };
        let cursors = how.iter().map(known).collect();
        Self { topics, how, cursors, ..Self::default() }
    }

    pub(super) fn place_of(&self, topic: &Topic) -> Option<usize> {
        self.topics.iter().position(|name| name == topic)
    }

    /// The places in all topics, where all are known.
    pub(super) fn places(&self) -> Option<Vec<Cursor>> {
        self.cursors.iter().copied().collect()
    }

    fn write_id(&self, out: &mut Vec<u8>) {
        if let Some(places) = self.places() {
            sse::write_id(Places(&places), out);
        }
    }
}

/// Just before a message.
pub(super) const fn before(message: &Message) -> Cursor {
    Cursor { epoch: message.epoch, offset: Offset(message.offset.0.saturating_sub(1)) }
}

pub(super) fn place_of(topic: &Topic, cursor: Cursor) -> json::Place<'_> {
    json::Place { topic: topic.as_str(), epoch: cursor.epoch.0, offset: cursor.offset.0 }
}

impl Core {
    /// Whether a subscription waits until the owner has said where it begins. A stream of events needs that to say how it
    /// can be resumed.
    pub(super) fn begins_later(protocol: Protocol, how: &Subscribe) -> bool {
        how.group.is_none()
            && (how.start != Start::Now || matches!(protocol, Protocol::Sse | Protocol::Poll | Protocol::Grpc))
    }

    /// Asks a topic's owner.
    pub(super) fn ask(&mut self, id: ConnId, topic: &Topic, about: About) {
        let asker = Publisher { shard: self.id, connection: id };
        self.send_to_owner(topic, Request::Ask(Question { asker, topic: topic.clone(), about }));
    }

    /// Whether what a handler subscribes to now is what a response that begins is about.
    pub(super) fn opens_stream(&self, id: ConnId) -> bool {
        self.table.get(id).is_some_and(|connection| {
            matches!(connection.protocol, Protocol::Sse | Protocol::Poll)
                && connection.flags.has(Flags::OPEN)
                && !connection.membership.is_some()
                && connection.extra.as_ref().is_none_or(|extra| extra.several.is_none())
        })
    }

    /// Carries out what a handler subscribed to when a response began that goes on.
    pub(super) fn open_stream(&mut self, id: ConnId, mut wishes: Vec<(Topic, Subscribe)>) -> Result<(), CloseReason> {
        if wishes.len() > self.limits.subscriptions_max {
            self.metrics.strike(Limit::SubscriptionsMax);
            return Err(CloseReason::Policy);
        }
        // A topic is subscribed to once, however often a handler asks.
        let mut seen = HashSet::with_capacity(wishes.len());
        wishes.retain(|(topic, _)| seen.insert(topic.clone()));
        let Some(connection) = self.table.get_mut(id) else { return Ok(()) };
        match connection.protocol {
            Protocol::Poll => return self.open_poll(id, wishes),
            Protocol::Sse if wishes.len() != 1 => connection.protocol = Protocol::SseMany,
            _ => {
                let starts_at_once = wishes.iter().any(|(_, how)| how.group.is_some());
                wishes.iter().try_for_each(|(topic, how)| self.subscribe(id, topic, how.clone()))?;
                if starts_at_once {
                    self.begun.push_back(id);
                }
                return Ok(());
            }
        }
        let mut several = Several::new(wishes);
        let unknown: Vec<(Topic, Start)> = several
            .topics
            .iter()
            .zip(&several.how)
            .filter(|(_, how)| how.group.is_none() && !matches!(how.start, Start::Since(_)))
            .map(|(topic, how)| (topic.clone(), how.start))
            .collect();
        several.awaited = unknown.len();
        connection.extra.get_or_insert_default().several = Some(Box::new(several));
        if unknown.is_empty() {
            self.begun.push_back(id);
        }
        unknown.into_iter().for_each(|(topic, start)| self.ask(id, &topic, About::Past(start, Wire::SseMany)));
        Ok(())
    }

    /// Begins streams of events that know all their places.
    pub(super) fn begin_streams(&mut self) {
        while let Some(id) = self.begun.pop_front() {
            self.begin_stream(id);
        }
    }

    fn begin_stream(&mut self, id: ConnId) {
        let Some(connection) = self.table.get_mut(id).filter(|one| !one.flags.has(Flags::CLOSING)) else { return };
        let mut start = Vec::new();
        let several = connection.extra.as_deref_mut().and_then(|extra| extra.several.as_deref_mut());
        let Some(several) = several else {
            sse::write_start(RETRY_MS, None, &mut start);
            return self.say(id, &start);
        };
        several.is_live = true;
        let places = several.places();
        let places = places.as_deref().map(Places);
        sse::write_start(RETRY_MS, places.as_ref().map(|places| places as &dyn fmt::Display), &mut start);
        let since = |(how, cursor): (&Subscribe, &Option<Cursor>)| Subscribe {
            start: cursor.map_or(how.start, Start::Since),
            ..how.clone()
        };
        let how: Vec<_> = several.how.iter().zip(&several.cursors).map(since).collect();
        let topics = several.topics.clone();
        self.say(id, &start);
        for (topic, how) in topics.iter().zip(how) {
            if let Err(why) = self.subscribe(id, topic, how) {
                self.doomed.push((id, why.reason(), "a topic of the stream cannot be had"));
                return;
            }
        }
    }

    /// The owner has said where a subscription begins.
    pub(super) fn take_past(&mut self, id: ConnId, topic: &Topic, past: Past) {
        let Some(connection) = self.table.get(id).filter(|one| !one.flags.has(Flags::CLOSING)) else { return };
        match connection.protocol {
            Protocol::Poll => return self.take_past_of_poll(id, topic, past),
            Protocol::SseMany if !self.is_live(id) => return self.take_place(id, topic, &past),
            _ => {}
        }
        if !self.begin_member(id, topic, past.cursor.offset) {
            return;
        }
        if !past.messages.is_empty() && self.is_queue_budget_spent() {
            self.doomed.push((id, CloseReason::TryAgainLater, "no room left in the queues of the process"));
            return;
        }
        self.replay(id, topic, past);
    }

    /// Lets a member take part that waited for its past; whether there is such a one.
    pub(super) fn begin_member(&mut self, id: ConnId, topic: &Topic, after: Offset) -> bool {
        let Some(key) = self.members.key(topic, None) else { return false };
        let Some(connection) = self.table.get(id) else { return false };
        let Some(Membership { topic, position }) = connection.memberships().find(|one| one.topic == key) else {
            return false;
        };
        // One that does not wait has had its past, or never asked: this is an answer to a subscription before it.
        let waits = self.members.members(topic).get(position as usize).is_some_and(|member| member.is_pending());
        if waits {
            self.members.begin(topic, position, after);
        }
        waits
    }

    fn is_live(&self, id: ConnId) -> bool {
        let several = self.table.get(id).and_then(|connection| connection.extra.as_deref()?.several.as_deref());
        several.is_some_and(|several| several.is_live)
    }

    /// Notes one of the places that a stream of several topics begins at.
    fn take_place(&mut self, id: ConnId, topic: &Topic, past: &Past) {
        let Some(several) = self.several(id) else { return };
        let Some(place) = several.place_of(topic) else { return };
        several.cursors[place] = Some(past.messages.first().map_or(past.cursor, before));
        several.awaited = several.awaited.saturating_sub(1);
        if several.awaited == 0 {
            self.begun.push_back(id);
        }
    }

    pub(super) fn several(&mut self, id: ConnId) -> Option<&mut Several> {
        self.table.get_mut(id)?.extra.as_deref_mut()?.several.as_deref_mut()
    }

    /// Sends what a subscriber gets before the live stream.
    fn replay(&mut self, id: ConnId, topic: &Topic, past: Past) {
        let Some(connection) = self.table.get(id) else { return };
        let (encoder, protocol) = (connection.encoder(), connection.protocol);
        let mut start = Vec::new();
        if protocol == Protocol::Sse {
            // Where something is lost the reader has no new place before it has been told so.
            let place = past.messages.first().map_or(past.cursor, before);
            let place: Option<&dyn fmt::Display> = if past.reset { None } else { Some(&place) };
            sse::write_start(RETRY_MS, place, &mut start);
        }
        let began = past.messages.first().map_or(past.cursor, before);
        session::encode_subscribed(encoder, place_of(topic, began), &mut start);
        if past.reset {
            self.metrics.resets_total.add(1);
            if protocol == Protocol::Sse {
                sse::write_id(past.cursor, &mut start);
            } else if protocol == Protocol::SseMany
                && let Some(several) = self.several(id)
                && let Some(place) = several.place_of(topic)
            {
                several.cursors[place] = Some(past.cursor);
                several.write_id(&mut start);
            }
            session::encode_reset(encoder, place_of(topic, past.cursor), &mut self.deflater, &mut start);
        }
        self.say(id, &start);
        self.metrics.replayed_total.add(past.messages.len() as u64);
        self.metrics.count_sent(protocol.counted(), past.messages.len() as u64);
        for mut message in past.messages {
            let image = if encoder.wire == Wire::SseMany {
                let Some(image) = self.event_of_many(id, &mut message) else { continue };
                image
            } else {
                message.encoded(encoder.wire, &mut self.deflater)
            };
            self.queue_past(id, image);
        }
        self.mark_dirty(id);
    }

    pub(super) fn queue_past(&mut self, id: ConnId, image: Image) {
        self.uncork_to_outbox(id);
        let Some(outbox) = self.outbox(id) else { return };
        let before = outbox.memory();
        outbox.allow(Outbox::cost_of(image.len()));
        outbox.push_shared(image, 1);
        let after = outbox.memory();
        self.count_queued(before, after);
    }

    /// An event of a stream of several topics: its id says where the stream stands in each.
    pub(super) fn event_of_many(&mut self, id: ConnId, message: &mut Message) -> Option<Image> {
        let body = message.encoded(Wire::SseMany, &mut self.deflater);
        let several = self.several(id)?;
        let place = several.place_of(&message.topic)?;
        if several.how[place].group.is_none() {
            several.cursors[place] = Some(message.cursor());
        }
        let mut event = Vec::new();
        several.write_id(&mut event);
        event.extend_from_slice(body.as_slice());
        Some(event.into())
    }

    /// Queues bytes of a connection's own outside of what it is being answered, behind all that was written before.
    pub(super) fn say(&mut self, id: ConnId, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.write_own(id, |own| own.extend_from_slice(bytes));
        }
    }

    /// The same for what `write` appends, which is something.
    pub(super) fn write_own(&mut self, id: ConnId, write: impl FnOnce(&mut Vec<u8>)) {
        self.uncork_to_outbox(id);
        let Some(outbox) = self.outbox(id) else { return };
        let before = outbox.memory();
        let bytes = outbox.write_own(write);
        let after = outbox.memory();
        self.metrics.bytes_sent_total.add(bytes as u64);
        self.count_queued(before, after);
        self.mark_dirty(id);
    }
}
