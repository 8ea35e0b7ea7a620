//! What a topic leaves to the process that follows: its place and its past, so that whoever resumes there finds both.

use std::sync::Arc;

use super::{Now, Topics};
use crate::message::{Cursor, Epoch, Message, Offset, Topic};
use crate::wheel::{TICK, Tick};

/// A topic without its audience, which stays where it is.
#[derive(Clone, Debug)]
pub struct Legacy {
    /// Its name.
    pub topic: Topic,
    /// Its newest message.
    pub cursor: Cursor,
    /// Its history: in order, the last one at `cursor`.
    pub messages: Vec<Left>,
}

/// A message of a history.
#[derive(Clone, Debug)]
pub struct Left {
    /// The message. Its place follows from where it stands.
    pub message: Message,
    /// How long it has been kept.
    pub age_ms: u32,
    /// The key that it was published with.
    pub key: Option<Arc<str>>,
}

impl Topics {
    /// What the topic at a place leaves, if there is one. One with a stream leaves nothing: the stream has it.
    #[must_use]
    pub fn legacy(&self, place: usize, now: Tick) -> Option<Legacy> {
        let owned = self.topics.0.get(place).filter(|owned| !self.is_ordered(&owned.name))?;
        let left = |(message, age, key): (&Message, u32, Option<&Arc<str>>)| Left {
            message: message.clone(),
            age_ms: age.saturating_mul(tick_ms()),
            key: key.cloned(),
        };
        let messages = owned.history.aged(now).map(left).collect();
        Some(Legacy { topic: owned.name.clone(), cursor: owned.cursor, messages })
    }

    /// The newest epoch that any topic here has or had.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Makes all epochs from now on greater than this one.
    pub fn begin_after(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
    }

    /// Goes on with a topic where it was left. What is too old by its rule here, or more than that keeps, is dropped. One that has
    /// a stream here begins with that.
    /// Returns whether there was room, and no such topic yet.
    pub fn adopt(&mut self, legacy: Legacy, now: Now) -> bool {
        let Legacy { topic, cursor, messages } = legacy;
        if self.is_ordered(&topic) {
            self.begin_after(cursor.epoch);
            return true;
        }
        if self.keys.contains_key(&topic) || self.topics.0.len() >= self.topics_max {
            return false;
        }
        let key = self.create(&topic, cursor, now);
        self.begin_after(cursor.epoch);
        if self.ruling(key).durable {
            self.note_recorded(key);
        }
        let bounds = self.ruling(key).bounds;
        let count = messages.len() as u64;
        for (place, Left { mut message, age_ms, key: name }) in (0..).zip(messages) {
            // 1 for the first one of all, if all are there.
            let Some(offset) = (cursor.offset.0 + place + 1).checked_sub(count) else { continue };
            (message.epoch, message.offset) = (cursor.epoch, Offset(offset));
            let age = age_ms / tick_ms();
            self.change(key, |history| history.push_aged(message, name, (now.tick, age), &bounds));
            while self.counts.bytes > self.bytes_max && self.evict(key) {}
        }
        self.note_stale(key);
        self.expire_messages(key, now.tick, usize::MAX);
        self.hasten(key);
        true
    }
}

impl Topics {
    /// The same with a topic that comes from the disk, whatever its rule is here.
    pub fn recover(&mut self, legacy: Legacy, now: Now) -> bool {
        let (topic, epoch) = (legacy.topic.clone(), legacy.cursor.epoch);
        if self.is_ordered(&topic) {
            // Whoever comes back to the journal later must not take what it has for all there was.
            self.gone.push_back((topic, Cursor { epoch: Epoch(epoch.0.saturating_add(1)), offset: Offset(0) }));
            return true;
        }
        let is_new = self.adopt(legacy, now);
        if let Some(&key) = self.keys.get(&topic) {
            self.note_recorded(key);
        }
        is_new
    }

    /// The same with all that come from there: those that have messages first, so that no bare place takes the room of what is kept.
    /// Says how many had none.
    pub fn recover_all(&mut self, legacies: impl IntoIterator<Item = Legacy>, now: Now) -> usize {
        let (kept, bare): (Vec<_>, Vec<_>) = legacies.into_iter().partition(|legacy| !legacy.messages.is_empty());
        let is_left_out = |legacy: Legacy| {
            let topic = legacy.topic.clone();
            !self.recover(legacy, now) && self.sight(&topic).is_none()
        };
        kept.into_iter().chain(bare).map(is_left_out).map(usize::from).sum()
    }
}

