#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;

const BOUNDS: Bounds = Bounds { segment_bytes: 1_000, bytes_max: 10_000, age_max_ms: 500 };

fn topic(name: &str) -> Topic {
    Topic::parse(name.as_bytes(), Topic::BYTES_MAX).unwrap()
}

fn cursor(epoch: u64, offset: u64) -> Cursor {
    Cursor { epoch: Epoch(epoch), offset: Offset(offset) }
}

/// So many segments, numbered from 1.
fn segments(count: u64) -> Census {
    let mut census = Census::default();
    for number in 1..=count {
        census.begin(&Header { number, previous: number - 1, created_ms: 100, ..Header::default() });
    }
    census
}

/// A message of 100 bytes; the topic keeps those from `kept` on.
fn message(census: &mut Census, segment: u64, name: &str, offset: u64, kept: u64) {
    let entry = Entry { cursor: cursor(5, offset), time_ms: 100 + offset, bytes: 100, is_message: true };
    census.note(segment, name, entry, Offset(kept));
    census.grow(segment, census.length(segment) + 100);
}

fn weighed(census: &mut Census, now_ms: u64) -> Option<Step> {
    (0..census.segments()).for_each(|_| census.weigh_next());
    census.next_step(&BOUNDS, now_ms)
}

fn named(stands: &[Stand]) -> Vec<String> {
    let mut named: Vec<_> = stands.iter().map(|stand| format!("{} {}", stand.topic, stand.cursor)).collect();
    named.sort();
    named
}

#[test]
fn the_oldest_segment_goes_when_nothing_in_it_is_needed() {
    let mut census = segments(3);
    (1..=9).for_each(|offset| message(&mut census, 1, "a", offset, 1));
    message(&mut census, 2, "b", 1, 1);
    assert_eq!(weighed(&mut census, 200), None);
    message(&mut census, 2, "a", 10, 9);
    assert_eq!(weighed(&mut census, 200), Some(Step::Join(vec![1, 2])), "one is needed");
    census.forget(&topic("a"), cursor(4, 99));
    assert_eq!(weighed(&mut census, 200), Some(Step::Join(vec![1, 2])), "told of another past");
    census.forget(&topic("a"), cursor(5, 9));
    assert_eq!(weighed(&mut census, 200), Some(Step::Remove(1)));
    assert_eq!(named(&census.places(&[1], true, &BOUNDS, 200)), [""; 0], "its place is in the second one");
    census.remove(1);
    assert_eq!((census.segments(), census.bytes(), census.topics()), (2, 264 + 64, 2));
    assert_eq!(weighed(&mut census, 200), None);
}

#[test]
fn places_are_written_again_before_their_segment_goes() {
    let mut census = segments(2);
    for name in ["a", "b", "c"] {
        message(&mut census, 1, name, 1, 1);
        census.forget(&topic(name), cursor(5, 1));
    }
    message(&mut census, 2, "c", 2, 2);
    assert_eq!(weighed(&mut census, 200), Some(Step::Remove(1)));
    let stands = census.places(&[1], true, &BOUNDS, 200);
    assert_eq!(named(&stands), ["a 5:1", "b 5:1"]);
    assert!(stands.iter().all(|stand| census.stands(stand)));
    // One of them is published to meanwhile.
    message(&mut census, 2, "b", 2, 2);
    let left: Vec<_> = stands.into_iter().filter(|stand| census.stands(stand)).collect();
    assert_eq!(named(&left), ["a 5:1"]);
    let entry = Entry { cursor: left[0].cursor, time_ms: left[0].time_ms, bytes: 43, is_message: false };
    census.note(2, "a", entry, Offset(0));
    census.remove(1);
    assert_eq!(census.topics(), 3);
    assert_eq!(named(&census.places(&[2], false, &BOUNDS, 200)), ["a 5:1"]);
    // Nobody needs the place of a topic that is too old for anybody to have seen.
    assert_eq!(named(&census.places(&[2], true, &BOUNDS, 602)), ["b 5:2", "c 5:2"]);
    assert_eq!(census.epoch(), Epoch(5));
}

