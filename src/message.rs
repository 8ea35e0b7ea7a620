//! A message, from the one copy of its payload to the frames that subscribers get.
//!
//! The payload is copied once, from the receive buffer into a shared allocation that holds it between a WebSocket
//! header and a newline: so the WebSocket frame and (unless the payload has line breaks of its own) the line frame need
//! no copy of their own. Other formats are encoded once by the topic's owner when anyone wants them.

mod place;
mod topic;
mod wire;

use std::iter::repeat_n;
use std::sync::Arc;

pub use crate::codec::Kind;
use crate::codec::http1::stream::write_chunk;
use crate::codec::trace::{Parent, Trace};
use crate::codec::websocket::deflate::Deflater;
use crate::codec::websocket::frame;
use crate::codec::{grpc, json, length, line, sse};
use crate::id::{ConnId, ShardId};
use crate::time::Stamp;

pub use self::place::{BadCursor, Cursor, Epoch, Offset};
pub use self::topic::{Topic, TopicError};
pub use self::wire::{Image, Wants, Wire};

/// Who published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Publisher {
    /// Its shard.
    pub shard: ShardId,
    /// Its connection there.
    pub connection: ConnId,
}

/// Bytes of an idempotency key of a client at most.
pub const KEY_BYTES_MAX: usize = 255;

/// One message of one topic.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it belongs.
    pub topic: Topic,
    /// Which past of the topic `offset` counts in, given by the topic's owner.
    pub epoch: Epoch,
    /// Its place, given by the topic's owner.
    pub offset: Offset,
    /// When the owner took it, and before that, when it came, Unix time.
    pub time_ms: u64,
    /// The connection that sent it, `None` for the server itself.
    pub publisher: Option<Publisher>,
    /// When the publisher's shard took it, for measurements.
    pub taken: Stamp,
    body: Body,
    /// Bytes of the WebSocket header in front of the payload in `wire`.
    head: u8,
    /// Bytes of the trace behind the newline in `wire`; most messages have none.
    trace_bytes: u16,
    /// WebSocket header, payload, newline; and behind them, where the message belongs to a trace, a `traceparent` and a
    /// `tracestate`.
    wire: Arc<[u8]>,
    /// Formats that do not lie in `wire`.
    encoded: Option<Arc<Encoded>>,
}

// Topic 16; epoch, offset, time 24; publisher 24; stamp, kind, head 8 with 2 to spare; wire 16; encoded 8. Histories hold
// hundreds for each topic.
const _: () = assert!(size_of::<Message>() == 96);

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Text,
    Binary,
    /// Not what somebody has published: the topic's past has ended.
    Reset,
}

#[derive(Clone, Debug, Default)]
struct Encoded {
    /// Which formats need no more work, here or in `wire`.
    done: Wants,
    /// By [`Wire`].
    images: [Option<Image>; Wire::COUNT],
}

impl Message {
    /// Copies the payload, the only time that it is copied, into the only allocation that a message makes.
    #[must_use]
    pub fn new(topic: Topic, kind: Kind, payload: &[u8], publisher: Option<Publisher>) -> Self {
        Self::traced(topic, kind, payload, publisher, None)
    }

    /// What tells those who hear a topic that some of it is lost and that it goes on behind this place: in each format what one
    /// hears who resumes too late. It has a place as messages have, and goes the same way.
    #[must_use]
    pub fn reset(topic: Topic, cursor: Cursor) -> Self {
        let mut told = Vec::new();
        json::Place { topic: topic.as_str(), epoch: cursor.epoch.0, offset: cursor.offset.0 }.reset(&mut told);
        let message = Self::new(topic, Kind::Text, &told, None);
        Self { epoch: cursor.epoch, offset: cursor.offset, body: Body::Reset, ..message }
    }

    /// Whether it is no message, but tells of [such an end](Message::reset).
    #[must_use]
    pub const fn is_reset(&self) -> bool {
        matches!(self.body, Body::Reset)
    }

