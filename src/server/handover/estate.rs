//! What a process leaves to the one that follows, beside its listeners: where its topics stand, their histories, and the
//! tokens that were used. A stream of bytes, cut into frames wherever one is full.
//!
//! ```text
//!  1 topic    name 1+n, epoch 8, offset 8, messages 4, then each of them:
//!             kind 1, age 4 (ms), time 8 (Unix ms), key 1+n, traceparent and tracestate 2+n, payload 4+n
//!  2 epoch    8: the newest one that there was
//!  3 token    number 16, good until 8 (Unix seconds)
//! ```
//!
//! Numbers are big-endian, `1+n` is a length in one byte and so many bytes. A process that ends in the middle has left
//! what is whole.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;

use super::wire::strange;
use crate::codec::trace::{Parent, Trace};
use crate::hub::topics::{Left, Legacy};
use crate::message::{Cursor, Epoch, Kind, Message, Offset, Topic};

const TOPIC: u8 = 1;
const EPOCH: u8 = 2;
const TOKEN: u8 = 3;

/// A used token: its number, and the Unix second until which it is good.
pub(super) type Used = ([u8; 16], u64);

/// All that a process leaves.
#[derive(Debug, Default)]
pub(in crate::server) struct Estate {
    pub(in crate::server) topics: Vec<Legacy>,
    /// The newest epoch of any topic there was.
    pub(in crate::server) epoch: Epoch,
    pub(in crate::server) used: Vec<Used>,
}

