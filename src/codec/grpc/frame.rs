//! The frames of `holdline.v1` that a shard writes itself: `ServerFrame`s with a message, with a reset, and with the beginning
//! of a subscription.
//!
//! A message is encoded once for all of a topic's subscribers, straight into what they are sent: the lengths are known
//! beforehand, so nothing is built first and copied then. Fields that have their default are left out, as proto3 does.

use super::write_prefix;
use crate::codec::Kind;
use crate::codec::json::Place;

/// What comes before a field: `number << 3 | 2`, of a field that has a length, and `number << 3`, of a number.
const fn bytes_tag(number: u8) -> u8 {
    number << 3 | 2
}

const fn number_tag(number: u8) -> u8 {
    number << 3
}

/// Fields of `ServerFrame`.
const MESSAGE: u8 = 2;
const SUBSCRIBED: u8 = 3;
const RESET: u8 = 6;

/// Appends a message of a topic, with its prefix. `time_ms` is Unix time. Text must be UTF-8. `trace` is a traceparent and a
/// tracestate, which may be empty.
pub fn write_message(
    place: Place<'_>,
    time_ms: u64,
    kind: Kind,
    payload: &[u8],
    trace: Option<(&str, &str)>,
    out: &mut Vec<u8>,
) {
    let number = match kind {
        Kind::Text => 4,
        Kind::Binary => 5,
    };
    let (parent, state) = trace.unwrap_or_default();
    let texts = [(6, parent), (7, state)].into_iter().filter(|(_, text)| !text.is_empty());
    let text_bytes: usize = texts.clone().map(|(_, text)| bytes_bytes(text.len())).sum();
    let bytes = place_bytes(place, true) + number_bytes(time_ms) + bytes_bytes(payload.len()) + text_bytes;
    open(MESSAGE, bytes, out);
    write_place(place, true, out);
    write_number(3, time_ms, out);
    write_bytes(number, payload, out);
    texts.for_each(|(number, text)| write_bytes(number, text.as_bytes(), out));
}

/// Appends that what was asked for is lost, and that the stream goes on after this place.
pub fn write_reset(place: Place<'_>, out: &mut Vec<u8>) {
    open(RESET, place_bytes(place, true), out);
    write_place(place, true, out);
}

/// Appends that a subscription begins: its topic, and the place after which the live stream does, but not in a queue group,
/// which has none.
pub fn write_subscribed(place: Place<'_>, has_cursor: bool, out: &mut Vec<u8>) {
    open(SUBSCRIBED, place_bytes(place, has_cursor), out);
    write_place(place, has_cursor, out);
}

/// The prefix, and a `ServerFrame` up to the bytes of its only field.
fn open(field: u8, bytes: usize, out: &mut Vec<u8>) {
    let frame_bytes = bytes_bytes(bytes);
    out.reserve(super::PREFIX_BYTES + frame_bytes);
    write_prefix(frame_bytes, out);
    out.push(bytes_tag(field));
    write_varint(bytes as u64, out);
}

/// The fields 1 and 2 of all these messages: a topic and a cursor.
fn write_place(place: Place<'_>, has_cursor: bool, out: &mut Vec<u8>) {
    if !place.topic.is_empty() {
        write_bytes(1, place.topic.as_bytes(), out);
    }
    if has_cursor {
        out.push(bytes_tag(2));
        write_varint(cursor_bytes(place) as u64, out);
        write_number(1, place.epoch, out);
        write_number(2, place.offset, out);
    }
}

fn place_bytes(place: Place<'_>, has_cursor: bool) -> usize {
    let topic = if place.topic.is_empty() { 0 } else { bytes_bytes(place.topic.len()) };
    topic + if has_cursor { bytes_bytes(cursor_bytes(place)) } else { 0 }
}

fn cursor_bytes(place: Place<'_>) -> usize {
    number_bytes(place.epoch) + number_bytes(place.offset)
}

/// A field with a length: tag, length, bytes.
fn write_bytes(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(bytes_tag(number));
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

const fn bytes_bytes(bytes: usize) -> usize {
    1 + varint_bytes(bytes as u64) + bytes
}

fn write_number(number: u8, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        out.push(number_tag(number));
        write_varint(value, out);
    }
}

const fn number_bytes(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_bytes(value) }
}

/// Seven bits a byte, the low ones first; a high bit says that more follow.
fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

const fn varint_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use prost::Message as _;

    use super::*;
    use crate::codec::grpc::generated::edge::{self, message::Payload, server_frame::Frame};

    /// A frame as prost writes it, behind its prefix.
    fn framed(frame: Frame) -> Vec<u8> {
        let mut out = Vec::new();
        crate::codec::grpc::encode(&edge::ServerFrame { id: 0, frame: Some(frame) }.encode_to_vec(), &mut out);
        out
    }

    fn places() -> Vec<(String, u64, u64)> {
        let numbers = [0, 1, 127, 128, 16_383, 16_384, 1_795_871_336_637, i64::MAX as u64, u64::MAX];
        let topics = ["", "t", &"n".repeat(127), &"n".repeat(128), "zoë"].map(str::to_owned);
        let each = |topic: String| numbers.into_iter().map(move |number| (topic.clone(), number, number / 3));
        topics.into_iter().flat_map(each).collect()
    }

    #[test]
    fn frames_are_those_that_prost_writes() {
        for (topic, epoch, offset) in places() {
            let place = Place { topic: &topic, epoch, offset };
            let cursor = Some(edge::Cursor { epoch, offset });
            let mut out = Vec::new();
            write_reset(place, &mut out);
            assert_eq!(out, framed(Frame::Reset(edge::Reset { topic: topic.clone(), cursor })));
            for cursor in [cursor, None] {
                out.clear();
                write_subscribed(place, cursor.is_some(), &mut out);
                assert_eq!(out, framed(Frame::Subscribed(edge::Subscribed { topic: topic.clone(), cursor })));
            }
        }
    }

    #[test]
    fn messages_are_those_that_prost_writes() {
        for (topic, epoch, offset) in places() {
            let place = Place { topic: &topic, epoch, offset };
            for payload in ["", "hi", &"x".repeat(127), &"x".repeat(128), &"x".repeat(100_000)] {
                let (parent, state) = [("", ""), ("00-1-2-01", ""), ("00-1-2-01", "a=b")][payload.len() % 3];
                for kind in [Kind::Text, Kind::Binary] {
                    let time_ms = epoch >> 1;
                    let said = match kind {
                        Kind::Text => Payload::Text(payload.to_owned()),
                        Kind::Binary => Payload::Binary(payload.as_bytes().to_vec()),
                    };
                    let message = edge::Message {
                        topic: topic.clone(),
                        cursor: Some(edge::Cursor { epoch, offset }),
                        time_ms: i64::try_from(time_ms).unwrap(),
                        payload: Some(said),
                        traceparent: parent.to_owned(),
                        tracestate: state.to_owned(),
                    };
                    let mut out = b"before".to_vec();
                    let trace = (!parent.is_empty()).then_some((parent, state));
                    write_message(place, time_ms, kind, payload.as_bytes(), trace, &mut out);
                    assert!(out[6..] == framed(Frame::Message(message)), "{topic} {epoch} {} {kind:?}", payload.len());
                }
            }
        }
    }
}