fn tick_ms() -> u32 {
    u32::try_from(TICK.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::super::tests::{at, expire, history_of, offsets, publish, topics, with_history};
    use super::*;
    use crate::hub::testing::topic;
    use crate::hub::topics::Start;

    fn legacies(topics: &Topics, now: u32) -> Vec<Legacy> {
        (0..topics.place_end()).filter_map(|place| topics.legacy(place, Tick(now))).collect()
    }

    #[test]
    fn who_resumes_at_the_next_owner_misses_nothing() {
        let (mut before, mut after) = (topics(9), topics(9));
        for tick in 0..6 {
            publish(&mut before, "a", None, at(tick)).unwrap();
        }
        let (seen, _) = publish(&mut before, "quiet", Some("key"), at(6)).unwrap();
        let since = Cursor { offset: Offset(3), ..before.sight(&topic("a")).unwrap().cursor };
        assert!(legacies(&before, 6).into_iter().all(|legacy| after.adopt(legacy, at(0))));

        publish(&mut after, "a", None, at(1)).unwrap();
        let past = after.past(&topic("a"), Start::Since(since), at(1)).unwrap();
        assert_eq!((offsets(&past.messages), past.reset), (vec![4, 5, 6, 7], false));
        // Nor is anything published again that was.
        assert_eq!(publish(&mut after, "quiet", Some("key"), at(2)).unwrap(), (seen, true));
        assert!(!after.past(&topic("quiet"), Start::Since(seen), at(2)).unwrap().reset);
        // A topic of this owner's own begins after all others.
        let (new, _) = publish(&mut after, "new", None, at(2)).unwrap();
        assert!(new.epoch > since.epoch && new.epoch > seen.epoch);
    }

    #[test]
    fn ages_go_on_and_the_rules_are_those_of_the_next_owner() {
        let mut before = topics(9);
        for tick in [0, 50, 60] {
            publish(&mut before, "a", None, at(tick)).unwrap();
        }
        let legacy = legacies(&before, 60).remove(0);
        // 10 s are kept: 100 ticks.
        let mut after = topics(9);
        assert!(after.adopt(legacy.clone(), at(0)));
        for (now, kept) in [(39, 3), (40, 2), (89, 2), (90, 1), (100, 0)] {
            expire(&mut after, now);
            assert_eq!(after.sight(&topic("a")).map_or(0, |sight| sight.messages), kept, "at {now}");
        }
        let mut narrow = with_history(9, history_of(2), usize::MAX);
        assert!(narrow.adopt(legacy.clone(), at(0)));
        let past = narrow.past(&topic("a"), Start::Last(9), at(0)).unwrap();
        assert_eq!((offsets(&past.messages), past.cursor), (vec![2, 3], legacy.cursor));
        assert!(!narrow.adopt(legacy.clone(), at(0)), "it is there");

        let mut none = topics(1);
        publish(&mut none, "other", None, at(0)).unwrap();
        assert!(!none.adopt(legacy, at(0)), "and nobody makes room for it");
    }

    #[test]
    fn bare_places_leave_the_room_to_topics_with_messages() {
        let mut before = topics(99);
        let kept = ["kept/1", "kept/2", "kept/3"];
        for name in kept {
            publish(&mut before, name, None, at(0)).unwrap();
        }
        let with_messages = legacies(&before, 0);
        let bare = (0..20).map(|number| Legacy {
            topic: topic(&format!("bare/{number}")),
            cursor: Cursor { epoch: Epoch(1), offset: Offset(7) },
            messages: Vec::new(),
        });
        let mut after = topics(4);
        assert_eq!(after.recover_all(bare.chain(with_messages), at(0)), 19);
        for name in kept {
            assert_eq!(after.sight(&topic(name)).map(|sight| sight.messages), Some(1), "{name}");
        }
    }

    #[test]
    fn what_all_topics_may_keep_is_kept_to() {
        let mut before = topics(9);
        for tick in 0..4 {
            publish(&mut before, "a", None, at(tick)).unwrap();
        }
        let one = before.counts().bytes / 4;
        let mut after = with_history(9, history_of(4), 2 * one);
        legacies(&before, 4).into_iter().for_each(|legacy| assert!(after.adopt(legacy, at(0))));
        assert_eq!((after.counts().messages, after.counts().bytes), (2, 2 * one));
    }
}
