//! What stands beside a message's payload on its way through NATS: one header with a line of words.
//!
//! ```text
//!   node kind time publisher said [traceparent [tracestate]]
//!
//!   1f00d6c2a91b7e44 t 1790000000000 3.2a:0 - 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//! ```
//!
//! `node` is hexadecimal, `kind` is `t` (text), `b` (binary) or `-` (there is no message), `time` is Unix time in milliseconds,
//! `publisher` is a shard and a connection of the node, or `-`, `said` is a life and a number, or `-`. Whatever else comes from
//! NATS is foreign, and no envelope.

use super::port::{NodeId, Said};
use crate::codec::trace::Trace;
use crate::id::{ConnId, ShardId};
use crate::message::{Cursor, Epoch, KEY_BYTES_MAX, Kind, Message, Publisher, Topic};

/// The name of the header.
pub const HEADER: &str = "Holdline";

/// Bytes of its value at most: the words without the trace, a `traceparent`, a `tracestate`.
pub const BYTES_MAX: usize = 128 + 56 + Trace::STATE_BYTES_MAX;

/// Bytes of all headers of a message at most, which NATS counts with its payload: the first line, this one, a key, the end.
pub const HEADERS_MAX: usize = "NATS/1.0\r\n".len()
    + HEADER.len()
    + BYTES_MAX
    + "Nats-Msg-Id: ".len()
    + KEY_PREFIX.len()
    + 3 * KEY_BYTES_MAX
    + 4 * "\r\n".len();

/// What is told of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Where it was published.
    pub node: NodeId,
    /// What it is; `None` where there is no message.
    pub kind: Option<Kind>,
    /// When its publisher's node took it, Unix time.
    pub time_ms: u64,
    /// The connection there.
    pub publisher: Option<Publisher>,
    /// Which one of its origin's messages it is, where the topic is plain.
    pub said: Option<Said>,
    /// The trace that it belongs to.
    pub trace: Option<Trace<'a>>,
}

impl<'a> Envelope<'a> {
    /// The one for a message that is published on this node.
    #[must_use]
    pub fn of(node: NodeId, message: &'a Message, said: Option<Said>) -> Self {
        let Message { time_ms, publisher, .. } = *message;
        Self { node, kind: Some(message.kind()), time_ms, publisher, said, trace: message.trace() }
    }

    /// The one for what is no message.
    #[must_use]
    pub const fn bare(node: NodeId, said: Option<Said>) -> Self {
        Self { node, kind: None, time_ms: 0, publisher: None, said, trace: None }
    }

    /// The header's value.
    #[must_use]
    pub fn write(&self) -> String {
        let kind = match self.kind {
            Some(Kind::Text) => 't',
            Some(Kind::Binary) => 'b',
            None => '-',
        };
        let mut text = format!("{:x} {kind} {}", self.node.0, self.time_ms);
        match self.publisher {
            Some(Publisher { shard, connection }) => text.push_str(&format!(" {}.{:x}", shard.0, connection.bits())),
            None => text.push_str(" -"),
        }
        match self.said {
            Some(Said { life, number }) => text.push_str(&format!(" {}:{number}", life.0)),
            None => text.push_str(" -"),
        }
        if let Some(Trace { parent, state }) = self.trace {
            text.push(' ');
            text.extend(parent.to_bytes().into_iter().map(char::from));
            if !state.is_empty() {
                text.push(' ');
                text.push_str(state);
            }
        }
        text
    }

    /// What a header's value says, unless it is foreign. A trace that is none is left out.
    #[must_use]
    pub fn read(text: &'a str) -> Option<Self> {
        if text.len() > BYTES_MAX {
            return None;
        }
        let mut words = text.splitn(7, ' ');
        let node = NodeId(hexadecimal(words.next()?)?);
        let kind = match words.next()? {
            "t" => Some(Kind::Text),
            "b" => Some(Kind::Binary),
            "-" => None,
            _ => return None,
        };
        let time_ms = decimal(words.next()?)?;
        let publisher = match words.next()? {
            "-" => None,
            word => Some(publisher(word)?),
        };
        let said = match words.next()? {
            "-" => None,
            word => {
                let (life, number) = word.split_once(':')?;
                Some(Said { life: Epoch(decimal(life)?), number: decimal(number)? })
            }
        };
        let parent = words.next();
        let state = words.next().map(str::as_bytes);
        let trace = parent.and_then(|parent| Trace::parse(parent.as_bytes(), state));
        Some(Self { node, kind, time_ms, publisher, said, trace })
    }