impl Estate {
    /// Reads the whole stream, or as much of it as comes: what went wrong then is told beside.
    pub(super) fn read(mut from: impl Read) -> (Self, io::Result<()>) {
        let mut estate = Self::default();
        let result = loop {
            match estate.read_one(&mut from) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        (estate, result)
    }

    /// Returns whether there was another one.
    fn read_one(&mut self, from: &mut impl Read) -> io::Result<bool> {
        let mut tag = [0];
        if from.read(&mut tag)? == 0 {
            return Ok(false);
        }
        match tag[0] {
            TOPIC => self.topics.push(read_topic(from)?),
            EPOCH => self.epoch = self.epoch.max(Epoch(read_u64(from)?)),
            TOKEN => self.used.push((array(from)?, read_u64(from)?)),
            other => return Err(strange(&format!("its estate has what is unknown here, {other}"))),
        }
        Ok(true)
    }
}

/// Appends a topic.
pub(super) fn write_topic(legacy: &Legacy, out: &mut Vec<u8>) {
    let Legacy { topic, cursor, messages } = legacy;
    out.push(TOPIC);
    write_short(topic.as_str().as_bytes(), out);
    out.extend_from_slice(&cursor.epoch.0.to_be_bytes());
    out.extend_from_slice(&cursor.offset.0.to_be_bytes());
    // Histories are of fewer messages, and messages of fewer bytes.
    out.extend_from_slice(&u32::try_from(messages.len()).unwrap_or(u32::MAX).to_be_bytes());
    for Left { message, age_ms, key } in messages {
        out.push(u8::from(message.kind() == Kind::Binary));
        out.extend_from_slice(&age_ms.to_be_bytes());
        out.extend_from_slice(&message.time_ms.to_be_bytes());
        write_short(key.as_deref().unwrap_or_default().as_bytes(), out);
        write_trace(message.trace(), out);
        out.extend_from_slice(&u32::try_from(message.payload().len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(message.payload());
    }
}

/// Appends the newest epoch.
pub(super) fn write_epoch(epoch: Epoch, out: &mut Vec<u8>) {
    out.push(EPOCH);
    out.extend_from_slice(&epoch.0.to_be_bytes());
}

/// Appends a used token.
pub(super) fn write_used((number, until): Used, out: &mut Vec<u8>) {
    out.push(TOKEN);
    out.extend_from_slice(&number);
    out.extend_from_slice(&until.to_be_bytes());
}

fn write_short(bytes: &[u8], out: &mut Vec<u8>) {
    let bytes = &bytes[..bytes.len().min(usize::from(u8::MAX))];
    out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(bytes);
}

fn write_trace(trace: Option<Trace<'_>>, out: &mut Vec<u8>) {
    let length = trace.map_or(0, |trace| Parent::BYTES + trace.state.len());
    out.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
    if let Some(trace) = trace {
        out.extend_from_slice(&trace.parent.to_bytes());
        out.extend_from_slice(trace.state.as_bytes());
    }
}

fn read_topic(from: &mut impl Read) -> io::Result<Legacy> {
    let name = read_short(from)?;
    let topic = Topic::parse(&name, Topic::BYTES_MAX).map_err(|error| strange(&error.to_string()))?;
    let cursor = Cursor { epoch: Epoch(read_u64(from)?), offset: Offset(read_u64(from)?) };
    let count = u32::from_be_bytes(array(from)?);
    let messages = (0..count).map(|_| read_message(&topic, from)).collect::<io::Result<_>>()?;
    Ok(Legacy { topic, cursor, messages })
}

fn read_message(topic: &Topic, from: &mut impl Read) -> io::Result<Left> {
    let [kind] = array(from)?;
    let kind = if kind == 0 { Kind::Text } else { Kind::Binary };
    let (age_ms, time_ms) = (u32::from_be_bytes(array(from)?), read_u64(from)?);
    let key = read_short(from)?;
    let key = str::from_utf8(&key).map_err(|_| strange("a key is no text"))?;
    let length = u16::from_be_bytes(array(from)?);
    let trace = read_bytes(from, u32::from(length))?;
    let trace = trace.split_at_checked(Parent::BYTES).and_then(|(parent, state)| Trace::parse(parent, Some(state)));
    let length = u32::from_be_bytes(array(from)?);
    let payload = read_bytes(from, length)?;
    let mut message = Message::traced(topic.clone(), kind, &payload, None, trace);
    message.time_ms = time_ms;
    let key = Some(key).filter(|key| !key.is_empty()).map(Arc::from);
    Ok(Left { message, age_ms, key })
}

fn read_short(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let [length] = array(from)?;
    read_bytes(from, u32::from(length))
}

/// So many bytes. It takes no more memory than comes.
fn read_bytes(from: &mut impl Read, length: u32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() == length as usize { Ok(bytes) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

fn read_u64(from: &mut impl Read) -> io::Result<u64> {
    array(from).map(u64::from_be_bytes)
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn left(kind: Kind, payload: &[u8], key: Option<&str>, state: Option<&str>) -> Left {
        let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = state.and_then(|state| Trace::parse(parent, Some(state.as_bytes())));
        let topic = Topic::parse(b"a/b", Topic::BYTES_MAX).unwrap();
        let mut message = Message::traced(topic, kind, payload, None, trace);
        message.time_ms = 1_795_871_336_637;
        Left { message, age_ms: 4_000_000_000, key: key.map(Arc::from) }
    }

    fn legacy() -> Legacy {
        let messages = vec![
            left(Kind::Text, "hellö".as_bytes(), None, None),
            left(Kind::Binary, &[0; 70_000], Some("key"), Some("a=b")),
            left(Kind::Text, b"", Some(&"k".repeat(255)), Some("")),
        ];
        let cursor = Cursor { epoch: Epoch(7), offset: Offset(u64::MAX) };
        Legacy { topic: messages[0].message.topic.clone(), cursor, messages }
    }

    fn text(estate: &Estate) -> Vec<String> {
        let message = |Left { message, age_ms, key }: &Left| {
            let trace = message.trace().map(|trace| (trace.parent.to_bytes(), trace.state.to_owned()));
            format!("{:?} {:?} {age_ms} {} {key:?} {trace:?}", message.kind(), message.payload(), message.time_ms)
        };
        let topic = |legacy: &Legacy| {
            let messages: Vec<_> = legacy.messages.iter().map(message).collect();
            format!("{} {} {messages:?}", legacy.topic, legacy.cursor)
        };
        estate.topics.iter().map(topic).collect()
    }

    #[test]
    fn what_was_left_arrives() {
        let mut bytes = Vec::new();
        write_epoch(Epoch(9), &mut bytes);
        write_topic(&legacy(), &mut bytes);
        write_used(([3; 16], 77), &mut bytes);
        write_topic(&Legacy { messages: Vec::new(), ..legacy() }, &mut bytes);
        write_epoch(Epoch(8), &mut bytes);
        let (estate, result) = Estate::read(&bytes[..]);
        result.unwrap();
        assert_eq!((estate.epoch, &estate.used[..]), (Epoch(9), &[([3; 16], 77)][..]));
        let sent = Estate { topics: vec![legacy(), Legacy { messages: Vec::new(), ..legacy() }], ..Estate::default() };
        assert!(text(&estate) == text(&sent), "{:.2000?}", text(&estate));
    }

    #[test]
    fn of_what_ends_early_all_is_kept_that_is_whole_and_nothing_else_is_taken() {
        let mut bytes = Vec::new();
        write_epoch(Epoch(9), &mut bytes);
        write_topic(
            &Legacy { messages: vec![left(Kind::Text, b"hi", Some("k"), Some("a=b"))], ..legacy() },
            &mut bytes,
        );
        let first = bytes.len();
        write_used(([3; 16], 77), &mut bytes);
        for end in 1..bytes.len() {
            let (estate, result) = Estate::read(&bytes[..end]);
            assert_eq!(estate.topics.len(), usize::from(end >= first), "{end}");
            assert_eq!(result.is_ok(), end == 9 || end == first, "{end}");
        }
        bytes.push(99);
        let said = Estate::read(&bytes[..]).1.unwrap_err().to_string();
        assert_eq!(said, "its estate has what is unknown here, 99");
        for bad in [&b"\x01\0"[..], b"\x01\x02\xff\xff", b"\x01\x01 "] {
            assert!(Estate::read(bad).1.is_err(), "{bad:?}");
        }
        // A length is a claim, not a reason to take so much memory.
        let mut claims = vec![TOPIC, 1, b't'];
        claims.extend_from_slice(&[0; 16]);
        claims.extend_from_slice(&[0xff; 4]);
        assert!(Estate::read(&claims[..]).1.is_err());
    }
}
