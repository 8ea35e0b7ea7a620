//! Durable topics that other nodes hold too: a stream elsewhere gives the places, and has the past.
//!
//! ```text
//!   subscribed, asked --> joining: its past comes --> opening: what waited for that goes on --> live --> forgotten
//!                            ^                                                                   |
//!                            +---- followed anew: another bound, which the stream is to keep ----+
//! ```
//!
//! The topic's cursor is where the stream has told it to be, and moves one place at a time. Where it cannot, because something
//! is not there any more or the stream is another one, what is kept goes, the cursor stands where the stream goes on, and the
//! subscribers are told ([`Topics::next_reset`]). While it joins nobody can say where it stands: questions and publications
//! wait outside until [`Topics::next_opened`] names the topic, and those that come meanwhile wait behind them until
//! [`Topics::open`].
//!
//! A topic that is only published to is not followed: its messages have their places in the stream.

use super::shared::Cluster;
use super::{NoRoom, Now, Published, Refused, Taken, Topics, Turn};
use crate::cluster::port::{Follow, Stored};
use crate::codec::websocket::deflate::Deflater;
use crate::config::Keep;
use crate::hub::history::History;
use crate::message::{Cursor, Epoch, Message, Offset, Topic};
use crate::wheel::TICK;

/// What a topic has while a stream tells it.
#[derive(Debug)]
pub(super) struct Ordered {
    state: State,
    /// What the stream was said to keep.
    pub(super) keep: Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its past is awaited.
    Joining(Before),
    /// Its past is here, and what has waited for it goes on.
    Opening,
    Live,
}

/// What those have heard who hear a topic whose past is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing.
    Nothing,
    /// The stream, up to the cursor.
    Stream,
    /// What was no stream, or ends with a hole.
    Other,
}

impl Ordered {
    pub(super) const fn new(before: Before, keep: Keep) -> Self {
        Self { state: State::Joining(before), keep }
    }

    /// One who follows the stream anew.
    pub(super) const fn again(&self, keep: Keep) -> Self {
        let before = match self.state {
            State::Joining(before) => before,
            State::Opening | State::Live => Before::Stream,
        };
        Self::new(before, keep)
    }

    pub(super) const fn is_joining(&self) -> bool {
        matches!(self.state, State::Joining(_))
    }

    const fn before(&self) -> Option<Before> {
        match self.state {
            State::Joining(before) => Some(before),
            State::Opening | State::Live => None,
        }
    }

    /// Whether where it stands cannot be said, or others have to be told first.
    fn waits(&self) -> bool {
        !matches!(self.state, State::Live | State::Joining(Before::Stream))
    }
}

const fn next(cursor: Cursor) -> Cursor {
    Cursor { epoch: cursor.epoch, offset: Offset(cursor.offset.0.saturating_add(1)) }
}

/// Where a topic stands whose stream does not exist yet: before the first message of any.
pub(super) const NOWHERE: Cursor = Cursor { epoch: Epoch(0), offset: Offset(0) };

/// Whether nothing is between a place and a message.
fn follows(at: Cursor, cursor: Cursor) -> bool {
    cursor == next(at) || (at == NOWHERE && cursor.offset == Offset(1))
}