    /// The message that it belongs to, if there is one: with its publisher on the publisher's node alone.
    #[must_use]
    pub fn message(&self, here: NodeId, topic: &Topic, payload: &[u8]) -> Option<Message> {
        let kind = self.kind?;
        // What says that it is text and is none would break those who read it as text.
        let is_text = kind == Kind::Text && simdutf8::basic::from_utf8(payload).is_ok();
        let kind = if is_text { Kind::Text } else { Kind::Binary };
        let publisher = self.publisher.filter(|_| self.node == here);
        let mut message = Message::traced(topic.clone(), kind, payload, publisher, self.trace);
        message.time_ms = self.time_ms;
        Some(message)
    }
}

/// A message that something else than a node has put into a topic's stream: it has a place there, and so it is one here.
#[must_use]
pub fn foreign(topic: &Topic, payload: &[u8], time_ms: u64) -> Message {
    let is_text = simdutf8::basic::from_utf8(payload).is_ok();
    let kind = if is_text { Kind::Text } else { Kind::Binary };
    let mut message = Message::new(topic.clone(), kind, payload, None);
    message.time_ms = time_ms;
    message
}

/// Puts a message where its stream has it.
pub const fn place(message: &mut Message, cursor: Cursor) {
    message.epoch = cursor.epoch;
    message.offset = cursor.offset;
}

/// What stands before a client's key, so that none is taken for what others use the header for.
const KEY_PREFIX: &str = "k:";

/// The `Nats-Msg-Id` of what is published with this key.
#[must_use]
pub fn write_key(key: &str) -> String {
    let mut text = KEY_PREFIX.to_owned();
    for byte in key.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02x}"));
        }
    }
    text
}

/// The key of a `Nats-Msg-Id`, where a node has written it.
#[must_use]
pub fn read_key(text: &str) -> Option<String> {
    let mut rest = text.strip_prefix(KEY_PREFIX)?.as_bytes();
    let mut key = Vec::with_capacity(rest.len());
    while let Some((&first, behind)) = rest.split_first() {
        if first == b'%' {
            let digits = str::from_utf8(behind.get(..2)?).ok()?;
            key.push(u8::try_from(hexadecimal(digits)?).ok()?);
            rest = &behind[2..];
        } else {
            key.push(first);
            rest = behind;
        }
    }
    String::from_utf8(key).ok()
}

fn publisher(word: &str) -> Option<Publisher> {
    let (shard, connection) = word.split_once('.')?;
    let shard = ShardId(u16::try_from(decimal(shard)?).ok()?);
    Some(Publisher { shard, connection: ConnId::from_bits(hexadecimal(connection)?) })
}

/// Digits only: `parse` alone would take a sign.
fn decimal(word: &str) -> Option<u64> {
    word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok()).flatten()
}

