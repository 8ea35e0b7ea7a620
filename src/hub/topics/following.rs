//! Other rules for topics that are there.
//!
//! A topic takes its new rule on when it is looked at next. Meanwhile a walk over all topics looks at each once and
//! drops, a few messages at a time, what is more than its rule keeps now.

use std::sync::Arc;

use super::Topics;
use crate::config::{Limits, TopicRules};
use crate::hub::history::History;
use crate::hub::ruling::Rulings;
use crate::wheel::{Tick, Wheel};

/// A walk over all topics after their rules have changed.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The next place that is looked at; `None` when there is no walk.
    place: Option<usize>,
    /// Histories that were turned off.
    waste: Vec<History>,
}

impl Topics {
    /// Takes other rules on, and other bounds for all topics together, of which this owner has one part in `shards`.
    pub fn follow(&mut self, rules: &Arc<TopicRules>, limits: &Limits, shards: u16) {
        self.topics_max = Self::topics_max(limits, shards);
        self.groups_max = limits.groups_max;
        self.bytes_max = limits.history.bytes_total_max / usize::from(shards.max(1));
        self.rulings = Rulings::new(Arc::clone(rules), &self.wheel, self.rulings.version.wrapping_add(1));
        self.walk.place = Some(0);
    }

    pub(super) fn topics_max(limits: &Limits, shards: u16) -> usize {
        (limits.topics_max / usize::from(shards.max(1))).clamp(1, Wheel::KEYS_MAX as usize)
    }

    /// Has a topic take its present rule on.
    pub(super) fn settle(&mut self, key: u32) {
        let owned = &mut self.topics.0[key as usize];
        if owned.version == self.rulings.version {
            return;
        }
        owned.version = self.rulings.version;
        owned.rule = self.rulings.key(&owned.name);
        if self.rulings.get(owned.rule).bounds.is_off() && !owned.history.is_empty() {
            // What is kept must end with the newest message, and the next one is not kept.
            let off = self.change(key, std::mem::take);
            self.walk.waste.push(off);
        }
        self.follow_sharing(key);
        self.settle_presence(key);
        self.hasten(key);
    }

    /// Goes on with the walk as long as `more` says that there is time. Returns whether it is over.
    pub(super) fn walk(&mut self, now: Tick, more: &mut impl FnMut() -> bool) -> bool {
        while let Some(place) = self.walk.place {
            if !more() {
                return false;
            }
            self.step(place, now);
        }
        while let Some(mut off) = self.walk.waste.pop() {
            if !more() {
                self.walk.waste.push(off);
                return false;
            }
            if off.drop_some(History::DROPPED_AT_ONCE) {
                self.walk.waste.push(off);
            }
        }
        true
    }

    /// Whether it is under way.
    pub(super) const fn is_walking(&self) -> bool {
        self.walk.place.is_some()
    }