    /// The same for a message that belongs to a trace, in the same one allocation.
    #[must_use]
    pub fn traced(
        topic: Topic,
        kind: Kind,
        payload: &[u8],
        publisher: Option<Publisher>,
        trace: Option<Trace<'_>>,
    ) -> Self {
        let header = frame::Header::message(kind, payload.len(), false);
        let head = header.as_slice().len();
        // One allocation, safely: an exact-size iterator fills the shared slice, then its only owner writes into it.
        let body_end = head + payload.len() + 1;
        let state = trace.map_or("", |trace| trace.state);
        let trace_bytes = if trace.is_some() { Parent::BYTES + state.len() } else { 0 };
        let mut wire: Arc<[u8]> = repeat_n(0, body_end + trace_bytes).collect();
        if let Some(bytes) = Arc::get_mut(&mut wire) {
            bytes[..head].copy_from_slice(header.as_slice());
            bytes[head..head + payload.len()].copy_from_slice(payload);
            bytes[head + payload.len()] = b'\n';
            if let Some(trace) = trace {
                bytes[body_end..body_end + Parent::BYTES].copy_from_slice(&trace.parent.to_bytes());
                bytes[body_end + Parent::BYTES..].copy_from_slice(state.as_bytes());
            }
        }
        let head = u8::try_from(head).unwrap_or(u8::MAX);
        // At most 567: the state is bounded where it is read.
        let trace_bytes = u16::try_from(trace_bytes).unwrap_or(0);
        let (epoch, offset, time_ms) = (Epoch(0), Offset(0), 0);
        let body = if kind == Kind::Text { Body::Text } else { Body::Binary };
        Self {
            topic,
            epoch,
            offset,
            time_ms,
            publisher,
            taken: Stamp::NONE,
            body,
            head,
            trace_bytes,
            wire,
            encoded: None,
        }
    }

    /// Past the newline.
    fn body_end(&self) -> usize {
        self.wire.len() - usize::from(self.trace_bytes)
    }

    /// The texts of the trace that it belongs to: `traceparent`, and a `tracestate` that may be empty.
    fn trace_texts(&self) -> Option<(&str, &str)> {
        let texts = str::from_utf8(&self.wire[self.body_end()..]).ok()?;
        texts.split_at_checked(Parent::BYTES)
    }