impl Topics {
    /// A publication to such a topic: its stream gives it a place.
    pub(super) fn order(
        &mut self,
        key: u32,
        message: &mut Message,
        turn: Turn,
        now: Now,
    ) -> Result<Taken<'static>, Refused> {
        let owned = &mut self.topics.0[key as usize];
        if turn != Turn::Next && owned.reserved.as_deref().is_some_and(super::Reserved::has_behind) {
            // They came before the topic had a stream, and the disk has not said yet when it is their turn.
            return Err(Refused::Busy);
        }
        let ordered = owned.shared.as_deref().and_then(|shared| shared.ordered.as_ref());
        if turn != Turn::Again && ordered.is_some_and(Ordered::waits) {
            return Ok(Taken::Joining);
        }
        let ruling = self.rulings.get(owned.rule);
        if message.publisher.is_some() && !ruling.admits(&mut owned.spent, now.tick) {
            return Err(Refused::TooFast);
        }
        message.time_ms = now.unix_ms;
        Ok(Taken::Ordered(ruling.keep))
    }

    /// Before a topic is asked about: it is held from now on, and whether the question has to wait for its stream.
    ///
    /// # Errors
    /// When there is no room for the topic.
    pub fn waits_for_stream(&mut self, topic: &Topic, now: Now) -> Result<bool, NoRoom> {
        if !self.is_ordered(topic) {
            return Ok(false);
        }
        let key = self.find_or_create(topic, now)?;
        self.share(key);
        let owned = self.owned(key);
        owned.used = now.tick;
        Ok(self.ordered(key).is_some_and(Ordered::waits))
    }

    fn ordered(&self, key: u32) -> Option<&Ordered> {
        self.topics.0[key as usize].shared.as_deref()?.ordered.as_ref()
    }

    fn ordered_mut(&mut self, key: u32) -> Option<&mut Ordered> {
        self.owned(key).shared.as_deref_mut()?.ordered.as_mut()
    }

    /// The topic of a follow that awaits its past.
    fn joining(&self, follow: Follow) -> Option<(u32, Before)> {
        let key = self.follow_key(follow)?;
        Some((key, self.ordered(key)?.before()?))
    }

    /// Takes the next message of a stream's past. Whether it is news to those who hear the topic: then it goes to them, by
    /// [`Topics::advance`].
    pub fn hear_past(&mut self, follow: Follow, stored: &Stored, now: Now) -> bool {
        let Some((key, before)) = self.joining(follow) else { return false };
        let (cursor, at) = (stored.message.cursor(), self.owned(key).cursor);
        if before == Before::Stream {
            if follows(at, cursor) {
                return true;
            }
            if cursor.epoch == at.epoch && cursor.offset <= at.offset {
                return false;
            }
            self.drop_past(key);
            if let Some(ordered) = self.ordered_mut(key) {
                ordered.state = State::Joining(Before::Other);
            }
        }
        self.keep_past(key, stored, now);
        false
    }

    /// Keeps a message of the past. What is before a hole is none of it.
    fn keep_past(&mut self, key: u32, stored: &Stored, now: Now) {
        let Stored { message, key: name } = stored;
        let owned = self.owned(key);
        let has_hole = !owned.history.is_empty() && message.cursor() != next(owned.cursor);
        owned.cursor = message.cursor();
        if has_hole {
            self.drop_past(key);
        }
        let bounds = self.ruling(key).bounds;
        let tick_ms = u64::try_from(TICK.as_millis()).unwrap_or(u64::MAX);
        let age = u32::try_from(now.unix_ms.saturating_sub(message.time_ms) / tick_ms).unwrap_or(u32::MAX);
        self.change(key, |history| history.push_aged(message.clone(), name.clone(), (now.tick, age), &bounds));
        while self.is_over() && self.evict(key) {}
    }

    fn drop_past(&mut self, key: u32) {
        self.change(key, |history| *history = History::default());
    }

    /// The past is here: the stream goes on behind this place.
    pub fn end_past(&mut self, follow: Follow, cursor: Cursor, now: Now) {
        let Some((key, before)) = self.joining(follow) else { return };
        let is_there = self.owned(key).cursor == cursor;
        let is_whole = match before {
            Before::Nothing => true,
            Before::Stream => is_there,
            Before::Other => false,
        };
        if !is_there {
            self.drop_past(key);
            self.owned(key).cursor = cursor;
        }
        self.begin_to_open(key);
        if !is_whole {
            self.note_reset(key);
        }
        self.expire_messages(key, now.tick, usize::MAX);
        self.arm(key);
        self.hasten(key);
    }

    fn begin_to_open(&mut self, key: u32) {
        if let Some(ordered) = self.ordered_mut(key) {
            ordered.state = State::Opening;
        }
        self.note_opened(key);
    }

    /// What waited for a topic's stream may go on.
    pub(super) fn note_opened(&mut self, key: u32) {
        let name = self.owned(key).name.clone();
        if let Some(cluster) = self.cluster.as_deref_mut() {
            cluster.opened.push_back(name);
        }
    }

    /// Whether the message at a place is the next one of its topic. One that is behind a hole is, too: the hole is told.
    pub fn is_next(&mut self, follow: Follow, cursor: Cursor, now: Now) -> bool {
        let Some(key) = self.follow_key(follow) else { return false };
        let at = self.owned(key).cursor;
        if self.ordered(key).is_none_or(Ordered::is_joining) || cursor.epoch < at.epoch {
            return false;
        }
        if follows(at, cursor) {
            return true;
        }
        if cursor.epoch == at.epoch && cursor.offset <= at.offset {
            return false;
        }
        self.lose(follow, Cursor { offset: Offset(cursor.offset.0.saturating_sub(1)), ..cursor }, now);
        true
    }

    /// Takes the next message of a topic's stream: encodes it for the audience, keeps it and says where it goes.
    pub fn advance(
        &mut self,
        follow: Follow,
        message: &mut Message,
        name: Option<&str>,
        deflater: &mut Deflater,
        now: Now,
    ) -> Option<Published<'_>> {
        let key = self.follow_key(follow)?;
        self.expire_messages(key, now.tick, usize::MAX);
        self.owned(key).cursor = message.cursor();
        Some(self.hand_out(key, message, name, deflater, now))
    }

    /// Something of a stream is lost, which goes on behind this place.
    pub fn lose(&mut self, follow: Follow, cursor: Cursor, now: Now) {
        let Some(key) = self.follow_key(follow) else { return };
        let Some(ordered) = self.ordered(key) else { return };
        let is_joining = ordered.is_joining();
        self.drop_past(key);
        let owned = self.owned(key);
        (owned.cursor, owned.used) = (cursor, owned.used.max(now.tick));
        if is_joining {
            self.begin_to_open(key);
        }
        self.note_reset(key);
        self.arm(key);
    }

    /// The next topic for which what waited for its stream may go on.
    pub fn next_opened(&mut self) -> Option<Topic> {
        self.cluster.as_deref_mut()?.opened.pop_front()
    }

    /// Whether there is one.
    #[must_use]
    pub fn has_opened(&self) -> bool {
        self.cluster.as_deref().is_some_and(|cluster| !cluster.opened.is_empty())
    }

    /// Nothing waits for a topic's stream any more.
    pub fn open(&mut self, topic: &Topic) {
        let Some(&key) = self.keys.get(topic) else { return };
        if let Some(ordered) = self.ordered_mut(key)
            && ordered.state == State::Opening
        {
            ordered.state = State::Live;
        }
    }

    /// Those who hear a topic are to be told that its past has ended.
    pub(super) fn note_reset(&mut self, key: u32) {
        let owned = &self.topics.0[key as usize];
        if owned.audience.is_empty() {
            return;
        }
        let reset = Message::reset(owned.name.clone(), owned.cursor);
        if let Some(cluster) = self.cluster.as_deref_mut() {
            cluster.resets.push_back(reset);
        }
    }

    /// A topic has its present rule, which gives it a stream that it did not have: its past here is none of the stream's.
    pub(super) fn enter_stream(&mut self, key: u32) {
        self.end_sharing(key);
        let owned = self.owned(key);
        let is_fresh = owned.cursor.offset == Offset(0) && owned.history.is_empty() && owned.reserved.is_none();
        if owned.audience.is_empty() && is_fresh {
            return;
        }
        self.drop_past(key);
        let epoch = self.next_epoch();
        let owned = self.owned(key);
        owned.cursor = Cursor { epoch, offset: Offset(0) };
        if let Some(reserved) = &mut owned.reserved {
            reserved.end();
        }
        let is_heard = !owned.audience.is_empty();
        self.note_ended(key);
        if is_heard {
            self.share_with(key, Some(Before::Other));
        } else {
            self.arm(key);
        }
    }

    /// It had a stream and has none any more.
    pub(super) fn leave_stream(&mut self, key: u32) {
        self.end_sharing(key);
        self.drop_past(key);
        let epoch = self.next_epoch();
        let owned = self.owned(key);
        // A reset has a place, where somebody hears it.
        let offset = if owned.audience.is_empty() { Offset(0) } else { next(owned.cursor).offset };
        owned.cursor = Cursor { epoch, offset };
        self.note_opened(key);
        self.note_reset(key);
        self.arm(key);
    }

    /// The stream is to keep something else than it was said to.
    pub(super) fn follow_again(&mut self, key: u32) {
        let keep = self.ruling(key).keep;
        let owned = &mut self.topics.0[key as usize];
        let (Some(shared), Some(cluster)) = (owned.shared.as_deref_mut(), self.cluster.as_deref_mut()) else { return };
        let Some(ordered) = &mut shared.ordered else { return };
        *ordered = ordered.again(keep);
        cluster.unfollow(shared);
        self.follow_now(key);
    }

    fn next_epoch(&mut self) -> Epoch {
        // The time is that of the topic made last, or later: epochs grow.
        self.new_epoch(Now::default())
    }

    /// Whether its past is awaited.
    pub(super) fn is_joining(&self, key: u32) -> bool {
        self.ordered(key).is_some_and(Ordered::is_joining)
    }

    /// Whether something may wait for its stream.
    pub(super) fn is_awaited(&self, key: u32) -> bool {
        self.ordered(key).is_some_and(Ordered::waits)
    }

    /// The same of a topic by its name.
    #[must_use]
    pub fn awaits_stream(&self, topic: &Topic) -> bool {
        self.keys.get(topic).is_some_and(|&key| self.is_awaited(key))
    }

    /// Whether what is published to a topic is heard here.
    #[must_use]
    pub fn is_heard(&self, topic: &Topic) -> bool {
        self.keys.get(topic).is_some_and(|&key| self.ordered(key).is_some())
    }
}

impl Cluster {
    /// A topic is not heard any more as it was.
    pub(super) fn unfollow(&mut self, shared: &mut super::shared::Shared) {
        if let Some(follow) = shared.follow.take() {
            self.follows.remove(&follow);
            if std::mem::take(&mut shared.is_told) {
                self.wishes.push_back(super::Wish::Unfollow(follow));
            }
        }
    }
}

#[cfg(test)]
mod tests;