    fn step(&mut self, place: usize, now: Tick) {
        if self.counts.bytes > self.bytes_max {
            (0..History::DROPPED_AT_ONCE)
                .take_while(|_| self.counts.bytes > self.bytes_max && self.evict(u32::MAX))
                .count();
            return;
        }
        if place >= self.topics.0.capacity() {
            self.walk.place = None;
            return;
        }
        let key = u32::try_from(place).unwrap_or(u32::MAX);
        if self.topics.0.contains(place) {
            self.settle(key);
            let bounds = self.ruling(key).bounds;
            let has_more = self.change(key, |history| history.trim(&bounds, History::DROPPED_AT_ONCE));
            self.expire_messages(key, now, History::DROPPED_AT_ONCE);
            if has_more {
                return;
            }
        }
        self.walk.place = Some(place + 1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::time::Duration;

    use super::*;
    use crate::codec::websocket::deflate::Deflater;
    use crate::config::{Config, Pattern, TopicSection};
    use crate::hub::testing::{message, topic};
    use crate::hub::topics::{Now, Refused, Start};
    use crate::id::{ConnId, ShardId};
    use crate::message::Publisher;

    fn at(tick: u32) -> Now {
        Now { tick: Tick(tick), unix_ms: 1_000_000 + u64::from(tick) * 100 }
    }

    fn section(pattern: &str) -> TopicSection {
        TopicSection::new(Pattern::parse(pattern).unwrap())
    }

    fn follow(topics: &mut Topics, config: &Config) {
        topics.follow(&Arc::new(TopicRules::new(config)), &config.limits, 1);
    }

    /// 1,000 messages in each of three topics.
    fn full() -> (Topics, Config) {
        let mut config = Config::default();
        (config.limits.history.messages_max, config.limits.history.age_max) = (1000, Duration::from_secs(100));
        let rules = Arc::new(TopicRules::new(&config));
        let mut topics = Topics::new(&rules, &config.limits, 1);
        for name in ["room/1", "room/2", "news"] {
            (0..1000).for_each(|_| assert!(publish(&mut topics, name, 0).is_ok()));
        }
        (topics, config)
    }

    fn publish(topics: &mut Topics, name: &str, tick: u32) -> Result<u64, Refused> {
        let mut message = message(name, 0, b"hi");
        topics
            .publish(&mut message, None, &mut Deflater::default(), at(tick))
            .map(|published| published.cursor.offset.0)
    }

    fn kept(topics: &mut Topics, name: &str, tick: u32) -> usize {
        topics.info(&topic(name), at(tick)).messages
    }

    /// Steps until the walk is over, each of which drops no more than it may.
    fn walk(topics: &mut Topics, tick: u32) -> usize {
        let mut steps = 0;
        loop {
            let before = topics.counts().messages;
            let mut once = true;
            let is_over = topics.expire(Tick(tick), || std::mem::take(&mut once));
            assert!(before - topics.counts().messages <= 2 * History::DROPPED_AT_ONCE);
            steps += 1;
            assert!(steps < 10_000, "it does not end");
            if is_over {
                return steps;
            }
        }
    }

    #[test]
    fn what_is_kept_shrinks_in_steps() {
        let (mut topics, mut config) = full();
        config.topics = vec![TopicSection { messages_max: Some(10), ..section("room/*") }];
        follow(&mut topics, &config);
        assert_eq!(kept(&mut topics, "news", 0), 1000);
        assert_eq!(publish(&mut topics, "room/1", 0), Ok(1001));
        assert_eq!(kept(&mut topics, "room/1", 0), 1001 - History::DROPPED_AT_ONCE, "not all at once");
        assert!(walk(&mut topics, 0) > 6);
        assert_eq!(["room/1", "room/2", "news"].map(|name| kept(&mut topics, name, 0)), [10, 10, 1000]);
        let past = topics.past(&topic("room/1"), Start::Last(99), at(0)).unwrap();
        assert_eq!(past.messages.last().unwrap().offset, past.cursor.offset);
        assert_eq!(topics.counts().messages, 1020);
    }

    #[test]
    fn a_history_that_is_turned_off_is_gone_at_once_and_begins_anew_when_it_is_on() {
        let (mut topics, config) = full();
        let off = Config { topics: vec![TopicSection { bytes_max: Some(0), ..section("news") }], ..config.clone() };
        follow(&mut topics, &off);
        let since = topics.info(&topic("room/1"), at(0)).cursor.unwrap();
        assert_eq!(publish(&mut topics, "news", 0), Ok(1001));
        assert_eq!(kept(&mut topics, "news", 0), 0);
        follow(&mut topics, &config);
        assert_eq!(publish(&mut topics, "news", 0), Ok(1002));
        assert_eq!((kept(&mut topics, "news", 0), kept(&mut topics, "room/1", 0)), (1, 1000));
        walk(&mut topics, 0);
        assert_eq!(topics.counts().messages, 2001);
        assert!(!topics.past(&topic("room/1"), Start::Since(since), at(0)).unwrap().reset, "the epoch is the same");
    }

    #[test]
    fn a_shorter_age_is_followed_without_a_look_at_the_topic() {
        let (mut topics, mut config) = full();
        config.limits.history.age_max = Duration::from_secs(1);
        follow(&mut topics, &config);
        walk(&mut topics, 0);
        assert_eq!(topics.counts().messages, 3000);
        assert!(topics.next_expiry().unwrap() <= Tick(10));
        walk(&mut topics, 10);
        assert_eq!((topics.counts().messages, topics.len()), (0, 0), "nobody has used them since");
    }

    #[test]
    fn all_topics_together_shrink_too() {
        let (mut topics, mut config) = full();
        let bytes = topics.counts().bytes;
        config.limits.history.bytes_total_max = bytes / 3;
        follow(&mut topics, &config);
        walk(&mut topics, 0);
        assert!(topics.counts().bytes <= bytes / 3 && topics.counts().bytes > bytes / 4);
        config.limits.topics_max = 3;
        follow(&mut topics, &config);
        walk(&mut topics, 0);
        assert_eq!(publish(&mut topics, "one-more", 0).map(|_| topics.len()), Ok(3), "an idle one made room");
    }

    #[test]
    fn a_rate_is_the_topics_and_not_the_servers() {
        let (mut topics, mut config) = full();
        config.topics = vec![TopicSection { rate: Some(2), ..section("room/*") }];
        follow(&mut topics, &config);
        let mut by_client = |name: &str, key: Option<&str>| {
            let mut message = message(name, 0, b"hi");
            message.publisher = Some(Publisher { shard: ShardId(0), connection: ConnId::new(1, 1) });
            topics.publish(&mut message, key, &mut Deflater::default(), at(0)).map(|one| one.cursor.offset.0)
        };
        assert_eq!([0; 9].map(|_| by_client("room/1", Some("key"))), [Ok(1001); 9], "one message, sent again");
        assert_eq!([0; 2].map(|_| by_client("room/1", None)), [Ok(1002), Err(Refused::TooFast)]);
        assert_eq!([0; 3].map(|_| by_client("room/2", None)), [Ok(1001), Ok(1002), Err(Refused::TooFast)]);
        assert_eq!(by_client("news", None), Ok(1001));
        assert_eq!(publish(&mut topics, "room/1", 0), Ok(1003), "the server itself");
    }
}
