//! Publications on their way: publisher's shard, owner shard, interested shards.

use std::sync::Arc;

use super::control::Publishing;
use super::core::Core;
use super::mail::{Ack, Delivery, Mail, OwnMail, Publication, Request};
use super::pace::Pace;
use super::spans::Times;
use crate::access::Grant;
use crate::app::NotPublished;
use crate::codec::trace::Parent;
use crate::hub::Group;
use crate::hub::members::Stay;
use crate::hub::topics::{Interested, Now, Published, Refused, Taken, Turn};
use crate::id::{ConnId, ShardId};
use crate::message::{Message, Topic};
use crate::rule::Limit;
use crate::time::{Clock, Stamp};

/// A publication at its topic's owner.
#[derive(Debug)]
pub(super) struct Entrant {
    pub(super) publication: Publication,
    /// Its parent and its own number, where it is told as a span.
    pub(super) span: Option<(Parent, u64)>,
    /// When it came.
    pub(super) came_ms: u64,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has no place yet.
    Takes(Turn),
    /// It has one, and is on the disk.
    Written,
    /// It comes from another node.
    Heard,
}

impl Entrant {
    /// What it keeps in memory, about.
    pub(super) fn memory(&self) -> usize {
        let Publication { message, terms, .. } = &self.publication;
        let key = terms.as_ref().and_then(|terms| terms.key.as_deref()).map_or(0, str::len);
        message.memory() + size_of::<Self>() + 2 * key
    }

    /// Whether it may take a while to compress.
    pub(super) fn is_long(&self) -> bool {
        self.publication.message.memory() > Core::LONG_BYTES
    }
}

impl Core {
    /// Bytes of messages that may wait for their fan-out on a shard. Beyond, publications wait where they are.
    const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

    /// Deliveries to this shard itself beyond which publications wait: most are answers, which are bounded by their askers.
    const OWN_MAIL_MAX: usize = 64;

    /// What publications of this shard's connections may keep in memory before nobody is read.
    const STAGED_BYTES_MAX: usize = 4 * 1024 * 1024;
    /// A publication that may take a while to compress: 16 KiB are some 0.2 ms.
    const LONG_BYTES: usize = 16 * 1024;
    /// Room for them that is kept.
    const STAGED_KEPT: usize = 4096;

    /// Handles what other shards sent.
    pub(super) fn take_mail(&mut self, pace: &mut Pace<'_, impl Clock>) {
        while !self.is_congested() && pace.more() {
            match self.mail.deliveries.try_recv() {
                Some(Delivery::Message(message, stay, group)) => self.deliver(message, stay, group.as_ref()),
                Some(Delivery::NoRoom(topic, group)) => self.evict(topic, group),
                Some(Delivery::Presence(notices)) => self.take_notices(notices),
                Some(Delivery::Roll(topic, wants)) => self.take_roll(&topic, wants),
                Some(Delivery::Answer(answer)) => {
                    self.take_answer(*answer);
                    // A past is some hundred messages.
                    pace.look();
                }
                None => break,
            }
        }
        while !self.mail.deliveries_wait && !self.is_held() && !self.is_congested() && pace.more() {
            match self.mail.requests.try_recv() {
                Some(request) => {
                    let is_long = match &request {
                        Request::Publish(one) => one.message.memory() > Self::LONG_BYTES,
                        Request::Ask(_) => true,
                        _ => false,
                    };
                    self.take_request(request);
                    if is_long {
                        pace.look();
                    }
                }
                None => break,
            }
        }
    }

    /// Whether there is mail that may be taken now. What must wait for others' room is no reason not to sleep.
    pub(super) fn has_mail(&self) -> bool {
        let mail = &self.mail;
        let some =
            !mail.deliveries.is_empty() || (!mail.requests.is_empty() && !mail.deliveries_wait && !self.is_held());
        some && !self.is_congested()
    }

    /// Whether so much waits for its fan-out, or behind answers, that nothing may be added.
    pub(super) fn is_congested(&self) -> bool {
        self.members.waiting_bytes() > Self::WAITING_BYTES_MAX
            || self.own_mail.len() > Self::OWN_MAIL_MAX
            || self.attendance.is_congested()
    }

