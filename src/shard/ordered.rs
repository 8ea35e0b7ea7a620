//! Publications and questions that wait for the streams of durable topics, at the topics' owner.
//!
//! ```text
//!   own --> ticket, unsent --> on its way --> it has a place: acknowledged
//!      \                                \--> it has none, or nobody knows: refused
//!       \--> parked while its topic joins its stream --> the same, behind those that came before
//!
//!   the stream tells it: kept, handed out
//! ```
//!
//! A publication is parked where somebody has subscribed before, whose part of the stream begins with its past: so whoever
//! subscribes and publishes hears himself. A question is parked until it can be answered. Nothing waits for ever: what has no
//! answer in time is refused, and so is what is beyond the bounds, at once.

mod waiting;

pub(super) use self::waiting::Ordered;
use self::waiting::Wait;
use super::core::{Core, Drain};
use super::mail::{Ack, Answered, Publication, Question, Request};
use super::pace::Pace;
use super::publish::{Entrant, Stage};
use crate::app::NotPublished;
use crate::cluster::port::{Appended, Follow, NotAppended, Stored, Ticket};
use crate::config::Keep;
use crate::hub::topics::Turn;
use crate::message::{Cursor, Message, Topic};
use crate::time::{Clock, Stamp};

/// The place of a message, and who hears it here.
pub(super) type Place = Result<(Cursor, u64), NotPublished>;

impl From<NotAppended> for NotPublished {
    fn from(why: NotAppended) -> Self {
        match why {
            NotAppended::Away => Self::ClusterAway,
            NotAppended::NoRoom => Self::ClusterFull,
            NotAppended::TooLarge => Self::ClusterPayload,
        }
    }
}

impl Core {
    fn ordered(&mut self) -> Option<&mut Ordered> {
        self.cluster.as_deref_mut().map(|cluster| &mut cluster.ordered)
    }

    /// Why a publication cannot be taken for a stream now.
    fn stream_objection(&self, bytes: usize) -> Option<NotPublished> {
        let cluster = self.cluster.as_deref().filter(|cluster| cluster.is_connected());
        match cluster {
            None => Some(NotPublished::ClusterAway),
            Some(cluster) => (!cluster.ordered.has_room(bytes)).then_some(NotPublished::ClusterBusy),
        }
    }

    /// Has a publication wait for its place in its topic's stream.
    pub(super) fn append_to_stream(&mut self, entrant: Entrant, keep: Keep) {
        if let Some(why) = self.stream_objection(entrant.memory()) {
            return self.refuse_publication(entrant.publication, why);
        }
        let tick = self.tick;
        if let Some(ordered) = self.ordered() {
            ordered.give_ticket(entrant, keep, tick);
        }
    }

    /// Has a publication wait for its topic's past.
    pub(super) fn park_publication(&mut self, entrant: Entrant) {
        if let Some(why) = self.stream_objection(entrant.memory()) {
            return self.refuse_publication(entrant.publication, why);
        }
        let (topic, tick) = (entrant.publication.message.topic.clone(), self.tick);
        if let Some(ordered) = self.ordered() {
            ordered.park(&topic, Wait::Publication(entrant), tick);
        }
    }

    /// Has a question wait for its topic's past.
    pub(super) fn park_question(&mut self, question: Question) {
        let tick = self.tick;
        match self.ordered().filter(|ordered| ordered.count < Ordered::PARKED_MAX) {
            Some(ordered) => {
                let topic = question.topic.clone();
                ordered.park(&topic, Wait::Question(question), tick);
            }
            None => self.leave_unanswered(question),
        }
    }

    fn leave_unanswered(&mut self, question: Question) {
        self.metrics.cluster_unanswered_total.add(1);
        self.reply(question.asker, question.topic, Answered::Unavailable);
    }

