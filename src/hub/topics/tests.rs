#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use std::time::Duration;

use super::*;
use crate::config::{Config, History, Keep};
use crate::hub::members::Stay;
use crate::hub::testing::{Random, group, message, topic};
use crate::message::Wire;

const HISTORY: History =
    History { messages_max: 4, bytes_max: 1 << 20, age_max: Duration::from_secs(10), bytes_total_max: 1 << 30 };

const AGE_TICKS: u32 = 100;

pub(super) fn topics(topics_max: usize) -> Topics {
    with_history(topics_max, HISTORY, usize::MAX)
}

pub(super) fn with_history(topics_max: usize, history: History, bytes_total_max: usize) -> Topics {
    let limits =
        Limits { topics_max, history: History { bytes_total_max, ..history }, groups_max: 2, ..Limits::default() };
    let rules = TopicRules::new(&Config { limits: limits.clone(), ..Config::default() });
    Topics::new(&Arc::new(rules), &limits, 1)
}

pub(super) fn history_of(messages_max: usize) -> History {
    History { messages_max, ..HISTORY }
}

pub(super) fn at(tick: u32) -> Now {
    Now { tick: Tick(tick), unix_ms: 1_000_000 + u64::from(tick) * 100 }
}

pub(super) fn interested(shard: u16, group: Option<Group>, members: u32) -> Interested {
    let wants = Wants::NONE.with(Wire::Length);
    Interested { shard: ShardId(shard), group, wants, stay: Stay(1), members }
}

pub(super) fn publish(topics: &mut Topics, name: &str, key: Option<&str>, now: Now) -> Result<(Cursor, bool), Refused> {
    let mut message = message(name, 0, b"hi");
    let published = topics.publish(&mut message, key, &mut Deflater::default(), now)?;
    let (cursor, duplicate) = (published.cursor, published.duplicate);
    assert_eq!(message.cursor() == cursor, !duplicate);
    Ok((cursor, duplicate))
}

pub(super) fn offsets(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.offset.0).collect()
}

pub(super) fn expire(topics: &mut Topics, now: u32) {
    let mut steps = 0;
    while topics.next_expiry().is_some_and(|next| next <= Tick(now)) {
        topics.expire(Tick(now), || {
            steps += 1;
            steps % 7 != 0
        });
        assert!(steps < 100_000, "it does not end");
    }
}

#[test]
fn offsets_count_from_one_for_an_audience() {
    let (mut topics, name) = (topics(1), topic("t"));
    assert!(topics.interest(&name, interested(1, None, 3), at(0)));
    assert!(topics.interest(&name, interested(0, None, 4), at(0)));
    for offset in 1..=3 {
        let mut message = message("t", 0, b"hi");
        let published = topics.publish(&mut message, None, &mut Deflater::default(), at(5)).unwrap();
        assert_eq!((published.cursor.offset, published.audience.len()), (Offset(offset), 2));
        assert_eq!((published.subscribers, published.duplicate), (7, false));
        assert_eq!((message.offset, message.time_ms), (Offset(offset), at(5).unix_ms));
        assert!(message.image(Wire::Length).is_some(), "encoded for its audience");
    }
    let kept = topics.past(&name, Start::Last(1), at(5)).unwrap().messages;
    assert!(kept[0].image(Wire::Length).is_some(), "and history has the frame");
    topics.disinterest(&name, ShardId(1), None, at(5));
    topics.disinterest(&name, ShardId(1), None, at(5));
    assert_eq!(topics.interested(), 1);
    topics.disinterest(&name, ShardId(0), None, at(5));
    assert_eq!((topics.interested(), topics.len()), (0, 1));
}