    /// Sends this shard's publications to their owners, in order, as long as there is room and time; and takes what the
    /// shard has sent itself, in turn, so that neither keeps the other waiting.
    pub(super) fn publish(&mut self, pace: &mut Pace<'_, impl Clock>) {
        self.mail.flush();
        self.send_batches();
        while pace.more() {
            let has_taken = self.take_own_mail(pace);
            if !self.publish_next(pace) && !has_taken {
                break;
            }
        }
        if self.staged.is_empty() {
            self.staged.shrink_to(Self::STAGED_KEPT);
        }
        self.begin_streams();
        let was_blocked = self.blocked;
        self.blocked = self.is_blocked();
        if self.blocked && !was_blocked && !self.is_congested() && !self.is_held() {
            self.metrics.strike(Limit::MailboxCapacity);
        }
    }

    /// Sends the next publication to its owner. Returns whether there was one that could go.
    fn publish_next(&mut self, pace: &mut Pace<'_, impl Clock>) -> bool {
        if self.is_blocked() {
            return false;
        }
        let Some(publication) = self.staged.pop_front() else { return false };
        let bytes = publication.message.memory();
        self.staged_bytes -= bytes;
        let owner = publication.message.topic.owner(self.shards);
        if owner == self.id {
            self.own(publication);
        } else {
            self.mail.request(owner, Request::Publish(publication));
        }
        if bytes > Self::LONG_BYTES {
            pace.look();
        }
        true
    }

    /// Takes the next of what this shard has sent itself. Returns whether there was something.
    fn take_own_mail(&mut self, pace: &mut Pace<'_, impl Clock>) -> bool {
        match self.own_mail.pop_front() {
            Some(OwnMail::Message(message, stay)) => self.deliver(message, stay, None),
            Some(OwnMail::Presence(notices)) => self.take_notices(notices),
            Some(OwnMail::Renewed(id, number, outcome)) => self.tell_renewed(id, number, outcome),
            Some(OwnMail::Question(question)) => {
                self.take_question(question);
                pace.look();
            }
            Some(OwnMail::Answer(answer)) => {
                self.take_answer(answer);
                pace.look();
            }
            None => return false,
        }
        true
    }

    /// Whether so many publications wait that no more are taken in.
    pub(super) const fn is_staging_full(&self) -> bool {
        self.staged_bytes > Self::STAGED_BYTES_MAX
    }

    /// Whether publications must wait: some mailbox is full, or too much waits here, or another process takes over.
    pub(super) fn is_blocked(&self) -> bool {
        self.mail.requests_wait || self.mail.deliveries_wait || self.is_congested() || self.is_held()
    }

    /// Whether nothing may be published while another process takes the topics over.
    pub(super) fn is_held(&self) -> bool {
        self.publishing == Publishing::Held
    }

    pub(super) fn take_request(&mut self, request: Request) {
        match request {
            Request::Publish(publication) => self.own(publication),
            Request::Interest(topic, interested) => {
                let (shard, group, now) = (interested.shard, interested.group.clone(), self.time());
                self.turn_over(&topic);
                let before = self.topics.interested();
                if !self.topics.interest(&topic, interested, now) {
                    return self.answer(shard, Delivery::NoRoom(topic, group));
                }
                self.hook_interest(&topic, before);
                self.call_rolls();
                self.note_crowd(&topic);
            }
            Request::Attend(topic, shard, seats) => {
                let now = self.time();
                self.topics.attend(&topic, shard, seats, now);
            }
            Request::Unwatch(topic, shard) => self.topics.unwatch(&topic, shard),
            Request::Disinterest(topic, shard, group) => {
                let (now, before) = (self.time(), self.topics.interested());
                self.topics.disinterest(&topic, shard, group.as_ref(), now);
                self.hook_interest(&topic, before);
                self.note_crowd(&topic);
            }
            Request::Ask(question) => self.take_question(question),
            Request::Return(message, group) => self.share_again(message, &group),
        }
    }

    fn answer(&mut self, shard: ShardId, delivery: Delivery) {
        if shard != self.id {
            self.mail.deliver(shard, delivery);
        } else if let Delivery::NoRoom(topic, group) = delivery {
            self.evict(topic, group);
        }
    }

