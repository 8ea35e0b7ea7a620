#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;

use super::super::tests::{at, expire, history_of, offsets};
use super::*;
use crate::config::{Config, Limits, Pattern, TopicRules, TopicSection};
use crate::hub::testing::{Random, message, topic};
use crate::hub::topics::{Refused, Start};
use crate::wheel::Tick;

/// Topics of which those under `log/` are durable, or not.
fn config(durable: bool, messages_max: usize) -> Config {
    let limits = Limits { topics_max: 4, history: history_of(messages_max), ..Limits::default() };
    let log = TopicSection::new(Pattern::parse("log/*").unwrap());
    Config { limits, topics: vec![TopicSection { durable: Some(durable), ..log }], ..Config::default() }
}

fn topics(messages_max: usize) -> Topics {
    let config = config(true, messages_max);
    Topics::new(&Arc::new(TopicRules::new(&config)), &config.limits, 1)
}

fn follow(topics: &mut Topics, durable: bool) {
    let config = config(durable, 4);
    topics.follow(&Arc::new(TopicRules::new(&config)), &config.limits, 1);
}

/// What came of a publication, without what borrows.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Published(u64, bool),
    Reserved(u64, u64),
    Behind,
    Twin,
}

fn take(topics: &mut Topics, name: &str, key: Option<&str>, turn: Turn) -> (Came, Message) {
    let mut message = message(name, 0, b"hi");
    let taken = topics.take(&mut message, key, turn, &mut Deflater::default(), at(0)).unwrap();
    let came = match taken {
        Taken::Published(published) => Came::Published(published.cursor.offset.0, published.duplicate),
        Taken::Reserved(first) => Came::Reserved(message.offset.0, first.0),
        Taken::Behind => Came::Behind,
        Taken::Twin => Came::Twin,
        Taken::Ordered(_) | Taken::Joining => panic!("there is no cluster"),
    };
    (came, message)
}

fn comes(topics: &mut Topics, name: &str, key: Option<&str>) -> (Came, Message) {
    take(topics, name, key, Turn::Comes)
}

fn place(topics: &mut Topics, message: &mut Message, key: Option<&str>) -> Option<u64> {
    topics.place(message, key, &mut Deflater::default(), at(0)).map(|placed| placed.cursor.offset.0)
}

fn seen(topics: &mut Topics, name: &str) -> (u64, Vec<u64>) {
    let past = topics.past(&topic(name), Start::Last(99), at(0)).unwrap();
    (past.cursor.offset.0, offsets(&past.messages))
}

fn gone(topics: &mut Topics) -> Vec<(String, u64, u64)> {
    let epoch = topics.epoch().0;
    std::iter::from_fn(|| topics.next_gone())
        .map(|(topic, cursor)| (topic.as_str().to_owned(), cursor.epoch.0.abs_diff(epoch), cursor.offset.0))
        .collect()
}

#[test]
fn nobody_sees_what_is_reserved_until_it_is_placed() {
    let mut topics = topics(4);
    let (one, mut first) = comes(&mut topics, "log/a", None);
    let (two, mut second) = comes(&mut topics, "log/a", None);
    assert_eq!((one, two), (Came::Reserved(1, 1), Came::Reserved(2, 1)));
    assert_eq!((seen(&mut topics, "log/a"), topics.counts().messages), ((0, vec![]), 0));
    let since = Cursor { offset: Offset(1), ..first.cursor() };
    assert!(topics.past(&topic("log/a"), Start::Since(since), at(0)).unwrap().reset, "nobody can have seen it");
    assert_eq!(place(&mut topics, &mut first, None), Some(1));
    assert_eq!(seen(&mut topics, "log/a"), (1, vec![1]));
    assert_eq!(place(&mut topics, &mut second, None), Some(2));
    assert_eq!((seen(&mut topics, "log/a"), topics.waiting()), ((2, vec![1, 2]), (0, 0)));
    assert_eq!(comes(&mut topics, "log/a", None).0, Came::Reserved(3, 1));
    assert_eq!(comes(&mut topics, "memory", None).0, Came::Published(1, false), "others do not wait");
}

#[test]
fn places_that_are_taken_back_are_given_again() {
    let mut topics = topics(4);
    let (_, mut first) = comes(&mut topics, "log/a", Some("one"));
    let (_, second) = comes(&mut topics, "log/a", Some("two"));
    assert_eq!(place(&mut topics, &mut first, Some("one")), Some(1));
    topics.take_back(&second, Some("two"), at(0));
    assert_eq!((seen(&mut topics, "log/a"), topics.waiting()), ((1, vec![1]), (0, 0)));
    assert_eq!(comes(&mut topics, "log/a", Some("two")).0, Came::Reserved(2, 1), "it is not published");
    assert_eq!(comes(&mut topics, "log/a", Some("one")).0, Came::Published(1, true), "this one is");
}