#[test]
fn a_topic_too_many_is_refused_whoever_asks() {
    let mut topics = topics(1);
    assert!(topics.interest(&topic("1"), interested(0, None, 1), at(0)));
    assert!(!topics.interest(&topic("2"), interested(0, None, 1), at(0)));
    assert_eq!(publish(&mut topics, "2", None, at(0)), Err(Refused::NoRoom));
    assert_eq!(topics.past(&topic("2"), Start::Now, at(0)).unwrap_err(), NoRoom);
    assert_eq!(topics.info(&topic("2"), at(0)).cursor, None);
    assert_eq!(topics.page(&topic("2"), None, 9, at(0)).cursor, None);
    assert!(publish(&mut topics, "1", None, at(0)).is_ok());
}

#[test]
fn a_group_too_many_is_refused() {
    let mut topics = with_history(1, HISTORY, usize::MAX);
    let named = |name: &str| Group::parse(name.as_bytes()).ok();
    let join = |topics: &mut Topics, shard, group: Option<Group>| {
        topics.interest(&topic("t"), interested(shard, group, 1), at(0))
    };
    assert!([named("a"), named("b"), None].into_iter().all(|group| join(&mut topics, 0, group)));
    assert!(!join(&mut topics, 0, named("c")));
    assert!(join(&mut topics, 1, named("b")), "members of a group that is there may come");
    topics.disinterest(&topic("t"), ShardId(0), named("a").as_ref(), at(0));
    assert!(join(&mut topics, 0, named("c")));
}

#[test]
fn topics_without_subscribers_keep_nobody_out() {
    let mut topics = topics(3);
    assert!(topics.interest(&topic("held"), interested(0, None, 1), at(0)));
    for number in 0..20 {
        let (cursor, _) = publish(&mut topics, &number.to_string(), None, at(number)).unwrap();
        assert_eq!((cursor.offset, topics.len()), (Offset(1), 3.min(number as usize + 2)));
    }
    let counts = topics.counts();
    assert_eq!((counts.messages, counts.evicted, counts.forgotten), (2, 18, 18));
    assert!(topics.info(&topic("held"), at(20)).cursor.is_some());
    expire(&mut topics, 20 + 2 * AGE_TICKS);
    assert_eq!((topics.len(), topics.counts().messages), (1, 0), "their timers are set as those of others");
}

#[test]
fn a_key_is_known_while_its_message_is_kept() {
    let mut topics = topics(1);
    let (first, _) = publish(&mut topics, "t", Some("key"), at(0)).unwrap();
    assert_eq!(publish(&mut topics, "t", Some("key"), at(1)), Ok((first, true)));
    assert_eq!(publish(&mut topics, "t", Some("other"), at(1)).unwrap().0.offset, Offset(2));
    (0..3).for_each(|_| assert!(!publish(&mut topics, "t", None, at(2)).unwrap().1));
    assert_eq!(publish(&mut topics, "t", Some("key"), at(2)).unwrap().0.offset, Offset(6), "four are kept");
    assert!(!publish(&mut topics, "t", Some("key"), at(2 + AGE_TICKS)).unwrap().1, "it is too old");
}

#[test]
fn a_past_is_complete_or_says_that_it_is_not() {
    let (mut topics, name) = (topics(1), topic("t"));
    let start = topics.past(&name, Start::Now, at(0)).unwrap();
    assert_eq!((start.cursor.offset, start.reset), (Offset(0), false));
    let epoch = start.cursor.epoch;
    (0..6).for_each(|_| assert!(publish(&mut topics, "t", None, at(0)).is_ok()));
    let newest = Cursor { epoch, offset: Offset(6) };
    for (since, expected) in [(2, Some(vec![3, 4, 5, 6])), (5, Some(vec![6])), (6, Some(vec![])), (1, None), (7, None)]
    {
        let past = topics.past(&name, Start::Since(Cursor { epoch, offset: Offset(since) }), at(0)).unwrap();
        assert_eq!((past.cursor, past.reset), (newest, expected.is_none()), "since {since}");
        assert_eq!(offsets(&past.messages), expected.unwrap_or_default(), "since {since}");
    }
    let other = Cursor { epoch: Epoch(epoch.0 - 1), offset: Offset(6) };
    assert!(topics.past(&name, Start::Since(other), at(0)).unwrap().reset);
    assert_eq!(offsets(&topics.past(&name, Start::Last(2), at(0)).unwrap().messages), [5, 6]);
    assert_eq!(topics.past(&name, Start::Last(9), at(AGE_TICKS)).unwrap().messages.len(), 0, "all are too old");
    assert!(!topics.past(&name, Start::Since(newest), at(AGE_TICKS)).unwrap().reset);
}

