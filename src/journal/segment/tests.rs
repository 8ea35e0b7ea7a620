#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;
use crate::codec::Kind;
use crate::journal::record::Content;
use crate::message::{Cursor, Epoch, Offset};

const NUMBER: u64 = 7;
const HEADER: Header =
    Header { number: NUMBER, created_ms: 1_000, previous: 6, before: 500, length: 0, epoch: Epoch(5) };

/// A segment, written commit by commit.
struct Written {
    bytes: Vec<u8>,
    /// Where each record begins, and one more: the end.
    places: Vec<usize>,
}

impl Written {
    fn new() -> Self {
        Self { bytes: HEADER.to_bytes().to_vec(), places: vec![HEADER_BYTES] }
    }

    /// A commit with so many messages, whose offsets go on from the ones before.
    fn commit(mut self, messages: usize) -> Self {
        let batch = u32::try_from(self.bytes.len()).unwrap();
        for _ in 0..messages {
            let offset = self.places.len() as u64;
            let payload = format!("message {offset}");
            let content = Content::Message { kind: Kind::Text, key: None, trace: None, payload: payload.as_bytes() };
            let cursor = Cursor { epoch: Epoch(5), offset: Offset(offset) };
            let position = self.bytes.len() as u64;
            let record = Record { batch, topic: "room/1", cursor, time_ms: 2_000 + offset, content };
            record.write(Place { segment: NUMBER, position }, &mut self.bytes);
            self.places.push(self.bytes.len());
        }
        self
    }
}

/// The offsets that are found, where that ends, and why.
fn scanned(bytes: &[u8], is_last: bool) -> (Vec<u64>, u64, End) {
    let mut scan = Scan::new(bytes, NUMBER);
    let offsets = scan.by_ref().map(|record| record.cursor.offset.0).collect();
    (offsets, scan.position(), scan.end(is_last))
}

#[test]
fn what_was_written_is_read() {
    let written = Written::new().commit(2).commit(1).commit(3);
    let end = *written.places.last().unwrap() as u64;
    assert_eq!(scanned(&written.bytes, true), ((1..=6).collect(), end, End::Clean));
    assert_eq!(Header::read(&written.bytes, NUMBER), Ok(HEADER));
    let zeros = [written.bytes.clone(), vec![0; 5_000]].concat();
    assert_eq!(scanned(&zeros, true), ((1..=6).collect(), end, End::Clean), "made longer beforehand");
}

#[test]
fn a_commit_that_was_cut_anywhere_is_torn_and_what_was_before_it_stays() {
    let written = Written::new().commit(2).commit(2);
    for cut in written.places[2] + 1..written.bytes.len() {
        let whole = written.places.iter().filter(|place| **place <= cut).count() as u64 - 1;
        let (offsets, position, end) = scanned(&written.bytes[..cut], true);
        assert_eq!(offsets, (1..=whole).collect::<Vec<_>>(), "cut at {cut}");
        let expected = if position == cut as u64 { End::Clean } else { End::Torn };
        assert_eq!(end, expected, "cut at {cut}");
        let closed = scanned(&written.bytes[..cut], false).2;
        let expected = if position == cut as u64 { End::Clean } else { End::Corrupt { next: None } };
        assert_eq!(closed, expected, "no torn ends in segments that were followed by another: cut at {cut}");
    }
}

#[test]
fn a_hole_in_the_last_commit_is_torn_and_one_before_it_is_corruption() {
    let written = Written::new().commit(3).commit(3);
    let places = written.places.clone();
    for (number, place) in places[..6].iter().enumerate() {
        let mut bytes = written.bytes.clone();
        // The disk has written the pages in an order of its own.
        bytes[*place..places[number + 1]].fill(0);
        let (offsets, position, end) = scanned(&bytes, true);
        assert_eq!(offsets, (1..=number as u64).collect::<Vec<_>>());
        assert_eq!(position, *place as u64);
        let next = places[number + 1] as u64;
        let expected = if number < 3 { End::Corrupt { next: Some(next) } } else { End::Torn };
        assert_eq!(end, if number == 5 { End::Clean } else { expected }, "hole at record {number}");
    }
}

#[test]
fn every_bit_that_is_wrong_is_noticed() {
    let written = Written::new().commit(1).commit(1).commit(1);
    let (from, to) = (written.places[1], written.places[2]);
    for bit in from * 8..to * 8 {
        let mut bytes = written.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let found = scanned(&bytes, true);
        assert_eq!(found, (vec![1], from as u64, End::Corrupt { next: Some(to as u64) }), "bit {bit}");
        let mut scan = Scan::new(&bytes, NUMBER);
        scan.skip_to(to as u64);
        assert_eq!(scan.map(|record| record.cursor.offset.0).collect::<Vec<_>>(), [3], "what follows can be read");
    }
}

#[test]
fn records_of_other_places_are_none() {
    let written = Written::new().commit(2);
    let moved = [&written.bytes[..HEADER_BYTES], &written.bytes[written.places[1]..]].concat();
    assert_eq!(scanned(&moved, true), (vec![], HEADER_BYTES as u64, End::Torn));
    let mut scan = Scan::new(&written.bytes, NUMBER + 1);
    assert_eq!(scan.next(), None, "of another segment");
}

#[test]
fn a_payload_full_of_beginnings_does_not_take_for_ever() {
    // Each byte could begin a record of a megabyte or more.
    let mut written = Written::new();
    written.bytes.extend(std::iter::repeat_n([1, 1, 1, 0], 1 << 18).flatten());
    let (_, _, end) = scanned(&written.bytes, true);
    assert!(matches!(end, End::Corrupt { next: None } | End::Torn), "{end:?}");
}

#[test]
fn headers_that_are_wrong_say_how() {
    let good = HEADER.to_bytes();
    let check = Header::read;
    assert_eq!(check(&good[..10], NUMBER), Err(BadHeader::Short));
    assert_eq!(check(b"", NUMBER), Err(BadHeader::Short));
    assert_eq!(check(b"#!/bin/sh\n", NUMBER), Err(BadHeader::Foreign));
    assert_eq!(check(&[b'x'; 100], NUMBER), Err(BadHeader::Foreign));
    assert_eq!(check(&good, 8), Err(BadHeader::Number(7)));
    let with = |at: usize, byte: u8| {
        let mut header = good;
        header[at] = byte;
        check(&header, NUMBER)
    };
    assert_eq!(with(8, 2), Err(BadHeader::Version(2)));
    assert_eq!(with(17, 1), Err(BadHeader::Checksum));
    assert_eq!(with(13, good[13] ^ 1), Err(BadHeader::Checksum));
}