    /// Lets the next of what was parked go on. Returns whether there was something to do.
    pub(super) fn work_off_parked(&mut self) -> bool {
        while let Some(topic) = self.topics.next_opened() {
            if let Some(ordered) = self.ordered() {
                ordered.open(topic);
            }
        }
        let Some((topic, next)) = self.ordered().and_then(Ordered::next_open) else { return false };
        match next {
            Some(Wait::Publication(entrant)) => self.settle(entrant, Stage::Takes(Turn::Again)),
            Some(Wait::Question(question)) => self.answer_question(question),
            None => self.topics.open(&topic),
        }
        true
    }

    /// A publication has its place in its stream, or none.
    pub(super) fn take_appended(&mut self, ticket: Ticket, result: Result<Appended, NotAppended>) {
        // It may have been given up.
        let Some(entrant) = self.ordered().and_then(|ordered| ordered.take_waiting(ticket)) else { return };
        match result {
            Ok(appended) => self.note_appended(ticket, entrant, appended),
            Err(NotAppended::Away) => self.refuse_unknown(ticket, entrant),
            Err(why) => self.refuse_waiting(Some(ticket), entrant, why.into()),
        }
    }

    fn note_appended(&mut self, ticket: Ticket, entrant: Entrant, appended: Appended) {
        let Appended { cursor, duplicate } = appended;
        let Entrant { publication: Publication { mut message, terms, grant, .. }, span, came_ms } = entrant;
        (message.epoch, message.offset) = (cursor.epoch, cursor.offset);
        let ack = Ack { cursor, subscribers: self.topics.subscribers(&message.topic), duplicate };
        if !self.topics.is_heard(&message.topic) {
            self.note_published(&message, ack);
        }
        self.note_own(&message, ack, grant, span.map(|span| (span, came_ms)));
        if let Some(terms) = terms {
            self.acknowledge(&terms, message.topic, ack);
        }
        self.note_watched(ticket, Ok((cursor, ack.subscribers)));
    }

    /// Refuses what may have a place all the same. If it has, and is published again with its key, it is a duplicate, of which
    /// no receiver is told.
    fn refuse_unknown(&mut self, ticket: Ticket, entrant: Entrant) {
        if let Some(teller) = self.hooks.as_deref_mut() {
            teller.may_be_published(&entrant.publication.message.topic);
        }
        self.refuse_waiting(Some(ticket), entrant, NotPublished::ClusterAway);
    }

    fn refuse_waiting(&mut self, ticket: Option<Ticket>, entrant: Entrant, why: NotPublished) {
        self.refuse_publication(entrant.publication, why);
        if let Some(ticket) = ticket {
            self.note_watched(ticket, Err(why));
        }
    }

    fn note_watched(&mut self, ticket: Ticket, place: Place) {
        if let Some(watched) = self.ordered().and_then(|ordered| ordered.watched.get_mut(&ticket)) {
            *watched = Some(place);
        }
    }

    /// There is no connection any more: what has not been sent is not.
    pub(super) fn refuse_unsent(&mut self) {
        let unsent = self.ordered().map(Ordered::take_unsent).unwrap_or_default();
        for (ticket, entrant) in unsent {
            self.refuse_waiting(ticket, entrant, NotPublished::ClusterAway);
        }
    }

    /// Refuses what has waited for too long, once in a tick.
    pub(super) fn give_up_on_streams(&mut self) {
        let (tick, is_over) = (self.tick, self.is_drain_late());
        let Some(ordered) = self.ordered() else { return };
        if std::mem::replace(&mut ordered.looked, tick) == tick && !is_over {
            return;
        }
        while let Some((ticket, entrant)) = self.ordered().and_then(|ordered| ordered.next_late(tick, is_over)) {
            self.refuse_unknown(ticket, entrant);
        }
        while let Some(late) = self.ordered().and_then(|ordered| ordered.next_late_parked(tick)) {
            for wait in late {
                match wait {
                    Wait::Publication(entrant) => self.refuse_waiting(None, entrant, NotPublished::ClusterAway),
                    Wait::Question(question) => self.leave_unanswered(question),
                }
            }
        }
        if is_over {
            self.refuse_unsent();
        }
        self.orders.go_on();
    }

