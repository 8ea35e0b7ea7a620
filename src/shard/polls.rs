//! Long polls: a request that is answered with what has come since, or waits for the first message.
//!
//! ```text
//!   HTTP  --request-->  asks the owners for the past  --something there-->  answers, HTTP again
//!                             |                                               ^
//!                             +--nothing--> waits: a member of its topics ----+ a message, or its time is over
//! ```
//!
//! The answer names the place up to which it tells (`Holdline-Cursor`), also when it is empty: a client that goes on from
//! there misses nothing of what is published between two polls.

use super::answers::{JSON, NO_STORE};
use super::connection::Flags;
use super::control::Phase;
use super::core::Core;
use super::streams::{Places, Several, place_of};
use crate::app::{RouteId, Subscribe};
use crate::close::CloseReason;
use crate::hub::topics::Past;
use crate::id::ConnId;
use crate::message::{Cursor, Message, Topic};
use crate::session::{Protocol, websocket};
use crate::wheel::Tick;

/// The field of an answer that says up to where it tells.
pub(super) const CURSOR_FIELD: &str = "Holdline-Cursor";

/// What is kept of a poll beside its topics.
#[derive(Debug)]
pub(super) struct Poll {
    /// When it is answered at the latest.
    pub(super) until: Tick,
    /// Requests that the connection had had answered before.
    pub(super) requests: u32,
    /// The answer so far: JSON objects with commas between them.
    items: Vec<u8>,
    /// It holds as much as one answer may.
    is_full: bool,
}

impl Poll {
    /// Bytes of an answer beyond which no more messages are put into it: the next poll gets them.
    const ITEMS_BYTES_MAX: usize = 1024 * 1024;

    const fn new(until: Tick, requests: u32) -> Self {
        Self { until, requests, items: Vec::new(), is_full: false }
    }

    /// Adds what `write` writes.
    fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.items.is_empty() {
            self.items.push(b',');
        }
        write(&mut self.items);
        self.is_full = self.items.len() >= Self::ITEMS_BYTES_MAX;
    }
}

impl Core {
    /// Notes that a connection waits for a message. What its handler subscribes to follows.
    pub(super) fn begin_poll(&mut self, id: ConnId, until: Tick) {
        if let Some(connection) = self.table.get_mut(id) {
            let poll = Poll::new(until, connection.state);
            connection.extra.get_or_insert_default().waiting().poll = Some(Box::new(poll));
        }
    }

    /// Subscribes a poll to its topics, which are asked for their past first.
    pub(super) fn open_poll(&mut self, id: ConnId, wishes: Vec<(Topic, Subscribe)>) -> Result<(), CloseReason> {
        let mut several = Several::new(wishes);
        let later = |how: &&Subscribe| Self::begins_later(Protocol::Poll, how);
        several.awaited = several.how.iter().filter(later).count();
        several.is_live = true;
        let wishes: Vec<_> = several.topics.iter().cloned().zip(several.how.iter().cloned()).collect();
        if let Some(connection) = self.table.get_mut(id) {
            connection.extra.get_or_insert_default().several = Some(Box::new(several));
        }
        Ok(wishes.iter().try_for_each(|(topic, how)| self.subscribe(id, topic, how.clone()))?)
    }

    fn poll(&mut self, id: ConnId) -> Option<(&mut Poll, &mut Several)> {
        let extra = self.table.get_mut(id)?.extra.as_deref_mut()?;
        Some((extra.waiting.as_deref_mut()?.poll.as_deref_mut()?, extra.several.as_deref_mut()?))
    }

    /// An owner has said what came since.
    pub(super) fn take_past_of_poll(&mut self, id: ConnId, topic: &Topic, past: Past) {
        if !self.begin_member(id, topic, past.cursor.offset) {
            return;
        }
        if past.reset {
            self.metrics.resets_total.add(1);
        }
        self.metrics.replayed_total.add(past.messages.len() as u64);
        self.metrics.count_sent(Protocol::Poll.counted(), past.messages.len() as u64);
        let Some((poll, several)) = self.poll(id) else { return };
        let Some(place) = several.place_of(topic) else { return };
        several.awaited = several.awaited.saturating_sub(1);
        if past.reset {
            poll.add(|out| place_of(topic, past.cursor).reset(out));
        }
        let mut told = if past.messages.is_empty() { past.cursor } else { super::streams::before(&past.messages[0]) };
        for message in &past.messages {
            if poll.is_full {
                break;
            }
            poll.add(|out| message.write_json(out));
            told = message.cursor();
        }
        several.cursors[place] = Some(told);
        if several.awaited == 0 && !poll.items.is_empty() {
            self.answer_poll(id);
        }
    }

    /// A message has come that a poll waited for. Returns whether there is an answer now, which is not sent before all that
    /// came with it has been added.
    pub(super) fn add_to_poll(&mut self, id: ConnId, message: &Message) -> bool {
        let Some((poll, several)) = self.poll(id) else { return false };
        let Some(place) = several.place_of(&message.topic) else { return false };
        let is_shared = several.how[place].group.is_some();
        if poll.is_full && !is_shared {
            return several.awaited == 0;
        }
        poll.add(|out| message.write_json(out));
        if !is_shared {
            several.cursors[place] = Some(message.cursor());
        }
        several.awaited == 0
    }

    /// Answers a poll with what there is, and makes its connection one of HTTP again.
    pub(super) fn answer_poll(&mut self, id: ConnId) {
        let Some(extra) = self.table.get_mut(id).and_then(|connection| connection.extra.as_deref_mut()) else { return };
        let waiting = extra.waiting.as_deref_mut();
        let Some(poll) = waiting.and_then(|waiting| waiting.poll.as_deref_mut()) else { return };
        let mut body = std::mem::take(&mut poll.items);
        body.insert(0, b'[');
        body.extend_from_slice(b"]\n");
        let requests = poll.requests;
        // A handler need not have subscribed to anything.
        let places: Option<Vec<Cursor>> = extra.several.as_deref().and_then(Several::places);
        let field = places.map(|places| Places(&places).to_string());
        self.end_poll(id, requests);
        // In a drain it is said when to come again, as everybody is told.
        let retry = (self.phase != Phase::Running).then(|| self.retry_after_ms(id).div_ceil(1000).max(1).to_string());
        let cursor = field.as_deref().map(|places| (CURSOR_FIELD, places));
        let retry = retry.as_deref().map(|seconds| ("Retry-After", seconds));
        let fields: Vec<_> = [NO_STORE].into_iter().chain(cursor).chain(retry).collect();
        self.respond(id, 200, JSON, &body, &fields);
    }

    /// Whether owners have to answer yet before the answer can say where it stands.
    pub(super) fn is_poll_awaiting(&self, id: ConnId) -> bool {
        let extra = self.table.get(id).and_then(|connection| connection.extra.as_deref());
        extra.and_then(|extra| extra.several.as_deref()).is_some_and(|several| several.awaited > 0)
    }

    /// Takes a poll out of its topics and tells its handler that it is over.
    fn end_poll(&mut self, id: ConnId, requests: u32) {
        self.leave(id, CloseReason::Normal);
        let tick = self.tick;
        self.speak(id, Protocol::Http);
        let Some(connection) = self.table.get_mut(id) else { return };
        connection.route = RouteId(0);
        connection.state = requests;
        connection.websocket = websocket::State::default();
        connection.heard = tick;
        connection.flags.clear(Flags::PINGED);
        if let Some(extra) = connection.extra.as_deref_mut() {
            (extra.waiting().poll, extra.several) = (None, None);
        }
    }
}
