#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use super::*;
use crate::codec::Kind;
use crate::config::Config;
use crate::hub::history::History;
use crate::hub::topics::Left;

const NOW: u64 = 1_000_000;

/// A journal that is written by hand.
struct Written {
    header: Header,
    bytes: Vec<u8>,
    batch: u32,
}

impl Written {
    fn new(number: u64) -> Self {
        let header = Header { number, previous: number - 1, ..Header::default() };
        Self { header, bytes: header.to_bytes().to_vec(), batch: FIRST_BATCH }
    }

    /// The next commit begins.
    fn commit(mut self) -> Self {
        self.batch = u32::try_from(self.bytes.len()).unwrap();
        self
    }

    fn record(mut self, topic: &str, epoch: u64, offset: u64, content: Content<'_>) -> Self {
        let cursor = Cursor { epoch: Epoch(epoch), offset: Offset(offset) };
        let place = Place { segment: self.header.number, position: self.bytes.len() as u64 };
        Record { batch: self.batch, topic, cursor, time_ms: NOW - 1_000 + offset.min(1_000), content }
            .write(place, &mut self.bytes);
        self
    }

    fn messages(self, topic: &str, epoch: u64, offsets: std::ops::RangeInclusive<u64>) -> Self {
        offsets.fold(self, |written, offset| {
            let payload = format!("{topic} {offset}");
            let key = Some("key").filter(|_| offset == 2);
            let content = Content::Message { kind: Kind::Text, key, trace: None, payload: payload.as_bytes() };
            written.record(topic, epoch, offset, content)
        })
    }

    fn place(self, topic: &str, epoch: u64, offset: u64) -> Self {
        self.record(topic, epoch, offset, Content::Cursor)
    }
}

/// Replays whole segments, and says what each topic has: its place, and the offsets of its messages.
fn replayed(rules: &TopicRules, now_ms: u64, segments: &[Written]) -> Vec<(String, String, Vec<u64>)> {
    let mut replay = Replay::new(rules, now_ms);
    for written in segments {
        let length = Some(written.bytes.len() as u64);
        let outcome = replay.segment(&written.bytes, written.header.number, length).unwrap();
        assert_eq!(outcome.end, written.bytes.len() as u64);
    }
    topics(replay.finish())
}

fn topics(found: Found) -> Vec<(String, String, Vec<u64>)> {
    let topic = |legacy: Legacy| {
        for Left { message, key, .. } in &legacy.messages {
            assert_eq!(message.payload(), format!("{} {}", legacy.topic, message.offset.0).as_bytes());
            assert_eq!(key.as_deref(), Some("key").filter(|_| message.offset.0 == 2));
        }
        let offsets = legacy.messages.iter().map(|left| left.message.offset.0).collect();
        (legacy.topic.to_string(), legacy.cursor.to_string(), offsets)
    };
    let mut topics: Vec<_> = found.topics.into_iter().map(topic).collect();
    topics.sort();
    topics
}

fn seen(segments: &[Written]) -> Vec<(String, String, Vec<u64>)> {
    replayed(&TopicRules::default(), NOW, segments)
}

fn one(topic: &str, cursor: &str, offsets: std::ops::RangeInclusive<u64>) -> (String, String, Vec<u64>) {
    (topic.to_owned(), cursor.to_owned(), offsets.collect())
}

fn none(topic: &str, cursor: &str) -> (String, String, Vec<u64>) {
    (topic.to_owned(), cursor.to_owned(), Vec::new())
}

#[test]
fn topics_go_on_over_segments() {
    let first = Written::new(1).messages("a", 5, 1..=3).messages("b", 6, 1..=1);
    let second = Written::new(2).messages("a", 5, 4..=4).messages("b", 6, 2..=3);
    assert_eq!(seen(&[first, second]), [one("a", "5:4", 1..=4), one("b", "6:3", 1..=3)]);
}

#[test]
fn a_past_with_a_hole_begins_behind_it() {
    let first = || Written::new(1).messages("a", 5, 1..=3);
    assert_eq!(seen(&[first().messages("a", 5, 6..=7)]), [one("a", "5:7", 6..=7)]);
    assert_eq!(seen(&[first().messages("a", 9, 1..=2)]), [one("a", "9:2", 1..=2)], "another past");
    assert_eq!(seen(&[first().place("a", 5, 3)]), [none("a", "5:3")], "told to be gone");
    assert_eq!(seen(&[first().place("a", 5, 3).messages("a", 5, 4..=4)]), [one("a", "5:4", 4..=4)]);
    assert_eq!(seen(&[Written::new(1).messages("a", 5, 7..=9)]), [one("a", "5:9", 7..=9)], "older segments are gone");
}