#[test]
fn pages_follow_each_other() {
    let (mut topics, name) = (topics(1), topic("t"));
    (0..6).for_each(|_| assert!(publish(&mut topics, "t", None, at(0)).is_ok()));
    let last = topics.page(&name, None, 3, at(1));
    assert_eq!((offsets(&last.messages), last.more), (vec![4, 5, 6], false), "the last ones");
    let before = last.cursor.map(|cursor| Cursor { offset: Offset(2), ..cursor });
    let (mut since, mut pages) = (before, Vec::new());
    loop {
        let page = topics.page(&name, since, 3, at(1));
        assert!(!page.reset);
        since = page.cursor;
        pages.push(offsets(&page.messages));
        if !page.more {
            break;
        }
    }
    assert_eq!(pages, [vec![3, 4, 5], vec![6]]);
    assert!(topics.page(&name, since, 3, at(1)).messages.is_empty());
    let early = since.map(|cursor| Cursor { offset: Offset(1), ..cursor });
    assert!(topics.page(&name, early, 3, at(1)).reset);
    let info = topics.info(&name, at(1));
    let History { messages_max, bytes_max, age_max, .. } = HISTORY;
    let keep = Keep { messages_max, bytes_max, age_max };
    assert_eq!((info.cursor, info.messages, info.first, info.bounds), (since, 4, Some(Offset(3)), keep));
    assert_eq!(info.bytes, topics.counts().bytes);
}

#[test]
fn a_forgotten_topic_comes_back_with_a_greater_epoch() {
    let mut topics = topics(1);
    let mut last = publish(&mut topics, "t", None, at(0)).unwrap().0.epoch;
    for round in 1..10 {
        expire(&mut topics, round * 2 * AGE_TICKS);
        assert!(topics.is_empty());
        // The clock was set back.
        let now = Now { tick: Tick(round * 2 * AGE_TICKS), unix_ms: 5 };
        let cursor = publish(&mut topics, "t", None, now).unwrap().0;
        assert!(cursor.epoch > last && cursor.offset == Offset(1));
        last = cursor.epoch;
    }
    assert_eq!(topics.counts().forgotten, 9);
}

#[test]
fn without_history_a_topic_stays_for_a_while() {
    let off = History { messages_max: 0, ..HISTORY };
    let mut topics = with_history(1, off, usize::MAX);
    let (cursor, _) = publish(&mut topics, "t", Some("key"), at(0)).unwrap();
    assert!(!publish(&mut topics, "t", Some("key"), at(50)).unwrap().1, "nothing knows the key");
    assert!(topics.past(&topic("t"), Start::Since(cursor), at(50)).unwrap().reset);
    expire(&mut topics, 149);
    assert_eq!(topics.len(), 1);
    expire(&mut topics, 150);
    assert!(topics.is_empty() && topics.next_expiry().is_none());
}

