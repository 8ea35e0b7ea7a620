#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use super::super::tests::{at, expire, history_of, interested, offsets};
use super::super::{Holding, Start, Wish};
use super::*;
use crate::cluster::port::{NodeId, Sharing};
use crate::config::{Config, Limits, Pattern, TopicRules, TopicSection};
use crate::hub::testing::{message, topic};
use crate::id::ShardId;
use crate::wheel::Tick;

/// Topics under `log/` are durable, or not, and shared, or not; so many of their messages are kept.
fn config(durable: bool, shared: bool, messages_max: usize) -> Config {
    let limits = Limits { topics_max: 4, history: history_of(messages_max), ..Limits::default() };
    let log = TopicSection::new(Pattern::parse("log/*").unwrap());
    let log = TopicSection { durable: Some(durable), shared: Some(shared), ..log };
    Config { limits, topics: vec![log], ..Config::default() }
}

fn node() -> Topics {
    let config = config(true, true, 4);
    let mut topics = Topics::new(&Arc::new(TopicRules::new(&config)), &config.limits, 1);
    topics.join_cluster(NodeId(1));
    topics
}

fn turn(topics: &mut Topics, durable: bool, shared: bool, messages_max: usize) {
    let config = config(durable, shared, messages_max);
    topics.follow(&Arc::new(TopicRules::new(&config)), &config.limits, 1);
    topics.expire(Tick(1), || true);
}

fn stored(epoch: u64, offset: u64, key: Option<&str>) -> Stored {
    let mut message = message("log/1", offset, b"hi");
    (message.epoch, message.time_ms) = (Epoch(epoch), at(0).unix_ms);
    Stored { message, key: key.map(Arc::from) }
}

fn cursor(epoch: u64, offset: u64) -> Cursor {
    Cursor { epoch: Epoch(epoch), offset: Offset(offset) }
}

/// Somebody subscribes, and the topic is followed.
fn subscribe(topics: &mut Topics) -> Follow {
    assert!(topics.interest(&topic("log/1"), interested(0, None, 1), at(0)));
    follow(topics)
}

fn follow(topics: &mut Topics) -> Follow {
    match topics.next_wish() {
        Some(Wish::Follow(follow, name, Sharing::Durable(keep), _)) if name == topic("log/1") => {
            assert_eq!(keep.age_max, Duration::from_secs(10));
            follow
        }
        other => panic!("{other:?}"),
    }
}

/// Its stream stands there, with these messages.
fn join(topics: &mut Topics, follow: Follow, epoch: u64, past: impl IntoIterator<Item = u64>, end: u64) {
    for offset in past {
        assert!(!topics.hear_past(follow, &stored(epoch, offset, None), at(0)));
    }
    topics.end_past(follow, cursor(epoch, end), at(0));
    assert_eq!(topics.next_opened(), Some(topic("log/1")));
    topics.open(&topic("log/1"));
}

/// A message that the stream tells. Whether it goes to those who hear the topic.
fn placed(topics: &mut Topics, follow: Follow, epoch: u64, offset: u64) -> bool {
    if !topics.is_next(follow, cursor(epoch, offset), at(1)) {
        return false;
    }
    let mut message = stored(epoch, offset, None).message;
    let published = topics.advance(follow, &mut message, None, &mut Deflater::default(), at(1)).unwrap();
    assert_eq!(published.cursor, cursor(epoch, offset));
    true
}

/// Where the topic stands, and what is kept.
fn seen(topics: &mut Topics) -> (Cursor, Vec<u64>) {
    let past = topics.past(&topic("log/1"), Start::Last(99), at(1)).unwrap();
    (past.cursor, offsets(&past.messages))
}