    /// Takes a publication as its topic's owner.
    fn own(&mut self, publication: Publication) {
        let Publication { mut message, terms, is_said, grant } = publication;
        if message.taken.is_none() {
            // From outside of the shards.
            message.taken = Stamp::of(self.now);
        }
        if self.is_too_large_for_others(&message) {
            return self
                .refuse_publication(Publication { message, terms, is_said, grant }, NotPublished::ClusterPayload);
        }
        let (span, came_ms) = (self.spans.begin(&message, self.now, &self.metrics), message.time_ms);
        if let Some((_, number)) = span {
            message.set_span(number);
        }
        self.settle(
            Entrant { publication: Publication { message, terms, is_said, grant }, span, came_ms },
            Stage::Takes(Turn::Comes),
        );
    }

    /// Gives a publication its place and sends it to all shards that want it, or has it wait for that.
    pub(super) fn settle(&mut self, entrant: Entrant, stage: Stage) {
        if self.publishing == Publishing::Moved && matches!(stage, Stage::Takes(_)) {
            return self.refuse_publication(entrant.publication, NotPublished::Moved);
        }
        if matches!(stage, Stage::Takes(_)) {
            self.turn_over(&entrant.publication.message.topic);
        }
        let Entrant { publication: Publication { mut message, terms, is_said, grant }, span, came_ms } = entrant;
        let key = terms.as_ref().and_then(|terms| terms.key.as_deref());
        let now = self.time();
        let taken = match stage {
            Stage::Takes(turn) => self.topics.take(&mut message, key, turn, &mut self.deflater, now),
            Stage::Written | Stage::Heard => {
                let placed = if stage == Stage::Heard {
                    self.topics.hear(&mut message, &mut self.deflater, now)
                } else {
                    self.topics.place(&mut message, key, &mut self.deflater, now)
                };
                // Where its topic's past has ended nobody is left to hear it.
                let cursor = message.cursor();
                let unheard = Published { cursor, subscribers: 0, duplicate: false, said: None, audience: &[] };
                Ok(Taken::Published(placed.unwrap_or(unheard)))
            }
        };
        self.metrics.publications_total.add(u64::from(stage == Stage::Takes(Turn::Comes)));
        let whole = |message, terms, grant| {
            let publication = Publication { message, terms, is_said, grant };
            Entrant { publication, span, came_ms }
        };
        let published = match taken {
            Ok(Taken::Published(published)) => published,
            Ok(Taken::Reserved(first_kept)) => return self.write_down(whole(message, terms, grant), first_kept),
            Ok(Taken::Behind) => return self.stand_behind(whole(message, terms, grant), true),
            Ok(Taken::Twin) => return self.stand_behind(whole(message, terms, grant), false),
            Ok(Taken::Ordered(keep)) => return self.append_to_stream(whole(message, terms, grant), keep),
            Ok(Taken::Joining) => return self.park_publication(whole(message, terms, grant)),
            Err(refused) => {
                let why = match refused {
                    Refused::NoRoom => NotPublished::NoRoom,
                    Refused::TooFast => NotPublished::TooFast,
                    Refused::Busy => NotPublished::JournalBusy,
                };
                return self.refuse_publication(Publication { message, terms, is_said, grant }, why);
            }
        };
        let Published { cursor, subscribers, duplicate, said, audience } = published;
        let ack = Ack { cursor, subscribers, duplicate };
        let here = Self::send_to(&mut self.mail, &mut self.own_shares, self.id, audience, &message);
        self.note_published(&message, ack);
        if stage != Stage::Heard {
            self.note_own(&message, ack, grant, span.map(|span| (span, came_ms)));
        }
        if let Some(terms) = terms {
            self.acknowledge(&terms, message.topic.clone(), ack);
        }
        if let Some(said) = said {
            self.say_to_others(&message, said);
        }
        self.hand_out_here(message, here);
    }

