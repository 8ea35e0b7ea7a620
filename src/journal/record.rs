//! One record of a journal: a message, or how far a topic's offsets have come.
//!
//! All numbers are little-endian.
//!
//! ```text
//!  0  length   u32   bytes of the record behind this field and the next one
//!  4  checksum u32   CRC-32 (IEEE 802.3) of the place and of those bytes
//!  8  batch    u32   position in its segment at which the commit begins that it is part of
//! 12  kind     u8    1 text, 2 binary, 3 a cursor
//! 13  topic    u8    bytes of the topic's name
//! 14  key      u16   bytes of the idempotency key
//! 16  epoch    u64
//! 24  offset   u64
//! 32  time     u64   milliseconds of Unix time
//! 40  trace    u16   bytes of the trace that the message belongs to; 0 for none
//! 42  topic, key, trace (traceparent, then tracestate), payload
//! ```
//!
//! The place, a segment's number and the position in it, goes into the checksum although it is not written: so a record is
//! one only where it was written, and neither what an older file left on the disk nor what a publisher has put into a
//! payload is taken for one.

use crate::codec::Kind;
use crate::codec::trace::{Parent, Trace};
use crate::message::{Cursor, Epoch, Message, Offset, Topic};

/// Bytes in front of a record's texts.
pub const HEADER_BYTES: usize = 42;
/// Bytes in front of what a record's length counts.
const PREFIX_BYTES: usize = 8;
/// Bytes of an idempotency key at most.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CURSOR: u8 = 3;

/// Where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The number of its segment.
    pub segment: u64,
    /// Bytes of the segment before it.
    pub position: u64,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A message.
    Message {
        /// Text or binary.
        kind: Kind,
        /// The idempotency key that it was published with.
        key: Option<&'a str>,
        /// The trace that it belongs to.
        trace: Option<Trace<'a>>,
        /// What the publisher said.
        payload: &'a [u8],
    },
    /// No message: the topic's messages up to here are gone, and the next one comes after this offset.
    Cursor,
}

/// A record as it lies in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where in its segment the commit begins that it is part of.
    pub batch: u32,
    /// The topic's name.
    pub topic: &'a str,
    /// The message's place in its topic.
    pub cursor: Cursor,
    /// When the topic's owner took it, milliseconds of Unix time.
    pub time_ms: u64,
    /// What it says.
    pub content: Content<'a>,
}

/// Why there is no record at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRecord {
    /// Fewer bytes than it should have.
    #[error("it is cut off")]
    Short,
    /// Lengths that do not fit each other, a kind that does not exist, a name that is none.
    #[error("it is no record")]
    Malformed,
    /// Not what was written.
    #[error("its checksum is wrong")]
    Checksum,
}

impl<'a> Record<'a> {
    /// A message's record.
    #[must_use]
    pub fn of(message: &'a Message, key: Option<&'a str>) -> Self {
        Self {
            batch: 0,
            topic: message.topic.as_str(),
            cursor: message.cursor(),
            time_ms: message.time_ms,
            content: Content::Message {
                kind: message.kind(),
                key: key.filter(|key| key.len() <= KEY_BYTES_MAX),
                trace: message.trace(),
                payload: message.payload(),
            },
        }
    }

    /// A place without a message.
    #[must_use]
    pub const fn of_cursor(topic: &'a str, cursor: Cursor, time_ms: u64) -> Self {
        Self { batch: 0, topic, cursor, time_ms, content: Content::Cursor }
    }

