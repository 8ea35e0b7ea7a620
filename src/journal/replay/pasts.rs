//! What is kept of all topics while a journal is read: no more of each than its rule says, nor of all together than the
//! process may.
//!
//! The oldest message of all goes first, in the order of the journal. A list has the topic of each message in that order. A
//! message that went for another reason leaves its topic's name there, which is *stale*: since a topic's messages go from the
//! oldest on, that many of the topic's first names are. Where stale names are more than half of the list it is cleaned, so
//! that each message costs the same in the end, and the list has four bytes for each of at most twice the messages.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::Name;
use crate::config::{Keep, RuleKey, TopicRules};
use crate::hub::history::History;
use crate::hub::topics::{Left, Legacy};
use crate::journal::record::Record;
use crate::message::{Cursor, Message, Offset, Topic};

/// One topic as the journal knows it.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) topic: Topic,
    /// How far it has come.
    pub(super) cursor: Cursor,
    /// Its newest record's time.
    pub(super) time_ms: u64,
    /// Holes in front of the last record that says where it stands.
    pub(super) holes: u32,
    pub(super) rule: RuleKey,
    /// Its messages and their idempotency keys, without a gap, up to the cursor.
    messages: VecDeque<(Message, Option<Arc<str>>)>,
    bytes: usize,
    /// So many of its names in the list, the first ones, are stale.
    stale: usize,
}

impl Past {
    /// Places for messages that are kept when there are fewer.
    const ROOM_KEPT: usize = 8;

    /// Its messages, with their keys.
    pub(super) fn messages(&self) -> impl ExactSizeIterator<Item = (&Message, Option<&str>)> {
        self.messages.iter().map(|(message, key)| (message, key.as_deref()))
    }

    /// The oldest message that is kept, or the next one to come.
    pub(super) fn kept(&self) -> Offset {
        let next = self.cursor.offset.0.saturating_add(1);
        Offset(self.messages.front().map_or(next, |(message, _)| message.offset.0))
    }

    /// Whether there is more than may be. What is older than that goes, too.
    fn is_over(&self, keep: &Keep, oldest_ms: u64) -> bool {
        let is_old = |(message, _): &(Message, _)| message.time_ms < oldest_ms;
        self.messages.len() > keep.messages_max
            || self.bytes > keep.bytes_max
            || self.messages.front().is_some_and(is_old)
    }

    /// Takes the oldest message away, and says what it took.
    fn pop(&mut self) -> usize {
        let Some((message, key)) = self.messages.pop_front() else { return 0 };
        let bytes = History::bytes_of(&message, key.as_deref());
        self.bytes -= bytes;
        // A list that was long once would take more than what it has.
        if self.messages.capacity() > 3 * self.messages.len().max(Self::ROOM_KEPT) {
            self.messages.shrink_to(2 * self.messages.len());
        }
        bytes
    }

    fn legacy(self, now_ms: u64) -> Legacy {
        let left = |(message, key): (Message, Option<Arc<str>>)| {
            let age_ms = u32::try_from(now_ms.saturating_sub(message.time_ms)).unwrap_or(u32::MAX);
            Left { message, age_ms, key }
        };
        let messages = self.messages.into_iter().map(left).collect();
        Legacy { topic: self.topic, cursor: self.cursor, messages }
    }
}