#[test]
fn what_is_sent_again_while_it_waits_is_told_when_it_is_placed() {
    let mut topics = topics(4);
    let (_, mut first) = comes(&mut topics, "log/a", Some("key"));
    assert_eq!(comes(&mut topics, "log/a", Some("key")).0, Came::Twin);
    assert_eq!(comes(&mut topics, "log/b", Some("key")).0, Came::Reserved(1, 1), "another topic's key");
    place(&mut topics, &mut first, Some("key")).unwrap();
    assert_eq!(take(&mut topics, "log/a", Some("key"), Turn::Again).0, Came::Published(1, true));
}

#[test]
fn a_rate_is_not_spent_by_what_waits_for_its_turn() {
    let mut config = config(true, 4);
    config.topics[0].rate = Some(1);
    let mut topics = Topics::new(&Arc::new(TopicRules::new(&config)), &config.limits, 1);
    let mut client = message("log/a", 0, b"hi");
    client.publisher =
        Some(crate::message::Publisher { shard: crate::id::ShardId(0), connection: crate::id::ConnId::new(1, 1) });
    let mut take = |key| {
        let taken = topics.take(&mut client.clone(), key, Turn::Comes, &mut Deflater::default(), at(0));
        taken.map(|taken| matches!(taken, Taken::Reserved(_)))
    };
    assert_eq!([take(Some("k")), take(Some("k")), take(None)], [Ok(true), Ok(false), Err(Refused::TooFast)]);
}

#[test]
fn the_disk_is_told_what_history_keeps() {
    let mut few = topics(2);
    let mut firsts = Vec::new();
    for _ in 0..4 {
        let (came, mut message) = comes(&mut few, "log/a", None);
        let Came::Reserved(_, first) = came else { panic!("{came:?}") };
        firsts.push(first);
        place(&mut few, &mut message, None).unwrap();
    }
    assert_eq!(firsts, [1, 1, 1, 2], "before each is kept");
    let mut none = topics(0);
    let came = [(); 3].map(|()| comes(&mut none, "log/a", None).0);
    assert_eq!(came, [Came::Reserved(1, 1), Came::Reserved(2, 2), Came::Reserved(3, 3)]);
}

#[test]
fn a_topic_is_not_forgotten_while_something_waits() {
    let mut topics = topics(4);
    let (_, mut message) = comes(&mut topics, "log/a", None);
    expire(&mut topics, 1000);
    (0..100).for_each(|number| drop(comes(&mut topics, &format!("m{number}"), None)));
    assert!(topics.sight(&topic("log/a")).is_some(), "neither for its age nor for others");
    assert_eq!(
        topics.place(&mut message, None, &mut Deflater::default(), at(1000)).map(|one| one.cursor.offset.0),
        Some(1)
    );
    (0..100).for_each(|number| drop(comes(&mut topics, &format!("m{number}"), None)));
    assert_eq!(
        topics.sight(&topic("log/a")).map(|sight| sight.messages),
        Some(1),
        "nor is its past dropped for others"
    );
    assert_eq!(gone(&mut topics), []);
    expire(&mut topics, 1101);
    assert!(topics.sight(&topic("log/a")).is_none());
    assert_eq!(
        gone(&mut topics).iter().map(|(name, _, offset)| (name.as_str(), *offset)).collect::<Vec<_>>(),
        [("log/a", 1)]
    );
}

#[test]
fn what_was_taken_back_leaves_a_topic_that_is_forgotten() {
    let mut topics = topics(4);
    let (_, message) = comes(&mut topics, "log/a", None);
    topics.take_back(&message, None, at(0));
    expire(&mut topics, 101);
    assert!(topics.is_empty());
}

#[test]
fn a_past_that_is_ended_ends_what_waits() {
    let mut topics = topics(4);
    let (_, mut old) = comes(&mut topics, "log/a", Some("key"));
    let epoch = topics.end(&topic("log/a"), at(0)).unwrap();
    let (came, mut new) = comes(&mut topics, "log/a", Some("key"));
    assert_eq!((came, new.epoch), (Came::Reserved(1, 1), epoch));
    assert_eq!(place(&mut topics, &mut old, Some("key")), None, "nobody is left to hear it");
    assert_eq!(comes(&mut topics, "log/a", Some("key")).0, Came::Twin);
    assert_eq!(place(&mut topics, &mut new, Some("key")), Some(1));
    assert_eq!(seen(&mut topics, "log/a"), (1, vec![1]));
    assert_eq!(gone(&mut topics), [("log/a".to_owned(), 0, 0)], "it begins anew on the disk, too");
}