#[test]
fn over_the_total_all_topics_give_in_turn_and_the_newest_goes_last() {
    let one = {
        let mut topics = topics(1);
        publish(&mut topics, "0", None, at(0)).unwrap();
        topics.counts().bytes
    };
    let mut topics = with_history(10, HISTORY, 8 * one);
    for _ in 0..4 {
        ["0", "1"].iter().for_each(|name| assert!(publish(&mut topics, name, None, at(0)).is_ok()));
    }
    assert_eq!(topics.counts().evicted, 0);
    (0..4).for_each(|_| assert!(publish(&mut topics, "2", None, at(0)).is_ok()));
    let kept = ["0", "1", "2"].map(|name| topics.info(&topic(name), at(0)).messages);
    assert_eq!(kept.iter().sum::<usize>(), 8, "{kept:?}");
    assert!(kept.iter().all(|&messages| messages >= 2), "{kept:?}");

    let mut topics = with_history(10, HISTORY, one);
    for name in ["0", "1", "0", "2"] {
        assert!(publish(&mut topics, name, None, at(0)).is_ok());
        assert_eq!(topics.info(&topic(name), at(0)).messages, 1, "the newest is kept");
        assert_eq!(topics.counts().messages, 1);
    }
    let mut topics = with_history(10, HISTORY, one - 1);
    assert!(publish(&mut topics, "0", None, at(0)).is_ok());
    assert_eq!((topics.counts().messages, topics.counts().bytes, topics.counts().evicted), (0, 0, 1));
}

#[test]
fn a_group_has_one_shard_for_each_message() {
    let (mut topics, name, workers) = (topics(1), topic("t"), group("workers"));
    for shard in 0..3 {
        assert!(topics.interest(&name, interested(shard, None, 1), at(0)));
        assert!(topics.interest(&name, interested(shard, Some(workers.clone()), u32::from(shard) + 1), at(0)));
    }
    let mut turns = [0; 3];
    for _ in 0..60 {
        let mut message = message("t", 0, b"hi");
        let published = topics.publish(&mut message, None, &mut Deflater::default(), at(0)).unwrap();
        assert_eq!((published.audience.len(), published.subscribers), (4, 9));
        let chosen = published.audience.iter().find(|entry| entry.group.is_some()).unwrap();
        turns[usize::from(chosen.shard.0)] += 1;
    }
    assert_eq!(turns, [10, 20, 30]);
    topics.disinterest(&name, ShardId(1), Some(&workers), at(0));
    topics.disinterest(&name, ShardId(2), Some(&workers), at(0));
    assert_eq!(topics.pick(&name, &workers), Some(interested(0, Some(workers.clone()), 1)));
    topics.disinterest(&name, ShardId(0), Some(&workers), at(0));
    assert_eq!(topics.pick(&name, &workers), None);
}

/// What the model knows of a topic.
#[derive(Default)]
struct Model {
    cursor: Cursor,
    used: u32,
    interested: bool,
    /// When each message that is kept came.
    kept: Vec<u32>,
}

impl Model {
    fn expire(&mut self, now: u32) -> usize {
        let before = self.kept.len();
        self.kept.retain(|at| at + AGE_TICKS > now);
        before - self.kept.len()
    }

    fn is_over(&self, now: u32) -> bool {
        !self.interested && self.kept.is_empty() && self.used + AGE_TICKS <= now
    }
}