#[test]
fn what_is_too_old_or_too_much_goes_though_it_is_needed() {
    let mut census = segments(2);
    message(&mut census, 1, "a", 1, 1);
    (2..=98).for_each(|offset| message(&mut census, 2, "a", offset, 1));
    assert_eq!(weighed(&mut census, 200), None);
    message(&mut census, 2, "a", 99, 1);
    assert_eq!(weighed(&mut census, 200), Some(Step::Lose(1)), "too much");
    let mut census = segments(2);
    message(&mut census, 1, "a", 1, 1);
    assert_eq!(named(&census.places(&[1], true, &BOUNDS, 200)), ["a 5:1"], "but not its place");
    let mut census = segments(2);
    message(&mut census, 1, "a", 1, 1);
    assert_eq!(weighed(&mut census, 601), None);
    assert_eq!(weighed(&mut census, 602), Some(Step::Remove(1)), "too old");
    assert_eq!(weighed(&mut census, 0), None, "a clock that was set back");
    census.remove(1);
    assert_eq!((census.topics(), weighed(&mut census, u64::MAX)), (0, None), "the newest one stays");
}

/// A message in a segment.
type Written = (u64, &'static str, u64);

/// So many segments, each with so many messages of either topic: of `a` all are needed, of `b` none but the last.
fn mixed(count: u64, a: u64, b: u64) -> (Census, Vec<Written>) {
    let (mut census, mut records) = (segments(count), Vec::new());
    for segment in 1..=count {
        let part = |each: u64| (segment - 1) * each + 1..=segment * each;
        records.extend(part(a).map(|offset| (segment, "a", offset)));
        records.extend(part(b).map(|offset| (segment, "b", offset)));
    }
    for (segment, name, offset) in &records {
        message(&mut census, *segment, name, *offset, if *name == "a" { 1 } else { *offset });
    }
    (census, records)
}

/// Does what there is to do, and says which segments went though they were needed.
fn settle(census: &mut Census, records: &mut Vec<Written>) -> Vec<u64> {
    let mut lost = Vec::new();
    for _ in 0..1_000 {
        match weighed(census, 200) {
            None => return lost,
            Some(Step::Remove(segment)) => census.remove(segment),
            Some(Step::Lose(segment)) => {
                lost.push(segment);
                records.retain(|record| record.0 != segment);
                census.remove(segment);
            }
            Some(Step::Join(segments)) => {
                let last = *segments.last().unwrap();
                let is_needed = |record: &&mut Written| record.1 == "a" || record.2 == census_last(census, record.1);
                let joined = records.iter_mut().filter(|record| segments.contains(&record.0)).filter(is_needed);
                let entry = |(segment, name, offset): &mut Written| {
                    *segment = last;
                    (
                        topic(name),
                        Entry { cursor: cursor(5, *offset), time_ms: 100 + *offset, bytes: 100, is_message: true },
                    )
                };
                let entries: Vec<_> = joined.map(entry).collect();
                let length = HEADER_BYTES as u64 + 100 * entries.len() as u64;
                census.join(&segments, &Header { number: last, length, ..Header::default() }, &entries);
            }
        }
    }
    panic!("it never ends");
}

fn census_last(census: &Census, name: &str) -> u64 {
    census.topics[census.names[&topic(name)] as usize].cursor.offset.0
}

#[test]
fn nothing_that_is_needed_goes_while_that_is_not_too_much() {
    // Of 20 segments with 21,280 bytes not quite 10,000 are needed; none is mostly dead.
    for (a, b, segments) in [(4, 6, 20), (6, 4, 14), (8, 2, 11), (1, 9, 60)] {
        let (mut census, mut records) = mixed(segments, a, b);
        assert!(census.is_over(&BOUNDS));
        assert_eq!(settle(&mut census, &mut records), [0; 0], "{a} of {}", a + b);
        let bytes = census.bytes();
        assert!(bytes <= BOUNDS.bytes_max + BOUNDS.segment_bytes, "{bytes} bytes are left of {a} of {}", a + b);
        assert_eq!(records.iter().filter(|record| record.1 == "a").count() as u64, a * segments);
    }
}

#[test]
fn the_oldest_goes_when_what_is_needed_is_too_much() {
    let (mut census, mut records) = mixed(12, 9, 1);
    let lost = settle(&mut census, &mut records);
    assert_eq!(lost, [1, 2], "12 times 900 bytes with their headers, and 10,000 may be");
    assert!(census.bytes() <= BOUNDS.bytes_max + BOUNDS.segment_bytes, "{}", census.bytes());
}

#[test]
fn a_segment_that_cannot_be_joined_stops_no_other() {
    // Each but the last is all dead, but for a message of the first.
    let (mut census, _) = mixed(6, 0, 9);
    message(&mut census, 1, "rare", 1, 1);
    let all = [1, 2, 3, 4, 5].to_vec();
    assert_eq!(weighed(&mut census, 200), Some(Step::Join(all.clone())));
    census.bar(3, 300);
    assert_eq!(weighed(&mut census, 200), Some(Step::Join(vec![1, 2])));
    assert_eq!(weighed(&mut census, 300), Some(Step::Join(all)), "for a time");
    census.bar(1, Census::CORRUPT);
    assert_eq!(weighed(&mut census, 200), Some(Step::Join(vec![2])));
    assert_eq!((census.corrupt(), census.worth()), (1, 1_064 + 4 * 64 + 164));
    census.forget(&topic("rare"), cursor(5, 1));
    assert_eq!(weighed(&mut census, 200), Some(Step::Remove(1)));
    census.remove(1);
    assert_eq!(census.corrupt(), 0);
}

#[test]
fn what_has_grown_is_counted_anew() {
    let mut census = segments(2);
    message(&mut census, 1, "a", 1, 1);
    census.weigh(1);
    assert_eq!(census.segments[&1].worth(), 164);
    (2..=9).for_each(|offset| message(&mut census, 1, "a", offset, 9));
    assert_eq!(census.segments[&1].worth(), 964, "nobody knows");
    census.weigh_grown();
    assert_eq!(census.segments[&1].worth(), 164);
}

#[test]
fn neighbours_that_are_mostly_dead_are_joined() {
    let mut census = segments(4);
    // The oldest one is needed, the next two hardly.
    (1..=9).for_each(|offset| message(&mut census, 1, "a", offset, 1));
    (1..=9).for_each(|offset| message(&mut census, 2, "b", offset, 1));
    (10..=18).for_each(|offset| message(&mut census, 3, "b", offset, 9));
    assert_eq!(weighed(&mut census, 200), Some(Step::Join(vec![2])));
    census.forget(&topic("b"), cursor(5, 17));
    assert_eq!(weighed(&mut census, 200), Some(Step::Join(vec![2, 3])));
    let header = Header { number: 3, length: 264, ..Header::default() };
    let entry = Entry { cursor: cursor(5, 18), time_ms: 118, bytes: 100, is_message: true };
    census.join(&[2, 3], &header, &[(topic("b"), entry)]);
    assert_eq!((census.segments(), census.length(3), census.topics()), (3, 264, 2));
    assert_eq!(weighed(&mut census, 200), None);
    census.forget(&topic("b"), cursor(5, 18));
    assert_eq!(named(&census.places(&[3], false, &BOUNDS, 200)), ["b 5:18"], "it has moved");
}

#[test]
fn many_small_ones_are_joined() {
    let mut census = segments(9);
    assert_eq!(census.segments(), 9);
    (1..=9).for_each(|number| message(&mut census, number, "a", number, 1));
    assert_eq!(weighed(&mut census, 200), None, "they are more than one segment");
    let bounds = Bounds { segment_bytes: 2_000, ..BOUNDS };
    assert_eq!(census.next_step(&bounds, 200), Some(Step::Join((1..=8).collect())));
}

#[test]
fn only_messages_that_are_kept_are_needed() {
    let mut census = segments(1);
    message(&mut census, 1, "a", 3, 2);
    let needs = |name, epoch, offset| {
        let content = Content::Message { kind: crate::codec::Kind::Text, key: None, trace: None, payload: b"" };
        census.needs(&Record { batch: 0, topic: name, cursor: cursor(epoch, offset), time_ms: 0, content })
    };
    assert_eq!([needs("a", 5, 1), needs("a", 5, 2), needs("a", 4, 2), needs("b", 5, 2)], [false, true, false, false]);
    assert!(!census.needs(&Record::of_cursor("a", cursor(5, 3), 0)));
}