fn hexadecimal(word: &str) -> Option<u64> {
    let is_number = word.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| u64::from_str_radix(word, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use proptest::prelude::*;

    use super::*;

    const HERE: NodeId = NodeId(0x1f);
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn topic() -> Topic {
        Topic::parse(b"room/7", Topic::BYTES_MAX).unwrap()
    }

    fn full() -> Envelope<'static> {
        Envelope {
            node: HERE,
            kind: Some(Kind::Text),
            time_ms: 1_790_000_000_000,
            publisher: Some(Publisher { shard: ShardId(3), connection: ConnId::new(42, 1) }),
            said: Some(Said { life: Epoch(5), number: 7 }),
            trace: Trace::parse(PARENT.as_bytes(), Some(b"a=1,b=2")),
        }
    }

    #[test]
    fn an_envelope_is_a_line_of_words() {
        let text = full().write();
        assert_eq!(text, format!("1f t 1790000000000 3.10000002a 5:7 {PARENT} a=1,b=2"));
        assert_eq!(Envelope::read(&text), Some(full()));
        let bare = Envelope::bare(NodeId(u64::MAX), None);
        assert_eq!(bare.write(), "ffffffffffffffff - 0 - -");
        assert_eq!(Envelope::read(&bare.write()), Some(bare));
    }

    #[test]
    fn a_publisher_is_known_where_it_is() {
        let text = full().write();
        let there = Envelope::read(&text).unwrap();
        let message = there.message(HERE, &topic(), b"hi").unwrap();
        assert_eq!((message.publisher, message.payload()), (full().publisher, &b"hi"[..]));
        assert_eq!((message.time_ms, message.kind()), (1_790_000_000_000, Kind::Text));
        assert_eq!(message.trace(), full().trace);
        assert_eq!(there.message(NodeId(2), &topic(), b"hi").unwrap().publisher, None);
        let said = Envelope::of(HERE, &message, full().said).write();
        assert_eq!(said, text, "what is read is written again");
    }

    #[test]
    fn what_is_no_text_is_binary() {
        assert_eq!(full().message(HERE, &topic(), b"\xff").unwrap().kind(), Kind::Binary);
        assert_eq!(foreign(&topic(), b"\xff", 1).kind(), Kind::Binary);
        assert_eq!(foreign(&topic(), b"x", 1).kind(), Kind::Text);
        assert!(Envelope::bare(HERE, None).message(HERE, &topic(), b"x").is_none());
    }

    #[test]
    fn what_is_foreign_is_no_envelope() {
        for text in [
            "",
            "1f",
            "1f t",
            "1f t 1 - ",
            "xx t 1 - -",
            "+1f t 1 - -",
            "11111111111111111 t 1 - -",
            "1f x 1 - -",
            "1f t -1 - -",
            "1f t 1 70000.1 -",
            "1f t 1 1 -",
            "1f t 1 - 5",
            "1f t 1 - 5:+7",
        ] {
            assert_eq!(Envelope::read(text), None, "{text}");
        }
        assert_eq!(Envelope::read(&format!("1f t 1 - - {}", "x".repeat(BYTES_MAX))), None);
        assert_eq!(Envelope::read("1f t 1 - - not-a-trace").unwrap().trace, None);
    }

    #[test]
    fn keys_are_told_from_what_others_use_the_header_for() {
        assert_eq!(write_key("a b%ü"), "k:a%20b%25%c3%bc");
        for text in ["", "a", "k:%", "k:%2", "k:%zz", "k:%ff", "k:%+1"] {
            assert_eq!(read_key(text), None, "{text}");
        }
    }

    #[test]
    fn all_headers_have_room() {
        let topic = Topic::parse(b"t", 9).unwrap();
        let publisher = Publisher { shard: ShardId(u16::MAX), connection: ConnId::from_bits(u64::MAX) };
        let state = format!("a={}", "x".repeat(Trace::STATE_BYTES_MAX - 2));
        let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::parse(parent, Some(state.as_bytes())).or_else(|| Trace::parse(parent, None));
        let mut message = Message::traced(topic, Kind::Text, b"", Some(publisher), trace);
        message.time_ms = u64::MAX;
        let said = Said { life: Epoch(u64::MAX), number: u64::MAX };
        let value = Envelope::of(NodeId(u64::MAX), &message, Some(said)).write();
        let key = write_key(&"é".repeat(KEY_BYTES_MAX / 2));
        let all = format!("NATS/1.0\r\n{HEADER}: {value}\r\nNats-Msg-Id: {key}\r\n\r\n");
        assert!(value.len() <= BYTES_MAX && all.len() <= HEADERS_MAX, "{} {} {}", value.len(), all.len(), HEADERS_MAX);
    }

    proptest! {
        #[test]
        fn keys_come_back(key in "\\PC{0,40}") {
            let text = write_key(&key);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(read_key(&text), Some(key));
        }

        #[test]
        fn no_text_panics(text in "[0-9a-f t:.%-]{0,60}") {
            if let Some(envelope) = Envelope::read(&text) {
                let again = envelope.write();
                prop_assert_eq!(Envelope::read(&again), Some(envelope));
            }
            let _ = read_key(&text);
        }
    }
}
