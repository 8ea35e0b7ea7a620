//! The topics that a shard owns.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::members::Stay;
use crate::id::ShardId;
use crate::message::{Message, Offset, Topic, Wants};

/// The topics of one owner shard.
#[derive(Debug)]
pub struct Topics {
    topics: HashMap<Topic, Owned>,
    topics_max: usize,
}

/// A shard with subscribers of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interested {
    /// Which one.
    pub shard: ShardId,
    /// The formats that it needs.
    pub wants: Wants,
    /// Since when, as it calls it.
    pub stay: Stay,
}

/// One topic at its owner. It exists while a shard is interested.
#[derive(Debug)]
struct Owned {
    last: Offset,
    /// The shards with subscribers.
    interested: Vec<Interested>,
}

/// Where a publication goes.
#[derive(Debug)]
pub struct Audience<'a> {
    /// Its place in the topic.
    pub offset: Offset,
    /// The shards that want it.
    pub shards: &'a [Interested],
}

impl Topics {
    /// No topics, and room for so many.
    #[must_use]
    pub fn new(topics_max: usize) -> Self {
        Self { topics: HashMap::new(), topics_max }
    }

    /// A shard wants a topic's messages in these formats (instead of those it named before). Returns whether there was
    /// room for the topic.
    pub fn interest(&mut self, topic: &Topic, interested: Interested) -> bool {
        let room = self.topics.len() < self.topics_max;
        match self.topics.entry(topic.clone()) {
            Entry::Occupied(mut owned) => owned.get_mut().set(interested),
            Entry::Vacant(vacant) if room => {
                vacant.insert(Owned { last: Offset(0), interested: vec![interested] });
            }
            Entry::Vacant(_) => return false,
        }
        true
    }

    /// A shard has no subscribers of this topic any more.
    pub fn disinterest(&mut self, topic: &Topic, shard: ShardId) {
        if let Entry::Occupied(mut owned) = self.topics.entry(topic.clone()) {
            owned.get_mut().interested.retain(|interested| interested.shard != shard);
            if owned.get().interested.is_empty() {
                owned.remove();
            }
        }
    }

    /// Gives a publication its offset; `None` when nobody listens.
    pub fn publish(&mut self, message: &Message) -> Option<Audience<'_>> {
        let owned = self.topics.get_mut(&message.topic)?;
        owned.last = Offset(owned.last.0 + 1);
        Some(Audience { offset: owned.last, shards: &owned.interested })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }
}

impl Owned {
    fn set(&mut self, new: Interested) {
        match self.interested.iter_mut().find(|old| old.shard == new.shard) {
            Some(old) => *old = new,
            None => self.interested.push(new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Kind, Wire};

    fn message(topic: &Topic) -> Message {
        Message::new(topic.clone(), Kind::Text, b"hi", None)
    }

    fn interested(shard: u16, wants: Wants) -> Interested {
        Interested { shard: ShardId(shard), wants, stay: Stay(1) }
    }

    #[test]
    fn offsets_count_from_one_while_anyone_listens() {
        let topic = Topic::parse(b"t", 255).expect("a name");
        let mut topics = Topics::new(1);
        assert!(topics.publish(&message(&topic)).is_none());
        assert!(topics.interest(&topic, interested(1, Wants::NONE.with(Wire::Line))));
        assert!(topics.interest(&topic, interested(0, Wants::NONE)));
        for offset in 1..=3 {
            let audience = topics.publish(&message(&topic)).expect("listeners");
            assert_eq!((audience.offset, audience.shards.len()), (Offset(offset), 2));
        }
        topics.disinterest(&topic, ShardId(1));
        topics.disinterest(&topic, ShardId(0));
        assert!(topics.is_empty());
    }

    #[test]
    fn a_topic_too_many_is_refused() {
        let mut topics = Topics::new(1);
        let [one, two] = [b"1", b"2"].map(|name| Topic::parse(name, 255).expect("a name"));
        assert!(topics.interest(&one, interested(0, Wants::NONE)));
        assert!(!topics.interest(&two, interested(0, Wants::NONE)));
    }
}