#[test]
fn what_was_there_already_is_passed_over() {
    let twice = Written::new(1).messages("a", 5, 1..=3).messages("a", 5, 2..=4).place("a", 5, 1);
    assert_eq!(seen(&[twice]), [one("a", "5:4", 1..=4)]);
}

#[test]
fn what_was_written_later_counts_whichever_epoch_is_greater() {
    let ended = || Written::new(1).messages("a", 5, 1..=3).place("a", 9, 0);
    assert_eq!(seen(&[ended()]), [none("a", "9:0")]);
    assert_eq!(seen(&[ended().messages("a", 9, 1..=2)]), [one("a", "9:2", 1..=2)]);
    assert_eq!(seen(&[ended().messages("a", 5, 4..=5)]), [one("a", "5:5", 4..=5)], "durable again in the same process");
}

#[test]
fn topics_keep_what_their_rules_say() {
    let mut config = Config::default();
    config.limits.history.messages_max = 2;
    let all = || [Written::new(1).messages("a", 5, 1..=5)];
    assert_eq!(replayed(&TopicRules::new(&config), NOW, &all()), [one("a", "5:5", 4..=5)]);
    config.limits.history.messages_max = 0;
    assert_eq!(replayed(&TopicRules::new(&config), NOW, &all()), [none("a", "5:5")]);
    config.limits.history.messages_max = 9;
    config.limits.history.age_max = Duration::from_millis(997);
    assert_eq!(replayed(&TopicRules::new(&config), NOW, &all()), [one("a", "5:5", 3..=5)]);
}

/// The record of a message, as it may be asked for.
fn record(topic: &str, offset: u64) -> Record<'_> {
    let content = Content::Message { kind: Kind::Text, key: None, trace: None, payload: b"" };
    let cursor = Cursor { epoch: Epoch(5), offset: Offset(offset) };
    Record { batch: FIRST_BATCH, topic, cursor, time_ms: NOW, content }
}

/// Each topic is within its own bounds: of all together the oldest go, as they come in the journal.
#[test]
fn all_topics_keep_what_the_process_may() {
    let all = || Written::new(1).messages("a", 5, 3..=5).messages("b", 5, 3..=6).messages("a", 5, 6..=7);
    let one = History::bytes_of(&record("a", 3).message(&Topic::parse(b"a", 9).unwrap()).unwrap(), None) + 3;
    let (mut config, from) = (Config::default(), |offsets: [u64; 2]| offsets);
    for (most, kept) in [(9, from([3, 3])), (6, from([6, 3])), (5, from([6, 4])), (3, from([6, 6])), (1, from([7, 7]))]
    {
        config.limits.history.bytes_total_max = most * one;
        let rules = TopicRules::new(&config);
        let mut replay = Replay::new(&rules, NOW);
        replay.segment(&all().bytes, 1, None).unwrap();
        let found = replay.finish();
        for (topic, kept) in ["a", "b"].into_iter().zip(kept) {
            let is_needed = |offset: u64| found.census.needs(&record(topic, offset));
            assert_eq!((3..8).find(|&offset| is_needed(offset)).unwrap_or(8), kept.min(8), "{topic} of {most}");
        }
        assert_eq!(topics(found), [one_from("a", kept[0], 7), one_from("b", kept[1], 6)], "{most}");
    }
}

fn one_from(topic: &str, from: u64, to: u64) -> (String, String, Vec<u64>) {
    one(topic, &format!("5:{to}"), from..=to)
}

#[test]
fn clocks_that_jump_take_nothing_but_age() {
    let all = || [Written::new(1).messages("a", 5, 1..=2)];
    assert_eq!(replayed(&TopicRules::default(), 0, &all()), [one("a", "5:2", 1..=2)], "back to 1970");
    assert_eq!(replayed(&TopicRules::default(), u64::MAX, &all()), [none("a", "5:2")], "far ahead: the place stays");
}