    /// How many bytes it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        let texts = match self.content {
            Content::Message { key, trace, payload, .. } => {
                key.map_or(0, str::len) + trace.map_or(0, |trace| trace_bytes(&trace)) + payload.len()
            }
            Content::Cursor => 0,
        };
        HEADER_BYTES + self.topic.len() + texts
    }

    /// Appends it, as it is to stand at `place`.
    ///
    /// # Panics
    /// When the topic's name, the key or the payload is longer than any that the server takes.
    pub fn write(&self, place: Place, out: &mut Vec<u8>) {
        let (kind, key, trace, payload) = match self.content {
            Content::Message { kind: Kind::Text, key, trace, payload } => (TEXT, key, trace, payload),
            Content::Message { kind: Kind::Binary, key, trace, payload } => (BINARY, key, trace, payload),
            Content::Cursor => (CURSOR, None, None, &[][..]),
        };
        let key = key.unwrap_or_default();
        let traced = trace.as_ref().map_or(0, trace_bytes);
        let length = u32::try_from(self.size() - PREFIX_BYTES).expect("a message is bounded far below 4 GiB");
        let mut head = [0; HEADER_BYTES];
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[8..12].copy_from_slice(&self.batch.to_le_bytes());
        head[12] = kind;
        head[13] = u8::try_from(self.topic.len()).expect("a topic's name is at most 255 bytes");
        head[14..16].copy_from_slice(&u16::try_from(key.len()).expect("a key is at most KEY_BYTES_MAX").to_le_bytes());
        for (number, at) in [self.cursor.epoch.0, self.cursor.offset.0, self.time_ms].into_iter().zip([16, 24, 32]) {
            head[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        head[40..].copy_from_slice(&u16::try_from(traced).expect("a state is at most 512 bytes").to_le_bytes());
        let start = out.len();
        out.reserve(self.size());
        out.extend_from_slice(&head);
        out.extend_from_slice(self.topic.as_bytes());
        out.extend_from_slice(key.as_bytes());
        if let Some(trace) = trace {
            out.extend_from_slice(&trace.parent.to_bytes());
            out.extend_from_slice(trace.state.as_bytes());
        }
        out.extend_from_slice(payload);
        let sum = checksum(place, &out[start + PREFIX_BYTES..]);
        out[start + 4..start + PREFIX_BYTES].copy_from_slice(&sum.to_le_bytes());
    }

    /// The record at the beginning of `bytes`, which begin at `place`.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(bytes: &'a [u8], place: Place) -> Result<Self, NoRecord> {
        let header = bytes.get(..HEADER_BYTES).ok_or(NoRecord::Short)?;
        let length = u32_at(header, 0) as usize;
        let (topic_bytes, key_bytes) = (usize::from(header[13]), usize::from(u16_at(header, 14)));
        let trace_bytes = usize::from(u16_at(header, 40));
        let texts = HEADER_BYTES - PREFIX_BYTES + topic_bytes + key_bytes + trace_bytes;
        if topic_bytes == 0 || length < texts || !(TEXT..=CURSOR).contains(&header[12]) {
            return Err(NoRecord::Malformed);
        }
        let body = bytes.get(PREFIX_BYTES..PREFIX_BYTES + length).ok_or(NoRecord::Short)?;
        if checksum(place, body) != u32_at(header, 4) {
            return Err(NoRecord::Checksum);
        }
        let (topic, rest) = body[HEADER_BYTES - PREFIX_BYTES..].split_at(topic_bytes);
        let (key, rest) = rest.split_at(key_bytes);
        let (trace, payload) = rest.split_at(trace_bytes);
        // What was written was text; the checksum is right, so this is of a faulty or foreign writer.
        let text = |bytes| simdutf8::basic::from_utf8(bytes).map_err(|_| NoRecord::Malformed);
        let key = if key.is_empty() { None } else { Some(text(key)?) };
        let trace = trace.split_at_checked(Parent::BYTES);
        let trace = trace.and_then(|(parent, state)| Trace::parse(parent, Some(state)));
        let content = match header[12] {
            TEXT => Content::Message { kind: Kind::Text, key, trace, payload },
            BINARY => Content::Message { kind: Kind::Binary, key, trace, payload },
            _ if length == texts && key_bytes + trace_bytes == 0 => Content::Cursor,
            _ => return Err(NoRecord::Malformed),
        };
        Ok(Self {
            batch: u32_at(header, 8),
            topic: text(topic)?,
            cursor: Cursor { epoch: Epoch(u64_at(header, 16)), offset: Offset(u64_at(header, 24)) },
            time_ms: u64_at(header, 32),
            content,
        })
    }

    /// The message, if it is one, of a topic whose name this record has.
    #[must_use]
    pub fn message(&self, topic: &Topic) -> Option<Message> {
        let Content::Message { kind, trace, payload, .. } = self.content else { return None };
        let mut message = Message::traced(topic.clone(), kind, payload, None, trace);
        (message.epoch, message.offset, message.time_ms) = (self.cursor.epoch, self.cursor.offset, self.time_ms);
        Some(message)
    }
}

fn trace_bytes(trace: &Trace<'_>) -> usize {
    Parent::BYTES + trace.state.len()
}

fn checksum(place: Place, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place.segment.to_le_bytes());
    hasher.update(&place.position.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests;