#[test]
fn order_is_kept_when_a_topic_is_durable_no_more() {
    let mut topics = topics(4);
    let (_, mut one) = comes(&mut topics, "log/a", None);
    follow(&mut topics, false);
    assert_eq!(comes(&mut topics, "log/a", None).0, Came::Behind);
    place(&mut topics, &mut one, None).unwrap();
    assert_eq!(comes(&mut topics, "log/a", None).0, Came::Behind, "there is one before it");
    topics.turn(&topic("log/a"));
    assert_eq!(take(&mut topics, "log/a", None, Turn::Next).0, Came::Published(2, false));
    topics.turn(&topic("log/a"));
    assert_eq!(take(&mut topics, "log/a", None, Turn::Next).0, Came::Published(3, false));
    assert_eq!(comes(&mut topics, "log/a", None).0, Came::Published(4, false), "and it is over");
    // After a restart whoever resumes at 4 must not take other messages for its own.
    assert_eq!(gone(&mut topics), [("log/a".to_owned(), 1, 0)]);
    follow(&mut topics, true);
    assert_eq!(comes(&mut topics, "log/a", None).0, Came::Reserved(5, 1));
}

#[test]
fn what_comes_from_the_disk_is_durable_or_begins_anew_there() {
    let (mut before, mut after) = (topics(4), topics(4));
    let (_, mut message) = comes(&mut before, "log/a", None);
    place(&mut before, &mut message, None).unwrap();
    let legacy = before.legacy(0, Tick(0)).unwrap();
    assert!(after.recover(legacy.clone(), at(0)) && !after.recover(legacy.clone(), at(0)));
    assert_eq!(comes(&mut after, "log/a", None).0, Came::Reserved(2, 1));
    let mut other = topics(4);
    follow(&mut other, false);
    assert!(other.recover(legacy, at(0)));
    assert_eq!(comes(&mut other, "log/a", None).0, Came::Published(2, false));
    assert_eq!(gone(&mut other), [("log/a".to_owned(), 1, 0)]);
}

/// Against a list: whatever is reserved, placed, taken back and turned on and off, places are given without a gap and in the
/// order in which publications came.
#[test]
fn any_course_of_things_is_one_order() {
    let (mut all, mut refused) = (0, 0);
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut topics = topics(1000);
        topics.topics_max = 4;
        let config = |durable| Config { topics: vec![], durable, ..config(true, 1000) };
        let (mut queue, mut published, mut number) = (Vec::new(), Vec::new(), 0_u32);
        for _ in 0..200 {
            if random.below(20) == 0 {
                let config = config(random.below(2) == 0);
                topics.follow(&Arc::new(TopicRules::new(&config)), &config.limits, 1);
            }
            let is_next = random.below(2) == 0 && !queue.is_empty();
            let (mut message, turn) = if is_next {
                let (mut message, is_reserved): (Message, bool) = queue.remove(0);
                if is_reserved && random.below(20) == 0 {
                    // The disk has failed.
                    topics.take_back(&message, None, at(0));
                    let mut behind = Vec::new();
                    for (message, is_reserved) in queue.drain(..) {
                        if is_reserved {
                            topics.take_back(&message, None, at(0));
                        } else {
                            behind.push((message, false));
                        }
                    }
                    queue = behind;
                    continue;
                }
                if is_reserved {
                    assert!(place(&mut topics, &mut message, None).is_some());
                    published.push(message);
                    continue;
                }
                topics.turn(&topic("t"));
                (message, Turn::Next)
            } else {
                number += 1;
                (self::message("t", 0, &number.to_be_bytes()), Turn::Comes)
            };
            match topics.take(&mut message, None, turn, &mut Deflater::default(), at(0)) {
                Ok(Taken::Published(_)) => published.push(message),
                Ok(Taken::Reserved(_)) => queue.push((message, true)),
                Ok(Taken::Behind) => queue.push((message, false)),
                Err(Refused::Busy) => refused += 1,
                other => panic!("there are no keys and no rates: {other:?}"),
            }
            let reserved = queue.iter().filter(|(_, is_reserved)| *is_reserved).count();
            assert_eq!(topics.waiting(), (reserved, queue.len() - reserved), "seed {seed}");
        }
        let places: Vec<u64> = published.iter().map(|message| message.offset.0).collect();
        assert_eq!(places, (1..=published.len() as u64).collect::<Vec<_>>(), "seed {seed}");
        let said: Vec<&[u8]> = published.iter().map(Message::payload).collect();
        assert!(said.is_sorted(), "seed {seed}: {said:?}");
        all += said.len();
    }
    assert!(refused * 4 < all, "{refused} beside {all}");
}
