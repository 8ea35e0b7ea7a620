//! Places that are given before their messages are kept: those of durable topics, which have to be on the disk first.
//!
//! ```text
//!   take: reserved --> on the disk --> place        kept, handed out, acknowledged
//!                 \--> not there   --> take_back    refused, with all that were reserved behind it
//! ```
//!
//! A topic's cursor stands at what is placed, so nobody sees what is reserved: the places behind it, without a gap. Whoever
//! reserves sees to it that places are filled, or taken back, in their order and all of them. A topic is not forgotten
//! meanwhile.
//!
//! A topic that is not durable any more goes on under the same epoch, but the disk knows only the beginning of it. So the
//! journal is told that it begins anew after a restart: nobody who resumes then takes other messages for those that he missed.

use std::sync::Arc;

use hashbrown::HashSet;

use super::{Now, Owned, Published, Refused, Topics, Way};
use crate::codec::websocket::deflate::Deflater;
use crate::config::Keep;
use crate::message::{Cursor, Epoch, Message, Offset, Topic};

/// Whether a publication has waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It has just come: others of its topic may wait before it.
    Comes,
    /// It is a [twin](Taken::Twin), and the one that it repeats has its place; or it has waited for its topic's stream.
    Again,
    /// It [stood behind](Taken::Behind) others, and those have their places.
    Next,
}

/// What came of a publication.
#[derive(Debug)]
pub enum Taken<'a> {
    /// It is published, or was before.
    Published(Published<'a>),
    /// It has a place, and waits for the disk; the oldest message of its topic that is still needed there.
    Reserved(Offset),
    /// It waits for those before it, in whose order it stays: take it again with [`Topics::turn`].
    Behind,
    /// One with the same key waits: take it again when that has its place.
    Twin,
    /// A stream gives it a place, which is to keep so much.
    Ordered(Keep),
    /// The same, but its topic's past has to come first.
    Joining,
}

/// What a topic has beyond its cursor.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    /// Places.
    places: u32,
    /// Publications that wait without one.
    behind: u32,
    /// The keys of those that have one.
    keys: HashSet<Arc<str>>,
    /// Something of the topic is on the disk, or will be.
    is_recorded: bool,
    /// Up to where the journal was told that it is not needed.
    gone: Cursor,
}

impl Reserved {
    /// Whether publications stand behind others.
    pub(super) const fn has_behind(&self) -> bool {
        self.behind > 0
    }

    /// What waits belongs to a past that has ended.
    pub(super) fn end(&mut self) {
        self.places = 0;
        self.keys = HashSet::new();
    }
}

impl Owned {
    /// Whether something waits for its place.
    pub(super) fn is_waited_for(&self) -> bool {
        self.reserved.as_ref().is_some_and(|reserved| reserved.places > 0 || reserved.behind > 0)
    }
}

impl Topics {
    /// Topics that the journal has not been told of: beyond, it keeps what it need not. What it must be told is not bounded
    /// by this.
    const GONE_MAX: usize = 65_536;