/// What of these topics is written again when a hole is behind the first segment: their records, read on their own.
fn renewed(first: &Written, second: &Written) -> Vec<(String, String, Vec<u64>)> {
    let rules = TopicRules::default();
    let mut replay = Replay::new(&rules, NOW);
    replay.segment(&first.bytes, 1, None).unwrap();
    replay.miss();
    replay.segment(&second.bytes, 2, None).unwrap();
    let header = Header { number: 3, previous: 2, epoch: Epoch(70), ..Header::default() };
    let Some(bytes) = replay.renewal(header, usize::MAX) else { return Vec::new() };
    assert_eq!(Header::read(&bytes, 3).unwrap().length, bytes.len() as u64);
    replay.segment(&bytes, 3, Some(bytes.len() as u64)).unwrap();
    assert_eq!((replay.epoch(), replay.renewal(header, usize::MAX)), (Epoch(70), None), "once is enough");
    let mut alone = Replay::new(&rules, NOW);
    alone.segment(&bytes, 3, None).unwrap();
    let alone = topics(alone.finish());
    let all = topics(replay.finish());
    assert!(alone.iter().all(|topic| all.contains(topic)), "{all:?}");
    alone
}

#[test]
fn who_may_have_lost_the_last_messages_is_written_again() {
    let first = || Written::new(1).messages("a", 5, 1..=3);
    let second = || Written::new(2);
    assert_eq!(renewed(&first(), &second()), [one("a", "70:3", 1..=3)]);
    assert_eq!(renewed(&first(), &second().messages("a", 5, 5..=6)), []);
    assert_eq!(renewed(&first(), &second().messages("b", 5, 5..=6)), [one("a", "70:3", 1..=3)]);
    assert_eq!(renewed(&first(), &second().place("a", 9, 0)), [], "its past has ended");
    assert_eq!(renewed(&first().place("a", 5, 3), &second()), [none("a", "70:3")]);
    // A message may have been on its way when the place was written again.
    assert_eq!(renewed(&first(), &second().place("a", 5, 3)), [none("a", "70:3")]);
    assert_eq!(renewed(&first(), &second().place("b", 5, 7).messages("a", 5, 4..=4)), [none("b", "70:7")]);
}

#[test]
fn topics_that_are_written_again_keep_their_times_and_are_whole_in_one_segment() {
    let first = Written::new(1).messages("a", 5, 1..=4).place("b", 5, 9).messages("c", 5, 1..=4);
    let rules = TopicRules::default();
    let mut replay = Replay::new(&rules, NOW);
    replay.segment(&first.bytes, 1, None).unwrap();
    replay.miss();
    let (mut number, mut found) = (2, Vec::new());
    while let Some(bytes) = replay.renewal(Header { number, epoch: Epoch(70), ..Header::default() }, 120) {
        let records = Scan::new(&bytes, number).map(|record| (record.topic.to_owned(), record.time_ms + 1_000 - NOW));
        found.push(records.collect::<Vec<_>>());
        replay.segment(&bytes, number, None).unwrap();
        number += 1;
    }
    let a: Vec<_> = (1..=4).map(|offset| ("a".to_owned(), offset)).collect();
    let c: Vec<_> = [("b".to_owned(), 9)].into_iter().chain((1..=4).map(|offset| ("c".to_owned(), offset))).collect();
    assert_eq!(found, [a, c]);
}

#[test]
fn numbers_at_their_ends_do_no_harm() {
    let last = Written::new(1).messages("a", u64::MAX, u64::MAX..=u64::MAX).messages("a", u64::MAX, 0..=0);
    assert_eq!(seen(&[last])[0].1, format!("{0}:{0}", u64::MAX));
    assert_eq!(seen(&[Written::new(1).messages("a", 0, 0..=1)])[0].1, "0:1");
    let rules = TopicRules::default();
    let mut replay = Replay::new(&rules, NOW);
    replay.segment(&Written::new(1).messages("a", u64::MAX, 1..=1).bytes, 1, None).unwrap();
    replay.miss();
    let header = Header { number: 2, epoch: Epoch(u64::MAX), ..Header::default() };
    assert_eq!(replay.renewal(header, 99), None, "no epoch is newer; that is not tried for ever");
}

#[test]
fn the_newest_epoch_outlives_its_topic() {
    let header = Header { number: 3, epoch: Epoch(77), ..Header::default() };
    let rules = TopicRules::default();
    let mut replay = Replay::new(&rules, NOW);
    replay.segment(&header.to_bytes(), 3, None).unwrap();
    let found = replay.finish();
    assert_eq!((found.epoch, found.topics.len()), (Epoch(77), 0));
}