    /// The trace that it belongs to.
    #[must_use]
    pub fn trace(&self) -> Option<Trace<'_>> {
        if self.trace_bytes == 0 {
            return None;
        }
        let (parent, state) = self.trace_texts()?;
        Some(Trace { parent: Parent::parse(parent.as_bytes())?, state })
    }

    /// Whether it belongs to a trace that is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.trace_bytes != 0 && self.trace().is_some_and(|trace| trace.parent.is_sampled())
    }

    /// Makes this span what subscribers see as the one before theirs. Only before the message is shared.
    pub fn set_span(&mut self, span: u64) {
        let (at, Some(trace)) = (self.body_end(), self.trace()) else { return };
        let parent = Parent { span, ..trace.parent };
        if let Some(bytes) = Arc::get_mut(&mut self.wire) {
            bytes[at..at + Parent::BYTES].copy_from_slice(&parent.to_bytes());
        }
    }

    /// Where a subscriber stands who has seen it.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, offset: self.offset }
    }

    /// Text or binary.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.body {
            Body::Text | Body::Reset => Kind::Text,
            Body::Binary => Kind::Binary,
        }
    }

    /// What the publisher said.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.wire[usize::from(self.head)..self.body_end() - 1]
    }

    /// What it keeps in memory, about: tiny messages take more than they say.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.wire.len() + size_of::<Self>() + 64
    }

    /// Encodes what `wants` asks for and is not there yet.
    pub fn prepare(&mut self, wants: Wants, deflater: &mut Deflater) {
        let done = self.encoded.as_ref().map_or(Wants::NONE.with(Wire::WebSocket), |encoded| encoded.done);
        if done.covers(wants) {
            return;
        }
        let mut encoded = self.encoded.as_deref().cloned().unwrap_or_default();
        encoded.done = done.union(wants);
        for wire in Wire::ALL.into_iter().filter(|&wire| wants.has(wire) && !done.has(wire)) {
            encoded.images[wire as usize] = self.encode(wire, deflater).map(Image::from);
        }
        self.encoded = Some(Arc::new(encoded));
    }

    /// The frame for this format; `None` when it lies in `self.wire`.
    fn encode(&self, wire: Wire, deflater: &mut Deflater) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match wire {
            Wire::WebSocket => return None,
            Wire::WebSocketDeflate => return frame::deflated(self.kind(), self.payload(), deflater),
            Wire::Line if line::fits(self.payload()) => return None,
            Wire::Line => line::encode(self.payload(), &mut out),
            Wire::Length => length::encode(self.payload(), &mut out),
            Wire::Json => self.write_json(&mut out),
            Wire::WebSocketJson => {
                let mut json = Vec::new();
                self.write_json(&mut json);
                out.extend_from_slice(frame::Header::message(Kind::Text, json.len(), false).as_slice());
                out.extend_from_slice(&json);
            }
            Wire::JsonStream => write_chunk(
                |out| {
                    self.write_json(out);
                    out.push(b'\n');
                },
                &mut out,
            ),
            Wire::Sse => {
                sse::write_id(self.cursor(), &mut out);
                if self.is_reset() {
                    self.write_json_event(&mut out);
                } else if self.is_text() {
                    sse::write_data(self.payload(), &mut out);
                } else {
                    sse::write_event("binary", &mut out);
                    self.write_json_event(&mut out);
                }
            }
            Wire::SseMany => self.write_json_event(&mut out),
            Wire::JsonLines => {
                self.write_json(&mut out);
                out.push(b'\n');
            }
            Wire::Grpc if self.is_reset() => grpc::write_reset(self.place(), &mut out),
            Wire::Grpc => {
                let kind = if self.is_text() { Kind::Text } else { Kind::Binary };
                grpc::write_message(self.place(), self.time_ms, kind, self.payload(), self.trace_texts(), &mut out);
            }
        }
        Some(out)
    }

    fn place(&self) -> json::Place<'_> {
        json::Place { topic: self.topic.as_str(), epoch: self.epoch.0, offset: self.offset.0 }
    }

    /// Whether it can be sent as text: what raw TCP calls text need not be.
    fn is_text(&self) -> bool {
        self.kind() == Kind::Text && simdutf8::basic::from_utf8(self.payload()).is_ok()
    }

    fn write_json_event(&self, out: &mut Vec<u8>) {
        let mut json = Vec::new();
        if self.is_reset() {
            sse::write_event("reset", out);
        }
        self.write_json(&mut json);
        sse::write_data(&json, out);
    }

    /// Appends its JSON, without a line break.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        if self.is_reset() {
            return out.extend_from_slice(self.payload());
        }
        self.place().message(self.time_ms, self.kind(), self.payload(), out);
        if let Some((parent, state)) = self.trace_texts() {
            json::write_trace(parent, state, out);
        }
    }

    /// The frame for this format, encoded now if nobody has prepared it.
    pub fn encoded(&mut self, wire: Wire, deflater: &mut Deflater) -> Image {
        self.prepare(Wants::NONE.with(wire), deflater);
        self.image(wire).unwrap_or_else(|| Image { bytes: Arc::clone(&self.wire), start: 0, end: 0 })
    }

    /// The frame for this format; `None` when nobody has prepared it.
    #[must_use]
    pub fn image(&self, wire: Wire) -> Option<Image> {
        let plain = |start, end| Image { bytes: Arc::clone(&self.wire), start, end };
        let websocket = || plain(0, self.body_end() - 1);
        if wire == Wire::WebSocket {
            return Some(websocket());
        }
        let encoded = self.encoded.as_ref().filter(|encoded| encoded.done.has(wire))?;
        Some(encoded.images[wire as usize].clone().unwrap_or_else(|| match wire {
            Wire::Line => plain(usize::from(self.head), self.body_end()),
            _ => websocket(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of one trace, and as it looks to subscribers.
    fn traced(kind: Kind, payload: &[u8], state: &str) -> Message {
        let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::parse(parent, Some(state.as_bytes()));
        let topic = Topic::parse(b"t", Topic::BYTES_MAX).expect("a topic");
        Message::traced(topic, kind, payload, None, trace)
    }

    #[test]
    fn a_trace_is_told_where_the_format_has_room() {
        let mut message = traced(Kind::Text, b"hi", "a=b");
        message.set_span(0xabc);
        let mut encoded = |wire| {
            let image = message.encoded(wire, &mut Deflater::default());
            String::from_utf8_lossy(image.as_slice()).into_owned()
        };
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000abc-01";
        let json = format!(
            "{{\"topic\":\"t\",\"epoch\":0,\"offset\":0,\"time\":0,\"text\":\"hi\",\
             \"traceparent\":\"{parent}\",\"tracestate\":\"a=b\"}}"
        );
        assert_eq!(encoded(Wire::Json), json);
        assert_eq!(encoded(Wire::SseMany), format!("data: {json}\n\n"));
        assert!(encoded(Wire::Grpc).ends_with(&format!("\"\x02hi2\x37{parent}:\x03a=b")), "{:?}", encoded(Wire::Grpc));
        for (wire, expected) in
            [(Wire::WebSocket, "\u{fffd}\x02hi"), (Wire::Line, "hi\n"), (Wire::Length, "\0\0\0\x02hi")]
        {
            assert_eq!(encoded(wire), expected);
        }
        assert!(encoded(Wire::Sse).ends_with("data: hi\n\n"));
        assert_eq!((message.payload(), message.is_sampled()), (&b"hi"[..], true));
    }

    /// In every format it is what `session::encode_reset` writes, behind its place where events have one.
    #[test]
    fn a_reset_looks_like_that_of_who_resumes_too_late() {
        let topic = Topic::parse(b"t", Topic::BYTES_MAX).expect("a topic");
        let mut reset = Message::reset(topic, Cursor { epoch: Epoch(5), offset: Offset(7) });
        let mut encoded = |wire| {
            let image = reset.encoded(wire, &mut Deflater::default());
            String::from_utf8_lossy(image.as_slice()).into_owned()
        };
        let json = "{\"topic\":\"t\",\"epoch\":5,\"offset\":7,\"reset\":true}";
        assert_eq!(encoded(Wire::Json), json);
        assert_eq!(encoded(Wire::Line), format!("{json}\n"));
        assert_eq!(encoded(Wire::JsonLines), format!("{json}\n"));
        assert_eq!(encoded(Wire::Sse), format!("id: 5:7\nevent: reset\ndata: {json}\n\n"));
        assert_eq!(encoded(Wire::SseMany), format!("event: reset\ndata: {json}\n\n"));
        for wire in [Wire::WebSocket, Wire::WebSocketJson, Wire::Length, Wire::JsonStream] {
            assert!(encoded(wire).trim_end().ends_with(json), "{wire:?}");
        }
        let mut grpc = Vec::new();
        grpc::write_reset(json::Place { topic: "t", epoch: 5, offset: 7 }, &mut grpc);
        assert_eq!(reset.encoded(Wire::Grpc, &mut Deflater::default()).as_slice(), grpc);
        assert!(reset.is_reset() && reset.kind() == Kind::Text);
    }

    #[test]
    fn a_trace_without_a_state_says_none() {
        let mut out = Vec::new();
        traced(Kind::Binary, b"\xff", "no state").write_json(&mut out);
        let text = String::from_utf8(out).expect("JSON is text");
        assert!(
            text.ends_with(
                "\"base64\":\"/w==\",\"traceparent\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"}"
            ),
            "{text}"
        );
        // No more than a message took before there were traces.
        assert_eq!(size_of::<Message>(), 96);
    }

    #[test]
    fn text_of_raw_tcp_that_is_none_is_binary_to_grpc() {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("a short one");
        let topic = Topic::parse(b"t", Topic::BYTES_MAX).expect("a topic");
        for (kind, payload, tag) in [
            (Kind::Text, &b"hi"[..], 0x22),
            (Kind::Text, b"", 0x22),
            (Kind::Text, b"\xff", 0x2a),
            (Kind::Binary, b"hi", 0x2a),
        ] {
            let mut message = Message::new(topic.clone(), kind, payload, None);
            (message.epoch, message.offset, message.time_ms) = (Epoch(1), Offset(2), 3);
            let image = message.encoded(Wire::Grpc, &mut Deflater::default());
            let inside =
                [&b"\x0a\x01t\x12\x04\x08\x01\x10\x02\x18\x03"[..], &[tag, length(payload)][..], payload].concat();
            let lengths = [0, 0, 0, 0, length(&inside) + 2, 0x12, length(&inside)];
            assert_eq!(image.as_slice(), [&lengths[..], &inside].concat(), "{kind:?} {payload:?}");
        }
    }
}
