//! What a topic leaves to the process that follows: its place and its past, so that whoever resumes there finds both.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::{Now, Topics};
use crate::hub::history::History;
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

    /// The same with all that come from there: those that have messages first, so that no bare place takes the room of what is kept,
    /// and of those the newest. Where there is not room for all messages the oldest are left out. Says how many topics found none.
    pub fn recover_all(&mut self, legacies: impl IntoIterator<Item = Legacy>, now: Now) -> usize {
        let (mut kept, bare): (Vec<_>, Vec<_>) = legacies.into_iter().partition(|legacy| !legacy.messages.is_empty());
        kept.sort_by_key(|legacy| Reverse(legacy.messages.last().map(|left| left.message.time_ms)));
        self.leave_oldest(&mut kept);
        let is_left_out = |legacy: Legacy| {
            let topic = legacy.topic.clone();
            !self.recover(legacy, now) && self.sight(&topic).is_none()
        };
        kept.into_iter().chain(bare).map(is_left_out).map(usize::from).sum()
    }

    /// Takes the oldest messages from topics that come, until there is room for the rest. Once they are here each topic would give
    /// one in turn, however new its messages are.
    fn leave_oldest(&mut self, legacies: &mut [Legacy]) {
        let slots = self.topics_max.saturating_sub(self.topics.0.len());
        let comes = |legacy: &&mut Legacy| !self.is_ordered(&legacy.topic) && !self.keys.contains_key(&legacy.topic);
        let mut comers: Vec<_> = legacies.iter_mut().filter(comes).take(slots).collect();
        let room = self.bytes_max.saturating_sub(self.counts.bytes);
        self.counts.evicted += shorten(&mut comers, room) as u64;
    }
}

/// Drops the oldest messages of all until they take no more than this. Says how many that were.
fn shorten(legacies: &mut [&mut Legacy], room: usize) -> usize {
    let bytes_of = |left: &Left| History::bytes_of(&left.message, left.key.as_deref());
    let oldest = |legacy: &Legacy, dropped: usize| legacy.messages.get(dropped).map(|left| left.message.time_ms);
    let mut bytes: usize = legacies.iter().flat_map(|legacy| &legacy.messages).map(bytes_of).sum();
    if bytes <= room {
        return 0;
    }
    let firsts = legacies.iter().zip(0..).filter_map(|(legacy, at)| Some(Reverse((oldest(legacy, 0)?, at))));
    let mut next: BinaryHeap<Reverse<(u64, usize)>> = firsts.collect();
    let mut dropped = vec![0; legacies.len()];
    while bytes > room
        && let Some(Reverse((_, at))) = next.pop()
    {
        bytes -= bytes_of(&legacies[at].messages[dropped[at]]);
        dropped[at] += 1;
        next.extend(oldest(legacies[at], dropped[at]).map(|time_ms| Reverse((time_ms, at))));
    }
    legacies.iter_mut().zip(&dropped).for_each(|(legacy, &dropped)| drop(legacy.messages.drain(..dropped)));
    dropped.iter().sum()
}

fn tick_ms() -> u32 {
    u32::try_from(TICK.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::super::tests::{at, expire, history_of, offsets, publish, topics, with_history};
    use super::*;
    use crate::hub::testing::{message, topic};
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

    /// A topic of which the journal has messages of these times.
    fn recorded(name: &str, times: &[u64]) -> Legacy {
        let left = |&time_ms: &u64| {
            let mut message = message(name, 0, b"hi");
            message.time_ms = time_ms;
            Left { message, age_ms: 0, key: None }
        };
        let cursor = Cursor { epoch: Epoch(1), offset: Offset(times.len() as u64) };
        Legacy { topic: topic(name), cursor, messages: times.iter().map(left).collect() }
    }

    #[test]
    fn what_stays_of_a_journal_is_the_newest() {
        let names = ["a", "b", "c", "d"];
        let all = || {
            [[1, 8, 16], [2, 5, 9], [3, 4, 6], [13, 14, 15]]
                .iter()
                .zip(names)
                .map(|(times, name)| recorded(name, times))
        };
        let kept = |after: &Topics| names.map(|name| after.sight(&topic(name)).map_or(0, |sight| sight.messages));
        let one = History::bytes_of(&message("a", 0, b"hi"), None);
        let mut after = with_history(9, history_of(9), 5 * one);
        assert_eq!(after.recover_all(all(), at(0)), 0);
        assert_eq!(kept(&after), [1, 1, 0, 3]);
        assert_eq!((after.counts().messages, after.counts().evicted), (5, 7));
        // The same whichever comes first.
        let mut after = with_history(9, history_of(9), 5 * one);
        after.recover_all(all().rev(), at(0));
        assert_eq!(kept(&after), [1, 1, 0, 3]);
        // Nor do those take room that find none.
        let mut after = with_history(2, history_of(9), 5 * one);
        assert_eq!(after.recover_all(all(), at(0)), 2);
        assert_eq!(kept(&after), [2, 0, 0, 3]);
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
