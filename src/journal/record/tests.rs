#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;

const PLACE: Place = Place { segment: 3, position: 4_096 };

fn message(kind: Kind, payload: &[u8], state: Option<&str>) -> Message {
    let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = state.and_then(|state| Trace::parse(parent, Some(state.as_bytes())));
    let topic = Topic::parse("räume/1".as_bytes(), Topic::BYTES_MAX).unwrap();
    let mut message = Message::traced(topic, kind, payload, None, trace);
    (message.epoch, message.offset, message.time_ms) = (Epoch(u64::MAX), Offset(7), 1_795_871_336_637);
    message
}

fn written(record: Record<'_>) -> Vec<u8> {
    let mut out = b"before".to_vec();
    record.write(PLACE, &mut out);
    assert_eq!(out.len(), 6 + record.size());
    out.split_off(6)
}

fn said(message: &Message) -> String {
    let trace = message.trace().map(|trace| (trace.parent.to_bytes(), trace.state.to_owned()));
    let (cursor, time, kind) = (message.cursor(), message.time_ms, message.kind());
    format!("{} {cursor} {time} {kind:?} {:?} {trace:?}", message.topic, message.payload())
}

#[test]
fn a_message_comes_back_as_it_was() {
    for (kind, payload, state, key) in [
        (Kind::Text, &b"hello"[..], None, None),
        (Kind::Binary, &[0, 255, 10], Some("a=b"), Some("key")),
        (Kind::Text, b"", Some(""), Some("")),
        (Kind::Text, b"\xff no text, of raw TCP", None, Some("ключ")),
        (Kind::Binary, &[7; 70_000], None, None),
    ] {
        let sent = message(kind, payload, state);
        let bytes = written(Record { batch: 64, ..Record::of(&sent, key) });
        let record = Record::read(&bytes, PLACE).unwrap();
        assert_eq!(said(&record.message(&sent.topic).unwrap()), said(&sent));
        assert_eq!((record.batch, record.size()), (64, bytes.len()));
        let Content::Message { key: read, .. } = record.content else { panic!("{record:?}") };
        assert_eq!(read.unwrap_or_default(), key.unwrap_or_default());
    }
}

#[test]
fn a_place_comes_back_as_it_was() {
    let cursor = Cursor { epoch: Epoch(1), offset: Offset(2) };
    let record = Record::of_cursor("t", cursor, 3);
    let bytes = written(record);
    assert_eq!(Record::read(&bytes, PLACE), Ok(record));
    assert!(record.message(&Topic::parse(b"t", 9).unwrap()).is_none());
}

#[test]
fn nothing_else_is_a_record() {
    let sent = message(Kind::Text, b"hello", Some("a=b"));
    let bytes = written(Record::of(&sent, Some("key")));
    for cut in 0..bytes.len() {
        assert!(Record::read(&bytes[..cut], PLACE).is_err(), "cut at {cut}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(Record::read(&wrong, PLACE).is_err(), "bit {bit}");
        assert!(Record::read(&[&wrong[..], &bytes].concat(), PLACE).is_err(), "bit {bit}, with more behind it");
    }
    for place in [Place { segment: 4, ..PLACE }, Place { position: 4_095, ..PLACE }] {
        assert_eq!(Record::read(&bytes, place), Err(NoRecord::Checksum), "{place:?}");
    }
    assert_eq!(Record::read(&[0; 100], PLACE), Err(NoRecord::Malformed));
}

#[test]
fn a_key_that_no_client_can_have_is_left_out() {
    let sent = message(Kind::Text, b"hello", None);
    let key = "k".repeat(KEY_BYTES_MAX + 1);
    assert_eq!(Record::of(&sent, Some(&key)), Record::of(&sent, None));
}

/// What a faulty writer wrote with a right checksum.
#[test]
fn right_checksums_of_wrong_things_do_no_harm() {
    let sum = |mut bytes: Vec<u8>| {
        let sum = checksum(PLACE, &bytes[PREFIX_BYTES..]);
        bytes[4..PREFIX_BYTES].copy_from_slice(&sum.to_le_bytes());
        Record::read(&bytes, PLACE).map(|record| record.size())
    };
    let good = written(Record::of(&message(Kind::Text, b"hello", None), Some("key")));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        sum(bytes)
    };
    assert_eq!(with(HEADER_BYTES, 0xff), Err(NoRecord::Malformed), "a name that is no text");
    assert_eq!(with(12, CURSOR), Err(NoRecord::Malformed), "a place with a payload");
    assert_eq!(with(12, 4), Err(NoRecord::Malformed));
    assert_eq!(with(13, 200), Err(NoRecord::Malformed), "a name that is longer than all of it");
    assert_eq!(with(13, 0), Err(NoRecord::Malformed));
}