fn resets(topics: &mut Topics) -> Vec<Cursor> {
    let mut next = || {
        topics.next_reset(&mut Deflater::default()).map(|(reset, audience)| {
            assert!(reset.is_reset() && !audience.is_empty());
            reset.cursor()
        })
    };
    std::iter::from_fn(&mut next).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Came {
    Here(u64),
    Ordered,
    Waits,
    Duplicate(u64),
}

fn take(topics: &mut Topics, key: Option<&str>, turn: Turn) -> Came {
    let mut message = message("log/1", 0, b"hi");
    match topics.take(&mut message, key, turn, &mut Deflater::default(), at(1)).unwrap() {
        Taken::Published(published) if published.duplicate => Came::Duplicate(published.cursor.offset.0),
        Taken::Published(published) => Came::Here(published.cursor.offset.0),
        Taken::Ordered(keep) => {
            assert!(keep.messages_max > 0 && message.time_ms == at(1).unix_ms);
            Came::Ordered
        }
        Taken::Joining => Came::Waits,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_topic_joins_its_stream_and_goes_on_with_it() {
    let mut topics = node();
    let follow = subscribe(&mut topics);
    assert!(topics.waits_for_stream(&topic("log/1"), at(0)).unwrap());
    assert_eq!(topics.sight(&topic("log/1")).unwrap().holding, Some(Holding::Joining));
    assert!(!placed(&mut topics, follow, 7, 13), "nothing goes on before it has begun");
    join(&mut topics, follow, 7, 9..=12, 12);
    assert!(!topics.waits_for_stream(&topic("log/1"), at(0)).unwrap());
    assert_eq!(seen(&mut topics), (cursor(7, 12), vec![9, 10, 11, 12]));
    assert!(placed(&mut topics, follow, 7, 13));
    assert!(!placed(&mut topics, follow, 7, 13) && !placed(&mut topics, follow, 7, 9), "once");
    assert!(!placed(&mut topics, follow, 6, 14), "of a stream that was before");
    assert_eq!(seen(&mut topics), (cursor(7, 13), vec![10, 11, 12, 13]), "as much as is kept");
    let since = topics.past(&topic("log/1"), Start::Since(cursor(7, 11)), at(1)).unwrap();
    assert_eq!((offsets(&since.messages), since.reset), (vec![12, 13], false), "wherever that was heard");
    assert_eq!(resets(&mut topics), [], "nothing is lost");
    assert_eq!(topics.sight(&topic("log/1")).unwrap().holding, Some(Holding::Live));
    topics.check_follows().unwrap();
}

/// It comes from a node that the stream has told more.
#[test]
fn who_is_ahead_of_a_node_has_missed_nothing() {
    let mut topics = node();
    let follow = subscribe(&mut topics);
    join(&mut topics, follow, 7, 9..=12, 12);
    let past = |topics: &mut Topics, since| {
        let past = topics.past(&topic("log/1"), Start::Since(since), at(1)).unwrap();
        (past.cursor, offsets(&past.messages), past.reset)
    };
    assert_eq!(past(&mut topics, cursor(7, 15)), (cursor(7, 15), vec![], false));
    let page = topics.page(&topic("log/1"), Some(cursor(7, 15)), 9, at(1));
    assert_eq!((page.cursor, page.messages.len(), page.reset), (Some(cursor(7, 15)), 0, false));
    assert!((13..=16).all(|offset| placed(&mut topics, follow, 7, offset)));
    assert_eq!(past(&mut topics, cursor(7, 15)), (cursor(7, 16), vec![16], false));
    // Of another past, or out of all reason.
    assert_eq!(past(&mut topics, cursor(6, 17)), (cursor(7, 16), vec![], true));
    assert_eq!(past(&mut topics, cursor(7, u64::MAX)), (cursor(7, 16), vec![], true));
}

#[test]
fn what_comes_of_a_past_has_no_hole_and_ends_where_the_topic_stands() {
    for (past, end, kept) in [
        (vec![1, 2, 5, 6], 6, vec![5, 6]),
        (vec![1, 2, 3], 4, vec![]),
        (vec![], 4, vec![]),
        (vec![], 0, vec![]),
        (vec![1, 2, 3, 4, 5, 6], 6, vec![3, 4, 5, 6]),
    ] {
        let mut topics = node();
        let follow = subscribe(&mut topics);
        join(&mut topics, follow, 7, past, end);
        assert_eq!(seen(&mut topics), (cursor(7, end), kept));
        assert_eq!(topics.counts().messages, seen(&mut topics).1.len());
        assert!(placed(&mut topics, follow, 7, end + 1));
    }
}

#[test]
fn what_is_lost_is_told_and_the_topic_goes_on_behind_it() {
    let mut topics = node();
    let follow = subscribe(&mut topics);
    join(&mut topics, follow, 7, 1..=3, 3);
    topics.lose(follow, cursor(7, 9), at(1));
    assert_eq!((resets(&mut topics), seen(&mut topics)), (vec![cursor(7, 9)], (cursor(7, 9), vec![])));
    assert!(placed(&mut topics, follow, 7, 10));
    // Nobody has said so, but there is a hole.
    assert!(placed(&mut topics, follow, 7, 12));
    assert_eq!((resets(&mut topics), seen(&mut topics)), (vec![cursor(7, 11)], (cursor(7, 12), vec![12])));
    let since = topics.past(&topic("log/1"), Start::Since(cursor(7, 10)), at(1)).unwrap();
    assert!(since.reset);
    // The stream was made anew.
    topics.lose(follow, cursor(8, 0), at(1));
    assert!(placed(&mut topics, follow, 8, 1) && !placed(&mut topics, follow, 7, 13));
    assert_eq!((resets(&mut topics), seen(&mut topics)), (vec![cursor(8, 0)], (cursor(8, 1), vec![1])));
}

#[test]
fn a_publication_gets_its_place_elsewhere_and_waits_while_somebody_joins() {
    let mut topics = node();
    assert_eq!(take(&mut topics, None, Turn::Comes), Came::Ordered);
    assert!(!topics.has_wishes(), "who publishes does not hear");
    assert_eq!(topics.sight(&topic("log/1")).unwrap().holding, Some(Holding::Elsewhere));
    let follow = subscribe(&mut topics);
    assert_eq!(take(&mut topics, None, Turn::Comes), Came::Waits);
    topics.end_past(follow, cursor(7, 0), at(0));
    assert_eq!(take(&mut topics, None, Turn::Comes), Came::Waits, "behind those that wait");
    assert_eq!(take(&mut topics, None, Turn::Again), Came::Ordered);
    topics.open(&topic("log/1"));
    assert_eq!(take(&mut topics, Some("key"), Turn::Comes), Came::Ordered);
    let mut message = stored(7, 1, None).message;
    topics.advance(follow, &mut message, Some("key"), &mut Deflater::default(), at(1)).unwrap();
    assert_eq!(take(&mut topics, Some("key"), Turn::Comes), Came::Duplicate(1));
}

#[test]
fn a_topic_that_nobody_uses_is_left_though_others_publish() {
    let mut topics = node();
    let heard = subscribe(&mut topics);
    topics.disinterest(&topic("log/1"), ShardId(0), None, at(0));
    expire(&mut topics, 90);
    assert_eq!(topics.len(), 1, "what waits for its stream has its time");
    join(&mut topics, heard, 7, [], 0);
    for offset in 1..=20 {
        let tick = 10 * u32::try_from(offset).unwrap();
        if topics.is_next(heard, cursor(7, offset), at(tick)) {
            let mut message = stored(7, offset, None).message;
            topics.advance(heard, &mut message, None, &mut Deflater::default(), at(tick)).unwrap();
        }
        expire(&mut topics, tick);
    }
    assert_eq!((topics.len(), topics.counts().messages), (0, 0));
    assert_eq!(topics.next_wish(), Some(Wish::Unfollow(heard)));
    topics.past(&topic("log/1"), Start::Now, at(300)).unwrap();
    assert_ne!(follow(&mut topics), heard);
    topics.check_follows().unwrap();
}

#[test]
fn other_bounds_are_told_to_the_stream_and_nothing_is_missed() {
    let mut topics = node();
    let first = subscribe(&mut topics);
    join(&mut topics, first, 7, 1..=2, 2);
    turn(&mut topics, true, true, 4);
    assert!(!topics.has_wishes(), "they are the same");
    turn(&mut topics, true, true, 3);
    assert_eq!(topics.next_wish(), Some(Wish::Unfollow(first)));
    let second = follow(&mut topics);
    assert!(!placed(&mut topics, first, 7, 3), "of what has ended");
    assert!(!topics.waits_for_stream(&topic("log/1"), at(1)).unwrap(), "it is known where it stands");
    let news: Vec<u64> = (1..=4)
        .filter(|&offset| {
            let stored = stored(7, offset, None);
            let is_news = topics.hear_past(second, &stored, at(1));
            if is_news {
                topics.advance(second, &mut { stored.message }, None, &mut Deflater::default(), at(1)).unwrap();
            }
            is_news
        })
        .collect();
    topics.end_past(second, cursor(7, 4), at(1));
    assert_eq!((news, resets(&mut topics)), (vec![3, 4], vec![]));
    assert_eq!(seen(&mut topics), (cursor(7, 4), vec![2, 3, 4]));
    // Where it has lost too much meanwhile that is told.
    turn(&mut topics, true, true, 2);
    assert_eq!(topics.next_wish(), Some(Wish::Unfollow(second)));
    let third = follow(&mut topics);
    assert!(!topics.hear_past(third, &stored(7, 8, None), at(1)));
    assert!(!topics.hear_past(third, &stored(7, 9, None), at(1)));
    topics.end_past(third, cursor(7, 9), at(1));
    assert_eq!((resets(&mut topics), seen(&mut topics)), (vec![cursor(7, 9)], (cursor(7, 9), vec![8, 9])));
}

#[test]
fn who_hears_a_topic_is_told_when_it_gets_a_stream_or_loses_it() {
    let mut topics = node();
    let first = subscribe(&mut topics);
    join(&mut topics, first, 7, 1..=2, 2);
    turn(&mut topics, false, true, 4);
    assert_eq!(topics.next_opened(), Some(topic("log/1")));
    let (told, (plain, kept)) = (resets(&mut topics), seen(&mut topics));
    assert!(plain.epoch > Epoch(7) && kept.is_empty());
    assert_eq!(told, [plain]);
    assert_eq!(topics.next_wish(), Some(Wish::Unfollow(first)));
    assert!(matches!(topics.next_wish(), Some(Wish::Follow(_, _, Sharing::Plain, _))), "others hold it still");
    assert_eq!(take(&mut topics, None, Turn::Comes), Came::Here(plain.offset.0 + 1));
    turn(&mut topics, true, true, 4);
    assert!(matches!(topics.next_wish(), Some(Wish::Unfollow(_))));
    let second = follow(&mut topics);
    assert_eq!((resets(&mut topics), take(&mut topics, None, Turn::Comes)), (vec![], Came::Waits));
    join(&mut topics, second, 7, 1..=5, 5);
    assert_eq!((resets(&mut topics), seen(&mut topics)), (vec![cursor(7, 5)], (cursor(7, 5), vec![2, 3, 4, 5])));
    turn(&mut topics, false, false, 4);
    assert_eq!((resets(&mut topics).len(), topics.next_wish()), (1, Some(Wish::Unfollow(second))));
    assert_eq!((topics.next_wish(), topics.followed()), (None, 0), "it is this node's own");
    topics.check_follows().unwrap();
}

#[test]
fn what_was_on_the_disk_is_none_of_the_streams() {
    let mut topics = node();
    turn(&mut topics, true, false, 4);
    assert!(topics.interest(&topic("log/1"), interested(0, None, 1), at(0)));
    let mut first = message("log/1", 0, b"hi");
    let taken = topics.take(&mut first, None, Turn::Comes, &mut Deflater::default(), at(0)).unwrap();
    assert!(matches!(taken, Taken::Reserved(Offset(1))));
    turn(&mut topics, true, true, 4);
    let follow = follow(&mut topics);
    assert!(topics.place(&mut first, None, &mut Deflater::default(), at(0)).is_none(), "of a past that has ended");
    let (name, gone) = topics.next_gone().unwrap();
    assert!(name == topic("log/1") && gone.epoch > first.epoch, "the disk begins anew");
    join(&mut topics, follow, 7, 1..=2, 2);
    assert_eq!((resets(&mut topics), seen(&mut topics)), (vec![cursor(7, 2)], (cursor(7, 2), vec![1, 2])));
    // Nor is what the process before, or the journal, has of it.
    assert!(topics.legacy(0, Tick(0)).is_none());
    let legacy = super::super::Legacy { topic: topic("log/2"), cursor: cursor(5, 9), messages: Vec::new() };
    assert!(topics.recover(legacy, at(0)) && topics.sight(&topic("log/2")).is_none());
    assert_eq!(topics.next_gone(), Some((topic("log/2"), cursor(6, 0))));
}

#[test]
fn a_stream_that_there_was_none_of_begins_with_its_first_message() {
    let mut topics = node();
    let follow = subscribe(&mut topics);
    topics.end_past(follow, cursor(0, 0), at(1));
    assert!(topics.is_next(follow, cursor(7, 1), at(2)));
    assert!(topics.next_reset(&mut Deflater::default()).is_none(), "nothing was lost before it");
    assert!(placed(&mut topics, follow, 7, 1));
    // Who stood before it has missed what there is, wherever he comes back.
    let since = |topics: &mut Topics| {
        let past = topics.past(&topic("log/1"), Start::Since(NOWHERE), at(1)).unwrap();
        (offsets(&past.messages), past.reset)
    };
    assert_eq!(since(&mut topics), (vec![1], false));
    (2..=5).for_each(|offset| assert!(placed(&mut topics, follow, 7, offset)));
    assert_eq!(since(&mut topics), (vec![], true), "the first one is not kept any more");
    // Other bounds, while there is none.
    let mut topics = node();
    let first = subscribe(&mut topics);
    join(&mut topics, first, 0, [], 0);
    turn(&mut topics, true, true, 3);
    assert_eq!(topics.next_wish(), Some(Wish::Unfollow(first)));
    let second = self::follow(&mut topics);
    assert!(topics.hear_past(second, &stored(7, 1, None), at(1)), "news to those who hear it");
    // One that does not begin at its beginning has lost something.
    let mut topics = node();
    let follow = subscribe(&mut topics);
    topics.end_past(follow, cursor(0, 0), at(1));
    assert!(topics.is_next(follow, cursor(7, 2), at(2)));
    assert!(topics.next_reset(&mut Deflater::default()).is_some());
}