    /// Whether a drain has waited for others for as long as it does.
    pub(super) fn is_drain_late(&self) -> bool {
        let until = |drain: Drain| drain.began.later(drain.ticks.saturating_add(Self::DISK_TICKS));
        self.drain.is_some_and(|drain| self.tick >= until(drain))
    }

    /// Takes some of a stream's past; with the last of it, where the topic stands.
    pub(super) fn hear_past(
        &mut self,
        follow: Follow,
        messages: Vec<Stored>,
        end: Option<Cursor>,
        pace: &mut Pace<'_, impl Clock>,
    ) {
        let now = self.time();
        for stored in messages {
            self.turn_over(&stored.message.topic);
            if self.topics.hear_past(follow, &stored, now) {
                self.hear_next(follow, stored);
            }
        }
        if let Some(cursor) = end {
            self.topics.end_past(follow, cursor, now);
            self.tell_resets();
        }
        pace.look();
    }

    /// Takes a message that a stream tells.
    pub(super) fn hear_placed(&mut self, follow: Follow, stored: Stored) {
        self.turn_over(&stored.message.topic);
        let now = self.time();
        let is_next = self.topics.is_next(follow, stored.message.cursor(), now);
        self.tell_resets();
        if is_next {
            self.hear_next(follow, stored);
        }
    }

    fn hear_next(&mut self, follow: Follow, stored: Stored) {
        let (Stored { mut message, key }, now) = (stored, self.time());
        message.taken = Stamp::of(self.now);
        let published = self.topics.advance(follow, &mut message, key.as_deref(), &mut self.deflater, now);
        let Some(published) = published else { return };
        let ack = Ack { cursor: published.cursor, subscribers: published.subscribers, duplicate: false };
        let here = Self::send_to(&mut self.mail, &mut self.own_shares, self.id, published.audience, &message);
        self.metrics.cluster_heard_total.add(1);
        self.note_published(&message, ack);
        self.hand_out_here(message, here);
    }

    /// Something of a stream is lost, which goes on behind this place.
    pub(super) fn hear_lost(&mut self, follow: Follow, cursor: Cursor) {
        let now = self.time();
        self.topics.lose(follow, cursor, now);
        self.tell_resets();
    }

    /// Has a topic take its present rule on before it is used: that may end its past, which is told first.
    pub(super) fn turn_over(&mut self, topic: &Topic) {
        if self.topics.may_turn() {
            self.topics.turn_over(topic);
            self.tell_resets();
        }
    }

    /// Publishes to a stream for an operator: with which ticket it waits.
    pub(super) fn order_for_operator(&mut self, message: Message) -> Result<Ticket, NotPublished> {
        let before = self.ordered().map_or(0, |ordered| ordered.last);
        let why = if self.is_too_large_for_others(&message) {
            NotPublished::ClusterPayload
        } else {
            self.stream_objection(message.memory()).unwrap_or(NotPublished::NoRoom)
        };
        self.take_request(Request::Publish(message.into()));
        let ordered = self.ordered().filter(|ordered| ordered.last > before).ok_or(why)?;
        let ticket = Ticket(ordered.last);
        ordered.watched.insert(ticket, None);
        Ok(ticket)
    }

    /// Whether a publication of an operator waits for its place.
    pub(super) fn waits_for_place(&self, ticket: Ticket) -> bool {
        let watched = self.cluster.as_deref().and_then(|cluster| cluster.ordered.watched.get(&ticket));
        matches!(watched, Some(None))
    }

    /// What became of it.
    pub(super) fn place_for_operator(&mut self, ticket: Ticket) -> Place {
        let place = self.ordered().and_then(|ordered| ordered.watched.remove(&ticket));
        place.flatten().unwrap_or(Err(NotPublished::ClusterAway))
    }

    /// Whether publications wait for their places in streams.
    pub(super) fn has_ordered_waiting(&self) -> bool {
        self.cluster.as_deref().is_some_and(|cluster| cluster.ordered.waiting() > 0)
    }
}