    /// Sends a message to the other shards that want it. Returns the stay of members here, and lists groups here whose turn it
    /// is.
    pub(super) fn send_to(
        mail: &mut Mail,
        own_shares: &mut Vec<(Stay, Group)>,
        id: ShardId,
        audience: &[Interested],
        message: &Message,
    ) -> Option<Stay> {
        let mut here = None;
        for Interested { shard, stay, group, .. } in audience {
            if *shard != id {
                mail.deliver(*shard, Delivery::Message(message.clone(), *stay, group.clone()));
            } else if let Some(group) = group {
                // Rarely more than one: they wait until the loop has given the topics back.
                own_shares.push((*stay, group.clone()));
            } else {
                here = Some(*stay);
            }
        }
        here
    }

    /// Hands a message to those here whom [`Core::send_to`] found.
    pub(super) fn hand_out_here(&mut self, message: Message, here: Option<Stay>) {
        while let Some((stay, group)) = self.own_shares.pop() {
            self.deliver(message.clone(), stay, Some(&group));
        }
        if let Some(stay) = here {
            self.deliver_here(message, stay);
        }
    }

    /// Tells operators of a message that has its place.
    pub(super) fn note_published(&mut self, message: &Message, ack: Ack) {
        let Ack { cursor, subscribers, duplicate } = ack;
        self.tops.published(&message.topic, subscribers);
        if let Some(tracer) = &mut self.tracer {
            tracer.published(message, cursor, subscribers, duplicate);
        }
    }

    /// Tells of a message that was published on this node: receivers of hooks, and collectors of spans.
    pub(super) fn note_own(
        &mut self,
        message: &Message,
        ack: Ack,
        grant: Option<Arc<Grant>>,
        span: Option<((Parent, u64), u64)>,
    ) {
        let Ack { subscribers, duplicate, .. } = ack;
        if let Some(teller) = self.hooks.as_deref_mut().filter(|_| !duplicate) {
            teller.published(message, subscribers, grant);
        }
        self.metrics.duplicates_total.add(u64::from(duplicate));
        if let Some((span, begin_ms)) = span {
            let end_ns = self.unix_ms.saturating_mul(1_000_000);
            self.spans.tell("publish", span, message, Times { begin_ms, end_ns }, subscribers);
        }
    }

    /// Hands a message to the members of a stay, behind answers that wait: a subscriber's past ends where the live stream
    /// begins, on its topic's own shard as on others.
    pub(super) fn deliver_here(&mut self, message: Message, stay: Stay) {
        if self.own_mail.is_empty() {
            self.deliver(message, stay, None);
        } else {
            self.own_mail.push_back(OwnMail::Message(message, stay));
        }
    }

    /// The present, as the hub is told it.
    pub(super) const fn time(&self) -> Now {
        Now { tick: self.tick, unix_ms: self.unix_ms }
    }

    /// Hands a message to the members of a stay, or to one of a queue group.
    pub(super) fn deliver(&mut self, message: Message, stay: Stay, group: Option<&Group>) {
        let topic = group.map(|_| message.topic.clone());
        match self.members.deliver_during(stay, group, message) {
            Ok(fan_out) => fan_out.into_iter().for_each(|key| self.list_fan_out(key)),
            Err(message) => self.give_back(message, group),
        }
        if let Some(key) = topic.and_then(|topic| self.members.key(&topic, group)) {
            while self.members.overflow(key).is_some() {
                self.metrics.deliveries_dropped_total.add(1);
            }
        }
    }

    /// The owner has no room for a topic: its subscribers here are asked to come back later. Those are found when the
    /// timers' turn comes: until then others may join, of whom the owner is not told.
    fn evict(&mut self, topic: Topic, group: Option<Group>) {
        self.metrics.strike(if group.is_some() { Limit::GroupsMax } else { Limit::TopicsMax });
        self.evicted.push((topic, group));
    }

    /// A subscriber of a topic that its owner has no room for.
    pub(super) fn next_evicted(&mut self) -> Option<ConnId> {
        while let Some((topic, group)) = self.evicted.last() {
            let member = self.members.key(topic, group.as_ref()).and_then(|key| self.members.members(key).first());
            if let Some((id, _)) = member.and_then(|member| self.table.at(member.connection())) {
                return Some(id);
            }
            self.evicted.pop();
        }
        None
    }
}