/// Random uses at random times, against lists that are searched each time.
#[test]
fn topics_and_messages_go_when_their_time_has_come() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let (mut topics, mut model, mut now) = (topics(6), BTreeMap::<String, Model>::new(), 0);
        let (mut expired, mut forgotten) = (0, 0);
        for step in 0..300 {
            now += u32::try_from([0, 1, 5, 40, 200][random.below(5)]).unwrap();
            expire(&mut topics, now);
            expired += model.values_mut().map(|topic| topic.expire(now)).sum::<usize>();
            let before = model.len();
            model.retain(|_, topic| !topic.is_over(now));
            forgotten += before - model.len();

            let name = random.below(6).to_string();
            let key = topic(&name);
            let entry = |model: &mut BTreeMap<String, Model>| model.entry(name.clone()).or_default().used = now;
            match random.below(5) {
                0 => {
                    let was = model.contains_key(&name);
                    assert!(topics.interest(&key, interested(0, None, 1), at(now)));
                    if !was {
                        entry(&mut model);
                    }
                    model.entry(name.clone()).and_modify(|topic| topic.interested = true);
                }
                1 => {
                    topics.disinterest(&key, ShardId(0), None, at(now));
                    if let Some(topic) = model.get_mut(&name).filter(|topic| topic.interested) {
                        (topic.interested, topic.used) = (false, now);
                    }
                }
                2 => {
                    assert!(topics.past(&key, Start::Now, at(now)).is_ok());
                    entry(&mut model);
                }
                _ => {
                    let published = publish(&mut topics, &name, None, at(now));
                    entry(&mut model);
                    if let (Ok((cursor, _)), Some(topic)) = (published, model.get_mut(&name)) {
                        let offset = Offset(topic.cursor.offset.0 + 1);
                        assert_eq!(cursor.offset, offset, "seed {seed}, step {step}");
                        topic.cursor = cursor;
                        topic.kept.push(now);
                        let over = topic.kept.len().saturating_sub(HISTORY.messages_max);
                        topic.kept.drain(..over);
                    }
                }
            }
            assert_eq!(topics.len(), model.len(), "seed {seed}, step {step}");
            assert_eq!(topics.interested(), model.values().filter(|topic| topic.interested).count());
            let counts = topics.counts();
            assert_eq!(counts.messages, model.values().map(|topic| topic.kept.len()).sum::<usize>());
            assert_eq!((counts.expired, counts.forgotten), (expired as u64, forgotten as u64), "seed {seed}");
            assert_eq!(topics.keepers.len(), model.values().filter(|topic| !topic.kept.is_empty()).count());
        }
    }
}

/// Random messages under a small total: it is kept, the books are right, and what was just published is there.
#[test]
fn the_total_is_never_exceeded() {
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let bytes_max = 1000 + random.below(5000);
        let mut topics = with_history(10, HISTORY, bytes_max);
        for step in 0..300 {
            let mut message = message(&random.below(10).to_string(), 0, &vec![0; random.below(400)]);
            let now = at(u32::try_from(step).unwrap());
            topics.publish(&mut message, None, &mut Deflater::default(), now).unwrap();
            assert!(topics.counts().bytes <= bytes_max, "seed {seed}, step {step}");
            let past = topics.past(&message.topic, Start::Last(1), now).unwrap();
            assert_eq!(past.messages[0].cursor(), message.cursor(), "seed {seed}, step {step}");
            let infos: Vec<_> = (0..10).map(|name| topics.info(&topic(&name.to_string()), now)).collect();
            assert_eq!(topics.counts().bytes, infos.iter().map(|info| info.bytes).sum::<usize>());
            assert_eq!(topics.counts().messages, infos.iter().map(|info| info.messages).sum::<usize>());
        }
        assert!(topics.counts().evicted > 0, "seed {seed}");
    }
}

#[test]
fn the_past_of_a_topic_ends_and_its_audience_stays() {
    let (mut topics, name) = (topics(2), topic("t"));
    assert_eq!(topics.end(&name, at(0)), None);
    topics.interest(&name, interested(1, Some(group("g")), 3), at(0));
    let (before, _) = publish(&mut topics, "t", Some("key"), at(1)).unwrap();
    let epoch = topics.end(&name, at(1)).unwrap();
    assert!(epoch > before.epoch);
    let sight = topics.sight(&name).unwrap();
    assert_eq!((sight.cursor, sight.subscribers), (Cursor { epoch, offset: Offset(0) }, 3));
    assert_eq!((sight.messages, sight.bytes, sight.first, topics.counts().bytes), (0, 0, None, 0));
    assert!(topics.groups(&name).eq([&group("g")]));
    assert!(topics.past(&name, Start::Since(before), at(2)).unwrap().reset);
    let (after, duplicate) = publish(&mut topics, "t", Some("key"), at(2)).unwrap();
    assert_eq!((after, duplicate), (Cursor { epoch, offset: Offset(1) }, false), "keys are forgotten too");
    assert_eq!((0..topics.place_end()).filter_map(|place| topics.at(place)).count(), 1);
}