    /// Whether a publication to a topic that is durable, or was, must wait for another before it is looked at. When a topic is
    /// durable no more its publications stand behind those that have places, and all places come before all that stand.
    pub(super) fn waits(
        &mut self,
        key: u32,
        name: Option<&str>,
        turn: Turn,
        is_durable: bool,
    ) -> Result<Option<Taken<'static>>, Refused> {
        let Some(reserved) = self.owned(key).reserved.as_deref_mut() else { return Ok(None) };
        let stands = turn == Turn::Next || reserved.behind > 0;
        if is_durable && stands {
            // It is durable again before those that came meanwhile were published: a place would be before theirs.
            return Err(Refused::Busy);
        }
        if is_durable {
            let is_twin = name.is_some_and(|name| reserved.keys.contains(name));
            return Ok(is_twin.then_some(Taken::Twin));
        }
        if turn != Turn::Next && (reserved.behind > 0 || reserved.places > 0) {
            reserved.behind += 1;
            return Ok(Some(Taken::Behind));
        }
        self.leave_the_disk(key);
        Ok(None)
    }

    /// The next message of a topic that is not durable any more: what is on the disk of it has nothing to do with what follows.
    fn leave_the_disk(&mut self, key: u32) {
        let owned = self.owned(key);
        let (name, epoch) = (owned.name.clone(), owned.cursor.epoch);
        let Some(reserved) = &mut owned.reserved else { return };
        let was_recorded = std::mem::take(&mut reserved.is_recorded);
        if reserved.behind == 0 {
            owned.reserved = None;
        }
        if was_recorded {
            self.gone.push_back((name, Cursor { epoch: Epoch(epoch.0.saturating_add(1)), offset: Offset(0) }));
        }
    }

    /// Gives a message a place that is not filled yet.
    pub(super) fn reserve(&mut self, key: u32, message: &mut Message, name: Option<&str>, now: Now) -> Taken<'static> {
        let owned = &mut self.topics.0[key as usize];
        let reserved = owned.reserved.get_or_insert_default();
        reserved.places += 1;
        reserved.is_recorded = true;
        if let Some(name) = name {
            reserved.keys.insert(name.into());
        }
        let offset = Offset(owned.cursor.offset.0 + u64::from(reserved.places));
        (message.epoch, message.offset, message.time_ms) = (owned.cursor.epoch, offset, now.unix_ms);
        if self.rulings.get(owned.rule).bounds.is_off() {
            return Taken::Reserved(offset);
        }
        // All that waits will be kept.
        let next = Offset(owned.cursor.offset.0 + 1);
        Taken::Reserved(owned.history.first().unwrap_or(next))
    }

    /// Fills the oldest reserved place of a topic: encodes its message for the audience, keeps it and says where it goes. `None`
    /// where the topic's past has ended meanwhile: it was published, and nobody is left to hear it.
    pub fn place(
        &mut self,
        message: &mut Message,
        name: Option<&str>,
        deflater: &mut Deflater,
        now: Now,
    ) -> Option<Published<'_>> {
        let key = self.release(message, name)?;
        self.settle(key);
        self.expire_messages(key, now.tick, usize::MAX);
        let owned = self.owned(key);
        owned.used = now.tick;
        debug_assert_eq!(owned.cursor.offset.0 + 1, message.offset.0, "places are filled in their order");
        owned.cursor.offset = message.offset;
        self.arm(key);
        Some(self.hand_out(key, message, name, deflater, now))
    }

    /// Takes a reserved place back, and with it all behind it: they are to be taken back too.
    pub fn take_back(&mut self, message: &Message, name: Option<&str>, now: Now) {
        if let Some(key) = self.release(message, name) {
            self.owned(key).used = now.tick;
            self.arm(key);
        }
    }

    /// One that stood behind others of its topic has its turn now.
    pub fn turn(&mut self, topic: &Topic) {
        let Some(&key) = self.keys.get(topic) else { return };
        if let Some(reserved) = &mut self.owned(key).reserved {
            reserved.behind = reserved.behind.saturating_sub(1);
        }
    }

    /// The topic of a reserved place that is none any more; `None` where it belongs to a past that has ended.
    fn release(&mut self, message: &Message, name: Option<&str>) -> Option<u32> {
        let &key = self.keys.get(&message.topic)?;
        let owned = self.owned(key);
        let reserved = owned.reserved.as_deref_mut().filter(|_| owned.cursor.epoch == message.epoch)?;
        reserved.places = reserved.places.checked_sub(1)?;
        if let Some(name) = name {
            reserved.keys.remove(name);
        }
        Some(key)
    }

    /// Places that are reserved in all topics, and publications that wait for their turn. It looks at all of them.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let all = self.topics.0.iter().filter_map(|(_, owned)| owned.reserved.as_deref());
        all.fold((0, 0), |(places, behind), one| (places + one.places as usize, behind + one.behind as usize))
    }

    /// Whether something waits for its place in a topic.
    #[must_use]
    pub fn is_waited_for(&self, topic: &Topic) -> bool {
        self.keys.get(topic).is_some_and(|&key| self.topics.0[key as usize].is_waited_for())
    }

    /// The newest place that is reserved in a topic.
    #[must_use]
    pub fn reserved_cursor(&self, topic: &Topic) -> Option<Cursor> {
        let &key = self.keys.get(topic)?;
        let owned = &self.topics.0[key as usize];
        let places = owned.reserved.as_deref().map_or(0, |reserved| u64::from(reserved.places));
        let offset = Offset(owned.cursor.offset.0 + places);
        (places > 0).then_some(Cursor { offset, ..owned.cursor })
    }

    /// Whether publications to a topic wait for the disk now.
    #[must_use]
    pub fn is_written(&self, topic: &Topic) -> bool {
        self.way_of(topic) == Way::Written
    }

    /// The next topic of which the journal keeps more than it needs, and up to where. What follows in the epoch of that place,
    /// or an older one, is needed again.
    pub fn next_gone(&mut self) -> Option<(Topic, Cursor)> {
        self.gone.pop_front()
    }

    /// Whether there is one.
    #[must_use]
    pub fn has_gone(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Something of this topic is on the disk.
    pub(super) fn note_recorded(&mut self, key: u32) {
        self.owned(key).reserved.get_or_insert_default().is_recorded = true;
    }

    /// Nothing that has been placed in a topic is needed on the disk.
    pub(super) fn note_gone(&mut self, key: u32) {
        let is_full = self.gone.len() >= Self::GONE_MAX;
        let owned = self.owned(key);
        let cursor = owned.cursor;
        // What is reserved has gone to the disk already: what is said now would be said of it, too.
        let Some(reserved) = owned.reserved.as_deref_mut().filter(|one| one.is_recorded && one.places == 0) else {
            return;
        };
        if reserved.gone != cursor && !is_full {
            reserved.gone = cursor;
            let name = owned.name.clone();
            self.gone.push_back((name, cursor));
        }
    }

    /// A topic's past has ended: it begins anew at its cursor.
    pub(super) fn note_ended(&mut self, key: u32) {
        let owned = self.owned(key);
        let cursor = owned.cursor;
        let Some(reserved) = owned.reserved.as_deref_mut().filter(|one| one.is_recorded) else { return };
        reserved.gone = cursor;
        let name = owned.name.clone();
        self.gone.push_back((name, cursor));
    }
}

#[cfg(test)]
mod tests;