/// Every byte of it, wrong and missing, in a segment whose length is known: never is a wrong record taken for a right one,
/// and what is wrong is always told.
#[test]
fn a_closed_segment_that_was_changed_anywhere_is_refused() {
    let written = Written::new(1).messages("a", 5, 1..=2).commit().messages("b", 6, 1..=2);
    let (bytes, length) = (&written.bytes, Some(written.bytes.len() as u64));
    let rules = TopicRules::default();
    let read = |bytes: &[u8]| {
        let mut replay = Replay::new(&rules, NOW);
        let outcome = replay.segment(bytes, 1, length);
        let found = topics(replay.finish());
        assert!(found.iter().all(|(topic, ..)| ["a", "b"].contains(&topic.as_str())), "{found:?}");
        outcome
    };
    read(bytes).unwrap();
    for at in 0..bytes.len() {
        assert!(read(&bytes[..at]).is_err(), "cut at {at}");
        for wrong in [1, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= wrong;
            assert!(read(&changed).is_err(), "byte {at}");
        }
    }
    assert!(read(&[bytes, &[0; 100][..]].concat()).is_ok(), "what was refused behind it is not looked at");
}

/// The same in the last segment: a cut is a torn end, and what is before it stays.
#[test]
fn the_last_segment_may_end_anywhere() {
    let written = Written::new(1).messages("a", 5, 1..=2).commit().messages("a", 5, 3..=4);
    let rules = TopicRules::default();
    for cut in HEADER_BYTES..=written.bytes.len() {
        let mut replay = Replay::new(&rules, NOW);
        let outcome = replay.segment(&written.bytes[..cut], 1, None).unwrap();
        assert_eq!(outcome.end + outcome.torn, cut as u64);
        let kept = topics(replay.finish()).first().map_or(0, |topic| topic.2.len() as u64);
        assert_eq!(outcome.records, kept);
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let written = Written::new(1).messages("a", 5, 1..=1);
    let (from, wrong) = (written.bytes.len(), written.commit().messages("a", 5, 2..=2));
    let (to, mut wrong) = (wrong.bytes.len(), wrong.commit().messages("a", 5, 3..=3));
    wrong.bytes[from + 30] ^= 1;
    let rules = TopicRules::default();
    let error = Replay::new(&rules, NOW).segment(&wrong.bytes, 1, None).unwrap_err();
    assert_eq!(error.to_string(), format!("what is at position {from} is not what was written; records go on at {to}"));
    let error = Replay::new(&rules, NOW).segment(&wrong.bytes[..from], 1, Some(to as u64)).unwrap_err();
    assert_eq!(error, Corrupt::Records { from: from as u64, to: None });
    let error = Replay::new(&rules, NOW).segment(b"#!/bin/sh", 1, None).unwrap_err();
    assert_eq!(error, Corrupt::Header(BadHeader::Foreign));
}

#[test]
fn what_can_be_read_is_salvaged() {
    let written = Written::new(1).messages("a", 5, 1..=1);
    let (from, written) = (written.bytes.len(), written.commit().messages("a", 5, 2..=2));
    let (to, written) = (written.bytes.len(), written.commit().messages("a", 5, 3..=4).messages("b", 6, 1..=1));
    let rules = TopicRules::default();
    let salvaged = |bytes: &[u8], length: Option<u64>| {
        let saved = salvage(bytes, length, Header { number: 1, ..Header::default() });
        let mut replay = Replay::new(&rules, NOW);
        replay.segment(&saved.bytes, 1, None).unwrap();
        assert_eq!(Header::read(&saved.bytes, 1).unwrap().length, saved.bytes.len() as u64);
        (topics(replay.finish()), saved.holes, saved.records)
    };
    let mut wrong = written.bytes.clone();
    // The header is no matter.
    wrong[..HEADER_BYTES].fill(b'x');
    wrong[from + 5] ^= 0x10;
    let (found, holes, records) = salvaged(&wrong, None);
    assert_eq!(
        found,
        [one("a", "5:4", 3..=4), one("b", "6:1", 1..=1)],
        "before the hole is not told: it would be a gap"
    );
    assert_eq!((holes, records), (vec![(from as u64, to as u64)], 4));
    let short = &written.bytes[..to + 10];
    assert_eq!(salvaged(short, Some(999)), (vec![one("a", "5:2", 1..=2)], vec![(to as u64, 999)], 2));
    for cut in 0..written.bytes.len() {
        salvaged(&written.bytes[..cut], Some(written.bytes.len() as u64));
        salvaged(&[&written.bytes[..cut], &[0xa5; 99][..]].concat(), None);
    }
}