/// All topics.
#[derive(Debug)]
pub(super) struct Pasts {
    all: Vec<Past>,
    keys: HashMap<Topic, u32>,
    /// The topics of all messages, in the order of the journal, and stale names between them.
    order: VecDeque<u32>,
    /// Messages that are kept.
    messages: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Pasts {
    /// Stale names that may be there however few messages are.
    const STALE: usize = 64;

    pub(super) fn new(bytes_max: usize) -> Self {
        Self { all: Vec::new(), keys: HashMap::new(), order: VecDeque::new(), messages: 0, bytes: 0, bytes_max }
    }

    /// The topic of a record, as it stands; a new one stands before it.
    pub(super) fn key(&mut self, record: &Record<'_>, rules: &TopicRules) -> Option<u32> {
        if let Some(&key) = self.keys.get(&Name(record.topic)) {
            return Some(key);
        }
        // The same names as always; only a foreign writer has others.
        let topic = Topic::parse(record.topic.as_bytes(), Topic::BYTES_MAX).ok()?;
        let key = u32::try_from(self.all.len()).ok()?;
        let offset = Offset(record.cursor.offset.0.saturating_sub(1));
        self.all.push(Past {
            topic: topic.clone(),
            cursor: Cursor { offset, ..record.cursor },
            time_ms: record.time_ms,
            holes: 0,
            rule: rules.key(record.topic),
            messages: VecDeque::new(),
            bytes: 0,
            stale: 0,
        });
        self.keys.insert(topic, key);
        Some(key)
    }

    pub(super) fn past(&mut self, key: u32) -> &mut Past {
        &mut self.all[key as usize]
    }

    pub(super) fn all(&self) -> &[Past] {
        &self.all
    }

    /// Drops a topic's messages.
    pub(super) fn clear(&mut self, key: u32) {
        let past = &mut self.all[key as usize];
        past.stale += past.messages.len();
        self.messages -= past.messages.len();
        self.bytes -= past.bytes;
        (past.messages, past.bytes) = (VecDeque::new(), 0);
        self.clean();
    }

    /// Adds a topic's newest message, and drops the oldest ones that are more than may be then: of that topic, of which none
    /// may be older than this time, and of all.
    pub(super) fn push(&mut self, key: u32, message: Message, name: Option<&str>, keep: &Keep, oldest_ms: u64) {
        let past = &mut self.all[key as usize];
        let bytes = History::bytes_of(&message, name);
        past.bytes += bytes;
        past.messages.push_back((message, name.map(Arc::from)));
        self.bytes += bytes;
        self.messages += 1;
        self.order.push_back(key);
        while past.is_over(keep, oldest_ms) {
            self.bytes -= past.pop();
            self.messages -= 1;
            past.stale += 1;
        }
        self.fit();
        self.clean();
    }

    /// Drops the oldest messages of all until there are no more bytes than there may be.
    fn fit(&mut self) {
        while self.bytes > self.bytes_max {
            let Some(key) = self.order.pop_front() else { return };
            let past = &mut self.all[key as usize];
            if past.stale > 0 {
                past.stale -= 1;
            } else {
                self.bytes -= past.pop();
                self.messages -= 1;
            }
        }
    }

    /// Takes stale names out of the list where they are most of it.
    fn clean(&mut self) {
        if self.order.len() <= 2 * self.messages + Self::STALE {
            return;
        }
        let all = &mut self.all;
        self.order.retain(|&key| {
            let past = &mut all[key as usize];
            let is_stale = past.stale > 0;
            past.stale -= usize::from(is_stale);
            !is_stale
        });
    }

    /// What the shards go on with.
    pub(super) fn legacies(self, now_ms: u64) -> Vec<Legacy> {
        self.all.into_iter().map(|past| past.legacy(now_ms)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::config::Config;
    use crate::message::{Epoch, Kind};
    use crate::sim::Random;

    const ALL: Keep = Keep { messages_max: usize::MAX, bytes_max: usize::MAX, age_max: std::time::Duration::MAX };

    fn message(name: &str, offset: u64, payload: &[u8]) -> Message {
        let topic = Topic::parse(name.as_bytes(), Topic::BYTES_MAX).unwrap();
        let mut message = Message::new(topic, Kind::Text, payload, None);
        message.offset = Offset(offset);
        message
    }

    fn key(pasts: &mut Pasts, name: &str) -> u32 {
        let cursor = Cursor { epoch: Epoch(1), offset: Offset(1) };
        pasts.key(&Record::of_cursor(name, cursor, 0), &TopicRules::new(&Config::default())).unwrap()
    }

    fn kept(pasts: &Pasts, key: u32) -> Vec<u64> {
        pasts.all[key as usize].messages().map(|(message, _)| message.offset.0).collect()
    }

    /// Against a list of all messages, from which the oldest go.
    #[test]
    fn the_oldest_of_all_go_first() {
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let one = History::bytes_of(&message("a", 1, b"hi"), None);
            let (most, each) = (random.below(40), random.below(20) + 1);
            let mut pasts = Pasts::new(most * one);
            let keys = ["a", "b", "c", "d"].map(|name| key(&mut pasts, name));
            let mut all: Vec<(usize, u64)> = Vec::new();
            for offset in 1..=500 {
                let louder = random.below(keys.len()) + 1;
                let topic = random.below(louder);
                if random.below(50) == 0 {
                    pasts.clear(keys[topic]);
                    all.retain(|(of, _)| *of != topic);
                }
                let keep = Keep { messages_max: each, ..ALL };
                pasts.push(keys[topic], message("a", offset, b"hi"), None, &keep, 0);
                all.push((topic, offset));
                let its = all.iter().filter(|(of, _)| *of == topic).count();
                if its > each {
                    let oldest = all.iter().position(|(of, _)| *of == topic).unwrap();
                    all.remove(oldest);
                }
                all.drain(..all.len().saturating_sub(most));
                for (place, &key) in keys.iter().enumerate() {
                    let its = all.iter().filter(|(of, _)| *of == place).map(|(_, offset)| *offset);
                    assert_eq!(kept(&pasts, key), its.collect::<Vec<_>>(), "seed {seed}, at {offset}");
                }
                assert_eq!((pasts.messages, pasts.bytes), (all.len(), all.len() * one));
                assert!(pasts.order.len() <= 2 * pasts.messages + Pasts::STALE);
            }
        }
    }

    #[test]
    fn a_list_that_was_long_gives_its_memory_back() {
        let mut pasts = Pasts::new(usize::MAX);
        let (long, other) = (key(&mut pasts, "long"), key(&mut pasts, "other"));
        (1..=1000).for_each(|offset| pasts.push(long, message("long", offset, b"hi"), None, &ALL, 0));
        pasts.bytes_max = 20 * History::bytes_of(&message("a", 1, b"hi"), None);
        (1..=19).for_each(|offset| pasts.push(other, message("other", offset, b"hi"), None, &ALL, 0));
        assert_eq!((kept(&pasts, long).len(), kept(&pasts, other).len()), (1, 19));
        assert!(pasts.all[long as usize].messages.capacity() <= 3 * Past::ROOM_KEPT);
        assert!(pasts.order.len() <= 2 * 20 + Pasts::STALE);
    }

    #[test]
    fn one_that_is_larger_than_all_may_be_leaves_nothing() {
        let mut pasts = Pasts::new(1000);
        let a = key(&mut pasts, "a");
        pasts.push(a, message("a", 1, b"hi"), None, &ALL, 0);
        pasts.push(a, message("a", 2, &[b'x'; 1000]), None, &ALL, 0);
        assert_eq!((pasts.messages, pasts.bytes, pasts.order.len()), (0, 0, 0));
    }
}
